//! `foobar stats`: counters as tables, part by part.

mod mysql;
mod tls;
mod total;

use std::collections::BTreeMap;

use comfy_table::Cell;
use foobar::{
    admin::api::{
        BackendCounters, BackendState, Count, InterfaceCounters, RequestCount, Snapshot,
        TrafficCount,
    },
    tally::{DoorCell, SiteCell},
};
use foobar_ebpf::verdict::Reason;

pub use self::total::Total;
use super::{
    arguments::{Output, Part},
    output::{self, Columns, number, short_rate, short_total, text},
};

/// Only what was asked for: the rows of one part, and of those the ones whose name contains the filter.
pub fn narrow(snapshot: &mut Snapshot, part: Option<Part>, filter: Option<&str>) {
    let holds = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let wants = |parts: &[Part]| part.is_none_or(|part| parts.contains(&part));
    if !wants(&[Part::Services, Part::Backends]) {
        snapshot.services.clear();
    }
    snapshot
        .sites
        .retain(|site| wants(&[Part::Services, Part::Backends, Part::Tls]) && holds(&site.name));
    snapshot
        .door
        .retain(|_, _| wants(&[Part::Services, Part::Tls]) && holds(DOOR));
    snapshot
        .certificates
        .retain(|line| wants(&[Part::Tls]) && holds(&line.service));
    snapshot
        .clusters
        .retain(|cluster| wants(&[Part::Mysql]) && holds(&cluster.name));
    if !wants(&[Part::Rules]) {
        snapshot.rules.clear();
    }
    if !wants(&[Part::Drops, Part::Interfaces]) {
        snapshot.interfaces.clear();
    }
    if !wants(&[Part::Maps]) {
        snapshot.maps.clear();
    }
    snapshot
        .rules
        .retain(|rule| holds(&rule_name(&rule.policy, &rule.rule)));
    snapshot.maps.retain(|map| holds(&map.name));
    for interface in &mut snapshot.interfaces {
        for verdicts in interface.verdicts.values_mut() {
            verdicts.retain(|reason, _| {
                let is_asked = part != Some(Part::Drops) || drops(reason);
                is_asked && (holds(reason) || holds(&interface.name))
            });
        }
    }
    for service in &mut snapshot.services {
        if !holds(&service.name) && !holds(&service.vip) {
            service
                .backends
                .retain(|backend| holds(&backend_name(backend)));
        }
    }
    snapshot.services.retain(|service| {
        holds(&service.name) || holds(&service.vip) || !service.backends.is_empty()
    });
}

/// Whether a part and a filter left nothing.
pub fn is_empty(snapshot: &Snapshot) -> bool {
    let verdicts =
        |interface: &InterfaceCounters| interface.verdicts.values().all(BTreeMap::is_empty);
    snapshot.services.is_empty()
        && snapshot.sites.is_empty()
        && snapshot.door.is_empty()
        && snapshot.certificates.is_empty()
        && snapshot.clusters.is_empty()
        && snapshot.rules.is_empty()
        && snapshot.maps.is_empty()
        && snapshot.interfaces.iter().all(verdicts)
}

/// The tables of the parts that were asked for.
pub fn tables(snapshot: &Snapshot, part: Option<Part>, output: Output) -> String {
    let tables = match part {
        None => [
            of_the_proxy(snapshot),
            vec![services(snapshot, output)],
            vec![rules(snapshot), drops_table(snapshot)],
        ]
        .concat(),
        Some(Part::Services) if snapshot.services.is_empty() => of_the_proxy(snapshot),
        Some(Part::Services) => [of_the_proxy(snapshot), vec![services(snapshot, output)]].concat(),
        Some(Part::Backends) => vec![backends(snapshot, output)],
        Some(Part::Rules) => vec![rules(snapshot)],
        Some(Part::Drops) => vec![drops_table(snapshot)],
        Some(Part::Tls) => vec![tls::table(snapshot)],
        Some(Part::Mysql) => vec![mysql::table(snapshot)],
        Some(Part::Interfaces) => vec![interfaces(snapshot)],
        Some(Part::Maps) => vec![maps(snapshot)],
    };
    tables.join("\n")
}

fn services(snapshot: &Snapshot, output: Output) -> String {
    let mut columns = traffic_columns("SERVICE / BACKEND", output);
    for service in &snapshot.services {
        let up = service
            .backends
            .iter()
            .filter(|backend| backend.state == Some(BackendState::Up))
            .count();
        let is_known = service
            .backends
            .iter()
            .any(|backend| backend.state.is_some());
        let state = if is_known {
            text(format!("{up}/{}", service.backends.len()))
        } else {
            text("-")
        };
        let name = text(format!("{} {}", service.name, service.vip));
        columns.row(traffic_row(name, text(""), state, &service.traffic, output));
        for backend in &service.backends {
            let name = text(format!("  -> {}", backend_name(backend)));
            columns.row(backend_row(name, backend, output));
        }
    }
    columns.text()
}

/// None where there is no proxy.
fn of_the_proxy(snapshot: &Snapshot) -> Vec<String> {
    let has_sites = !snapshot.sites.is_empty();
    let sites = has_sites.then(|| sites(snapshot));
    sites.into_iter().chain(troubles(snapshot)).collect()
}

/// What should not be, or not often, of those that were at all.
fn troubles(snapshot: &Snapshot) -> Option<String> {
    let of_sites = snapshot.sites.iter().flat_map(|site| {
        let counts = site.requests.counts.iter();
        counts
            .map(|(cell, count)| (site.name.as_str(), cell.as_str(), *count))
            .filter(|(_, cell, _)| TROUBLES.iter().any(|trouble| trouble.name() == *cell))
    });
    let of_door = snapshot
        .door
        .iter()
        .map(|(cell, count)| (DOOR, cell.as_str(), *count))
        .filter(|(_, cell, _)| *cell != DoorCell::Accepted.name());
    let mut rows: Vec<_> = of_sites
        .chain(of_door)
        .filter(|(_, _, count)| *count > 0)
        .collect();
    rows.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    let mut columns = Columns::new(&["TROUBLE", "SITE", "COUNT"]);
    for (site, cell, count) in &rows {
        columns.row(vec![
            text(cell.replace('_', "-")),
            text(site),
            number(short_total(*count)),
        ]);
    }
    (!rows.is_empty()).then(|| columns.text())
}

/// Where connections are before it is known which site is meant.
const DOOR: &str = "door";

/// Of a site; at the door all is trouble but what was let in.
const TROUBLES: &[SiteCell] = &[
    SiteCell::ClientGone,
    SiteCell::ClientSlow,
    SiteCell::Floods,
    SiteCell::HandshakesFailed,
    SiteCell::HeldBack,
    SiteCell::Limited,
    SiteCell::Lost,
    SiteCell::Offenders,
    SiteCell::Refused,
    SiteCell::Retries,
    SiteCell::RetriesDenied,
    SiteCell::Shed,
    SiteCell::Unavailable,
];

/// Requests of the proxy.
fn sites(snapshot: &Snapshot) -> String {
    let mut columns = Columns::new(&[
        "SITE / BACKEND",
        "WT",
        "STATE",
        "QPS",
        "OUT/s",
        "5xx",
        "P50",
        "P99",
        "REQUESTS",
    ]);
    for site in &snapshot.sites {
        let up = site
            .backends
            .iter()
            .filter(|backend| backend.state == Some(BackendState::Up))
            .count();
        let up = text(format!("{up}/{}", site.backends.len()));
        columns.row(requests_row(text(&site.name), text(""), up, &site.requests));
        for backend in &site.backends {
            let name = text(format!("  -> {}:{}", backend.host, backend.port));
            let weight = backend.weight.map_or_else(|| text("-"), number);
            let state = state(backend.state);
            columns.row(requests_row(name, weight, state, &backend.requests));
        }
    }
    columns.text()
}

fn requests_row(name: Cell, weight: Cell, state: Cell, requests: &RequestCount) -> Vec<Cell> {
    let rate = requests.per_second;
    let time = |seconds: Option<f64>| {
        seconds.map_or_else(
            || "-".to_owned(),
            |seconds| format!("{:.1}ms", seconds * 1_000.0),
        )
    };
    let errors = rate
        .and_then(|rate| rate.error_rate)
        .map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0));
    vec![
        name,
        weight,
        state,
        number(short_rate(rate.map(|rate| rate.qps))),
        number(short_rate(rate.map(|rate| rate.bytes_out))),
        number(errors),
        number(time(rate.and_then(|rate| rate.p50))),
        number(time(rate.and_then(|rate| rate.p99))),
        number(short_total(
            requests.counts.get("requests").copied().unwrap_or_default(),
        )),
    ]
}

fn backends(snapshot: &Snapshot, output: Output) -> String {
    let mut columns = traffic_columns("BACKEND", output);
    for service in &snapshot.services {
        for backend in &service.backends {
            let name = text(format!("{} {}", service.name, backend_name(backend)));
            columns.row(backend_row(name, backend, output));
        }
    }
    columns.text()
}

fn traffic_columns(first: &str, output: Output) -> Columns {
    let mut heads = vec![first, "WT", "STATE", "CONN/s", "IN/s", "OUT/s"];
    if output == Output::Wide {
        heads.extend(["PKTS IN/s", "PKTS OUT/s"]);
    }
    heads.extend(["CONNS", "PKTS IN", "BYTES IN", "PKTS OUT", "BYTES OUT"]);
    Columns::new(&heads)
}

fn backend_row(name: Cell, backend: &BackendCounters, output: Output) -> Vec<Cell> {
    let weight = backend.weight.map_or_else(|| text("-"), number);
    traffic_row(name, weight, state(backend.state), &backend.traffic, output)
}

fn traffic_row(
    name: Cell,
    weight: Cell,
    state: Cell,
    traffic: &TrafficCount,
    output: Output,
) -> Vec<Cell> {
    let rate = traffic.per_second;
    let mut cells = vec![name, weight, state];
    let mut rates = vec![
        rate.map(|rate| rate.qps),
        rate.map(|rate| rate.bytes_in),
        rate.map(|rate| rate.bytes_out),
    ];
    if output == Output::Wide {
        rates.push(rate.map(|rate| rate.packets_in));
        rates.push(rate.map(|rate| rate.packets_out));
    }
    cells.extend(rates.into_iter().map(|rate| number(short_rate(rate))));
    let totals = [
        traffic.connections,
        traffic.packets_in,
        traffic.bytes_in,
        traffic.packets_out,
        traffic.bytes_out,
    ];
    cells.extend(totals.into_iter().map(|total| number(short_total(total))));
    cells
}

/// How a backend's state is written everywhere.
pub fn state(state: Option<BackendState>) -> Cell {
    match state {
        Some(BackendState::Up) => output::good("up"),
        Some(BackendState::Down) => output::bad("DOWN"),
        Some(BackendState::Drain) => output::doubtful("drain"),
        Some(BackendState::Disabled) => output::doubtful("disabled"),
        Some(BackendState::Unknown) => output::doubtful("unknown"),
        None => text("-"),
    }
}

fn rules(snapshot: &Snapshot) -> String {
    let mut columns = Columns::new(&["RULE", "PKTS/s", "BYTES/s", "PKTS", "BYTES"]);
    for rule in &snapshot.rules {
        let mut row = vec![text(rule_name(&rule.policy, &rule.rule))];
        row.extend(count_cells(&rule.count));
        columns.row(row);
    }
    columns.text()
}

fn drops_table(snapshot: &Snapshot) -> String {
    let mut columns = Columns::new(&[
        "DROP REASON",
        "INTERFACE",
        "DIRECTION",
        "PKTS/s",
        "BYTES/s",
        "PKTS",
        "BYTES",
    ]);
    let mut rows: Vec<_> = verdicts(snapshot)
        .filter(|verdict| drops(verdict.reason))
        .collect();
    rows.sort_by_key(|verdict| std::cmp::Reverse(verdict.count.packets));
    if rows.is_empty() {
        columns.row(vec![text("none")]);
    }
    for verdict in rows {
        let mut row = vec![
            text(verdict.reason),
            text(verdict.interface),
            text(verdict.direction),
        ];
        row.extend(count_cells(verdict.count));
        columns.row(row);
    }
    columns.text()
}

fn interfaces(snapshot: &Snapshot) -> String {
    let mut columns = Columns::new(&[
        "INTERFACE",
        "DIRECTION",
        "VERDICT",
        "PKTS/s",
        "BYTES/s",
        "PKTS",
        "BYTES",
    ]);
    for verdict in verdicts(snapshot) {
        let reason = if drops(verdict.reason) {
            format!("drop: {}", verdict.reason)
        } else {
            verdict.reason.to_owned()
        };
        let mut row = vec![
            text(verdict.interface),
            text(verdict.direction),
            text(reason),
        ];
        row.extend(count_cells(verdict.count));
        columns.row(row);
    }
    columns.text()
}

fn maps(snapshot: &Snapshot) -> String {
    let mut columns = Columns::new(&["MAP", "ENTRIES", "OF", "USED"]);
    for map in &snapshot.maps {
        let percent = map.entries.saturating_mul(100) / map.max_entries.max(1);
        columns.row(vec![
            text(&map.name),
            number(map.entries),
            number(map.max_entries),
            number(format!("{percent}%")),
        ]);
    }
    columns.text()
}

struct Verdict<'a> {
    interface: &'a str,
    direction: &'a str,
    reason: &'a str,
    count: &'a Count,
}

fn verdicts(snapshot: &Snapshot) -> impl Iterator<Item = Verdict<'_>> {
    snapshot.interfaces.iter().flat_map(|interface| {
        interface
            .verdicts
            .iter()
            .flat_map(move |(direction, verdicts)| {
                verdicts.iter().map(move |(reason, count)| Verdict {
                    interface: &interface.name,
                    direction,
                    reason,
                    count,
                })
            })
    })
}

fn count_cells(count: &Count) -> [Cell; 4] {
    let rate = count.per_second;
    [
        short_rate(rate.map(|rate| rate.packets)),
        short_rate(rate.map(|rate| rate.bytes)),
        short_total(count.packets),
        short_total(count.bytes),
    ]
    .map(number)
}

fn drops(reason: &str) -> bool {
    Reason::ALL
        .into_iter()
        .any(|known| known.name() == reason && known.drops())
}

fn rule_name(policy: &str, rule: &str) -> String {
    format!("{policy}/{rule}")
}

fn backend_name(backend: &BackendCounters) -> String {
    format!("{}:{}", backend.host, backend.port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foobar::admin::api::{
        InterfaceCounters, MapUse, RuleCounters, ServiceCounters, TrafficRate,
    };

    use super::*;

    #[test]
    fn all_parts_have_heads_and_the_usual_ones_have_rows() {
        let text = tables(&snapshot(), None, Output::Table);
        has_all(
            &text,
            &[
                "SERVICE / BACKEND",
                "l4.plain 203.0.113.10:8080",
                "1/2",
                "-> web2:80",
                "DOWN",
                "12.5",
                "edge/web",
                "policy",
            ],
        );
        assert!(
            !text.contains("rule-allow"),
            "an accepting verdict is no drop:\n{text}"
        );
    }

    #[test]
    fn a_part_and_a_filter_narrow_the_answer() {
        let mut narrowed = snapshot();
        narrow(&mut narrowed, Some(Part::Backends), Some("web2"));
        assert!(narrowed.rules.is_empty() && narrowed.interfaces.is_empty());
        assert_eq!(narrowed.services.len(), 1);
        assert_eq!(narrowed.services[0].backends.len(), 1);

        let mut drops_alone = snapshot();
        narrow(&mut drops_alone, Some(Part::Drops), None);
        let reasons: Vec<_> = verdicts(&drops_alone)
            .map(|verdict| verdict.reason)
            .collect();
        assert_eq!(reasons, ["policy"]);

        let mut nothing = snapshot();
        narrow(&mut nothing, None, Some("nowhere"));
        assert!(is_empty(&nothing) && !is_empty(&snapshot()));
    }

    fn has_all(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    fn snapshot() -> Snapshot {
        let backend = |host: &str, state| BackendCounters {
            host: host.to_owned(),
            port: 80,
            weight: Some(1),
            state: Some(state),
            traffic: TrafficCount::default(),
        };
        let count = Count {
            packets: 3,
            bytes: 180,
            per_second: None,
        };
        let verdicts = BTreeMap::from([
            ("policy".to_owned(), count),
            ("rule-allow".to_owned(), count),
        ]);
        Snapshot {
            node: "lb1".to_owned(),
            taken_at: 0,
            source: "controller".to_owned(),
            interfaces: vec![InterfaceCounters {
                name: "wan".to_owned(),
                device: "eth0".to_owned(),
                verdicts: BTreeMap::from([("ingress".to_owned(), verdicts)]),
            }],
            rules: vec![RuleCounters {
                policy: "edge".into(),
                rule: "web".into(),
                count,
            }],
            clusters: Vec::new(),
            services: vec![ServiceCounters {
                name: "l4.plain".to_owned(),
                vip: "203.0.113.10:8080".to_owned(),
                traffic: TrafficCount {
                    per_second: Some(TrafficRate {
                        qps: 12.5,
                        ..TrafficRate::default()
                    }),
                    ..TrafficCount::default()
                },
                backends: vec![
                    backend("web1", BackendState::Up),
                    backend("web2", BackendState::Down),
                ],
            }],
            maps: vec![MapUse {
                name: "FLOWS_V4".to_owned(),
                entries: 1,
                max_entries: 4,
            }],
            ..Snapshot::default()
        }
    }
}
