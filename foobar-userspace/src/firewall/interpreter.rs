//! The ruleset walked by the letter of its description, slowly and with every step counted.

use std::net::IpAddr;

use foobar_ebpf::abi::ruleset;

use super::model::ModelPacket;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Walked {
    NoPolicy,
    Rule { slot: u32, action: u64 },
    Default(u64),
}

/// The decision, and the steps to it without pruning: trees, nodes, and all records of every leaf on the way.
pub(super) fn walk(
    words: &[u64],
    interface: u32,
    direction: u32,
    packet: &ModelPacket,
    is_member: &dyn Fn(u32, IpAddr) -> bool,
) -> (Walked, u32) {
    let word = |at: u32| words[at as usize];
    assert_eq!(word(0), ruleset::MAGIC);
    let policy = word(ruleset::DIRECTORY + interface * 2 + direction) as u32;
    if policy == 0 {
        return (Walked::NoPolicy, 0);
    }
    let fields = fields(packet);
    let (forest, record_words) = match packet.source {
        IpAddr::V4(_) => (word(policy + 1) as u32, ruleset::RECORD_V4),
        IpAddr::V6(_) => (word(policy + 2) as u32, ruleset::RECORD_V6),
    };
    let trees = word(forest) as u32;
    assert!(trees <= ruleset::MAX_TREES);
    let mut steps = 1;
    let mut best: Option<(u32, u32)> = None;
    let mut smallest_before = 0;
    for tree in 1..=trees {
        let (mut at, smallest) = (
            word(forest + tree) as u32,
            (word(forest + tree) >> 32) as u32,
        );
        assert!(smallest >= smallest_before, "trees ascend");
        smallest_before = smallest;
        steps += 2;
        while word(at) & 1 == 0 {
            let cut = word(at);
            let (dim, shift, bits) = (cut >> 8 & 0xff, cut >> 16 & 0xff, cut >> 24 & 0xff);
            assert!(bits as u32 <= ruleset::MAX_BITS);
            at = (cut >> 32) as u32 + (fields[dim as usize] >> shift & ((1 << bits) - 1));
            steps += 1;
        }
        let (count, base) = ((word(at) >> 8) as u32 & 0xff_ffff, (word(at) >> 32) as u32);
        steps += count;
        let mut order_before = smallest;
        for index in 0..count {
            let record = &words[(base + index * record_words) as usize..][..record_words as usize];
            let order = record[record.len() - 1] as u32;
            assert!(order >= order_before, "a leaf's records ascend");
            order_before = order;
            if best.is_none_or(|(least, _)| order < least) && matches(record, packet, is_member) {
                best = Some((order, (record[record.len() - 1] >> 32) as u32));
            }
        }
    }
    let walked = match best {
        Some((_, action)) => Walked::Rule {
            slot: (word(action) >> 32) as u32,
            action: word(action) & 1,
        },
        None => Walked::Default(word(policy)),
    };
    (walked, steps)
}

fn fields(packet: &ModelPacket) -> Vec<u32> {
    let (source_port, destination_port) = packet.ports.unwrap_or((0, 0));
    let mut fields = [
        address_words(packet.source),
        address_words(packet.destination),
    ]
    .concat();
    fields.extend([source_port, destination_port, packet.protocol.into()].map(u32::from));
    fields
}

fn address_words(address: IpAddr) -> Vec<u32> {
    match address {
        IpAddr::V4(address) => vec![address.to_bits()],
        IpAddr::V6(address) => [96, 64, 32, 0]
            .map(|shift| (address.to_bits() >> shift) as u32)
            .to_vec(),
    }
}

fn matches(record: &[u64], packet: &ModelPacket, is_member: &dyn Fn(u32, IpAddr) -> bool) -> bool {
    let [addresses @ .., ports, rest, _] = record else {
        panic!("a record has more words");
    };
    let address_matches = match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            [(source, addresses[0]), (destination, addresses[1])]
                .iter()
                .all(|(address, word)| {
                    (address.to_bits() ^ *word as u32) & (word >> 32) as u32 == 0
                })
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let wide = |first: usize| {
                u128::from(addresses[first]) << 64 | u128::from(addresses[first + 1])
            };
            (source.to_bits() ^ wide(0)) & wide(2) == 0
                && (destination.to_bits() ^ wide(4)) & wide(6) == 0
        }
        _ => panic!("one family a packet"),
    };
    let in_span = |port: u16, shift: u32| {
        port.wrapping_sub((ports >> shift) as u16) <= (ports >> (shift + 16)) as u16
    };
    let (source_port, destination_port) = packet.ports.unwrap_or((0, 0));
    let flags_mask = (rest >> 16) as u8;
    let set = |shift: u32| ((rest >> shift) as u32 & 0xff).checked_sub(1);
    address_matches
        && in_span(source_port, 0)
        && in_span(destination_port, 32)
        && (rest & ruleset::NEEDS_PORTS == 0 || packet.ports.is_some())
        && (rest ^ u64::from(packet.protocol)) & (rest >> 8 & 0xff) == 0
        && (flags_mask == 0
            || packet
                .tcp_flags
                .is_some_and(|flags| flags & flags_mask == (rest >> 24) as u8))
        && set(32).is_none_or(|set| is_member(set, packet.source))
        && set(40).is_none_or(|set| is_member(set, packet.destination))
}
