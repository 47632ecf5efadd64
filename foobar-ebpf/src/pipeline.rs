//! The order of the stages.

use crate::{
    abi::{Backend, NextHop, Return, Vip},
    balancer,
    family::{V4, V6},
    firewall::{self, Outcome, Ruling},
    flow,
    frame::Frame,
    guard,
    packet::{self, Fragment, Network, Origin, Packet, Parse},
    rewrite::{self, Rewrite},
    session,
    tables::{Direction, Route, Tables, TablesOf, Way},
    verdict::{Reason, Verdict},
    wire::{icmp, tcp, udp},
    workspace::{Workspace, Workspaces},
};

/// What comes in through an interface (XDP).
#[inline(always)]
pub fn ingress<F: Frame, T: Tables + TablesOf<V4> + TablesOf<V6>>(
    frame: &mut F,
    tables: &mut T,
    workspaces: &mut Workspaces,
) -> Verdict {
    let (verdict, bytes) = match packet::link(frame) {
        Ok(Network::V4(network)) => {
            let verdict = ingress_of(frame, network, tables, &mut workspaces.v4);
            (verdict, workspaces.v4.packet.length)
        }
        Ok(Network::V6(network)) => {
            let verdict = ingress_of(frame, network, tables, &mut workspaces.v6);
            (verdict, workspaces.v6.packet.length)
        }
        Ok(Network::Arp) => (Verdict::of(Reason::Neighbour), frame.length() as u32),
        Ok(Network::Other) => (Verdict::of(Reason::NotIp), frame.length() as u32),
        Err(reason) => (Verdict::of(reason), frame.length() as u32),
    };
    conclude(verdict, Direction::Ingress, bytes, tables)
}

/// What leaves through an interface (TC).
#[inline(always)]
pub fn egress<F: Frame, T: Tables + TablesOf<V4> + TablesOf<V6>>(
    frame: &mut F,
    tables: &mut T,
    workspaces: &mut Workspaces,
) -> Verdict {
    let (verdict, bytes) = match packet::link(frame) {
        Ok(Network::V4(network)) => {
            let verdict = egress_of(frame, network, tables, &mut workspaces.v4);
            (verdict, workspaces.v4.packet.length)
        }
        Ok(Network::V6(network)) => {
            let verdict = egress_of(frame, network, tables, &mut workspaces.v6);
            (verdict, workspaces.v6.packet.length)
        }
        Ok(Network::Arp) => (Verdict::of(Reason::Neighbour), frame.length() as u32),
        Ok(Network::Other) => (Verdict::of(Reason::NotIp), frame.length() as u32),
        Err(reason) => (Verdict::of(reason), frame.length() as u32),
    };
    conclude(verdict, Direction::Egress, bytes, tables)
}

#[inline(always)]
fn conclude<T: Tables>(
    verdict: Verdict,
    direction: Direction,
    bytes: u32,
    tables: &mut T,
) -> Verdict {
    tables.count_verdict(direction, verdict.reason, bytes);
    tables.trace(|trace| trace.reason = verdict.reason as u32);
    verdict
}

/// Parses into the workspace.
// A function of its own: what it knows of the packet, the verifier forgets at its end, and does not follow what comes
// after once for each way through the parser.
#[inline(never)]
fn parse<F: Parse, T: Frame>(
    frame: &T,
    network: usize,
    origin: Origin,
    packet: &mut Packet<F>,
) -> Option<Reason> {
    match F::parse(frame, network, origin) {
        Ok(parsed) => {
            *packet = parsed;
            None
        }
        Err(reason) => {
            packet.length = frame.length() as u32;
            Some(reason)
        }
    }
}

#[inline(always)]
fn ingress_of<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    network: usize,
    tables: &mut M,
    workspace: &mut Workspace<F>,
) -> Verdict {
    if let Some(reason) = parse(frame, network, Origin::Wire, &mut workspace.packet) {
        return Verdict::of(reason);
    }
    flow::resolve_fragment(&mut workspace.packet, tables);
    if is_neighbourly(&workspace.packet) {
        return Verdict::of(Reason::Neighbour);
    }
    let ruling = firewall::decide(
        &workspace.packet,
        &mut workspace.walk,
        tables,
        Direction::Ingress,
    );
    if ruling.outcome == Outcome::Refused {
        return Verdict::of(ruling.reason);
    }
    let packet = &workspace.packet;
    if is_balanced_protocol(packet.protocol) {
        let endpoint = F::endpoint(packet.destination, packet.ports.1, packet.protocol);
        if let Some(vip) = tables.vip(&endpoint).copied() {
            if vip.flags & Vip::GUARDED == 0 {
                return to_backend(frame, packet, &vip, ruling, tables)
                    .unwrap_or_else(|reason| answer(frame, packet, reason));
            }
            if let Some(reason) = guard::closes(packet, &vip, tables) {
                return answer(frame, packet, reason);
            }
        }
        if !packet.opens_tcp()
            && let Some(verdict) = from_backend(frame, packet, tables)
        {
            return verdict;
        }
    } else if is_icmp_error(packet) {
        return icmp_error(frame, ruling, tables, workspace).unwrap_or_else(Verdict::of);
    }
    if ruling.outcome == Outcome::Admitted {
        Verdict::of(ruling.reason)
    } else if flow::is_reply(packet, tables) {
        Verdict::of(Reason::Reply)
    } else {
        Verdict::of(unmatched(packet))
    }
}

/// Some packets that go nowhere are answered.
// As for `parse`.
#[inline(never)]
fn answer<F: Rewrite, T: Frame>(frame: &mut T, packet: &Packet<F>, reason: Reason) -> Verdict {
    if !reason.reflects() {
        return Verdict::of(reason);
    }
    match rewrite::reset(frame, packet) {
        Ok(()) => Verdict::of(reason),
        Err(other) => Verdict::of(other),
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
    if ruling.outcome == Outcome::Unmatched {
        return Err(unmatched(packet));
    }
    let id = if vip.flags & Vip::SESSIONS != 0 {
        session::to_backend(frame, packet, vip, tables)?
    } else {
        balancer::choose(packet, vip, tables)?
    };
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

/// The way of a backend's answer; `None`: it is none.
// A function of its own: all that are active at once share 512 bytes of stack.
#[inline(never)]
fn from_backend<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    packet: &Packet<F>,
    tables: &mut M,
) -> Option<Verdict> {
    let endpoint = F::endpoint(packet.source, packet.ports.0, packet.protocol);
    let back = tables.backend_return(&endpoint).copied()?;
    if tables.is_local(packet.destination) {
        return None;
    }
    Some(to_client(frame, packet, &back, tables).unwrap_or_else(Verdict::of))
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
    if back.flags & Vip::SESSIONS != 0 {
        session::to_client(frame, packet, back, tables)?;
    }
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
#[inline(always)]
fn icmp_error<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    ruling: Ruling,
    tables: &mut M,
    workspace: &mut Workspace<F>,
) -> Result<Verdict, Reason> {
    let Workspace { packet, other, .. } = workspace;
    if !quote(frame, packet, other) {
        return unquoted(packet, ruling);
    }
    let endpoint = F::endpoint(other.source, other.ports.0, other.protocol);
    if other.source == packet.destination
        && let Some(vip) = tables.vip(&endpoint).copied()
        && vip.flags & Vip::GUARDED == 0
    {
        return error_to_backend(frame, packet, other, &vip, tables);
    }
    if ruling.outcome != Outcome::Admitted && flow::is_about_ours(other, tables) {
        return Ok(Verdict::of(Reason::Reply));
    }
    unquoted(packet, ruling)
}

/// As [`parse`], for the packet that an error quotes.
#[inline(never)]
fn quote<F: Parse, T: Frame>(frame: &T, error: &Packet<F>, quoted: &mut Packet<F>) -> bool {
    match F::quoted(frame, error) {
        Some(found) => {
            *quoted = found;
            true
        }
        None => false,
    }
}

/// What becomes of an error that is about no flow we know.
#[inline(always)]
fn unquoted<F: Rewrite>(packet: &Packet<F>, ruling: Ruling) -> Result<Verdict, Reason> {
    if ruling.outcome == Outcome::Admitted {
        Ok(Verdict::of(ruling.reason))
    } else if is_path_mtu(packet) {
        Ok(Verdict::of(Reason::PathMtu))
    } else {
        Err(unmatched(packet))
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
    let id = if vip.flags & Vip::SESSIONS != 0 {
        session::of_flow(&flow, vip, tables)?
    } else {
        balancer::choose(&flow, vip, tables)?
    };
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

#[inline(always)]
fn egress_of<F: Rewrite, T: Frame, M: Tables + TablesOf<F>>(
    frame: &mut T,
    network: usize,
    tables: &mut M,
    workspace: &mut Workspace<F>,
) -> Verdict {
    let Workspace {
        packet,
        other,
        walk,
    } = workspace;
    if let Some(reason) = parse(frame, network, Origin::Stack, packet) {
        return Verdict::of(reason);
    }
    flow::resolve_fragment(packet, tables);
    if is_neighbourly(packet) {
        return Verdict::of(Reason::Neighbour);
    }
    let ruling = firewall::decide(packet, walk, tables, Direction::Egress);
    match ruling.outcome {
        Outcome::Admitted => {
            // What answers it comes in by the ingress policy itself, or by a flow that is kept.
            *other = flow::reply_to(packet);
            if !firewall::would_admit(other, walk, tables, Direction::Ingress) {
                flow::note(packet, tables);
            }
            Verdict::of(ruling.reason)
        }
        Outcome::Refused => Verdict::of(ruling.reason),
        Outcome::Unmatched => {
            if flow::answers(packet) {
                *other = flow::answered(packet);
                if firewall::would_admit(other, walk, tables, Direction::Ingress) {
                    return Verdict::of(Reason::Reply);
                }
            }
            Verdict::of(if is_path_mtu(packet) {
                Reason::PathMtu
            } else {
                unmatched(packet)
            })
        }
    }
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
    if packet.is_later_fragment() && !packet.has_ports {
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
        && packet.fragment() == Fragment::Whole
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
