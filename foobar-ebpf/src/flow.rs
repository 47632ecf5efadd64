//! Connections that this node opened, and datagrams in pieces: what lets a reply or a later fragment in.

use crate::{
    abi::FirstFragment,
    packet::{Fragment, Packet, Parse},
    tables::{Tables, TablesOf},
    wire::{icmp, tcp},
};

/// nf_conntrack keeps idle TCP connections for five days, UDP streams for two minutes.
const TCP_SECONDS: u32 = 432_000;
const OTHER_SECONDS: u32 = 120;

const NANOSECONDS: u64 = 1_000_000_000;

#[inline(always)]
pub fn seconds<T: Tables>(tables: &T) -> u32 {
    tables
        .now()
        .checked_div(NANOSECONDS)
        .map_or(0, |seconds| seconds as u32)
}

/// Ports of a packet that answers a packet with these; ICMP: the answering type.
#[inline(always)]
fn answering_ports<F: Parse>(protocol: u8, ports: (u16, u16)) -> (u16, u16) {
    if protocol != F::ICMP {
        return (ports.1, ports.0);
    }
    let [kind, code] = ports.1.to_ne_bytes();
    let answer = match kind {
        8 if F::ICMP == icmp::PROTOCOL => 0,
        13 if F::ICMP == icmp::PROTOCOL => 14,
        128 if F::ICMP == icmp::PROTOCOL_V6 => 129,
        other => other,
    };
    (0, u16::from_ne_bytes([answer, code]))
}

/// The packet that would answer this one, as an established flow shows it.
#[inline(always)]
#[must_use]
pub fn reply_to<F: Parse>(packet: &Packet<F>) -> Packet<F> {
    Packet {
        source: packet.destination,
        destination: packet.source,
        ports: answering_ports::<F>(packet.protocol, packet.ports),
        tcp_flags: tcp::TcpHeader::ACK,
        ..*packet
    }
}

/// Notes a packet that leaves, so that its replies come in.
#[inline(always)]
pub fn note<F: Parse, T: Tables + TablesOf<F>>(packet: &Packet<F>, tables: &mut T) {
    let reply = F::flow(
        packet.destination,
        packet.source,
        answering_ports::<F>(packet.protocol, packet.ports),
        packet.protocol,
    );
    let now = seconds(tables);
    tables.note_flow(&reply, now);
}

/// Whether the packet answers one that left.
#[inline(always)]
pub fn is_reply<F: Parse, T: Tables + TablesOf<F>>(packet: &Packet<F>, tables: &mut T) -> bool {
    if packet.opens_tcp() {
        return false;
    }
    let flow = F::flow(
        packet.source,
        packet.destination,
        packet.ports,
        packet.protocol,
    );
    let Some(seen) = tables.flow(&flow) else {
        return false;
    };
    let now = seconds(tables);
    if now.wrapping_sub(seen) > idle_seconds(packet.protocol) {
        return false;
    }
    if now != seen {
        tables.note_flow(&flow, now);
    }
    true
}

/// Whether the packet that an ICMP error quotes left here.
#[inline(always)]
pub fn is_about_ours<F: Parse, T: Tables + TablesOf<F>>(quoted: &Packet<F>, tables: &T) -> bool {
    let reply = F::flow(
        quoted.destination,
        quoted.source,
        answering_ports::<F>(quoted.protocol, quoted.ports),
        quoted.protocol,
    );
    tables
        .flow(&reply)
        .is_some_and(|seen| seconds(tables).wrapping_sub(seen) <= idle_seconds(quoted.protocol))
}

#[inline(always)]
const fn idle_seconds(protocol: u8) -> u32 {
    if protocol == tcp::PROTOCOL {
        TCP_SECONDS
    } else {
        OTHER_SECONDS
    }
}

/// Whether a packet may be an answer at all.
#[inline(always)]
#[must_use]
pub fn answers<F: Parse>(packet: &Packet<F>) -> bool {
    let (kind, _) = packet.icmp();
    if packet.protocol == F::ICMP {
        icmp::answered_by(kind).is_some()
    } else {
        !packet.opens_tcp()
    }
}

/// The packet that this one would answer: addresses swapped, ICMP answers turned into what they answer.
#[inline(always)]
#[must_use]
pub fn answered<F: Parse>(packet: &Packet<F>) -> Packet<F> {
    let ports = if packet.protocol == F::ICMP {
        let (kind, code) = packet.icmp();
        let question = icmp::answered_by(kind).unwrap_or(kind);
        (0, u16::from_ne_bytes([question, code]))
    } else {
        (packet.ports.1, packet.ports.0)
    };
    Packet {
        source: packet.destination,
        destination: packet.source,
        ports,
        // Any packet of a connection that was let in began with a SYN.
        tcp_flags: tcp::TcpHeader::SYN,
        ..*packet
    }
}

/// Notes the ports of a first fragment, gives them to a later one.
#[inline(always)]
pub fn resolve_fragment<F: Parse, T: Tables + TablesOf<F>>(packet: &mut Packet<F>, tables: &mut T) {
    match packet.fragment() {
        Fragment::Whole => {}
        Fragment::First(identification) => {
            if packet.has_ports {
                let datagram = F::datagram(
                    packet.source,
                    packet.destination,
                    identification,
                    packet.protocol,
                );
                let seen = seconds(tables);
                let (source_port, destination_port) = packet.ports;
                tables.note_first_fragment(
                    &datagram,
                    FirstFragment {
                        source_port,
                        destination_port,
                        seen,
                    },
                );
            }
        }
        Fragment::Later(identification) => {
            let datagram = F::datagram(
                packet.source,
                packet.destination,
                identification,
                packet.protocol,
            );
            if let Some(first) = tables.first_fragment(&datagram)
                && seconds(tables).wrapping_sub(first.seen) <= FirstFragment::SECONDS
            {
                packet.ports = (first.source_port, first.destination_port);
                packet.has_ports = true;
            }
        }
    }
}
