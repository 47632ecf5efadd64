//! RFC 791.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv4Header {
    pub version_length: u8,
    pub service: u8,
    pub total_length: u16,
    pub identification: u16,
    pub fragment: u16,
    pub lifetime: Lifetime,
    pub source: u32,
    pub destination: u32,
}

/// TTL, protocol and header checksum: the part that forwarding changes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lifetime {
    pub time_to_live: u8,
    pub protocol: u8,
    pub checksum: u16,
}

impl Ipv4Header {
    pub const LENGTH: usize = 20;
    pub const TOTAL_LENGTH: usize = 2;
    pub const LIFETIME: usize = 8;
    pub const SOURCE: usize = 12;
    pub const DESTINATION: usize = 16;
    pub const MORE_FRAGMENTS: u16 = 0x2000_u16.to_be();
    pub const FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();

    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_length >> 4
    }

    /// Bytes, options included.
    #[inline(always)]
    #[must_use]
    pub const fn header_length(&self) -> usize {
        ((self.version_length & 15) as usize) << 2
    }
}
