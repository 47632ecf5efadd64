//! A client's connection that speaks HTTP/2: `h2` keeps the protocol, each stream is an exchange.

mod download;
mod upload;

use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use tokio::io::{AsyncRead, AsyncWrite};

use self::{download::Http2Download, upload::Http2Upload};
use super::{
    Peer, Worker,
    access::{self, Noted},
    answers::Own,
    bench::Bench,
    ends::{NoUpload, fields_of},
    exchange,
    gate::{Origin, Stopped},
    gathered::Gathered,
    metered::Metered,
    watch::Watch,
    worker::{Seat, Table},
};
use crate::{
    config::H2Limits,
    http::{self, Body, Limits, Pseudo, Request},
    tally::SiteCell,
};

/// Serves requests until the client or the proxy has enough.
pub(super) async fn serve<S>(stream: S, peer: Peer, worker: Rc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Some(bounds) = Bounds::of(&worker.table(), &peer) else {
        return;
    };
    let flood = Rc::new(Cell::new(None));
    let out = Gathered::new(stream, &worker.spares);
    let stream = Metered::new(out.same(), bounds.frames, Rc::clone(&flood));
    let origin = Rc::new(Origin::new(peer, &worker));
    let watch = Watch::new(Instant::now() + bounds.head);
    let handshake = out.beside(bounds.builder().handshake(stream));
    if let Ok(Ok(connection)) = watch.bound(handshake).await {
        let mut client = Client {
            seat: Seat::take(&worker),
            origin: Rc::clone(&origin),
            worker: Rc::clone(&worker),
            active: Rc::default(),
            connection,
            out,
            watch,
            bounds,
            served: 0,
            is_leaving: false,
        };
        client.run().await;
    }
    if flood.get().is_some() {
        let table = worker.table();
        if let Some(bench) = origin.presumed(&table).or(table.benches.first()) {
            worker.shared.tally.add(bench.site.id, SiteCell::Floods, 1);
            origin.offend(&worker, &bench.site);
        }
    }
}

struct Client<S> {
    connection: server::Connection<Metered<Gathered<S>>, Bytes>,
    /// Where the connection writes.
    out: Gathered<S>,
    worker: Rc<Worker>,
    origin: Rc<Origin>,
    /// Streams that are being served.
    active: Rc<Cell<usize>>,
    watch: Watch,
    seat: Seat,
    bounds: Bounds,
    served: u32,
    is_leaving: bool,
}

/// What holds for a whole connection, whichever sites it is used for.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    head: Duration,
    idle: Duration,
    limits: Limits,
    frames: H2Limits,
    requests: u32,
}

impl Bounds {
    /// The largest of the sites that listen here.
    fn of(table: &Table, peer: &Peer) -> Option<Self> {
        let sites = table.sites.all().iter();
        let here = sites.filter(|site| site.service.listen.contains(&peer.local));
        here.map(|site| Self {
            head: site.service.timeouts.head,
            idle: site.service.timeouts.idle,
            limits: site.limits(),
            frames: site.service.limits.h2,
            requests: site.service.limits.requests_per_connection,
        })
        .reduce(|one, other| Self {
            head: one.head.max(other.head),
            idle: one.idle.max(other.idle),
            limits: Limits {
                head: one.limits.head.max(other.limits.head),
                fields: one.limits.fields.max(other.limits.fields),
                target: one.limits.target.max(other.limits.target),
            },
            frames: if other.frames.streams > one.frames.streams {
                other.frames
            } else {
                one.frames
            },
            requests: one.requests.max(other.requests),
        })
    }

    fn builder(&self) -> server::Builder {
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.frames.streams)
            .max_header_list_size(u32::try_from(self.limits.head).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(50)
            .max_pending_accept_reset_streams(20);
        builder
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Client<S> {
    async fn run(&mut self) {
        self.watch.set(Instant::now() + self.bounds.idle);
        while let Some(accepted) = self.next().await {
            let Ok((request, respond)) = accepted else {
                return;
            };
            self.served = self.served.saturating_add(1);
            if self.served >= self.bounds.requests {
                self.leave();
            }
            let stream = Stream {
                active: Active::one_of(&self.active),
                worker: Rc::clone(&self.worker),
                origin: Rc::clone(&self.origin),
                respond,
            };
            tokio::task::spawn_local(stream.serve(request, self.bounds.limits));
        }
    }

    /// The next stream; none when the connection is over, or was idle for too long.
    async fn next(
        &mut self,
    ) -> Option<Result<(::http::Request<RecvStream>, SendResponse<Bytes>), h2::Error>> {
        poll_fn(|context| {
            loop {
                if let Poll::Ready(accepted) = self.connection.poll_accept(context) {
                    return Poll::Ready(accepted);
                }
                if let Poll::Ready(Err(_)) = self.out.poll_out(context) {
                    return Poll::Ready(None);
                }
                if !self.is_leaving && self.seat.is_asked_to_leave(context) {
                    self.leave();
                    continue;
                }
                if self.watch.poll(context).is_pending() {
                    return Poll::Pending;
                }
                if self.active.get() == 0 && self.is_leaving {
                    return Poll::Ready(None);
                }
                if self.active.get() == 0 {
                    self.leave();
                }
                let patience = if self.is_leaving {
                    FAREWELL
                } else {
                    self.bounds.idle
                };
                self.watch.set(Instant::now() + patience);
            }
        })
        .await
    }

    /// No new streams; those that are there come to their end.
    fn leave(&mut self) {
        if !self.is_leaving {
            self.is_leaving = true;
            self.connection.graceful_shutdown();
            self.watch.set(Instant::now() + FAREWELL);
        }
    }
}

/// One stream's way.
struct Stream {
    respond: SendResponse<Bytes>,
    worker: Rc<Worker>,
    origin: Rc<Origin>,
    active: Active,
}

/// Counts the streams of a connection.
struct Active(Rc<Cell<usize>>);

impl Active {
    fn one_of(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Stream {
    async fn serve(mut self, request: ::http::Request<RecvStream>, limits: Limits) {
        let begun = Instant::now();
        let table = self.worker.table();
        let (parts, body) = request.into_parts();
        let understood = understand(&parts, body.is_end_stream(), &limits);
        let request = match understood {
            Ok(request) => request,
            Err(refusal) => return self.refused(&table, refusal),
        };
        let noted = Noted::of(&request, &self.worker);
        let is_head = request.is_head();
        let has_body = request.body != Body::None;
        let admitted = self.origin.admit(&self.worker, &table, &request, 0, begun);
        drop(request);
        let mut asked = match admitted {
            Ok(asked) => asked,
            Err(Stopped { own, bench }) => {
                if let Some(bench) = &bench {
                    access::stopped(&self.worker, &bench.site, &self.origin, begun, &own, noted);
                }
                return self.answer(&own, bench.as_deref(), is_head);
            }
        };
        let watch = self
            .worker
            .take_watch(begun + asked.bench.site.service.timeouts.attempt);
        let mut download = Http2Download::new(&mut self.respond, &watch, &asked);
        let (ending, received) = if has_body {
            let upload = Http2Upload::new(body, &asked);
            let counter = upload.counter();
            let exchange =
                exchange::exchange(&self.worker, &asked, Some(upload), &mut download, &watch);
            let ending = Box::pin(exchange).await;
            (ending, counter.get())
        } else {
            let upload = None::<NoUpload>;
            let ending =
                exchange::exchange(&self.worker, &asked, upload, &mut download, &watch).await;
            (ending, 0)
        };
        let sent = download.finish(&ending);
        self.worker.give_watch(watch);
        self.worker.spares.give(std::mem::take(&mut asked.head));
        if let Some(own) = &ending.own {
            self.answer(own, Some(&asked.bench), is_head);
        }
        access::account(
            &self.worker,
            &asked.bench.site,
            &self.origin,
            begun,
            &ending,
            (received, sent),
            noted,
        );
    }

    fn refused(&mut self, table: &Table, refusal: http::Refusal) {
        let bench = self
            .origin
            .presumed(table)
            .or(table.benches.first())
            .cloned();
        if let Some(bench) = &bench {
            let tally = &self.worker.shared.tally;
            tally.add(bench.site.id, SiteCell::Refused, 1);
            tally.answered(bench.site.id, refusal.status(), Duration::ZERO);
            self.origin.offend(&self.worker, &bench.site);
        }
        self.answer(&Own::refusal(refusal), bench.as_deref(), false);
    }

    /// A small answer, which fits the smallest window.
    fn answer(&mut self, own: &Own, bench: Option<&Bench>, is_head: bool) {
        let _ = &self.active;
        let (body, kind) = own.body(bench.map(|bench| &bench.site));
        let hsts = bench.and_then(|bench| bench.hsts.as_deref());
        let mut response = ::http::Response::builder()
            .status(own.status)
            .header("content-type", kind)
            .header("content-length", body.len())
            .header("cache-control", "no-store");
        if let Some(value) = hsts.filter(|_| self.origin.is_encrypted()) {
            response = response.header("strict-transport-security", value);
        }
        if let Some(seconds) = own.retry_seconds() {
            response = response.header("retry-after", seconds);
        }
        let Ok(response) = response.body(()) else {
            return;
        };
        if let Ok(mut stream) = self.respond.send_response(response, is_head)
            && !is_head
        {
            let _ = stream.send_data(body, true);
        }
    }
}

/// The request as the strict reader has it.
fn understand<'p>(
    parts: &'p ::http::request::Parts,
    ends_stream: bool,
    limits: &Limits,
) -> Result<Request<'p>, http::Refusal> {
    let uri = &parts.uri;
    let pseudo = Pseudo {
        method: parts.method.as_str().as_bytes(),
        scheme: uri.scheme_str().map(str::as_bytes),
        authority: uri
            .authority()
            .map(|authority| authority.as_str().as_bytes()),
        path: uri
            .path_and_query()
            .map_or(b"", |path| path.as_str().as_bytes()),
        ends_stream,
    };
    http::from_http2(pseudo, fields_of(&parts.headers), limits)
}

/// A body's bytes on their way that nobody has taken yet, of one stream and of all.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// An answer's bytes that wait for their turn, of one stream.
const SEND_BUFFER: usize = 256 * 1024;
/// How long a client that was told to leave may take.
const FAREWELL: Duration = Duration::from_secs(5);
