//! What a backend's answers take, and how much of its weight it gets while it warms up.

use std::time::{Duration, Instant};

/// A moving average that jumps up at once and comes down slowly: a backend that got slow is known by its first slow
/// answer, not by its tenth.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    microseconds: f64,
    at: Instant,
}

impl Latency {
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            microseconds: 0.0,
            at: now,
        }
    }

    pub fn observe(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64() * 1e6;
        if took > self.microseconds {
            self.microseconds = took;
        } else {
            let age = now.saturating_duration_since(self.at).as_secs_f64();
            let keep = (-age / MEMORY.as_secs_f64()).exp().min(0.99);
            self.microseconds = self.microseconds * keep + took * (1.0 - keep);
        }
        self.at = now;
    }

    #[must_use]
    pub const fn microseconds(&self) -> f64 {
        self.microseconds
    }
}

/// The share of its weight that a backend gets which is up since `since`: a tenth at first, all of it after
/// `slow_start`.
#[must_use]
pub fn share(since: Option<Instant>, slow_start: Option<Duration>, now: Instant) -> f64 {
    let (Some(since), Some(slow_start)) = (since, slow_start) else {
        return 1.0;
    };
    let age = now.saturating_duration_since(since).as_secs_f64();
    (age / slow_start.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(COLD, 1.0)
}

const MEMORY: Duration = Duration::from_secs(5);
const COLD: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_answer_is_believed_and_many_fast_ones_forgive_it() {
        let start = Instant::now();
        let mut latency = Latency::new(start);
        latency.observe(Duration::from_millis(1), start);
        latency.observe(Duration::from_millis(500), start);
        assert!(latency.microseconds() > 499_000.0);
        for second in 1..60 {
            latency.observe(
                Duration::from_millis(1),
                start + Duration::from_secs(second),
            );
        }
        assert!(latency.microseconds() < 2_000.0, "{latency:?}");
    }

    #[test]
    fn a_backend_that_came_back_warms_up() {
        let start = Instant::now();
        let ten = Some(Duration::from_secs(10));
        let at = |seconds| share(Some(start), ten, start + Duration::from_secs(seconds));
        assert!((at(0) - 0.1).abs() < 1e-9);
        assert!((at(5) - 0.5).abs() < 1e-9);
        assert!((at(20) - 1.0).abs() < 1e-9);
        assert!((share(None, ten, start) - 1.0).abs() < 1e-9);
        assert!((share(Some(start), None, start) - 1.0).abs() < 1e-9);
    }
}
