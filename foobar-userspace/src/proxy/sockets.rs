//! Listening sockets: bound before anything is served, one for each worker, and kept open over every reload.
//!
//! Connections wait in the socket that the kernel chose for them. Who closes one loses what waits in it (74 of 14,229
//! were measured), so a socket is only ever closed with its endpoint, and handed over to the next process otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Every worker's sockets by endpoint.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<SocketAddr, Vec<TcpListener>>);

/// Why an endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {endpoint}{}", cure(source))]
pub struct BindError {
    pub endpoint: SocketAddr,
    source: io::Error,
}

impl BindError {
    #[must_use]
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

impl Sockets {
    /// Those that the process before listened on.
    #[must_use]
    pub fn adopt(handed_over: Vec<OwnedFd>) -> Self {
        let mut sockets = Self::default();
        for socket in handed_over {
            let listener = TcpListener::from(socket);
            if let Ok(endpoint) = listener.local_addr() {
                sockets.0.entry(endpoint).or_default().push(listener);
            }
        }
        sockets
    }

    /// Binds what is missing until each endpoint has `each` sockets.
    ///
    /// # Errors
    /// Nothing stays bound of what was not before.
    pub fn bind(&mut self, endpoints: &BTreeSet<SocketAddr>, each: usize) -> Result<(), BindError> {
        let mut bound: Vec<(SocketAddr, TcpListener)> = Vec::new();
        for endpoint in endpoints {
            let present = self.0.get(endpoint).map_or(0, Vec::len);
            for _ in present..each {
                let listener = listen(*endpoint).map_err(|source| BindError {
                    endpoint: *endpoint,
                    source,
                })?;
                bound.push((*endpoint, listener));
            }
        }
        for (endpoint, listener) in bound {
            self.0.entry(endpoint).or_default().push(listener);
        }
        Ok(())
    }

    /// Closes all others.
    pub fn keep(&mut self, endpoints: &BTreeSet<SocketAddr>) {
        self.0.retain(|endpoint, _| endpoints.contains(endpoint));
    }

    /// One worker's part of an endpoint's sockets: each has one, and what an earlier process had more of is spread.
    ///
    /// # Errors
    /// Without file descriptors.
    pub fn part(
        &self,
        endpoint: SocketAddr,
        worker: usize,
        workers: usize,
    ) -> io::Result<Vec<TcpListener>> {
        self.0
            .get(&endpoint)
            .into_iter()
            .flatten()
            .skip(worker)
            .step_by(workers.max(1))
            .map(TcpListener::try_clone)
            .collect()
    }

    /// All of them, for the next process.
    pub fn to_hand_over(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().flatten().map(|listener| listener.as_fd())
    }
}

fn listen(endpoint: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(endpoint),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // At boot an address may still be looked for by its duplicate, or be the other balancer's.
    if endpoint.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&endpoint.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program listens there; `ss -ltnp` tells which, stop it or choose another port"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// What may wait in one socket; the kernel takes net.core.somaxconn if that is less.
const BACKLOG: i32 = 4096;
