//! Keeps the monitoring of a node going: samples, alerts, pushes, pages and log files, each in a task of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time,
};

use super::{
    access, chain, drops, exports,
    facts::{Facts, unix},
    logs, pages,
    samples::Samples,
    tellers,
};
use crate::{
    admin::{Feeds, api::Snapshot},
    courier::Courier,
    monitor::{
        notice::Notice,
        watch::{Now, Watch, rehearsal},
    },
    proxy::AccessRecord,
};

#[derive(Debug)]
pub struct Monitoring {
    facts: watch::Sender<Arc<Facts>>,
    samples: Samples,
    notices: mpsc::Sender<Notice>,
    node: String,
    started: Instant,
    /// Ends all of them when it is dropped.
    tasks: JoinSet<()>,
}

impl Monitoring {
    pub fn begin(
        node: &str,
        facts: Facts,
        records: mpsc::Receiver<AccessRecord>,
        feeds: &Feeds,
    ) -> Self {
        let lines = &feeds.lines;
        let started = Instant::now();
        let (facts, known) = watch::channel(Arc::new(facts));
        let samples = Samples::new(node.to_owned(), known.clone());
        let (publish, newest) = watch::channel(None);
        let (notices, told) = mpsc::channel(64);
        let courier = Courier::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(sample(
            node.to_owned(),
            samples.clone(),
            known.clone(),
            publish,
            notices.clone(),
            started,
        ));
        tasks.spawn(tellers::run(
            told,
            known.clone(),
            courier.clone(),
            lines.clone(),
        ));
        tasks.spawn(exports::run(
            known.clone(),
            newest.clone(),
            samples.clone(),
            courier,
            lines.clone(),
        ));
        tasks.spawn(access::run(records, known.clone(), lines.clone()));
        tasks.spawn(drops::run(
            node.to_owned(),
            known.clone(),
            lines.clone(),
            feeds.drops.clone(),
        ));
        tasks.spawn(pages::run(node.to_owned(), known.clone(), newest));
        tasks.spawn(logs::run(node.to_owned(), known, lines.subscribe()));
        Self {
            facts,
            samples,
            notices,
            node: node.to_owned(),
            started,
            tasks,
        }
    }

    /// What changed in the controller.
    pub fn tell(&self, facts: Facts) {
        self.facts.send_replace(Arc::new(facts));
    }

    /// Another process takes over: its pages need the addresses.
    pub fn end(&mut self) {
        self.tasks.abort_all();
    }

    pub fn samples(&self) -> Samples {
        self.samples.clone()
    }

    /// Tells everyone of an alert as if it fired, and then as if it ended; answers whom.
    pub fn rehearse(&self, name: &str) -> Option<Vec<String>> {
        let facts = self.facts.borrow().clone();
        let alert = facts
            .config
            .alerts
            .iter()
            .find(|alert| alert.name == name)?;
        let now = now(self.started);
        let notices = rehearsal(alert, &facts.config, &self.node, now);
        let mut targets: Vec<String> = notices.iter().map(|notice| notice.target.clone()).collect();
        targets.dedup();
        for notice in notices {
            if self.notices.try_send(notice).is_err() {
                tracing::warn!("too many notices wait; the test of {name} is not told");
            }
        }
        Some(targets)
    }
}

async fn sample(
    node: String,
    samples: Samples,
    facts: watch::Receiver<Arc<Facts>>,
    publish: watch::Sender<Option<Arc<Snapshot>>>,
    notices: mpsc::Sender<Notice>,
    started: Instant,
) {
    let mut watch = Watch::default();
    let mut tick = time::interval(PERIOD);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        tick.tick().await;
        if !facts.borrow().in_service {
            continue;
        }
        let config = facts.borrow().config.clone();
        let mut news = Vec::new();
        let taken = samples
            .of_this_second(|snapshot| {
                let (lines, notices) = watch.look(&config, &node, snapshot, now(started));
                news = notices;
                lines
            })
            .await;
        match taken {
            Ok(snapshot) => {
                publish.send_replace(Some(snapshot));
            }
            Err(error) => {
                if !failed {
                    tracing::warn!("no snapshot: {}", chain(&error));
                }
                failed = true;
                continue;
            }
        };
        failed = false;
        for notice in news {
            if notices.try_send(notice).is_err() {
                tracing::warn!("too many notices wait; one is not told");
            }
        }
    }
}

fn now(started: Instant) -> Now {
    Now {
        moment: started.elapsed(),
        wall: unix(SystemTime::now()),
    }
}

/// A task that ends with its handle.
#[derive(Debug)]
pub struct Guarded(AbortHandle);

impl Guarded {
    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const PERIOD: Duration = Duration::from_secs(1);
