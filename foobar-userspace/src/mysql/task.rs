//! What a server may be told to do, and a round of it: several servers at once, one deadline.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use super::{gtid::GtidSet, observation::Origin};

/// One step on one server. The statements are the dialects'; all run on the connection that holds the lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Task {
    /// Tell what it has.
    Inspect,
    /// Receive no more: what the source has not sent yet, it can never have acknowledged here.
    StopReceiving,
    /// Undo of it.
    StartReceiving,
    /// Wait until all of this is applied.
    Apply(GtidSet),
    /// Forget the source and wait for acknowledgements from now on; stays read-only.
    BecomeSource,
    /// Replicate from this member.
    Follow(usize),
    /// Take writes, once a replica is there to acknowledge them.
    OpenWrites,
    /// Take none any more.
    CloseWrites,
    /// Commit the row that begins a term; acknowledged like any other write.
    BeginTerm(u64, Origin),
    /// Stop waiting for acknowledgements.
    DisarmSource,
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inspect => formatter.write_str("tell positions"),
            Self::StopReceiving => formatter.write_str("stop receiving"),
            Self::StartReceiving => formatter.write_str("receive again"),
            Self::Apply(set) => write!(formatter, "apply {set}"),
            Self::BecomeSource => formatter.write_str("forget the source, arm semi-sync"),
            Self::Follow(_) => formatter.write_str("follow the new source"),
            Self::OpenWrites => formatter.write_str("take writes"),
            Self::CloseWrites => formatter.write_str("take no writes"),
            Self::BeginTerm(term, _) => write!(formatter, "begin term {term}"),
            Self::DisarmSource => formatter.write_str("disarm semi-sync as a source"),
        }
    }
}

/// What came of a task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    Done(Position),
    Failed(String),
}

/// What a server has, after a task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Position {
    pub executed: GtidSet,
    pub received: GtidSet,
}

impl Position {
    /// Applied or not.
    #[must_use]
    pub fn all(&self) -> GtidSet {
        self.executed
            .plus(&self.received)
            .unwrap_or_else(|_| self.executed.clone())
    }
}

/// What is to be done at the edge.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Order(Order),
    /// A line of the audit trail.
    Audit(String),
    /// The operator's program, told what happened.
    Hook(&'static str, Option<usize>),
}

/// Numbered: the report of an order that was given up is nobody's.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub number: u64,
    pub member: usize,
    pub task: Task,
    pub within: Duration,
}

/// Orders given together; it is over when all reported, one failed, or time is up.
#[derive(Clone, Debug, Default)]
pub struct Round {
    numbers: BTreeMap<u64, usize>,
    reports: BTreeMap<usize, Position>,
    until: Option<Instant>,
    /// There is nothing to be done but to wait.
    rests: bool,
}

/// How a round stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Waiting,
    Done(BTreeMap<usize, Position>),
    Failed(String),
}

impl Round {
    #[must_use]
    pub fn begin(
        orders: Vec<(usize, Task)>,
        within: Duration,
        next: &mut u64,
        now: Instant,
    ) -> (Self, Vec<Effect>) {
        let mut round = Self {
            // The edge's own deadline shall be the one that tells what was late.
            until: Some(now + within + GRACE),
            ..Self::default()
        };
        let effects = orders
            .into_iter()
            .map(|(member, task)| {
                *next += 1;
                round.numbers.insert(*next, member);
                Effect::Order(Order {
                    number: *next,
                    member,
                    task,
                    within,
                })
            })
            .collect();
        (round, effects)
    }

    #[must_use]
    pub fn rest(until: Instant) -> Self {
        Self {
            until: Some(until),
            rests: true,
            ..Self::default()
        }
    }

    pub fn hear(&mut self, number: u64, report: Report) -> Outcome {
        let Some(member) = self.numbers.remove(&number) else {
            return Outcome::Waiting;
        };
        match report {
            Report::Failed(why) => return Outcome::Failed(why),
            Report::Done(position) => self.reports.insert(member, position),
        };
        if self.numbers.is_empty() {
            Outcome::Done(std::mem::take(&mut self.reports))
        } else {
            Outcome::Waiting
        }
    }

    #[must_use]
    pub fn tick(&self, now: Instant) -> Outcome {
        match self.until {
            Some(until) if now > until && self.rests => Outcome::Done(BTreeMap::new()),
            Some(until) if now > until => Outcome::Failed("no report in time".to_owned()),
            _ => Outcome::Waiting,
        }
    }
}

const GRACE: Duration = Duration::from_millis(500);
