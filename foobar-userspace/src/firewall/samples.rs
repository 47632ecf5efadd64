//! Configurations and packets for tests: drawn at random, or made of ClassBench's rule sets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{prelude::*, sample::Index};

use super::model::ModelPacket;
use crate::config::{
    Action, Admin, Config, Interface, Limit, LimitPer, Log, Monitor, Node, Peer, Place, Policy,
    PortRange, Rule, Set, TcpFlags, Traffic, XdpMode,
};

pub(super) const NODE: &str = "lb1";
pub(super) const SETS: [&str; 3] = ["admins", "blocklist", "jail"];

/// One node whose interface `wan` has `policy` on ingress.
pub(super) fn estate(policy: Policy) -> Config {
    let interface = Interface {
        name: "wan".to_owned(),
        device: "eth0".to_owned(),
        xdp: XdpMode::Auto,
        ingress: Some(policy.name.clone()),
        egress: None,
        place: PLACE,
    };
    let node = Node {
        name: NODE.to_owned(),
        interfaces: vec![interface],
    };
    Config {
        path: PathBuf::from("foobar.toml"),
        hosts: BTreeMap::new(),
        sets: SETS.map(|name| (name.to_owned(), set(name))).into(),
        limits: [("per-client".to_owned(), limit("per-client"))].into(),
        nodes: [(NODE.to_owned(), node)].into(),
        policies: [(policy.name.clone(), policy)].into(),
        l4: BTreeMap::new(),
        monitor: Monitor::default(),
        alerts: Vec::new(),
        notify: BTreeMap::new(),
        log: Log::default(),
        l7: BTreeMap::new(),
        proxy: crate::config::Proxy::default(),
        mysql: BTreeMap::new(),
        admin: Admin {
            socket: PathBuf::from("/run/foobar/admin.sock"),
            group: None,
            dashboard: None,
        },
    }
}

pub(super) fn policy(rules: Vec<Rule>) -> Policy {
    Policy {
        name: "edge".to_owned(),
        default: Action::Drop,
        rules,
    }
}

pub(super) fn rule(name: &str, traffic: Vec<Traffic>) -> Rule {
    Rule {
        name: name.to_owned(),
        action: Action::Allow,
        traffic,
        from: Vec::new(),
        to: Vec::new(),
        flags: None,
        source_ports: None,
        limit: None,
        jail: None,
        text: String::new(),
        place: PLACE,
    }
}

fn set(name: &str) -> Set {
    Set {
        name: name.to_owned(),
        elements: Vec::new(),
        file: None,
        file_elements: Vec::new(),
        max: 1000,
        timeout: None,
    }
}

fn limit(name: &str) -> Limit {
    Limit {
        name: name.to_owned(),
        packets: 100,
        period: Duration::from_secs(1),
        burst: 200,
        per: LimitPer::Source,
    }
}

/// Odd addresses are in `admins`, multiples of three in `blocklist`, of five in `jail`.
pub(super) fn is_member(set: &str, address: IpAddr) -> bool {
    let number = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    match set {
        "admins" => number % 2 == 1,
        "blocklist" => number.is_multiple_of(3),
        _ => number.is_multiple_of(5),
    }
}

pub(super) fn policies(most: usize) -> impl Strategy<Value = Policy> {
    let default = prop_oneof![Just(Action::Allow), Just(Action::Drop)];
    (default, prop::collection::vec(rules(), 0..most)).prop_map(|(default, mut rules)| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.name = format!("rule-{index}");
        }
        Policy {
            name: "edge".to_owned(),
            default,
            rules,
        }
    })
}

fn rules() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Drop)];
    let flags = (0_u8..64, 0_u8..64).prop_map(|(mask, value)| TcpFlags {
        mask,
        value: value & mask,
    });
    (
        action,
        prop::collection::vec(traffic(), 1..4),
        prop::collection::vec(peer(), 0..3),
        prop::collection::vec(peer(), 0..3),
        prop::option::weighted(0.2, flags),
        prop::option::weighted(0.2, port_range()),
    )
        .prop_map(|(action, traffic, from, to, flags, source_ports)| Rule {
            action,
            from,
            to,
            flags,
            source_ports,
            ..rule("", traffic)
        })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let byte = || prop::option::of(prop_oneof![Just(0_u8), Just(8), Just(255), any::<u8>()]);
    prop_oneof![
        1 => Just(Traffic::Any),
        4 => port_range().prop_map(Traffic::Tcp),
        3 => port_range().prop_map(Traffic::Udp),
        1 => (byte(), byte()).prop_map(|(kind, code)| Traffic::Icmp(kind, code)),
        1 => (byte(), byte()).prop_map(|(kind, code)| Traffic::Icmp6(kind, code)),
        1 => protocol().prop_map(Traffic::Protocol),
    ]
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(1), Just(6), Just(17), Just(47), Just(58), any::<u8>()]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        Just(0),
        Just(22),
        Just(80),
        Just(443),
        Just(1023),
        Just(u16::MAX),
        any::<u16>()
    ]
}

fn port_range() -> impl Strategy<Value = PortRange> {
    let range = |first: u16, last: u16| PortRange {
        first: first.min(last),
        last: first.max(last),
    };
    prop_oneof![
        3 => port().prop_map(move |port| range(port, port)),
        3 => (port(), port()).prop_map(move |(one, other)| range(one, other)),
        1 => Just(PortRange::ANY),
    ]
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        3 => prefix_v4().prop_map(|prefix| Peer::Prefix(prefix.into())),
        2 => prefix_v6().prop_map(|prefix| Peer::Prefix(prefix.into())),
        1 => prop::sample::select(&SETS).prop_map(|set| Peer::Set(set.to_owned())),
    ]
}

/// Few different bits, so that prefixes nest and packets meet them.
fn address_v4() -> impl Strategy<Value = Ipv4Addr> {
    (any::<u32>(), any::<bool>()).prop_map(|(bits, anywhere)| {
        Ipv4Addr::from_bits(if anywhere {
            bits
        } else {
            0x0a00_0000 | bits & 0x0081_0307
        })
    })
}

fn address_v6() -> impl Strategy<Value = Ipv6Addr> {
    (any::<u128>(), any::<bool>()).prop_map(|(bits, anywhere)| {
        Ipv6Addr::from_bits(if anywhere {
            bits
        } else {
            0x2001_0db8 << 96 | bits & 0x8003_0000_8000_0001_8000_0003
        })
    })
}

fn prefix_v4() -> impl Strategy<Value = Ipv4Net> {
    let length = prop_oneof![Just(0_u8), Just(8), Just(24), Just(32), 0..=32_u8];
    (address_v4(), length)
        .prop_map(|(address, length)| Ipv4Net::new(address, length).expect("at most 32").trunc())
}

fn prefix_v6() -> impl Strategy<Value = Ipv6Net> {
    let length = prop_oneof![Just(0_u8), Just(32), Just(64), Just(128), 0..=128_u8];
    (address_v6(), length)
        .prop_map(|(address, length)| Ipv6Net::new(address, length).expect("at most 128").trunc())
}

/// What turns a rule into a packet that it matches, or just not.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    rule: Index,
    v6: bool,
    choices: [Index; 4],
    source: (u32, u128),
    destination: (u32, u128),
    /// At the corners and one beside them.
    corners: [i8; 4],
    protocol: u8,
    ports: (u16, u16),
    flags: u8,
    is_fragment: bool,
}

pub(super) fn aims() -> impl Strategy<Value = Aim> {
    let address = || {
        (
            address_v4().prop_map(u32::from),
            address_v6().prop_map(u128::from),
        )
    };
    (
        any::<Index>(),
        any::<bool>(),
        any::<[Index; 4]>(),
        (address(), address()),
        [-2..=2_i8, -2..=2, -2..=2, -2..=2],
        protocol(),
        (port(), port()),
        0_u8..64,
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(
                rule,
                v6,
                choices,
                (source, destination),
                corners,
                protocol,
                ports,
                flags,
                is_fragment,
            )| Aim {
                rule,
                v6,
                choices,
                source,
                destination,
                corners,
                protocol,
                ports,
                flags,
                is_fragment,
            },
        )
}

impl Aim {
    /// A packet near the rule of `policy` that the aim names.
    pub fn at(&self, policy: &Policy) -> ModelPacket {
        let Some(rule) = (!policy.rules.is_empty()).then(|| self.rule.get(&policy.rules)) else {
            return self.anywhere();
        };
        let mut packet = self.anywhere();
        let [traffic, from, to, _] = &self.choices;
        packet.source = self.address(from, &rule.from, self.corners[0], packet.source);
        packet.destination = self.address(to, &rule.to, self.corners[1], packet.destination);
        let mut ports = self.ports;
        match *traffic.get(&rule.traffic) {
            Traffic::Any => {}
            Traffic::Tcp(range) => {
                packet.protocol = 6;
                ports.1 = near(range, self.corners[2], ports.1);
            }
            Traffic::Udp(range) => {
                packet.protocol = 17;
                ports.1 = near(range, self.corners[2], ports.1);
            }
            Traffic::Icmp(kind, code) | Traffic::Icmp6(kind, code) => {
                packet.protocol = if self.v6 { 58 } else { 1 };
                let [random_kind, random_code] = ports.1.to_be_bytes();
                ports.1 =
                    u16::from_be_bytes([kind.unwrap_or(random_kind), code.unwrap_or(random_code)]);
            }
            Traffic::Protocol(protocol) => packet.protocol = protocol,
        }
        if let Some(range) = rule.source_ports {
            ports.0 = near(range, self.corners[3], ports.0);
        }
        let flags = match rule.flags {
            Some(flags) => flags.value | self.flags & !flags.mask,
            None => self.flags,
        };
        self.finish(packet, ports, flags)
    }

    pub fn anywhere(&self) -> ModelPacket {
        let (source, destination): (IpAddr, IpAddr) = if self.v6 {
            (
                Ipv6Addr::from_bits(self.source.1).into(),
                Ipv6Addr::from_bits(self.destination.1).into(),
            )
        } else {
            (
                Ipv4Addr::from_bits(self.source.0).into(),
                Ipv4Addr::from_bits(self.destination.0).into(),
            )
        };
        let packet = ModelPacket {
            source,
            destination,
            protocol: self.protocol,
            ports: None,
            tcp_flags: None,
        };
        self.finish(packet, self.ports, self.flags)
    }

    fn finish(&self, packet: ModelPacket, ports: (u16, u16), flags: u8) -> ModelPacket {
        let icmp = if self.v6 { 58 } else { 1 };
        let ports = match packet.protocol {
            6 | 17 => Some(ports),
            protocol if protocol == icmp => Some((0, ports.1)),
            _ => None,
        };
        ModelPacket {
            ports: ports.filter(|_| !self.is_fragment),
            tcp_flags: (packet.protocol == 6 && !self.is_fragment).then_some(flags),
            ..packet
        }
    }

    /// An address at an end of one of the peers, in it or beside it.
    fn address(&self, choice: &Index, peers: &[Peer], corner: i8, random: IpAddr) -> IpAddr {
        let prefixes: Vec<IpNet> = peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Prefix(prefix) if prefix.addr().is_ipv6() == self.v6 => Some(*prefix),
                Peer::Prefix(_) | Peer::Set(_) => None,
            })
            .collect();
        if prefixes.is_empty() {
            return random;
        }
        let prefix = choice.get(&prefixes);
        let step = |address: IpAddr, by: i8| match address {
            IpAddr::V4(address) => {
                Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by.into())).into()
            }
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(by.into())).into()
            }
        };
        match corner {
            -2 => step(prefix.network(), -1),
            -1 => prefix.network(),
            1 => prefix.broadcast(),
            2 => step(prefix.broadcast(), 1),
            _ => match (prefix, random) {
                (IpNet::V4(prefix), IpAddr::V4(random)) => Ipv4Addr::from_bits(
                    prefix.network().to_bits() | random.to_bits() & prefix.hostmask().to_bits(),
                )
                .into(),
                (IpNet::V6(prefix), IpAddr::V6(random)) => Ipv6Addr::from_bits(
                    prefix.network().to_bits() | random.to_bits() & prefix.hostmask().to_bits(),
                )
                .into(),
                _ => random,
            },
        }
    }
}

fn near(range: PortRange, corner: i8, random: u16) -> u16 {
    match corner {
        -2 => range.first.wrapping_sub(1),
        -1 => range.first,
        1 => range.last,
        2 => range.last.wrapping_add(1),
        _ => range
            .first
            .saturating_add(random % (range.last - range.first).saturating_add(1)),
    }
}

/// A ClassBench file as a policy; every second rule drops.
pub(super) fn classbench(path: &Path, v6: bool) -> Policy {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
        panic!("cannot read the rule set {}: {error}", path.display());
    });
    let rules = text
        .lines()
        .filter(|line| line.starts_with('@'))
        .enumerate()
        .map(|(index, line)| classbench_rule(index, line, v6))
        .collect();
    policy(rules)
}

pub(super) fn classbench_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/classbench")
        .join(name)
}

fn classbench_rule(index: usize, line: &str, v6: bool) -> Rule {
    let mut columns = line[1..].split('\t');
    let mut next = || columns.next().expect("a column").trim();
    let (from, to) = (classbench_prefix(next(), v6), classbench_prefix(next(), v6));
    let (source_ports, ports) = (classbench_ports(next()), classbench_ports(next()));
    let (protocol, mask) = next().split_once('/').expect("a mask");
    let hexadecimal = |text: &str| u8::from_str_radix(&text[2..], 16).expect("hexadecimal");
    let any_ports = ports == PortRange::ANY && source_ports == PortRange::ANY;
    let traffic = match (hexadecimal(protocol), hexadecimal(mask)) {
        (_, 0) if any_ports => vec![Traffic::Any],
        (_, 0) => vec![Traffic::Tcp(ports), Traffic::Udp(ports)],
        (6, _) => vec![Traffic::Tcp(ports)],
        (17, _) => vec![Traffic::Udp(ports)],
        (protocol, _) => vec![Traffic::Protocol(protocol)],
    };
    let with_source_ports = traffic
        .iter()
        .all(|traffic| matches!(traffic, Traffic::Tcp(_) | Traffic::Udp(_)));
    Rule {
        action: if index.is_multiple_of(2) {
            Action::Allow
        } else {
            Action::Drop
        },
        from: vec![from],
        to: vec![to],
        source_ports: (with_source_ports && source_ports != PortRange::ANY).then_some(source_ports),
        ..rule(&format!("line-{index}"), traffic)
    }
}

/// IPv6: the IPv4 prefix from bit 16 on, and of a host, all 128 bits.
fn classbench_prefix(text: &str, v6: bool) -> Peer {
    let prefix: Ipv4Net = text.parse().expect("a prefix");
    let prefix = prefix.trunc();
    if !v6 {
        return Peer::Prefix(prefix.into());
    }
    let bits = 0x2001 << 112 | u128::from(prefix.network().to_bits()) << 80;
    let length = match prefix.prefix_len() {
        0 => 0,
        32 => 128,
        length => length + 16,
    };
    let prefix = Ipv6Net::new(Ipv6Addr::from_bits(bits), length).expect("at most 128");
    Peer::Prefix(prefix.trunc().into())
}

fn classbench_ports(text: &str) -> PortRange {
    let (first, last) = text.split_once(" : ").expect("a range");
    PortRange {
        first: first.parse().expect("a port"),
        last: last.parse().expect("a port"),
    }
}

pub(super) const PLACE: Place = Place { line: 1, column: 1 };
