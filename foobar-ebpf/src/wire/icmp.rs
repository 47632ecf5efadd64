//! RFC 792 and RFC 4443; neighbour discovery RFC 4861.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const PROTOCOL: u8 = 1;
pub const PROTOCOL_V6: u8 = 58;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IcmpHeader {
    pub kind: u8,
    pub code: u8,
    pub checksum: u16,
    pub rest: u32,
}

impl IcmpHeader {
    pub const LENGTH: usize = 8;
    pub const CHECKSUM: usize = 2;
}

/// ICMPv4 types that quote the packet they are about: unreachable, time exceeded, parameter problem.
#[inline(always)]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 11 | 12)
}

/// ICMPv6: unreachable, too big, time exceeded, parameter problem.
#[inline(always)]
#[must_use]
pub const fn is_error_v6(kind: u8) -> bool {
    matches!(kind, 1..=4)
}

/// "Fragmentation needed" (RFC 1191).
#[inline(always)]
#[must_use]
pub const fn is_path_mtu(kind: u8, code: u8) -> bool {
    kind == 3 && code == 4
}

/// "Packet too big" (RFC 8201).
#[inline(always)]
#[must_use]
pub const fn is_path_mtu_v6(kind: u8) -> bool {
    kind == 2
}

/// Router and neighbour solicitation and advertisement.
#[inline(always)]
#[must_use]
pub const fn is_neighbour_discovery(kind: u8) -> bool {
    matches!(kind, 133..=136)
}

/// Multicast listener discovery (RFC 3810), without which a snooping switch cuts off neighbour discovery.
#[inline(always)]
#[must_use]
pub const fn is_multicast_listener(kind: u8) -> bool {
    matches!(kind, 130..=132 | 143)
}

/// The type of the message that this type answers, if it is an answer to an echo or timestamp request.
#[inline(always)]
#[must_use]
pub const fn answered_by(kind: u8) -> Option<u8> {
    match kind {
        0 => Some(8),
        14 => Some(13),
        129 => Some(128),
        _ => None,
    }
}
