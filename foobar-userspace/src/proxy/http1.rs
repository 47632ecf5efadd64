//! A client's connection that speaks HTTP/1.1, from its first byte to its last.

mod download;
mod upload;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::{download::Http1Download, upload::Http1Upload};
use super::{
    Peer, Worker,
    access::Noted,
    answers::{Extra, Manner, Own},
    bench::Bench,
    buffers::{Buffer, Filled},
    ends::{Fault, NoUpload},
    exchange::{self, Ending},
    gate::{Origin, Stopped},
    watch::Watch,
    worker::{Seat, Table},
};
use crate::{
    config::Timeouts,
    http::{Body, End, Limits, Refusal, Request, end_of_head, parse_request},
    tally::SiteCell,
};

/// Serves requests until the client or the proxy has enough.
pub(super) async fn serve<S>(stream: S, peer: Peer, worker: Rc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let bounds = Bounds::of(&worker.table(), &peer);
    let mut connection = Connection {
        seat: Seat::take(&worker),
        input: RefCell::new(Buffer::new(&worker.request_buffers())),
        watch: Watch::new(Instant::now() + bounds.idle),
        origin: Origin::new(peer, &worker),
        stream: RefCell::new(stream),
        served: 0,
        progress: Progress::default(),
        bounds,
        worker,
    };
    connection.run().await;
}

struct Connection<S> {
    stream: RefCell<S>,
    input: RefCell<Buffer>,
    worker: Rc<Worker>,
    origin: Origin,
    watch: Watch,
    seat: Seat,
    /// Requests so far.
    served: u32,
    progress: Progress,
    bounds: Bounds,
}

/// What the two directions of an exchange know of each other.
#[derive(Debug, Default)]
struct Progress {
    has_answer_begun: Cell<bool>,
    /// A part of the request's body has not been read yet.
    is_uploading: Cell<bool>,
    /// `100 Continue` is being written: nothing else may come between.
    is_going_on: Cell<bool>,
}

/// What holds before it is known which site is meant.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    head: Duration,
    idle: Duration,
    limits: Limits,
}

/// A connection, divided between the two directions of an exchange.
struct Ends<'a, S> {
    stream: &'a RefCell<S>,
    input: &'a RefCell<Buffer>,
    progress: &'a Progress,
}

impl<S> Clone for Ends<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Ends<'_, S> {}

/// How long a new connection may take over its first request once the worker drains.
const FIRST_REQUEST: Duration = Duration::from_secs(3);

/// What comes after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Close,
    /// The client may still be sending: what it sends is read for a while, so that the answer is not lost to a reset.
    Linger,
    Request,
}

impl Bounds {
    fn of(table: &Table, peer: &Peer) -> Self {
        let mut bounds = Self {
            head: Duration::ZERO,
            idle: Duration::ZERO,
            limits: Limits {
                head: 0,
                fields: 0,
                target: 0,
            },
        };
        let here = table
            .sites
            .all()
            .iter()
            .filter(|site| site.service.listen.contains(&peer.local));
        for site in here {
            let Timeouts { head, idle, .. } = site.service.timeouts;
            let limits = site.limits();
            bounds.head = bounds.head.max(head);
            bounds.idle = bounds.idle.max(idle);
            bounds.limits.head = bounds.limits.head.max(limits.head);
            bounds.limits.fields = bounds.limits.fields.max(limits.fields);
            bounds.limits.target = bounds.limits.target.max(limits.target);
        }
        bounds
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self) {
        loop {
            let next = match self.head().await {
                Ok(Some(end)) => self.turn(end).await,
                Ok(None) => Next::Close,
                Err(fault) => self.unread(fault).await,
            };
            match next {
                Next::Request => {}
                Next::Close => return self.shut(),
                Next::Linger => return Box::pin(self.linger()).await,
            }
        }
    }

    /// Waits for a whole head; none when the connection ends between requests.
    async fn head(&mut self) -> Result<Option<usize>, Fault> {
        let mut from = 0;
        if self.input.get_mut().is_empty() {
            self.watch.set(Instant::now() + self.bounds.idle);
            if !self.first_bytes().await {
                return Ok(None);
            }
        }
        let (mut is_timed, mut is_first) = (false, true);
        loop {
            let input = self.input.get_mut();
            // RFC 9112 2.2: an empty line before a request is no part of it.
            if is_first && input.bytes().starts_with(b"\r\n") {
                input.consume(2);
                (from, is_first) = (0, false);
            }
            let seen = input.bytes();
            match end_of_head(seen, from).map_err(Fault::Refused)? {
                End::At(end) => return Ok(Some(end)),
                End::Beyond(next) if next > self.bounds.limits.head => {
                    return Err(Fault::Refused(oversized(seen)));
                }
                End::Beyond(next) => from = next,
            }
            if !is_timed {
                self.watch.set(Instant::now() + self.bounds.head);
                is_timed = true;
            }
            match self.more().await {
                Some(Filled::Bytes(_)) => {}
                Some(Filled::Full) => return Err(Fault::Refused(Refusal::HeadTooLarge)),
                Some(Filled::End) => return Ok(None),
                None => return Err(Fault::Slow),
            }
        }
    }

    /// False when the client hangs up, waits for too long, or is asked to leave.
    async fn first_bytes(&mut self) -> bool {
        let mut is_hurried = false;
        poll_fn(|context| {
            let stream = self.stream.get_mut();
            if let Poll::Ready(filled) = self.input.get_mut().poll_fill(stream, context) {
                return Poll::Ready(matches!(filled, Ok(Filled::Bytes(_))));
            }
            if self.seat.is_asked_to_leave(context) {
                if self.served > 0 {
                    return Poll::Ready(false);
                }
                // Who has just come is about to ask, and would not ask again.
                if !is_hurried {
                    self.watch.set(Instant::now() + FIRST_REQUEST);
                    is_hurried = true;
                }
            }
            self.watch.poll(context).map(|_| false)
        })
        .await
    }

    async fn more(&mut self) -> Option<Filled> {
        poll_fn(|context| {
            let stream = self.stream.get_mut();
            match self.input.get_mut().poll_fill(stream, context) {
                Poll::Ready(filled) => Poll::Ready(Some(filled.unwrap_or(Filled::End))),
                Poll::Pending => self.watch.poll(context).map(|_| None),
            }
        })
        .await
    }

    /// Serves the request whose head ends at `end`.
    async fn turn(&mut self, end: usize) -> Next {
        let begun = Instant::now();
        let table = self.worker.table();
        let input = self.input.get_mut();
        let (head, following) = input.bytes().split_at(end);
        let request = match read(
            head,
            following,
            &self.bounds.limits,
            self.origin.is_encrypted(),
        ) {
            Ok(request) => request,
            Err(refusal) => return self.refused(&table, refusal).await,
        };
        let admitted = self
            .origin
            .admit(&self.worker, &table, &request, end, begun);
        let mut manner = Manner {
            keeps_alive: request.keeps_alive,
            is_head: request.is_head(),
        };
        let noted = Noted::of(&request, &self.worker);
        let (body, version) = (request.body, request.version);
        let expects = request.expects_continue && following.is_empty();
        let mut asked = match admitted {
            Ok(asked) => asked,
            Err(Stopped { own, bench }) => {
                drop(request);
                input.consume(end);
                manner.keeps_alive &= matches!(body, Body::None | Body::Length(0));
                return self
                    .stopped(&own, bench.as_deref(), manner, noted, begun)
                    .await;
            }
        };
        drop(request);
        input.consume(end);
        self.served += 1;
        let limits = &asked.bench.site.service.limits;
        manner.keeps_alive &=
            self.served < limits.requests_per_connection && !self.worker.is_draining();
        self.progress.has_answer_begun.set(false);
        self.progress
            .is_uploading
            .set(!matches!(body, Body::None | Body::Length(0)));
        let ends = Ends {
            stream: &self.stream,
            input: &self.input,
            progress: &self.progress,
        };
        let out = self.worker.spares.take();
        let mut download = Http1Download::new(ends, &self.watch, &asked, version, manner, out);
        let (ending, received) = match body {
            Body::None | Body::Length(0) => {
                let upload = None::<NoUpload>;
                let ending =
                    exchange::exchange(&self.worker, &asked, upload, &mut download, &self.watch)
                        .await;
                (ending, 0)
            }
            body => {
                let upload = Http1Upload::new(ends, &asked, body, expects);
                Box::pin(with_upload(
                    &self.worker,
                    &asked,
                    upload,
                    &mut download,
                    &self.watch,
                ))
                .await
            }
        };
        let keeps_alive = download.keeps_alive();
        let sent = download.sent_bytes();
        self.worker.spares.give(download.take_out());
        self.worker.spares.give(std::mem::take(&mut asked.head));
        let next = match &ending.own {
            Some(own) => {
                manner.keeps_alive &= matches!(body, Body::None | Body::Length(0));
                let bench = Rc::clone(&asked.bench);
                self.answer(own, Some(&bench), manner).await
            }
            None if ending.is_whole && keeps_alive => Next::Request,
            None if ending.is_whole => Next::Close,
            None => Next::Linger,
        };
        self.account(&asked, &ending, received, sent, noted);
        next
    }

    fn account(
        &self,
        asked: &exchange::Asked,
        ending: &Ending,
        received: u64,
        sent: u64,
        noted: Option<Noted>,
    ) {
        let site = &asked.bench.site;
        super::access::account(
            &self.worker,
            site,
            &self.origin,
            asked.begun,
            ending,
            (received, sent),
            noted,
        );
    }

    /// There is no whole head.
    async fn unread(&mut self, fault: Fault) -> Next {
        let table = self.worker.table();
        match fault {
            Fault::Gone => Next::Close,
            Fault::Refused(refusal) => self.refused(&table, refusal).await,
            Fault::Slow => {
                let bench = self.presumed(&table);
                if let Some(bench) = &bench {
                    let tally = &self.worker.shared.tally;
                    tally.add(bench.site.id, SiteCell::ClientSlow, 1);
                    self.origin.offend(&self.worker, &bench.site);
                }
                self.refuse(Own::new(408, fault.remark()), bench.as_deref())
                    .await
            }
        }
    }

    fn presumed(&self, table: &Table) -> Option<Rc<Bench>> {
        self.origin
            .presumed(table)
            .or(table.benches.first())
            .cloned()
    }

    /// The request is ambiguous or malformed: an answer, and the end of the connection.
    async fn refused(&mut self, table: &Table, refusal: Refusal) -> Next {
        let bench = self.presumed(table);
        if let Some(bench) = &bench {
            self.worker
                .shared
                .tally
                .add(bench.site.id, SiteCell::Refused, 1);
            self.origin.offend(&self.worker, &bench.site);
        }
        tracing::debug!(client = %self.origin.peer.client, %refusal, "request refused");
        self.refuse(Own::refusal(refusal), bench.as_deref()).await
    }

    async fn refuse(&mut self, own: Own, bench: Option<&Bench>) -> Next {
        let mut out = Vec::new();
        let manner = Manner {
            keeps_alive: false,
            is_head: false,
        };
        own.write(
            bench.map(|bench| &bench.site),
            &Extra::NONE,
            manner,
            &mut out,
        );
        if let Some(bench) = bench {
            self.worker
                .shared
                .tally
                .answered(bench.site.id, own.status, Duration::ZERO);
        }
        self.write(&out).await;
        Next::Linger
    }

    /// The gate stopped the request.
    async fn stopped(
        &mut self,
        own: &Own,
        bench: Option<&Bench>,
        manner: Manner,
        noted: Option<Noted>,
        begun: Instant,
    ) -> Next {
        let next = self.answer(own, bench, manner).await;
        if let Some(bench) = bench {
            super::access::stopped(&self.worker, &bench.site, &self.origin, begun, own, noted);
        }
        next
    }

    async fn answer(&mut self, own: &Own, bench: Option<&Bench>, manner: Manner) -> Next {
        let mut out = self.worker.spares.take();
        let extra = Extra {
            hsts: bench
                .and_then(|bench| bench.hsts.as_deref())
                .filter(|_| self.origin.is_encrypted()),
            cookie: None,
        };
        own.write(bench.map(|bench| &bench.site), &extra, manner, &mut out);
        let is_written = self.write(&out).await;
        self.worker.spares.give(out);
        match (is_written, manner.keeps_alive) {
            (true, true) => Next::Request,
            (true, false) => Next::Linger,
            (false, _) => Next::Close,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        self.watch.set(Instant::now() + PATIENCE);
        let mut sent = 0;
        let stream = self.stream.get_mut();
        let watch = &self.watch;
        poll_fn(|context| {
            while sent < bytes.len() {
                match Pin::new(&mut *stream).poll_write(context, &bytes[sent..]) {
                    Poll::Ready(Ok(count)) if count > 0 => sent += count,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return watch.poll(context).map(|_| false),
                }
            }
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending => watch.poll(context).map(|_| false),
            }
        })
        .await
    }

    /// Says goodbye without waiting for it to be heard.
    fn shut(&mut self) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = Pin::new(self.stream.get_mut()).poll_shutdown(&mut context);
    }

    /// Ends our side, and reads what the client still sends, for a while and up to a bound.
    async fn linger(&mut self) {
        self.input.get_mut().clear();
        self.watch.set(Instant::now() + PATIENCE);
        let mut waste = [0; 4096];
        let mut left = MOST_WASTE;
        let stream = self.stream.get_mut();
        let watch = &self.watch;
        let mut is_shut = false;
        poll_fn(|context| {
            if !is_shut {
                match Pin::new(&mut *stream).poll_shutdown(context) {
                    Poll::Ready(Ok(())) => is_shut = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            loop {
                let mut room = ReadBuf::new(&mut waste);
                match Pin::new(&mut *stream).poll_read(context, &mut room) {
                    Poll::Ready(Ok(())) if !room.filled().is_empty() && left > 0 => {
                        left = left.saturating_sub(room.filled().len());
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return watch.poll(context).map(|_| ()),
                }
            }
        })
        .await;
    }
}

/// A body keeps its future, which is large, out of every other request's.
async fn with_upload<S: AsyncRead + AsyncWrite + Unpin>(
    worker: &Rc<Worker>,
    asked: &exchange::Asked,
    upload: Http1Upload<'_, S>,
    download: &mut Http1Download<'_, S>,
    watch: &Watch,
) -> (Ending, u64) {
    let received = upload.counter();
    let ending = exchange::exchange(worker, asked, Some(upload), download, watch).await;
    (ending, received.get())
}

fn read<'b>(
    head: &'b [u8],
    following: &[u8],
    limits: &Limits,
    is_encrypted: bool,
) -> Result<Request<'b>, Refusal> {
    let request = parse_request(head, limits, is_encrypted)?;
    request.followed_by(following)?;
    Ok(request)
}

/// What of a head without an end is too large.
fn oversized(seen: &[u8]) -> Refusal {
    if memchr::memchr(b'\n', seen).is_none() {
        Refusal::TargetTooLong
    } else {
        Refusal::HeadTooLarge
    }
}

/// How long an own answer may take to be taken, and a closing client to stop sending.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_WASTE: usize = 1024 * 1024;
