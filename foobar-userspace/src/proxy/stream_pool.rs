//! Connections to backends that speak HTTP/2: one a worker, shared by its requests.

use std::{cell::RefCell, fmt, io, sync::Arc};

use bytes::Bytes;
use h2::client::{self, SendRequest};

use super::{BackendTls, SiteBackend, link::Stream};

/// The present connection, if there is one.
#[derive(Default)]
pub(super) struct Streams {
    sender: RefCell<Option<SendRequest<Bytes>>>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = self.sender.borrow().is_some();
        formatter
            .debug_struct("Streams")
            .field("is_open", &is_open)
            .finish()
    }
}

impl Streams {
    pub(super) fn present(&self) -> Option<SendRequest<Bytes>> {
        self.sender.borrow().clone()
    }

    pub(super) fn forget(&self) {
        self.sender.replace(None);
    }

    /// A new connection, which serves whoever comes next, too.
    pub(super) async fn connect(&self, to: &SiteBackend) -> io::Result<SendRequest<Bytes>> {
        let stream = Stream::connect(&speaking_http2(to), None).await?;
        let (sender, connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .max_header_list_size(MOST_HEAD)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a backend ended");
            }
        });
        self.sender.replace(Some(sender.clone()));
        Ok(sender)
    }
}

fn speaking_http2(to: &SiteBackend) -> SiteBackend {
    let mut to = to.clone();
    to.tls = to.tls.map(|tls| {
        let mut config = rustls::ClientConfig::clone(&tls.config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        BackendTls {
            config: Arc::new(config),
            name: tls.name,
        }
    });
    to
}

const WINDOW: u32 = 1024 * 1024;
const MOST_HEAD: u32 = 64 * 1024;
