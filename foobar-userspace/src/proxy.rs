//! The reverse proxy after the TLS handshake: clients' connections in, requests to backends out.
//!
//! A worker is one thread with one current-thread runtime: its connections to backends, its buffers and its state are
//! its own, and nothing on a request's way takes a lock. What all workers know together ([`Shared`]) is touched by
//! events that are rare.

mod access;
pub mod admission;
mod answers;
mod bench;
mod buffers;
pub mod crew;
mod ends;
mod exchange;
mod gate;
mod gathered;
mod http1;
mod http2;
mod link;
pub mod material;
mod metered;
mod over_http1;
mod over_http2;
pub mod proxied;
mod redirect;
#[cfg(test)]
mod samples;
mod shared;
mod sites;
pub mod sockets;
mod spares;
mod stream_pool;
#[cfg(test)]
mod tests;
pub mod tls;
mod tunnel;
mod watch;
pub mod welcome;
mod wire;
mod worker;

use std::{net::SocketAddr, rc::Rc};

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    access::{AccessRecord, AccessTap},
    shared::{Memory, Report, Shared},
    sites::{BackendTls, Site, SiteBackend, Sites},
    worker::Worker,
};
pub use crate::config::HttpVersion;

/// Whose connection it is, and how it came.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client, as the PROXY protocol names it where that is believed.
    pub client: SocketAddr,
    /// Where it connected to: decides which sites may be meant.
    pub local: SocketAddr,
    /// What the handshake agreed on; `None`: the connection is in clear.
    pub tls: Option<TlsFacts>,
}

/// What a TLS handshake agreed on.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// The name that the client asked for, in lower case.
    pub sni: Option<String>,
    /// `None`: no ALPN; HTTP/1.1 then.
    pub alpn: Option<HttpVersion>,
    pub is_resumed: bool,
    pub client_certificate: Option<ClientCertificate>,
}

/// A client's certificate, verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    pub subject: String,
    /// SHA-256 of its DER, in hexadecimal.
    pub fingerprint: String,
}

/// Serves a client's connection to its end. Runs where `spawn_local` may be called.
pub async fn serve<S>(stream: S, peer: Peer, worker: Rc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    // Each in a box of its own: the larger would count for both.
    match peer.tls.as_ref().and_then(|tls| tls.alpn) {
        Some(HttpVersion::Http2) => Box::pin(http2::serve(stream, peer, worker)).await,
        _ => Box::pin(http1::serve(stream, peer, worker)).await,
    }
}

/// Serves a connection in clear to where HTTP is redirected to HTTPS.
pub async fn redirect<S>(stream: S, peer: Peer, worker: Rc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    redirect::serve(stream, peer, worker).await;
}
