//! A small estate, as the library's tables and as the kernel's.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use foobar::{
    config::XdpMode,
    kernel::{self, Deployment, Direction, HashKeys, Hook, Sizes, Table as _},
};
use foobar_ebpf::{
    abi::{
        self, Backend, EndpointV4, EndpointV6, FlowV4, Member, MemberV4, NextHop, RING_SLOTS,
        Return, Session, SetInfo, Slot, Vip, ruleset,
    },
    family::{Family as _, V4, V6},
    frame::{Frame as _, MemoryFrame},
    memory::MemoryTables,
    pipeline,
    verdict::{Action, Reason},
    workspace::Workspaces,
};

/// Which program a frame goes through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    In,
    Out,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    Pass { reason: String, frame: Vec<u8> },
    Drop { reason: String },
    Transmit { reason: String, frame: Vec<u8> },
}

impl Outcome {
    /// The reason, and the frame where one leaves.
    pub fn summary(&self) -> (String, Option<Vec<u8>>) {
        match self {
            Self::Pass { reason, .. } | Self::Drop { reason } => (reason.clone(), None),
            Self::Transmit { reason, frame } => (reason.clone(), Some(frame.clone())),
        }
    }
}

/// The loopback interface: it exists everywhere, and nothing is attached to it.
const DEVICE: &str = "lo";
const INTERFACE: u32 = 3;
pub const LAN: u32 = 7;
pub const WAN: u32 = 9;
pub const BACKEND_MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 1, 1]);
pub const ROUTER_MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 9, 9]);

pub const VIP: &str = "203.0.113.10:8080";
pub const VIP6: &str = "[2001:db8::10]:8080";
/// Vips whose flows are known: with a backend, with nobody, with a lease that has lapsed.
pub const WRITER: &str = "203.0.113.10:3306";
pub const WRITER6: &str = "[2001:db8::10]:3306";
pub const ORPHAN: &str = "203.0.113.10:3307";
pub const LAPSED: &str = "203.0.113.10:3308";
/// Endpoints of this host, closed by a lease that has lapsed and open by one that lasts; and who is let in anyway.
pub const CLOSED: &str = "203.0.113.10:3302";
pub const OPEN: &str = "203.0.113.10:3303";
pub const CLOSED6: &str = "[2001:db8::10]:3302";
pub const PEER: &str = "198.51.100.77";
/// One whose lease lasts.
pub const LEASED: &str = "203.0.113.10:3309";
pub const LEASED_PRIMARY: &str = "10.0.0.13:3308";
pub const LAPSED_PRIMARY: &str = "10.0.0.13:3307";
/// Vips in transition from a dead backend to another: one keeps flows, one does not.
pub const KEEPER: &str = "203.0.113.10:3304";
pub const RESTEERER: &str = "203.0.113.10:3305";
pub const DEAD: &str = "10.0.0.15:80";
pub const HEIR: &str = "10.0.0.14:80";
pub const PRIMARY: &str = "10.0.0.12:3306";
pub const PRIMARY6: &str = "[fd00::12]:3306";
/// The client whose session stands; the next port's session is of an earlier epoch.
pub const KNOWN_PORT: u16 = 52_000;
pub const BACKEND: &str = "10.0.0.11:80";
pub const BACKEND6: &str = "[fd00::11]:80";

/// The set of denied sources.
const DENIED: u32 = 5;
/// Coarse clock of the library's tables, far from the kernel's.
const NOW: u64 = 1_000_000_000_000;

pub struct Estate {
    pub tables: MemoryTables,
}

pub struct Kernel {
    deployment: Deployment,
    node: String,
}

impl Estate {
    pub fn new() -> Self {
        let mut tables = MemoryTables {
            interface: INTERFACE,
            now: NOW,
            ruleset: policy(),
            hash_keys: [1, 3, 5, 7, 11, 13, 17],
            ..MemoryTables::default()
        };
        tables.sets.insert(
            DENIED,
            SetInfo {
                tables: SetInfo::HOSTS,
                zero: 0,
                timeout: 0,
            },
        );
        tables.v4.hosts.insert(
            MemberV4 {
                set: DENIED,
                address: v4("198.51.100.66"),
            },
            (),
        );
        balance(&mut tables, VIP, BACKEND, 0, 0);
        balance(&mut tables, VIP6, BACKEND6, 1, 0);
        let resets = Vip::SESSIONS | Vip::REFUSE;
        balance(&mut tables, WRITER, PRIMARY, 2, resets);
        balance(&mut tables, WRITER6, PRIMARY6, 3, resets);
        balance(&mut tables, ORPHAN, "10.0.0.13:3306", 4, resets);
        balance(&mut tables, LAPSED, LAPSED_PRIMARY, 5, resets | Vip::LEASED);
        balance(&mut tables, LEASED, LEASED_PRIMARY, 7, resets | Vip::LEASED);
        for (endpoint, lease) in [(CLOSED, 5), (OPEN, 7)] {
            tables
                .v4
                .vips
                .insert(guarded_v4(endpoint), flagged(lease, Vip::GUARDED));
        }
        let (address, port) = words(CLOSED6);
        tables
            .v6
            .vips
            .insert(V6::endpoint(address, port, 6), flagged(5, Vip::GUARDED));
        tables
            .v4
            .vips
            .insert(V4::endpoint(v4(PEER), 0, 0), flagged(0, Vip::PEER));
        tables.leases.insert(5, 1);
        tables.leases.insert(7, u64::MAX);
        balance(&mut tables, RESTEERER, DEAD, 8, 0);
        balance(&mut tables, KEEPER, HEIR, 6, Vip::KEEP);
        if let Some(dead) = tables.backends.get_mut(&8) {
            dead.flags = Backend::RESOLVED;
        }
        let moving = Slot::new(6, 8, true);
        for vip in [6, 8] {
            tables.rings.insert(vip, vec![moving; RING_SLOTS as usize]);
        }
        let nobody = Slot::new(Slot::NOBODY, Slot::NOBODY, false);
        tables.rings.insert(4, vec![nobody; RING_SLOTS as usize]);
        for vip in [5, 7] {
            let known = V4::client(v4("198.51.100.7"), KNOWN_PORT.to_be(), vip);
            let session = Session {
                backend: vip,
                client_next: 1000,
                server_next: 2000,
                ..Session::default()
            };
            tables.v4.sessions.insert(known, session);
        }
        for (port, epoch) in [(KNOWN_PORT, 0), (KNOWN_PORT + 1, 7)] {
            let session = |backend| Session {
                backend,
                epoch,
                client_next: 1000,
                server_next: 2000,
                ..Session::default()
            };
            tables
                .v4
                .sessions
                .insert(V4::client(v4("198.51.100.7"), port.to_be(), 2), session(2));
            tables
                .v6
                .sessions
                .insert(V6::client(v6("2001:db8:c::7"), port.to_be(), 3), session(3));
        }
        tables.next_hops.insert(
            1,
            NextHop {
                macs: macs(ROUTER_MACS),
                ifindex: WAN,
                mtu: 1500,
                flags: Backend::RESOLVED,
            },
        );
        tables.v4.routes.insert(v4("198.51.100.7"), 1);
        tables.v6.routes.insert(v6("2001:db8:c::7"), 1);
        tables.v4.flows.insert(
            FlowV4 {
                source: v4("192.0.2.53"),
                destination: v4("203.0.113.10"),
                source_port: 53_u16.to_be(),
                destination_port: 40_000_u16.to_be(),
                protocol: 17,
            },
            (NOW / 1_000_000_000) as u32,
        );
        Self { tables }
    }

    pub fn library(&mut self, way: Way, frame: &[u8]) -> Outcome {
        let mut bytes = frame.to_vec();
        let mut workspaces = Workspaces::default();
        let mut memory = MemoryFrame(&mut bytes);
        let verdict = match way {
            Way::In => pipeline::ingress(&mut memory, &mut self.tables, &mut workspaces),
            Way::Out => pipeline::egress(&mut memory, &mut self.tables, &mut workspaces),
        };
        let length = memory.length();
        bytes.truncate(length);
        let reason = verdict.reason.name().to_owned();
        match verdict.action() {
            Action::Pass => Outcome::Pass {
                reason,
                frame: bytes,
            },
            Action::Drop => Outcome::Drop { reason },
            Action::Transmit(_) | Action::Reflect => Outcome::Transmit {
                reason,
                frame: bytes,
            },
        }
    }

    /// The same tables in the kernel.
    pub fn kernel(self, node: &str) -> Kernel {
        let _ = kernel::pinned::detach(node, &kernel::pinned::Which::All);
        let keys = HashKeys(self.tables.hash_keys);
        let mut deployment = Deployment::open(node, keys, Sizes::default())
            .unwrap_or_else(|error| panic!("cannot open maps: {error}"));
        fill(deployment.tables_mut(), &self.tables).expect("the kernel takes the tables");
        deployment
            .prepare(&[Hook {
                id: self.tables.interface,
                interface: "wan".into(),
                device: DEVICE.into(),
                mode: XdpMode::Auto,
            }])
            .unwrap_or_else(|error| panic!("the verifier refuses: {error}"));
        Kernel {
            deployment,
            node: node.to_owned(),
        }
    }
}

impl Kernel {
    pub fn take_ruleset(&mut self, words: &[u64]) {
        self.deployment
            .tables_mut()
            .set_ruleset(words)
            .expect("the kernel takes the ruleset");
    }

    pub fn forget_flows(&mut self) {
        let tables = self.deployment.tables_mut();
        let forgotten = tables
            .flows_v4
            .become_exactly(&HashMap::new())
            .and_then(|()| tables.flows_v6.become_exactly(&HashMap::new()));
        forgotten.expect("the kernel forgets flows");
    }

    pub fn run(&mut self, way: Way, frame: &[u8]) -> Outcome {
        let direction = match way {
            Way::In => Direction::Ingress,
            Way::Out => Direction::Egress,
        };
        let trial = self
            .deployment
            .try_frame("wan", direction, frame)
            .expect("a test run");
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| *reason as u32 == trial.trace.reason)
            .map_or("nothing", Reason::name)
            .to_owned();
        match (way, trial.returned) {
            (Way::In, 2) | (Way::Out, 0) => Outcome::Pass {
                reason,
                frame: trial.frame,
            },
            (Way::In, 1) | (Way::Out, 2) => Outcome::Drop { reason },
            (Way::In, 3 | 4) => Outcome::Transmit {
                reason,
                frame: trial.frame,
            },
            (_, other) => panic!("the program returned {other}"),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = kernel::pinned::detach(&self.node, &kernel::pinned::Which::All);
    }
}

fn fill(tables: &mut kernel::Tables, from: &MemoryTables) -> Result<(), kernel::KernelError> {
    tables.set_ruleset(&from.ruleset)?;
    for (vip, ring) in &from.rings {
        tables.set_ring(*vip, ring.as_slice().try_into().expect("a whole ring"))?;
    }
    for (id, backend) in &from.backends {
        tables.backends.set(*id, *backend)?;
    }
    for (id, hop) in &from.next_hops {
        tables.next_hops.set(*id, *hop)?;
    }
    for (id, set) in &from.sets {
        tables.sets.set(*id, *set)?;
    }
    tables.vips_v4.become_exactly(&from.v4.vips)?;
    tables.vips_v6.become_exactly(&from.v6.vips)?;
    tables.returns_v4.become_exactly(&from.v4.returns)?;
    tables.returns_v6.become_exactly(&from.v6.returns)?;
    let seconds = (kernel::clock::coarse() / 1_000_000_000) as u32;
    let flows = from
        .v4
        .flows
        .keys()
        .map(|flow| {
            let state = abi::FlowState {
                seen: seconds,
                zero: 0,
            };
            (*flow, state)
        })
        .collect();
    tables.flows_v4.become_exactly(&flows)?;
    for (vip, until) in &from.leases {
        tables.leases.set(*vip, *until)?;
    }
    tables.sessions_v4.become_exactly(&from.v4.sessions)?;
    tables.sessions_v6.become_exactly(&from.v6.sessions)?;
    let hosts = from
        .v4
        .hosts
        .keys()
        .map(|member| (*member, Member { expires: u64::MAX }))
        .collect();
    tables.set_hosts_v4.become_exactly(&hosts)?;
    let routes = from
        .v4
        .routes
        .iter()
        .map(|(address, hop)| {
            (
                kernel::Prefix {
                    length: 32,
                    address: *address,
                },
                *hop,
            )
        })
        .collect();
    tables.routes_v4.become_exactly(&routes)?;
    let routes = from
        .v6
        .routes
        .iter()
        .map(|(address, hop)| {
            (
                kernel::Prefix {
                    length: 128,
                    address: *address,
                },
                *hop,
            )
        })
        .collect();
    tables.routes_v6.become_exactly(&routes)
}

/// One vip with one backend, of the same index.
fn balance(tables: &mut MemoryTables, vip: &str, backend: &str, index: u32, flags: u32) {
    let (vip_words, vip_port) = words(vip);
    let (backend_words, backend_port) = words(backend);
    let vip_sum = abi::checksum_words(&vip_words, vip_port);
    let backend_sum = abi::checksum_words(&backend_words, backend_port);
    tables.rings.insert(
        index,
        vec![Slot::new(index, Slot::NOBODY, false); RING_SLOTS as usize],
    );
    tables.backends.insert(
        index,
        Backend {
            address: backend_words,
            port: u32::from(backend_port),
            sum: backend_sum,
            flags: Backend::ALIVE | Backend::RESOLVED,
            ifindex: LAN,
            macs: macs(BACKEND_MACS),
            mtu: 1500,
            epoch: 0,
        },
    );
    let entry = Vip {
        vip: index,
        sum: vip_sum,
        flags,
        zero: 0,
    };
    let back = Return {
        address: vip_words,
        port: u32::from(vip_port),
        sum: vip_sum,
        backend_sum,
        vip: index,
        backend: index,
        flags,
    };
    if vip.starts_with('2') {
        let endpoint = |words: [u32; 4], port| EndpointV4 {
            address: words[0],
            port,
            protocol: 6,
            zero: 0,
        };
        tables.v4.vips.insert(endpoint(vip_words, vip_port), entry);
        tables
            .v4
            .returns
            .insert(endpoint(backend_words, backend_port), back);
    } else {
        let endpoint = |address, port| EndpointV6 {
            address,
            port,
            protocol: 6,
            zero: 0,
        };
        tables.v6.vips.insert(endpoint(vip_words, vip_port), entry);
        tables
            .v6
            .returns
            .insert(endpoint(backend_words, backend_port), back);
    }
}

/// Words of address and port, as the tables hold them.
fn guarded_v4(endpoint: &str) -> EndpointV4 {
    let (address, port) = words(endpoint);
    V4::endpoint(address[0], port, 6)
}

fn flagged(vip: u32, flags: u32) -> Vip {
    Vip {
        vip,
        sum: 0,
        flags,
        zero: 0,
    }
}

fn words(endpoint: &str) -> ([u32; 4], u16) {
    let endpoint = SocketAddr::from_str(endpoint).expect("an endpoint");
    let address = match endpoint.ip() {
        IpAddr::V4(address) => [u32::from_ne_bytes(address.octets()), 0, 0, 0],
        IpAddr::V6(address) => sixteen(address.octets()),
    };
    (address, endpoint.port().to_be())
}

fn sixteen(octets: [u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().expect("four"));
    }
    words
}

pub fn v4(address: &str) -> u32 {
    words(&format!("{address}:0")).0[0]
}

pub fn v6(address: &str) -> [u32; 4] {
    words(&format!("[{address}]:0")).0
}

fn macs((source, destination): ([u8; 6], [u8; 6])) -> [u32; 3] {
    let bytes: Vec<u8> = destination.into_iter().chain(source).collect();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"));
    [word(0), word(4), word(8)]
}

/// A rule of the hand-made policy: denied set or ports, both families.
struct Rule {
    source_set: Option<u32>,
    protocol: Option<u8>,
    ports: Option<(u16, u16)>,
    drop: bool,
}

/// A policy as one leaf per family; the compiler has its own tests.
fn policy() -> Vec<u64> {
    let rule = |protocol, ports| Rule {
        source_set: None,
        protocol: Some(protocol),
        ports: Some(ports),
        drop: false,
    };
    let ingress = [
        Rule {
            source_set: Some(DENIED),
            protocol: None,
            ports: None,
            drop: true,
        },
        rule(6, (22, 22)),
        rule(6, (8080, 8080)),
        rule(6, (1000, 2000)),
        rule(6, (3302, 3309)),
        rule(17, (5000, 5000)),
        rule(1, (8 << 8, 8 << 8 | 255)),
        rule(58, (128 << 8, 128 << 8 | 255)),
        Rule {
            source_set: None,
            protocol: Some(47),
            ports: None,
            drop: false,
        },
    ];
    let egress = [rule(17, (53, 53)), rule(6, (443, 443))];
    let mut words = vec![0; 64];
    words[0] = ruleset::MAGIC;
    for (direction, rules) in [(0, &ingress[..]), (1, &egress[..])] {
        let policy = words.len();
        words[(ruleset::DIRECTORY + INTERFACE * 2 + direction) as usize] = policy as u64;
        words.extend([ruleset::DROP, 0, 0]);
        let actions = words.len();
        for (order, rule) in rules.iter().enumerate() {
            let slot = 100 * u64::from(direction) + order as u64;
            words.extend([u64::from(rule.drop) | slot << 32, 0, 0]);
        }
        for (family, addresses) in [(1, 2), (2, 8)] {
            words[policy + family] = words.len() as u64;
            let root = words.len() + 2;
            words.extend([1, root as u64]);
            words.push(1 | (rules.len() as u64) << 8 | (root as u64 + 1) << 32);
            for (order, rule) in rules.iter().enumerate() {
                words.extend(vec![0; addresses]);
                let (low, high) = rule.ports.unwrap_or((0, 0));
                words.push(
                    u64::from(u16::MAX) << 16 | u64::from(low) << 32 | u64::from(high - low) << 48,
                );
                let mut rest = rule
                    .protocol
                    .map_or(0, |protocol| u64::from(protocol) | 0xff00);
                rest |= rule.source_set.map_or(0, |set| u64::from(set + 1) << 32);
                if rule.ports.is_some() {
                    rest |= ruleset::NEEDS_PORTS;
                }
                words.push(rest);
                words.push(order as u64 | ((actions + 3 * order) as u64) << 32);
            }
        }
    }
    words
}
