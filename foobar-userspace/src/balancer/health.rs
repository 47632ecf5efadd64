//! Whether a backend takes flows, from what its checks saw and what the operator wants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an operator wants of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackendWish {
    Enable,
    Drain,
    Disable,
    Weight(u16),
}

/// A backend as people see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackendState {
    Up,
    Down,
    Drain,
    Disabled,
    /// Not checked often enough yet to know.
    Unknown,
}

/// What a backend may get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Availability {
    /// New flows and old.
    Up,
    /// Old flows only.
    Draining,
    /// Nothing.
    Down,
}

/// What the checks know of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Observed {
    /// Not yet checked. It takes no flow before its first success: a server that boots answers with resets.
    Unknown,
    Up,
    Down,
}

/// A backend's checks, counted.
#[derive(Clone, Debug)]
pub struct Health {
    observed: Observed,
    /// Results in a row that speak against `observed`.
    against: u32,
    wish: BackendWish,
    /// Of the last failure.
    detail: Option<String>,
}

impl Health {
    #[must_use]
    pub const fn new(observed: Observed) -> Self {
        Self {
            observed,
            against: 0,
            wish: BackendWish::Enable,
            detail: None,
        }
    }

    /// A backend that nobody checks is up.
    #[must_use]
    pub const fn unchecked() -> Self {
        Self::new(Observed::Up)
    }

    /// One result; true when the backend changed sides: up after `rise` successes in a row (one, the first time), down
    /// after `fall` failures in a row.
    pub fn observe(&mut self, result: Result<(), String>, rise: u32, fall: u32) -> bool {
        let (side, needed) = match (&result, self.observed) {
            (Ok(()), Observed::Unknown) => (Observed::Up, 1),
            (Ok(()), _) => (Observed::Up, rise),
            (Err(_), _) => (Observed::Down, fall),
        };
        match result {
            Ok(()) if self.observed == Observed::Up => self.detail = None,
            Ok(()) => {}
            Err(detail) => self.detail = Some(detail),
        }
        if side == self.observed {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < needed.max(1) {
            return false;
        }
        self.observed = side;
        self.against = 0;
        if side == Observed::Up {
            self.detail = None;
        }
        true
    }

    pub const fn wish(&mut self, wish: BackendWish) {
        self.wish = wish;
    }

    #[must_use]
    pub const fn observed(&self) -> Observed {
        self.observed
    }

    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The weight that counts, given the one of the configuration.
    #[must_use]
    pub const fn weight(&self, configured: u16) -> u16 {
        match self.wish {
            BackendWish::Weight(weight) => weight,
            _ => configured,
        }
    }

    #[must_use]
    pub const fn state(&self) -> BackendState {
        match (self.wish, self.observed) {
            (BackendWish::Disable, _) => BackendState::Disabled,
            (_, Observed::Down) => BackendState::Down,
            (BackendWish::Drain, _) => BackendState::Drain,
            (_, Observed::Unknown) => BackendState::Unknown,
            (_, Observed::Up) => BackendState::Up,
        }
    }

    const fn availability(&self) -> Availability {
        match self.state() {
            BackendState::Up => Availability::Up,
            BackendState::Drain => Availability::Draining,
            BackendState::Down | BackendState::Disabled | BackendState::Unknown => {
                Availability::Down
            }
        }
    }
}

/// What the members of a vip get.
///
/// When the checks of all that the operator left enabled fail, all of those stay in (Envoy's panic mode): it is more
/// often the check that is wrong than every server at once, and a client that is refused by a dead server has lost
/// nothing against one that is refused here.
#[must_use]
pub fn availabilities(members: &[&Health]) -> Vec<Availability> {
    let mut found: Vec<_> = members.iter().map(|health| health.availability()).collect();
    if found.contains(&Availability::Up) {
        return found;
    }
    for (availability, health) in found.iter_mut().zip(members) {
        if health.observed == Observed::Down
            && matches!(health.wish, BackendWish::Enable | BackendWish::Weight(_))
        {
            *availability = Availability::Up;
        }
    }
    found
}

/// [`availabilities`] by weight: with less than `percent` of it up, the checks are not believed, and all that failed
/// and are enabled stay in beside those that are up.
#[must_use]
pub fn availabilities_above(members: &[(&Health, u16)], percent: u8) -> Vec<Availability> {
    let health: Vec<&Health> = members.iter().map(|(health, _)| *health).collect();
    let mut found = availabilities(&health);
    let wanted =
        |health: &Health| matches!(health.wish, BackendWish::Enable | BackendWish::Weight(_));
    let weight = |counts: &dyn Fn(&Health) -> bool| -> u64 {
        let counted = members
            .iter()
            .filter(|(health, _)| wanted(health) && counts(health));
        counted
            .map(|(health, weight)| u64::from(health.weight(*weight)))
            .sum()
    };
    let up = weight(&|health| health.observed == Observed::Up);
    let all = weight(&|health| health.observed != Observed::Unknown);
    if up * 100 < all * u64::from(percent) {
        for (availability, health) in found.iter_mut().zip(&health) {
            if wanted(health) && health.observed == Observed::Down {
                *availability = Availability::Up;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result<(), String> {
        Err("connection refused".into())
    }

    #[test]
    fn the_first_success_is_enough_at_the_start() {
        let mut health = Health::new(Observed::Unknown);
        assert_eq!(health.state(), BackendState::Unknown);
        assert!(health.observe(Ok(()), 3, 3));
        assert_eq!(health.state(), BackendState::Up);
    }

    #[test]
    fn a_backend_falls_after_failures_in_a_row_only() {
        let mut health = Health::new(Observed::Up);
        for _ in 0..5 {
            assert!(!health.observe(refused(), 2, 3));
            assert!(!health.observe(refused(), 2, 3));
            assert!(!health.observe(Ok(()), 2, 3));
        }
        assert!(!health.observe(refused(), 2, 3));
        assert!(!health.observe(refused(), 2, 3));
        assert!(health.observe(refused(), 2, 3));
        assert_eq!(health.state(), BackendState::Down);
        assert_eq!(health.detail(), Some("connection refused"));
    }

    #[test]
    fn a_backend_rises_after_successes_in_a_row() {
        let mut health = Health::new(Observed::Down);
        assert!(!health.observe(Ok(()), 2, 3));
        assert!(health.observe(Ok(()), 2, 3));
        assert_eq!(health.detail(), None);
    }

    #[test]
    fn the_operator_s_wish_stands_over_health() {
        let mut health = Health::new(Observed::Up);
        health.wish(BackendWish::Drain);
        assert_eq!(health.state(), BackendState::Drain);
        health.wish(BackendWish::Disable);
        assert_eq!(health.state(), BackendState::Disabled);
        health.wish(BackendWish::Weight(7));
        assert_eq!((health.state(), health.weight(1)), (BackendState::Up, 7));
    }

    #[test]
    fn with_too_little_weight_up_the_checks_are_not_believed() {
        let (up, down) = (Health::new(Observed::Up), Health::new(Observed::Down));
        let mut drained = Health::new(Observed::Down);
        drained.wish(BackendWish::Drain);
        let of = |percent| {
            availabilities_above(&[(&up, 1), (&down, 1), (&down, 1), (&drained, 9)], percent)
        };
        use Availability::{Down, Up};
        assert_eq!(of(34), [Up, Up, Up, Down]);
        assert_eq!(of(33), [Up, Down, Down, Down]);
        assert_eq!(of(0), [Up, Down, Down, Down]);
    }

    #[test]
    fn when_all_are_down_all_that_are_enabled_stay_in() {
        let down = Health::new(Observed::Down);
        let mut drained = Health::new(Observed::Down);
        drained.wish(BackendWish::Drain);
        let up = Health::new(Observed::Up);
        assert_eq!(
            availabilities(&[&down, &drained]),
            [Availability::Up, Availability::Down]
        );
        assert_eq!(
            availabilities(&[&down, &up]),
            [Availability::Down, Availability::Up]
        );
        assert_eq!(
            availabilities(&[&Health::new(Observed::Unknown)]),
            [Availability::Down]
        );
    }
}
