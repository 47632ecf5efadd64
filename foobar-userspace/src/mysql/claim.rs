//! A primary that no term names begins one: several balancers serve none else.

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
pub struct Claim {
    member: usize,
    pub term: u64,
    orders: Orders,
}

impl Claim {
    #[must_use]
    pub fn begin(member: usize, term: u64, last_order: u64, now: Instant) -> (Self, Vec<Effect>) {
        let mut orders = Orders::numbered_after(last_order, now);
        let begin = vec![(member, Task::BeginTerm(term, Origin::Planned))];
        let effects = orders.give(begin, WITHIN, now);
        let claim = Self {
            member,
            term,
            orders,
        };
        (claim, effects)
    }
}

impl Procedure for Claim {
    fn name(&self) -> &'static str {
        "a claim"
    }

    fn phase(&self) -> &'static str {
        "prove"
    }

    fn orders(&self) -> &Orders {
        &self.orders
    }

    fn orders_mut(&mut self) -> &mut Orders {
        &mut self.orders
    }

    fn proceed(
        &mut self,
        _reports: &BTreeMap<usize, Position>,
        _now: Instant,
    ) -> (Course, Vec<Effect>) {
        (Course::Won(self.member), Vec::new())
    }

    fn give_up(&mut self, why: &str, _now: Instant) -> (Course, Vec<Effect>) {
        (Course::GivenUp(format!("prove: {why}")), Vec::new())
    }
}

const WITHIN: Duration = Duration::from_secs(5);
