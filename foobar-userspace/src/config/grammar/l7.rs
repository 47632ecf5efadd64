//! `[l7.*]` and `[proxy]`.

mod behind;

use self::behind::{
    BACKEND_TLS, BLAST_RADIUS, BREAKER, EJECTION, L7_CHECK, PROXY_PROTOCOL, QUEUE, RETRIES,
};
use super::{
    BACKEND, DNS_NAME, DURATION, ENDPOINT, FILE, Key, Kind, Named, RATE, Realm, Table, URL_PATH,
    Word, key, now,
};
use crate::config::words::{HashedBy, RetryCause, Size, Url};

word!(SIZE, Size, "a size", "32KB", "16MB");
word!(URL, Url, "a URL", "https://acme.example/directory");
word!(
    HASHED_BY,
    HashedBy,
    "what is hashed",
    "source",
    "cookie:session",
    "header:x-user"
);
word!(
    RETRY_CAUSE,
    RetryCause,
    "a cause of a retry",
    "connect",
    "reset",
    "timeout",
    "503"
);

const fn word_key(name: &'static str, word: &'static Word, about: &'static str) -> Key {
    key(name, Kind::Word(word), about)
}

const fn count(name: &'static str, least: i64, most: i64, about: &'static str) -> Key {
    key(name, Kind::Whole { least, most }, about)
}

const MANY: i64 = 1_000_000;

pub(in crate::config) static PROXY: Table = Table {
    what: "`[proxy]`",
    about: "What the proxy of every node shares among its sites.",
    keys: &[
        count("workers", 1, 1_024, "Threads; one a core by default."),
        count(
            "max-connections",
            1,
            10 * MANY,
            "Connections of clients at once; 50000 by default. More are closed as they come.",
        ),
        count(
            "max-connections-per-client",
            1,
            MANY,
            "Connections of one client (IPv6: of one /64) at once; 1000 by default.",
        ),
        count(
            "max-handshakes",
            1,
            MANY,
            "TLS handshakes at once; 2000 by default. More wait.",
        ),
        word_key(
            "handshakes-per-client",
            &RATE,
            "TLS handshakes of one client (IPv6: of one /64); `100/s` by default.",
        ),
        count(
            "handshakes-burst",
            1,
            MANY,
            "TLS handshakes of one client that may come at once; twice the rate's number by default.",
        ),
        word_key(
            "drain",
            &DURATION,
            "How long connections may end by themselves when foobar stops or is upgraded; 30s by default.",
        ),
    ],
    one_of: &[],
};

pub(in crate::config) static L7_SERVICES: Named = Named {
    what: "an l7 service",
    about: "A site behind the TLS-terminating proxy.",
    kind: Kind::Table(&L7_SERVICE),
};

static L7_SERVICE: Table = Table {
    what: "an l7 service",
    about: "HTTP behind the TLS-terminating proxy: some names and paths, and the backends that answer for them.",
    keys: &[
        key("on", Kind::Name(Realm::Node), "The node that runs the proxy.").needed(),
        key(
            "listen",
            Kind::OneOrMany(&Kind::Word(&ENDPOINT)),
            "Where it listens for TLS: `public:…` and `private:…` mean the node's addresses of both families. Several services may share an endpoint.",
        )
        .needed(),
        key(
            "http-redirect",
            Kind::OneOrMany(&Kind::Word(&ENDPOINT)),
            "Where plain HTTP is redirected to HTTPS, and ACME's challenges are answered.",
        ),
        key(
            "hosts",
            Kind::OneOrMany(&Kind::Word(&DNS_NAME)),
            "The names that it answers to, `*.foobar.com` for any one label; without it, every name that no other service has.",
        ),
        key(
            "paths",
            Kind::OneOrMany(&Kind::Word(&URL_PATH)),
            "The paths that it answers to, with all below them; `/` by default. The longest of all services decides.",
        ),
        key(
            "tls",
            Kind::Table(&TLS),
            "Towards clients. May be left out if another service on the same endpoints has it for the same hosts.",
        ),
        key("backends", Kind::Many(&Kind::Table(&BACKEND)), "Where requests go.").needed(),
        key(
            "backend-tls",
            Kind::Table(&BACKEND_TLS),
            "Encryption towards the backends; without it requests cross the estate in clear.",
        ),
        key(
            "backend-protocol",
            Kind::Choice(&[now("http/1.1"), now("h2")]),
            "What the backends speak: `http/1.1` by default; gRPC needs `h2`.",
        ),
        key("proxy-protocol", Kind::Table(&PROXY_PROTOCOL), "The PROXY protocol, before and behind."),
        key(
            "check",
            Kind::Table(&L7_CHECK),
            "How a backend's health is told; without it all count as healthy until requests fail.",
        ),
        key(
            "balance",
            Kind::Choice(&[
                now("p2c"),
                now("least-connections"),
                now("round-robin"),
                now("hrw"),
            ]),
            "How requests are spread: `p2c` (default, the better of two at random), `least-connections`, `round-robin`, or `hrw` by what `hash` names.",
        ),
        word_key(
            "hash",
            &HASHED_BY,
            "With `balance = \"hrw\"`: what is hashed; `source` by default.",
        ),
        key(
            "sticky",
            Kind::Choice(&[now("cookie"), now("source")]),
            "What keeps a client at one backend: a cookie of the proxy, or its address.",
        ),
        count("shuffle", 1, 64, "How many backends one client may reach; all by default."),
        word_key("slow-start", &DURATION, "How long a backend that comes back takes to its full weight."),
        count(
            "panic",
            0,
            100,
            "With less than this percentage of the weights healthy, requests go to all; 34 by default, 0: never.",
        ),
        key("ejection", Kind::Table(&EJECTION), "When a backend that answers badly is left out for a while."),
        key("retries", Kind::Table(&RETRIES), "Requests that are tried again; only those that are safe to."),
        key("breaker", Kind::Table(&BREAKER), "What one backend may hold at once."),
        key("queue", Kind::Table(&QUEUE), "Requests that wait for a backend."),
        key(
            "blast-radius",
            Kind::Table(&BLAST_RADIUS),
            "What becomes of a request that killed a backend.",
        ),
        key("limits", Kind::Table(&HTTP_LIMITS), "What a request may be."),
        key("timeouts", Kind::Table(&TIMEOUTS), "When to give up."),
        key("pages", Kind::Named(&PAGES), "HTML files of the proxy's own answers, by status; `maintenance` too."),
        key("maintenance", Kind::Truth, "`true`: answer everything with 503 and the page `maintenance`."),
        key(
            "jail",
            Kind::Name(Realm::Set),
            "The set (without `@`) that offenders are put into, for the firewall to drop.",
        ),
        count("jail-after", 1, MANY, "Offences that put a client into the jail; 10 by default."),
        word_key("jail-within", &DURATION, "The time that offences are counted over; 1m by default."),
        key(
            "compression",
            Kind::OneOrMany(&Kind::Choice(&[now("gzip"), now("zstd")])),
            "Compression of answers.",
        )
        .later("take it out; let the backends compress"),
    ],
    one_of: &[],
};

static TLS: Table = Table {
    what: "`tls`",
    about: "TLS towards clients: `cert` and `key`, several `certificates`, or `acme`.",
    keys: &[
        word_key(
            "cert",
            &FILE,
            "The certificate chain, PEM, the site's own first.",
        ),
        key("key", Kind::Secret, "Its key, PEM."),
        word_key(
            "ocsp",
            &FILE,
            "A DER OCSP response to staple; read again when it changes.",
        ),
        key(
            "certificates",
            Kind::Many(&Kind::Table(&CERTIFICATE)),
            "More certificates; the name that the client asks for chooses, and ECDSA before RSA.",
        ),
        key(
            "min",
            Kind::Choice(&[now("1.2"), now("1.3")]),
            "The lowest version; `1.2` by default.",
        ),
        key(
            "alpn",
            Kind::Many(&Kind::Choice(&[now("h2"), now("http/1.1")])),
            "Protocols offered, the preferred one first; `[\"h2\", \"http/1.1\"]` by default.",
        ),
        word_key(
            "client-ca",
            &FILE,
            "Who signs the certificates of clients, PEM; clients are asked for one.",
        ),
        key(
            "client-auth",
            Kind::Choice(&[now("required"), now("optional")]),
            "With `client-ca`: whether a client without a certificate is refused (default).",
        ),
        word_key(
            "ticket-keys",
            &FILE,
            "A file of 80 random bytes, or a directory of such files, the key of session tickets that several balancers share: the newest encrypts, all decrypt.",
        ),
        word_key(
            "ticket-rotation",
            &DURATION,
            "Without `ticket-keys`: how long a key of the proxy's own encrypts; 12h by default.",
        ),
        key(
            "hsts",
            Kind::Table(&HSTS),
            "`Strict-Transport-Security`: browsers then never come in clear.",
        ),
        key(
            "acme",
            Kind::Table(&ACME),
            "Certificates fetched and renewed from an ACME server.",
        ),
    ],
    one_of: &[],
};

static CERTIFICATE: Table = Table {
    what: "a certificate",
    about: "A certificate and its key.",
    keys: &[
        word_key(
            "cert",
            &FILE,
            "The certificate chain, PEM, the site's own first.",
        )
        .needed(),
        key("key", Kind::Secret, "Its key, PEM.").needed(),
        word_key("ocsp", &FILE, "A DER OCSP response to staple."),
    ],
    one_of: &[],
};

static HSTS: Table = Table {
    what: "`hsts`",
    about: "`Strict-Transport-Security`.",
    keys: &[
        word_key(
            "max-age",
            &DURATION,
            "How long browsers remember, as `365d`.",
        )
        .needed(),
        key(
            "include-subdomains",
            Kind::Truth,
            "Also for every name below; false by default.",
        ),
        key(
            "preload",
            Kind::Truth,
            "May be built into browsers; false by default.",
        ),
    ],
    one_of: &[],
};

static ACME: Table = Table {
    what: "`acme`",
    about: "Certificates from an ACME server, kept under foobar's state directory. By using it you agree to the server's terms.",
    keys: &[
        word_key(
            "directory",
            &URL,
            "The server's directory; Let's Encrypt by default.",
        ),
        key(
            "contact",
            Kind::OneOrMany(&Kind::Text),
            "Mail addresses that the server may write to.",
        ),
        word_key(
            "ca",
            &FILE,
            "Who signs the server's own certificate, PEM; the public authorities by default.",
        ),
        key(
            "challenge",
            Kind::Choice(&[now("http-01"), now("tls-alpn-01")]),
            "How the name is proved: `http-01` (default) needs `http-redirect` on port 80, `tls-alpn-01` needs port 443.",
        ),
        word_key(
            "renew-before",
            &DURATION,
            "How long before its end a certificate is renewed; 30d by default.",
        ),
    ],
    one_of: &[],
};

static HTTP_LIMITS: Table = Table {
    what: "`limits`",
    about: "What a request may be; more is refused.",
    keys: &[
        word_key("head", &SIZE, "Its head; 32KB by default."),
        count("headers", 1, 1_000, "Its headers; 100 by default."),
        word_key("uri", &SIZE, "Its target; 8KB by default."),
        word_key("body", &SIZE, "Its body; 16MB by default."),
        word_key(
            "per-client",
            &RATE,
            "Requests of one client (IPv6: of one /64); no limit by default.",
        ),
        count(
            "burst",
            1,
            MANY,
            "With `per-client`: requests that may come at once; twice the rate's number by default.",
        ),
        count(
            "requests-per-connection",
            1,
            1_000 * MANY,
            "Then the connection is closed; 10000 by default.",
        ),
        count(
            "h2-streams",
            1,
            10_000,
            "HTTP/2: requests at once on one connection; 100 by default.",
        ),
        count(
            "h2-resets",
            1,
            MANY,
            "HTTP/2: requests that a client takes back within `h2-window`; 100 by default.",
        ),
        count(
            "h2-control-frames",
            1,
            MANY,
            "HTTP/2: SETTINGS, PING and empty frames within `h2-window`; 500 by default.",
        ),
        word_key(
            "h2-window",
            &DURATION,
            "The time that these are counted over; 10s by default.",
        ),
    ],
    one_of: &[],
};

static TIMEOUTS: Table = Table {
    what: "`timeouts`",
    about: "When to give up.",
    keys: &[
        word_key(
            "handshake",
            &DURATION,
            "On a TLS handshake; 10s by default.",
        ),
        word_key(
            "head",
            &DURATION,
            "On the whole head of a request; 10s by default.",
        ),
        word_key(
            "body",
            &DURATION,
            "On a body of which nothing more comes; 30s by default.",
        ),
        word_key(
            "write",
            &DURATION,
            "On a client that takes nothing; 30s by default.",
        ),
        word_key(
            "idle",
            &DURATION,
            "On a client's connection without a request; 60s by default.",
        ),
        word_key(
            "connect",
            &DURATION,
            "On a connection to a backend, with its handshake; 2s by default.",
        ),
        word_key(
            "attempt",
            &DURATION,
            "On the head of one attempt's answer; 30s by default.",
        ),
        word_key(
            "request",
            &DURATION,
            "On the head of the answer, with all retries; 60s by default.",
        ),
        word_key(
            "answer",
            &DURATION,
            "On an answer's body of which nothing more comes; 60s by default.",
        ),
        word_key(
            "backend-idle",
            &DURATION,
            "On a connection to a backend without a request; below the backend's own, 4s by default.",
        ),
        word_key(
            "tunnel",
            &DURATION,
            "On an upgraded connection (WebSocket) that says nothing; 10m by default.",
        ),
    ],
    one_of: &[],
};

static PAGES: Named = Named {
    what: "a page",
    about: "An HTML file.",
    kind: Kind::Word(&FILE),
};
