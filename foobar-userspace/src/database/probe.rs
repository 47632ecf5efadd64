//! The write probe: a row with a new value on the primary, which finds a hung or a full disk where every read answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use super::{Endpoint, Talk, talk::quoted};
use crate::mysql::Failure;

/// What came of a write.
#[derive(Debug)]
pub struct Beat {
    pub member: usize,
    /// The value, in microseconds since 1970; or why it did not come back. Where nothing can be said, nothing is.
    pub written: Result<u64, String>,
}

/// Writes to whoever is the target, until nobody listens.
pub async fn probe(
    endpoints: Vec<Endpoint>,
    node: String,
    every: Duration,
    timeout: Duration,
    mut target: watch::Receiver<Option<usize>>,
    beats: mpsc::Sender<Beat>,
) {
    loop {
        let Some(member) = *target.borrow_and_update() else {
            if target.changed().await.is_err() {
                return;
            }
            continue;
        };
        let Some(endpoint) = endpoints.get(member) else {
            return;
        };
        let mut talk = Talk::new(endpoint.clone(), Vec::new());
        let mut ticks = time::interval(every);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = target.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            }
            tokio::select! {
                written = write(&mut talk, &node, member, timeout, &beats) => {
                    if let Some(written) = written
                        && beats.send(Beat { member, written: Ok(written) }).await.is_err()
                    {
                        return;
                    }
                }
                // A write that hangs must not keep the next primary from being asked.
                changed = target.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
    }
}

/// One write, waited for however long it takes: to begin another would leave sessions behind, one every time-out. That it
/// is late is told as soon as it is.
async fn write(
    talk: &mut Talk,
    node: &str,
    member: usize,
    timeout: Duration,
    beats: &mpsc::Sender<Beat>,
) -> Option<u64> {
    let value = now();
    let node = quoted(node);
    let sql = format!(
        "INSERT INTO foobar.heartbeat (node, at) VALUES ({node}, {value}) ON DUPLICATE KEY UPDATE at = {value}"
    );
    let begun = Instant::now();
    let rows = talk.rows(&sql, begun + FOR_EVER);
    tokio::pin!(rows);
    let mut late = begun + timeout;
    let written = loop {
        match time::timeout_at(late, &mut rows).await {
            Ok(written) => break written,
            // Said again and again: what is said while checks fail as well does not count.
            Err(_) => {
                let written = Err(format!("no write came back within {timeout:?}"));
                let _ = beats.send(Beat { member, written }).await;
                late += timeout;
            }
        }
    };
    match written {
        Ok(_) => Some(value),
        // Read-only, no table, no right, no connection: not a disk that hangs; the checks say what it is.
        Err(Failure::Ours(why)) => {
            tracing::debug!(member, "the write probe is refused: {why}");
            None
        }
        Err(_) => None,
    }
}

/// Microseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

const FOR_EVER: Duration = Duration::from_secs(86_400);
