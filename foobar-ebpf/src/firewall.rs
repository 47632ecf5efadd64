//! The ruleset's first match, and what the matching rule says.
//!
//! The layout that is walked here is described in [`crate::abi::ruleset`].

use crate::{
    abi::{SetInfo, Trace, ruleset},
    packet::{Packet, Parse},
    tables::{Direction, Ruleset, Tables, TablesOf},
    verdict::Reason,
    wire::tcp,
};

/// What the policy says of a packet, and why.
///
/// Not a payload in some of an enum's variants: LLVM fills what a variant lacks with any register, and the verifier
/// refuses arithmetic on a pointer even where nobody looks at the result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ruling {
    pub outcome: Outcome,
    pub reason: Reason,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Admitted,
    /// A rule dropped it: nothing else may let it live.
    Refused,
    /// No rule matched and the policy drops.
    Unmatched,
}

impl Ruling {
    const fn admitted(reason: Reason) -> Self {
        Self {
            outcome: Outcome::Admitted,
            reason,
        }
    }

    const fn refused(reason: Reason) -> Self {
        Self {
            outcome: Outcome::Refused,
            reason,
        }
    }

    const UNMATCHED: Self = Self {
        outcome: Outcome::Unmatched,
        reason: Reason::PolicyDrop,
    };
}

/// The offset of no action.
const NO_ACTION: u32 = 0;
/// The ruleset contradicts itself: an action outside of it.
const BROKEN: u32 = u32::MAX;

/// The policy of the packet's interface in one direction. Without a ruleset, or with one that contradicts itself,
/// everything is refused for [`Reason::Internal`].
#[inline(always)]
pub fn decide<F: Parse, T: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    walk: &mut Walk,
    tables: &mut T,
    direction: Direction,
) -> Ruling {
    let Some(ruleset) = tables.ruleset() else {
        return Ruling::refused(Reason::Internal);
    };
    let policy = policy(&ruleset, tables.interface(), direction);
    if policy == NO_POLICY {
        return Ruling::admitted(Reason::NoPolicy);
    }
    let action = first_match(&ruleset, policy, packet, walk, tables);
    if action != NO_ACTION {
        let Some(words) = ruleset.words::<3>(action).copied() else {
            return Ruling::refused(Reason::Internal);
        };
        act(words, walk.set, packet, tables)
    } else if allows_by_default(&ruleset, policy) {
        Ruling::admitted(Reason::PolicyAllow)
    } else {
        Ruling::UNMATCHED
    }
}

/// Whether the policy of a direction would admit the packet, limits aside.
#[inline(always)]
pub fn would_admit<F: Parse, T: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    walk: &mut Walk,
    tables: &T,
    direction: Direction,
) -> bool {
    let Some(ruleset) = tables.ruleset() else {
        return false;
    };
    let policy = policy(&ruleset, tables.interface(), direction);
    if policy == NO_POLICY {
        return true;
    }
    let action = first_match(&ruleset, policy, packet, walk, tables);
    if action == NO_ACTION {
        return allows_by_default(&ruleset, policy);
    }
    matches!(ruleset.words::<1>(action), Some([word]) if *word & 1 == ruleset::ALLOW)
}

/// An offset that no policy has.
const NO_POLICY: u32 = 0;

/// An entry outside of the ruleset leads outside of it.
#[inline(always)]
fn policy<R: Ruleset>(ruleset: &R, interface: u32, direction: Direction) -> u32 {
    let entry = ruleset::DIRECTORY + interface * 2 + direction as u32;
    ruleset
        .words::<1>(entry)
        .map_or(u32::MAX, |[offset]| *offset as u32)
}

#[inline(always)]
fn allows_by_default<R: Ruleset>(ruleset: &R, policy: u32) -> bool {
    matches!(ruleset.words::<1>(policy), Some([action]) if *action == ruleset::ALLOW)
}

/// The action of the first rule that matches: walks the forest's trees in order of their smallest rule, keeping the
/// smallest order that matched.
#[inline(never)]
fn first_match<F: Parse, T: Tables + TablesOf<F>, R: Ruleset>(
    ruleset: &R,
    policy: u32,
    packet: &Packet<F>,
    walk: &mut Walk,
    tables: &T,
) -> u32 {
    let Some([forest]) = ruleset.words::<1>(policy.saturating_add(F::FOREST)) else {
        return BROKEN;
    };
    let forest = *forest as u32;
    let Some([trees]) = ruleset.words::<1>(forest) else {
        return BROKEN;
    };
    walk.begin(forest, *trees as u32);
    tables.repeat(ruleset::BUDGET + ruleset::MAX_TREES + 1, || {
        walk.step(ruleset, packet, tables) == Step::More
    });
    // A walk that did not end ran out of its budget or out of the ruleset.
    if walk.is_done { walk.action } else { BROKEN }
}

const NODES_PER_STEP: u32 = 3;
const RECORDS_PER_STEP: u32 = 5;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    More,
    Done,
    Broken,
}

/// A walk over a forest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    /// The node or, while `records` are left, the record that is next; 0: the next tree.
    at: u32,
    records: u32,
    tree: u32,
    last_tree: u32,
    /// Of the best match so far, with its action and the set that made it match.
    order: u32,
    action: u32,
    set: u32,
    is_done: bool,
    source: Prefixes,
    destination: Prefixes,
}

/// The sets that have a prefix around an address, asked once at most.
#[derive(Clone, Copy, Debug, Default)]
struct Prefixes {
    mask: u64,
    is_known: bool,
}

impl Walk {
    #[inline(always)]
    fn begin(&mut self, forest: u32, trees: u32) {
        self.at = 0;
        self.records = 0;
        self.tree = forest.saturating_add(1);
        self.last_tree = forest.saturating_add(trees);
        self.order = u32::MAX;
        self.action = NO_ACTION;
        self.set = Trace::NONE;
        self.is_done = false;
        self.source.is_known = false;
        self.destination.is_known = false;
    }

    /// Goes on by some nodes and records, at least one: a call each would cost more than what it does.
    #[inline(always)]
    fn step<F: Parse, T: Tables + TablesOf<F>, R: Ruleset>(
        &mut self,
        ruleset: &R,
        packet: &Packet<F>,
        tables: &T,
    ) -> Step {
        if self.at == 0 {
            let step = self.root(ruleset);
            if step != Step::More {
                return step;
            }
        }
        for _ in 0..NODES_PER_STEP {
            if self.records == 0 && self.at != 0 && self.node(ruleset, packet).is_err() {
                return Step::Broken;
            }
        }
        for _ in 0..RECORDS_PER_STEP {
            if self.records != 0 && self.record(ruleset, packet, tables).is_err() {
                return Step::Broken;
            }
        }
        Step::More
    }

    #[inline(always)]
    fn root<R: Ruleset>(&mut self, ruleset: &R) -> Step {
        if self.tree > self.last_tree {
            self.is_done = true;
            return Step::Done;
        }
        let Some([root]) = ruleset.words::<1>(self.tree) else {
            return Step::Broken;
        };
        if (*root >> 32) as u32 >= self.order {
            self.is_done = true;
            return Step::Done;
        }
        self.at = *root as u32;
        self.tree += 1;
        Step::More
    }

    #[inline(always)]
    fn node<F: Parse, R: Ruleset>(
        &mut self,
        ruleset: &R,
        packet: &Packet<F>,
    ) -> Result<(), Reason> {
        let [node] = ruleset.words::<1>(self.at).ok_or(Reason::Internal)?;
        let base = (*node >> 32) as u32;
        if *node & 1 != 0 {
            self.records = (*node >> 8) as u32 & 0xff_ffff;
            self.at = if self.records == 0 { 0 } else { base };
        } else {
            let dim = (*node >> 8) as u32 & (F::DIMS - 1);
            let shift = (*node >> 16) as u32 & 31;
            let bits = (*node >> 24) as u32 & 15;
            self.at = base.wrapping_add(packet.field(dim) >> shift & ((1 << bits) - 1));
        }
        Ok(())
    }

    #[inline(always)]
    fn record<F: Parse, T: Tables + TablesOf<F>, R: Ruleset>(
        &mut self,
        ruleset: &R,
        packet: &Packet<F>,
        tables: &T,
    ) -> Result<(), Reason> {
        let [order_action] = ruleset
            .words::<1>(self.at.wrapping_add(F::RECORD_ADDRESSES + 2))
            .ok_or(Reason::Internal)?;
        let order = *order_action as u32;
        if order >= self.order {
            self.leave_tree();
        } else if self.matches::<F, T, R>(ruleset, packet, tables)? {
            self.order = order;
            self.action = (*order_action >> 32) as u32;
            self.leave_tree();
        } else {
            self.records = self.records.wrapping_sub(1);
            self.at = self.at.wrapping_add(F::RECORD_ADDRESSES + 3);
            if self.records == 0 {
                self.at = 0;
            }
        }
        Ok(())
    }

    /// A leaf's records ascend by order: none that follows can be first.
    #[inline(always)]
    const fn leave_tree(&mut self) {
        self.records = 0;
        self.at = 0;
    }

    /// Whether all of the record at `at` matches; notes the set that it named.
    #[inline(always)]
    fn matches<F: Parse, T: Tables + TablesOf<F>, R: Ruleset>(
        &mut self,
        ruleset: &R,
        packet: &Packet<F>,
        tables: &T,
    ) -> Result<bool, Reason> {
        let [ports, rest] = ruleset
            .words::<2>(self.at.wrapping_add(F::RECORD_ADDRESSES))
            .ok_or(Reason::Internal)?;
        if !matches_transport(*ports, *rest, packet)
            || !F::matches_addresses(ruleset, self.at, &packet.source, &packet.destination)
                .ok_or(Reason::Internal)?
        {
            return Ok(false);
        }
        let source_set = (*rest >> 32) as u32 & 0xff;
        let destination_set = (*rest >> 40) as u32 & 0xff;
        if source_set | destination_set == 0 {
            self.set = Trace::NONE;
            return Ok(true);
        }
        if source_set != 0
            && !self
                .source
                .contains::<F, T>(packet.source, source_set - 1, tables)
            || destination_set != 0
                && !self.destination.contains::<F, T>(
                    packet.destination,
                    destination_set - 1,
                    tables,
                )
        {
            return Ok(false);
        }
        self.set = if source_set == 0 {
            destination_set - 1
        } else {
            source_set - 1
        };
        Ok(true)
    }
}

/// Protocol, ports and TCP flags of a record.
#[inline(always)]
fn matches_transport<F: Parse>(ports: u64, rest: u64, packet: &Packet<F>) -> bool {
    if (rest ^ u64::from(packet.protocol)) & (rest >> 8 & 0xff) != 0 {
        return false;
    }
    if rest & ruleset::NEEDS_PORTS != 0 {
        let source = u16::from_be(packet.ports.0);
        let destination = u16::from_be(packet.ports.1);
        if !packet.has_ports
            || source.wrapping_sub(ports as u16) > (ports >> 16) as u16
            || destination.wrapping_sub((ports >> 32) as u16) > (ports >> 48) as u16
        {
            return false;
        }
    }
    let flags_mask = (rest >> 16) as u8;
    flags_mask == 0
        || packet.protocol == tcp::PROTOCOL
            && packet.has_tcp_flags()
            && packet.tcp_flags & flags_mask == (rest >> 24) as u8
}

impl Prefixes {
    #[inline(always)]
    fn contains<F: Parse, T: Tables + TablesOf<F>>(
        &mut self,
        address: F::Address,
        set: u32,
        tables: &T,
    ) -> bool {
        let Some(info) = tables.set(set) else {
            return false;
        };
        let asked = info.tables;
        if asked & SetInfo::HOSTS != 0 && tables.is_host_of_set(&F::member(set, address)) {
            return true;
        }
        if asked & SetInfo::PREFIXES != 0 {
            if !self.is_known {
                self.mask = tables.sets_around(address);
                self.is_known = true;
            }
            if self.mask >> (set & 63) & 1 != 0 {
                return true;
            }
        }
        if asked & SetInfo::TIMED != 0
            && let Some(expires) = tables.timed_member(&F::member(set, address))
        {
            return expires == u64::MAX || expires > tables.now();
        }
        false
    }
}

/// Counts the rule, asks its limit, jails the offender.
#[inline(always)]
fn act<F: Parse, T: Tables + TablesOf<F>>(
    [word, interval, tolerance]: [u64; 3],
    set: u32,
    packet: &Packet<F>,
    tables: &mut T,
) -> Ruling {
    let rule = (word >> 32) as u32;
    tables.count_rule(rule, packet.length);
    tables.trace(|trace| {
        trace.rule = rule;
        trace.set = set;
    });
    if word & 1 == ruleset::DROP {
        return Ruling::refused(Reason::RuleDrop);
    }
    let limit = Limit {
        interval,
        tolerance,
    };
    let conforms = match word >> 8 & 0xff {
        ruleset::LIMIT_RULE => {
            let now = tables.now();
            let mut conforms = false;
            tables.bucket_of_rule(rule, |bucket| limit.ask(bucket, now, &mut conforms));
            conforms
        }
        ruleset::LIMIT_SOURCE => {
            let now = tables.now();
            let mut conforms = false;
            tables.bucket_of_source(&F::bucket(rule, packet.source), |bucket| {
                limit.ask(bucket, now, &mut conforms)
            });
            conforms
        }
        _ => return Ruling::admitted(Reason::RuleAllow),
    };
    if conforms {
        return Ruling::admitted(Reason::RuleAllow);
    }
    let jail = (word >> 16) as u32 & 0xff;
    if jail != 0
        && let Some(timeout) = tables.set(jail - 1).map(|set| set.timeout)
    {
        let expires = tables.now().saturating_add(timeout);
        tables.add_timed_member(&F::member(jail - 1, packet.source), expires);
    }
    Ruling::refused(Reason::RateLimit)
}

/// The generic cell rate algorithm (ITU-T I.371): a token bucket that is one timestamp.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Nanoseconds per packet.
    pub interval: u64,
    /// Nanoseconds that a burst may run ahead: burst × interval.
    pub tolerance: u64,
}

impl Limit {
    /// The theoretical arrival time after a packet at `now`, and in `conforms` whether the packet is within the limit.
    #[inline(always)]
    pub fn ask(self, arrival: u64, now: u64, conforms: &mut bool) -> u64 {
        let next = if arrival > now { arrival } else { now }.saturating_add(self.interval);
        *conforms = next - now <= self.tolerance;
        if *conforms { next } else { arrival }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_the_next_packet_waits_for_a_token() {
        let limit = Limit {
            interval: 10,
            tolerance: 30,
        };
        let mut conforms = false;
        let mut bucket = 0;
        for _ in 0..3 {
            bucket = limit.ask(bucket, 1000, &mut conforms);
            assert!(conforms);
        }
        bucket = limit.ask(bucket, 1000, &mut conforms);
        assert!(!conforms);
        bucket = limit.ask(bucket, 1009, &mut conforms);
        assert!(!conforms);
        let _ = limit.ask(bucket, 1010, &mut conforms);
        assert!(conforms);
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_its_rate_and_a_burst(
            gaps in proptest::collection::vec(0_u64..40, 1..400),
            interval in 1_u64..50,
            burst in 1_u64..20,
        ) {
            let limit = Limit { interval, tolerance: interval * burst };
            let (mut now, mut bucket, mut passed) = (1_000_000, 0, 0);
            let begun = now;
            for gap in gaps {
                now += gap;
                let mut conforms = false;
                bucket = limit.ask(bucket, now, &mut conforms);
                passed += u64::from(conforms);
                prop_assert!(passed <= burst + (now - begun) / interval);
            }
        }
    }
}
