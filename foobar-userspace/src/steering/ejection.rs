//! Backends that answer badly are left out for a while, whatever their checks say, but never too many of them.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::config::Ejection;

/// What a site's backends answered lately, to all workers. An answer costs a count or two; a lock is taken only to leave
/// a backend out.
#[derive(Debug)]
pub struct Outliers {
    since: Instant,
    backends: Box<[Record]>,
    /// Held while it is decided whether one more may be out.
    ejecting: Mutex<()>,
}

/// Times are milliseconds since the beginning.
#[derive(Debug, Default)]
struct Record {
    in_a_row: AtomicU32,
    requests: AtomicU32,
    failures: AtomicU32,
    /// When the counts began.
    window: AtomicU64,
    /// 0: it was never out.
    until: AtomicU64,
    /// Ejections since it last behaved for as long as one lasts.
    times: AtomicU32,
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
    pub fn new(backends: usize, now: Instant) -> Self {
        Self {
            since: now,
            backends: (0..backends).map(|_| Record::default()).collect(),
            ejecting: Mutex::new(()),
        }
    }

    /// Takes in an answer; says if the backend is left out from now on.
    pub fn observe(
        &self,
        backend: usize,
        outcome: Outcome,
        policy: &Ejection,
        now: Instant,
    ) -> Option<Ejected> {
        let at = self.at(now);
        let record = self.backends.get(backend)?;
        let why = record.count(outcome, policy, at)?;
        let _turn = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.backends.len() * usize::from(policy.at_most_percent) / 100;
        let out = self.backends.iter().filter(|record| record.is_out(at));
        if record.is_out(at) || out.count() >= most {
            return None;
        }
        record.eject(policy.lasts, at);
        Some(why)
    }

    #[must_use]
    pub fn is_out(&self, backend: usize, now: Instant) -> bool {
        let record = self.backends.get(backend);
        record.is_some_and(|record| record.is_out(self.at(now)))
    }

    fn at(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.since))
    }
}

impl Record {
    fn is_out(&self, at: u64) -> bool {
        self.until.load(Relaxed) > at
    }

    fn count(&self, outcome: Outcome, policy: &Ejection, at: u64) -> Option<Ejected> {
        let began = self.window.load(Relaxed);
        let is_over = at.saturating_sub(began) >= milliseconds(policy.window);
        // Of two who see it one begins the next.
        if is_over
            && self
                .window
                .compare_exchange(began, at, Relaxed, Relaxed)
                .is_ok()
        {
            self.requests.store(0, Relaxed);
            self.failures.store(0, Relaxed);
        }
        let requests = self.requests.fetch_add(1, Relaxed).saturating_add(1);
        if outcome == Outcome::Good {
            if self.in_a_row.load(Relaxed) != 0 {
                self.in_a_row.store(0, Relaxed);
            }
            return None;
        }
        let in_a_row = self.in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if in_a_row >= policy.failures {
            return Some(Ejected::FailuresInARow);
        }
        let is_many =
            u64::from(failures) * 100 >= u64::from(requests) * u64::from(policy.percent.max(1));
        (requests >= policy.requests && is_many).then_some(Ejected::ShareOfFailures)
    }

    fn eject(&self, lasts: Duration, at: u64) {
        let (until, times) = (self.until.load(Relaxed), self.times.load(Relaxed));
        let lasts = milliseconds(lasts);
        let behaved = until > 0 && at.saturating_sub(until) > lasts * u64::from(times.max(1));
        let times = if behaved {
            1
        } else {
            (times + 1).min(MOST_TIMES)
        };
        self.times.store(times, Relaxed);
        self.until.store(at + lasts * u64::from(times), Relaxed);
        for count in [&self.in_a_row, &self.requests, &self.failures] {
            count.store(0, Relaxed);
        }
        self.window.store(at, Relaxed);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
        let outliers = Outliers::new(3, start);
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
        let outliers = Outliers::new(3, start);
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
        let outliers = Outliers::new(3, start);
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
        let outliers = Outliers::new(3, start);
        let fail = |at: Instant| {
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

    #[test]
    fn many_workers_leave_a_backend_out_once() {
        let start = Instant::now();
        let outliers = Outliers::new(4, start);
        let ejected: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..400)
                            .filter(|turn| {
                                outliers
                                    .observe(turn % 4, Outcome::Bad, &POLICY, start)
                                    .is_some()
                            })
                            .count()
                    })
                })
                .collect();
            let counts = workers.into_iter().map(|worker| worker.join().unwrap());
            counts.sum()
        });
        assert_eq!(ejected, 2, "half of four");
        let out = (0..4).filter(|backend| outliers.is_out(*backend, start));
        assert_eq!(out.count(), 2);
    }
}
