//! When an alert fires, is told again, and ends: a state machine per alert.

use std::{collections::BTreeMap, time::Duration};

use crate::config::{Side, Threshold};

/// Time since some beginning, the same for all calls.
pub type Moment = Duration;

/// What decides: the threshold, how long it must last, and how often each target is told again.
#[derive(Clone, Debug)]
pub struct Terms {
    pub threshold: Threshold,
    pub lasting: Duration,
    /// By name of the target.
    pub repeats: BTreeMap<String, Duration>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum State {
    #[default]
    Calm,
    /// It holds, and not for long enough yet.
    Pending { since: Moment },
    Firing {
        since: Moment,
        /// When each target was told last.
        told: BTreeMap<String, Moment>,
    },
}

/// A target is to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Telling {
    pub target: String,
    pub news: News,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum News {
    Fires,
    StillFires,
    Ends,
}

impl State {
    /// `value` is `None` where there is nothing to measure: then nothing changes, but what fires is told again.
    #[must_use]
    pub fn step(self, terms: &Terms, value: Option<f64>, now: Moment) -> (Self, Vec<Telling>) {
        match (self, value) {
            (Self::Calm | Self::Pending { .. }, Some(value)) if !holds(&terms.threshold, value) => {
                (Self::Calm, Vec::new())
            }
            (Self::Calm, Some(_)) => Self::pending(terms, now, now),
            (Self::Pending { since }, Some(_)) => Self::pending(terms, since, now),
            (Self::Firing { told, .. }, Some(value)) if has_ended(&terms.threshold, value) => {
                let ends = told.into_keys().map(|target| Telling {
                    target,
                    news: News::Ends,
                });
                (Self::Calm, ends.collect())
            }
            (Self::Firing { since, told }, _) => Self::firing(terms, since, told, now),
            (calm_or_pending, None) => (calm_or_pending, Vec::new()),
        }
    }

    /// Ends it for good, as when it is no longer configured.
    #[must_use]
    pub fn dismiss(self) -> Vec<Telling> {
        match self {
            Self::Calm | Self::Pending { .. } => Vec::new(),
            Self::Firing { told, .. } => told
                .into_keys()
                .map(|target| Telling {
                    target,
                    news: News::Ends,
                })
                .collect(),
        }
    }

    fn pending(terms: &Terms, since: Moment, now: Moment) -> (Self, Vec<Telling>) {
        if now.saturating_sub(since) < terms.lasting {
            return (Self::Pending { since }, Vec::new());
        }
        let told: BTreeMap<_, _> = terms
            .repeats
            .keys()
            .map(|target| (target.clone(), now))
            .collect();
        let tellings = told
            .keys()
            .map(|target| Telling {
                target: target.clone(),
                news: News::Fires,
            })
            .collect();
        (Self::Firing { since, told }, tellings)
    }

    fn firing(
        terms: &Terms,
        since: Moment,
        told: BTreeMap<String, Moment>,
        now: Moment,
    ) -> (Self, Vec<Telling>) {
        let mut tellings = Vec::new();
        let told = terms
            .repeats
            .iter()
            .map(|(target, repeat)| {
                let news = match told.get(target) {
                    // The target came with a reload.
                    None => Some(News::Fires),
                    Some(last) if now.saturating_sub(*last) >= *repeat => Some(News::StillFires),
                    Some(_) => None,
                };
                tellings.extend(news.map(|news| Telling {
                    target: target.clone(),
                    news,
                }));
                let last = match news {
                    Some(_) => now,
                    None => told.get(target).copied().unwrap_or(now),
                };
                (target.clone(), last)
            })
            .collect();
        (Self::Firing { since, told }, tellings)
    }
}

fn holds(threshold: &Threshold, value: f64) -> bool {
    let fires = threshold.fires.value();
    match threshold.side {
        Side::Above => value > fires,
        Side::Below => value < fires,
    }
}

fn has_ended(threshold: &Threshold, value: f64) -> bool {
    let clears = threshold.clears.value();
    match threshold.side {
        Side::Above => value <= clears,
        Side::Below => value >= clears,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Quantity;

    fn terms(lasting: u64) -> Terms {
        Terms {
            threshold: Threshold {
                side: Side::Above,
                fires: Quantity::new(5_000.0),
                clears: Quantity::new(4_000.0),
            },
            lasting: seconds(lasting),
            repeats: [("ops".to_owned(), seconds(60))].into(),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The news of each second.
    fn run(terms: &Terms, values: &[Option<f64>]) -> Vec<Option<News>> {
        let mut state = State::Calm;
        (0..)
            .zip(values)
            .map(|(second, value)| {
                let (next, tellings) =
                    std::mem::take(&mut state).step(terms, *value, seconds(second));
                state = next;
                assert!(tellings.len() <= 1, "one target is told once");
                tellings.first().map(|telling| telling.news)
            })
            .collect()
    }

    fn news(news: &[Option<News>]) -> Vec<(usize, News)> {
        let told = news.iter().enumerate();
        told.filter_map(|(second, news)| news.map(|news| (second, news)))
            .collect()
    }

    #[test]
    fn it_fires_after_it_has_lasted_and_ends_below_the_lower_threshold() {
        let values = [6e3, 6e3, 6e3, 4.5e3, 6e3, 3.9e3, 6e3].map(Some);
        assert_eq!(
            news(&run(&terms(2), &values)),
            [(2, News::Fires), (5, News::Ends)],
            "between the thresholds it goes on firing; then it must last anew"
        );
    }

    #[test]
    fn without_a_for_it_fires_at_once() {
        assert_eq!(news(&run(&terms(0), &[Some(5_001.0)])), [(0, News::Fires)]);
        assert_eq!(news(&run(&terms(0), &[Some(5_000.0)])), []);
    }

    #[test]
    fn what_dips_while_it_is_pending_begins_again() {
        let values = [6e3, 5e3, 6e3, 6e3, 6e3].map(Some);
        assert_eq!(news(&run(&terms(2), &values)), [(4, News::Fires)]);
    }

    #[test]
    fn nothing_to_measure_changes_nothing() {
        let values = [Some(6e3), None, Some(6e3), None, Some(1.0)];
        assert_eq!(
            news(&run(&terms(2), &values)),
            [(2, News::Fires), (4, News::Ends)]
        );
    }

    #[test]
    fn a_lasting_alert_is_told_again() {
        let values = vec![Some(6e3); 130];
        assert_eq!(
            news(&run(&terms(0), &values)),
            [
                (0, News::Fires),
                (60, News::StillFires),
                (120, News::StillFires)
            ]
        );
    }

    #[test]
    fn below_is_the_mirror_of_above() {
        let terms = Terms {
            threshold: Threshold {
                side: Side::Below,
                fires: Quantity::new(2.0),
                clears: Quantity::new(2.0),
            },
            ..terms(0)
        };
        let values = [3.0, 1.0, 1.0, 2.0].map(Some);
        assert_eq!(
            news(&run(&terms, &values)),
            [(1, News::Fires), (3, News::Ends)]
        );
    }

    #[test]
    fn one_that_is_no_longer_configured_ends() {
        let (state, _) = State::Calm.step(&terms(0), Some(6e3), seconds(0));
        assert_eq!(
            state.dismiss(),
            [Telling {
                target: "ops".to_owned(),
                news: News::Ends
            }]
        );
        assert_eq!(State::Calm.dismiss(), []);
    }

    proptest! {
        #[test]
        fn it_never_flaps_within_its_hysteresis(
            start in prop_oneof![Just(1.0), Just(9e3)],
            values in prop::collection::vec(4_000.1..=5_000.0, 1..200),
        ) {
            let all: Vec<_> = [start].into_iter().chain(values).map(Some).collect();
            let changes = news(&run(&terms(0), &all))
                .into_iter()
                .filter(|(_, news)| *news != News::StillFires)
                .count();
            prop_assert_eq!(changes, usize::from(start > 5e3));
        }

        #[test]
        fn firing_and_ending_take_turns_and_firing_was_earned(
            lasting in 0_u64..5,
            values in prop::collection::vec(prop::option::weighted(0.9, 0.0..9e3), 1..300),
        ) {
            let told = news(&run(&terms(lasting), &values));
            let mut firing = false;
            for (second, news) in told {
                match news {
                    News::Fires => {
                        prop_assert!(!firing);
                        firing = true;
                        let held = &values[second - usize::try_from(lasting).unwrap()..=second];
                        prop_assert!(held.iter().flatten().all(|value| *value > 5e3));
                    }
                    News::Ends => {
                        prop_assert!(firing);
                        firing = false;
                        prop_assert!(values[second].is_some_and(|value| value <= 4e3));
                    }
                    News::StillFires => prop_assert!(firing),
                }
            }
        }

        #[test]
        fn a_target_is_not_told_more_often_than_it_wants(
            values in prop::collection::vec(4_500.0..9e3, 1..400),
        ) {
            let all: Vec<_> = values.into_iter().map(Some).collect();
            let told = news(&run(&terms(0), &all));
            for pair in told.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= 60);
            }
        }
    }
}
