//! A primary is lost: who takes over, in which steps, and when to give up.
//!
//! Revoke, choose, drain, become, attach, let leases lapse, open, prove. Until `prove` is acknowledged by a replica the writer address leads
//! nowhere (N1, N8); what may be undone is undone when a step fails; what may not leaves the cluster to a human.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    observation::Origin,
    procedure::{Course, Orders, Procedure},
    task::{Effect, Position, Task},
};

/// A failover under way.
#[derive(Clone, Debug)]
pub struct Failover {
    /// Who is to be deposed; nobody where a primary that came back takes its writes again.
    pub lost: Option<usize>,
    pub term: u64,
    survivors: Vec<usize>,
    /// Who is preferred among those that have everything.
    wanted: Option<usize>,
    origin: Origin,
    /// How long after the revocation others may still lead writers to the lost one.
    lease: Duration,
    revoked: Option<Instant>,
    stage: Stage,
    orders: Orders,
    positions: BTreeMap<usize, Position>,
    candidate: Option<usize>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Revoke,
    Drain,
    Become,
    Attach,
    Lapse,
    Open,
    Prove,
}

impl Failover {
    /// `survivors`: all other members; each must take part (N3: with one acknowledging replica of two, only both together
    /// surely have every acknowledged write).
    #[must_use]
    pub fn begin(
        lost: usize,
        survivors: Vec<usize>,
        term: u64,
        last_order: u64,
        now: Instant,
    ) -> (Self, Vec<Effect>) {
        let mut failover = Self {
            lost: Some(lost),
            term,
            origin: Origin::Planned,
            lease: Duration::ZERO,
            revoked: None,
            survivors,
            wanted: None,
            stage: Stage::Revoke,
            orders: Orders::numbered_after(last_order, now),
            positions: BTreeMap::new(),
            candidate: None,
        };
        let orders = failover
            .survivors
            .iter()
            .map(|member| (*member, Task::StopReceiving))
            .collect();
        let effects = failover.step(Stage::Revoke, orders, REVOKE, now);
        (failover, effects)
    }

    /// Why, as the row of the term tells it.
    #[must_use]
    pub const fn because(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Opens nobody before the leases that others hold by the lost one's word have lapsed (N1).
    #[must_use]
    pub fn outliving(mut self, lease: Option<Duration>) -> Self {
        self.lease = lease.map_or(Duration::ZERO, |lease| lease + MARGIN);
        self
    }

    /// A primary came back, read-only by its own configuration, before anybody took its place: it goes on where it stopped,
    /// if it has all that the others have. A crash may have cut off what a replica that crashed with it still has: then that
    /// one takes over, since all members were asked.
    #[must_use]
    pub fn reopen(
        primary: usize,
        members: Vec<usize>,
        term: u64,
        last_order: u64,
        now: Instant,
    ) -> (Self, Vec<Effect>) {
        let (mut failover, _) = Self::begin(primary, members, term, last_order, now);
        failover.lost = None;
        failover.wanted = Some(primary);
        failover.orders = Orders::numbered_after(last_order, now);
        let orders = failover
            .survivors
            .iter()
            .map(|member| (*member, Task::Inspect))
            .collect();
        let effects = failover.step(Stage::Revoke, orders, STEP, now);
        (failover, effects)
    }

    /// Whether one that is given up now leaves everything as it was: then another may begin.
    #[must_use]
    pub fn leaves_all_as_it_was(&self) -> bool {
        match self.stage {
            Stage::Revoke | Stage::Drain => true,
            // A primary that takes its own writes again had no source to lose.
            Stage::Become | Stage::Attach | Stage::Lapse => {
                self.candidate.is_some() && self.candidate == self.wanted
            }
            Stage::Open | Stage::Prove => false,
        }
    }

    fn step(
        &mut self,
        stage: Stage,
        orders: Vec<(usize, Task)>,
        within: Duration,
        now: Instant,
    ) -> Vec<Effect> {
        self.stage = stage;
        let said = format!("failover to term {}: {}", self.term, self.phase());
        self.orders.give_and_say(orders, said, within, now)
    }
}

impl Procedure for Failover {
    fn name(&self) -> &'static str {
        "a failover"
    }

    fn phase(&self) -> &'static str {
        match self.stage {
            Stage::Revoke => "revoke",
            Stage::Drain => "drain",
            Stage::Become => "become",
            Stage::Attach => "attach",
            Stage::Lapse => "lapse",
            Stage::Open => "open",
            Stage::Prove => "prove",
        }
    }

    fn opens(&self) -> Option<usize> {
        match self.stage {
            Stage::Open | Stage::Prove => self.candidate,
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
        match (self.stage, self.candidate) {
            (Stage::Revoke, _) => {
                self.revoked = Some(now);
                self.positions.clone_from(reports);
                let Some(candidate) = candidate(&self.positions, self.wanted) else {
                    return self.give_up("no survivor has everything that the others have", now);
                };
                self.candidate = Some(candidate);
                let all = self.positions[&candidate].all();
                let effects = self.step(
                    Stage::Drain,
                    vec![(candidate, Task::Apply(all))],
                    DRAIN,
                    now,
                );
                (Course::Going, effects)
            }
            (Stage::Drain, Some(candidate)) => {
                // N5: a survivor's relay log goes when it follows the candidate; by now the candidate has all of it applied.
                let applied = &reports[&candidate].executed;
                if !self
                    .positions
                    .values()
                    .all(|position| applied.covers(&position.received))
                {
                    return self
                        .give_up("the candidate has not applied all that was received", now);
                }
                let effects = self.step(
                    Stage::Become,
                    vec![(candidate, Task::BecomeSource)],
                    STEP,
                    now,
                );
                (Course::Going, effects)
            }
            (Stage::Become, Some(candidate)) => {
                let others = self.survivors.iter().filter(|member| **member != candidate);
                let orders = others
                    .map(|member| (*member, Task::Follow(candidate)))
                    .collect();
                let effects = self.step(Stage::Attach, orders, STEP, now);
                (Course::Going, effects)
            }
            (Stage::Attach, Some(_)) => {
                let revoked = self.revoked.unwrap_or(now);
                self.stage = Stage::Lapse;
                self.orders.rest(revoked + self.lease, now);
                self.advance(None, now)
            }
            (Stage::Lapse, Some(candidate)) => {
                let effects =
                    self.step(Stage::Open, vec![(candidate, Task::OpenWrites)], STEP, now);
                (Course::Going, effects)
            }
            (Stage::Open, Some(candidate)) => {
                let prove = vec![(candidate, Task::BeginTerm(self.term, self.origin))];
                let effects = self.step(Stage::Prove, prove, STEP, now);
                (Course::Going, effects)
            }
            (Stage::Prove, Some(candidate)) => {
                // Never waited for: on a semi-synchronous primary without replicas it hangs exactly now.
                let old = self.lost.map(|lost| (lost, Task::CloseWrites));
                let mut effects = self.orders.give_parting(old.into_iter().collect(), now);
                effects.push(Effect::Hook("promoted", Some(candidate)));
                (Course::Won(candidate), effects)
            }
            _ => self.give_up("it lost its way", now),
        }
    }

    /// Undoes what can be undone. From `become` on the candidate has no source any more: that is a human's.
    fn give_up(&mut self, why: &str, now: Instant) -> (Course, Vec<Effect>) {
        let why = format!("{}: {why}", self.phase());
        let orders: Vec<_> = match (self.stage, self.candidate) {
            (Stage::Revoke | Stage::Drain, _) => self
                .survivors
                .iter()
                .filter(|member| self.wanted != Some(**member))
                .map(|member| (*member, Task::StartReceiving))
                .collect(),
            (Stage::Open | Stage::Prove, Some(candidate)) => vec![(candidate, Task::CloseWrites)],
            _ => Vec::new(),
        };
        let mut effects = self.orders.give_parting(orders, now);
        effects.push(Effect::Hook("failover-given-up", self.lost));
        (Course::GivenUp(why), effects)
    }
}

/// The survivor that has everything the others have; of several the one that is wanted, else the first.
fn candidate(positions: &BTreeMap<usize, Position>, wanted: Option<usize>) -> Option<usize> {
    let mut complete = positions.iter().filter(|(_, position)| {
        let all = position.all();
        positions.values().all(|other| all.covers(&other.all()))
    });
    let first = complete.clone().map(|(member, _)| *member).next();
    complete
        .find(|(member, _)| wanted == Some(**member))
        .map(|(member, _)| *member)
        .or(first)
}

/// MariaDB needs 1.1 to 2.1 s to stop receiving from a primary that hangs.
const REVOKE: Duration = Duration::from_secs(5);
const DRAIN: Duration = Duration::from_secs(30);
/// The packet path's clock is coarse.
const MARGIN: Duration = Duration::from_millis(50);
const STEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::{gtid::GtidSet, task::Report};

    fn position(executed: &str, received: &str) -> Position {
        let set = |text| GtidSet::mariadb(text).expect("a set");
        Position {
            executed: set(executed),
            received: set(received),
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

    /// Reports on every order; the last answer.
    fn answer(
        failover: &mut Failover,
        effects: &[Effect],
        position: impl Fn(usize) -> Position,
    ) -> (Course, Vec<Effect>) {
        let mut last = (Course::Going, Vec::new());
        for (number, member, _) in orders(effects) {
            last = failover.advance(
                Some((number, Report::Done(position(member)))),
                Instant::now(),
            );
        }
        last
    }

    #[test]
    fn the_most_advanced_takes_over_in_the_order_that_loses_nothing() {
        let now = Instant::now();
        let (mut failover, effects) = Failover::begin(0, vec![1, 2], 7, 0, now);
        let has = |member| match member {
            1 => position("0-1-90", "0-1-95"),
            _ => position("0-1-99", "0-1-100"),
        };
        let mut seen = orders(&effects);
        let mut step = answer(&mut failover, &effects, has);
        while step.0 == Course::Going {
            seen.extend(orders(&step.1));
            let applied = |member| match member {
                2 => position("0-1-100", "0-1-100"),
                member => has(member),
            };
            step = answer(&mut failover, &step.1.clone(), applied);
        }
        assert_eq!(step.0, Course::Won(2));
        seen.extend(orders(&step.1));
        let tasks: Vec<_> = seen
            .into_iter()
            .map(|(_, member, task)| (member, task))
            .collect();
        let all = GtidSet::mariadb("0-1-100").expect("a set");
        assert_eq!(
            tasks,
            [
                (1, Task::StopReceiving),
                (2, Task::StopReceiving),
                (2, Task::Apply(all)),
                (2, Task::BecomeSource),
                (1, Task::Follow(2)),
                (2, Task::OpenWrites),
                (2, Task::BeginTerm(7, Origin::Planned)),
                (0, Task::CloseWrites),
            ]
        );
    }

    #[test]
    fn nobody_is_opened_while_another_balancer_may_still_serve_the_lost_one() {
        let start = Instant::now();
        let (failover, effects) = Failover::begin(0, vec![1, 2], 7, 0, start);
        let mut failover = failover.outliving(Some(Duration::from_secs(1)));
        let has = |_| position("0-1-5", "0-1-5");
        let revoked = Instant::now();
        let mut step = answer(&mut failover, &effects, has);
        while failover.phase() != "lapse" {
            step = answer(&mut failover, &step.1.clone(), has);
        }
        assert_eq!(orders(&step.1), []);
        let (_, early) = failover.advance(None, revoked + Duration::from_secs(1));
        assert_eq!(orders(&early), []);
        let (_, late) = failover.advance(None, Instant::now() + Duration::from_secs(2));
        assert_eq!(orders(&late)[0].2, Task::OpenWrites);
    }

    #[test]
    fn one_survivor_that_does_not_stop_receiving_ends_it_and_the_other_goes_on() {
        let now = Instant::now();
        let (mut failover, effects) = Failover::begin(0, vec![1, 2], 2, 0, now);
        let orders_given = orders(&effects);
        let first = Report::Done(position("0-1-5", "0-1-5"));
        let (course, _) = failover.advance(Some((orders_given[0].0, first)), now);
        assert_eq!(course, Course::Going);
        let (course, effects) = failover.advance(None, now + REVOKE + STEP);
        assert!(matches!(course, Course::GivenUp(_)), "{course:?}");
        let tasks: Vec<_> = orders(&effects)
            .into_iter()
            .map(|(_, _, task)| task)
            .collect();
        assert_eq!(tasks, [Task::StartReceiving, Task::StartReceiving]);
    }

    #[test]
    fn survivors_of_whom_neither_has_everything_promote_nobody() {
        let now = Instant::now();
        let (mut failover, effects) = Failover::begin(0, vec![1, 2], 2, 0, now);
        let torn = |member| match member {
            1 => position("0-1-9,0-7-1", "0-1-9"),
            _ => position("0-1-10", "0-1-10"),
        };
        let (course, _) = answer(&mut failover, &effects, torn);
        assert!(matches!(course, Course::GivenUp(_)), "{course:?}");
    }
}
