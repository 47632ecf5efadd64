//! All alerts of a node over time: snapshots come in, lines for people and notices for targets go out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    alert::{Moment, News, State, Telling, Terms},
    measure::{Before, measure},
    notice::{self, Notice},
};
use crate::{
    admin::api::{AlertLine, AlertState, Snapshot},
    config::{Alert, Config, NotifyBy, Quantity},
};

/// How every alert stands.
#[derive(Debug, Default)]
pub struct Watch {
    /// Of the last minutes, the oldest first.
    before: VecDeque<(Moment, Before)>,
    alerts: BTreeMap<String, Watched>,
}

#[derive(Debug)]
struct Watched {
    alert: Alert,
    state: State,
    /// Unix seconds since when the state is what it is.
    since: Option<f64>,
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub moment: Moment,
    /// Unix seconds.
    pub wall: f64,
}

impl Watch {
    /// Looks at a snapshot; alerts that the configuration no longer has, end.
    pub fn look(
        &mut self,
        config: &Config,
        node: &str,
        snapshot: &Snapshot,
        now: Now,
    ) -> (Vec<AlertLine>, Vec<Notice>) {
        let mut notices = self.forget_others(config, node, now);
        let before = self.remember(snapshot, now.moment);
        let mut lines = Vec::new();
        for alert in own(config, node) {
            let watched = self
                .alerts
                .entry(alert.name.clone())
                .or_insert_with(|| Watched {
                    alert: alert.clone(),
                    state: State::Calm,
                    since: None,
                });
            watched.alert = alert.clone();
            let value = measure(alert, snapshot, &before);
            let (line, told) = watched.step(config, node, value, now);
            lines.push(line);
            notices.extend(told);
        }
        (lines, notices)
    }

    /// What was counted some minutes ago, or at the first look.
    fn remember(&mut self, snapshot: &Snapshot, now: Moment) -> Before {
        let counted = Before::of(snapshot);
        let differs = self.before.back().is_none_or(|(_, last)| *last != counted);
        if differs {
            self.before.push_back((now, counted.clone()));
        }
        // The last that is older than that still tells what was known then.
        while let Some((next, _)) = self.before.get(1)
            && now.saturating_sub(*next) >= RECENTLY
        {
            self.before.pop_front();
        }
        self.before
            .front()
            .map_or(counted, |(_, before)| before.clone())
    }

    fn forget_others(&mut self, config: &Config, node: &str, now: Now) -> Vec<Notice> {
        let gone: Vec<String> = self
            .alerts
            .keys()
            .filter(|name| !own(config, node).any(|alert| alert.name == **name))
            .cloned()
            .collect();
        gone.iter()
            .filter_map(|name| self.alerts.remove(name))
            .flat_map(|watched| {
                let since = watched.since;
                let tellings = watched.state.dismiss();
                tellings
                    .into_iter()
                    .map(move |telling| {
                        notice_of(&watched.alert, config, node, None, since, telling, now)
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Watched {
    fn step(
        &mut self,
        config: &Config,
        node: &str,
        value: Option<f64>,
        now: Now,
    ) -> (AlertLine, Vec<Notice>) {
        let before = state(&self.state);
        let began = self.since;
        let terms = terms(&self.alert, config);
        let (next, tellings) = std::mem::take(&mut self.state).step(&terms, value, now.moment);
        self.state = next;
        let after = state(&self.state);
        if before != after {
            self.since = Some(now.wall);
        }
        // What ended began when it began to fire.
        let since = if after == AlertState::Calm {
            began
        } else {
            self.since
        };
        let notices = tellings
            .into_iter()
            .map(|telling| notice_of(&self.alert, config, node, value, since, telling, now))
            .collect();
        (self.line(value, after), notices)
    }

    fn line(&self, value: Option<f64>, state: AlertState) -> AlertLine {
        let alert = &self.alert;
        AlertLine {
            name: alert.name.clone(),
            metric: alert.metric.name().to_owned(),
            of: alert.of.clone(),
            severity: alert.severity.name().to_owned(),
            state,
            threshold: notice::threshold(alert),
            value,
            said: value.map(|value| said(alert, value)),
            since: self.since,
        }
    }
}

/// What `foobar alert test NAME` tells: that it fires, and that it ends.
#[must_use]
pub fn rehearsal(alert: &Alert, config: &Config, node: &str, now: Now) -> Vec<Notice> {
    let targets = terms(alert, config).repeats.into_keys();
    targets
        .flat_map(|target| [News::Fires, News::Ends].map(|news| (target.clone(), news)))
        .map(|(target, news)| {
            let telling = Telling { target, news };
            let mut notice = notice_of(alert, config, node, None, Some(now.wall), telling, now);
            notice.summary = format!("a test of the alert {}", alert.name);
            notice
        })
        .collect()
}

fn own<'a>(config: &'a Config, node: &'a str) -> impl Iterator<Item = &'a Alert> {
    let alerts = config.alerts.iter();
    alerts.filter(move |alert| alert.is_of(node, config))
}

fn state(state: &State) -> AlertState {
    match state {
        State::Calm => AlertState::Calm,
        State::Pending { .. } => AlertState::Pending,
        State::Firing { .. } => AlertState::Firing,
    }
}

fn terms(alert: &Alert, config: &Config) -> Terms {
    let mut repeats = BTreeMap::from([(JOURNAL.to_owned(), JOURNAL_REPEATS)]);
    for name in &alert.notify {
        if let Some(target) = config.notify.get(name) {
            let repeat = match target.by {
                // It takes an alert for resolved that it does not hear of for five minutes.
                NotifyBy::Alertmanager(_) => Duration::from_secs(60),
                NotifyBy::Command(_) | NotifyBy::Webhook(_) => target.repeat,
            };
            repeats.insert(name.clone(), repeat);
        }
    }
    Terms {
        threshold: alert.threshold,
        lasting: alert.lasting,
        repeats,
    }
}

fn notice_of(
    alert: &Alert,
    config: &Config,
    node: &str,
    value: Option<f64>,
    since: Option<f64>,
    telling: Telling,
    now: Now,
) -> Notice {
    let said = value.map(|value| said(alert, value));
    Notice {
        news: telling.news,
        target: telling.target,
        node: node.to_owned(),
        alert: alert.name.clone(),
        metric: alert.metric.name(),
        of: alert.of.clone(),
        severity: alert.severity.name(),
        summary: notice::summary(alert, said.as_deref()),
        value,
        starts_at: since.unwrap_or(now.wall),
        ends_at: (telling.news == News::Ends).then_some(now.wall),
        labels: config.monitor.labels.clone(),
    }
}

/// Three digits are enough for a person.
fn said(alert: &Alert, value: f64) -> String {
    let parts = match value.abs() {
        100.0.. => 1.0,
        10.0.. => 10.0,
        1.0.. => 100.0,
        _ => 1_000.0,
    };
    let rounded = (value * parts).round() / parts;
    Quantity::new(rounded).spoken(alert.metric.unit())
}

/// How long a failover is news.
const RECENTLY: Duration = Duration::from_secs(300);

/// The target that is always told.
pub const JOURNAL: &str = "journal";
const JOURNAL_REPEATS: Duration = Duration::from_secs(4 * 3_600);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config, monitor::samples};

    const FILE: &str = r#"version = 1
[hosts]
lb1 = { public = "203.0.113.10", private = "10.0.0.10" }
web1 = { private = "10.0.0.11" }
[nodes]
lb1 = { wan = { dev = "eth0" } }
web1 = { lan = { dev = "eth0" } }
[l4.plain]
on = "lb1"
vip = ["public:8080"]
backends = [{ host = "web1", port = 80 }]
[[alert]]
name = "down"
metric = "backends-down"
of = "l4.plain"
above = 0
for = "1s"
notify = "prom"
[notify]
prom = { alertmanager = "http://127.0.0.1:9093" }
"#;

    fn config(text: &str) -> Config {
        config::parse(text, Path::new("foobar.toml")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn at(seconds: u64) -> Now {
        Now {
            moment: Duration::from_secs(seconds),
            wall: 1_000.0 + f64::from(u32::try_from(seconds).expect("small")),
        }
    }

    fn news(notices: &[Notice]) -> Vec<(&str, News)> {
        notices
            .iter()
            .map(|notice| (notice.target.as_str(), notice.news))
            .collect()
    }

    #[test]
    fn an_alert_goes_through_pending_and_firing_and_tells_every_target() {
        let config = config(FILE);
        let snapshot = samples::snapshot();
        let mut watch = Watch::default();
        let (lines, notices) = watch.look(&config, "lb1", &snapshot, at(0));
        assert_eq!((lines[0].state, notices.len()), (AlertState::Pending, 0));
        let (lines, notices) = watch.look(&config, "lb1", &snapshot, at(1));
        assert_eq!(lines[0].state, AlertState::Firing);
        assert_eq!(lines[0].said.as_deref(), Some("1"));
        assert_eq!(
            news(&notices),
            [("journal", News::Fires), ("prom", News::Fires)]
        );
        assert_eq!(
            notices[0].summary,
            "backends-down of l4.plain is 1, to fire above 0"
        );
        let (_, notices) = watch.look(&config, "lb1", &snapshot, at(61));
        assert_eq!(
            news(&notices),
            [("prom", News::StillFires)],
            "an Alertmanager forgets what it is not told every few minutes"
        );
    }

    #[test]
    fn a_value_is_said_in_three_digits() {
        let file = FILE.replace("backends-down", "qps");
        let alert = &config(&file).alerts[0];
        let told = [1_234.4, 17.001, 1.234_5, 0.012_34].map(|value| said(alert, value));
        assert_eq!(told, ["1234/s", "17/s", "1.23/s", "0.012/s"]);
    }

    #[test]
    fn what_ended_says_when_it_began() {
        let config = config(FILE);
        let mut snapshot = samples::snapshot();
        let mut watch = Watch::default();
        watch.look(&config, "lb1", &snapshot, at(0));
        watch.look(&config, "lb1", &snapshot, at(1));
        snapshot.services[0].backends.truncate(1);
        let (lines, notices) = watch.look(&config, "lb1", &snapshot, at(9));
        assert_eq!(lines[0].state, AlertState::Calm);
        assert_eq!(
            (notices[0].starts_at, notices[0].ends_at),
            (1_001.0, Some(1_009.0))
        );
    }

    #[test]
    fn an_alert_that_a_reload_took_away_ends() {
        let mut watch = Watch::default();
        let before = config(FILE);
        let snapshot = samples::snapshot();
        watch.look(&before, "lb1", &snapshot, at(0));
        watch.look(&before, "lb1", &snapshot, at(1));
        let after = config(&FILE.replace("name = \"down\"", "name = \"other\""));
        let (lines, notices) = watch.look(&after, "lb1", &snapshot, at(2));
        assert_eq!(
            news(&notices),
            [("journal", News::Ends), ("prom", News::Ends)]
        );
        assert_eq!(lines[0].name, "other");
    }

    #[test]
    fn a_node_watches_only_its_own_services() {
        let (lines, _) = Watch::default().look(&config(FILE), "web1", &samples::snapshot(), at(0));
        assert_eq!(lines, []);
    }

    #[test]
    fn a_failover_is_news_for_five_minutes() {
        let mut watch = Watch::default();
        let mut snapshot = samples::snapshot();
        let mut recent = |failovers: u64, second: u64| {
            snapshot.clusters[0].failovers = failovers;
            let before = watch.remember(&snapshot, at(second).moment);
            failovers - before.0["mysql.app"]
        };
        let seen = [
            (2, 0),
            (3, 100),
            (3, 200),
            (3, 399),
            (3, 400),
            (4, 500),
            (4, 900),
        ]
        .map(|(failovers, second)| recent(failovers, second));
        assert_eq!(seen, [0, 1, 1, 1, 0, 1, 0]);
    }

    #[test]
    fn a_rehearsal_tells_everyone_twice() {
        let config = config(FILE);
        let notices = rehearsal(&config.alerts[0], &config, "lb1", at(0));
        assert_eq!(
            news(&notices),
            [
                ("journal", News::Fires),
                ("journal", News::Ends),
                ("prom", News::Fires),
                ("prom", News::Ends)
            ]
        );
    }
}
