//! The embedded BPF object: what maps it defines, and loading it for one interface.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{SchedClassifier, Xdp},
};
use aya_obj::{EbpfSectionKind, Object};
use foobar_ebpf::abi::{self, global, map, program};

use super::{HashKeys, KernelError, Sizes, bpffs, plain::Plain};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/foobar-ebpf.o"));

/// Pin of the hash of the layout that the maps beside it have.
const LAYOUT: &str = "LAYOUT";

/// The maps of the object, as they have to be.
#[derive(Debug)]
pub(super) struct Blueprint {
    maps: BTreeMap<String, Definition>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Definition {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: Option<(u32, u32, u32, u32)>,
}

impl Blueprint {
    pub fn of_object(sizes: Sizes) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let object = Object::parse(OBJECT).map_err(|error| KernelError::Object {
            problem: error.to_string(),
        })?;
        let maps = object
            .maps
            .iter()
            .filter(|(_, map)| map.section_kind() == EbpfSectionKind::BtfMaps)
            .map(|(name, map)| {
                let definition = Definition {
                    kind: map.map_type(),
                    key_size: map.key_size(),
                    value_size: map.value_size(),
                    max_entries: sizes.of(name).unwrap_or(map.max_entries()),
                    flags: map.map_flags(),
                    inner: map.inner().map(|inner| {
                        (
                            inner.map_type(),
                            inner.key_size(),
                            inner.value_size(),
                            inner.max_entries(),
                        )
                    }),
                };
                (name.clone(), definition)
            })
            .collect();
        Ok(Self { maps })
    }

    /// Whether this object can use the maps pinned in `directory`.
    pub fn fit(&self, directory: &Path) -> Fit {
        match pinned_layout(directory) {
            None => return Fit::Foreign("they are incomplete".to_owned()),
            Some(layout) if layout != self.layout() => {
                return Fit::Foreign("their layout is of another version of foobar".to_owned());
            }
            Some(_) => {}
        }
        self.maps
            .iter()
            .map(|(name, definition)| definition.fit(name, directory))
            .max()
            .unwrap_or(Fit::Usable)
    }

    /// Creates the maps that are not pinned in `directory` yet.
    pub fn create_maps(&self, directory: &Path) -> Result<(), KernelError> {
        bpffs::create_directory(directory)?;
        self.loader(directory)
            .load(OBJECT)
            .map_err(KernelError::load)?;
        let failed = |error| KernelError::map("create", LAYOUT, error);
        if pinned_layout(directory).is_some() {
            return Ok(());
        }
        let mut layout = Array::<MapData, Plain<u64>>::create(1, 0).map_err(failed)?;
        layout.set(0, Plain(self.layout()), 0).map_err(failed)?;
        layout
            .pin(directory.join(LAYOUT))
            .map_err(|error| KernelError::Map {
                doing: "pin",
                map: LAYOUT,
                source: error.into(),
            })
    }

    /// The object for one interface, its two programs accepted by the kernel.
    pub fn load(
        &self,
        directory: &Path,
        interface: u32,
        keys: &HashKeys,
        purpose: Purpose,
    ) -> Result<Ebpf, KernelError> {
        let explain = u32::from(purpose == Purpose::Explain);
        let mut loader = self.loader(directory);
        loader
            .override_global(global::INTERFACE, &interface, true)
            .override_global(global::EXPLAIN, &explain, true)
            .override_global(global::HASH_KEYS, &keys.0, true);
        let mut object = loader.load(OBJECT).map_err(KernelError::load)?;
        ingress(&mut object)?
            .load()
            .map_err(|error| KernelError::verifier(program::INGRESS, error))?;
        egress(&mut object)?
            .load()
            .map_err(|error| KernelError::verifier(program::EGRESS, error))?;
        Ok(object)
    }

    /// The object with the program alone that sends frames of user space.
    pub fn load_emitter(&self, directory: &Path) -> Result<Ebpf, KernelError> {
        let mut object = self
            .loader(directory)
            .load(OBJECT)
            .map_err(KernelError::load)?;
        emit(&mut object)?
            .load()
            .map_err(|error| KernelError::verifier(program::EMIT, error))?;
        Ok(object)
    }

    fn loader<'a>(&'a self, directory: &Path) -> EbpfLoader<'a> {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        for (name, definition) in &self.maps {
            loader.map_pin_path(name, directory.join(name));
            loader.map_max_entries(name, definition.max_entries);
        }
        loader
    }

    fn layout(&self) -> u64 {
        // The sizes are compared one by one: a larger table serves as well.
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        abi::LAYOUT.hash(&mut hasher);
        for (name, definition) in &self.maps {
            name.hash(&mut hasher);
            Definition {
                max_entries: 0,
                ..*definition
            }
            .hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// From good to bad.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Fit {
    Usable,
    /// What they hold can be copied into larger ones.
    TooSmall(String),
    Foreign(String),
}

impl Definition {
    fn fit(&self, name: &str, directory: &Path) -> Fit {
        let info = match MapData::from_pin(directory.join(name)).and_then(|map| map.info()) {
            Ok(info) => info,
            Err(_) => return Fit::Foreign(format!("{name} is missing")),
        };
        let kind = info.map_type().map_or(u32::MAX, |kind| kind as u32);
        let same = kind == self.kind
            && info.key_size() == self.key_size
            && info.value_size() == self.value_size
            && info.map_flags() == self.flags
            && (Sizes::grows(name) || info.max_entries() == self.max_entries);
        if !same {
            Fit::Foreign(format!("{name} is of another kind"))
        } else if info.max_entries() < self.max_entries {
            Fit::TooSmall(format!(
                "{name} holds {} entries where {} are needed",
                info.max_entries(),
                self.max_entries
            ))
        } else {
            Fit::Usable
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// To be attached.
    Serve,
    /// Counts and changes nothing, tells what it decided.
    Explain,
}

pub(super) fn ingress(object: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    object
        .program_mut(program::INGRESS)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| missing(program::INGRESS))
}

pub(super) fn egress(object: &mut Ebpf) -> Result<&mut SchedClassifier, KernelError> {
    object
        .program_mut(program::EGRESS)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| missing(program::EGRESS))
}

pub(super) fn emit(object: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    object
        .program_mut(program::EMIT)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| missing(program::EMIT))
}

fn missing(program: &str) -> KernelError {
    KernelError::Object {
        problem: format!("it has no program `{program}`"),
    }
}

fn pinned_layout(directory: &Path) -> Option<u64> {
    let path: PathBuf = directory.join(LAYOUT);
    let map = aya::maps::Map::from_map_data(MapData::from_pin(path).ok()?).ok()?;
    let array: Array<MapData, Plain<u64>> = map.try_into().ok()?;
    array.get(&0, 0).ok().map(|Plain(layout)| layout)
}

/// FNV-1a: the same hash in every build, which std's hasher does not promise.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Sizes {
    fn of(self, map: &str) -> Option<u32> {
        match map {
            map::SET_HOSTS_V4 | map::SET_HOSTS_V6 => Some(self.set_hosts),
            map::SET_PREFIXES_V4 | map::SET_PREFIXES_V6 => Some(self.set_prefixes),
            map::JAIL_V4 | map::JAIL_V6 => Some(self.jail),
            _ => None,
        }
    }

    fn grows(map: &str) -> bool {
        Self::default().of(map).is_some()
    }
}
