//! A role moves on purpose, with the shortest time in which nobody takes writes.
//!
//! What takes long comes after: disarming semi-sync on the old primary takes a second, in which nothing waits for it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    observation::Origin,
    procedure::{Course, Orders, Procedure},
    task::{Effect, Position, Task},
};

#[derive(Clone, Debug)]
pub struct Switchover {
    pub from: usize,
    pub to: usize,
    pub term: u64,
    others: Vec<usize>,
    stage: Stage,
    orders: Orders,
    /// When the old primary closed, for the length of the window.
    closed: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Close,
    Drain,
    Become,
    Attach,
    Open,
    Prove,
}

impl Switchover {
    #[must_use]
    pub fn begin(
        from: usize,
        to: usize,
        others: Vec<usize>,
        term: u64,
        last_order: u64,
        now: Instant,
    ) -> (Self, Vec<Effect>) {
        let mut switchover = Self {
            from,
            to,
            term,
            others,
            stage: Stage::Close,
            orders: Orders::numbered_after(last_order, now),
            closed: None,
        };
        let effects = switchover.step(Stage::Close, vec![(from, Task::CloseWrites)], CLOSE, now);
        (switchover, effects)
    }

    /// What it would do, for people.
    #[must_use]
    pub fn plan(from: usize, to: usize, others: &[usize], names: &[String]) -> Vec<String> {
        let name = |member: usize| names.get(member).map_or("?", String::as_str);
        let mut lines = vec![
            format!("{}: take no writes, within {CLOSE:?}, or abort", name(from)),
            "the writer address leads nowhere; open connections are reset".to_owned(),
            format!(
                "{}: apply all that {} has, within {DRAIN:?}, or abort",
                name(to),
                name(from)
            ),
            format!("{}: forget the source, arm semi-sync", name(to)),
        ];
        lines.extend(
            others
                .iter()
                .map(|other| format!("{}: follow {}", name(*other), name(to))),
        );
        lines.push(format!(
            "{}: take writes once a replica acknowledges; commit the row of the new term",
            name(to)
        ));
        lines.push(format!("the writer address leads to {}", name(to)));
        lines.push(format!(
            "{}: disarm semi-sync, follow {}",
            name(from),
            name(to)
        ));
        lines
    }

    /// The old primary keeps its clients until it has refused their writes: those get an error, not a cut.
    #[must_use]
    pub fn keeps_old(&self) -> bool {
        self.stage == Stage::Close
    }

    #[must_use]
    pub fn window(&self, now: Instant) -> Option<Duration> {
        self.closed
            .map(|closed| now.saturating_duration_since(closed))
    }

    fn step(
        &mut self,
        stage: Stage,
        orders: Vec<(usize, Task)>,
        within: Duration,
        now: Instant,
    ) -> Vec<Effect> {
        self.stage = stage;
        let said = format!("switchover to term {}: {}", self.term, self.phase());
        self.orders.give_and_say(orders, said, within, now)
    }
}

impl Procedure for Switchover {
    fn name(&self) -> &'static str {
        "a switchover"
    }

    fn phase(&self) -> &'static str {
        match self.stage {
            Stage::Close => "close",
            Stage::Drain => "drain",
            Stage::Become => "become",
            Stage::Attach => "attach",
            Stage::Open => "open",
            Stage::Prove => "prove",
        }
    }

    fn opens(&self) -> Option<usize> {
        match self.stage {
            Stage::Open | Stage::Prove => Some(self.to),
            _ => None,
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
        let to = self.to;
        let effects = match self.stage {
            Stage::Close => {
                self.closed = Some(now);
                let all = reports[&self.from].executed.clone();
                self.step(Stage::Drain, vec![(to, Task::Apply(all))], DRAIN, now)
            }
            Stage::Drain => self.step(Stage::Become, vec![(to, Task::BecomeSource)], STEP, now),
            Stage::Become => {
                let orders = self
                    .others
                    .iter()
                    .map(|other| (*other, Task::Follow(to)))
                    .collect();
                self.step(Stage::Attach, orders, STEP, now)
            }
            Stage::Attach => self.step(Stage::Open, vec![(to, Task::OpenWrites)], STEP, now),
            Stage::Open => self.step(
                Stage::Prove,
                vec![(to, Task::BeginTerm(self.term, Origin::Planned))],
                STEP,
                now,
            ),
            Stage::Prove => {
                let orders = vec![
                    (self.from, Task::DisarmSource),
                    (self.from, Task::Follow(to)),
                ];
                let mut effects = self.orders.give_parting(orders, now);
                effects.push(Effect::Hook("switched", Some(to)));
                return (Course::Won(to), effects);
            }
        };
        (Course::Going, effects)
    }

    /// Back to how it was, as far as the new term has not begun.
    fn give_up(&mut self, why: &str, now: Instant) -> (Course, Vec<Effect>) {
        let why = format!("{}: {why}", self.phase());
        let stage = self.stage;
        let mut orders = Vec::new();
        if matches!(stage, Stage::Attach | Stage::Open) {
            orders.extend(
                self.others
                    .iter()
                    .map(|other| (*other, Task::Follow(self.from))),
            );
        }
        if matches!(stage, Stage::Open | Stage::Prove) {
            orders.push((self.to, Task::CloseWrites));
        }
        if matches!(stage, Stage::Become | Stage::Attach | Stage::Open) {
            orders.push((self.to, Task::DisarmSource));
            orders.push((self.to, Task::Follow(self.from)));
        }
        // A row of the new term that nobody acknowledged may be on the target: to write elsewhere would part the two.
        if stage != Stage::Prove {
            orders.push((self.from, Task::OpenWrites));
        }
        let mut effects = self.orders.give_parting(orders, now);
        effects.push(Effect::Hook("switchover-given-up", Some(self.from)));
        (Course::GivenUp(why), effects)
    }
}

const CLOSE: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::{gtid::GtidSet, task::Report};

    fn position() -> Position {
        let set = GtidSet::mariadb("0-1-5").expect("a set");
        Position {
            executed: set.clone(),
            received: set,
        }
    }

    fn orders(effects: &[Effect]) -> Vec<(u64, usize, Task)> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Order(order) => Some((order.number, order.member, order.task.clone())),
                _ => None,
            })
            .collect()
    }

    /// Lets it succeed until it gives `fatal` to a server, which fails; what it orders then.
    fn abort_at(fatal: &Task) -> Vec<(usize, Task)> {
        let now = Instant::now();
        let (mut switchover, mut effects) = Switchover::begin(0, 1, vec![2], 3, 0, now);
        loop {
            let mut last = (Course::Going, Vec::new());
            for (number, _, task) in orders(&effects) {
                let report = if task == *fatal {
                    Report::Failed("no".to_owned())
                } else {
                    Report::Done(position())
                };
                last = switchover.advance(Some((number, report)), now);
            }
            effects = last.1;
            match last.0 {
                Course::Going => {}
                Course::GivenUp(_) | Course::Won(_) => {
                    return orders(&effects)
                        .into_iter()
                        .map(|(_, member, task)| (member, task))
                        .collect();
                }
            }
        }
    }

    #[test]
    fn what_is_slow_comes_after_the_cut_over() {
        let after = abort_at(&Task::Inspect);
        assert_eq!(after, [(0, Task::DisarmSource), (0, Task::Follow(1))]);
    }

    #[test]
    fn an_abort_at_any_step_before_the_term_restores() {
        assert_eq!(abort_at(&Task::CloseWrites), [(0, Task::OpenWrites)]);
        assert_eq!(
            abort_at(&Task::Apply(position().executed)),
            [(0, Task::OpenWrites)]
        );
        assert_eq!(
            abort_at(&Task::BecomeSource),
            [
                (1, Task::DisarmSource),
                (1, Task::Follow(0)),
                (0, Task::OpenWrites)
            ]
        );
        assert_eq!(
            abort_at(&Task::Follow(1)),
            [
                (2, Task::Follow(0)),
                (1, Task::DisarmSource),
                (1, Task::Follow(0)),
                (0, Task::OpenWrites)
            ]
        );
    }

    #[test]
    fn a_term_that_may_have_begun_is_not_written_beside() {
        assert_eq!(
            abort_at(&Task::BeginTerm(3, Origin::Planned)),
            [(1, Task::CloseWrites)]
        );
    }
}
