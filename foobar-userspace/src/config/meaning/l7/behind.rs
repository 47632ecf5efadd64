//! Towards the backends: encryption, choice, retries, and what protects them.

use std::{num::NonZeroU16, path::Path, time::Duration};

use foobar_ebpf::abi::Label;

use super::{duration, file, many, secret, whole};
use crate::config::{
    Backend, BackendTls, BlastRadius, Breaker, Ejection, HashKey, HttpVersion, L7Balance,
    ProxyProtocol, Queue, Retries, RetryOn, Sticky,
    diagnostics::{Problem, Problems},
    meaning::{hosts::Hosts, read as read_word, text},
    tree::Entry,
    words::{DnsName, HashedBy, RetryCause},
};

pub(super) fn backend(entry: Entry<'_>, hosts: &Hosts, problems: &mut Problems) -> Option<Backend> {
    let host = hosts.get(entry.at("host")?.text()?)?;
    if host.private.iter().next().is_none()
        && !hosts.doubtful(&host.name)
        && !problems.touch(&entry.extent())
    {
        problems.report(
            Problem::new(
                entry.span(),
                format!("host `{}` has no private address", host.name),
            )
            .help(format!(
                "backends are reached at it: add `private = \"10.0.0.11\"` to `{}` under `[hosts]`",
                host.name
            )),
        );
    }
    Some(Backend {
        host: host.name.clone(),
        addresses: host.private.clone(),
        port: whole::<u16>(entry, "port").and_then(NonZeroU16::new)?,
        weight: whole(entry, "weight").unwrap_or(1),
        kind: text(entry, "kind"),
    })
}

/// Counters name a backend `l7.service host:port`.
pub(super) fn fits_a_label(
    service: &str,
    backend: &Backend,
    entry: Entry<'_>,
    problems: &mut Problems,
) {
    let length = format!("l7.{service} {}:{}", backend.host, backend.port).len();
    let room = size_of::<Label>();
    if length > room {
        problems.report(
            Problem::new(
                entry.span(),
                format!(
                    "the names of this service and this host are {} letters too long together",
                    length - room
                ),
            )
            .help("shorten one of them"),
        );
    }
}

pub(super) fn tls(entry: Entry<'_>, folder: &Path, problems: &mut Problems) -> Option<BackendTls> {
    let identity = match (entry.at("cert"), entry.at("key")) {
        (Some(_), Some(_)) => file(entry, "cert", folder).zip(secret(entry, "key", folder)),
        (None, None) => None,
        (cert, key) => {
            let there = cert.or(key).unwrap_or(entry);
            let missing = if cert.is_some() {
                "key = { credential = \"lb1-key\" }"
            } else {
                "cert = \"/etc/foobar/tls/lb1.pem\""
            };
            problems.report(
                Problem::new(there.span(), "a certificate and its key go together")
                    .help(format!("add `{missing}`")),
            );
            None
        }
    };
    if let Some(name) = entry.at("name")
        && name.text().is_some_and(|name| name.starts_with("*."))
    {
        problems.report(
            Problem::new(
                name.span(),
                "a backend is asked for by one name, not by a wildcard",
            )
            .help("write a name that the certificate covers, as `web.internal`"),
        );
    }
    Some(BackendTls {
        ca: file(entry, "ca", folder)?,
        identity,
        name: read_word(entry, "name").map(|DnsName(name)| name.to_ascii_lowercase()),
        place: problems.place(entry.span().start),
    })
}

pub(super) fn protocol(service: Entry<'_>) -> HttpVersion {
    match service.at("backend-protocol").and_then(Entry::text) {
        Some("h2") => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    }
}

pub(super) fn proxy_protocol(service: Entry<'_>) -> Option<ProxyProtocol> {
    match service.at("proxy-protocol")?.at("to-backends")?.text()? {
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        _ => None,
    }
}

pub(super) fn balance(service: Entry<'_>, problems: &mut Problems) -> L7Balance {
    let balance = match service.at("balance").and_then(Entry::text) {
        Some("least-connections") => L7Balance::LeastConnections,
        Some("round-robin") => L7Balance::RoundRobin,
        Some("hrw") => {
            L7Balance::Hrw(read_word(service, "hash").map_or(HashKey::Source, |HashedBy(key)| key))
        }
        _ => L7Balance::PowerOfTwo,
    };
    if let Some(hash) = service.at("hash")
        && !matches!(balance, L7Balance::Hrw(_))
        && !problems.touch(&hash.span())
    {
        problems.report(
            Problem::new(hash.span(), "only `hrw` hashes")
                .help("add `balance = \"hrw\"`, or take `hash` out"),
        );
    }
    balance
}

pub(super) fn sticky(service: Entry<'_>, problems: &mut Problems) -> Option<Sticky> {
    let written = service.at("sticky")?;
    if service.at("balance").and_then(Entry::text) == Some("hrw") {
        problems.report(
            Problem::new(
                written.span(),
                "`hrw` keeps a client at its backend already",
            )
            .help("take `sticky` out, or choose another `balance`"),
        );
    }
    match written.text()? {
        "cookie" => Some(Sticky::Cookie),
        "source" => Some(Sticky::Source),
        _ => None,
    }
}

pub(super) fn shuffle(service: Entry<'_>, problems: &mut Problems) -> Option<u8> {
    let shuffle = whole::<u8>(service, "shuffle")?;
    let written = service.at("shuffle")?;
    let backends = many(service, "backends").len();
    if usize::from(shuffle) > backends && backends > 0 && !problems.touch(&written.span()) {
        problems.report(
            Problem::new(
                written.span(),
                format!("`shuffle` is more than the {backends} backends there are"),
            )
            .help("write fewer, so that one client reaches a part of them only; or take it out"),
        );
    }
    Some(shuffle)
}

pub(super) fn ejection(service: Entry<'_>) -> Option<Ejection> {
    let entry = service.at("ejection");
    let count = |key, default| entry.and_then(|entry| whole(entry, key)).unwrap_or(default);
    let percent = |key, default| entry.and_then(|entry| whole(entry, key)).unwrap_or(default);
    let lasts = |key, default| entry.map_or(default, |entry| duration(entry, key, default));
    let ejection = Ejection {
        failures: count("failures", 5),
        percent: percent("percent", 50),
        requests: count("requests", 20),
        window: lasts("window", Duration::from_secs(10)),
        lasts: lasts("for", Duration::from_secs(10)),
        at_most_percent: percent("at-most", 50),
    };
    (ejection.at_most_percent > 0).then_some(ejection)
}

pub(super) fn retries(service: Entry<'_>) -> Retries {
    let entry = service.at("retries");
    let mut on: Vec<RetryOn> = entry
        .map(|entry| many(entry, "on"))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|cause| cause.read().map(|RetryCause(cause)| cause))
        .collect();
    on.sort();
    on.dedup();
    if on.is_empty() {
        on = vec![RetryOn::Connect, RetryOn::Reset];
    }
    Retries {
        most: entry.and_then(|entry| whole(entry, "most")).unwrap_or(1),
        budget_percent: entry.and_then(|entry| whole(entry, "budget")).unwrap_or(20),
        least_per_second: entry.and_then(|entry| whole(entry, "least")).unwrap_or(10),
        on,
    }
}

pub(super) fn breaker(service: Entry<'_>) -> Breaker {
    let entry = service.at("breaker");
    let count = |key| entry.and_then(|entry| whole(entry, key)).unwrap_or(1_024);
    Breaker {
        connections: count("connections"),
        requests: count("requests"),
    }
}

pub(super) fn queue(service: Entry<'_>) -> Queue {
    let entry = service.at("queue");
    let lasts = |key, default| entry.map_or(default, |entry| duration(entry, key, default));
    Queue {
        length: entry
            .and_then(|entry| whole(entry, "length"))
            .unwrap_or(1_000),
        wait: lasts("wait", Duration::from_millis(500)),
        retry_after: lasts("retry-after", Duration::from_secs(1)),
    }
}

pub(super) fn blast_radius(service: Entry<'_>, problems: &mut Problems) -> BlastRadius {
    let entry = service.at("blast-radius");
    let off = entry.and_then(|entry| entry.at("off"));
    if let (Some(off), Some(hold)) = (off, entry.and_then(|entry| entry.at("hold")))
        && off.truth() == Some(true)
    {
        problems.report(
            Problem::new(hold.span(), "`hold` and `off = true` contradict each other")
                .help("keep one"),
        );
    }
    let hold = entry.map_or(HOLD, |entry| duration(entry, "hold", HOLD));
    BlastRadius {
        after: entry.and_then(|entry| whole(entry, "after")).unwrap_or(1),
        hold: (off.and_then(Entry::truth) != Some(true)).then_some(hold),
    }
}

const HOLD: Duration = Duration::from_secs(30);
