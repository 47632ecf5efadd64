//! RFC 768.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const PROTOCOL: u8 = 17;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UdpHeader {
    pub source_port: u16,
    pub destination_port: u16,
    pub length: u16,
    pub checksum: u16,
}

impl UdpHeader {
    pub const LENGTH: usize = 8;
    pub const CHECKSUM: usize = 6;
}
