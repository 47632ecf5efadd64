//! Endpoints of this host that are closed to clients once nobody vouches for them any more.
//!
//! A database that was deposed while nobody could reach it must not take writes past the balancers. What vouches for it is a
//! deadline; who must reach it all the same, to mend it, is a peer.

use crate::{
    abi::Vip,
    packet::{Packet, Parse},
    session,
    tables::{Tables, TablesOf},
    verdict::Reason,
};

/// Why a packet for a guarded endpoint goes no further; `None`: it is one like any other.
// A function of its own, as `session::to_backend` is.
#[inline(never)]
pub fn closes<F: Parse, M: Tables + TablesOf<F>>(
    packet: &Packet<F>,
    vip: &Vip,
    tables: &M,
) -> Option<Reason> {
    if tables.lease(vip.vip) > tables.now() {
        return None;
    }
    let is_peer = tables
        .vip(&F::endpoint(packet.source, 0, 0))
        .is_some_and(|peer| peer.flags & Vip::PEER != 0);
    if is_peer {
        None
    } else if packet.opens_tcp() {
        Some(Reason::Refused)
    } else {
        Some(session::reset(packet))
    }
}
