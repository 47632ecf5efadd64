//! How slow a client may be: time is given for progress, so that a byte now and then buys nothing.

use std::time::{Duration, Instant};

/// The movement of one body.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    last: Instant,
    moved: u64,
    pause: Duration,
}

impl Pace {
    /// Between two pieces no more than `pause` may pass, and on the whole no more than `pause` and a second for every
    /// kilobyte.
    #[must_use]
    pub const fn new(pause: Duration, now: Instant) -> Self {
        Self {
            start: now,
            last: now,
            moved: 0,
            pause,
        }
    }

    pub const fn advance(&mut self, bytes: u64, now: Instant) {
        self.moved = self.moved.saturating_add(bytes);
        self.last = now;
    }

    /// Forgives the time in which the other side kept this one waiting.
    pub fn forgive(&mut self, time: Duration) {
        self.start += time;
        self.last += time;
    }

    /// When it is too slow, unless more comes.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let earned = Duration::from_millis(self.moved.saturating_mul(1_000) / LEAST_PER_SECOND);
        let on_the_whole = self
            .start
            .checked_add(self.pause.saturating_add(earned))
            .unwrap_or(self.last + self.pause);
        on_the_whole.min(self.last + self.pause)
    }
}

/// Bytes a second. The slowest honest clients, on a bad mobile network, move several times this.
const LEAST_PER_SECOND: u64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    #[test]
    fn a_byte_now_and_then_buys_no_time() {
        let start = Instant::now();
        let mut pace = Pace::new(PAUSE, start);
        for second in 0..29 {
            pace.advance(1, start + Duration::from_secs(second));
        }
        assert!(pace.deadline() < start + Duration::from_secs(31));
    }

    #[test]
    fn who_moves_on_may_take_hours() {
        let start = Instant::now();
        let mut pace = Pace::new(PAUSE, start);
        let hour = start + Duration::from_secs(3_600);
        pace.advance(100_000_000, hour);
        assert_eq!(pace.deadline(), hour + PAUSE);
    }
}
