//! A request's body as HTTP/1.1 brings it.

use std::{
    cell::{Cell, RefCell, RefMut},
    future::poll_fn,
    ops::Range,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Instant,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Ends, Progress};
use crate::{
    http::{Body, Chunked, Piece, Refusal, without_underscores},
    proxy::{
        buffers::{Buffer, Filled},
        ends::{Fault, Trailer, Upload},
        exchange::Asked,
        watch::Watch,
    },
    steering::pace::Pace,
};

/// Reads from the connection what belongs to one body, and nothing after it.
pub(super) struct Http1Upload<'a, S> {
    stream: &'a RefCell<S>,
    /// Borrowed for as long as the body lasts: nobody else reads meanwhile.
    input: RefMut<'a, Buffer>,
    framing: Framing,
    /// Of the input, what is a piece of the body.
    ready: Range<usize>,
    pace: Pace,
    watch: Watch,
    /// When the last piece was given away: until the next is asked for, the backend is the slow one.
    given: Option<Instant>,
    received: Rc<Cell<u64>>,
    most: u64,
    trailers: Vec<Trailer>,
    /// Of what came with the head.
    fault: Option<Fault>,
    /// The client waits to be told to go on.
    expects: bool,
    progress: &'a Progress,
}

enum Framing {
    Length(u64),
    Chunked(Chunked),
    Done,
}

impl<'a, S> Http1Upload<'a, S> {
    pub(super) fn new(ends: Ends<'a, S>, asked: &Asked, body: Body, expects: bool) -> Self {
        let service = &asked.bench.site.service;
        let pace = Pace::new(service.timeouts.body, asked.begun);
        let mut upload = Self {
            stream: ends.stream,
            input: ends.input.borrow_mut(),
            framing: match body {
                Body::Length(length) => Framing::Length(length),
                _ => Framing::Chunked(Chunked::default()),
            },
            ready: 0..0,
            watch: Watch::new(pace.deadline()),
            pace,
            given: None,
            received: Rc::default(),
            most: service.limits.body,
            trailers: Vec::new(),
            fault: None,
            expects,
            progress: ends.progress,
        };
        upload.fault = upload.advance().err();
        upload
    }

    pub(super) fn counter(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.received)
    }

    /// Looks for a piece in what is there; false: more must come first.
    fn advance(&mut self) -> Result<bool, Fault> {
        let here = self.input.bytes().len();
        match &mut self.framing {
            Framing::Done => return Ok(true),
            Framing::Length(left) => {
                let length = usize::try_from(*left).map_or(here, |left| left.min(here));
                *left -= length as u64;
                self.ready = 0..length;
                if *left == 0 {
                    self.finish();
                }
            }
            Framing::Chunked(chunked) => {
                match chunked.next(self.input.bytes()).map_err(Fault::Refused)? {
                    Piece::Data(range) => self.ready = range,
                    Piece::End(end) => {
                        self.trailers = without_underscores(chunked.owned_trailers());
                        self.input.consume(end);
                        self.finish();
                        return Ok(true);
                    }
                    Piece::Incomplete(done) => {
                        self.input.consume(done);
                        return Ok(false);
                    }
                }
            }
        }
        let total = self.received.get() + self.ready.len() as u64;
        self.received.set(total);
        if total > self.most {
            self.ready = 0..0;
            return Err(Fault::Refused(Refusal::BodyTooLarge));
        }
        Ok(!self.ready.is_empty())
    }

    fn finish(&mut self) {
        self.framing = Framing::Done;
        self.progress.is_uploading.set(false);
    }

    fn drop_ready(&mut self) {
        self.input.consume(self.ready.end);
        self.ready = 0..0;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Upload<'_, S> {
    async fn fill(&mut self) -> Result<(), Fault> {
        if self.expects && self.input.is_empty() && !self.progress.has_answer_begun.get() {
            self.expects = false;
            self.go_on().await?;
        }
        self.watch.set(self.pace.deadline());
        let filled = poll_fn(|context| {
            let mut stream = self.stream.borrow_mut();
            match self.input.poll_fill(&mut *stream, context) {
                Poll::Ready(Ok(filled)) => Poll::Ready(Ok(filled)),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Fault::Gone)),
                Poll::Pending => self.watch.poll(context).map(|_| Err(Fault::Slow)),
            }
        })
        .await?;
        match filled {
            Filled::Bytes(count) => {
                self.pace.advance(count as u64, Instant::now());
                Ok(())
            }
            Filled::End => Err(Fault::Gone),
            // A chunk's size or a trailer that fills the whole buffer.
            Filled::Full => Err(Fault::Refused(Refusal::ChunkSize)),
        }
    }

    async fn go_on(&mut self) -> Result<(), Fault> {
        let mut left = GO_ON;
        self.progress.is_going_on.set(true);
        poll_fn(|context| {
            let mut stream = self.stream.borrow_mut();
            while !left.is_empty() {
                match Pin::new(&mut *stream).poll_write(context, left) {
                    Poll::Ready(Ok(count)) if count > 0 => left = &left[count..],
                    Poll::Ready(_) => return Poll::Ready(Err(Fault::Gone)),
                    Poll::Pending => return self.watch.poll(context).map(|_| Err(Fault::Slow)),
                }
            }
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(result) => Poll::Ready(result.map_err(|_| Fault::Gone)),
                Poll::Pending => self.watch.poll(context).map(|_| Err(Fault::Slow)),
            }
        })
        .await?;
        self.progress.is_going_on.set(false);
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Upload for Http1Upload<'_, S> {
    async fn more(&mut self) -> Result<bool, Fault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        // Of what came with the head, which was looked at already.
        if !self.ready.is_empty() {
            return Ok(true);
        }
        if let Some(given) = self.given.take() {
            self.pace.forgive(given.elapsed());
        }
        loop {
            if self.advance()? {
                return Ok(!self.ready.is_empty());
            }
            self.fill().await?;
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.input.bytes()[self.ready.clone()]
    }

    fn take(&mut self) -> Bytes {
        let bytes = Bytes::copy_from_slice(self.bytes());
        self.taken();
        bytes
    }

    fn taken(&mut self) {
        self.drop_ready();
        self.given = Some(Instant::now());
    }

    fn received(&self) -> u64 {
        self.received.get()
    }

    fn trailers(&mut self) -> Vec<Trailer> {
        std::mem::take(&mut self.trailers)
    }
}

const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
