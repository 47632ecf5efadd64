//! The ruleset's first match, and what the matching rule says.
//!
//! The layout that is walked here is described in [`crate::abi::ruleset`].

use crate::{
    abi::{SetInfo, Trace, ruleset},
    family::Family,
    packet::{Packet, Parse},
    tables::{Direction, Ruleset, Tables, TablesOf},
    verdict::Reason,
    wire::tcp,
};

/// What the policy says of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ruling {
    Admitted(Reason),
    /// A rule dropped it: nothing else may let it live.
    Refused(Reason),
    /// No rule matched and the policy drops.
    Unmatched,
}

/// The action of the first rule that matches, and the set that made it match.
#[derive(Clone, Copy)]
struct Found {
    action: u32,
    set: u32,
}

/// The policy of the packet's interface in one direction.
///
/// # Errors
/// [`Reason::Internal`]: no ruleset, or one that contradicts itself.
#[inline(always)]
pub fn decide<F: Parse, T: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    tables: &mut T,
    direction: Direction,
) -> Result<Ruling, Reason> {
    let ruleset = tables.ruleset().ok_or(Reason::Internal)?;
    let Some(policy) = policy(&ruleset, tables.interface(), direction)? else {
        return Ok(Ruling::Admitted(Reason::NoPolicy));
    };
    match first_match(&ruleset, policy, packet, tables)? {
        Some(found) => act(&ruleset, found, packet, tables),
        None if default(&ruleset, policy)? == ruleset::ALLOW => {
            Ok(Ruling::Admitted(Reason::PolicyAllow))
        }
        None => Ok(Ruling::Unmatched),
    }
}

/// Whether the policy of a direction would admit the packet, limits aside.
///
/// # Errors
/// As [`decide`].
#[inline(always)]
pub fn would_admit<F: Parse, T: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    tables: &T,
    direction: Direction,
) -> Result<bool, Reason> {
    let ruleset = tables.ruleset().ok_or(Reason::Internal)?;
    let Some(policy) = policy(&ruleset, tables.interface(), direction)? else {
        return Ok(true);
    };
    match first_match(&ruleset, policy, packet, tables)? {
        Some(found) => {
            let [word, ..] = ruleset.words::<3>(found.action).ok_or(Reason::Internal)?;
            Ok(*word & 1 == ruleset::ALLOW)
        }
        None => Ok(default(&ruleset, policy)? == ruleset::ALLOW),
    }
}

#[inline(always)]
fn policy<R: Ruleset>(
    ruleset: &R,
    interface: u32,
    direction: Direction,
) -> Result<Option<u32>, Reason> {
    let entry = ruleset::DIRECTORY + interface * 2 + direction as u32;
    let [offset] = ruleset.words::<1>(entry).ok_or(Reason::Internal)?;
    Ok((*offset != 0).then_some(*offset as u32))
}

#[inline(always)]
fn default<R: Ruleset>(ruleset: &R, policy: u32) -> Result<u64, Reason> {
    let [action] = ruleset.words::<1>(policy).ok_or(Reason::Internal)?;
    Ok(*action)
}

/// Walks the forest's trees in order of their smallest rule, keeping the smallest order that matched.
// A function of its own in the kernel, for its stack and for the verifier's sake: it is walked once per caller.
#[inline(never)]
fn first_match<F: Parse, T: Tables + TablesOf<F>, R: Ruleset>(
    ruleset: &R,
    policy: u32,
    packet: &Packet<F>,
    tables: &T,
) -> Result<Option<Found>, Reason> {
    let [forest] = ruleset
        .words::<1>(policy + F::FOREST)
        .ok_or(Reason::Internal)?;
    let forest = *forest as u32;
    let [trees] = ruleset.words::<1>(forest).ok_or(Reason::Internal)?;
    let mut tree = forest + 1;
    let last_tree = forest + *trees as u32;
    let mut membership = Membership::default();
    let mut best = Found {
        action: 0,
        set: Trace::NONE,
    };
    let mut best_order = u32::MAX;
    let mut at = 0_u32;
    let mut records = 0_u32;
    for _ in 0..ruleset::BUDGET + ruleset::MAX_TREES + 1 {
        if records != 0 {
            let [order_action] = ruleset
                .words::<1>(at + F::RECORD_ADDRESSES + 2)
                .ok_or(Reason::Internal)?;
            let order = *order_action as u32;
            if order >= best_order {
                records = 0;
                at = 0;
                continue;
            }
            if let Some(set) =
                matches_record::<F, T, R>(ruleset, at, packet, tables, &mut membership)?
            {
                best_order = order;
                best = Found {
                    action: (*order_action >> 32) as u32,
                    set,
                };
                records = 0;
                at = 0;
                continue;
            }
            records -= 1;
            at += F::RECORD_ADDRESSES + 3;
            if records == 0 {
                at = 0;
            }
        } else if at != 0 {
            let [node] = ruleset.words::<1>(at).ok_or(Reason::Internal)?;
            let base = (*node >> 32) as u32;
            if *node & 1 != 0 {
                records = (*node >> 8) as u32 & 0xff_ffff;
                at = if records == 0 { 0 } else { base };
            } else {
                let dim = (*node >> 8) as u32 & (F::DIMS - 1);
                let shift = (*node >> 16) as u32 & 31;
                let bits = (*node >> 24) as u32 & 15;
                at = base + (packet.field(dim) >> shift & ((1 << bits) - 1));
            }
        } else {
            if tree > last_tree {
                return Ok((best_order != u32::MAX).then_some(best));
            }
            let [root] = ruleset.words::<1>(tree).ok_or(Reason::Internal)?;
            if (*root >> 32) as u32 >= best_order {
                return Ok(Some(best));
            }
            at = *root as u32;
            tree += 1;
        }
    }
    Err(Reason::Internal)
}

/// `Some(set)` if all of the record matches; the set is [`Trace::NONE`] when it names none.
#[inline(always)]
fn matches_record<F: Parse, T: Tables + TablesOf<F>, R: Ruleset>(
    ruleset: &R,
    at: u32,
    packet: &Packet<F>,
    tables: &T,
    membership: &mut Membership,
) -> Result<Option<u32>, Reason> {
    let [ports, rest] = ruleset
        .words::<2>(at + F::RECORD_ADDRESSES)
        .ok_or(Reason::Internal)?;
    let rest = *rest;
    if (rest ^ u64::from(packet.protocol)) & (rest >> 8 & 0xff) != 0 {
        return Ok(None);
    }
    if rest & ruleset::NEEDS_PORTS != 0 {
        let source = u16::from_be(packet.ports.0);
        let destination = u16::from_be(packet.ports.1);
        if !packet.has_ports
            || source.wrapping_sub(*ports as u16) > (*ports >> 16) as u16
            || destination.wrapping_sub((*ports >> 32) as u16) > (*ports >> 48) as u16
        {
            return Ok(None);
        }
    }
    let flags_mask = (rest >> 16) as u8;
    if flags_mask != 0
        && (packet.protocol != tcp::PROTOCOL
            || !packet.has_tcp_flags()
            || packet.tcp_flags & flags_mask != (rest >> 24) as u8)
    {
        return Ok(None);
    }
    if !F::matches_addresses(ruleset, at, &packet.source, &packet.destination)
        .ok_or(Reason::Internal)?
    {
        return Ok(None);
    }
    let mut matched = Trace::NONE;
    let source_set = (rest >> 32) as u32 & 0xff;
    if source_set != 0 {
        matched = source_set - 1;
        if !membership.source(packet.source, matched, tables) {
            return Ok(None);
        }
    }
    let destination_set = (rest >> 40) as u32 & 0xff;
    if destination_set != 0 {
        if !membership.destination(packet.destination, destination_set - 1, tables) {
            return Ok(None);
        }
        if matched == Trace::NONE {
            matched = destination_set - 1;
        }
    }
    Ok(Some(matched))
}

/// The longest-prefix look-ups of a packet, made once at most.
#[derive(Default)]
struct Membership {
    source: Option<u64>,
    destination: Option<u64>,
}

impl Membership {
    #[inline(always)]
    fn source<F: Family, T: Tables + TablesOf<F>>(
        &mut self,
        address: F::Address,
        set: u32,
        tables: &T,
    ) -> bool {
        contains::<F, T>(&mut self.source, address, set, tables)
    }

    #[inline(always)]
    fn destination<F: Family, T: Tables + TablesOf<F>>(
        &mut self,
        address: F::Address,
        set: u32,
        tables: &T,
    ) -> bool {
        contains::<F, T>(&mut self.destination, address, set, tables)
    }
}

#[inline(always)]
fn contains<F: Family, T: Tables + TablesOf<F>>(
    around: &mut Option<u64>,
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
        let mask = match *around {
            Some(mask) => mask,
            None => *around.insert(tables.sets_around(address)),
        };
        if mask >> (set & 63) & 1 != 0 {
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

/// Counts the rule, asks its limit, jails the offender.
#[inline(always)]
fn act<F: Parse, T: Tables + TablesOf<F>, R: Ruleset>(
    ruleset: &R,
    found: Found,
    packet: &Packet<F>,
    tables: &mut T,
) -> Result<Ruling, Reason> {
    let [word, interval, tolerance] = ruleset.words::<3>(found.action).ok_or(Reason::Internal)?;
    let rule = (*word >> 32) as u32;
    tables.count_rule(rule, packet.length);
    tables.trace(|trace| {
        trace.rule = rule;
        trace.set = found.set;
    });
    if *word & 1 == ruleset::DROP {
        return Ok(Ruling::Refused(Reason::RuleDrop));
    }
    let limit = Limit {
        interval: *interval,
        tolerance: *tolerance,
    };
    let conforms = match *word >> 8 & 0xff {
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
        _ => return Ok(Ruling::Admitted(Reason::RuleAllow)),
    };
    if conforms {
        return Ok(Ruling::Admitted(Reason::RuleAllow));
    }
    let jail = (*word >> 16) as u32 & 0xff;
    if jail != 0
        && let Some(timeout) = tables.set(jail - 1).map(|set| set.timeout)
    {
        let expires = tables.now().saturating_add(timeout);
        tables.add_timed_member(&F::member(jail - 1, packet.source), expires);
    }
    Ok(Ruling::Refused(Reason::RateLimit))
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
