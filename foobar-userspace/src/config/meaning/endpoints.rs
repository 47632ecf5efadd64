//! What `public:443` means on a host.

use std::net::{IpAddr, SocketAddr};

use super::hosts::family;
use crate::config::{
    Addresses, Host,
    diagnostics::{Problem, Problems},
    tree::Entry,
    words::Endpoint,
};

/// The addresses that `written` means on `host`; why there are none is reported.
pub(super) fn resolve(written: Entry<'_>, host: &Host, problems: &mut Problems) -> Vec<SocketAddr> {
    let Some(endpoint) = written.read() else {
        return Vec::new();
    };
    match endpoint {
        Endpoint::Public(port) => {
            named(written, host, "public", &host.public, port.get(), problems)
        }
        Endpoint::Private(port) => named(
            written,
            host,
            "private",
            &host.private,
            port.get(),
            problems,
        ),
        Endpoint::Literal(socket) => literal(written, host, socket, problems),
    }
}

/// The addresses that `written` means on several nodes: a word means one on each, a literal that of the node that has it.
pub(super) fn resolve_on<'h>(
    written: Entry<'_>,
    nodes: &[&'h Host],
    problems: &mut Problems,
) -> Vec<(&'h Host, SocketAddr)> {
    let mut candidates = nodes.to_vec();
    if let Some(Endpoint::Literal(socket)) = written.read() {
        let has = |host: &&Host| own(host).any(|address| address == socket.ip());
        if nodes.iter().any(has) {
            candidates.retain(has);
        } else {
            // The first tells what is wrong.
            candidates.truncate(1);
        }
    }
    candidates
        .into_iter()
        .flat_map(|host| {
            let found = resolve(written, host, problems);
            found.into_iter().map(move |address| (host, address))
        })
        .collect()
}

fn own(host: &Host) -> impl Iterator<Item = IpAddr> {
    host.public.iter().chain(host.private.iter())
}

fn named(
    written: Entry<'_>,
    host: &Host,
    word: &str,
    addresses: &Addresses,
    port: u16,
    problems: &mut Problems,
) -> Vec<SocketAddr> {
    let found: Vec<_> = addresses
        .iter()
        .map(|address| SocketAddr::new(address, port))
        .collect();
    if found.is_empty() {
        problems.report(
            Problem::new(
                written.span(),
                format!("host `{}` has no {word} address", host.name),
            )
            .help(format!(
                "add `{word} = \"…\"` to `{}` under `[hosts]`, or use another address",
                host.name
            )),
        );
    }
    found
}

fn literal(
    written: Entry<'_>,
    host: &Host,
    socket: SocketAddr,
    problems: &mut Problems,
) -> Vec<SocketAddr> {
    let own: Vec<IpAddr> = own(host).collect();
    if own.contains(&socket.ip()) {
        return vec![socket];
    }
    let addresses: Vec<_> = own.iter().map(|address| format!("`{address}`")).collect();
    problems.report(
        Problem::new(
            written.span(),
            format!(
                "`{}` is not an address of host `{}`",
                socket.ip(),
                host.name
            ),
        )
        .help(format!(
            "its addresses are {}; write one of them, or add this {} address to the host",
            addresses.join(", "),
            family(socket.ip()),
        )),
    );
    Vec::new()
}
