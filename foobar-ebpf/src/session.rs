//! Flows of services that reset: each is known with its backend and its place in both streams, so that it can be cut.
//!
//! Elsewhere a hash is enough. Here a flow must end with its backend, on both sides and at once, and a RST is heeded
//! only with the sequence number that is expected next (RFC 5961 3.2): so these services pay for a table.

use crate::{
    abi::{Backend, Return, Session, Slot, Vip},
    balancer, flow,
    frame::Frame,
    packet::{Packet, Parse},
    tables::{Tables, TablesOf},
    verdict::Reason,
    wire::tcp::TcpHeader,
};

/// The backend of a client's packet.
///
/// # Errors
/// [`Reason::Reset`] and [`Reason::Refused`] are to be answered with a RST; [`Reason::NoBackend`] with silence.
// A function of its own, as `pipeline::parse` is: its many ways end in one that the verifier follows on.
#[inline(never)]
pub fn to_backend<F: Parse, T: Frame, M: Tables + TablesOf<F>>(
    frame: &T,
    packet: &Packet<F>,
    vip: &Vip,
    tables: &mut M,
) -> Result<u32, Reason> {
    let client = F::client(packet.source, packet.ports.0, vip.vip);
    let segment = Segment::of(frame, packet);
    let has_lapsed = has_lapsed(vip.flags, vip.vip, tables);
    if packet.opens_tcp() {
        if has_lapsed {
            return Err(refusal(vip));
        }
        return begin(frame, &client, segment, vip, tables);
    }
    let seen = flow::seconds(tables);
    let known = tables.with_session(&client, |session| {
        if segment.is_there {
            session.client_next = segment.next;
            if packet.tcp_flags & TcpHeader::ACK != 0 {
                session.server_next = segment.acknowledged;
            }
        }
        session.seen = seen;
        (session.backend, session.epoch)
    });
    match known {
        Some((backend, epoch)) if !has_lapsed && stands(backend, epoch, tables) => Ok(backend),
        _ => Err(reset(packet)),
    }
}

/// The backend of a flow that an ICMP error is about; the error moves nothing.
///
/// # Errors
/// [`Reason::NoBackend`]: no such flow, or one that was cut.
#[inline(always)]
pub fn of_flow<F: Parse, M: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    vip: &Vip,
    tables: &mut M,
) -> Result<u32, Reason> {
    let client = F::client(packet.source, packet.ports.0, vip.vip);
    match tables.with_session(&client, |session| (session.backend, session.epoch)) {
        Some((backend, epoch)) if stands(backend, epoch, tables) => Ok(backend),
        _ => Err(Reason::NoBackend),
    }
}

/// Whether a backend's packet may still go to its client.
///
/// # Errors
/// [`Reason::CutOff`].
// As for `to_backend`.
#[inline(never)]
pub fn to_client<F: Parse, T: Frame, M: Tables + TablesOf<F>>(
    frame: &T,
    packet: &Packet<F>,
    back: &Return,
    tables: &mut M,
) -> Result<(), Reason> {
    let client = F::client(packet.destination, packet.ports.1, back.vip);
    let segment = Segment::of(frame, packet);
    let known = tables.with_session(&client, |session| {
        if segment.is_there {
            session.server_next = segment.next;
        }
        (session.backend, session.epoch)
    });
    match known {
        Some((backend, epoch))
            if backend == back.backend
                && stands(backend, epoch, tables)
                && !has_lapsed(back.flags, back.vip, tables) =>
        {
            Ok(())
        }
        _ => Err(Reason::CutOff),
    }
}

#[inline(always)]
fn begin<F: Parse, T: Frame, M: Tables + TablesOf<F>>(
    frame: &T,
    client: &F::Client,
    segment: Segment,
    vip: &Vip,
    tables: &mut M,
) -> Result<u32, Reason> {
    let next = segment.next;
    let known = tables.with_session(client, |session| {
        (session.backend, session.epoch, session.client_next)
    });
    // A retransmitted SYN stays where the first one went.
    if let Some((backend, epoch, expected)) = known
        && expected == next
        && stands(backend, epoch, tables)
    {
        return Ok(backend);
    }
    let backend = balancer::slot_of::<F, M>(client, vip.vip, tables)?.current();
    if backend == Slot::NOBODY {
        return Err(refusal(vip));
    }
    let epoch = {
        let backend = tables.backend(backend).ok_or(Reason::Internal)?;
        // Lost, and the ring does not know yet: the SYN comes again.
        if backend.flags & Backend::ALIVE == 0 {
            return Err(Reason::NoBackend);
        }
        backend.epoch
    };
    let macs = frame.read(0).map_or([0; 3], swapped);
    let session = Session {
        backend,
        epoch,
        client_next: next,
        server_next: 0,
        seen: flow::seconds(tables),
        ifindex: tables.device(),
        macs,
    };
    tables.begin_session(client, session);
    Ok(backend)
}

/// The first twelve bytes of the Ethernet header of an answer.
#[inline(always)]
#[must_use]
pub fn swapped(macs: [u32; 3]) -> [u32; 3] {
    let [first, second, third] = macs.map(u32::from_le);
    [
        second >> 16 | third << 16,
        third >> 16 | first << 16,
        first >> 16 | second << 16,
    ]
    .map(u32::to_le)
}

#[inline(always)]
fn stands<M: Tables>(backend: u32, epoch: u32, tables: &M) -> bool {
    tables
        .backend(backend)
        .is_some_and(|backend| backend.flags & Backend::ALIVE != 0 && backend.epoch == epoch)
}

#[inline(always)]
fn has_lapsed<M: Tables>(flags: u32, vip: u32, tables: &M) -> bool {
    flags & Vip::LEASED != 0 && tables.lease(vip) <= tables.now()
}

#[inline(always)]
fn refusal(vip: &Vip) -> Reason {
    if vip.flags & Vip::REFUSE != 0 {
        Reason::Refused
    } else {
        Reason::NoBackend
    }
}

/// A RST is never answered with one.
#[inline(always)]
pub(crate) fn reset<F: Parse>(packet: &Packet<F>) -> Reason {
    if packet.tcp_flags & TcpHeader::RST != 0 || packet.is_later_fragment() {
        Reason::NoBackend
    } else {
        Reason::Reset
    }
}

/// Where a packet stands in its streams; host order.
// No `Option`: of its absent value LLVM makes a read of a register that nobody wrote, which the verifier refuses.
#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// False for a later fragment.
    is_there: bool,
    /// The sequence number after it.
    next: u32,
    acknowledged: u32,
}

impl Segment {
    #[inline(always)]
    fn of<F: Parse, T: Frame>(frame: &T, packet: &Packet<F>) -> Self {
        if packet.is_later_fragment() {
            return Self::default();
        }
        let Some(header) = frame.read::<TcpHeader>(packet.transport()) else {
            return Self::default();
        };
        Self {
            is_there: true,
            next: u32::from_be(header.sequence).wrapping_add(length(packet, &header)),
            acknowledged: u32::from_be(header.acknowledgement),
        }
    }
}

/// Sequence numbers that a segment takes: its payload, and one each for SYN and FIN.
#[inline(always)]
pub(crate) fn length<F: Parse>(packet: &Packet<F>, header: &TcpHeader) -> u32 {
    let headers = packet.transport() - packet.network() + header.header_length();
    let payload = packet.length.saturating_sub(headers as u32);
    payload
        + u32::from(header.flags & TcpHeader::SYN != 0)
        + u32::from(header.flags & TcpHeader::FIN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_where_the_frame_came_from() {
        let bytes: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let answer: [u8; 12] = swapped([word(0), word(4), word(8)])
            .map(u32::to_ne_bytes)
            .as_flattened()
            .try_into()
            .expect("twelve");
        assert_eq!(answer, [7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6]);
    }
}
