//! The maps, typed: what may be read of and written to each.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    os::fd::AsFd as _,
    path::Path,
};

use aya::maps::{self, IterableMap as _, Map, MapData, MapError, PerCpuValues, lpm_trie};
use foobar_ebpf::abi::{
    self, Backend, ClientV4, ClientV6, EndpointV4, EndpointV6, Label, LabelKey, Member, MemberV4,
    MemberV6, NextHop, Remembered, Return, Session, SetInfo, Tally, Trace, Traffic, Vip, map,
    ruleset,
};
use foobar_ebpf::verdict::Reason;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{KernelError, batch, error::errno, plain::Plain};

/// What a key or value of a map must be.
pub trait Field: FromBytes + IntoBytes + Immutable + Copy + fmt::Debug + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + fmt::Debug + 'static> Field for T {}

/// A table of keys and values that user space fills.
pub trait Table {
    type Key: Copy + fmt::Debug + Eq + Hash;
    type Value: Field + PartialEq;

    fn name(&self) -> &'static str;

    /// # Errors
    /// When the kernel refuses.
    fn contents(&self) -> Result<HashMap<Self::Key, Self::Value>, KernelError>;

    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// [`KernelError::Full`], or when the kernel refuses.
    fn insert(&mut self, key: Self::Key, value: Self::Value) -> Result<(), KernelError>;

    /// Removes an entry; an absent one is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove(&mut self, key: Self::Key) -> Result<(), KernelError>;

    /// What would make the table hold `desired` and nothing else.
    ///
    /// # Errors
    /// When the kernel refuses to be read.
    fn difference(
        &self,
        desired: &HashMap<Self::Key, Self::Value>,
    ) -> Result<Difference<Self::Key, Self::Value>, KernelError> {
        Ok(Difference::between(&self.contents()?, desired))
    }

    /// Adds and replaces first, removes last.
    ///
    /// # Errors
    /// As [`Self::insert`] and [`Self::remove`].
    fn become_exactly(
        &mut self,
        desired: &HashMap<Self::Key, Self::Value>,
    ) -> Result<(), KernelError> {
        let difference = self.difference(desired)?;
        for (key, value) in difference.upserts {
            self.insert(key, value)?;
        }
        for key in difference.removals {
            self.remove(key)?;
        }
        Ok(())
    }
}

/// The way from a table's contents to the desired ones.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference<K, V> {
    pub upserts: Vec<(K, V)>,
    pub removals: Vec<K>,
}

impl<K: Copy + Eq + Hash, V: Copy + PartialEq> Difference<K, V> {
    #[must_use]
    pub fn between(present: &HashMap<K, V>, desired: &HashMap<K, V>) -> Self {
        Self {
            upserts: desired
                .iter()
                .filter(|(key, value)| present.get(key) != Some(value))
                .map(|(key, value)| (*key, *value))
                .collect(),
            removals: present
                .keys()
                .filter(|key| !desired.contains_key(key))
                .copied()
                .collect(),
        }
    }
}

/// A hash map, LRU or not.
#[derive(Debug)]
pub struct HashTable<K, V> {
    name: &'static str,
    max: u32,
    map: maps::HashMap<MapData, Plain<K>, Plain<V>>,
}

impl<K: Field + Eq + Hash, V: Field + PartialEq> HashTable<K, V> {
    fn open(directory: &Path, name: &'static str) -> Result<Self, KernelError> {
        let (map, max) = open(directory, name)?;
        let map = map
            .try_into()
            .map_err(|error| KernelError::map("open", name, error))?;
        Ok(Self { name, max, map })
    }

    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self, key: K) -> Result<Option<V>, KernelError> {
        match self.map.get(&Plain(key), 0) {
            Ok(Plain(value)) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(KernelError::map("read", self.name, error)),
        }
    }

    #[must_use]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// # Errors
    /// When the kernel refuses to be read.
    pub fn count(&self) -> Result<u64, KernelError> {
        let sizes = (size_of::<K>(), size_of::<V>());
        count(self.name, self.max, self.map.map(), sizes)
    }

    /// As [`Table::contents`], in few system calls.
    ///
    /// # Errors
    /// When the kernel refuses to be read.
    pub fn contents_at_once(&self) -> Result<Vec<(K, V)>, KernelError> {
        self.read_at_once(|key, value| (key, *value))
    }

    fn read_at_once<T>(&self, read: impl FnMut(K, &V) -> T) -> Result<Vec<T>, KernelError> {
        batch::of_hash(self.map.map().fd().as_fd(), self.max, read)
            .map_err(|error| KernelError::map("read", self.name, error.into()))
    }

    /// Removes the entries that `unwanted` says.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(&mut self, unwanted: impl Fn(&K, &V) -> bool) -> Result<(), KernelError> {
        self.contents()?
            .into_iter()
            .filter(|(key, value)| unwanted(key, value))
            .try_for_each(|(key, _)| self.remove(key))
    }

    fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
        old.contents()?
            .into_iter()
            .try_for_each(|(key, value)| self.insert(key, value))
    }
}

impl<K: Field + Eq + Hash, V: Field + PartialEq> Table for HashTable<K, V> {
    type Key = K;
    type Value = V;

    fn name(&self) -> &'static str {
        self.name
    }

    fn contents(&self) -> Result<HashMap<K, V>, KernelError> {
        self.map
            .iter()
            .take(bound(self.max))
            .map(|entry| entry.map(|(Plain(key), Plain(value))| (key, value)))
            .collect::<Result<_, _>>()
            .map_err(|error| KernelError::map("read", self.name, error))
    }

    fn insert(&mut self, key: K, value: V) -> Result<(), KernelError> {
        self.map
            .insert(Plain(key), Plain(value), 0)
            .map_err(|error| refused(self.name, self.max, error))
    }

    fn remove(&mut self, key: K) -> Result<(), KernelError> {
        absent_is_fine(self.name, self.map.remove(&Plain(key)))
    }
}

/// Key of a [`PrefixTable`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Prefix<A> {
    pub length: u32,
    /// The network's bytes.
    pub address: A,
}

/// A longest-prefix-match trie.
#[derive(Debug)]
pub struct PrefixTable<A, V> {
    name: &'static str,
    max: u32,
    map: maps::LpmTrie<MapData, Plain<A>, Plain<V>>,
}

impl<A: Field + Eq + Hash, V: Field + PartialEq> PrefixTable<A, V> {
    fn open(directory: &Path, name: &'static str) -> Result<Self, KernelError> {
        let (map, max) = open(directory, name)?;
        let map = map
            .try_into()
            .map_err(|error| KernelError::map("open", name, error))?;
        Ok(Self { name, max, map })
    }

    #[must_use]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// # Errors
    /// When the kernel refuses to be read.
    pub fn count(&self) -> Result<u64, KernelError> {
        let sizes = (size_of::<u32>() + size_of::<A>(), size_of::<V>());
        count(self.name, self.max, self.map.map(), sizes)
    }

    fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
        old.contents()?
            .into_iter()
            .try_for_each(|(key, value)| self.insert(key, value))
    }

    fn key(prefix: Prefix<A>) -> lpm_trie::Key<Plain<A>> {
        lpm_trie::Key::new(prefix.length, Plain(prefix.address))
    }
}

impl<A: Field + Eq + Hash, V: Field + PartialEq> Table for PrefixTable<A, V> {
    type Key = Prefix<A>;
    type Value = V;

    fn name(&self) -> &'static str {
        self.name
    }

    fn contents(&self) -> Result<HashMap<Prefix<A>, V>, KernelError> {
        self.map
            .iter()
            .take(bound(self.max))
            .map(|entry| {
                entry.map(|(key, Plain(value))| {
                    let prefix = Prefix {
                        length: key.prefix_len(),
                        address: key.data().0,
                    };
                    (prefix, value)
                })
            })
            .collect::<Result<_, _>>()
            .map_err(|error| KernelError::map("read", self.name, error))
    }

    fn insert(&mut self, key: Prefix<A>, value: V) -> Result<(), KernelError> {
        self.map
            .insert(&Self::key(key), Plain(value), 0)
            .map_err(|error| refused(self.name, self.max, error))
    }

    fn remove(&mut self, key: Prefix<A>) -> Result<(), KernelError> {
        absent_is_fine(self.name, self.map.remove(&Self::key(key)))
    }
}

/// An array, addressed by dense ids.
pub struct ArrayTable<V: Field> {
    name: &'static str,
    map: maps::Array<MapData, Plain<V>>,
}

impl<V: Field + PartialEq> ArrayTable<V> {
    pub(super) fn open(directory: &Path, name: &'static str) -> Result<Self, KernelError> {
        let map = open(directory, name)?
            .0
            .try_into()
            .map_err(|error| KernelError::map("open", name, error))?;
        Ok(Self { name, map })
    }

    /// # Errors
    /// When the kernel refuses, or `index` is out of bounds.
    pub fn get(&self, index: u32) -> Result<V, KernelError> {
        self.map
            .get(&index, 0)
            .map(|Plain(value)| value)
            .map_err(|error| KernelError::map("read", self.name, error))
    }

    /// # Errors
    /// When the kernel refuses, or `index` is out of bounds.
    pub fn set(&mut self, index: u32, value: V) -> Result<(), KernelError> {
        self.map
            .set(index, Plain(value), 0)
            .map_err(|error| KernelError::map("write", self.name, error))
    }

    fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
        (0..old.map.len()).try_for_each(|index| self.set(index, old.get(index)?))
    }
}

impl<V: Field> fmt::Debug for ArrayTable<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ArrayTable({})", self.name)
    }
}

/// Per-CPU counters, read as their sum.
pub struct CounterTable<V: Field> {
    name: &'static str,
    map: maps::PerCpuArray<MapData, Plain<V>>,
}

impl<V: Field + Default + Sum> CounterTable<V> {
    pub(super) fn open(directory: &Path, name: &'static str) -> Result<Self, KernelError> {
        let map = open(directory, name)?
            .0
            .try_into()
            .map_err(|error| KernelError::map("open", name, error))?;
        Ok(Self { name, map })
    }

    /// # Errors
    /// When the kernel refuses, or `index` is out of bounds.
    pub fn get(&self, index: u32) -> Result<V, KernelError> {
        let values = self
            .map
            .get(&index, 0)
            .map_err(|error| KernelError::map("read", self.name, error))?;
        Ok(values
            .iter()
            .fold(V::default(), |sum, Plain(value)| sum.plus(*value)))
    }

    /// The first `count` counters, in few system calls.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn first(&self, count: u32) -> Result<Vec<V>, KernelError> {
        let failed = |error: MapError| KernelError::map("read", self.name, error);
        let processors =
            aya::util::nr_cpus().map_err(|(_, source)| failed(MapError::from(source)))?;
        let count = count.min(self.map.len());
        let sum = |values: &[V]| {
            values
                .iter()
                .fold(V::default(), |sum, value| sum.plus(*value))
        };
        batch::of_processors(self.map.map().fd().as_fd(), count, processors, sum)
            .map_err(|error| failed(error.into()))
    }

    /// Sets the counter of a recycled id to zero.
    ///
    /// # Errors
    /// When the kernel refuses, or `index` is out of bounds.
    pub fn reset(&mut self, index: u32) -> Result<(), KernelError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| {
            KernelError::map("count the processors for", self.name, source.into())
        })?;
        PerCpuValues::try_from(vec![Plain(V::default()); cpus])
            .map_err(MapError::from)
            .and_then(|zeros| self.map.set(index, zeros, 0))
            .map_err(|error| KernelError::map("reset", self.name, error))
    }

    /// # Errors
    /// When the kernel refuses, or `index` is out of bounds.
    pub fn add(&mut self, index: u32, more: V) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("add to", self.name, error);
        let mut values = self.map.get(&index, 0).map_err(failed)?.to_vec();
        if let Some(Plain(value)) = values.first_mut() {
            *value = value.plus(more);
        }
        PerCpuValues::try_from(values)
            .map_err(MapError::from)
            .and_then(|values| self.map.set(index, values, 0))
            .map_err(failed)
    }

    fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("copy", self.name, error);
        for index in 0..old.map.len() {
            let values = old.map.get(&index, 0).map_err(failed)?;
            self.map.set(index, values, 0).map_err(failed)?;
        }
        Ok(())
    }
}

impl<V: Field> fmt::Debug for CounterTable<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CounterTable({})", self.name)
    }
}

/// What the processors counted, added up.
pub trait Sum {
    #[must_use]
    fn plus(self, other: Self) -> Self;
}

impl Sum for Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

impl Sum for Traffic {
    fn plus(self, other: Self) -> Self {
        Self {
            packets_in: self.packets_in.wrapping_add(other.packets_in),
            bytes_in: self.bytes_in.wrapping_add(other.bytes_in),
            packets_out: self.packets_out.wrapping_add(other.packets_out),
            bytes_out: self.bytes_out.wrapping_add(other.bytes_out),
            connections: self.connections.wrapping_add(other.connections),
        }
    }
}

const RULESET_WORDS: usize = ruleset::WORDS as usize;
const RING_SLOTS: usize = abi::RING_SLOTS as usize;
type RulesetMap = maps::Array<MapData, [u64; RULESET_WORDS]>;
type RingMap = maps::Array<MapData, [u32; RING_SLOTS]>;

/// All maps of a node that user space touches.
#[derive(Debug)]
pub struct Tables {
    pub vips_v4: HashTable<EndpointV4, Vip>,
    pub vips_v6: HashTable<EndpointV6, Vip>,
    pub returns_v4: HashTable<EndpointV4, Return>,
    pub returns_v6: HashTable<EndpointV6, Return>,
    pub backends: ArrayTable<Backend>,
    pub local_v4: HashTable<u32, u32>,
    pub local_v6: HashTable<[u32; 4], u32>,
    pub routes_v4: PrefixTable<u32, u32>,
    pub routes_v6: PrefixTable<[u32; 4], u32>,
    pub next_hops: ArrayTable<NextHop>,
    pub wanted_v4: HashTable<u32, u32>,
    pub wanted_v6: HashTable<[u32; 4], u32>,
    pub remembered_v4: HashTable<ClientV4, Remembered>,
    pub remembered_v6: HashTable<ClientV6, Remembered>,
    pub sessions_v4: HashTable<ClientV4, Session>,
    pub sessions_v6: HashTable<ClientV6, Session>,
    pub leases: ArrayTable<u64>,
    pub(super) emissions: ArrayTable<abi::Emission>,
    pub(super) emitted: ArrayTable<u32>,
    pub flows_v4: HashTable<abi::FlowV4, abi::FlowState>,
    pub flows_v6: HashTable<abi::FlowV6, abi::FlowState>,
    pub fragments_v4: HashTable<abi::DatagramV4, abi::FirstFragment>,
    pub fragments_v6: HashTable<abi::DatagramV6, abi::FirstFragment>,
    pub sets: ArrayTable<SetInfo>,
    pub set_prefixes_v4: PrefixTable<u32, [u32; 2]>,
    pub set_prefixes_v6: PrefixTable<[u32; 4], [u32; 2]>,
    pub set_hosts_v4: HashTable<MemberV4, Member>,
    pub set_hosts_v6: HashTable<MemberV6, Member>,
    pub jail_v4: HashTable<MemberV4, Member>,
    pub jail_v6: HashTable<MemberV6, Member>,
    pub buckets_v4: HashTable<abi::BucketV4, abi::Bucket>,
    pub buckets_v6: HashTable<abi::BucketV6, abi::Bucket>,
    pub buckets_rule: ArrayTable<abi::Bucket>,
    pub reasons: CounterTable<Tally>,
    pub rules: CounterTable<Tally>,
    pub vip_traffic: CounterTable<Traffic>,
    pub backend_traffic: CounterTable<Traffic>,
    pub labels: HashTable<LabelKey, Label>,
    pub(super) trace: ArrayTable<Trace>,
    ruleset: maps::ArrayOfMaps<MapData, RulesetMap>,
    rings: maps::ArrayOfMaps<MapData, RingMap>,
}

impl Tables {
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            vips_v4: HashTable::open(directory, map::VIPS_V4)?,
            vips_v6: HashTable::open(directory, map::VIPS_V6)?,
            returns_v4: HashTable::open(directory, map::RETURNS_V4)?,
            returns_v6: HashTable::open(directory, map::RETURNS_V6)?,
            backends: ArrayTable::open(directory, map::BACKENDS)?,
            local_v4: HashTable::open(directory, map::LOCAL_V4)?,
            local_v6: HashTable::open(directory, map::LOCAL_V6)?,
            routes_v4: PrefixTable::open(directory, map::ROUTES_V4)?,
            routes_v6: PrefixTable::open(directory, map::ROUTES_V6)?,
            next_hops: ArrayTable::open(directory, map::NEXT_HOPS)?,
            wanted_v4: HashTable::open(directory, map::WANTED_V4)?,
            wanted_v6: HashTable::open(directory, map::WANTED_V6)?,
            remembered_v4: HashTable::open(directory, map::REMEMBERED_V4)?,
            remembered_v6: HashTable::open(directory, map::REMEMBERED_V6)?,
            sessions_v4: HashTable::open(directory, map::SESSIONS_V4)?,
            sessions_v6: HashTable::open(directory, map::SESSIONS_V6)?,
            leases: ArrayTable::open(directory, map::LEASES)?,
            emissions: ArrayTable::open(directory, map::EMISSIONS)?,
            emitted: ArrayTable::open(directory, map::EMITTED)?,
            flows_v4: HashTable::open(directory, map::FLOWS_V4)?,
            flows_v6: HashTable::open(directory, map::FLOWS_V6)?,
            fragments_v4: HashTable::open(directory, map::FRAGMENTS_V4)?,
            fragments_v6: HashTable::open(directory, map::FRAGMENTS_V6)?,
            sets: ArrayTable::open(directory, map::SETS)?,
            set_prefixes_v4: PrefixTable::open(directory, map::SET_PREFIXES_V4)?,
            set_prefixes_v6: PrefixTable::open(directory, map::SET_PREFIXES_V6)?,
            set_hosts_v4: HashTable::open(directory, map::SET_HOSTS_V4)?,
            set_hosts_v6: HashTable::open(directory, map::SET_HOSTS_V6)?,
            jail_v4: HashTable::open(directory, map::JAIL_V4)?,
            jail_v6: HashTable::open(directory, map::JAIL_V6)?,
            buckets_v4: HashTable::open(directory, map::BUCKETS_V4)?,
            buckets_v6: HashTable::open(directory, map::BUCKETS_V6)?,
            buckets_rule: ArrayTable::open(directory, map::BUCKETS_RULE)?,
            reasons: CounterTable::open(directory, map::REASONS)?,
            rules: CounterTable::open(directory, map::RULES)?,
            vip_traffic: CounterTable::open(directory, map::VIP_TRAFFIC)?,
            backend_traffic: CounterTable::open(directory, map::BACKEND_TRAFFIC)?,
            labels: HashTable::open(directory, map::LABELS)?,
            trace: ArrayTable::open(directory, map::TRACE)?,
            ruleset: open(directory, map::RULESET)?
                .0
                .try_into()
                .map_err(|error| KernelError::map("open", map::RULESET, error))?,
            rings: open(directory, map::RINGS)?
                .0
                .try_into()
                .map_err(|error| KernelError::map("open", map::RINGS, error))?,
        })
    }

    /// Swaps the whole ruleset: each packet sees the old one or this one.
    ///
    /// # Errors
    /// When the kernel refuses; the old one stays.
    pub fn set_ruleset(&mut self, words: &[u64]) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("swap", map::RULESET, error);
        let mut inner = RulesetMap::create(1, 0).map_err(failed)?;
        let mut whole = words.to_vec();
        whole.resize(RULESET_WORDS, 0);
        let whole: &[u64; RULESET_WORDS] =
            whole.as_slice().try_into().map_err(|_| KernelError::Full {
                map: map::RULESET,
                max: ruleset::WORDS,
            })?;
        inner.set(0, whole, 0).map_err(failed)?;
        self.ruleset.set(0, &inner, 0).map_err(failed)
    }

    /// Swaps the whole ring of a vip: each packet sees the old one or this one.
    ///
    /// # Errors
    /// When the kernel refuses; the old one stays.
    pub fn set_ring(
        &mut self,
        vip: u32,
        slots: &[abi::Slot; RING_SLOTS],
    ) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("swap", map::RINGS, error);
        let mut inner = RingMap::create(1, 0).map_err(failed)?;
        inner.set(0, slots.map(|slot| slot.0), 0).map_err(failed)?;
        self.rings.set(vip, &inner, 0).map_err(failed)
    }

    /// The ring of a vip, `None` where it never had one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ring(&self, vip: u32) -> Result<Option<Box<[abi::Slot; RING_SLOTS]>>, KernelError> {
        let inner = match self.rings.get(&vip, 0) {
            Ok(inner) => inner,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(KernelError::map("read", map::RINGS, error)),
        };
        inner
            .get(&0, 0)
            .map(|slots| Some(Box::new(slots.map(abi::Slot))))
            .map_err(|error| KernelError::map("read", map::RINGS, error))
    }

    /// Takes over all that `old` holds but the ruleset, for tables of the same layout and other sizes.
    pub(super) fn inherit(&mut self, old: &Self) -> Result<(), KernelError> {
        macro_rules! copy {
            ($($table:ident),+ $(,)?) => { $(self.$table.copy(&old.$table)?;)+ };
        }
        copy![
            labels,
            backends,
            next_hops,
            sets,
            returns_v4,
            returns_v6,
            local_v4,
            local_v6,
            routes_v4,
            routes_v6,
            remembered_v4,
            remembered_v6,
            sessions_v4,
            sessions_v6,
            leases,
            flows_v4,
            flows_v6,
            fragments_v4,
            fragments_v6,
            set_prefixes_v4,
            set_prefixes_v6,
            set_hosts_v4,
            set_hosts_v6,
            jail_v4,
            jail_v6,
            buckets_v4,
            buckets_v6,
            buckets_rule,
            reasons,
            rules,
            vip_traffic,
            backend_traffic,
        ];
        for vip in 0..self.rings.len() {
            if let Some(slots) = old.ring(vip)? {
                self.set_ring(vip, &slots)?;
            }
        }
        self.vips_v4.copy(&old.vips_v4)?;
        self.vips_v6.copy(&old.vips_v6)
    }

    /// How many flows of each vip are remembered, IPv4 and IPv6 together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remembered_flows(&self) -> Result<HashMap<u32, Vec<Remembered>>, KernelError> {
        let mut flows: HashMap<u32, Vec<Remembered>> = HashMap::new();
        for (client, remembered) in self.remembered_v4.contents()? {
            flows.entry(client.vip.into()).or_default().push(remembered);
        }
        for (client, remembered) in self.remembered_v6.contents()? {
            flows.entry(client.vip.into()).or_default().push(remembered);
        }
        Ok(flows)
    }

    /// The names of the dense ids.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn label_texts(&self) -> Result<HashMap<LabelKey, String>, KernelError> {
        let texts = self
            .labels
            .read_at_once(|key, label| (key, label_text(label)))?;
        Ok(texts.into_iter().collect())
    }

    /// Books what a backend counted to its vip, for the vip's counters never fall.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bequeath(&mut self, backend: u32, vip: u32) -> Result<(), KernelError> {
        let counted = self.backend_traffic.get(backend)?;
        self.vip_traffic.add(vip, counted)?;
        self.backend_traffic.reset(backend)
    }

    /// Clears all that is kept under ids which are about to name something else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn recycle(&mut self, ids: &HashSet<LabelKey>) -> Result<(), KernelError> {
        for LabelKey { kind, id } in ids.iter().copied() {
            match kind {
                LabelKey::RULE => {
                    self.rules.reset(id)?;
                    self.buckets_rule.set(
                        id,
                        abi::Bucket {
                            theoretical_arrival: 0,
                        },
                    )?;
                }
                LabelKey::VIP => {
                    self.vip_traffic.reset(id)?;
                    self.leases.set(id, 0)?;
                }
                LabelKey::BACKEND => self.backend_traffic.reset(id)?,
                LabelKey::INTERFACE => {
                    let first = id * 2 * Reason::SLOTS;
                    (first..first + 2 * Reason::SLOTS)
                        .try_for_each(|slot| self.reasons.reset(slot))?;
                }
                _ => {}
            }
        }
        let recycled = |kind, id| ids.contains(&LabelKey { kind, id });
        if ids.iter().any(|key| key.kind == LabelKey::RULE) {
            let of_rule = |rule| recycled(LabelKey::RULE, rule);
            self.buckets_v4.forget(|key, _| of_rule(key.rule))?;
            self.buckets_v6.forget(|key, _| of_rule(key.rule))?;
        }
        if ids.iter().any(|key| key.kind == LabelKey::SET) {
            let of_set = |set| recycled(LabelKey::SET, set);
            self.jail_v4.forget(|key, _| of_set(key.set))?;
            self.jail_v6.forget(|key, _| of_set(key.set))?;
        }
        if ids
            .iter()
            .any(|key| [LabelKey::VIP, LabelKey::BACKEND].contains(&key.kind))
        {
            let of_either = |vip: u16, backend| {
                recycled(LabelKey::VIP, vip.into()) || recycled(LabelKey::BACKEND, backend)
            };
            self.remembered_v4
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
            self.remembered_v6
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
            self.sessions_v4
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
            self.sessions_v6
                .forget(|key, flow| of_either(key.vip, flow.backend))?;
        }
        Ok(())
    }

    /// # Errors
    /// When the kernel refuses.
    pub fn set_label(&mut self, key: LabelKey, text: &str) -> Result<(), KernelError> {
        self.labels.insert(key, label(text))
    }
}

/// Text as a label's value; cut at a character's boundary where it is longer.
#[must_use]
pub fn label(text: &str) -> Label {
    let mut label = Label { text: [0; 96] };
    let mut end = text.len().min(label.text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    label.text[..end].copy_from_slice(&text.as_bytes()[..end]);
    label
}

fn label_text(label: &Label) -> String {
    let end = label
        .text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(label.text.len());
    String::from_utf8_lossy(&label.text[..end]).into_owned()
}

fn open(directory: &Path, name: &'static str) -> Result<(Map, u32), KernelError> {
    let failed = |error| KernelError::map("open", name, error);
    let data = MapData::from_pin(directory.join(name)).map_err(failed)?;
    let max = data.info().map_err(failed)?.max_entries();
    Ok((Map::from_map_data(data).map_err(failed)?, max))
}

/// A table that the packet path changes meanwhile may make an iteration start again; this ends it.
fn bound(max: u32) -> usize {
    max as usize * 2
}

fn count(
    name: &'static str,
    max: u32,
    map: &MapData,
    (key, value): (usize, usize),
) -> Result<u64, KernelError> {
    batch::count(map.fd().as_fd(), max, key, value.next_multiple_of(8))
        .map_err(|error| KernelError::map("count", name, error.into()))
}

fn refused(name: &'static str, max: u32, error: MapError) -> KernelError {
    match errno(&error) {
        Some(libc::E2BIG | libc::ENOSPC) => KernelError::Full { map: name, max },
        _ => KernelError::map("write", name, error),
    }
}

fn absent_is_fine(name: &'static str, result: Result<(), MapError>) -> Result<(), KernelError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(KernelError::map("remove from", name, error)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_what_to_write_and_what_to_remove() {
        let present = HashMap::from([(1, 10), (2, 20), (3, 30)]);
        let desired = HashMap::from([(1, 10), (2, 21), (4, 40)]);
        let mut difference = Difference::between(&present, &desired);
        difference.upserts.sort_unstable();
        assert_eq!(difference.upserts, [(2, 21), (4, 40)]);
        assert_eq!(difference.removals, [3]);
    }

    #[test]
    fn a_label_comes_back_as_it_was_written() {
        assert_eq!(label_text(&label("edge/web")), "edge/web");
        assert_eq!(label_text(&label("")), "");
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        let text = "ä".repeat(60);
        assert_eq!(label_text(&label(&text)), "ä".repeat(48));
        let odd = format!("x{}", "ä".repeat(60));
        assert_eq!(label_text(&label(&odd)), format!("x{}", "ä".repeat(47)));
    }
}
