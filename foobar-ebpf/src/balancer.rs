//! Which backend a packet to a vip goes to.
//!
//! Just enough tracking (Barbette et al., JET, `CoNEXT` 2021): the hash decides, and only in a slot that is in
//! transition are flows remembered.

use crate::{
    abi::{Backend, RING_SLOTS, Remembered, Slot, Vip},
    family::Family,
    flow,
    packet::{Packet, Parse},
    tables::{Tables, TablesOf},
    verdict::Reason,
    wire::tcp,
};

/// Bits that select a slot.
const SHIFT: u32 = 64 - RING_SLOTS.trailing_zeros();

/// The index of the backend.
///
/// # Errors
/// [`Reason::NoBackend`]; [`Reason::Internal`]: the vip has no ring.
#[inline(always)]
pub fn choose<F: Parse, T: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    vip: &Vip,
    tables: &mut T,
) -> Result<u32, Reason> {
    let client = F::client(packet.source, packet.ports.0, vip.vip);
    let slot = slot_of::<F, T>(&client, vip.vip, tables)?;
    let backend = if slot.tracked() {
        let loss = if vip.flags & Vip::KEEP != 0 {
            Loss::Keep
        } else {
            Loss::Resteer
        };
        tracked::<F, T>(slot, &client, opens(packet), loss, tables)
    } else {
        slot.current()
    };
    if backend == Slot::NOBODY {
        Err(Reason::NoBackend)
    } else {
        Ok(backend)
    }
}

/// The slot that a flow's hash picks.
///
/// # Errors
/// [`Reason::Internal`]: the vip has no ring.
#[inline(always)]
pub fn slot_of<F: Family, T: Tables>(
    client: &F::Client,
    vip: u32,
    tables: &T,
) -> Result<Slot, Reason> {
    let hash = F::hash(|index| tables.hash_key(index), client);
    tables
        .ring_slot(vip, (hash >> SHIFT) as u32)
        .ok_or(Reason::Internal)
}

/// What becomes of the flows of a dead backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Loss {
    Keep,
    Resteer,
}

/// Whether the packet may begin a flow: no packet but a SYN does for TCP; UDP does not tell, so a flow that nobody
/// remembers and whose previous backend lives stays with it.
#[inline(always)]
fn opens<F: Parse>(packet: &Packet<F>) -> bool {
    packet.protocol == tcp::PROTOCOL && packet.opens_tcp()
}

#[inline(always)]
fn tracked<F: Family, T: Tables + TablesOf<F>>(
    slot: Slot,
    client: &F::Client,
    opens: bool,
    loss: Loss,
    tables: &mut T,
) -> u32 {
    let holds = |backend, tables: &T| loss == Loss::Keep || is_alive(backend, tables);
    let remembered = tables.remembered(client);
    if opens {
        // A retransmitted SYN finds its own entry; an entry of an older flow of the same ports is overwritten.
        if remembered.is_some() || slot.previous() != slot.current() {
            remember::<F, T>(client, slot.current(), tables);
        }
        return slot.current();
    }
    if let Some(remembered) = remembered
        && holds(remembered.backend, tables)
    {
        if remembered.seen != flow::seconds(tables) {
            remember::<F, T>(client, remembered.backend, tables);
        }
        return remembered.backend;
    }
    if slot.previous() != slot.current() && holds(slot.previous(), tables) {
        remember::<F, T>(client, slot.previous(), tables);
        return slot.previous();
    }
    // Its backend is dead: it stays with the new one when the dead one comes back.
    if remembered.is_some() || slot.previous() != slot.current() {
        remember::<F, T>(client, slot.current(), tables);
    }
    slot.current()
}

#[inline(always)]
fn remember<F: Family, T: Tables + TablesOf<F>>(client: &F::Client, backend: u32, tables: &mut T) {
    if backend != Slot::NOBODY {
        let seen = flow::seconds(tables);
        tables.remember(client, Remembered { backend, seen });
    }
}

#[inline(always)]
fn is_alive<T: Tables>(backend: u32, tables: &T) -> bool {
    tables
        .backend(backend)
        .is_some_and(|backend| backend.flags & Backend::ALIVE != 0)
}
