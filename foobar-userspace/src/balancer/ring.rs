//! The ring of a vip: who owns each slot, and how a slot goes from one owner to the next without breaking a flow.
//!
//! Owners are found by rendezvous hashing with weights (Thaler and Ravishankar, 1998; the logarithmic form of Schindelhauer
//! and Schomaker, 2005): a member that leaves or changes its weight moves its own flows and no others.
//!
//! A slot in transition is tracked: new flows go to its owner and are remembered, flows that nobody remembers go to
//! `previous`, the owner before the transition began. After [`SETTLE`] every flow that is not idle has been seen and is
//! remembered, `previous` is dropped, and the slot stays tracked until no flow is remembered elsewhere.

use std::time::{Duration, Instant};

use foobar_ebpf::abi::{RING_SLOTS, Slot};

use super::health::Availability;
use crate::stable;

const SLOTS: usize = RING_SLOTS as usize;

/// As the kernel's map holds it.
pub type Ring = Box<[Slot; SLOTS]>;

/// How long the flows of a slot's previous owner have to show themselves. Idle connections live longer in few services:
/// nginx closes them after 75 s, Linux' keep-alive probes after two hours.
pub const SETTLE: Duration = Duration::from_secs(900);

/// A backend as the ring sees it.
#[derive(Clone, Debug)]
pub struct Member {
    pub backend: u32,
    /// Its endpoint: the same text is the same share of the ring, on every machine and after every restart.
    pub name: String,
    pub weight: u16,
    pub availability: Availability,
}

/// What a ring is waiting for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    Settled,
    /// Slots have a previous owner.
    Moving,
    /// Flows are remembered elsewhere than their slot says.
    Aftermath,
}

/// A vip's ring with the time of its last change.
#[derive(Clone, Debug)]
pub struct VipRing {
    slots: Ring,
    changed: Instant,
}

impl VipRing {
    /// The ring of a vip that has none yet.
    #[must_use]
    pub fn new(members: &[Member], now: Instant) -> Self {
        let owners = owners(members);
        let settled = |index: usize| Slot::new(owners[index], Slot::NOBODY, false);
        Self {
            slots: ring_of(settled),
            changed: now,
        }
    }

    /// A ring that an earlier controller left: how long it has been moving is not known, so it begins anew.
    #[must_use]
    pub const fn adopt(slots: Ring, now: Instant) -> Self {
        Self {
            slots,
            changed: now,
        }
    }

    #[must_use]
    pub const fn slots(&self) -> &Ring {
        &self.slots
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        let tracked = || self.slots.iter().filter(|slot| slot.tracked());
        if tracked().next().is_none() {
            Phase::Settled
        } else if tracked().any(|slot| slot.previous() != slot.current()) {
            Phase::Moving
        } else {
            Phase::Aftermath
        }
    }

    /// Gives each slot to its owner among the members; true when a slot changed.
    pub fn steer(&mut self, members: &[Member], now: Instant) -> bool {
        let owners = owners(members);
        let slots = ring_of(|index| handed_over(self.slots[index], owners[index]));
        let has_changed = slots != self.slots;
        if has_changed {
            self.slots = slots;
            self.changed = now;
        }
        has_changed
    }

    /// When [`Self::settle`] should be asked next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        (self.phase() != Phase::Settled).then(|| self.changed + SETTLE)
    }

    /// Ends a phase that lasted long enough; `remembered` are the backends of the vip's remembered flows that were seen
    /// within [`SETTLE`]. True when slots changed.
    pub fn settle(&mut self, remembered: &[u32], now: Instant) -> bool {
        if now < self.changed + SETTLE {
            return false;
        }
        match self.phase() {
            Phase::Settled => false,
            Phase::Moving => {
                self.slots = ring_of(|index| arrived(self.slots[index]));
                self.changed = now;
                true
            }
            Phase::Aftermath => self.forget(remembered, now),
        }
    }

    fn forget(&mut self, remembered: &[u32], now: Instant) -> bool {
        let mut owners: Vec<_> = self.slots.iter().map(|slot| slot.current()).collect();
        owners.sort_unstable();
        owners.dedup();
        // Flows of an only owner are where the slots would send them anyway.
        let is_elsewhere = |backend: &u32| owners != [*backend];
        self.changed = now;
        if remembered.iter().any(is_elsewhere) {
            return false;
        }
        self.slots = ring_of(|index| {
            let slot = self.slots[index];
            Slot::new(slot.current(), Slot::NOBODY, false)
        });
        true
    }
}

fn ring_of(slot: impl Fn(usize) -> Slot) -> Ring {
    let slots: Vec<_> = (0..SLOTS).map(slot).collect();
    match slots.into_boxed_slice().try_into() {
        Ok(ring) => ring,
        Err(_) => unreachable!("made of as many"),
    }
}

/// A slot that gets an owner. Flows that nobody remembers were the owner's before the transition, for whatever owner
/// came during it had all its flows remembered.
fn handed_over(slot: Slot, owner: u32) -> Slot {
    if slot.current() == owner {
        return slot;
    }
    let before = if slot.tracked() {
        slot.previous()
    } else {
        slot.current()
    };
    if before == Slot::NOBODY {
        // Where nobody was, no flow is to be kept; only remembered ones may be elsewhere.
        let previous = if slot.tracked() { owner } else { before };
        return Slot::new(owner, previous, slot.tracked());
    }
    Slot::new(owner, before, true)
}

fn arrived(slot: Slot) -> Slot {
    if slot.tracked() {
        Slot::new(slot.current(), slot.current(), true)
    } else {
        slot
    }
}

/// The backend of each slot, [`Slot::NOBODY`] where no member takes new flows.
fn owners(members: &[Member]) -> Vec<u32> {
    let candidates: Vec<_> = members
        .iter()
        .filter(|member| member.availability == Availability::Up && member.weight > 0)
        .map(|member| (stable::hash(&member.name), member))
        .collect();
    (0..SLOTS as u64)
        .map(|slot| {
            candidates
                .iter()
                .map(|(seed, member)| (score(*seed, slot, member.weight), member))
                .max_by(|(one, first), (other, second)| {
                    one.total_cmp(other)
                        .then_with(|| second.name.cmp(&first.name))
                })
                .map_or(Slot::NOBODY, |(_, member)| member.backend)
        })
        .collect()
}

fn score(seed: u64, slot: u64, weight: u16) -> f64 {
    let mixed = stable::mix(seed ^ stable::mix(slot));
    // 53 bits, in (0, 1): never 0, whose logarithm is infinite.
    let unit = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / unit.ln()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn member(backend: u32, weight: u16, availability: Availability) -> Member {
        Member {
            backend,
            name: format!("10.0.0.{backend}:80"),
            weight,
            availability,
        }
    }

    fn up(weights: &[u16]) -> Vec<Member> {
        (1..)
            .zip(weights)
            .map(|(backend, weight)| member(backend, *weight, Availability::Up))
            .collect()
    }

    fn share(ring: &Ring, backend: u32) -> f64 {
        let owned = ring.iter().filter(|slot| slot.current() == backend).count();
        owned as f64 / SLOTS as f64
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in [&[1, 1, 1][..], &[2, 1, 1], &[100, 1, 50, 49]] {
            let ring = VipRing::new(&up(weights), Instant::now());
            let all: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (backend, weight) in (1..).zip(weights) {
                let expected = f64::from(*weight) / all;
                let deviation = (expected * (1.0 - expected) / SLOTS as f64).sqrt();
                let found = share(ring.slots(), backend);
                assert!(
                    (found - expected).abs() < 5.0 * deviation,
                    "{weights:?}: {backend} has {found}, should have {expected}"
                );
            }
        }
    }

    #[test]
    fn a_member_that_leaves_moves_no_slot_of_the_others() {
        let members = up(&[1, 2, 3, 4]);
        let before = VipRing::new(&members, Instant::now());
        let mut after = before.clone();
        let mut fewer = members;
        fewer[1].availability = Availability::Down;
        after.steer(&fewer, Instant::now());
        for (old, new) in before.slots().iter().zip(after.slots().iter()) {
            if old.current() == 2 {
                assert!(new.tracked() && new.previous() == 2);
            } else {
                assert_eq!(old, new);
            }
        }
    }

    #[test]
    fn a_ring_settles_when_time_passed_and_no_flow_is_elsewhere() {
        let start = Instant::now();
        let mut members = up(&[1, 1]);
        let mut ring = VipRing::new(&members, start);
        assert_eq!(ring.phase(), Phase::Settled);
        members[0].availability = Availability::Draining;
        assert!(ring.steer(&members, start));
        assert_eq!(ring.phase(), Phase::Moving);
        assert!(!ring.settle(&[1], start));
        assert!(ring.settle(&[1], start + SETTLE));
        assert_eq!(ring.phase(), Phase::Aftermath);
        assert!(!ring.settle(&[1], start + SETTLE * 2));
        assert!(ring.settle(&[2], start + SETTLE * 3));
        assert_eq!(ring.phase(), Phase::Settled);
        assert_eq!(ring.deadline(), None);
    }

    #[test]
    fn the_first_backend_of_a_cold_start_needs_no_tracking() {
        let now = Instant::now();
        let mut members = up(&[1, 1]);
        members
            .iter_mut()
            .for_each(|member| member.availability = Availability::Down);
        let mut ring = VipRing::new(&members, now);
        members
            .iter_mut()
            .for_each(|member| member.availability = Availability::Up);
        assert!(ring.steer(&members, now));
        assert_eq!(ring.phase(), Phase::Settled);
        assert!(
            ring.slots()
                .iter()
                .all(|slot| slot.current() != Slot::NOBODY)
        );
    }

    #[test]
    fn remembered_flows_outlive_a_time_without_owners() {
        let now = Instant::now();
        let mut members = up(&[1]);
        let mut ring = VipRing::new(&members, now);
        members[0].availability = Availability::Draining;
        ring.steer(&members, now);
        ring.settle(&[1], now + SETTLE);
        members.push(member(2, 1, Availability::Up));
        ring.steer(&members, now + SETTLE);
        assert_eq!(ring.phase(), Phase::Aftermath);
    }

    #[test]
    fn without_members_nobody_owns_a_slot() {
        let ring = VipRing::new(&[], Instant::now());
        assert!(
            ring.slots()
                .iter()
                .all(|slot| slot.current() == Slot::NOBODY)
        );
    }

    /// The packet path's rules for one slot (`foobar_ebpf::balancer`), with a table that forgets nothing.
    #[derive(Default)]
    struct Flows {
        remembered: HashMap<u32, u32>,
    }

    impl Flows {
        fn packet(&mut self, slot: Slot, flow: u32, opens: bool, alive: &[bool]) -> u32 {
            if !slot.tracked() {
                return slot.current();
            }
            let is_alive = |backend: u32| alive.get(backend as usize).copied().unwrap_or(false);
            if opens {
                if slot.current() != slot.previous() || self.remembered.contains_key(&flow) {
                    self.remembered.insert(flow, slot.current());
                }
                return slot.current();
            }
            if let Some(backend) = self.remembered.get(&flow)
                && is_alive(*backend)
            {
                return *backend;
            }
            if slot.previous() != slot.current() && is_alive(slot.previous()) {
                self.remembered.insert(flow, slot.previous());
                return slot.previous();
            }
            slot.current()
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Set(usize, u16, Availability),
        Open(usize),
        /// All flows send a packet, then the phase ends.
        Settle,
    }

    fn event() -> impl Strategy<Value = Event> {
        let availability = prop_oneof![
            4 => Just(Availability::Up),
            2 => Just(Availability::Draining),
            1 => Just(Availability::Down),
        ];
        prop_oneof![
            3 => (0_usize..4, 1_u16..5, availability)
                .prop_map(|(member, weight, availability)| Event::Set(member, weight, availability)),
            3 => (0_usize..SLOTS).prop_map(Event::Open),
            1 => Just(Event::Settle),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_flow_stays_with_its_backend_as_long_as_that_lives(
            events in proptest::collection::vec(event(), 1..40),
        ) {
            let mut now = Instant::now();
            let mut members = up(&[1, 1, 1, 1]);
            let mut ring = VipRing::new(&members, now);
            let mut flows: Vec<(usize, u32, u32)> = Vec::new();
            let mut table = Flows::default();
            for event in events {
                match event {
                    Event::Set(index, weight, availability) => {
                        members[index].weight = weight;
                        members[index].availability = availability;
                        let dead = members[index].backend;
                        if availability == Availability::Down {
                            flows.retain(|(_, _, backend)| *backend != dead);
                        }
                        ring.steer(&members, now);
                    }
                    Event::Open(slot) => {
                        let flow = flows.len() as u32 + 1000 * slot as u32;
                        let alive = alive(&members);
                        let backend = table.packet(ring.slots()[slot], flow, true, &alive);
                        if backend != Slot::NOBODY {
                            flows.retain(|(_, other, _)| *other != flow);
                            flows.push((slot, flow, backend));
                        }
                    }
                    Event::Settle => {
                        let alive = alive(&members);
                        for (slot, flow, _) in &flows {
                            table.packet(ring.slots()[*slot], *flow, false, &alive);
                        }
                        now += SETTLE;
                        let remembered: Vec<_> = flows
                            .iter()
                            .filter_map(|(_, flow, _)| table.remembered.get(flow).copied())
                            .collect();
                        ring.settle(&remembered, now);
                    }
                }
                let alive = alive(&members);
                for (slot, flow, backend) in &flows {
                    let found = table.packet(ring.slots()[*slot], *flow, false, &alive);
                    prop_assert_eq!(found, *backend, "slot {:?}", ring.slots()[*slot]);
                }
            }
        }
    }

    fn alive(members: &[Member]) -> Vec<bool> {
        let mut alive = vec![false; members.len() + 1];
        for member in members {
            alive[member.backend as usize] = member.availability != Availability::Down;
        }
        alive
    }
}
