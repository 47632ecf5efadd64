//! RFC 8200.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv6Header {
    pub version_class_label: u32,
    pub payload_length: u16,
    pub next: NextAndLimit,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NextAndLimit {
    pub next_header: u8,
    pub hop_limit: u8,
}

impl Ipv6Header {
    pub const LENGTH: usize = 40;
    pub const PAYLOAD_LENGTH: usize = 4;
    pub const NEXT: usize = 6;
    pub const SOURCE: usize = 8;
    pub const DESTINATION: usize = 24;

    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u32 {
        u32::from_be(self.version_class_label) >> 28
    }
}

/// The first eight bytes of every extension header that the parser follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtensionHeader {
    pub next_header: u8,
    /// In 8-byte units without the first; RFC 4302 counts 4-byte units for AH.
    pub length: u8,
    pub fragment: u16,
    pub identification: u32,
}

impl ExtensionHeader {
    pub const LENGTH: usize = 8;
    pub const MORE_FRAGMENTS: u16 = 1_u16.to_be();
    pub const FRAGMENT_OFFSET: u16 = 0xfff8_u16.to_be();
}

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION_OPTIONS: u8 = 60;
