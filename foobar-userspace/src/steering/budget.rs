//! How many requests may be tried again: a share of all, so that retries cannot double the load of what is failing.

use std::time::Instant;

use crate::config::Retries;

/// A site's budget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Retries that are paid for.
    credit: f64,
    at: Instant,
}

impl Budget {
    #[must_use]
    pub fn new(policy: &Retries, now: Instant) -> Self {
        Self {
            credit: f64::from(policy.least_per_second),
            at: now,
        }
    }

    /// A request pays a share of a retry.
    pub fn earn(&mut self, policy: &Retries) {
        let most = f64::from(policy.least_per_second.max(1)) * MOST_SECONDS;
        self.credit = (self.credit + f64::from(policy.budget_percent) / 100.0).min(most);
    }

    /// Whether one more may be tried again.
    pub fn spend(&mut self, policy: &Retries, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let least = f64::from(policy.least_per_second);
        let floor = (passed * least).min(least.max(0.0));
        self.credit += floor;
        if self.credit < 1.0 {
            return false;
        }
        self.credit -= 1.0;
        true
    }
}

/// Credit is kept for so many seconds of the least rate.
const MOST_SECONDS: f64 = 100.0;

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
        let mut budget = Budget::new(&POLICY, start);
        for _ in 0..100 {
            budget.earn(&POLICY);
        }
        let allowed = (0..100).filter(|_| budget.spend(&POLICY, start)).count();
        assert!((22..=23).contains(&allowed), "{allowed}");
    }

    #[test]
    fn a_quiet_site_may_try_again_all_the_same() {
        let start = Instant::now();
        let mut budget = Budget::new(&POLICY, start);
        let at_once = (0..10).filter(|_| budget.spend(&POLICY, start)).count();
        assert_eq!(at_once, 3);
        let later = start + Duration::from_secs(1);
        let allowed = (0..10).filter(|_| budget.spend(&POLICY, later)).count();
        assert_eq!(allowed, 3);
    }
}
