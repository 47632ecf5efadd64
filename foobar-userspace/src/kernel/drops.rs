//! Packets that were dropped, as the packet path tells of some of them.

use aya::maps::{Map, MapData, RingBuf};
use foobar_ebpf::abi::{DropEvent, map};
use zerocopy::FromBytes as _;

use super::{ArrayTable, KernelError, bpffs::Pins};

/// The ring of a node's drops; whoever has it open takes what comes.
pub struct Drops {
    ring: RingBuf<MapData>,
    sampling: ArrayTable<u32>,
}

impl Drops {
    /// # Errors
    /// When the kernel refuses, or nothing is pinned.
    pub fn open(node: &str) -> Result<Self, KernelError> {
        let directory = Pins::of(node).maps();
        let failed = |error| KernelError::map("open", map::DROPS, error);
        let data = MapData::from_pin(directory.join(map::DROPS)).map_err(failed)?;
        let ring = Map::from_map_data(data)
            .and_then(RingBuf::try_from)
            .map_err(failed)?;
        Ok(Self {
            ring,
            sampling: ArrayTable::open(&directory, map::DROP_SAMPLING)?,
        })
    }

    /// Of how many drops one is told, at most; 0: none. Rounded up to a power of two.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tell(&mut self, one_in: u32) -> Result<(), KernelError> {
        let one_in = match one_in {
            0 => 0,
            one_in => one_in.next_power_of_two(),
        };
        self.sampling.set(0, one_in)
    }

    /// The next that was told, if there is one.
    pub fn take(&mut self) -> Option<DropEvent> {
        loop {
            let item = self.ring.next()?;
            if let Ok(event) = DropEvent::read_from_bytes(&item) {
                return Some(event);
            }
        }
    }
}

impl std::fmt::Debug for Drops {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Drops")
    }
}
