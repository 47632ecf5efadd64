//! Whether a replica is close enough behind to be read from.

use std::time::{Duration, Instant};

/// How far behind a replica may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LagLimits {
    /// Beyond it no new connections.
    pub soft: Duration,
    /// Beyond it none at all (N10).
    pub hard: Duration,
}

/// What a replica may get.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Readable {
    No,
    /// What it has, it keeps.
    KeepsOnly,
    Yes,
}

/// With hysteresis: out at the limit for two checks, in again at half of it for five seconds.
#[derive(Clone, Debug)]
pub struct LagGate {
    open: bool,
    over: u32,
    below_since: Option<Instant>,
    lag: Option<Duration>,
}

impl Default for LagGate {
    fn default() -> Self {
        Self {
            open: true,
            over: 0,
            below_since: None,
            lag: None,
        }
    }
}

impl LagGate {
    /// `lag`: none where it is not known.
    pub fn observe(&mut self, lag: Option<Duration>, limits: LagLimits, now: Instant) {
        self.lag = lag;
        match lag {
            Some(lag) if lag <= limits.soft => {
                self.over = 0;
                if lag * 2 > limits.soft {
                    self.below_since = None;
                    return;
                }
                let since = *self.below_since.get_or_insert(now);
                self.open |= now.saturating_duration_since(since) >= BACK_AFTER;
            }
            _ => {
                self.below_since = None;
                self.over += 1;
                self.open &= self.over < OUT_AFTER;
            }
        }
    }

    #[must_use]
    pub fn readable(&self, limits: LagLimits) -> Readable {
        match self.lag {
            Some(lag) if lag > limits.hard => Readable::No,
            _ if self.open => Readable::Yes,
            _ => Readable::KeepsOnly,
        }
    }

    #[must_use]
    pub const fn lag(&self) -> Option<Duration> {
        self.lag
    }
}

/// How far behind the primary a replica is, from beats of this node's own clock: `written`, the last that the primary took,
/// and `arrived`, the last that the replica shows.
#[must_use]
pub fn lag(written: Option<u64>, arrived: Option<u64>, now: u64) -> Option<Duration> {
    let (written, arrived) = (written?, arrived?);
    if arrived >= written {
        return Some(Duration::ZERO);
    }
    Some(Duration::from_micros(now.saturating_sub(arrived)))
}

const OUT_AFTER: u32 = 2;
const BACK_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: LagLimits = LagLimits {
        soft: Duration::from_secs(2),
        hard: Duration::from_secs(10),
    };
    const fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn one_late_check_changes_nothing_two_take_it_out_and_half_the_limit_brings_it_back() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut gate = LagGate::default();
        gate.observe(seconds(3), LIMITS, at(0));
        assert_eq!(gate.readable(LIMITS), Readable::Yes);
        gate.observe(seconds(3), LIMITS, at(1));
        assert_eq!(gate.readable(LIMITS), Readable::KeepsOnly);
        for second in 2..20 {
            gate.observe(seconds(2), LIMITS, at(second));
        }
        assert_eq!(
            gate.readable(LIMITS),
            Readable::KeepsOnly,
            "not at half the limit"
        );
        for second in 20..25 {
            gate.observe(seconds(1), LIMITS, at(second));
            assert_eq!(gate.readable(LIMITS), Readable::KeepsOnly);
        }
        gate.observe(seconds(1), LIMITS, at(25));
        assert_eq!(gate.readable(LIMITS), Readable::Yes);
        gate.observe(seconds(11), LIMITS, at(26));
        assert_eq!(
            gate.readable(LIMITS),
            Readable::No,
            "at once beyond the hard limit"
        );
    }

    #[test]
    fn a_replica_that_shows_the_last_beat_is_not_behind_however_old_it_is() {
        assert_eq!(lag(Some(5), Some(5), 9_000_000), Some(Duration::ZERO));
        assert_eq!(
            lag(Some(7), Some(5), 1_000_005),
            Some(Duration::from_secs(1))
        );
        assert_eq!(lag(None, Some(5), 9), None);
        assert_eq!(lag(Some(5), None, 9), None);
    }

    proptest! {
        #[test]
        fn nothing_beyond_the_hard_limit_is_ever_read_from(lags in proptest::collection::vec(0_u64..30, 1..40)) {
            let start = Instant::now();
            let mut gate = LagGate::default();
            for (second, lag) in (0..).zip(lags) {
                gate.observe(seconds(lag), LIMITS, start + Duration::from_secs(second));
                if lag > 10 {
                    prop_assert_eq!(gate.readable(LIMITS), Readable::No);
                }
            }
        }
    }
}
