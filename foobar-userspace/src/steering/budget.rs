//! How many requests may be tried again: a share of all, so that retries cannot double the load of what is failing.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::config::Retries;

/// A site's budget, the same for all workers. While it is full, as in quiet times, a request only reads it.
#[derive(Debug)]
pub struct Budget {
    /// Retries that are paid for, in millionths.
    credit: AtomicU64,
    since: Instant,
    /// Until when the least rate was paid out, in microseconds.
    paid: AtomicU64,
}

impl Budget {
    #[must_use]
    pub fn new(policy: &Retries, now: Instant) -> Self {
        Self {
            credit: AtomicU64::new(u64::from(policy.least_per_second) * ONE),
            since: now,
            paid: AtomicU64::new(0),
        }
    }

    /// A request pays a share of a retry.
    pub fn earn(&self, policy: &Retries) {
        let most = u64::from(policy.least_per_second.max(1)) * MOST_SECONDS * ONE;
        let share = u64::from(policy.budget_percent) * ONE / 100;
        // Full: there is nothing to write.
        let _ = self.change(|credit| (credit < most).then(|| (credit + share).min(most)));
    }

    /// Whether one more may be tried again.
    pub fn spend(&self, policy: &Retries, now: Instant) -> bool {
        let least = u64::from(policy.least_per_second);
        let at = now.saturating_duration_since(self.since).as_micros();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        // Of two who come together one is paid for the time that passed.
        let passed = at.saturating_sub(self.paid.fetch_max(at, Ordering::Relaxed));
        let earned = passed.saturating_mul(least).min(least * ONE);
        self.credit.fetch_add(earned, Ordering::Relaxed);
        self.change(|credit| credit.checked_sub(ONE))
    }

    fn change(&self, change: impl FnMut(u64) -> Option<u64>) -> bool {
        self.credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .is_ok()
    }
}

/// A retry.
const ONE: u64 = 1_000_000;
/// Credit is kept for so many seconds of the least rate.
const MOST_SECONDS: u64 = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: Retries = Retries {
        most: 1,
        budget_percent: 20,
        least_per_second: 3,
        on: Vec::new(),
    };

    #[test]
    fn retries_are_a_share_of_requests() {
        let start = Instant::now();
        let budget = Budget::new(&POLICY, start);
        for _ in 0..100 {
            budget.earn(&POLICY);
        }
        let allowed = (0..100).filter(|_| budget.spend(&POLICY, start)).count();
        assert!((22..=23).contains(&allowed), "{allowed}");
    }

    #[test]
    fn a_quiet_site_may_try_again_all_the_same() {
        let start = Instant::now();
        let budget = Budget::new(&POLICY, start);
        let at_once = (0..10).filter(|_| budget.spend(&POLICY, start)).count();
        assert_eq!(at_once, 3);
        let later = start + Duration::from_secs(1);
        let allowed = (0..10).filter(|_| budget.spend(&POLICY, later)).count();
        assert_eq!(allowed, 3);
    }

    #[test]
    fn many_workers_have_no_more_than_one() {
        let start = Instant::now();
        let budget = Budget::new(&POLICY, start);
        let allowed: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..1_000).for_each(|_| budget.earn(&POLICY));
                        let at = start + Duration::from_secs(1);
                        (0..1_000).filter(|_| budget.spend(&POLICY, at)).count()
                    })
                })
                .collect();
            let counts = workers.into_iter().map(|worker| worker.join().unwrap());
            counts.sum()
        });
        // Three at first, three for the second, and of 4,000 requests a fifth, but no more than 300 at a time.
        assert!((303..=806).contains(&allowed), "{allowed}");
    }
}
