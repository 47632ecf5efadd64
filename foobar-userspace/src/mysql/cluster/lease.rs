//! Several balancers: until when each may serve the writer address, and what one learns of another's deeds.
//!
//! A failover stops all other members from receiving, then waits for as long as a lease lasts, and only then opens a
//! successor. So who saw a member receive from the writer knows that nobody else takes writes before that look is as old as a
//! lease (N1): it need not lead, and it need not know who does.

use std::time::{Duration, Instant};

use super::{Cluster, Mode, Now, Operation};
use crate::mysql::{
    claim::Claim,
    evidence::Writer,
    observation::{Origin, Term},
    task::Effect,
};

impl Cluster {
    /// Until when the writer address may lead to whom [`Cluster::steering`] names; `None`: nobody can be vouched for.
    #[must_use]
    pub fn lease(&self) -> Option<Instant> {
        let writer = self.steered_writer()?;
        let is_proved = self.proved.is_some_and(|proof| proof.member == writer);
        if self.limits.mode == Mode::Promote && !is_proved && !self.is_named(writer) {
            // Open, but its term has not begun: it is its promoter's alone until then (N8).
            return None;
        }
        Some(self.vouched(writer)? + self.limits.lease?)
    }

    /// The newest moment at which the member surely took the writes alone.
    fn vouched(&self, writer: usize) -> Option<Instant> {
        let proof = self
            .proved
            .filter(|proof| proof.member == writer)
            .map(|proof| proof.since);
        let member = self.members.get(writer)?;
        let picture = member.picture.as_ref()?;
        let seen = if picture.group.is_some() || picture.galera.is_some() {
            // Its own view is that of a majority, which has no other primary.
            member.taken
        } else {
            self.members
                .iter()
                .filter(|other| other.follows(&picture.server) && other.hears(&self.limits))
                .filter_map(|other| other.taken)
                .max()
        };
        proof.max(seen)
    }

    /// Whether the newest term is this member's.
    pub(super) fn is_named(&self, index: usize) -> bool {
        let highest = self.highest_term();
        self.members[index].picture.as_ref().is_some_and(|picture| {
            let names = |term: &Term| term.number == highest && term.server == picture.server;
            picture.term.as_ref().is_some_and(names)
        })
    }

    /// Whoever leads has a primary that was there before terms were, or was opened by hand or by one who died then, begin a
    /// term of its own.
    pub(super) fn consider_claim(&mut self, now: Now) -> Option<Vec<Effect>> {
        let Writer::One(writer) = self.writer else {
            return None;
        };
        let is_wanted = self.limits.lease.is_some() && !self.is_named(writer);
        let asked_lately = self
            .claimed
            .is_some_and(|asked| now.instant.saturating_duration_since(asked) < CLAIM_AGAIN);
        let waits = self.members[writer]
            .picture
            .as_ref()
            .is_some_and(|picture| picture.semi_sync.armed && picture.semi_sync.in_effect);
        if !is_wanted || asked_lately || !self.leads || !waits {
            return None;
        }
        self.claimed = Some(now.instant);
        let term = self.next_term();
        let (claim, effects) = Claim::begin(writer, term, self.orders, now.instant);
        let said = format!(
            "{} takes the writes and no term names it; it is to begin term {term}",
            self.members[writer].host
        );
        Some(self.begin(Operation::Claim(claim), said, effects))
    }

    /// Another balancer's failover is this one's too (N4).
    pub(super) fn learn_of_term(&mut self, member: usize, now: Now) -> Vec<Effect> {
        let knows_all = self.knows_all();
        let knew_all = std::mem::replace(&mut self.knew_all, knows_all);
        let Some(term) = self.members[member]
            .picture
            .as_ref()
            .and_then(|picture| picture.term.clone())
            .filter(|term| term.number > self.memory.last_term)
        else {
            return Vec::new();
        };
        let is_news = knew_all || self.memory.last_term > 0;
        self.memory.last_term = term.number;
        if !is_news || term.origin == Origin::Planned {
            return Vec::new();
        }
        self.memory.last_failover = Some(now.micros);
        let said = format!(
            "another balancer had server {} take over, term {}",
            term.server, term.number
        );
        if term.origin == Origin::FailoverByItself {
            self.memory.paused = Some(format!("{said}; look, then `foobar mysql resume`"));
        }
        vec![Effect::Audit(said)]
    }
}

const CLAIM_AGAIN: Duration = Duration::from_secs(2);
