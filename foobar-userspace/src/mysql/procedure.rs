//! What takes several steps: orders given, reports heard, and what follows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::task::{Effect, Outcome, Position, Report, Round, Task};

/// Where a procedure stands after an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    Going,
    /// This member takes the writes now, or follows.
    Won(usize),
    /// It ended before that.
    GivenUp(String),
}

/// The orders of the present step.
#[derive(Clone, Debug)]
pub struct Orders {
    round: Round,
    /// Of the last one given, in this step or another.
    last: u64,
    /// When this step began.
    begun: Instant,
}

impl Orders {
    #[must_use]
    pub fn numbered_after(last: u64, now: Instant) -> Self {
        Self {
            round: Round::default(),
            last,
            begun: now,
        }
    }

    /// Gives the orders of the next step.
    pub fn give(
        &mut self,
        orders: Vec<(usize, Task)>,
        within: Duration,
        now: Instant,
    ) -> Vec<Effect> {
        let (round, effects) = Round::begin(orders, within, &mut self.last, now);
        self.round = round;
        self.begun = now;
        effects
    }

    /// The same, with a line for the audit.
    pub fn give_and_say(
        &mut self,
        orders: Vec<(usize, Task)>,
        said: String,
        within: Duration,
        now: Instant,
    ) -> Vec<Effect> {
        let mut effects = self.give(orders, within, now);
        effects.push(Effect::Audit(said));
        effects
    }

    /// Gives orders that nothing waits for.
    pub fn give_parting(&mut self, orders: Vec<(usize, Task)>, now: Instant) -> Vec<Effect> {
        Round::begin(orders, PARTING, &mut self.last, now).1
    }

    /// The next step is to wait until then.
    pub fn rest(&mut self, until: Instant, now: Instant) {
        self.round = Round::rest(until);
        self.begun = now;
    }

    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    #[must_use]
    pub const fn begun(&self) -> Instant {
        self.begun
    }
}

pub trait Procedure {
    fn name(&self) -> &'static str;
    fn phase(&self) -> &'static str;
    /// Whom it opens for writes at this moment, before that one's term is acknowledged.
    fn opens(&self) -> Option<usize> {
        None
    }
    fn orders(&self) -> &Orders;
    fn orders_mut(&mut self) -> &mut Orders;
    /// All orders of the step are carried out.
    fn proceed(
        &mut self,
        reports: &BTreeMap<usize, Position>,
        now: Instant,
    ) -> (Course, Vec<Effect>);
    /// One was not, or not in time.
    fn give_up(&mut self, why: &str, now: Instant) -> (Course, Vec<Effect>);

    /// A report was heard, or time passed. Not to be called again once the course is at its end.
    fn advance(&mut self, heard: Option<(u64, Report)>, now: Instant) -> (Course, Vec<Effect>) {
        let round = &mut self.orders_mut().round;
        let outcome = match heard {
            Some((number, report)) => round.hear(number, report),
            None => round.tick(now),
        };
        match outcome {
            Outcome::Waiting => (Course::Going, Vec::new()),
            Outcome::Failed(why) => self.give_up(&why, now),
            Outcome::Done(reports) => self.proceed(&reports, now),
        }
    }
}

const PARTING: Duration = Duration::from_secs(5);
