//! What the kernel's tables said when they were read, and what follows from it; no input, no output.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{LinkInfo, Mac, NextHop, Trouble};

/// Links, addresses, neighbours, routes, and the paths to the targets.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub links: HashMap<u32, Link>,
    pub local: BTreeSet<IpAddr>,
    pub neighbours: HashMap<Hop, Neighbour>,
    pub routes: Vec<Route>,
    pub paths: BTreeMap<IpAddr, Result<Path, Trouble>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Link {
    pub info: LinkInfo,
    /// Frames on it begin with an Ethernet header.
    pub ethernet: bool,
}

/// Whom a frame is handed to: an address on a link.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Hop {
    pub interface: u32,
    pub address: IpAddr,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Neighbour {
    pub mac: Option<Mac>,
    pub knowledge: Knowledge,
}

/// The kernel's NUD states, as far as they differ for us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Knowledge {
    /// Confirmed lately, or configured by hand.
    Sure,
    /// Usable; may have moved.
    Stale,
    /// Not usable: being asked for, or it did not answer.
    None,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Route {
    pub prefix: IpNet,
    pub metric: u32,
    pub via: Via,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Via {
    Gateway(Hop),
    /// The destination itself is on this link.
    Link(u32),
    /// Anything that only the kernel can decide: several paths, a blackhole, encapsulation, …
    Kernel,
}

/// The way to one target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Path {
    pub hop: Hop,
    /// Of the route, where it has one.
    pub mtu: Option<u32>,
}

impl Picture {
    pub fn next_hops(&self) -> BTreeMap<IpAddr, NextHop> {
        self.paths
            .iter()
            .map(|(target, path)| {
                let next = match path {
                    Ok(path) => self.next_hop(path.hop, path.mtu),
                    Err(trouble) => NextHop::unknown(*trouble),
                };
                (*target, next)
            })
            .collect()
    }

    pub fn next_hop(&self, hop: Hop, mtu: Option<u32>) -> NextHop {
        let Some(link) = self.links.get(&hop.interface) else {
            return NextHop::unknown(Trouble::NoLink);
        };
        let neighbour = self.neighbours.get(&hop);
        let destination = neighbour
            .filter(|neighbour| neighbour.knowledge != Knowledge::None)
            .and_then(|neighbour| neighbour.mac);
        let trouble = match destination {
            _ if !link.ethernet => Some(Trouble::NotEthernet),
            _ if !link.info.up => Some(Trouble::LinkDown),
            None => Some(Trouble::NoAnswer),
            Some(_) => None,
        };
        NextHop {
            interface: hop.interface,
            device: link.info.name.clone(),
            source: link.info.mac,
            destination: destination.unwrap_or_default(),
            mtu: mtu.map_or(link.info.mtu, |mtu| mtu.min(link.info.mtu)),
            trouble,
        }
    }

    pub fn links_by_name(&self) -> BTreeMap<String, LinkInfo> {
        self.links
            .values()
            .map(|link| (link.info.name.clone(), link.info.clone()))
            .collect()
    }

    /// How much is known of the hops that frames are handed to, where asking could help.
    pub fn wanted(&self, gateways: impl Iterator<Item = Hop>) -> BTreeMap<Hop, Knowledge> {
        let targets = self.paths.values().flatten().map(|path| path.hop);
        targets
            .chain(gateways)
            .filter(|hop| {
                self.links
                    .get(&hop.interface)
                    .is_some_and(|link| link.ethernet && link.info.up)
            })
            .map(|hop| {
                let known = self.neighbours.get(&hop);
                (hop, known.map_or(Knowledge::None, |known| known.knowledge))
            })
            .collect()
    }
}
