//! An answer as HTTP/1.1 takes it away.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Ends, Progress};
use crate::{
    http::{AnswerBody, Answering, Response, Version, write_last_chunk, write_response},
    proxy::{
        answers::{Extra, Manner},
        buffers::{Buffer, Filled},
        ends::{Download, Fault, Trailer},
        exchange::Asked,
        link::Link,
        over_http1::remaining,
        tunnel,
        watch::Watch,
    },
    steering::pace::Pace,
};

/// Writes one answer: few and large writes.
pub(super) struct Http1Download<'a, S> {
    stream: &'a RefCell<S>,
    input: &'a RefCell<Buffer>,
    watch: &'a Watch,
    /// A head that waits for the first bytes of its body.
    out: Vec<u8>,
    version: Version,
    manner: Manner,
    is_chunked: bool,
    wants_trailers: bool,
    progress: &'a Progress,
    sent: u64,
    pause: Duration,
    pace: Option<Pace>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Http1Download<'a, S> {
    pub(super) fn new(
        ends: Ends<'a, S>,
        watch: &'a Watch,
        asked: &Asked,
        version: Version,
        manner: Manner,
        out: Vec<u8>,
    ) -> Self {
        Self {
            stream: ends.stream,
            input: ends.input,
            watch,
            out,
            version,
            manner,
            is_chunked: false,
            wants_trailers: asked.wants_trailers,
            progress: ends.progress,
            sent: 0,
            pause: asked.bench.site.service.timeouts.write,
            pace: None,
        }
    }

    pub(super) const fn keeps_alive(&self) -> bool {
        self.manner.keeps_alive
    }

    /// Its memory, for the next.
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(super) const fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// Writes all of it. A client that takes nothing is given up on.
    async fn send(&mut self, parts: &[&[u8]]) -> Result<(), Fault> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        let mut is_timed = false;
        let Self {
            stream,
            watch,
            pace,
            pause,
            progress,
            ..
        } = self;
        poll_fn(|context| {
            if progress.is_going_on.get() {
                return Poll::Pending;
            }
            let mut stream = stream.borrow_mut();
            let mut stalled = |pace: &mut Option<Pace>, context: &mut Context<'_>| {
                if !is_timed {
                    let now = Instant::now();
                    let pace = pace.get_or_insert_with(|| Pace::new(*pause, now));
                    watch.set(pace.deadline().max(now + *pause / 2));
                    is_timed = true;
                }
                watch.poll(context).map(|_| Err(Fault::Slow))
            };
            while sent < total {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = remaining(parts, sent, &mut slices);
                match Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]) {
                    Poll::Ready(Ok(count)) if count > 0 => {
                        sent += count;
                        if let Some(pace) = pace {
                            pace.advance(count as u64, Instant::now());
                        }
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Fault::Gone)),
                    Poll::Pending => return stalled(pace, context),
                }
            }
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(result) => Poll::Ready(result.map_err(|_| Fault::Gone)),
                Poll::Pending => stalled(pace, context),
            }
        })
        .await?;
        self.sent += total as u64;
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Download for Http1Download<'_, S> {
    async fn interim(&mut self, answer: &Response<'_>) -> Result<(), Fault> {
        // RFC 9110 15.2: HTTP/1.0 knows none.
        if self.version != Version::Http11 {
            return Ok(());
        }
        let answering = Answering {
            version: self.version,
            keeps_alive: true,
            takes_trailers: false,
        };
        let mut head = Vec::new();
        write_response(answer, answering, &mut head);
        head.extend_from_slice(b"\r\n");
        // No part of the answer: another one may follow it.
        let sent = self.sent;
        self.send(&[&head]).await?;
        self.sent = sent;
        Ok(())
    }

    async fn begin(&mut self, answer: &Response<'_>, extra: &Extra<'_>) -> Result<(), Fault> {
        self.progress.has_answer_begun.set(true);
        let has_end = match answer.body {
            AnswerBody::Chunked | AnswerBody::UntilClose => {
                self.is_chunked = self.version == Version::Http11;
                self.is_chunked
            }
            AnswerBody::None { .. } | AnswerBody::Length(_) => true,
        };
        // Where the next request begins is uncertain when an answer overtakes its request's body.
        self.manner.keeps_alive &= has_end && !self.progress.is_uploading.get();
        let answering = Answering {
            version: self.version,
            keeps_alive: self.manner.keeps_alive,
            takes_trailers: self.is_chunked && self.wants_trailers,
        };
        write_response(answer, answering, &mut self.out);
        extra.write(&mut self.out);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    async fn data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut head = std::mem::take(&mut self.out);
        let size = if self.is_chunked {
            format!("{:x}\r\n", bytes.len())
        } else {
            String::new()
        };
        let end: &[u8] = if self.is_chunked { b"\r\n" } else { b"" };
        if bytes.len() <= COPIED {
            // One slice costs the kernel and TLS less than four.
            head.extend_from_slice(size.as_bytes());
            head.extend_from_slice(bytes);
            head.extend_from_slice(end);
            self.send(&[&head]).await?;
        } else {
            self.send(&[&head, size.as_bytes(), bytes, end]).await?;
        }
        head.clear();
        self.out = head;
        Ok(())
    }

    async fn end(&mut self, trailers: &[Trailer]) -> Result<(), Fault> {
        if self.is_chunked {
            let trailers = if self.wants_trailers { trailers } else { &[] };
            write_last_chunk(trailers, &mut self.out);
        }
        if self.out.is_empty() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.out);
        self.send(&[&out]).await?;
        out.clear();
        self.out = out;
        Ok(())
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // While a body comes, who reads it notices.
        let Ok(mut input) = self.input.try_borrow_mut() else {
            return Poll::Pending;
        };
        let mut stream = self.stream.borrow_mut();
        loop {
            match input.poll_fill(&mut *stream, context) {
                Poll::Ready(Ok(Filled::Bytes(_))) => {}
                // The next request, and more of them than are read ahead.
                Poll::Ready(Ok(Filled::Full)) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Filled::End) | Err(_)) => return Poll::Ready(()),
            }
        }
    }

    async fn tunnel(&mut self, link: &mut Link, idle: Duration) -> Result<(), Fault> {
        self.end(&[]).await?;
        let moved = tunnel::run(self.stream, self.input, link, idle, self.watch).await;
        self.sent += moved;
        Ok(())
    }

    fn sent(&self) -> u64 {
        self.sent
    }
}

/// Up to so many bytes are copied behind their head.
const COPIED: usize = 16 * 1024;
