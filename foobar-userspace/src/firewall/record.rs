//! Rules taken apart: each record compares every field of a packet with one range.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{CompileError, forest::Family};
use crate::config::{Peer, Policy, PortRange, Rule, TcpFlags, Traffic};

/// One combination of a rule's traffic, source and destination, of one family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    /// Records that come earlier win.
    pub order: u32,
    /// Index in the policy.
    pub rule: usize,
    /// By dim; addresses are prefixes.
    pub fields: [Field; Family::MOST_DIMS],
    pub needs_ports: bool,
    pub flags: Option<TcpFlags>,
    pub source_set: Option<u32>,
    pub destination_set: Option<u32>,
}

/// Inclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Field {
    pub low: u32,
    pub high: u32,
}

/// What a rule asks above the addresses.
#[derive(Clone, Copy)]
struct Above {
    protocol: Option<u8>,
    source_ports: PortRange,
    destination_ports: PortRange,
    flags: Option<TcpFlags>,
}

/// Where a packet comes from or goes to.
#[derive(Clone, Copy)]
enum Side {
    Anywhere,
    Prefix(IpNet),
    Set(u32),
}

impl Record {
    /// Every packet that `other` matches inside `region` (by dim) is matched by this one.
    pub fn covers(&self, other: &Self, region: &[Field]) -> bool {
        let fields = self.fields.iter().zip(&other.fields).zip(region);
        let is_wider = |(field, set): (Option<u32>, Option<u32>)| field.is_none() || field == set;
        (!self.needs_ports || other.needs_ports)
            && is_wider((self.source_set, other.source_set))
            && is_wider((self.destination_set, other.destination_set))
            && covers_flags(self.flags, other.flags)
            && fields
                .into_iter()
                .all(|((field, other), region)| field.covers(other.within(*region)))
    }

    /// Every packet of `region` is matched by this one.
    pub fn covers_all(&self, region: &[Field]) -> bool {
        !self.needs_ports
            && self.source_set.is_none()
            && self.destination_set.is_none()
            && self.flags.is_none()
            && self
                .fields
                .iter()
                .zip(region)
                .all(|(field, region)| field.covers(*region))
    }
}

fn covers_flags(wide: Option<TcpFlags>, narrow: Option<TcpFlags>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            wide.mask & !narrow.mask == 0 && narrow.value & wide.mask == wide.value
        }
    }
}

impl Field {
    pub const ALL: Self = Self {
        low: 0,
        high: u32::MAX,
    };

    pub fn covers(self, other: Self) -> bool {
        self.low <= other.low && self.high >= other.high
    }

    /// The part inside `region`; what does not meet it at all comes back empty (`low > high`).
    pub fn within(self, region: Self) -> Self {
        Self {
            low: self.low.max(region.low),
            high: self.high.min(region.high),
        }
    }

    pub fn is_empty(self) -> bool {
        self.low > self.high
    }

    fn prefix(word: u32, length: u32) -> Self {
        let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
        Self {
            low: word & !hosts,
            high: word | hosts,
        }
    }

    fn ports(ports: PortRange) -> Self {
        Self {
            low: ports.first.into(),
            high: ports.last.into(),
        }
    }
}

/// How many records [`expand`] makes at most.
pub(super) fn combinations(policy: &Policy, family: Family) -> usize {
    policy
        .rules
        .iter()
        .map(|rule| {
            let side = |peers: &[Peer]| match peers.len() {
                0 => 1,
                _ => peers.iter().filter(|peer| is_of(peer, family)).count(),
            };
            rule.traffic.len() * side(&rule.from) * side(&rule.to)
        })
        .sum()
}

/// All records of the policy, in order.
pub(super) fn expand(
    policy: &Policy,
    family: Family,
    set_id: &dyn Fn(&Rule, &str) -> Result<u32, CompileError>,
) -> Result<Vec<Record>, CompileError> {
    let mut records = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let from = sides(&rule.from, family, &|set| set_id(rule, set))?;
        let to = sides(&rule.to, family, &|set| set_id(rule, set))?;
        for above in above(rule, family) {
            for from in &from {
                for to in &to {
                    let order = u32::try_from(records.len()).unwrap_or(u32::MAX);
                    records.push(record(order, index, family, above, *from, *to));
                }
            }
        }
    }
    Ok(records)
}

fn record(order: u32, rule: usize, family: Family, above: Above, from: Side, to: Side) -> Record {
    let mut fields = [Field::ALL; Family::MOST_DIMS];
    let words = family.address_words();
    for (side, first) in [(from, 0), (to, words)] {
        if let Side::Prefix(prefix) = side {
            fields[first..first + words].copy_from_slice(&prefix_fields(prefix)[..words]);
        }
    }
    fields[family.source_port()] = Field::ports(above.source_ports);
    fields[family.destination_port()] = Field::ports(above.destination_ports);
    fields[family.protocol()] = match above.protocol {
        Some(protocol) => Field {
            low: protocol.into(),
            high: protocol.into(),
        },
        None => Field { low: 0, high: 0xff },
    };
    let set = |side| match side {
        Side::Set(set) => Some(set),
        Side::Anywhere | Side::Prefix(_) => None,
    };
    Record {
        order,
        rule,
        fields,
        needs_ports: above.source_ports != PortRange::ANY
            || above.destination_ports != PortRange::ANY,
        flags: above.flags,
        source_set: set(from),
        destination_set: set(to),
    }
}

/// The prefix word by word; IPv4 in the first.
fn prefix_fields(prefix: IpNet) -> [Field; 4] {
    let mut fields = [Field::ALL; 4];
    match prefix {
        IpNet::V4(prefix) => {
            fields[0] = Field::prefix(prefix.network().to_bits(), prefix.prefix_len().into());
        }
        IpNet::V6(prefix) => {
            let bits = prefix.network().to_bits();
            for (word, field) in (0..).zip(&mut fields) {
                let length = u32::from(prefix.prefix_len()).saturating_sub(32 * word);
                *field = Field::prefix((bits >> (96 - 32 * word)) as u32, length.min(32));
            }
        }
    }
    fields
}

/// Empty when no packet of the family can come from or go to any of `peers`.
fn sides(
    peers: &[Peer],
    family: Family,
    set_id: &dyn Fn(&str) -> Result<u32, CompileError>,
) -> Result<Vec<Side>, CompileError> {
    if peers.is_empty() {
        return Ok(vec![Side::Anywhere]);
    }
    let mut prefixes = Vec::new();
    let mut sets = Vec::new();
    for peer in peers.iter().filter(|peer| is_of(peer, family)) {
        match peer {
            Peer::Prefix(prefix) => prefixes.push(*prefix),
            Peer::Set(set) => sets.push(set_id(set)?),
        }
    }
    sets.sort_unstable();
    sets.dedup();
    let prefixes = IpNet::aggregate(&prefixes);
    if prefixes.iter().any(|prefix| prefix.prefix_len() == 0) {
        return Ok(vec![Side::Anywhere]);
    }
    let prefixes = prefixes.into_iter().map(Side::Prefix);
    Ok(prefixes.chain(sets.into_iter().map(Side::Set)).collect())
}

fn is_of(peer: &Peer, family: Family) -> bool {
    match peer {
        Peer::Set(_) => true,
        Peer::Prefix(IpNet::V4(_)) => family == Family::V4,
        Peer::Prefix(IpNet::V6(_)) => family == Family::V6,
    }
}

/// What the rule asks above the addresses, as few as possible; none if no packet of the family can meet it.
fn above(rule: &Rule, family: Family) -> Vec<Above> {
    let mut wanted: Vec<(Option<u8>, PortRange)> = rule
        .traffic
        .iter()
        .flat_map(|traffic| transports(*traffic, family))
        .collect();
    if let Some((_, everything)) = wanted.iter().find(|(protocol, _)| protocol.is_none()) {
        wanted = vec![(None, *everything)];
    }
    wanted.sort_unstable_by_key(|(protocol, ports)| (*protocol, ports.first, ports.last));
    let flags = rule.flags;
    if flags.is_some_and(|flags| flags.value & !flags.mask != 0) {
        return Vec::new();
    }
    let source_ports = rule.source_ports.unwrap_or(PortRange::ANY);
    let only = match (flags, source_ports) {
        (Some(_), _) => Some([TCP, TCP]),
        (None, PortRange::ANY) => None,
        (None, _) => Some([TCP, UDP]),
    };
    joined(&wanted)
        .into_iter()
        .flat_map(|(protocol, destination_ports)| {
            let protocols: Vec<_> = match (only, protocol) {
                (None, protocol) => vec![protocol],
                (Some([TCP, TCP]), None) => vec![Some(TCP)],
                (Some(only), None) => only.map(Some).to_vec(),
                (Some(only), Some(protocol)) if only.contains(&protocol) => vec![Some(protocol)],
                (Some(_), Some(_)) => Vec::new(),
            };
            protocols.into_iter().map(move |protocol| Above {
                protocol,
                source_ports,
                destination_ports,
                flags: flags.filter(|flags| flags.mask != 0),
            })
        })
        .collect()
}

fn transports(traffic: Traffic, family: Family) -> Vec<(Option<u8>, PortRange)> {
    let icmp = |protocol, kind, code| {
        icmp_words(kind, code)
            .into_iter()
            .map(|words| {
                let words = PortRange {
                    first: *words.start(),
                    last: *words.end(),
                };
                (Some(protocol), words)
            })
            .collect()
    };
    match (traffic, family) {
        (Traffic::Any, _) => vec![(None, PortRange::ANY)],
        (Traffic::Tcp(ports), _) => vec![(Some(TCP), ports)],
        (Traffic::Udp(ports), _) => vec![(Some(UDP), ports)],
        (Traffic::Protocol(protocol), _) => vec![(Some(protocol), PortRange::ANY)],
        (Traffic::Icmp(kind, code), Family::V4) => icmp(ICMP, kind, code),
        (Traffic::Icmp6(kind, code), Family::V6) => icmp(ICMP6, kind, code),
        (Traffic::Icmp(..), Family::V6) | (Traffic::Icmp6(..), Family::V4) => Vec::new(),
    }
}

/// Ranges of `type << 8 | code`.
fn icmp_words(kind: Option<u8>, code: Option<u8>) -> Vec<RangeInclusive<u16>> {
    let word = |kind: u8, code: u8| u16::from_be_bytes([kind, code]);
    match (kind, code) {
        (None, None) => vec![0..=u16::MAX],
        (Some(kind), None) => vec![word(kind, 0)..=word(kind, u8::MAX)],
        (Some(kind), Some(code)) => vec![word(kind, code)..=word(kind, code)],
        (None, Some(code)) => (0..=u8::MAX)
            .map(|kind| word(kind, code)..=word(kind, code))
            .collect(),
    }
}

/// Sorted ranges of one protocol that touch become one.
fn joined(sorted: &[(Option<u8>, PortRange)]) -> Vec<(Option<u8>, PortRange)> {
    let mut joined: Vec<(Option<u8>, PortRange)> = Vec::new();
    let has_any = |protocol| sorted.contains(&(protocol, PortRange::ANY));
    for (protocol, ports) in sorted.iter().copied() {
        // Every port one by one is still not a packet without ports.
        if has_any(protocol) {
            if joined.last() != Some(&(protocol, PortRange::ANY)) {
                joined.push((protocol, PortRange::ANY));
            }
            continue;
        }
        match joined.last_mut() {
            Some((last_protocol, last))
                if *last_protocol == protocol
                    && u32::from(ports.first) <= u32::from(last.last) + 1
                    && (last.first, last.last.max(ports.last)) != (0, u16::MAX) =>
            {
                last.last = last.last.max(ports.last);
            }
            _ => joined.push((protocol, ports)),
        }
    }
    joined
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// The most specific a prefix of `word`s is, in bits.
pub(super) fn prefix_length(fields: &[Field]) -> u32 {
    fields
        .iter()
        .map(|field| (field.low ^ field.high).leading_zeros())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_one_range_in_each_word() {
        let net = |text: &str| prefix_fields(text.parse().unwrap());
        assert_eq!(
            net("10.1.0.0/16")[0],
            Field {
                low: 0x0a01_0000,
                high: 0x0a01_ffff
            }
        );
        let v6 = net("2001:db8:1234::/40");
        assert_eq!((v6[0].low, v6[0].high), (0x2001_0db8, 0x2001_0db8));
        assert_eq!((v6[1].low, v6[1].high), (0x1200_0000, 0x12ff_ffff));
        assert_eq!(v6[2..], [Field::ALL; 2]);
        assert_eq!(prefix_length(&v6), 40);
    }

    #[test]
    fn ranges_that_touch_become_one_but_never_cover_packets_without_ports() {
        let ports = |first, last| (Some(TCP), PortRange { first, last });
        assert_eq!(
            joined(&[ports(1, 5), ports(6, 9), ports(8, 8), ports(11, 12)]),
            [ports(1, 9), ports(11, 12)]
        );
        assert_eq!(
            joined(&[ports(0, 9), ports(10, u16::MAX)]),
            [ports(0, 9), ports(10, u16::MAX)]
        );
        assert_eq!(
            joined(&[ports(0, 9), ports(0, u16::MAX), ports(10, 11)]),
            [ports(0, u16::MAX)]
        );
    }
}
