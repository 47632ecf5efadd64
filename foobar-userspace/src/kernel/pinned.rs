//! What can be done with a node's pins while no controller runs.

use std::collections::HashMap;

use foobar_ebpf::abi::LabelKey;

use super::{
    Counters, Direction, Extent, Fill, KernelError, NodeLock,
    bpffs::{self, Pins},
    counters::Meters,
    device::Device,
    link,
    tables::Tables,
};

/// What [`detach`] takes away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Which {
    /// Every link, every map, all of the node's pins.
    All,
    /// The links of these interfaces, by name (`wan`) or device (`eth0`).
    Interfaces(Vec<String>),
}

/// Takes programs off their interfaces; returns the names of those interfaces.
///
/// # Errors
/// [`KernelError::Locked`] while a controller runs, [`KernelError::NotDeployed`] where nothing is pinned.
pub fn detach(node: &str, which: &Which) -> Result<Vec<String>, KernelError> {
    let _lock = NodeLock::take(node)?;
    let pins = deployed(node)?;
    let tables = Tables::open(&pins.maps());
    let links = pins.pinned_links()?;
    let devices: Vec<(String, String)> = match &tables {
        Ok(tables) => interfaces(tables)?,
        Err(_) => Vec::new(),
    };
    let device_of = |interface: &str| {
        devices
            .iter()
            .find(|(name, _)| name == interface)
            .map(|(_, device)| device.as_str())
    };
    let mut present: Vec<String> = links
        .iter()
        .map(|(interface, _)| interface.clone())
        .collect();
    present.dedup();
    let wanted: Vec<String> = match which {
        Which::All => present.clone(),
        Which::Interfaces(names) => names
            .iter()
            .map(|name| {
                present
                    .iter()
                    .find(|interface| {
                        *interface == name || device_of(interface) == Some(name.as_str())
                    })
                    .cloned()
                    .ok_or_else(|| KernelError::NotAttached {
                        node: node.to_owned(),
                        interface: name.clone(),
                        present: present.join(", "),
                    })
            })
            .collect::<Result<_, _>>()?,
    };
    for interface in &wanted {
        for direction in Direction::ALL {
            link::detach(interface, device_of(interface), direction, &pins)?;
        }
    }
    if *which == Which::All {
        pins.remove()?;
    }
    Ok(wanted)
}

/// The counters of the first ids, read from the pinned maps alone.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn counters(node: &str, extent: Extent) -> Result<Counters, KernelError> {
    let pins = deployed(node)?;
    Meters::open(&pins.maps())?.read(extent)
}

pub(super) fn tables(node: &str) -> Result<Tables, KernelError> {
    Tables::open(&deployed(node)?.maps())
}

/// What the ids in use are called.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn labels(node: &str) -> Result<HashMap<LabelKey, String>, KernelError> {
    let pins = deployed(node)?;
    Tables::open(&pins.maps())?.label_texts()
}

/// How full the pinned maps are.
///
/// # Errors
/// [`KernelError::NotDeployed`] where nothing is pinned.
pub fn fill(node: &str) -> Result<Vec<Fill>, KernelError> {
    let pins = deployed(node)?;
    Tables::open(&pins.maps())?.fill()
}

/// Whose XDP program a device has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seat {
    NoDevice,
    Free,
    /// This node's own.
    Foobar {
        native: bool,
    },
    Other {
        /// `id 7` or ``id 7 `xdp_pass` ``.
        program: String,
        native: bool,
    },
}

/// What sits on an interface's device; attaches nothing.
///
/// # Errors
/// When the kernel does not say.
pub fn seat(node: &str, interface: &str, device: &str) -> Result<Seat, KernelError> {
    let Some(device) = Device::named(device)? else {
        return Ok(Seat::NoDevice);
    };
    let Some(xdp) = device.xdp else {
        return Ok(Seat::Free);
    };
    let native = xdp.native;
    let pin = Pins::of(node).link(interface, Direction::Ingress);
    Ok(if link::pinned_program(&pin) == Some(xdp.program) {
        Seat::Foobar { native }
    } else {
        Seat::Other {
            program: link::describe_program(xdp.program),
            native,
        }
    })
}

pub(super) fn device_of(tables: &Tables, interface: &str) -> Result<Option<String>, KernelError> {
    Ok(interfaces(tables)?
        .into_iter()
        .find(|(name, _)| name == interface)
        .map(|(_, device)| device))
}

/// Names and devices, as labelled.
fn interfaces(tables: &Tables) -> Result<Vec<(String, String)>, KernelError> {
    let labels = tables.label_texts()?;
    Ok(labels
        .into_iter()
        .filter(|(key, _)| key.kind == LabelKey::INTERFACE)
        .filter_map(|(_, text)| {
            text.split_once(' ')
                .map(|(name, device)| (name.to_owned(), device.to_owned()))
        })
        .collect())
}

fn deployed(node: &str) -> Result<Pins, KernelError> {
    bpffs::permitted()?;
    let pins = Pins::of(node);
    if !pins.maps().exists() && !pins.links().exists() {
        return Err(KernelError::NotDeployed {
            node: node.to_owned(),
        });
    }
    Ok(pins)
}
