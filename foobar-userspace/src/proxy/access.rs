//! What the access log is told of a request.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// One request and its answer, as they ended.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When the head of the request was read.
    pub at: SystemTime,
    pub site: Arc<str>,
    pub client: SocketAddr,
    pub method: String,
    pub host: String,
    /// With its query.
    pub path: String,
    /// `HTTP/1.1`
    pub version: &'static str,
    /// Of the answer; 499 when the client went away before it.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub took: Duration,
    /// `web1:8443`, the last that was tried.
    pub backend: Option<Arc<str>>,
    pub attempts: u32,
    pub referer: String,
    pub user_agent: String,
    pub is_encrypted: bool,
    /// Why the proxy answered itself, or what cut the answer short.
    pub remark: Option<&'static str>,
}
