//! `[monitor]`, `[[alert]]`, `[notify]` and `[log]` as data.

use super::{DURATION, ENDPOINT, Kind, NAME, Named, Realm, Table, Word, key, now};
use crate::config::{LogTo, places::Url, words::Size};

word!(SIZE, Size, "a size", "32MB", "512KB");
word!(
    LOG_PLACE,
    LogTo,
    "a place for a log",
    "journal",
    "none",
    "/var/log/foobar/access.log"
);
word!(URL, Url, "a URL", "http://127.0.0.1:9093");

pub(super) static MONITOR: Table = Table {
    what: "`[monitor]`",
    about: "Where metrics and logs go.",
    keys: &[
        key(
            "prometheus",
            Kind::Table(&PROMETHEUS),
            "Metrics to be fetched.",
        ),
        key(
            "otlp",
            Kind::Table(&OTLP),
            "Metrics and logs pushed by OTLP/HTTP.",
        ),
        key(
            "sumologic",
            Kind::Table(&SUMOLOGIC),
            "Metrics and logs pushed to an HTTP source of Sumo Logic.",
        ),
        key(
            "labels",
            Kind::Named(&LABELS),
            "Labels on all that is pushed, as `{ environment = \"prod\" }`.",
        ),
    ],
    one_of: &[],
};

static LABELS: Named = Named {
    what: "a label",
    about: "A label and its value.",
    kind: Kind::Text,
};

static PROMETHEUS: Table = Table {
    what: "`prometheus`",
    about: "Metrics to be fetched.",
    keys: &[key(
        "listen",
        Kind::Word(&ENDPOINT),
        "Where each node serves `/metrics`, `/healthz` and `/readyz`; the firewall must let the one in who fetches.",
    )
    .needed()],
    one_of: &[],
};

static OTLP: Table = Table {
    what: "`otlp`",
    about: "Metrics and logs pushed by OTLP/HTTP.",
    keys: &[
        key(
            "endpoint",
            Kind::Secret,
            "The URL; `/v1/metrics` and `/v1/logs` are put behind it.",
        )
        .needed(),
        key(
            "interval",
            Kind::Word(&DURATION),
            "Time between pushes; 30s by default.",
        ),
        key(
            "signals",
            Kind::OneOrMany(&Kind::Choice(&[now("metrics"), now("logs")])),
            "What is pushed; `metrics` by default.",
        ),
        key("buffer", Kind::Word(&SIZE), BUFFER),
    ],
    one_of: &[],
};

static SUMOLOGIC: Table = Table {
    what: "`sumologic`",
    about: "Metrics and logs pushed to Sumo Logic.",
    keys: &[
        key(
            "url",
            Kind::Secret,
            "The URL of the HTTP source; whoever has it may write.",
        )
        .needed(),
        key(
            "category",
            Kind::Text,
            "`X-Sumo-Category`, as `prod/foobar`.",
        ),
        key(
            "interval",
            Kind::Word(&DURATION),
            "Time between pushes; 60s by default, since data points are paid for.",
        ),
        key(
            "signals",
            Kind::OneOrMany(&Kind::Choice(&[now("metrics"), now("logs")])),
            "What is pushed; `metrics` by default.",
        ),
        key("buffer", Kind::Word(&SIZE), BUFFER),
    ],
    one_of: &[],
};

const BUFFER: &str = "Memory for what waits while nobody answers, 32MB by default; beyond it the oldest is dropped, and counted in `foobar_export_dropped_total`.";

pub(super) static ALERT: Table = Table {
    what: "an alert",
    about: "A threshold that tells someone. Exactly one of `above` and `below`.",
    keys: &[
        key(
            "name",
            Kind::Word(&NAME),
            "What it is called; unique in the file.",
        )
        .needed(),
        key(
            "metric",
            Kind::Choice(&[
                now("qps"),
                now("error-rate"),
                now("latency-p50"),
                now("latency-p90"),
                now("latency-p95"),
                now("latency-p99"),
                now("latency-p999"),
                now("drops"),
                now("backends-up"),
                now("backends-down"),
                now("replica-lag"),
                now("failover"),
                now("no-writer"),
                now("rival-writers"),
                now("semi-sync-degraded"),
                now("writes-stalled"),
                now("preflight-lacks"),
                now("certificate-expiry"),
                now("map-pressure"),
                now("export-dropped"),
                now("reload-failed"),
                now("xdp-generic"),
            ]),
            "What is measured. Rates (`qps`, `drops`, `export-dropped`) are by the second, `error-rate` and `map-pressure` in percent, `latency-…`, `replica-lag` and `certificate-expiry` durations, the others numbers; `failover` counts those of the last five minutes, `no-writer`, `rival-writers`, `semi-sync-degraded`, `writes-stalled` and `preflight-lacks` what of a database cluster is not as it should be, 0 when all is well.",
        )
        .needed(),
        key(
            "of",
            Kind::Name(Realm::Service),
            "The service, as `l7.www`; all of the node's together by default.",
        ),
        key(
            "reason",
            Kind::Text,
            "With `drops`: those for this reason alone, as `rule`.",
        ),
        key(
            "above",
            Kind::Quantity,
            "Fires above this.",
        ),
        key(
            "below",
            Kind::Quantity,
            "Fires below this.",
        ),
        key(
            "clear-below",
            Kind::Quantity,
            "With `above`: ends below this; `above` by default.",
        ),
        key(
            "clear-above",
            Kind::Quantity,
            "With `below`: ends above this; `below` by default.",
        ),
        key(
            "for",
            Kind::Word(&DURATION),
            "How long it must last before anyone is told; at once by default.",
        ),
        key(
            "severity",
            Kind::Choice(&[now("critical"), now("warning"), now("info")]),
            "A label for those who are told; `warning` by default.",
        ),
        key(
            "notify",
            Kind::OneOrMany(&Kind::Name(Realm::Notify)),
            "Whom it tells, by names under `[notify]`; `journal` is always there.",
        ),
    ],
    one_of: &["above", "below"],
};

pub(super) static NOTIFY: Named = Named {
    what: "a notify target",
    about: "Whom alerts tell.",
    kind: Kind::Table(&NOTIFY_TARGET),
};

static NOTIFY_TARGET: Table = Table {
    what: "a notify target",
    about: "Whom alerts tell: exactly one of `webhook`, `alertmanager` and `command`.",
    keys: &[
        key(
            "webhook",
            Kind::Secret,
            "The URL that gets an Alertmanager-shaped body.",
        ),
        key(
            "alertmanager",
            Kind::Word(&URL),
            "The URL of an Alertmanager, which gets alerts by its API (v2).",
        ),
        key(
            "command",
            Kind::OneOrMany(&Kind::Text),
            "A program with its arguments, run without a shell; it gets the body of the webhook on its standard input.",
        ),
        key(
            "repeat",
            Kind::Word(&DURATION),
            "How often a lasting alert is told again; 4h by default. An Alertmanager is told every minute, for it forgets, and repeats by its own settings.",
        ),
    ],
    one_of: &["alertmanager", "command", "webhook"],
};

pub(super) static LOG: Table = Table {
    what: "`[log]`",
    about: "What is written of requests, drops and administration, and where to.",
    keys: &[
        key("access", Kind::Table(&ACCESS_LOG), "Requests of the proxy."),
        key(
            "drops",
            Kind::Table(&DROP_LOG),
            "Packets that the firewall dropped, sampled.",
        ),
        key(
            "audit",
            Kind::Table(&AUDIT_LOG),
            "Who changed what by the command line or the socket.",
        ),
    ],
    one_of: &[],
};

static ACCESS_LOG: Table = Table {
    what: "`access`",
    about: "Requests of the proxy.",
    keys: &[
        key("to", Kind::Word(&LOG_PLACE), PLACE).needed(),
        key(
            "format",
            Kind::Choice(&[now("json"), now("combined")]),
            "`json` (default), or `combined` as web servers write it.",
        ),
        key(
            "sample",
            Kind::Whole {
                least: 1,
                most: 1_000_000,
            },
            "One of how many requests is written, 1 by default; server errors always are.",
        ),
        key("max-size", Kind::Word(&SIZE), MAX_SIZE),
        key(
            "keep",
            Kind::Whole {
                least: 0,
                most: 1_000,
            },
            KEEP,
        ),
    ],
    one_of: &[],
};

static DROP_LOG: Table = Table {
    what: "`drops`",
    about: "Packets that the firewall dropped, sampled.",
    keys: &[
        key("to", Kind::Word(&LOG_PLACE), PLACE).needed(),
        key(
            "per-second",
            Kind::Whole {
                least: 1,
                most: 10_000,
            },
            "The most that are written in a second, 100 by default; all are counted.",
        ),
        key("max-size", Kind::Word(&SIZE), MAX_SIZE),
        key(
            "keep",
            Kind::Whole {
                least: 0,
                most: 1_000,
            },
            KEEP,
        ),
    ],
    one_of: &[],
};

static AUDIT_LOG: Table = Table {
    what: "`audit`",
    about: "Who changed what.",
    keys: &[
        key("to", Kind::Word(&LOG_PLACE), PLACE).needed(),
        key("max-size", Kind::Word(&SIZE), MAX_SIZE),
        key(
            "keep",
            Kind::Whole {
                least: 0,
                most: 1_000,
            },
            KEEP,
        ),
    ],
    one_of: &[],
};

const PLACE: &str = "`journal` (the controller's own log), `none`, or a file, in which `{node}` stands for the node's name.";
const MAX_SIZE: &str = "How large a file may become before it is put aside; 100MB by default.";
const KEEP: &str = "How many files are kept that were put aside; 5 by default.";
