//! What a policy means, told by the shortest code that says it: the oracle of every test of the packet path.
//!
//! It reads the configuration's rules one by one and shares no code with the compiler. Limits are not asked: a rule
//! that matches decides, whatever its bucket holds.

use std::net::IpAddr;

pub use foobar_ebpf::tables::Direction;

use crate::{
    config::{Action, Config, Peer, Policy, PortRange, Rule, TcpFlags, Traffic},
    labels::{self, Kind, Labels},
};

/// What rules can see of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ModelPacket {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Of the last header: TCP 6, UDP 17, ICMP 1, ICMPv6 58, …
    pub protocol: u8,
    /// Source and destination port, host order; ICMP and ICMPv6: 0 and `type << 8 | code`. `None`: another protocol, or a
    /// later fragment whose first nobody remembers.
    pub ports: Option<(u16, u16)>,
    /// `None`: not TCP, or a later fragment.
    pub tcp_flags: Option<u8>,
}

/// Which addresses are in which sets.
pub trait SetMembership {
    fn contains(&self, set: &str, address: IpAddr) -> bool;
}

impl<F: Fn(&str, IpAddr) -> bool> SetMembership for F {
    fn contains(&self, set: &str, address: IpAddr) -> bool {
        self(set, address)
    }
}

/// What the policy of an interface says of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision<'a> {
    /// The interface has no policy in this direction: the packet passes.
    NoPolicy,
    /// This rule is the first that matches.
    Rule {
        policy: &'a Policy,
        index: usize,
        rule: &'a Rule,
    },
    /// No rule matches.
    Default(&'a Policy),
}

impl Decision<'_> {
    /// What becomes of the packet, limits aside.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::NoPolicy => Action::Allow,
            Self::Rule { rule, .. } => rule.action,
            Self::Default(policy) => policy.default,
        }
    }

    /// The counter slot of the rule that decided.
    #[must_use]
    pub fn slot(&self, labels: &Labels) -> Option<u32> {
        let Self::Rule { policy, rule, .. } = self else {
            return None;
        };
        labels.find(Kind::Rule, &labels::rule(&policy.name, &rule.name))
    }
}

/// What the policy of `node`'s `interface` (its name, `wan`) says of `packet`.
///
/// An interface or policy that does not exist decides nothing: [`Decision::NoPolicy`].
#[must_use]
pub fn decide<'a>(
    config: &'a Config,
    node: &str,
    interface: &str,
    direction: Direction,
    packet: &ModelPacket,
    sets: &dyn SetMembership,
) -> Decision<'a> {
    let interface = config.nodes.get(node).and_then(|node| {
        node.interfaces
            .iter()
            .find(|candidate| candidate.name == interface)
    });
    let policy = interface.and_then(|interface| match direction {
        Direction::Ingress => interface.ingress.as_ref(),
        Direction::Egress => interface.egress.as_ref(),
    });
    match policy.and_then(|policy| config.policies.get(policy)) {
        Some(policy) => first_match(policy, packet, sets),
        None => Decision::NoPolicy,
    }
}

/// What `policy` says of `packet`.
#[must_use]
pub fn first_match<'a>(
    policy: &'a Policy,
    packet: &ModelPacket,
    sets: &dyn SetMembership,
) -> Decision<'a> {
    policy
        .rules
        .iter()
        .enumerate()
        .find(|(_, rule)| matches(rule, packet, sets))
        .map_or(Decision::Default(policy), |(index, rule)| Decision::Rule {
            policy,
            index,
            rule,
        })
}

fn matches(rule: &Rule, packet: &ModelPacket, sets: &dyn SetMembership) -> bool {
    rule.traffic.iter().any(|traffic| meets(*traffic, packet))
        && rule
            .source_ports
            .is_none_or(|ports| comes_from(ports, packet))
        && rule.flags.is_none_or(|flags| carries(flags, packet))
        && is_among(packet.source, &rule.from, sets)
        && is_among(packet.destination, &rule.to, sets)
}

fn meets(traffic: Traffic, packet: &ModelPacket) -> bool {
    let arrives_at = |ports: PortRange| {
        ports == PortRange::ANY || packet.ports.is_some_and(|(_, port)| holds(ports, port))
    };
    let announces = |kind: Option<u8>, code: Option<u8>| match (kind, code, packet.ports) {
        (None, None, _) => true,
        (_, _, None) => false,
        (kind, code, Some((_, word))) => {
            let [packet_kind, packet_code] = word.to_be_bytes();
            kind.is_none_or(|kind| kind == packet_kind)
                && code.is_none_or(|code| code == packet_code)
        }
    };
    match traffic {
        Traffic::Any => true,
        Traffic::Tcp(ports) => packet.protocol == TCP && arrives_at(ports),
        Traffic::Udp(ports) => packet.protocol == UDP && arrives_at(ports),
        Traffic::Icmp(kind, code) => {
            packet.source.is_ipv4() && packet.protocol == ICMP && announces(kind, code)
        }
        Traffic::Icmp6(kind, code) => {
            packet.source.is_ipv6() && packet.protocol == ICMP6 && announces(kind, code)
        }
        Traffic::Protocol(protocol) => packet.protocol == protocol,
    }
}

fn comes_from(ports: PortRange, packet: &ModelPacket) -> bool {
    ports == PortRange::ANY
        || matches!(packet.protocol, TCP | UDP)
            && packet.ports.is_some_and(|(port, _)| holds(ports, port))
}

fn carries(flags: TcpFlags, packet: &ModelPacket) -> bool {
    packet.protocol == TCP
        && (flags.mask == 0
            || packet
                .tcp_flags
                .is_some_and(|carried| carried & flags.mask == flags.value))
}

fn holds(ports: PortRange, port: u16) -> bool {
    (ports.first..=ports.last).contains(&port)
}

fn is_among(address: IpAddr, peers: &[Peer], sets: &dyn SetMembership) -> bool {
    peers.is_empty()
        || peers.iter().any(|peer| match peer {
            Peer::Prefix(prefix) => prefix.contains(&address),
            Peer::Set(set) => sets.contains(set, address),
        })
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
