//! Connections to backends, and the ones that wait for their next request.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    buffers::{Buffer, Buffers},
    sites::SiteBackend,
    wire::Wire,
};
use crate::{config::ProxyProtocol, http};

/// A connection to a backend.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: RefCell<Stream>,
    pub(super) buffer: Buffer,
    /// Whether it served a request before.
    pub(super) is_reused: bool,
    /// The client whose own it is.
    owner: Option<SocketAddr>,
    idle_since: Instant,
    _count: Count,
}

/// In clear, or encrypted.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

/// A backend's connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The last used is the last: it is the likeliest to be alive, and the others grow old and go.
    idle: RefCell<Vec<Link>>,
    open: Rc<Cell<u32>>,
}

/// One of the open connections.
#[derive(Debug)]
struct Count(Rc<Cell<u32>>);

impl Pool {
    /// Whether a request would need a connection more than may be.
    pub(super) fn is_full(&self, most: u32) -> bool {
        self.open.get() >= most && self.idle.borrow().is_empty()
    }

    /// A connection that waits, and is alive as far as is known.
    pub(super) fn take(
        &self,
        owner: Option<SocketAddr>,
        now: Instant,
        most: Duration,
    ) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        while let Some(index) = idle.iter().rposition(|link| link.owner == owner) {
            let mut link = idle.remove(index);
            if now.saturating_duration_since(link.idle_since) < most && link.is_quiet() {
                link.is_reused = true;
                return Some(link);
            }
        }
        None
    }

    pub(super) fn give_back(&self, mut link: Link, now: Instant) {
        link.buffer.clear();
        link.idle_since = now;
        self.idle.borrow_mut().push(link);
    }

    /// Closes what waited for longer than `most`.
    pub(super) fn sweep(&self, now: Instant, most: Duration) {
        self.idle
            .borrow_mut()
            .retain(|link| now.saturating_duration_since(link.idle_since) < most);
    }

    /// A new connection, its TLS handshake done.
    pub(super) async fn connect(
        &self,
        to: &SiteBackend,
        announced: Option<(ProxyProtocol, SocketAddr, SocketAddr)>,
        buffers: &Rc<Buffers>,
    ) -> io::Result<Link> {
        let count = Count::one_of(&self.open);
        let stream = Stream::connect(to, announced).await?;
        Ok(Link {
            stream: RefCell::new(stream),
            buffer: Buffer::new(buffers),
            is_reused: false,
            owner: announced.map(|(_, client, _)| client),
            idle_since: Instant::now(),
            _count: count,
        })
    }
}

impl Link {
    /// A backend that says anything, or hangs up, while nobody asked serves no request.
    fn is_quiet(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let stream = self.stream.get_mut();
        self.buffer.poll_fill(stream, &mut context).is_pending()
    }
}

impl Stream {
    pub(super) async fn connect(
        to: &SiteBackend,
        announced: Option<(ProxyProtocol, SocketAddr, SocketAddr)>,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        if let Some((version, client, local)) = announced {
            let header = http::announce(version, client, local);
            stream.write_all(&header).await?;
        }
        let Some(tls) = &to.tls else {
            return Ok(Self::Plain(Wire(stream)));
        };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector.connect(tls.name.clone(), Wire(stream)).await?;
        Ok(Self::Tls(Box::new(stream)))
    }
}

impl Count {
    fn one_of(open: &Rc<Cell<u32>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
