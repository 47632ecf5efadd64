//! Of `[l7.*]`, what is said about its backends.

use super::{MANY, RETRY_CAUSE, count, word_key};
use crate::config::grammar::{DNS_NAME, DURATION, FILE, Kind, Table, URL_PATH, key, now};

pub(super) static BACKEND_TLS: Table = Table {
    what: "`backend-tls`",
    about: "TLS towards the backends.",
    keys: &[
        word_key("ca", &FILE, "Who signs the backends' certificates, PEM.").needed(),
        word_key(
            "cert",
            &FILE,
            "The proxy's own certificate, PEM; with it the backends can tell who asks.",
        ),
        key("key", Kind::Secret, "Its key, PEM."),
        word_key(
            "name",
            &DNS_NAME,
            "The name in every backend's certificate; the name of its host by default.",
        ),
    ],
    one_of: &[],
};

pub(super) static PROXY_PROTOCOL: Table = Table {
    what: "`proxy-protocol`",
    about: "The PROXY protocol.",
    keys: &[
        key(
            "from",
            Kind::OneOrMany(&Kind::Peer),
            "Who must say by it whose connection it is: addresses, prefixes or hosts; nobody by default. All services of an endpoint say the same.",
        ),
        key(
            "to-backends",
            Kind::Choice(&[now("v1"), now("v2")]),
            "Tell it to the backends; connections to them are then not shared among clients. Checks say whose they are too.",
        ),
    ],
    one_of: &[],
};

pub(super) static L7_CHECK: Table = Table {
    what: "a check",
    about: "How a backend's health is told: exactly one of `tcp`, `http` and `https`.",
    keys: &[
        key(
            "tcp",
            Kind::Truth,
            "`true`: healthy when it accepts a connection.",
        ),
        word_key(
            "http",
            &URL_PATH,
            "Healthy when a GET of this path, sent like a request (with `backend-tls`: encrypted), is answered with `expect`.",
        ),
        word_key(
            "https",
            &URL_PATH,
            "The same, said plainly; needs `backend-tls`.",
        ),
        count(
            "expect",
            100,
            599,
            "The status that means healthy; 200 by default.",
        ),
        word_key("every", &DURATION, "Time between checks; 2s by default."),
        word_key(
            "timeout",
            &DURATION,
            "When a check has failed; 1s by default, never more than `every`.",
        ),
        count(
            "rise",
            1,
            1_000,
            "Good checks in a row that bring it back; 2 by default.",
        ),
        count(
            "fall",
            1,
            1_000,
            "Bad checks in a row that take it out; 3 by default.",
        ),
    ],
    one_of: &["http", "https", "tcp"],
};

pub(super) static EJECTION: Table = Table {
    what: "`ejection`",
    about: "When a backend that answers badly (5xx, reset, timeout) is left out for a while, whatever the checks say.",
    keys: &[
        count("failures", 1, MANY, "Failures in a row; 5 by default."),
        count(
            "percent",
            1,
            100,
            "Or this percentage of failures; 50 by default.",
        ),
        count(
            "requests",
            1,
            MANY,
            "Requests within `window` before the percentage counts; 20 by default.",
        ),
        word_key(
            "window",
            &DURATION,
            "The time that the percentage is of; 10s by default.",
        ),
        word_key(
            "for",
            &DURATION,
            "How long the first time, longer each time again; 10s by default.",
        ),
        count(
            "at-most",
            0,
            100,
            "The largest percentage of backends that may be out; 50 by default, 0: no ejection.",
        ),
    ],
    one_of: &[],
};

pub(super) static RETRIES: Table = Table {
    what: "`retries`",
    about: "Requests that are tried again at another backend. Those with a side effect are only if nothing was sent.",
    keys: &[
        count(
            "most",
            0,
            10,
            "Attempts after the first; 1 by default, 0: none.",
        ),
        count(
            "budget",
            0,
            100,
            "Retries as a percentage of requests; 20 by default.",
        ),
        count(
            "least",
            0,
            MANY,
            "Retries a second that are allowed in any case; 10 by default.",
        ),
        key(
            "on",
            Kind::OneOrMany(&Kind::Word(&RETRY_CAUSE)),
            "What is tried again: `connect`, `reset`, `timeout`, `502`, `503`, `504`; `[\"connect\", \"reset\"]` by default.",
        ),
    ],
    one_of: &[],
};

pub(super) static BREAKER: Table = Table {
    what: "`breaker`",
    about: "What one backend may hold at once.",
    keys: &[
        count(
            "connections",
            1,
            MANY,
            "Connections to it; 1024 by default.",
        ),
        count("requests", 1, MANY, "Requests at it; 1024 by default."),
    ],
    one_of: &[],
};

pub(super) static QUEUE: Table = Table {
    what: "`queue`",
    about: "Requests that wait for a backend; beyond it they are refused with 503 and Retry-After.",
    keys: &[
        count("length", 0, MANY, "How many; 1000 by default."),
        word_key("wait", &DURATION, "How long; 500ms by default."),
        word_key(
            "retry-after",
            &DURATION,
            "What is told to those refused, in whole seconds; 1s by default.",
        ),
    ],
    one_of: &[],
};

pub(super) static BLAST_RADIUS: Table = Table {
    what: "`blast-radius`",
    about: "A request whose backend died of it is not offered to the next; its like (client, method and path) are held back for a while.",
    keys: &[
        count(
            "after",
            1,
            1_000,
            "Deaths of backends after which its like are held back; 1 by default.",
        ),
        word_key("hold", &DURATION, "For how long; 30s by default."),
        key("off", Kind::Truth, "`true`: nothing is held back."),
    ],
    one_of: &[],
};
