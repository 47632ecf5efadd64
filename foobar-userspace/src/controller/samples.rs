//! The counters of a moment ago, which rates are measured against.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task, time};

use crate::{
    admin::api::{Maps, Snapshot},
    snapshot,
};

/// Taken every second; the older of the last two is one to two seconds old.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<VecDeque<Snapshot>>>);

/// Stops the sampling when it is dropped.
#[derive(Debug)]
pub struct Sampler(task::JoinHandle<()>);

impl Samples {
    pub fn keep(&self, node: String) -> Sampler {
        let samples = self.clone();
        Sampler(tokio::spawn(async move {
            let mut tick = time::interval(PERIOD);
            tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let node = node.clone();
                let taken =
                    task::spawn_blocking(move || snapshot::of_pins(&node, Maps::LeftOut)).await;
                // Who asks for a snapshot is told why there is none.
                if let Ok(Ok(sample)) = taken {
                    samples.push(sample);
                }
            }
        }))
    }

    pub fn earlier(&self) -> Option<Snapshot> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.front().cloned()
    }

    fn push(&self, sample: Snapshot) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(sample);
        if samples.len() > KEPT {
            samples.pop_front();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const PERIOD: Duration = Duration::from_secs(1);
const KEPT: usize = 2;
