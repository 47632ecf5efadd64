//! Ends the sessions whose backends are lost: both ends hear of it at once, idle ones too.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use foobar_ebpf::abi::{Backend, Session};

use crate::{
    balancer::{
        PlannedVip,
        resets::{Farewell, address},
    },
    kernel::{Deployment, KernelError, Table as _},
};

/// Resets the sessions that do not stand with these backends, and forgets them; how many they were, by their vip.
///
/// # Errors
/// When the kernel refuses; what was not reset is tried again by the next call, or by the flow's next packet.
pub fn end_lost(
    deployment: &mut Deployment,
    vips: &BTreeMap<u32, PlannedVip>,
    backends: &BTreeMap<u32, Backend>,
) -> Result<BTreeMap<u32, u64>, KernelError> {
    let tables = deployment.tables();
    let v4 = lost(&tables.sessions_v4.contents_at_once()?, backends);
    let v6 = lost(&tables.sessions_v6.contents_at_once()?, backends);
    let farewells: Vec<_> = v4
        .iter()
        .filter_map(|(key, session)| {
            let client = address([key.address, 0, 0, 0], true);
            farewell(client, key.port, key.vip, *session, vips, backends)
        })
        .chain(v6.iter().filter_map(|(key, session)| {
            let client = address(key.address, false);
            farewell(client, key.port, key.vip, *session, vips, backends)
        }))
        .collect();
    // Clients first: they have somebody else to ask.
    let frames: Vec<_> = farewells
        .iter()
        .filter_map(Farewell::to_client)
        .chain(farewells.iter().filter_map(Farewell::to_backend))
        .collect();
    deployment.emit(&frames)?;
    let tables = deployment.tables_mut();
    let mut ended = BTreeMap::new();
    for (key, _) in &v4 {
        tables.sessions_v4.remove(*key)?;
        *ended.entry(u32::from(key.vip)).or_default() += 1;
    }
    for (key, _) in &v6 {
        tables.sessions_v6.remove(*key)?;
        *ended.entry(u32::from(key.vip)).or_default() += 1;
    }
    Ok(ended)
}

fn lost<K: Copy>(
    sessions: &[(K, Session)],
    backends: &BTreeMap<u32, Backend>,
) -> Vec<(K, Session)> {
    sessions
        .iter()
        .filter(|(_, session)| !stands(session, backends))
        .copied()
        .collect()
}

/// As the packet path sees it.
fn stands(session: &Session, backends: &BTreeMap<u32, Backend>) -> bool {
    backends.get(&session.backend).is_some_and(|backend| {
        backend.flags & Backend::ALIVE != 0 && backend.epoch == session.epoch
    })
}

/// `None`: of a vip or a backend that is no more; its next packet is dropped.
fn farewell(
    client: IpAddr,
    port: u16,
    vip: u16,
    session: Session,
    vips: &BTreeMap<u32, PlannedVip>,
    backends: &BTreeMap<u32, Backend>,
) -> Option<Farewell> {
    Some(Farewell {
        client: SocketAddr::new(client, u16::from_be(port)),
        vip: vips.get(&u32::from(vip))?.address,
        session,
        backend: *backends.get(&session.backend)?,
    })
}
