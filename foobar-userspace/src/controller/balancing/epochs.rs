//! How often each backend was lost.

use std::collections::BTreeMap;

use foobar_ebpf::abi;

/// What began before a loss does not go on after it.
#[derive(Clone, Debug, Default)]
pub struct Epochs(BTreeMap<u32, Epoch>);

#[derive(Clone, Copy, Debug, Default)]
struct Epoch {
    number: u32,
    is_alive: bool,
}

impl Epochs {
    /// Goes on from what the kernel holds.
    pub fn adopt(&mut self, id: u32, backend: abi::Backend) {
        let epoch = Epoch {
            number: backend.epoch,
            is_alive: backend.flags & abi::Backend::ALIVE != 0,
        };
        self.0.insert(id, epoch);
    }

    pub fn note(&mut self, id: u32, is_alive: bool) {
        let epoch = self.0.entry(id).or_default();
        if epoch.is_alive && !is_alive {
            epoch.number = epoch.number.wrapping_add(1);
        }
        epoch.is_alive = is_alive;
    }

    pub fn of(&self, id: u32) -> u32 {
        self.0.get(&id).map_or(0, |epoch| epoch.number)
    }
}
