//! A member that was away comes back as a replica, if it has nothing that the primary lacks.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    procedure::{Course, Orders, Procedure},
    task::{Effect, Position, Task},
};

#[derive(Clone, Debug)]
pub struct Rejoin {
    pub member: usize,
    primary: usize,
    stage: Stage,
    orders: Orders,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Close,
    Compare,
    Follow,
}

impl Rejoin {
    #[must_use]
    pub fn begin(
        member: usize,
        primary: usize,
        last_order: u64,
        now: Instant,
    ) -> (Self, Vec<Effect>) {
        let mut rejoin = Self {
            member,
            primary,
            stage: Stage::Close,
            orders: Orders::numbered_after(last_order, now),
        };
        let effects = rejoin
            .orders
            .give(vec![(member, Task::CloseWrites)], STEP, now);
        (rejoin, effects)
    }
}

impl Procedure for Rejoin {
    fn name(&self) -> &'static str {
        "a rejoin"
    }

    fn phase(&self) -> &'static str {
        match self.stage {
            Stage::Close => "close",
            Stage::Compare => "compare",
            Stage::Follow => "follow",
        }
    }

    fn orders(&self) -> &Orders {
        &self.orders
    }

    fn orders_mut(&mut self) -> &mut Orders {
        &mut self.orders
    }

    fn proceed(
        &mut self,
        reports: &BTreeMap<usize, Position>,
        now: Instant,
    ) -> (Course, Vec<Effect>) {
        let orders = match self.stage {
            // Only what was closed cannot have more a moment later.
            Stage::Close => {
                self.stage = Stage::Compare;
                vec![(self.member, Task::Inspect), (self.primary, Task::Inspect)]
            }
            Stage::Compare => {
                let (own, primary) = (
                    &reports[&self.member].executed,
                    &reports[&self.primary].executed,
                );
                if let Some(why) = refusal(own, primary) {
                    return (Course::GivenUp(why), Vec::new());
                }
                self.stage = Stage::Follow;
                vec![(self.member, Task::Follow(self.primary))]
            }
            Stage::Follow => {
                return (
                    Course::Won(self.member),
                    vec![Effect::Hook("rejoined", Some(self.member))],
                );
            }
        };
        (Course::Going, self.orders.give(orders, STEP, now))
    }

    fn give_up(&mut self, why: &str, _now: Instant) -> (Course, Vec<Effect>) {
        (Course::GivenUp(reason(self.stage, why)), Vec::new())
    }
}

/// A semi-synchronous primary with commits that nobody acknowledges cannot be made read-only, and must not be told to go on
/// without an acknowledgement.
fn reason(stage: Stage, why: &str) -> String {
    match stage {
        Stage::Close => format!(
            "{why}; it probably holds commits that nobody acknowledged: restart it (with init-rpl-role = SLAVE MariaDB then \
             cuts them off; MySQL keeps them, and it must be rebuilt)"
        ),
        _ => why.to_owned(),
    }
}

/// Why a member with these transactions may not follow (N6).
fn refusal(own: &super::GtidSet, primary: &super::GtidSet) -> Option<String> {
    match own.minus(primary) {
        Ok(errant) if errant.is_empty() => None,
        Ok(errant) => Some(format!(
            "it has transactions that the primary lacks: {errant}; they were never acknowledged, or were written past the \
             writer address. Keep a copy if they matter, then rebuild it from the primary (CLONE, or mariabackup)"
        )),
        Err(error) => Some(error.to_string()),
    }
}

const STEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::{gtid::GtidSet, task::Report};

    fn rejoined(own: &str, primary: &str) -> (Course, Vec<Task>) {
        let now = Instant::now();
        let (mut rejoin, mut effects) = Rejoin::begin(0, 1, 0, now);
        let mut tasks = Vec::new();
        loop {
            let mut last = (Course::Going, Vec::new());
            for effect in &effects {
                let Effect::Order(order) = effect else {
                    continue;
                };
                tasks.push(order.task.clone());
                let text = if order.member == 0 { own } else { primary };
                let executed = GtidSet::mariadb(text).expect("a set");
                let position = Position {
                    received: executed.clone(),
                    executed,
                };
                last = rejoin.advance(Some((order.number, Report::Done(position))), now);
            }
            if last.0 != Course::Going {
                return (last.0, tasks);
            }
            effects = last.1;
        }
    }

    #[test]
    fn a_clean_member_follows_again() {
        let (course, tasks) = rejoined("0-1-100", "0-1-100,0-2-140");
        assert_eq!(course, Course::Won(0));
        assert_eq!(tasks.last(), Some(&Task::Follow(1)));
    }

    #[test]
    fn a_member_with_errant_transactions_is_kept_out_and_told_why() {
        let (course, tasks) = rejoined("0-1-101", "0-1-100,0-2-140");
        assert!(matches!(course, Course::GivenUp(why) if why.contains("0-1-101")));
        assert!(!tasks.contains(&Task::Follow(1)));
    }
}
