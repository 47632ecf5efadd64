//! `[monitor]` and `[log]`

use std::{collections::BTreeMap, time::Duration};

use super::{many, read as read_word, secret, text, whole};
use crate::config::{
    AccessFormat, AccessLog, DropLog, Host, Listen, Log, LogFile, Monitor, Node, Otlp, Signals,
    SumoLogic,
    diagnostics::{Problem, Problems},
    tree::Entry,
    words::{Endpoint, Period, Size},
};

pub(super) fn read(
    root: Entry<'_>,
    hosts: &BTreeMap<String, Host>,
    nodes: &BTreeMap<String, Node>,
    problems: &mut Problems,
) -> Monitor {
    let Some(monitor) = root.at("monitor") else {
        return Monitor::default();
    };
    Monitor {
        prometheus: monitor
            .at("prometheus")
            .and_then(|prometheus| prometheus.at("listen"))
            .and_then(|written| listen(written, hosts, nodes, problems)),
        otlp: monitor.at("otlp").and_then(otlp),
        sumologic: monitor.at("sumologic").and_then(sumologic),
        labels: labels(monitor, problems),
    }
}

/// Where every node listens; one that has no such address is a mistake.
pub(super) fn listen(
    written: Entry<'_>,
    hosts: &BTreeMap<String, Host>,
    nodes: &BTreeMap<String, Node>,
    problems: &mut Problems,
) -> Option<Listen> {
    let listen = match written.read()? {
        Endpoint::Literal(address) => Listen::At(address),
        Endpoint::Private(port) => Listen::Private(port),
        Endpoint::Public(port) => Listen::Public(port),
    };
    let homeless = |host: &Host| listen.addresses(host).is_empty();
    let own = nodes.keys().filter_map(|node| hosts.get(node));
    let (without, with): (Vec<_>, Vec<_>) = own.partition(|host| homeless(host));
    match (listen, without.first()) {
        (Listen::At(address), Some(_)) if with.is_empty() => problems.report(
            Problem::new(
                written.span(),
                format!("`{}` is not an address of any node", address.ip()),
            )
            .help("write `private:PORT`, which each node reads for itself, or `127.0.0.1:PORT`"),
        ),
        (Listen::Private(_) | Listen::Public(_), Some(host)) => problems.report(
            Problem::new(
                written.span(),
                format!("node `{}` has no such address", host.name),
            )
            .help(format!(
                "add it to `{}` under `[hosts]`, or write an address that every node has: `127.0.0.1:PORT`",
                host.name
            )),
        ),
        _ => {}
    }
    Some(listen)
}

fn otlp(entry: Entry<'_>) -> Option<Otlp> {
    Some(Otlp {
        endpoint: secret::read(entry, "endpoint")?,
        interval: period(entry, "interval").unwrap_or(Duration::from_secs(30)),
        signals: signals(entry),
        buffer: buffer(entry),
    })
}

fn sumologic(entry: Entry<'_>) -> Option<SumoLogic> {
    Some(SumoLogic {
        url: secret::read(entry, "url")?,
        category: text(entry, "category"),
        interval: period(entry, "interval").unwrap_or(Duration::from_secs(60)),
        signals: signals(entry),
        buffer: buffer(entry),
    })
}

pub(super) fn period(entry: Entry<'_>, key: &str) -> Option<Duration> {
    read_word(entry, key).map(|Period(period)| period)
}

fn signals(entry: Entry<'_>) -> Signals {
    let written: Vec<_> = many(entry, "signals")
        .into_iter()
        .filter_map(Entry::text)
        .collect();
    Signals {
        metrics: written.is_empty() || written.contains(&"metrics"),
        logs: written.contains(&"logs"),
    }
}

fn buffer(entry: Entry<'_>) -> u64 {
    read_word(entry, "buffer").map_or(32 << 20, |Size(bytes)| bytes)
}

fn labels(monitor: Entry<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let written = monitor.at("labels").map(Entry::entries).unwrap_or_default();
    let mut labels = BTreeMap::new();
    for (name, value) in written {
        let letters = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if !letters(name.text) {
            problems.report(
                Problem::new(
                    name.span(),
                    format!("`{}` cannot be the name of a label", name.text),
                )
                .help(
                    "labels have letters, digits and `_`, and begin with a letter: `environment`",
                ),
            );
        } else if OWN_LABELS.contains(&name.text) {
            problems.report(
                Problem::new(
                    name.span(),
                    format!("`{}` is a label of foobar's own", name.text),
                )
                .help(format!(
                    "choose another name than {}",
                    OWN_LABELS.join(", ")
                )),
            );
        }
        if let Some(value) = value.text() {
            labels.insert(name.text.to_owned(), value.to_owned());
        }
    }
    labels
}

pub(super) fn log(root: Entry<'_>) -> Log {
    let mut log = Log::default();
    let Some(written) = root.at("log") else {
        return log;
    };
    if let Some(entry) = written.at("access") {
        log.access = AccessLog {
            file: file(entry, log.access.file),
            format: match entry.at("format").and_then(Entry::text) {
                Some("combined") => AccessFormat::Combined,
                _ => AccessFormat::Json,
            },
            sample: whole(entry, "sample").unwrap_or(1),
        };
    }
    if let Some(entry) = written.at("drops") {
        log.drops = DropLog {
            file: file(entry, log.drops.file),
            per_second: whole(entry, "per-second").unwrap_or(log.drops.per_second),
        };
    }
    if let Some(entry) = written.at("audit") {
        log.audit = file(entry, log.audit);
    }
    log
}

fn file(entry: Entry<'_>, default: LogFile) -> LogFile {
    LogFile {
        to: read_word(entry, "to").unwrap_or(default.to),
        max_size: read_word(entry, "max-size").map_or(default.max_size, |Size(bytes)| bytes),
        keep: whole(entry, "keep").unwrap_or(default.keep),
    }
}

/// On foobar's metrics already.
const OWN_LABELS: [&str; 16] = [
    "backend",
    "cause",
    "class",
    "cluster",
    "code",
    "direction",
    "exporter",
    "interface",
    "le",
    "map",
    "member",
    "node",
    "policy",
    "reason",
    "rule",
    "service",
];
