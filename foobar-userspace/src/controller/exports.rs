//! Pushes metrics and logs to the collectors that `[monitor]` names; what they do not take at once waits in an outbox.

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time,
};

use super::{chain, facts::Facts, monitoring::Guarded, samples::Samples, tellers::nanoseconds};
use crate::{
    admin::api::{ExportLine, Snapshot},
    config::{Monitor, Otlp, Revealed, Secret, SumoLogic},
    courier::{Courier, Parcel},
    monitor::{
        lines::Line,
        otlp,
        outbox::{Batch, Outbox, Outcome},
        sumologic,
    },
    web::Newest,
};

pub async fn run(
    mut facts: watch::Receiver<Arc<Facts>>,
    newest: Newest,
    samples: Samples,
    courier: Courier,
    lines: broadcast::Sender<Arc<Line>>,
) {
    let mut running: BTreeMap<(&'static str, Signal), (Terms, Guarded)> = BTreeMap::new();
    loop {
        let wanted = wanted(&facts.borrow_and_update().config.monitor);
        running.retain(|(exporter, signal), (terms, _)| {
            let same = wanted.iter().any(|wanted| wanted == terms);
            if !same {
                samples.forget_export(exporter, signal.name());
            }
            same
        });
        for terms in wanted {
            let key = (terms.exporter(), terms.signal);
            if running.contains_key(&key) {
                continue;
            }
            let exporter = Exporter {
                outbox: Outbox::new(terms.buffer()),
                terms: terms.clone(),
                courier: courier.clone(),
                samples: samples.clone(),
                newest: newest.clone(),
                started: Instant::now(),
                began: nanoseconds(SystemTime::now()),
                secret: None,
                dropped_before: 0,
            };
            let task = Guarded::spawn(exporter.run(lines.subscribe()));
            running.insert(key, (terms, task));
        }
        if facts.changed().await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Signal {
    Logs,
    Metrics,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

/// What an exporter was configured with; another configuration is another exporter.
#[derive(Clone, Debug, PartialEq)]
struct Terms {
    collector: Collector,
    signal: Signal,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Collector {
    Otlp(Otlp),
    SumoLogic(SumoLogic),
}

impl Terms {
    const fn exporter(&self) -> &'static str {
        match self.collector {
            Collector::Otlp(_) => "otlp",
            Collector::SumoLogic(_) => "sumologic",
        }
    }

    const fn buffer(&self) -> u64 {
        match &self.collector {
            Collector::Otlp(otlp) => otlp.buffer,
            Collector::SumoLogic(sumologic) => sumologic.buffer,
        }
    }

    const fn interval(&self) -> Duration {
        match (&self.collector, self.signal) {
            (_, Signal::Logs) => LOGS_EVERY,
            (Collector::Otlp(otlp), Signal::Metrics) => otlp.interval,
            (Collector::SumoLogic(sumologic), Signal::Metrics) => sumologic.interval,
        }
    }

    const fn secret(&self) -> &Secret {
        match &self.collector {
            Collector::Otlp(otlp) => &otlp.endpoint,
            Collector::SumoLogic(sumologic) => &sumologic.url,
        }
    }

    fn url(&self, secret: &Revealed) -> Revealed {
        match self.collector {
            Collector::Otlp(_) => {
                let base = secret.expose().trim_end_matches('/');
                format!("{base}/v1/{}", self.signal.name()).into()
            }
            Collector::SumoLogic(_) => secret.clone(),
        }
    }

    fn headers(&self, node: &str) -> Vec<(&'static str, String)> {
        let mut headers = vec![("content-encoding", "gzip".to_owned())];
        match &self.collector {
            Collector::Otlp(_) => headers.push(("content-type", otlp::CONTENT_TYPE.to_owned())),
            Collector::SumoLogic(sumologic) => {
                let kind = match self.signal {
                    Signal::Logs => sumologic::LOGS_TYPE,
                    Signal::Metrics => sumologic::METRICS_TYPE,
                };
                headers.push(("content-type", kind.to_owned()));
                headers.push(("x-sumo-name", "foobar".to_owned()));
                headers.push(("x-sumo-host", node.to_owned()));
                if let Some(category) = &sumologic.category {
                    headers.push(("x-sumo-category", category.clone()));
                }
                if self.signal == Signal::Logs && !self.labels.is_empty() {
                    headers.push(("x-sumo-fields", sumologic::list(&self.labels)));
                }
            }
        }
        headers
    }

    fn encode_metrics(&self, snapshot: &Snapshot, began: u64) -> Vec<Vec<u8>> {
        let read = nanoseconds(SystemTime::now());
        match self.collector {
            Collector::Otlp(_) => {
                vec![otlp::metrics(
                    snapshot,
                    otlp::Span { began, read },
                    &self.labels,
                )]
            }
            Collector::SumoLogic(_) => sumologic::metrics(snapshot, read / 1_000_000, &self.labels)
                .into_iter()
                .map(String::into_bytes)
                .collect(),
        }
    }

    fn encode_logs(&self, lines: &[Line], snapshot: &Snapshot) -> Vec<Vec<u8>> {
        match self.collector {
            Collector::Otlp(_) => vec![otlp::logs(lines, snapshot, &self.labels)],
            Collector::SumoLogic(_) => sumologic::logs(lines)
                .into_iter()
                .map(String::into_bytes)
                .collect(),
        }
    }
}

fn wanted(monitor: &Monitor) -> Vec<Terms> {
    let collectors = [
        monitor
            .otlp
            .clone()
            .map(|otlp| (otlp.signals, Collector::Otlp(otlp))),
        monitor
            .sumologic
            .clone()
            .map(|sumologic| (sumologic.signals, Collector::SumoLogic(sumologic))),
    ];
    let mut wanted = Vec::new();
    for (signals, collector) in collectors.into_iter().flatten() {
        for (there, signal) in [
            (signals.metrics, Signal::Metrics),
            (signals.logs, Signal::Logs),
        ] {
            if there {
                wanted.push(Terms {
                    collector: collector.clone(),
                    signal,
                    labels: monitor.labels.clone(),
                });
            }
        }
    }
    wanted
}

struct Exporter {
    terms: Terms,
    outbox: Outbox,
    courier: Courier,
    samples: Samples,
    newest: Newest,
    started: Instant,
    /// Since when this process has watched the counters, in Unix nanoseconds.
    began: u64,
    /// With which secret the last attempt was made.
    secret: Option<Revealed>,
    dropped_before: u64,
}

impl Exporter {
    async fn run(mut self, mut lines: broadcast::Receiver<Arc<Line>>) {
        let mut fill = time::interval(self.terms.interval());
        fill.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut send = time::interval(SEND_EVERY);
        send.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut gathered: Vec<Line> = Vec::new();
        // At most one: a collector that does not answer must not keep what goes on from being gathered.
        let mut under_way: JoinSet<Outcome> = JoinSet::new();
        let mut untold = false;
        loop {
            tokio::select! {
                _ = fill.tick() => {
                    match self.terms.signal {
                        Signal::Metrics => self.gather_metrics(),
                        Signal::Logs => self.gather_logs(&mut gathered),
                    }
                }
                line = lines.recv(), if self.terms.signal == Signal::Logs => match line {
                    Ok(line) => {
                        gathered.push(Arc::unwrap_or_clone(line));
                        if gathered.len() >= LINES_AT_ONCE {
                            self.gather_logs(&mut gathered);
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        tracing::warn!(exporter = self.terms.exporter(), "{lost} log lines came too fast to be pushed");
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(outcome) = under_way.join_next() => {
                    self.settle(outcome.unwrap_or_else(|failure| Outcome::Later {
                        after: None,
                        why: failure.to_string(),
                    }));
                    self.send(&mut under_way);
                }
                _ = send.tick() => {
                    // What was sent a second ago is still under way: it waits.
                    if mem::replace(&mut untold, true) {
                        self.report();
                    }
                    self.send(&mut under_way);
                }
            }
            if untold && under_way.is_empty() {
                untold = false;
                self.report();
            }
        }
    }

    fn gather_metrics(&mut self) {
        let Some(snapshot) = self.newest.borrow().clone() else {
            return;
        };
        let bodies = self.terms.encode_metrics(&snapshot, self.began);
        self.put(bodies);
    }

    fn gather_logs(&mut self, lines: &mut Vec<Line>) {
        let Some(snapshot) = self.newest.borrow().clone() else {
            return;
        };
        if !lines.is_empty() {
            let bodies = self.terms.encode_logs(lines, &snapshot);
            lines.clear();
            self.put(bodies);
        }
    }

    fn put(&mut self, bodies: Vec<Vec<u8>>) {
        for body in bodies {
            self.outbox.put(Batch {
                body: sumologic::gzip(&body),
            });
        }
    }

    /// The next that is due, unless one is under way.
    fn send(&mut self, under_way: &mut JoinSet<Outcome>) {
        if self.outbox.is_stopped() && self.secret_was_renewed() {
            self.outbox.resume();
        }
        while let Some(batch) = self.outbox.due(self.started.elapsed()) {
            match self.parcel(batch) {
                Ok(parcel) => {
                    under_way.spawn(deliver(self.courier.clone(), parcel));
                    return;
                }
                Err(outcome) => self.settle(outcome),
            }
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Outcome::Stopped { why } | Outcome::Refused { why } = &outcome {
            tracing::error!(
                exporter = self.terms.exporter(),
                signal = self.terms.signal.name(),
                "{why}"
            );
        }
        self.outbox
            .settle(outcome, self.started.elapsed(), random_part());
    }

    fn secret_was_renewed(&self) -> bool {
        self.terms
            .secret()
            .reveal()
            .is_ok_and(|secret| Some(secret) != self.secret)
    }

    fn parcel(&mut self, batch: Batch) -> Result<Parcel, Outcome> {
        let secret = self
            .terms
            .secret()
            .reveal()
            .map_err(|error| Outcome::Later {
                after: None,
                why: chain(&error),
            })?;
        let node = self
            .newest
            .borrow()
            .as_ref()
            .map(|snapshot| snapshot.node.clone())
            .unwrap_or_default();
        let parcel = Parcel {
            url: self.terms.url(&secret),
            headers: self.terms.headers(&node),
            body: batch.body,
        };
        self.secret = Some(secret);
        Ok(parcel)
    }

    fn report(&mut self) {
        let count = self.outbox.count();
        let newly = count.dropped - self.dropped_before;
        self.dropped_before = count.dropped;
        if newly > 0 {
            tracing::warn!(
                exporter = self.terms.exporter(),
                signal = self.terms.signal.name(),
                "{newly} batches were given up"
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let dropped_per_second = newly as f64 / SEND_EVERY.as_secs_f64();
        self.samples.export(ExportLine {
            exporter: self.terms.exporter().to_owned(),
            signal: self.terms.signal.name().to_owned(),
            sent: count.sent,
            failures: count.failures,
            dropped: count.dropped,
            dropped_per_second,
            waiting_bytes: self.outbox.waiting_bytes(),
            waiting: self.outbox.waiting() as u64,
            trouble: self.outbox.trouble().map(str::to_owned),
        });
    }
}

async fn deliver(courier: Courier, parcel: Parcel) -> Outcome {
    match courier.post(parcel).await {
        Ok(answer) => Outcome::of_status(answer.status, answer.retry_after),
        Err(error) => Outcome::Later {
            after: None,
            why: chain(&error),
        },
    }
}

/// From 0 to 1; half where there is no randomness to be had.
fn random_part() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

const SEND_EVERY: Duration = Duration::from_secs(1);
const LOGS_EVERY: Duration = Duration::from_secs(2);
const LINES_AT_ONCE: usize = 2_000;
