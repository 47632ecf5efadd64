//! Backends that answer badly are left out for a while, whatever their checks say, but never too many of them.

use std::time::{Duration, Instant};

use crate::config::Ejection;

/// What a site's backends answered lately.
#[derive(Clone, Debug, Default)]
pub struct Outliers {
    backends: Vec<Record>,
}

#[derive(Clone, Debug, Default)]
struct Record {
    in_a_row: u32,
    requests: u32,
    failures: u32,
    /// When the counts began.
    window: Option<Instant>,
    until: Option<Instant>,
    /// Ejections since it last behaved for as long as one lasts.
    times: u32,
}

/// What an answer says about its backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Anything below 500: a client's mistake is none of the backend's.
    Good,
    /// 5xx, reset, timeout, no connection.
    Bad,
}

/// Why a backend is left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ejected {
    FailuresInARow,
    ShareOfFailures,
}

impl Outliers {
    #[must_use]
    pub fn new(backends: usize) -> Self {
        Self {
            backends: vec![Record::default(); backends],
        }
    }

    /// Takes in an answer; says if the backend is left out from now on.
    pub fn observe(
        &mut self,
        backend: usize,
        outcome: Outcome,
        policy: &Ejection,
        now: Instant,
    ) -> Option<Ejected> {
        let out = self.out(now);
        let most = self.backends.len() * usize::from(policy.at_most_percent) / 100;
        let record = self.backends.get_mut(backend)?;
        let why = record.count(outcome, policy, now)?;
        if record.until.is_some_and(|until| until > now) || out >= most {
            return None;
        }
        record.eject(policy.lasts, now);
        Some(why)
    }

    #[must_use]
    pub fn is_out(&self, backend: usize, now: Instant) -> bool {
        self.backends
            .get(backend)
            .and_then(|record| record.until)
            .is_some_and(|until| until > now)
    }

    fn out(&self, now: Instant) -> usize {
        (0..self.backends.len())
            .filter(|backend| self.is_out(*backend, now))
            .count()
    }
}

impl Record {
    fn count(&mut self, outcome: Outcome, policy: &Ejection, now: Instant) -> Option<Ejected> {
        let began = *self.window.get_or_insert(now);
        if now.saturating_duration_since(began) >= policy.window {
            (self.requests, self.failures, self.window) = (0, 0, Some(now));
        }
        self.requests = self.requests.saturating_add(1);
        if outcome == Outcome::Good {
            self.in_a_row = 0;
            return None;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.failures = self.failures.saturating_add(1);
        if self.in_a_row >= policy.failures {
            return Some(Ejected::FailuresInARow);
        }
        let is_many = u64::from(self.failures) * 100
            >= u64::from(self.requests) * u64::from(policy.percent.max(1));
        (self.requests >= policy.requests && is_many).then_some(Ejected::ShareOfFailures)
    }

    fn eject(&mut self, lasts: Duration, now: Instant) {
        let behaved = self
            .until
            .is_some_and(|until| now.saturating_duration_since(until) > lasts * self.times.max(1));
        self.times = if behaved {
            1
        } else {
            (self.times + 1).min(MOST_TIMES)
        };
        self.until = Some(now + lasts * self.times);
        (self.in_a_row, self.requests, self.failures, self.window) = (0, 0, 0, None);
    }
}

/// An ejection lasts at most so many times the first.
const MOST_TIMES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Ejection = Ejection {
        failures: 3,
        percent: 50,
        requests: 10,
        window: Duration::from_secs(10),
        lasts: Duration::from_secs(10),
        at_most_percent: 50,
    };

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_leave_a_backend_out_for_a_while() {
        let start = Instant::now();
        let mut outliers = Outliers::new(3);
        assert_eq!(outliers.observe(0, Outcome::Bad, &POLICY, start), None);
        assert_eq!(outliers.observe(0, Outcome::Bad, &POLICY, start), None);
        assert_eq!(
            outliers.observe(0, Outcome::Bad, &POLICY, start),
            Some(Ejected::FailuresInARow)
        );
        assert!(outliers.is_out(0, after(9, start)));
        assert!(!outliers.is_out(0, after(10, start)));
        assert!(!outliers.is_out(1, start));
    }

    #[test]
    fn good_answers_between_them_count() {
        let start = Instant::now();
        let mut outliers = Outliers::new(3);
        for _ in 0..4 {
            assert_eq!(outliers.observe(0, Outcome::Good, &POLICY, start), None);
            assert_eq!(outliers.observe(0, Outcome::Bad, &POLICY, start), None);
        }
        outliers.observe(0, Outcome::Good, &POLICY, start);
        assert_eq!(
            outliers.observe(0, Outcome::Bad, &POLICY, start),
            Some(Ejected::ShareOfFailures)
        );
    }

    #[test]
    fn never_more_than_the_cap_are_out() {
        let start = Instant::now();
        let mut outliers = Outliers::new(3);
        for backend in 0..3 {
            for _ in 0..5 {
                outliers.observe(backend, Outcome::Bad, &POLICY, start);
            }
        }
        let out = (0..3).filter(|backend| outliers.is_out(*backend, start));
        assert_eq!(out.count(), 1);
    }

    #[test]
    fn each_time_lasts_longer_until_it_behaves() {
        let start = Instant::now();
        let mut outliers = Outliers::new(3);
        let mut fail = |at: Instant| {
            for _ in 0..3 {
                outliers.observe(0, Outcome::Bad, &POLICY, at);
            }
            let mut seconds = 0;
            while outliers.is_out(0, at + Duration::from_secs(seconds)) {
                seconds += 1;
            }
            seconds
        };
        assert_eq!(fail(start), 10);
        assert_eq!(fail(after(11, start)), 20);
        assert_eq!(fail(after(500, start)), 10);
    }
}
