//! The kinds of maps, typed: what may be read of and written to each.

use std::{collections::HashMap, fmt, hash::Hash, os::fd::AsFd as _, path::Path};

use aya::maps::{self, IterableMap as _, Map, MapData, MapError, PerCpuValues, lpm_trie};
use foobar_ebpf::abi::{Tally, Traffic};
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
    pub(super) fn open(directory: &Path, name: &'static str) -> Result<Self, KernelError> {
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

    pub(super) fn read_at_once<T>(
        &self,
        read: impl FnMut(K, &V) -> T,
    ) -> Result<Vec<T>, KernelError> {
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

    pub(super) fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
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
    pub(super) fn open(directory: &Path, name: &'static str) -> Result<Self, KernelError> {
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

    pub(super) fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
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

    pub(super) fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
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

    pub(super) fn copy(&mut self, old: &Self) -> Result<(), KernelError> {
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

pub(super) fn open(directory: &Path, name: &'static str) -> Result<(Map, u32), KernelError> {
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
}
