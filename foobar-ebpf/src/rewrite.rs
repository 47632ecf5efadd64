//! Address translation in place: destination to a backend, source to a vip, and the packets that errors quote.

use crate::{
    abi::{Backend, Return, Vip, checksum_words},
    family::{Family, V4, V6},
    frame::Frame,
    packet::{Packet, Parse},
    session,
    verdict::Reason,
    wire::{
        checksum,
        icmp::IcmpHeader,
        ipv4::{Ipv4Header, Lifetime},
        ipv6::{Ipv6Header, NextAndLimit},
        tcp::{self, TcpHeader},
        udp::{self, UdpHeader},
    },
};

/// An address and port that replace others.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<A> {
    pub address: A,
    /// Network order.
    pub port: u16,
    /// [`crate::abi::checksum_words`] of address and port.
    pub sum: u32,
}

impl<A> Endpoint<A> {
    #[inline(always)]
    const fn address_sum(&self) -> u32 {
        self.sum - self.port as u32
    }
}

impl Backend {
    #[inline(always)]
    #[must_use]
    pub fn endpoint<F: Family>(&self) -> Endpoint<F::Address> {
        Endpoint {
            address: F::address(&self.address),
            port: self.port as u16,
            sum: self.sum,
        }
    }
}

impl Return {
    #[inline(always)]
    #[must_use]
    pub fn endpoint<F: Family>(&self) -> Endpoint<F::Address> {
        Endpoint {
            address: F::address(&self.address),
            port: self.port as u16,
            sum: self.sum,
        }
    }
}

/// The IP header's part of a translation.
pub trait Rewrite: Parse {
    const SOURCE: usize;
    const DESTINATION: usize;
    /// Of the header without options and extensions.
    const LENGTH: usize;

    /// One hop less, and a header checksum for words that summed to `old` and now to `new`.
    ///
    /// # Errors
    /// [`Reason::TtlExceeded`].
    fn hop<T: Frame>(
        frame: &mut T,
        packet: &Packet<Self>,
        old: u32,
        new: u32,
    ) -> Result<(), Reason>
    where
        Self: Sized;

    /// Turns the header round: the destination answers, with `payload` bytes after the header.
    fn answer<T: Frame>(frame: &mut T, packet: &Packet<Self>, payload: u16) -> Option<()>
    where
        Self: Sized;

    /// The checksum that a quoted header of this family carries changes with its addresses, so that an ICMP checksum
    /// over it does not; without a header checksum the addresses count.
    fn quoted_header<T: Frame>(
        frame: &mut T,
        quoted: &Packet<Self>,
        old: u32,
        new: u32,
    ) -> Result<bool, Reason>
    where
        Self: Sized;
}

impl Rewrite for V4 {
    const SOURCE: usize = Ipv4Header::SOURCE;
    const DESTINATION: usize = Ipv4Header::DESTINATION;
    const LENGTH: usize = Ipv4Header::LENGTH;

    #[inline(always)]
    fn hop<T: Frame>(frame: &mut T, packet: &Packet<V4>, old: u32, new: u32) -> Result<(), Reason> {
        if packet.hops <= 1 {
            return Err(Reason::TtlExceeded);
        }
        let at = packet.network() + Ipv4Header::LIFETIME;
        let lifetime: Lifetime = frame.read(at).ok_or(Reason::Internal)?;
        let before = u32::from(u16::from_ne_bytes([lifetime.time_to_live, 0]));
        let after = u32::from(u16::from_ne_bytes([lifetime.time_to_live - 1, 0]));
        let lifetime = Lifetime {
            time_to_live: lifetime.time_to_live - 1,
            checksum: checksum::update(lifetime.checksum, old + before, new + after),
            ..lifetime
        };
        frame.write(at, lifetime).ok_or(Reason::Internal)
    }

    #[inline(always)]
    fn answer<T: Frame>(frame: &mut T, packet: &Packet<V4>, payload: u16) -> Option<()> {
        let at = packet.network();
        let total: u16 = frame.read(at + Ipv4Header::TOTAL_LENGTH)?;
        let lifetime: Lifetime = frame.read(at + Ipv4Header::LIFETIME)?;
        let answer = (Ipv4Header::LENGTH as u16 + payload).to_be();
        let words =
            |total: u16, hops: u8| u32::from(total) + u32::from(u16::from_ne_bytes([hops, 0]));
        let lifetime = Lifetime {
            time_to_live: ANSWER_HOPS,
            // The addresses change places, and with them nothing in the sum.
            checksum: checksum::update(
                lifetime.checksum,
                words(total, lifetime.time_to_live),
                words(answer, ANSWER_HOPS),
            ),
            ..lifetime
        };
        frame.write(at + Ipv4Header::TOTAL_LENGTH, answer)?;
        frame.write(at + Ipv4Header::LIFETIME, lifetime)?;
        frame.write(at + Self::SOURCE, packet.destination)?;
        frame.write(at + Self::DESTINATION, packet.source)
    }

    #[inline(always)]
    fn quoted_header<T: Frame>(
        frame: &mut T,
        quoted: &Packet<V4>,
        old: u32,
        new: u32,
    ) -> Result<bool, Reason> {
        let at = quoted.network() + Ipv4Header::LIFETIME;
        let lifetime: Lifetime = frame.read(at).ok_or(Reason::Internal)?;
        let lifetime = Lifetime {
            checksum: checksum::update(lifetime.checksum, old, new),
            ..lifetime
        };
        frame.write(at, lifetime).ok_or(Reason::Internal)?;
        Ok(false)
    }
}

impl Rewrite for V6 {
    const SOURCE: usize = Ipv6Header::SOURCE;
    const DESTINATION: usize = Ipv6Header::DESTINATION;
    const LENGTH: usize = Ipv6Header::LENGTH;

    #[inline(always)]
    fn hop<T: Frame>(
        frame: &mut T,
        packet: &Packet<V6>,
        _old: u32,
        _new: u32,
    ) -> Result<(), Reason> {
        if packet.hops <= 1 {
            return Err(Reason::TtlExceeded);
        }
        let at = packet.network() + Ipv6Header::NEXT;
        let next: NextAndLimit = frame.read(at).ok_or(Reason::Internal)?;
        let next = NextAndLimit {
            hop_limit: next.hop_limit - 1,
            ..next
        };
        frame.write(at, next).ok_or(Reason::Internal)
    }

    #[inline(always)]
    fn answer<T: Frame>(frame: &mut T, packet: &Packet<V6>, payload: u16) -> Option<()> {
        let at = packet.network();
        let next: NextAndLimit = frame.read(at + Ipv6Header::NEXT)?;
        let next = NextAndLimit {
            hop_limit: ANSWER_HOPS,
            ..next
        };
        frame.write(at + Ipv6Header::PAYLOAD_LENGTH, payload.to_be())?;
        frame.write(at + Ipv6Header::NEXT, next)?;
        frame.write(at + Self::SOURCE, packet.destination)?;
        frame.write(at + Self::DESTINATION, packet.source)
    }

    #[inline(always)]
    fn quoted_header<T: Frame>(
        _frame: &mut T,
        _quoted: &Packet<V6>,
        _old: u32,
        _new: u32,
    ) -> Result<bool, Reason> {
        Ok(true)
    }
}

/// A client's packet: its destination becomes the backend.
///
/// # Errors
/// [`Reason::TtlExceeded`]; the frame is then untouched.
#[inline(always)]
pub fn to_backend<F: Rewrite, T: Frame>(
    frame: &mut T,
    packet: &Packet<F>,
    vip: &Vip,
    backend: &Endpoint<F::Address>,
) -> Result<(), Reason> {
    let old = vip.sum - u32::from(packet.ports.1);
    F::hop(frame, packet, old, backend.address_sum())?;
    frame
        .write(packet.network() + F::DESTINATION, backend.address)
        .ok_or(Reason::Internal)?;
    let port = (TcpHeader::DESTINATION_PORT, backend.port);
    transport(frame, packet, port, vip.sum, backend.sum)
}

/// A backend's packet: its source becomes the vip.
///
/// # Errors
/// [`Reason::TtlExceeded`]; the frame is then untouched.
#[inline(always)]
pub fn to_client<F: Rewrite, T: Frame>(
    frame: &mut T,
    packet: &Packet<F>,
    backend_sum: u32,
    vip: &Endpoint<F::Address>,
) -> Result<(), Reason> {
    let old = backend_sum - u32::from(packet.ports.0);
    F::hop(frame, packet, old, vip.address_sum())?;
    frame
        .write(packet.network() + F::SOURCE, vip.address)
        .ok_or(Reason::Internal)?;
    let port = (TcpHeader::SOURCE_PORT, vip.port);
    transport(frame, packet, port, backend_sum, vip.sum)
}

/// An ICMP error about a packet from the vip: it goes to the backend, which must recognise the packet it quotes.
///
/// # Errors
/// [`Reason::TtlExceeded`]; the frame is then untouched.
#[inline(always)]
pub fn error_to_backend<F: Rewrite, T: Frame>(
    frame: &mut T,
    error: &Packet<F>,
    quoted: &Packet<F>,
    vip: &Vip,
    backend: &Endpoint<F::Address>,
) -> Result<(), Reason> {
    let old = vip.sum - u32::from(quoted.ports.0);
    let new = backend.address_sum();
    F::hop(frame, error, old, new)?;
    frame
        .write(error.network() + F::DESTINATION, backend.address)
        .ok_or(Reason::Internal)?;
    frame
        .write(quoted.network() + F::SOURCE, backend.address)
        .ok_or(Reason::Internal)?;
    frame
        .write(quoted.transport() + TcpHeader::SOURCE_PORT, backend.port)
        .ok_or(Reason::Internal)?;
    let addresses_count = F::quoted_header(frame, quoted, old, new)?;
    let at = error.transport() + IcmpHeader::CHECKSUM;
    let before: u16 = frame.read(at).ok_or(Reason::Internal)?;
    let after = if addresses_count {
        // Once in the pseudo-header, once in the quotation.
        checksum::update(before, old + vip.sum, new + backend.sum)
    } else {
        checksum::update(before, u32::from(quoted.ports.0), u32::from(backend.port))
    };
    frame.write(at, after).ok_or(Reason::Internal)
}

/// The frame becomes the RST that answers it (RFC 9293 3.5.2), ready to go back the way it came.
///
/// # Errors
/// [`Reason::NoBackend`] for a packet with IP options or extension headers, which is dropped instead;
/// [`Reason::Internal`] as for [`link`].
#[inline(always)]
pub fn reset<F: Rewrite, T: Frame>(frame: &mut T, packet: &Packet<F>) -> Result<(), Reason> {
    if packet.transport() != packet.network() + F::LENGTH {
        return Err(Reason::NoBackend);
    }
    let asked: TcpHeader = frame.read(packet.transport()).ok_or(Reason::Internal)?;
    let macs: [u32; 3] = frame.read(0).ok_or(Reason::Internal)?;
    let answer = reset_of(packet, &asked);
    link(frame, session::swapped(macs))?;
    F::answer(frame, packet, TcpHeader::LENGTH as u16).ok_or(Reason::Internal)?;
    frame
        .write(packet.transport(), answer)
        .ok_or(Reason::Internal)?;
    frame
        .truncate(packet.transport() + TcpHeader::LENGTH)
        .ok_or(Reason::Internal)
}

#[inline(always)]
fn reset_of<F: Rewrite>(packet: &Packet<F>, asked: &TcpHeader) -> TcpHeader {
    let (sequence, acknowledgement, flags) = if asked.flags & TcpHeader::ACK != 0 {
        (asked.acknowledgement, 0, TcpHeader::RST)
    } else {
        let next = u32::from_be(asked.sequence).wrapping_add(session::length(packet, asked));
        (0, next.to_be(), TcpHeader::RST | TcpHeader::ACK)
    };
    let header = TcpHeader {
        source_port: asked.destination_port,
        destination_port: asked.source_port,
        sequence,
        acknowledgement,
        offset: (TcpHeader::LENGTH as u8) << 2,
        flags,
        window: 0,
        checksum: 0,
        urgent: 0,
    };
    TcpHeader {
        checksum: transport_checksum::<F>(packet.source, packet.destination, &header),
        ..header
    }
}

/// Of a TCP segment without options and payload.
#[inline(always)]
fn transport_checksum<F: Rewrite>(
    source: F::Address,
    destination: F::Address,
    header: &TcpHeader,
) -> u16 {
    let numbers = [header.sequence, header.acknowledgement];
    let sum = checksum_words(&F::words(source), header.source_port)
        + checksum_words(&F::words(destination), header.destination_port)
        + checksum_words(&numbers, u16::from_ne_bytes([header.offset, header.flags]))
        + u32::from(u16::from(tcp::PROTOCOL).to_be())
        + u32::from((TcpHeader::LENGTH as u16).to_be());
    !checksum::fold(sum)
}

/// What Linux gives its own packets.
const ANSWER_HOPS: u8 = 64;

/// Puts the Ethernet addresses of the next hop.
///
/// # Errors
/// [`Reason::Internal`]: no frame is that short once it was parsed.
#[inline(always)]
pub fn link<T: Frame>(frame: &mut T, macs: [u32; 3]) -> Result<(), Reason> {
    frame.write(0, macs).ok_or(Reason::Internal)
}

/// Replaces a port, given by its offset, and corrects the checksum of the transport header.
#[inline(always)]
fn transport<F: Rewrite, T: Frame>(
    frame: &mut T,
    packet: &Packet<F>,
    (port_at, port): (usize, u16),
    old: u32,
    new: u32,
) -> Result<(), Reason> {
    if packet.is_later_fragment() {
        return Ok(());
    }
    frame
        .write(packet.transport() + port_at, port)
        .ok_or(Reason::Internal)?;
    if packet.protocol == tcp::PROTOCOL {
        let at = packet.transport() + TcpHeader::CHECKSUM;
        let before: u16 = frame.read(at).ok_or(Reason::Internal)?;
        frame
            .write(at, checksum::update(before, old, new))
            .ok_or(Reason::Internal)
    } else if packet.protocol == udp::PROTOCOL {
        let at = packet.transport() + UdpHeader::CHECKSUM;
        let before: u16 = frame.read(at).ok_or(Reason::Internal)?;
        frame
            .write(at, checksum::update_udp(before, old, new))
            .ok_or(Reason::Internal)
    } else {
        Ok(())
    }
}
