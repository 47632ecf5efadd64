//! What the packet path counted on a node, by dense id.

use std::path::Path;

use foobar_ebpf::{
    abi::{Tally, Traffic, map},
    verdict::Reason,
};

use super::{CounterTable, Direction, KernelError, Table as _, Tables, clock};

/// What became of an interface's packets; reasons that never occurred are left out.
pub type Verdicts = Vec<(Direction, Reason, Tally)>;

/// All counters at one instant, each in the place of its id.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub taken_at: u64,
    pub interfaces: Vec<Verdicts>,
    pub rules: Vec<Tally>,
    /// What backends counted that are gone, to add to those that are there.
    pub vips: Vec<Traffic>,
    pub backends: Vec<Traffic>,
}

/// How many ids of each kind to read, from the first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extent {
    pub interfaces: u32,
    pub rules: u32,
    pub vips: u32,
    pub backends: u32,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fill {
    pub map: &'static str,
    pub entries: u64,
    pub max: u32,
}

/// The maps that count; few, for they are opened anew each second.
#[derive(Debug)]
pub(super) struct Meters {
    reasons: CounterTable<Tally>,
    rules: CounterTable<Tally>,
    vips: CounterTable<Traffic>,
    backends: CounterTable<Traffic>,
}

impl Meters {
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            reasons: CounterTable::open(directory, map::REASONS)?,
            rules: CounterTable::open(directory, map::RULES)?,
            vips: CounterTable::open(directory, map::VIP_TRAFFIC)?,
            backends: CounterTable::open(directory, map::BACKEND_TRAFFIC)?,
        })
    }

    pub(super) fn read(&self, extent: Extent) -> Result<Counters, KernelError> {
        Ok(Counters {
            taken_at: clock::monotonic(),
            interfaces: self
                .reasons
                .first(extent.interfaces * OF_INTERFACE)?
                .chunks(OF_INTERFACE as usize)
                .map(verdicts)
                .collect(),
            rules: self.rules.first(extent.rules)?,
            vips: self.vips.first(extent.vips)?,
            backends: self.backends.first(extent.backends)?,
        })
    }
}

/// Of one interface's tallies.
fn verdicts(tallies: &[Tally]) -> Verdicts {
    Direction::ALL
        .into_iter()
        .zip(tallies.chunks(Reason::SLOTS as usize))
        .flat_map(|(direction, tallies)| {
            Reason::ALL.into_iter().filter_map(move |reason| {
                let tally = tallies.get(reason as usize)?;
                (tally.packets > 0).then_some((direction, reason, *tally))
            })
        })
        .collect()
}

const OF_INTERFACE: u32 = 2 * Reason::SLOTS;

impl Tables {
    /// Of an interface.
    ///
    /// # Errors
    /// When the kernel refuses to be read.
    pub fn verdicts(&self, interface: u32) -> Result<Verdicts, KernelError> {
        let first = interface * OF_INTERFACE;
        let tallies = self.reasons.first(first + OF_INTERFACE)?;
        Ok(verdicts(tallies.get(first as usize..).unwrap_or_default()))
    }

    /// How full the maps are; walks through each.
    ///
    /// # Errors
    /// When the kernel refuses to be read.
    pub fn fill(&self) -> Result<Vec<Fill>, KernelError> {
        macro_rules! fill {
            ($($table:ident),+ $(,)?) => {
                vec![$(Fill {
                    map: self.$table.name(),
                    entries: self.$table.count()?,
                    max: self.$table.max(),
                }),+]
            };
        }
        Ok(fill![
            vips_v4,
            vips_v6,
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
            labels,
        ])
    }
}
