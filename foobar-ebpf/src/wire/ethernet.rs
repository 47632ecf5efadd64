//! Ethernet II.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EthernetHeader {
    pub destination: [u16; 3],
    pub source: [u16; 3],
    pub ethertype: u16,
}

impl EthernetHeader {
    pub const LENGTH: usize = 14;
    pub const ETHERTYPE: usize = 12;
}

/// Ethertypes as a little- or big-endian load sees them.
pub const IPV4: u16 = 0x0800_u16.to_be();
pub const ARP: u16 = 0x0806_u16.to_be();
pub const IPV6: u16 = 0x86dd_u16.to_be();
