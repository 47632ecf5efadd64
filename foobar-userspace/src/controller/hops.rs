//! What the routing tables say, as the packet path's tables hold it.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use foobar_ebpf::abi::{self, Backend, MAX_NEXT_HOPS};
use ipnet::IpNet;

use crate::{
    kernel::{KernelError, Prefix, Table, Tables},
    routes::{Mac, NextHop, RouteTable},
};

/// A backend with its next hop; unresolved where there is none.
#[must_use]
pub fn with_hop(backend: Backend, hop: Option<&NextHop>) -> Backend {
    let hop = next_hop(hop);
    Backend {
        flags: backend.flags & !Backend::RESOLVED | hop.flags,
        ifindex: hop.ifindex,
        macs: hop.macs,
        mtu: hop.mtu,
        ..backend
    }
}

/// Fills the tables of the way back to clients. Answers what a person should know.
///
/// # Errors
/// When the kernel refuses.
pub fn apply_routes(
    tables: &mut Tables,
    routes: &RouteTable,
) -> Result<Option<String>, KernelError> {
    let (v4, v6) = by_family(routes);
    let hops_fit = routes
        .hops
        .last_key_value()
        .is_none_or(|(number, _)| *number < MAX_NEXT_HOPS);
    let fits = hops_fit
        && v4.len() <= tables.routes_v4.max() as usize
        && v6.len() <= tables.routes_v6.max() as usize;
    if !fits {
        // A table with some routes missing would send packets the wrong way; the kernel knows all.
        tables.routes_v4.become_exactly(&HashMap::new())?;
        tables.routes_v6.become_exactly(&HashMap::new())?;
        return Ok(Some(format!(
            "the routing table has {} routes over {} gateways, more than fit; answers to clients take the kernel's \
             slower look-up",
            routes.routes.len(),
            routes.hops.len()
        )));
    }
    for (number, hop) in &routes.hops {
        let hop = next_hop(Some(hop));
        if tables.next_hops.get(*number)? != hop {
            tables.next_hops.set(*number, hop)?;
        }
    }
    tables.routes_v4.become_exactly(&v4)?;
    tables.routes_v6.become_exactly(&v6)?;
    Ok(None)
}

/// Fills the tables of this node's own addresses.
///
/// # Errors
/// When the kernel refuses, or there are more than fit.
pub fn apply_local(tables: &mut Tables, local: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
    let mut v4 = HashMap::new();
    let mut v6 = HashMap::new();
    for address in local {
        match address {
            IpAddr::V4(address) => v4.insert(word(address.octets()), 1),
            IpAddr::V6(address) => v6.insert(words(address.octets()), 1),
        };
    }
    tables.local_v4.become_exactly(&v4)?;
    tables.local_v6.become_exactly(&v6)
}

/// Takes the addresses whose hardware address a packet lacked.
///
/// # Errors
/// When the kernel refuses.
pub fn take_wanted(tables: &mut Tables) -> Result<Vec<IpAddr>, KernelError> {
    let mut wanted = Vec::new();
    for (address, _) in tables.wanted_v4.contents()? {
        wanted.push(IpAddr::from(address.to_ne_bytes()));
        tables.wanted_v4.remove(address)?;
    }
    for (address, _) in tables.wanted_v6.contents()? {
        wanted.push(IpAddr::from(octets(address)));
        tables.wanted_v6.remove(address)?;
    }
    Ok(wanted)
}

type Routes<A> = HashMap<Prefix<A>, u32>;

fn by_family(routes: &RouteTable) -> (Routes<u32>, Routes<[u32; 4]>) {
    let mut v4 = HashMap::new();
    let mut v6 = HashMap::new();
    for (prefix, number) in routes.routes.iter() {
        let length = prefix.prefix_len().into();
        match prefix {
            IpNet::V4(prefix) => {
                let address = word(prefix.network().octets());
                v4.insert(Prefix { length, address }, *number);
            }
            IpNet::V6(prefix) => {
                let address = words(prefix.network().octets());
                v6.insert(Prefix { length, address }, *number);
            }
        }
    }
    (v4, v6)
}

fn next_hop(hop: Option<&NextHop>) -> abi::NextHop {
    match hop {
        Some(hop) if hop.resolved() => abi::NextHop {
            macs: macs(hop.destination, hop.source),
            ifindex: hop.interface,
            mtu: hop.mtu,
            flags: Backend::RESOLVED,
        },
        _ => abi::NextHop {
            macs: [0; 3],
            ifindex: 0,
            mtu: 0,
            flags: 0,
        },
    }
}

/// The first twelve bytes of the Ethernet header.
fn macs(destination: Mac, source: Mac) -> [u32; 3] {
    let [a, b, c, d, e, f] = destination;
    let [g, h, i, j, k, l] = source;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
    ]
}

pub(super) fn word(octets: [u8; 4]) -> u32 {
    u32::from_ne_bytes(octets)
}

pub(super) fn words(octets: [u8; 16]) -> [u32; 4] {
    let (chunks, _) = octets.as_chunks();
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u32::from_ne_bytes(*chunk);
    }
    words
}

pub(super) fn octets(words: [u32; 4]) -> [u8; 16] {
    let mut octets = [0; 16];
    for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    octets
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::{controller::apply::NO_BACKEND, routes::Trouble};

    #[test]
    fn the_header_of_a_frame_is_destination_then_source() {
        let backend = Backend {
            flags: Backend::ALIVE,
            ..NO_BACKEND
        };
        let resolved = with_hop(backend, Some(&hop(None)));
        assert_eq!(
            resolved.macs.as_bytes(),
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        );
        assert_eq!(resolved.flags, Backend::ALIVE | Backend::RESOLVED);
        assert_eq!((resolved.ifindex, resolved.mtu), (4, 1500));
    }

    #[test]
    fn a_hop_in_trouble_is_not_used() {
        let backend = with_hop(
            Backend {
                flags: Backend::ALIVE,
                ..NO_BACKEND
            },
            Some(&hop(None)),
        );
        let lost = with_hop(backend, Some(&hop(Some(Trouble::NoAnswer))));
        assert_eq!(lost.flags, Backend::ALIVE);
        assert_eq!(lost.ifindex, 0);
    }

    #[test]
    fn addresses_are_the_networks_bytes() {
        assert_eq!(word([203, 0, 113, 10]).as_bytes(), [203, 0, 113, 10]);
        let octets = std::array::from_fn(|index| index as u8);
        assert_eq!(words(octets).as_bytes(), octets);
        assert_eq!(super::octets(words(octets)), octets);
    }

    fn hop(trouble: Option<Trouble>) -> NextHop {
        NextHop {
            interface: 4,
            device: "eth1".to_owned(),
            source: [7, 8, 9, 10, 11, 12],
            destination: [1, 2, 3, 4, 5, 6],
            mtu: 1500,
            trouble,
        }
    }
}
