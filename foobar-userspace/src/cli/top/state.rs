//! What the screen shows, and in which order.

use std::collections::{BTreeMap, VecDeque};

use foobar::{
    admin::api::{BackendState, Snapshot},
    monitor::{measure::is_drop, view},
};

use super::super::output::{short, short_rate as maybe, short_total};

/// What the keys change and the snapshots fill.
#[derive(Debug)]
pub struct Screen {
    pub panel: Panel,
    pub sort: Sort,
    pub filter: String,
    pub mode: Mode,
    pub first_row: usize,
    pub colors: bool,
    pub snapshot: Option<Snapshot>,
    /// Why there is no newer snapshot.
    pub trouble: Option<String>,
    /// Of the last minutes, by row; the newest last.
    history: BTreeMap<String, VecDeque<u64>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Panel {
    Services,
    Backends,
    Rules,
    Drops,
    Mysql,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    Name,
    /// The busiest first.
    Rate,
    Total,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    Filter,
    Help,
    Paused,
    Watch,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum After {
    Leave,
    Stay,
}

/// A row of any panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub state: Option<RowState>,
    /// What the sparkline is of, and what `Rate` sorts by.
    pub rate: Option<f64>,
    pub total: u64,
    /// In the order of [`Panel::heads`], without name, state and rate.
    pub cells: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RowState {
    Bad,
    Doubtful,
    Good,
}

impl Panel {
    pub const ALL: [Self; 5] = [
        Self::Services,
        Self::Backends,
        Self::Rules,
        Self::Drops,
        Self::Mysql,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Backends => "backends",
            Self::Rules => "rules",
            Self::Drops => "drops",
            Self::Mysql => "mysql",
        }
    }

    pub const fn heads(self) -> [&'static str; 6] {
        match self {
            Self::Services => ["SERVICE", "UP", "QPS", "IN|P99", "OUT/s", "TOTAL"],
            Self::Backends => ["BACKEND", "STATE", "QPS", "IN|P99", "OUT/s", "TOTAL"],
            Self::Rules => ["RULE", "", "PKTS/s", "BYTES/s", "BYTES", "PKTS"],
            Self::Drops => ["DROP REASON", "", "PKTS/s", "BYTES/s", "BYTES", "PKTS"],
            Self::Mysql => ["MEMBER", "ROLE", "QPS", "LAG", "READS", "WRITES"],
        }
    }
}

impl Screen {
    pub fn new(colors: bool) -> Self {
        Self {
            panel: Panel::Services,
            sort: Sort::Rate,
            filter: String::new(),
            mode: Mode::Watch,
            first_row: 0,
            colors,
            snapshot: None,
            trouble: None,
            history: BTreeMap::new(),
        }
    }

    pub fn take(&mut self, snapshot: Snapshot) {
        self.trouble = None;
        if self.mode == Mode::Paused {
            return;
        }
        self.remember(&snapshot);
        self.snapshot = Some(snapshot);
    }

    pub fn miss(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    fn remember(&mut self, snapshot: &Snapshot) {
        let mut seen = Vec::new();
        for panel in Panel::ALL {
            for row in rows(snapshot, panel) {
                let key = key(panel, &row.name);
                let line = self.history.entry(key.clone()).or_default();
                line.push_back(thousandths(row.rate.unwrap_or_default()));
                if line.len() > SECONDS {
                    line.pop_front();
                }
                seen.push(key);
            }
        }
        seen.sort();
        self.history
            .retain(|key, _| seen.binary_search(key).is_ok());
    }

    /// The last `width` seconds of a row.
    pub fn line(&self, name: &str, width: usize) -> Vec<u64> {
        let Some(line) = self.history.get(&key(self.panel, name)) else {
            return Vec::new();
        };
        let start = line.len().saturating_sub(width);
        line.iter().skip(start).copied().collect()
    }

    /// Of the shown panel, filtered and sorted.
    pub fn rows(&self) -> Vec<Row> {
        let Some(snapshot) = &self.snapshot else {
            return Vec::new();
        };
        let mut rows = rows(snapshot, self.panel);
        rows.retain(|row| row.name.contains(&self.filter));
        match self.sort {
            Sort::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
            Sort::Rate => rows.sort_by(|a, b| {
                let rate = |row: &Row| row.rate.unwrap_or_default();
                rate(b).total_cmp(&rate(a))
            }),
            Sort::Total => rows.sort_by_key(|row| std::cmp::Reverse(row.total)),
        }
        rows
    }
}

fn key(panel: Panel, name: &str) -> String {
    format!("{} {name}", panel.name())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sparkline has eight heights"
)]
fn thousandths(rate: f64) -> u64 {
    (rate.max(0.0) * 1_000.0) as u64
}

fn rows(snapshot: &Snapshot, panel: Panel) -> Vec<Row> {
    match panel {
        Panel::Services => services(snapshot),
        Panel::Backends => backends(snapshot),
        Panel::Rules => rules(snapshot),
        Panel::Drops => drops(snapshot),
        Panel::Mysql => members(snapshot),
    }
}

fn services(snapshot: &Snapshot) -> Vec<Row> {
    let view = view::view(snapshot);
    let balanced = view.services.iter().map(|service| {
        let up = service
            .backends
            .iter()
            .filter(|backend| backend.state == Some(BackendState::Up))
            .count();
        let all = service.backends.len();
        // Members of clusters serve by their roles; their panel tells those.
        let is_checked = service
            .backends
            .iter()
            .any(|backend| backend.state.is_some());
        let total = snapshot
            .services
            .iter()
            .filter(|counted| counted.name == service.name)
            .map(|counted| counted.traffic.connections)
            .sum();
        Row {
            name: service.name.to_owned(),
            state: is_checked.then_some(match up {
                0 => RowState::Bad,
                up if up < all => RowState::Doubtful,
                _ => RowState::Good,
            }),
            rate: Some(service.qps),
            total,
            cells: vec![
                match is_checked {
                    true => format!("{up}/{all}"),
                    false => "by role".to_owned(),
                },
                short(service.bytes_in),
                short(service.bytes_out),
                short_total(total),
            ],
        }
    });
    site_rows(snapshot).chain(balanced).collect()
}

/// Sites tell the time of an answer where services tell what came in.
fn site_rows(snapshot: &Snapshot) -> impl Iterator<Item = Row> {
    snapshot.sites.iter().map(|site| {
        let rate = site.requests.per_second.unwrap_or_default();
        let up = site
            .backends
            .iter()
            .filter(|backend| backend.state == Some(BackendState::Up))
            .count();
        let total = site.requests.counts.get("requests").copied();
        let failing = rate.error_rate.is_some_and(|share| share > 0.01);
        Row {
            name: site.name.clone(),
            state: Some(match up {
                0 => RowState::Bad,
                up if up < site.backends.len() || failing => RowState::Doubtful,
                _ => RowState::Good,
            }),
            rate: Some(rate.qps),
            total: total.unwrap_or_default(),
            cells: vec![
                format!("{up}/{}", site.backends.len()),
                milliseconds(rate.p99),
                short(rate.bytes_out),
                short_total(total.unwrap_or_default()),
            ],
        }
    })
}

fn site_backend_rows(snapshot: &Snapshot) -> impl Iterator<Item = Row> {
    snapshot.sites.iter().flat_map(|site| {
        site.backends.iter().map(|backend| {
            let rate = backend.requests.per_second.unwrap_or_default();
            let (word, state) = state_of(backend.state);
            let total = backend.requests.counts.get("requests").copied();
            Row {
                name: format!("{} {}:{}", site.name, backend.host, backend.port),
                state,
                rate: Some(rate.qps),
                total: total.unwrap_or_default(),
                cells: vec![
                    word.to_owned(),
                    milliseconds(rate.p99),
                    short(rate.bytes_out),
                    short_total(total.unwrap_or_default()),
                ],
            }
        })
    })
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |p99| format!("{:.0}ms", p99 * 1_000.0))
}

fn state_of(state: Option<BackendState>) -> (&'static str, Option<RowState>) {
    match state {
        Some(BackendState::Up) => ("up", Some(RowState::Good)),
        Some(BackendState::Down) => ("DOWN", Some(RowState::Bad)),
        Some(BackendState::Drain) => ("drain", Some(RowState::Doubtful)),
        Some(BackendState::Disabled) => ("disabled", Some(RowState::Doubtful)),
        Some(BackendState::Unknown) => ("unknown", Some(RowState::Doubtful)),
        None => ("-", None),
    }
}

fn backends(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows: Vec<Row> = site_backend_rows(snapshot).collect();
    for service in &snapshot.services {
        for backend in &service.backends {
            let family = if service.vip.starts_with('[') {
                " v6"
            } else {
                ""
            };
            let rate = backend.traffic.per_second;
            let (word, state) = state_of(backend.state);
            rows.push(Row {
                name: format!("{} {}:{}{family}", service.name, backend.host, backend.port),
                state,
                rate: rate.map(|rate| rate.qps),
                total: backend.traffic.connections,
                cells: vec![
                    word.to_owned(),
                    maybe(rate.map(|rate| rate.bytes_in)),
                    maybe(rate.map(|rate| rate.bytes_out)),
                    short_total(backend.traffic.connections),
                ],
            });
        }
    }
    rows
}

fn rules(snapshot: &Snapshot) -> Vec<Row> {
    snapshot
        .rules
        .iter()
        .map(|rule| counted(format!("{}/{}", rule.policy, rule.rule), &rule.count))
        .collect()
}

fn drops(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for interface in &snapshot.interfaces {
        for (direction, verdicts) in &interface.verdicts {
            for (reason, count) in verdicts.iter().filter(|(reason, _)| is_drop(reason)) {
                rows.push(counted(
                    format!("{reason} {} {direction}", interface.name),
                    count,
                ));
            }
        }
    }
    rows
}

fn members(snapshot: &Snapshot) -> Vec<Row> {
    snapshot
        .clusters
        .iter()
        .flat_map(|cluster| {
            cluster.members.iter().map(|member| Row {
                name: format!("{} {}:{}", cluster.name, member.host, member.port),
                state: Some(match member.state.as_str() {
                    "up" => RowState::Good,
                    "gone" => RowState::Bad,
                    _ => RowState::Doubtful,
                }),
                rate: member.qps,
                total: 0,
                cells: vec![
                    member.role.clone(),
                    member
                        .lag_seconds
                        .map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1}s")),
                    member.reads.clone(),
                    member.writes.clone(),
                ],
            })
        })
        .collect()
}

fn counted(name: String, count: &foobar::admin::api::Count) -> Row {
    let rate = count.per_second;
    Row {
        name,
        state: None,
        rate: rate.map(|rate| rate.packets),
        total: count.packets,
        cells: vec![
            String::new(),
            maybe(rate.map(|rate| rate.bytes)),
            short_total(count.bytes),
            short_total(count.packets),
        ],
    }
}

/// As many as a wide terminal has columns for.
const SECONDS: usize = 300;
