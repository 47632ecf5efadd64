//! Blast radius: a request that a backend died of is not offered to the next one, and its like are held back.
//!
//! When a backend dies, every request that was at it is a suspect, and all but one are innocent. Innocent is one whose
//! like (client, method and path) was answered well a moment ago: what kills does not get answered. Of the others, few
//! are held back at once; of a crowd, one that was there at another death before.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::config::BlastRadius;

/// What is known about requests, by their fingerprint.
#[derive(Debug, Default)]
pub struct Blast {
    suspects: HashMap<u64, Suspect>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    deaths: u32,
    last: Instant,
    held_until: Option<Instant>,
}

/// What a death means for a request that was at the backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Its like was answered well a moment ago: it may be tried elsewhere, if it is safe to.
    Innocent,
    /// It may have been the reason: it is not tried elsewhere.
    Suspect,
    /// The same, and its like are held back from now on.
    Held,
}

impl Blast {
    /// A backend died under `crowd` requests, of which this was one.
    pub fn died(
        &mut self,
        fingerprint: u64,
        crowd: u32,
        answered: Option<Instant>,
        policy: &BlastRadius,
        now: Instant,
    ) -> Verdict {
        let Some(hold) = policy.hold else {
            return Verdict::Innocent;
        };
        let is_proven =
            answered.is_some_and(|answered| now.saturating_duration_since(answered) < ALIBI);
        if is_proven {
            return Verdict::Innocent;
        }
        self.make_room(now);
        let suspect = self.suspects.entry(fingerprint).or_insert(Suspect {
            deaths: 0,
            last: now,
            held_until: None,
        });
        if now.saturating_duration_since(suspect.last) > MEMORY {
            suspect.deaths = 0;
        }
        suspect.deaths += 1;
        suspect.last = now;
        let needed = if crowd <= FEW {
            policy.after
        } else {
            policy.after + 1
        };
        if suspect.deaths < needed {
            return Verdict::Suspect;
        }
        suspect.held_until = Some(now + hold);
        Verdict::Held
    }

    /// For how long a request is held back.
    #[must_use]
    pub fn held(&self, fingerprint: u64, now: Instant) -> Option<Duration> {
        self.suspects
            .get(&fingerprint)?
            .held_until?
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    /// Whether nothing is held back, so that nobody need ask.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.suspects.is_empty()
    }

    fn make_room(&mut self, now: Instant) {
        if self.suspects.len() >= MOST {
            self.suspects
                .retain(|_, suspect| now.saturating_duration_since(suspect.last) < MEMORY);
        }
        if self.suspects.len() >= MOST
            && let Some(oldest) = self
                .suspects
                .iter()
                .min_by_key(|(_, suspect)| suspect.last)
                .map(|(fingerprint, _)| *fingerprint)
        {
            self.suspects.remove(&oldest);
        }
    }
}

/// When which requests were last answered well, to the second: one table for all workers, in which a newcomer throws out
/// the old. A slot is one word, which is written once a second at most, so that workers seldom wait for each other.
#[derive(Debug)]
pub struct Answered {
    since: Instant,
    /// Above, what tells the requests of a slot apart; below, the second after which it was answered, from 1.
    slots: Box<[AtomicU64]>,
}

impl Answered {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn note(&self, fingerprint: u64, now: Instant) {
        let second = now.saturating_duration_since(self.since).as_secs() + 1;
        let word = tag(fingerprint) | second & SECONDS;
        let slot = self.slot(fingerprint);
        if slot.load(Ordering::Relaxed) != word {
            slot.store(word, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn last(&self, fingerprint: u64) -> Option<Instant> {
        let word = self.slot(fingerprint).load(Ordering::Relaxed);
        let second = (word & SECONDS).checked_sub(1)?;
        (word & !SECONDS == tag(fingerprint)).then(|| self.since + Duration::from_secs(second))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the lowest bits are wanted"
    )]
    fn slot(&self, fingerprint: u64) -> &AtomicU64 {
        &self.slots[fingerprint as usize % SLOTS]
    }
}

/// The bits that do not choose the slot.
const fn tag(fingerprint: u64) -> u64 {
    (fingerprint / SLOTS as u64) << 32
}

const SLOTS: usize = 16_384;
const SECONDS: u64 = 0xffff_ffff;
const MOST: usize = 4096;
/// An answer so recent proves a request harmless.
const ALIBI: Duration = Duration::from_secs(60);
/// Deaths so long apart are not of the same cause.
const MEMORY: Duration = Duration::from_secs(600);
/// Among so few, each is held back at the first death.
const FEW: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BlastRadius = BlastRadius {
        after: 1,
        hold: Some(Duration::from_secs(30)),
    };

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_only_request_at_a_dying_backend_is_held_back_for_a_while() {
        let start = Instant::now();
        let mut blast = Blast::default();
        assert_eq!(blast.died(7, 1, None, &POLICY, start), Verdict::Held);
        assert_eq!(blast.held(7, start), Some(Duration::from_secs(30)));
        assert_eq!(blast.held(8, start), None);
        assert_eq!(blast.held(7, after(30, start)), None);
    }

    #[test]
    fn what_was_answered_a_moment_ago_is_innocent() {
        let start = Instant::now();
        let answered = Answered::new(start);
        answered.note(7, start);
        let mut blast = Blast::default();
        let verdict = blast.died(7, 1, answered.last(7), &POLICY, after(5, start));
        assert_eq!(verdict, Verdict::Innocent);
        let verdict = blast.died(7, 1, answered.last(7), &POLICY, after(61, start));
        assert_eq!(verdict, Verdict::Held);
        assert_eq!(answered.last(7 + SLOTS as u64), None);
    }

    #[test]
    fn of_a_crowd_only_who_was_at_two_deaths_is_held_back() {
        let start = Instant::now();
        let mut blast = Blast::default();
        for fingerprint in 0..100 {
            let verdict = blast.died(fingerprint, 100, None, &POLICY, start);
            assert_eq!(verdict, Verdict::Suspect);
            assert_eq!(blast.held(fingerprint, start), None);
        }
        let verdict = blast.died(42, 50, None, &POLICY, after(20, start));
        assert_eq!(verdict, Verdict::Held);
        let verdict = blast.died(43, 50, None, &POLICY, after(700, start));
        assert_eq!(verdict, Verdict::Suspect);
    }

    #[test]
    fn nothing_is_held_where_nobody_asked_for_it() {
        let start = Instant::now();
        let mut blast = Blast::default();
        let off = BlastRadius {
            hold: None,
            ..POLICY
        };
        assert_eq!(blast.died(7, 1, None, &off, start), Verdict::Innocent);
        assert!(blast.is_quiet());
    }

    #[test]
    fn suspects_are_bounded() {
        let start = Instant::now();
        let mut blast = Blast::default();
        for fingerprint in 0..3 * MOST as u64 {
            blast.died(fingerprint, 1, None, &POLICY, start);
        }
        assert!(blast.suspects.len() <= MOST);
    }
}
