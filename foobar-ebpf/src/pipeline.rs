//! The order of the stages.

use crate::{
    abi::{Backend, NextHop, Return, Vip},
    balancer,
    family::{V4, V6},
    firewall::{self, Ruling},
    flow,
    frame::Frame,
    packet::{self, Fragment, Network, Origin, Packet},
    rewrite::{self, Rewrite},
    tables::{Direction, Route, Tables, TablesOf, Way},
    verdict::{Reason, Verdict},
    wire::{icmp, tcp, udp},
};

/// What comes in through an interface (XDP).
#[inline(always)]
pub fn ingress<F: Frame, T: Tables + TablesOf<V4> + TablesOf<V6>>(
    frame: &mut F,
    tables: &mut T,
) -> Verdict {
    let verdict = match packet::link(frame) {
        Ok(Network::V4(network)) => ingress_of::<V4, _, _>(frame, network, tables),
        Ok(Network::V6(network)) => ingress_of::<V6, _, _>(frame, network, tables),
        Ok(Network::Arp) => Ok(Verdict::pass(Reason::Neighbour)),
        Ok(Network::Other) => Ok(Verdict::pass(Reason::NotIp)),
        Err(reason) => Err(reason),
    };
    conclude(verdict, Direction::Ingress, frame.length(), tables)
}

/// What leaves through an interface (TC).
#[inline(always)]
pub fn egress<F: Frame, T: Tables + TablesOf<V4> + TablesOf<V6>>(
    frame: &mut F,
    tables: &mut T,
) -> Verdict {
    let verdict = match packet::link(frame) {
        Ok(Network::V4(network)) => egress_of::<V4, _, _>(frame, network, tables),
        Ok(Network::V6(network)) => egress_of::<V6, _, _>(frame, network, tables),
        Ok(Network::Arp) => Ok(Verdict::pass(Reason::Neighbour)),
        Ok(Network::Other) => Ok(Verdict::pass(Reason::NotIp)),
        Err(reason) => Err(reason),
    };
    conclude(verdict, Direction::Egress, frame.length(), tables)
}

#[inline(always)]
fn conclude<T: Tables>(
    verdict: Result<Verdict, Reason>,
    direction: Direction,
    length: usize,
    tables: &mut T,
) -> Verdict {
    let verdict = verdict.unwrap_or_else(Verdict::drop);
    tables.count_verdict(direction, verdict.reason, length as u32);
    tables.trace(|trace| trace.reason = verdict.reason as u32);
    verdict
}

// A function of its own in the kernel: two families' keys together do not fit into 512 bytes of stack.
#[inline(never)]
fn ingress_of<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    network: usize,
    tables: &mut M,
) -> Result<Verdict, Reason> {
    let mut packet = F::parse(frame, network, Origin::Wire)?;
    flow::resolve_fragment(&mut packet, tables);
    if is_neighbourly(&packet) {
        return Ok(Verdict::pass(Reason::Neighbour));
    }
    let ruling = firewall::decide(&packet, tables, Direction::Ingress)?;
    if let Ruling::Refused(reason) = ruling {
        return Err(reason);
    }
    if is_balanced_protocol(packet.protocol) {
        let endpoint = F::endpoint(packet.destination, packet.ports.1, packet.protocol);
        if let Some(vip) = tables.vip(&endpoint).copied() {
            return to_backend(frame, &packet, &vip, ruling, tables);
        }
        let endpoint = F::endpoint(packet.source, packet.ports.0, packet.protocol);
        if !packet.opens_tcp()
            && let Some(back) = tables.backend_return(&endpoint).copied()
            && !tables.is_local(packet.destination)
        {
            return to_client(frame, &packet, &back, tables);
        }
    } else if is_icmp_error(&packet) {
        return icmp_error(frame, &packet, ruling, tables);
    }
    match ruling {
        Ruling::Admitted(reason) => Ok(Verdict::pass(reason)),
        _ if flow::is_reply(&packet, tables) => Ok(Verdict::pass(Reason::Reply)),
        _ => Err(unmatched(&packet)),
    }
}

#[inline(always)]
fn to_backend<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    packet: &Packet<F>,
    vip: &Vip,
    ruling: Ruling,
    tables: &mut M,
) -> Result<Verdict, Reason> {
    tables.trace(|trace| trace.vip = vip.vip);
    if ruling == Ruling::Unmatched {
        return Err(unmatched(packet));
    }
    let id = balancer::choose(packet, vip.vip, tables)?;
    tables.trace(|trace| trace.backend = id);
    let backend = tables.backend(id).ok_or(Reason::Internal)?;
    let endpoint = backend.endpoint::<F>();
    let hop = hop_of(backend, packet.length)?;
    rewrite::to_backend(frame, packet, vip, &endpoint)?;
    rewrite::link(frame, hop.macs)?;
    let opens = packet.opens_tcp();
    tables.count_balanced(id, Way::ToBackend { opens }, packet.length);
    Ok(Verdict::transmit(Reason::Forwarded, hop.ifindex))
}

#[inline(always)]
fn to_client<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    packet: &Packet<F>,
    back: &Return,
    tables: &mut M,
) -> Result<Verdict, Reason> {
    tables.trace(|trace| {
        trace.vip = back.vip;
        trace.backend = back.backend;
    });
    // It answers a packet that the vip's policy admitted: a policy's default does not cut it.
    let vip = back.endpoint::<F>();
    let hop = match tables.route(packet.destination) {
        0 => kernel_hop(vip.address, packet.destination, packet.length, tables)?,
        index => checked(
            tables.next_hop(index).copied().ok_or(Reason::Internal)?,
            packet.length,
        )?,
    };
    rewrite::to_client(frame, packet, back.backend_sum, &vip)?;
    rewrite::link(frame, hop.macs)?;
    tables.count_balanced(back.backend, Way::ToClient, packet.length);
    Ok(Verdict::transmit(Reason::Returned, hop.ifindex))
}

/// An error about a packet of a balanced flow goes to the flow's backend, one about a packet of ours to the stack.
#[inline(never)]
fn icmp_error<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    packet: &Packet<F>,
    ruling: Ruling,
    tables: &mut M,
) -> Result<Verdict, Reason> {
    let quoted = F::quoted(frame, packet);
    if let Some(quoted) = &quoted
        && quoted.source == packet.destination
        && let endpoint = F::endpoint(quoted.source, quoted.ports.0, quoted.protocol)
        && let Some(vip) = tables.vip(&endpoint).copied()
    {
        return error_to_backend(frame, packet, quoted, &vip, tables);
    }
    match (ruling, quoted) {
        (Ruling::Admitted(reason), _) => Ok(Verdict::pass(reason)),
        (_, Some(quoted)) if flow::is_about_ours(&quoted, tables) => {
            Ok(Verdict::pass(Reason::Reply))
        }
        _ if is_path_mtu(packet) => Ok(Verdict::pass(Reason::PathMtu)),
        _ => Err(unmatched(packet)),
    }
}

#[inline(always)]
fn error_to_backend<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    error: &Packet<F>,
    quoted: &Packet<F>,
    vip: &Vip,
    tables: &mut M,
) -> Result<Verdict, Reason> {
    // The flow as the client's packets show it.
    let flow = Packet {
        source: quoted.destination,
        destination: quoted.source,
        ports: (quoted.ports.1, quoted.ports.0),
        ..*quoted
    };
    let id = balancer::choose(&flow, vip.vip, tables)?;
    tables.trace(|trace| {
        trace.vip = vip.vip;
        trace.backend = id;
    });
    let backend = tables.backend(id).ok_or(Reason::Internal)?;
    let endpoint = backend.endpoint::<F>();
    let hop = hop_of(backend, error.length)?;
    rewrite::error_to_backend(frame, error, quoted, vip, &endpoint)?;
    rewrite::link(frame, hop.macs)?;
    Ok(Verdict::transmit(Reason::ErrorForwarded, hop.ifindex))
}

#[inline(never)]
fn egress_of<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    network: usize,
    tables: &mut M,
) -> Result<Verdict, Reason> {
    let mut packet = F::parse(frame, network, Origin::Stack)?;
    flow::resolve_fragment(&mut packet, tables);
    if is_neighbourly(&packet) {
        return Ok(Verdict::pass(Reason::Neighbour));
    }
    match firewall::decide(&packet, tables, Direction::Egress)? {
        Ruling::Admitted(reason) => {
            if !replies_are_admitted(&packet, tables)? {
                flow::note(&packet, tables);
            }
            Ok(Verdict::pass(reason))
        }
        Ruling::Refused(reason) => Err(reason),
        Ruling::Unmatched => match flow::answered(&packet) {
            Some(opening) if firewall::would_admit(&opening, tables, Direction::Ingress)? => {
                Ok(Verdict::pass(Reason::Reply))
            }
            _ if is_path_mtu(&packet) => Ok(Verdict::pass(Reason::PathMtu)),
            _ => Err(unmatched(&packet)),
        },
    }
}

/// Whether what answers this packet comes in by the ingress policy itself, so that no flow need be kept.
#[inline(always)]
fn replies_are_admitted<F: Rewrite, M: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    tables: &M,
) -> Result<bool, Reason> {
    firewall::would_admit(&flow::reply_to(packet), tables, Direction::Ingress)
}

#[inline(always)]
fn hop_of(backend: &Backend, length: u32) -> Result<NextHop, Reason> {
    checked(
        NextHop {
            macs: backend.macs,
            ifindex: backend.ifindex,
            mtu: backend.mtu,
            flags: backend.flags,
        },
        length,
    )
}

#[inline(always)]
fn checked(hop: NextHop, length: u32) -> Result<NextHop, Reason> {
    if hop.flags & Backend::RESOLVED == 0 {
        Err(Reason::NoNeighbour)
    } else if length > hop.mtu {
        Err(Reason::TooBig)
    } else {
        Ok(hop)
    }
}

#[inline(always)]
fn kernel_hop<F: Rewrite, M: Tables + TablesOf<F>>(
    source: F::Address,
    destination: F::Address,
    length: u32,
    tables: &mut M,
) -> Result<NextHop, Reason> {
    match tables.kernel_route(source, destination) {
        Route::Via(hop) => checked(hop, length),
        Route::NoNeighbour => {
            tables.want(destination);
            Err(Reason::NoNeighbour)
        }
        Route::None => Err(Reason::NoRoute),
    }
}

/// What the policy's default drops, told apart where the cause is another.
#[inline(always)]
fn unmatched<F: Rewrite>(packet: &Packet<F>) -> Reason {
    if matches!(packet.fragment, Fragment::Later(_)) && !packet.has_ports {
        Reason::FragmentUnknown
    } else {
        Reason::PolicyDrop
    }
}

#[inline(always)]
const fn is_balanced_protocol(protocol: u8) -> bool {
    protocol == tcp::PROTOCOL || protocol == udp::PROTOCOL
}

/// Neighbour discovery (RFC 4861 7.1: never from beyond a router) and multicast listener messages.
#[inline(always)]
fn is_neighbourly<F: Rewrite>(packet: &Packet<F>) -> bool {
    let (kind, _) = packet.icmp();
    F::ICMP == icmp::PROTOCOL_V6
        && packet.protocol == icmp::PROTOCOL_V6
        && packet.has_ports
        && (packet.hops == 255 && icmp::is_neighbour_discovery(kind)
            || packet.hops == 1 && icmp::is_multicast_listener(kind))
}

#[inline(always)]
fn is_icmp_error<F: Rewrite>(packet: &Packet<F>) -> bool {
    let (kind, _) = packet.icmp();
    packet.protocol == F::ICMP
        && packet.fragment == Fragment::Whole
        && if F::ICMP == icmp::PROTOCOL {
            icmp::is_error(kind)
        } else {
            icmp::is_error_v6(kind)
        }
}

#[inline(always)]
fn is_path_mtu<F: Rewrite>(packet: &Packet<F>) -> bool {
    let (kind, code) = packet.icmp();
    packet.protocol == F::ICMP
        && packet.has_ports
        && if F::ICMP == icmp::PROTOCOL {
            icmp::is_path_mtu(kind, code)
        } else {
            icmp::is_path_mtu_v6(kind)
        }
}
