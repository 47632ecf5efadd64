//! The metrics of the proxy.

use std::borrow::Cow;

use super::{Family, Kind, Labels, Series, Unit, Value, series, truth};
use crate::{
    admin::api::{BackendState, RequestCount, SiteBackendCounters, SiteCounters, Snapshot},
    tally::upper_end,
};

pub fn of_sites(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let all: Vec<(Labels<'_>, &RequestCount)> = snapshot
        .sites
        .iter()
        .map(|site| (vec![("service", site.name.as_str().into())], &site.requests))
        .collect();
    let simple = SIMPLE.iter().map(|(name, unit, cell, help)| Family {
        name,
        unit: *unit,
        kind: Kind::Counter,
        help,
        series: counted(&all, cell),
    });
    [
        Family {
            name: "foobar_http_requests",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Answers of the site by class of their status; 5xx are not normal",
            series: classes(&all),
        },
        Family {
            name: "foobar_http_request_duration",
            unit: Unit::Seconds,
            kind: Kind::Histogram,
            help: "From the head of a request to the end of its answer",
            series: durations(&all),
        },
        Family {
            name: "foobar_http_bytes",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Bytes of requests (in) and answers (out)",
            series: directions(&all),
        },
        Family {
            name: "foobar_http_turned_away",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Requests that no backend was asked, by cause; many of cause refused or limited are an attack, of cause shed or unavailable an overload",
            series: causes(&all),
        },
    ]
    .into_iter()
    .chain(simple)
    .collect()
}

pub fn of_backends(snapshot: &Snapshot) -> Vec<Family<'_>> {
    let all: Vec<(Labels<'_>, &SiteBackendCounters)> = snapshot
        .sites
        .iter()
        .flat_map(|site| {
            site.backends
                .iter()
                .map(move |backend| (backend_labels(site, backend), backend))
        })
        .collect();
    let requests: Vec<(Labels<'_>, &RequestCount)> = all
        .iter()
        .map(|(labels, backend)| (labels.clone(), &backend.requests))
        .collect();
    let state = |wanted: BackendState| {
        all.iter()
            .filter_map(|(labels, backend)| {
                Some(Series {
                    labels: labels.clone(),
                    value: truth(backend.state? == wanted),
                })
            })
            .collect()
    };
    vec![
        Family {
            name: "foobar_http_backend_up",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the backend takes requests; 0 is normal only while it is drained or disabled",
            series: state(BackendState::Up),
        },
        Family {
            name: "foobar_http_backend_down",
            unit: Unit::None,
            kind: Kind::Gauge,
            help: "1 if the backend fails its checks; 1 is not normal",
            series: state(BackendState::Down),
        },
        Family {
            name: "foobar_http_backend_requests",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Answers of the backend by class of their status",
            series: classes(&requests),
        },
        Family {
            name: "foobar_http_backend_duration",
            unit: Unit::Seconds,
            kind: Kind::Histogram,
            help: "From an attempt to the head of the backend's answer",
            series: durations(&requests),
        },
        Family {
            name: "foobar_http_backend_troubles",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Attempts that went wrong at the backend, by cause; a few are normal, a rate is not",
            series: troubles(&requests),
        },
    ]
}

/// What happens before it is known which site is meant.
pub fn at_the_door(snapshot: &Snapshot) -> [Family<'_>; 3] {
    let of = |label: &'static str, cells: &[(&'static str, &str)]| {
        let series = |(word, cell): &(&'static str, &str)| {
            let count = snapshot.door.get(*cell)?;
            let labels = [(label, Cow::from(*word))];
            Some(self::series(labels, Value::Whole(*count)))
        };
        cells.iter().filter_map(series).collect()
    };
    [
        Family {
            name: "foobar_proxy_connections",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Connections to the proxy by what became of them at its door; refusals are not normal",
            series: of(
                "outcome",
                &[
                    ("accepted", "accepted"),
                    ("refused-full", "refused_full"),
                    ("refused-client", "refused_client"),
                    ("refused-rate", "refused_rate"),
                    ("bad-proxy-header", "bad_proxied"),
                ],
            ),
        },
        Family {
            name: "foobar_proxy_handshakes_failed",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "TLS handshakes with the proxy that came to nothing, by cause; scanners make some",
            series: of(
                "cause",
                &[
                    ("failed", "handshakes_failed"),
                    ("timeout", "handshakes_timed_out"),
                    ("unknown-name", "unknown_name"),
                ],
            ),
        },
        Family {
            name: "foobar_proxy_faults",
            unit: Unit::None,
            kind: Kind::Counter,
            help: "Connections and workers that a fault of foobar's own ended; not normal",
            series: snapshot
                .door
                .get("faults")
                .map(|count| series([], Value::Whole(*count)))
                .into_iter()
                .collect(),
        },
    ]
}

pub fn certificates(snapshot: &Snapshot) -> [Family<'_>; 1] {
    [Family {
        name: "foobar_certificate_expiry",
        unit: Unit::Seconds,
        kind: Kind::Gauge,
        help: "How long the site's certificate is still good for; below two weeks is not normal",
        series: snapshot
            .certificates
            .iter()
            .enumerate()
            .map(|(number, certificate)| {
                series(
                    [
                        ("service", certificate.service.as_str().into()),
                        ("certificate", Cow::from(number.to_string())),
                    ],
                    Value::Real(certificate.seconds_left),
                )
            })
            .collect(),
    }]
}

fn backend_labels<'a>(site: &'a SiteCounters, backend: &SiteBackendCounters) -> Labels<'a> {
    vec![
        ("service", site.name.as_str().into()),
        (
            "backend",
            format!("{}:{}", backend.host, backend.port).into(),
        ),
    ]
}

fn count(requests: &RequestCount, cell: &str) -> Value {
    Value::Whole(requests.counts.get(cell).copied().unwrap_or_default())
}

fn counted<'a>(all: &[(Labels<'a>, &RequestCount)], cell: &str) -> Vec<Series<'a>> {
    all.iter()
        .map(|(labels, requests)| Series {
            labels: labels.clone(),
            value: count(requests, cell),
        })
        .collect()
}

/// A series for each of `cells`, told apart by the label `key`.
fn by<'a>(
    all: &[(Labels<'a>, &RequestCount)],
    key: &'static str,
    cells: &[(&'static str, &'static str)],
) -> Vec<Series<'a>> {
    all.iter()
        .flat_map(|(labels, requests)| {
            cells.iter().map(|(word, cell)| {
                let mut labels = labels.clone();
                labels.push((key, Cow::from(*word)));
                Series {
                    labels,
                    value: count(requests, cell),
                }
            })
        })
        .collect()
}

fn classes<'a>(all: &[(Labels<'a>, &RequestCount)]) -> Vec<Series<'a>> {
    by(
        all,
        "code",
        &[
            ("1xx", "status_1xx"),
            ("2xx", "status_2xx"),
            ("3xx", "status_3xx"),
            ("4xx", "status_4xx"),
            ("5xx", "status_5xx"),
        ],
    )
}

fn directions<'a>(all: &[(Labels<'a>, &RequestCount)]) -> Vec<Series<'a>> {
    by(
        all,
        "direction",
        &[("in", "bytes_in"), ("out", "bytes_out")],
    )
}

fn causes<'a>(all: &[(Labels<'a>, &RequestCount)]) -> Vec<Series<'a>> {
    by(
        all,
        "cause",
        &[
            ("refused", "refused"),
            ("limited", "limited"),
            ("shed", "shed"),
            ("held-back", "held_back"),
            ("unavailable", "unavailable"),
            ("maintenance", "maintenance"),
        ],
    )
}

fn troubles<'a>(all: &[(Labels<'a>, &RequestCount)]) -> Vec<Series<'a>> {
    by(
        all,
        "cause",
        &[
            ("connect", "connect_failures"),
            ("reset", "resets"),
            ("timeout", "timeouts"),
            ("bad-answer", "bad_answers"),
            ("ejected", "ejections"),
            ("death", "deaths"),
        ],
    )
}

/// One bound for each doubling: four would be too many series.
fn durations<'a>(all: &[(Labels<'a>, &RequestCount)]) -> Vec<Series<'a>> {
    all.iter()
        .map(|(labels, requests)| Series {
            labels: labels.clone(),
            value: buckets(&requests.latency),
        })
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of durations needs no more than 52 bits"
)]
fn buckets(latency: &[u64]) -> Value {
    let mut seen = 0;
    let mut sum = 0.0;
    let mut below = Vec::new();
    for bucket in 0..SHOWN_BUCKETS {
        let count = latency.get(bucket).copied().unwrap_or_default();
        seen += count;
        let end = upper_end(bucket).as_secs_f64();
        sum += end * count as f64;
        if bucket % 4 == 0 {
            below.push((end, seen));
        }
    }
    let slower: u64 = latency.iter().skip(SHOWN_BUCKETS).sum();
    sum += upper_end(SHOWN_BUCKETS).as_secs_f64() * slower as f64;
    below.push((f64::INFINITY, seen + slower));
    Value::Buckets { below, sum }
}

/// Up to half a minute.
const SHOWN_BUCKETS: usize = 85;

type Simple = (&'static str, Unit, &'static str, &'static str);

const SIMPLE: &[Simple] = &[
    (
        "foobar_http_connections_opened",
        Unit::None,
        "connections_opened",
        "Clients' connections to the site; less those closed, they are open",
    ),
    (
        "foobar_http_connections_closed",
        Unit::None,
        "connections_closed",
        "Clients' connections that ended",
    ),
    (
        "foobar_http_retries",
        Unit::None,
        "retries",
        "Attempts after a first one that failed; a few are normal",
    ),
    (
        "foobar_http_lost",
        Unit::None,
        "lost",
        "Requests lost with the backend that they were on; not normal",
    ),
    (
        "foobar_http_retries_denied",
        Unit::None,
        "retries_denied",
        "Retries that the site's budget did not allow; not normal",
    ),
    (
        "foobar_http_clients_gone",
        Unit::None,
        "client_gone",
        "Requests whose client went away before the answer was whole; some are normal",
    ),
    (
        "foobar_http_clients_slow",
        Unit::None,
        "client_slow",
        "Clients that were too slow with a head, a body or in taking an answer; many are an attack",
    ),
    (
        "foobar_http_floods",
        Unit::None,
        "floods",
        "HTTP/2 connections that were ended because of a flood of frames; each is an attack",
    ),
    (
        "foobar_http_offenders",
        Unit::None,
        "offenders",
        "Clients that were reported for the jail; each is an attack",
    ),
    (
        "foobar_tls_handshakes",
        Unit::None,
        "handshakes",
        "TLS handshakes with clients, resumed ones included",
    ),
    (
        "foobar_tls_resumptions",
        Unit::None,
        "resumptions",
        "Handshakes that resumed an earlier session; many are good",
    ),
    (
        "foobar_tls_handshakes_failed",
        Unit::None,
        "handshakes_failed",
        "Handshakes that failed; scanners make some",
    ),
];
