//! IEEE 802.1Q and 802.1ad tags.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VlanTag {
    pub control: u16,
    pub ethertype: u16,
}

impl VlanTag {
    pub const LENGTH: usize = 4;
}

const CUSTOMER: u16 = 0x8100_u16.to_be();
const SERVICE: u16 = 0x88a8_u16.to_be();

#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER || ethertype == SERVICE
}
