//! The packet path's tables in ordinary memory, for tests.

extern crate std;

use core::{cell::Cell, hash::Hash};
use std::{collections::HashMap, vec::Vec};

use crate::{
    abi::{
        Backend, FirstFragment, HASH_KEYS, NextHop, Remembered, Return, Session, SetInfo, Slot,
        Trace, Vip,
    },
    family::{Family, V4, V6},
    tables::{Direction, Route, Ruleset, Tables, TablesOf, Way},
    verdict::Reason,
};

/// All tables of a node, as the kernel's maps hold them.
#[derive(Debug, Default)]
pub struct MemoryTables {
    pub ruleset: Vec<u64>,
    pub interface: u32,
    pub device: u32,
    pub leases: HashMap<u32, u64>,
    pub hash_keys: [u64; HASH_KEYS],
    /// Nanoseconds.
    pub now: u64,
    pub rings: HashMap<u32, Vec<Slot>>,
    pub backends: HashMap<u32, Backend>,
    pub next_hops: HashMap<u32, NextHop>,
    pub sets: HashMap<u32, SetInfo>,
    pub v4: FamilyTables<V4>,
    pub v6: FamilyTables<V6>,
    pub rule_buckets: HashMap<u32, u64>,
    pub rule_packets: HashMap<u32, u64>,
    pub verdicts: HashMap<(u32, u32), u64>,
    pub connections: HashMap<u32, u64>,
    pub trace: Trace,
    /// Steps that the last walk over the rules took.
    pub steps: Cell<u32>,
}

#[derive(Debug)]
pub struct FamilyTables<F: Family> {
    pub vips: HashMap<F::Endpoint, Vip>,
    pub returns: HashMap<F::Endpoint, Return>,
    pub local: Vec<F::Address>,
    /// Exact destinations; everything else has no index.
    pub routes: HashMap<F::Address, u32>,
    /// What the kernel would say of everything without an index.
    pub kernel_route: Option<NextHop>,
    pub wanted: Vec<F::Address>,
    pub remembered: HashMap<F::Client, Remembered>,
    pub sessions: HashMap<F::Client, Session>,
    pub flows: HashMap<F::Flow, u32>,
    pub fragments: HashMap<F::Datagram, FirstFragment>,
    /// Network, mask of the network's bits, mask of sets; longest first.
    pub prefixes: Vec<(F::Address, F::Address, u64)>,
    pub hosts: HashMap<F::Member, ()>,
    pub jail: HashMap<F::Member, u64>,
    pub buckets: HashMap<F::Bucket, u64>,
}

impl<F: Family> Default for FamilyTables<F> {
    fn default() -> Self {
        Self {
            vips: HashMap::new(),
            returns: HashMap::new(),
            local: Vec::new(),
            routes: HashMap::new(),
            kernel_route: None,
            wanted: Vec::new(),
            remembered: HashMap::new(),
            sessions: HashMap::new(),
            flows: HashMap::new(),
            fragments: HashMap::new(),
            prefixes: Vec::new(),
            hosts: HashMap::new(),
            jail: HashMap::new(),
            buckets: HashMap::new(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(&'a [u64]);

impl Ruleset for Words<'_> {
    fn words<const N: usize>(&self, at: u32) -> Option<&[u64; N]> {
        let at = at as usize;
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

impl Tables for MemoryTables {
    type Ruleset<'a> = Words<'a>;

    fn ruleset(&self) -> Option<Words<'_>> {
        (!self.ruleset.is_empty()).then_some(Words(&self.ruleset))
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn device(&self) -> u32 {
        self.device
    }

    fn lease(&self, vip: u32) -> u64 {
        self.leases.get(&vip).copied().unwrap_or(0)
    }

    fn hash_key(&self, index: usize) -> u64 {
        self.hash_keys.get(index).copied().unwrap_or(0)
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn ring_slot(&self, vip: u32, slot: u32) -> Option<Slot> {
        self.rings.get(&vip)?.get(slot as usize).copied()
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(&id)
    }

    fn next_hop(&self, id: u32) -> Option<&NextHop> {
        self.next_hops.get(&id)
    }

    fn set(&self, id: u32) -> Option<&SetInfo> {
        self.sets.get(&id)
    }

    fn repeat(&self, times: u32, mut step: impl FnMut() -> bool) {
        let taken = (0..times).take_while(|_| step()).count();
        self.steps.set(taken as u32);
    }

    fn bucket_of_rule(&mut self, rule: u32, update: impl FnOnce(u64) -> u64) {
        replace(&mut self.rule_buckets, rule, update);
    }

    fn count_rule(&mut self, rule: u32, _bytes: u32) {
        *self.rule_packets.entry(rule).or_default() += 1;
    }

    fn count_verdict(&mut self, direction: Direction, reason: Reason, _bytes: u32) {
        *self
            .verdicts
            .entry((direction as u32, reason as u32))
            .or_default() += 1;
    }

    fn count_balanced(&mut self, backend: u32, way: Way, _bytes: u32) {
        if way == (Way::ToBackend { opens: true }) {
            *self.connections.entry(backend).or_default() += 1;
        }
    }

    fn trace(&mut self, note: impl FnOnce(&mut Trace)) {
        note(&mut self.trace);
    }
}

fn replace<K: Eq + Hash>(buckets: &mut HashMap<K, u64>, key: K, update: impl FnOnce(u64) -> u64) {
    let bucket = buckets.entry(key).or_default();
    *bucket = update(*bucket);
}

/// Both families' tables are alike; only the field differs.
macro_rules! tables_of {
    ($family:ident, $field:ident, $covers:expr) => {
        impl TablesOf<$family> for MemoryTables {
            fn vip(&self, endpoint: &<$family as Family>::Endpoint) -> Option<&Vip> {
                self.$field.vips.get(endpoint)
            }

            fn backend_return(&self, endpoint: &<$family as Family>::Endpoint) -> Option<&Return> {
                self.$field.returns.get(endpoint)
            }

            fn is_local(&self, address: <$family as Family>::Address) -> bool {
                self.$field.local.contains(&address)
            }

            fn route(&self, destination: <$family as Family>::Address) -> u32 {
                self.$field.routes.get(&destination).copied().unwrap_or(0)
            }

            fn kernel_route(
                &self,
                _source: <$family as Family>::Address,
                _destination: <$family as Family>::Address,
            ) -> Route {
                self.$field.kernel_route.map_or(Route::None, Route::Via)
            }

            fn want(&mut self, address: <$family as Family>::Address) {
                self.$field.wanted.push(address);
            }

            fn remembered(&self, client: &<$family as Family>::Client) -> Option<Remembered> {
                self.$field.remembered.get(client).copied()
            }

            fn remember(&mut self, client: &<$family as Family>::Client, remembered: Remembered) {
                self.$field.remembered.insert(*client, remembered);
            }

            fn with_session<R>(
                &mut self,
                client: &<$family as Family>::Client,
                follow: impl FnOnce(&mut Session) -> R,
            ) -> Option<R> {
                self.$field.sessions.get_mut(client).map(follow)
            }

            fn begin_session(&mut self, client: &<$family as Family>::Client, session: Session) {
                self.$field.sessions.insert(*client, session);
            }

            fn flow(&self, flow: &<$family as Family>::Flow) -> Option<u32> {
                self.$field.flows.get(flow).copied()
            }

            fn note_flow(&mut self, flow: &<$family as Family>::Flow, seconds: u32) {
                self.$field.flows.insert(*flow, seconds);
            }

            fn first_fragment(
                &self,
                datagram: &<$family as Family>::Datagram,
            ) -> Option<FirstFragment> {
                self.$field.fragments.get(datagram).copied()
            }

            fn note_first_fragment(
                &mut self,
                datagram: &<$family as Family>::Datagram,
                first: FirstFragment,
            ) {
                self.$field.fragments.insert(*datagram, first);
            }

            fn sets_around(&self, address: <$family as Family>::Address) -> u64 {
                self.$field
                    .prefixes
                    .iter()
                    .find(|(network, mask, _)| $covers(address, *network, *mask))
                    .map_or(0, |(_, _, sets)| *sets)
            }

            fn is_host_of_set(&self, member: &<$family as Family>::Member) -> bool {
                self.$field.hosts.contains_key(member)
            }

            fn timed_member(&self, member: &<$family as Family>::Member) -> Option<u64> {
                self.$field.jail.get(member).copied()
            }

            fn add_timed_member(&mut self, member: &<$family as Family>::Member, expires: u64) {
                self.$field.jail.insert(*member, expires);
            }

            fn bucket_of_source(
                &mut self,
                bucket: &<$family as Family>::Bucket,
                update: impl FnOnce(u64) -> u64,
            ) {
                replace(&mut self.$field.buckets, *bucket, update);
            }
        }
    };
}

tables_of!(V4, v4, |address: u32, network: u32, mask: u32| (address
    ^ network)
    & mask
    == 0);
tables_of!(V6, v6, |address: [u32; 4],
                    network: [u32; 4],
                    mask: [u32; 4]| {
    address
        .iter()
        .zip(network)
        .zip(mask)
        .all(|((word, network), mask)| (word ^ network) & mask == 0)
});
