//! RFC 9293.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const PROTOCOL: u8 = 6;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TcpHeader {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub offset: u8,
    pub flags: u8,
    pub window: u16,
    pub checksum: u16,
    pub urgent: u16,
}

impl TcpHeader {
    pub const LENGTH: usize = 20;
    pub const SOURCE_PORT: usize = 0;
    pub const DESTINATION_PORT: usize = 2;
    pub const CHECKSUM: usize = 16;
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;

    /// Bytes, options included.
    #[inline(always)]
    #[must_use]
    pub const fn header_length(&self) -> usize {
        ((self.offset >> 4) as usize) << 2
    }
}

/// SYN without ACK or RST: it would open a connection.
#[inline(always)]
#[must_use]
pub const fn opens(flags: u8) -> bool {
    flags & (TcpHeader::SYN | TcpHeader::ACK | TcpHeader::RST) == TcpHeader::SYN
}
