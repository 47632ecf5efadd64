//! The one snapshot that everybody is shown: taken once a second, and anew for who cannot wait, with rates.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{Mutex as Turn, watch},
    task,
};

use super::facts::Facts;
use crate::{
    admin::api::{AlertLine, ExportLine, MapUse, Maps, Snapshot},
    kernel::KernelError,
    snapshot,
};

#[derive(Clone, Debug)]
pub struct Samples(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: String,
    facts: watch::Receiver<Arc<Facts>>,
    kept: Mutex<Kept>,
    /// Many who ask at once get one snapshot.
    turn: Turn<()>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Of each second; the older of the last two is one to two seconds old.
    seconds: VecDeque<Arc<Snapshot>>,
    newest: Option<(Instant, Arc<Snapshot>)>,
    /// Counting them takes a walk through each, so they are counted more seldom.
    maps: Option<(Instant, Vec<MapUse>)>,
    alerts: Vec<AlertLine>,
    exports: Vec<ExportLine>,
}

impl Samples {
    pub fn new(node: String, facts: watch::Receiver<Arc<Facts>>) -> Self {
        Self(Arc::new(Inner {
            node,
            facts,
            kept: Mutex::default(),
            turn: Turn::default(),
        }))
    }

    /// One that is a moment old at most.
    pub async fn recent(&self, maps: Maps) -> Result<Arc<Snapshot>, KernelError> {
        let _turn = self.0.turn.lock().await;
        let newest = self.kept().newest.clone();
        match newest {
            Some((at, snapshot)) if at.elapsed() < MOMENT && maps == Maps::LeftOut => Ok(snapshot),
            _ => {
                let snapshot = self.read(maps, Against::LastButOne).await?;
                Ok(self.kept().keep(snapshot))
            }
        }
    }

    /// The one of this second, which later ones are rated against; `judge` says how alerts stand by it.
    pub async fn of_this_second(
        &self,
        judge: impl FnOnce(&Snapshot) -> Vec<AlertLine> + Send,
    ) -> Result<Arc<Snapshot>, KernelError> {
        let _turn = self.0.turn.lock().await;
        let maps = match &self.kept().maps {
            Some((at, _)) if at.elapsed() < MAPS_EVERY => Maps::LeftOut,
            _ => Maps::Counted,
        };
        // An alert is late by the span that its rates are of: one second here, not two.
        let mut snapshot = self.read(maps, Against::LastSecond).await?;
        let alerts = judge(&snapshot);
        snapshot.alerts.clone_from(&alerts);
        let mut kept = self.kept();
        kept.alerts = alerts;
        let snapshot = kept.keep(snapshot);
        kept.seconds.push_back(snapshot.clone());
        if kept.seconds.len() > SECONDS {
            kept.seconds.pop_front();
        }
        Ok(snapshot)
    }

    /// How exports stand; the next snapshots say it.
    pub fn export(&self, line: ExportLine) {
        let mut kept = self.kept();
        let same =
            |known: &ExportLine| known.exporter == line.exporter && known.signal == line.signal;
        match kept.exports.iter().position(same) {
            Some(at) => kept.exports[at] = line,
            None => kept.exports.push(line),
        }
    }

    /// An exporter is no longer configured.
    pub fn forget_export(&self, exporter: &str, signal: &str) {
        self.kept()
            .exports
            .retain(|line| line.exporter != exporter || line.signal != signal);
    }

    async fn read(&self, maps: Maps, against: Against) -> Result<Snapshot, KernelError> {
        let node = self.0.node.clone();
        let names = self.0.facts.borrow().names.clone();
        let mut taken = task::spawn_blocking(move || snapshot::named(&node, &names, maps))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let facts = self.0.facts.borrow().clone();
        facts.complete(&mut taken, SystemTime::now());
        let mut kept = self.kept();
        if maps == Maps::Counted {
            kept.maps = Some((Instant::now(), taken.maps.clone()));
        } else if let Some((_, maps)) = &kept.maps {
            taken.maps.clone_from(maps);
        }
        taken.alerts.clone_from(&kept.alerts);
        taken.exports.clone_from(&kept.exports);
        let earlier = match against {
            Against::LastSecond => kept.seconds.back(),
            Against::LastButOne => kept.seconds.front(),
        };
        if let Some(earlier) = earlier {
            snapshot::rate(earlier, &mut taken);
        }
        Ok(taken)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        self.newest = Some((Instant::now(), snapshot.clone()));
        snapshot
    }
}

/// Which of the kept seconds rates are made against.
#[derive(Clone, Copy, Debug)]
enum Against {
    LastSecond,
    /// The last may be a moment old only, too short for a rate.
    LastButOne,
}

/// Who asks more often than this sees the same.
const MOMENT: Duration = Duration::from_millis(200);
const MAPS_EVERY: Duration = Duration::from_secs(30);
const SECONDS: usize = 2;
