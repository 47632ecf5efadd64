//! The proxy on real sockets, in front of backends that do as they are told.

mod balancing;
mod entrance;
mod http1;
mod http2;
mod interim;
mod trailers;
mod trouble;

use super::samples::{Backend, Proxy, Reply, run};
