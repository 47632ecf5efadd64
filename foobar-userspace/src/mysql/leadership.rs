//! Which balancer leads: the one that holds the cluster's lock on a majority of all members.
//!
//! Who leads must be able to order every member, so one that holds fewer locks gives them to the one that holds more. Where
//! none has a majority, all but the first in the file let go for a while.

use std::time::{Duration, Instant};

/// Who has the lock of one member.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Hold {
    /// It does not answer, or nobody has it.
    #[default]
    Nobody,
    Own,
    Another,
}

#[derive(Clone, Debug)]
pub struct Leadership {
    /// Of all members, never of those that answer.
    holds: Vec<Hold>,
    /// The place of this balancer in the file.
    rank: usize,
    torn_since: Option<Instant>,
    lets_go_until: Option<Instant>,
}

impl Leadership {
    #[must_use]
    pub fn new(members: usize, rank: usize) -> Self {
        Self {
            holds: vec![Hold::Nobody; members],
            rank,
            torn_since: None,
            lets_go_until: None,
        }
    }

    pub fn hear(&mut self, member: usize, hold: Hold) {
        if let Some(known) = self.holds.get_mut(member) {
            *known = hold;
        }
    }

    #[must_use]
    pub fn leads(&self) -> bool {
        self.is_majority(Hold::Own)
    }

    /// Whether this one takes no lock and lets go of those that it has.
    pub fn yields(&mut self, now: Instant) -> bool {
        if self.is_majority(Hold::Another) {
            self.torn_since = None;
            return true;
        }
        let is_torn =
            !self.leads() && self.holds.contains(&Hold::Own) && self.holds.contains(&Hold::Another);
        if !is_torn {
            self.torn_since = None;
        } else if now.saturating_duration_since(*self.torn_since.get_or_insert(now)) >= TORN
            && self.rank > 0
        {
            self.torn_since = None;
            self.lets_go_until = Some(now + LETS_GO);
        }
        self.lets_go_until.is_some_and(|until| now < until)
    }

    fn is_majority(&self, of: Hold) -> bool {
        self.holds.iter().filter(|hold| **hold == of).count() * 2 > self.holds.len()
    }
}

const TORN: Duration = Duration::from_secs(2);
const LETS_GO: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn leadership(rank: usize, holds: [Hold; 3]) -> Leadership {
        let mut leadership = Leadership::new(3, rank);
        for (member, hold) in holds.into_iter().enumerate() {
            leadership.hear(member, hold);
        }
        leadership
    }

    #[test]
    fn a_majority_of_all_leads_and_the_rest_is_given_to_it() {
        use Hold::{Another, Nobody, Own};
        let now = Instant::now();
        let mut most = leadership(0, [Own, Another, Own]);
        assert!(most.leads() && !most.yields(now));
        let mut least = leadership(0, [Another, Own, Another]);
        assert!(!least.leads() && least.yields(now));
        assert!(!leadership(0, [Own, Nobody, Nobody]).leads());
    }

    #[test]
    fn of_two_halves_the_later_in_the_file_lets_go_for_a_while() {
        use Hold::{Another, Nobody, Own};
        let now = Instant::now();
        let mut first = leadership(0, [Own, Another, Nobody]);
        let mut second = leadership(1, [Own, Another, Nobody]);
        for leadership in [&mut first, &mut second] {
            assert!(!leadership.yields(now));
        }
        let later = now + TORN;
        assert!(!first.yields(later));
        assert!(second.yields(later));
        second.hear(0, Nobody);
        assert!(second.yields(later + LETS_GO / 2));
        assert!(!second.yields(later + LETS_GO));
    }
}
