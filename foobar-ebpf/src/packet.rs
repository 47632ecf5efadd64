//! A frame's headers, parsed once for all stages.

use crate::{
    family::{Family, V4, V6},
    frame::Frame,
    verdict::Reason,
    wire::{
        ethernet::{self, EthernetHeader},
        icmp::{self, IcmpHeader},
        ipv4::Ipv4Header,
        ipv6::{self, ExtensionHeader, Ipv6Header},
        tcp::{self, TcpHeader},
        udp::{self, UdpHeader},
        vlan::{self, VlanTag},
    },
};

/// Extension headers that the parser follows.
const EXTENSIONS: usize = 2;
/// Where the last header that is looked at may begin.
const DEEPEST: usize = 1024;

/// Bounds that hold for every parsed packet, spelt out for the verifier: it compares an offset into a packet with the
/// packet's end only where offset and header together stay below 65,536.
const NETWORK_BOUND: usize = 0xff;
const TRANSPORT_BOUND: usize = 0xfff;

/// What the Ethernet header and its tags announce.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Network {
    V4(usize),
    V6(usize),
    Arp,
    Other,
}

/// Who made the frame: what came over a wire is held to its total length, what the own stack sends may be larger
/// than its header can say (segmentation offload).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    Wire,
    Stack,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fragment {
    Whole,
    /// With the datagram's identification.
    First(u32),
    Later(u32),
}

#[derive(Clone, Copy, Debug)]
pub struct Packet<F: Family> {
    pub source: F::Address,
    pub destination: F::Address,
    /// Bytes from the IP header on.
    pub length: u32,
    /// Offset of the IP header.
    pub network: u16,
    /// Offset of what follows the IP header and its extensions.
    pub transport: u16,
    /// Source and destination port, network order. ICMP: 0, and type and code.
    pub ports: (u16, u16),
    /// False for other protocols and for later fragments: `ports` is then (0, 0).
    pub has_ports: bool,
    pub protocol: u8,
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`]; a number: read back from memory, it may be any.
    pub(crate) piece: u8,
    pub(crate) identification: u32,
}

const WHOLE: u8 = 0;
const FIRST: u8 = 1;
const LATER: u8 = 2;

impl<F: Family> Packet<F> {
    /// No packet; a place for one.
    #[must_use]
    pub const fn nothing(address: F::Address) -> Self {
        Self {
            source: address,
            destination: address,
            length: 0,
            network: 0,
            transport: 0,
            ports: (0, 0),
            has_ports: false,
            protocol: 0,
            tcp_flags: 0,
            hops: 0,
            piece: WHOLE,
            identification: 0,
        }
    }

    #[inline(always)]
    #[must_use]
    pub fn fragment(&self) -> Fragment {
        match self.piece {
            WHOLE => Fragment::Whole,
            FIRST => Fragment::First(self.identification),
            _ => Fragment::Later(self.identification),
        }
    }

    #[inline(always)]
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.piece == LATER
    }

    #[inline(always)]
    #[must_use]
    pub fn network(&self) -> usize {
        usize::from(self.network) & NETWORK_BOUND
    }

    #[inline(always)]
    #[must_use]
    pub fn transport(&self) -> usize {
        usize::from(self.transport) & TRANSPORT_BOUND
    }

    /// What a rule compares, in host order; see [`crate::abi::ruleset`] for the dims.
    #[inline(always)]
    #[must_use]
    pub fn field(&self, dim: u32) -> u32 {
        match F::address_field(&self.source, &self.destination, dim) {
            Ok(field) => field,
            Err(0) => u32::from(u16::from_be(self.ports.0)),
            Err(1) => u32::from(u16::from_be(self.ports.1)),
            Err(_) => u32::from(self.protocol),
        }
    }

    #[inline(always)]
    #[must_use]
    pub fn opens_tcp(&self) -> bool {
        self.protocol == tcp::PROTOCOL && tcp::opens(self.tcp_flags)
    }

    /// Later fragments have none, even where their ports are remembered.
    #[inline(always)]
    #[must_use]
    pub fn has_tcp_flags(&self) -> bool {
        !self.is_later_fragment()
    }

    /// ICMP type and code.
    #[inline(always)]
    #[must_use]
    pub fn icmp(&self) -> (u8, u8) {
        let [kind, code] = self.ports.1.to_ne_bytes();
        (kind, code)
    }
}

/// A family's IP header.
pub trait Parse: Family {
    const ICMP: u8;
    /// # Errors
    /// The reason to drop the frame for.
    fn parse<T: Frame>(frame: &T, network: usize, origin: Origin) -> Result<Packet<Self>, Reason>
    where
        Self: Sized;
    /// The packet that an ICMP error quotes: addresses, ports and protocol of it.
    fn quoted<T: Frame>(frame: &T, error: &Packet<Self>) -> Option<Packet<Self>>
    where
        Self: Sized;
}

/// # Errors
/// The reason to drop the frame for.
#[inline(always)]
pub fn link<T: Frame>(frame: &T) -> Result<Network, Reason> {
    let ethernet: EthernetHeader = frame.read(0).ok_or(Reason::Truncated)?;
    let mut ethertype = ethernet.ethertype;
    let mut offset = EthernetHeader::LENGTH;
    if vlan::is_tag(ethertype) {
        let tag: VlanTag = frame.read(offset).ok_or(Reason::Truncated)?;
        offset += VlanTag::LENGTH;
        ethertype = tag.ethertype;
        if vlan::is_tag(ethertype) {
            let tag: VlanTag = frame.read(offset).ok_or(Reason::Truncated)?;
            offset += VlanTag::LENGTH;
            ethertype = tag.ethertype;
        }
    }
    match ethertype {
        ethernet::IPV4 => Ok(Network::V4(offset)),
        ethernet::IPV6 => Ok(Network::V6(offset)),
        ethernet::ARP => Ok(Network::Arp),
        tag if vlan::is_tag(tag) => Err(Reason::TooDeep),
        _ => Ok(Network::Other),
    }
}

impl Parse for V4 {
    const ICMP: u8 = icmp::PROTOCOL;

    #[inline(always)]
    fn parse<T: Frame>(frame: &T, network: usize, origin: Origin) -> Result<Packet<V4>, Reason> {
        let header: Ipv4Header = frame.read(network).ok_or(Reason::Truncated)?;
        let header_length = header.header_length();
        if header.version() != 4 || header_length < Ipv4Header::LENGTH {
            return Err(Reason::Malformed);
        }
        let length = length(
            frame,
            network,
            usize::from(u16::from_be(header.total_length)),
            origin,
        )?;
        if length < header_length {
            return Err(Reason::Malformed);
        }
        let identification = u32::from(header.identification);
        let piece = if header.fragment & Ipv4Header::FRAGMENT_OFFSET != 0 {
            LATER
        } else if header.fragment & Ipv4Header::MORE_FRAGMENTS != 0 {
            FIRST
        } else {
            WHOLE
        };
        // RFC 1858: a fragment at offset 8 exists to overwrite the flags of a TCP header.
        if header.fragment & Ipv4Header::FRAGMENT_OFFSET == 1_u16.to_be()
            && header.lifetime.protocol == tcp::PROTOCOL
        {
            return Err(Reason::Malformed);
        }
        let mut packet = Packet {
            network: network as u16,
            transport: (network + header_length) as u16,
            length: length as u32,
            source: header.source,
            destination: header.destination,
            ports: (0, 0),
            has_ports: false,
            protocol: header.lifetime.protocol,
            tcp_flags: 0,
            hops: header.lifetime.time_to_live,
            piece,
            identification,
        };
        transport(frame, &mut packet, length - header_length)?;
        Ok(packet)
    }

    #[inline(always)]
    fn quoted<T: Frame>(frame: &T, error: &Packet<V4>) -> Option<Packet<V4>> {
        let network = error.transport() + IcmpHeader::LENGTH;
        let header: Ipv4Header = frame.read(network)?;
        let header_length = header.header_length();
        if header.version() != 4
            || header_length < Ipv4Header::LENGTH
            || header.fragment & Ipv4Header::FRAGMENT_OFFSET != 0
        {
            return None;
        }
        let transport = network + header_length;
        Some(Packet {
            network: network as u16,
            transport: transport as u16,
            length: u32::from(u16::from_be(header.total_length)),
            source: header.source,
            destination: header.destination,
            ports: quoted_ports(frame, transport, header.lifetime.protocol)?,
            has_ports: true,
            protocol: header.lifetime.protocol,
            tcp_flags: 0,
            hops: header.lifetime.time_to_live,
            piece: WHOLE,
            identification: 0,
        })
    }
}

impl Parse for V6 {
    const ICMP: u8 = icmp::PROTOCOL_V6;

    #[inline(always)]
    fn parse<T: Frame>(frame: &T, network: usize, origin: Origin) -> Result<Packet<V6>, Reason> {
        let header: Ipv6Header = frame.read(network).ok_or(Reason::Truncated)?;
        if header.version() != 6 {
            return Err(Reason::Malformed);
        }
        let announced = match usize::from(u16::from_be(header.payload_length)) {
            0 => 0,
            payload => payload + Ipv6Header::LENGTH,
        };
        let length = match (announced, header.next.next_header) {
            // An empty packet ends with its header ("no next header"); a jumbogram's length is in an option, and no
            // Ethernet frame is one.
            (0, _) if origin == Origin::Wire => Ipv6Header::LENGTH,
            _ => length(frame, network, announced, origin)?,
        };
        let mut packet = Packet {
            network: network as u16,
            transport: (network + Ipv6Header::LENGTH) as u16,
            length: length as u32,
            source: header.source,
            destination: header.destination,
            ports: (0, 0),
            has_ports: false,
            protocol: header.next.next_header,
            tcp_flags: 0,
            hops: header.next.hop_limit,
            piece: WHOLE,
            identification: 0,
        };
        extensions(frame, &mut packet)?;
        let before = packet.transport() - network;
        if length < before {
            return Err(Reason::Malformed);
        }
        transport(frame, &mut packet, length - before)?;
        Ok(packet)
    }

    #[inline(always)]
    fn quoted<T: Frame>(frame: &T, error: &Packet<V6>) -> Option<Packet<V6>> {
        let network = error.transport() + IcmpHeader::LENGTH;
        let header: Ipv6Header = frame.read(network)?;
        if header.version() != 6 {
            return None;
        }
        let transport = network + Ipv6Header::LENGTH;
        Some(Packet {
            network: network as u16,
            transport: transport as u16,
            length: u32::from(u16::from_be(header.payload_length)) + Ipv6Header::LENGTH as u32,
            source: header.source,
            destination: header.destination,
            ports: quoted_ports(frame, transport, header.next.next_header)?,
            has_ports: true,
            protocol: header.next.next_header,
            tcp_flags: 0,
            hops: header.next.hop_limit,
            piece: WHOLE,
            identification: 0,
        })
    }
}

/// Bytes from the IP header on, as announced, if the frame has them.
#[inline(always)]
fn length<T: Frame>(
    frame: &T,
    network: usize,
    announced: usize,
    origin: Origin,
) -> Result<usize, Reason> {
    if origin == Origin::Stack {
        return Ok(frame.length() - network);
    }
    if frame.holds(network + announced) {
        Ok(announced)
    } else {
        Err(Reason::Truncated)
    }
}

#[inline(always)]
fn extensions<T: Frame>(frame: &T, packet: &mut Packet<V6>) -> Result<(), Reason> {
    if !is_extension(packet.protocol) {
        return Ok(());
    }
    for _ in 0..EXTENSIONS {
        if packet.transport() > DEEPEST {
            return Err(Reason::TooDeep);
        }
        let header: ExtensionHeader = frame.read(packet.transport()).ok_or(Reason::Truncated)?;
        let units = u16::from(header.length);
        packet.transport += match packet.protocol {
            ipv6::FRAGMENT => ExtensionHeader::LENGTH as u16,
            ipv6::AUTHENTICATION => (units + 2) << 2,
            _ => (units + 1) << 3,
        };
        if packet.protocol == ipv6::FRAGMENT {
            packet.protocol = header.next_header;
            packet.identification = header.identification;
            if header.fragment & ExtensionHeader::FRAGMENT_OFFSET != 0 {
                // What follows is data, whatever the chain says.
                packet.piece = LATER;
                return Ok(());
            }
            packet.piece = if header.fragment & ExtensionHeader::MORE_FRAGMENTS != 0 {
                FIRST
            } else {
                // RFC 6946: an atomic fragment is whole.
                WHOLE
            };
        } else {
            packet.protocol = header.next_header;
        }
        if !is_extension(packet.protocol) {
            return Ok(());
        }
    }
    Err(Reason::TooDeep)
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        ipv6::HOP_BY_HOP
            | ipv6::ROUTING
            | ipv6::FRAGMENT
            | ipv6::AUTHENTICATION
            | ipv6::DESTINATION_OPTIONS
    )
}

/// Ports and flags of the transport header, of which `available` bytes are announced.
#[inline(always)]
fn transport<F: Parse, T: Frame>(
    frame: &T,
    packet: &mut Packet<F>,
    available: usize,
) -> Result<(), Reason> {
    if packet.is_later_fragment() {
        return Ok(());
    }
    if packet.transport() > DEEPEST + 2048 {
        return Err(Reason::TooDeep);
    }
    match packet.protocol {
        tcp::PROTOCOL => {
            let header: TcpHeader = frame.read(packet.transport()).ok_or(Reason::Truncated)?;
            if available < TcpHeader::LENGTH {
                return Err(Reason::Truncated);
            }
            if header.header_length() < TcpHeader::LENGTH {
                return Err(Reason::Malformed);
            }
            if header.header_length() > available {
                return Err(Reason::Truncated);
            }
            packet.ports = (header.source_port, header.destination_port);
            packet.tcp_flags = header.flags;
            packet.has_ports = true;
        }
        udp::PROTOCOL => {
            let header: UdpHeader = frame.read(packet.transport()).ok_or(Reason::Truncated)?;
            if available < UdpHeader::LENGTH {
                return Err(Reason::Truncated);
            }
            let announced = usize::from(u16::from_be(header.length));
            let whole = packet.piece == WHOLE;
            if announced < UdpHeader::LENGTH && announced != 0 || whole && announced > available {
                return Err(Reason::Malformed);
            }
            packet.ports = (header.source_port, header.destination_port);
            packet.has_ports = true;
        }
        protocol if protocol == F::ICMP => {
            let header: IcmpHeader = frame.read(packet.transport()).ok_or(Reason::Truncated)?;
            if available < IcmpHeader::LENGTH {
                return Err(Reason::Truncated);
            }
            packet.ports = (0, u16::from_ne_bytes([header.kind, header.code]));
            packet.has_ports = true;
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn quoted_ports<T: Frame>(frame: &T, transport: usize, protocol: u8) -> Option<(u16, u16)> {
    match protocol {
        tcp::PROTOCOL | udp::PROTOCOL => {
            let [source, destination]: [u16; 2] = frame.read(transport)?;
            Some((source, destination))
        }
        _ => None,
    }
}
