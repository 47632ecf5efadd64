//! Health checks under way: a task for each target, each result an observation.

use std::{
    collections::HashMap, fmt, future::Future, hash::Hash, net::SocketAddr, pin::Pin, sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time,
};

use crate::config::Check;

/// Asks a target once; the error is for people.
pub type Probe<T> = Arc<dyn Fn(T, Check, SocketAddr) -> Probing + Send + Sync>;

pub type Probing = Pin<Box<dyn Future<Output = Result<Duration, String>> + Send>>;

/// What came of one probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observation<T> {
    pub target: T,
    pub result: Result<Duration, String>,
}

/// Where and how to ask.
pub type Aim = (SocketAddr, Check);

/// Stops all tasks when it is dropped.
pub struct Checks<T> {
    probe: Probe<T>,
    observations: mpsc::Sender<Observation<T>>,
    running: HashMap<T, (Aim, Task)>,
}

#[derive(Debug)]
struct Task {
    handle: AbortHandle,
    hurry: Arc<Notify>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl<T: fmt::Debug> fmt::Debug for Checks<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Checks")
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl<T: Copy + Eq + Hash + Send + 'static> Checks<T> {
    #[must_use]
    pub fn new(probe: Probe<T>) -> (Self, mpsc::Receiver<Observation<T>>) {
        let (observations, receiver) = mpsc::channel(64);
        let checks = Self {
            probe,
            observations,
            running: HashMap::new(),
        };
        (checks, receiver)
    }

    /// Checks exactly these from now on; a target whose aim stays keeps its rhythm.
    pub fn aim(&mut self, targets: HashMap<T, Aim>) {
        self.running
            .retain(|target, (aim, _)| targets.get(target) == Some(aim));
        for (target, aim) in targets {
            if !self.running.contains_key(&target) {
                let hurry = Arc::new(Notify::new());
                let task = tokio::spawn(watch(
                    target,
                    aim.clone(),
                    self.probe.clone(),
                    self.observations.clone(),
                    hurry.clone(),
                ));
                let handle = task.abort_handle();
                self.running.insert(target, (aim, Task { handle, hurry }));
            }
        }
    }

    /// Asks a target now, whenever its turn was: somebody met with trouble there. As often as that happens, its checks
    /// are some way apart.
    pub fn hurry(&self, target: T) {
        if let Some((_, task)) = self.running.get(&target) {
            task.hurry.notify_one();
        }
    }
}

async fn watch<T: Copy>(
    target: T,
    (address, check): Aim,
    probe: Probe<T>,
    observations: mpsc::Sender<Observation<T>>,
    hurry: Arc<Notify>,
) {
    // Spread over the period, but soon enough that a start knows its backends soon.
    time::sleep(check.every.min(FIRST_WITHIN).mul_f64(fraction())).await;
    loop {
        // This check answers whoever asked for one until now.
        let _ = hurry.notified().now_or_never();
        let begun = time::Instant::now();
        let result = match time::timeout(check.timeout, probe(target, check.clone(), address)).await
        {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {:?}", check.timeout)),
        };
        if observations
            .send(Observation { target, result })
            .await
            .is_err()
        {
            return;
        }
        // A tenth of jitter keeps the checks of many balancers from falling into step.
        let turn = begun + check.every.mul_f64(0.95 + 0.1 * fraction());
        tokio::select! {
            () = time::sleep_until(turn) => {}
            () = hurry.notified() => time::sleep_until(turn.min(begun + APART)).await,
        }
    }
}

/// Between two checks of a target that are asked for in a hurry.
const APART: Duration = Duration::from_millis(100);

const FIRST_WITHIN: Duration = Duration::from_millis(200);

/// Random in 0..1; without random numbers all the same.
fn fraction() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_target_is_asked_again_and_again_until_it_is_aimed_at_no_more() {
        let (mut checks, mut observations) = Checks::new(Arc::new(always_up));
        checks.aim(HashMap::from([(1, aim(80)), (2, aim(81))]));
        let mut seen = HashMap::new();
        for _ in 0..20 {
            let observation = observations.recv().await.expect("running");
            assert_eq!(observation.result, Ok(Duration::from_millis(3)));
            *seen.entry(observation.target).or_insert(0) += 1;
        }
        assert!(seen[&1] >= 9 && seen[&2] >= 9, "{seen:?}");

        checks.aim(HashMap::from([(2, aim(81))]));
        while observations.try_recv().is_ok() {}
        for _ in 0..5 {
            assert_eq!(observations.recv().await.expect("running").target, 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_never_answers_fails_in_time() {
        let (mut checks, mut observations) = Checks::new(Arc::new(never));
        checks.aim(HashMap::from([(1, aim(80))]));
        let begun = time::Instant::now();
        let observation = observations.recv().await.expect("running");
        assert_eq!(observation.result, Err("no answer within 1s".to_owned()));
        assert!(begun.elapsed() < Duration::from_millis(1_300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_in_trouble_is_asked_at_once_but_not_without_end() {
        let (mut checks, mut observations) = Checks::new(Arc::new(always_up));
        checks.aim(HashMap::from([(1, aim(80))]));
        observations.recv().await.expect("running");
        time::sleep(Duration::from_millis(500)).await;
        let begun = time::Instant::now();
        for _ in 0..100 {
            checks.hurry(1);
        }
        checks.hurry(2);
        observations.recv().await.expect("running");
        assert!(begun.elapsed() < Duration::from_millis(10));
        checks.hurry(1);
        observations.recv().await.expect("running");
        let took = begun.elapsed();
        assert!(took >= APART && took < 2 * APART, "{took:?}");
        observations.recv().await.expect("running");
        assert!(
            begun.elapsed() > Duration::from_secs(1),
            "its own rhythm again"
        );
    }

    fn always_up(_: u32, _: Check, _: SocketAddr) -> Probing {
        Box::pin(async { Ok(Duration::from_millis(3)) })
    }

    fn never(_: u32, _: Check, _: SocketAddr) -> Probing {
        Box::pin(std::future::pending())
    }

    fn aim(port: u16) -> Aim {
        let check = Check {
            probe: crate::config::Probe::Tcp,
            every: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            announced: None,
        };
        (SocketAddr::from(([10, 0, 0, 11], port)), check)
    }
}
