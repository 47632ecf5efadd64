//! The TLS-terminating proxy: an edge of sockets and certificates around the pure decisions about requests.

pub mod material;
pub mod tls;
