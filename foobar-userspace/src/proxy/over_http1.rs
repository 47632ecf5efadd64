//! One attempt over a connection that speaks HTTP/1.1.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::Poll,
    time::Instant,
};

use tokio::io::AsyncWrite;

use super::{
    buffers::{Buffer, Filled},
    ends::{Download, Fault, Trailer, Upload},
    exchange::{Answered, Attempt, Reuse, Trouble, beside},
    link::{Link, Stream},
};
use crate::{
    http::{
        AnswerBody, BadAnswer, Chunked, End, Limits, Piece, Response, end_of_head, parse_response,
        write_last_chunk,
    },
    tally::BackendCell,
};

/// Sends the request and brings the answer to the client.
pub(super) async fn run<U: Upload, D: Download>(
    attempt: &Attempt<'_>,
    link: &mut Link,
    upload: &mut Option<U>,
    download: &mut D,
) -> Result<(Answered, Reuse), Trouble> {
    attempt.watch.set(attempt.deadline);
    let Some(upload) = upload else {
        send(&link.stream, &[&attempt.asked.head], attempt).await?;
        let (status, reuse) = Answer::new(attempt, link).pass(download).await?;
        if status == 101 {
            let idle = attempt.asked.bench.site.service.timeouts.tunnel;
            let tunnel = Box::pin(download.tunnel(link, idle)).await;
            tunnel.map_err(Trouble::Client)?;
        }
        return Ok((
            Answered {
                status,
                is_whole: status != 101,
            },
            reuse,
        ));
    };
    Box::pin(with_body(attempt, link, upload, download)).await
}

async fn with_body<U: Upload, D: Download>(
    attempt: &Attempt<'_>,
    link: &mut Link,
    upload: &mut U,
    download: &mut D,
) -> Result<(Answered, Reuse), Trouble> {
    let Link { stream, buffer, .. } = link;
    let sending = send_body(attempt, stream, upload);
    let mut answer = Answer {
        attempt,
        stream,
        buffer,
    };
    let (result, is_whole) = beside(sending, answer.pass(download)).await;
    let (status, reuse) = result?;
    let reuse = if is_whole { reuse } else { Reuse::Nothing };
    Ok((Answered { status, is_whole }, reuse))
}

async fn send_body<U: Upload>(
    attempt: &Attempt<'_>,
    stream: &RefCell<Stream>,
    upload: &mut U,
) -> Result<(), Trouble> {
    let mut head: &[u8] = &attempt.asked.head;
    // A body that came with its head goes with it.
    if upload.bytes().is_empty() {
        send(stream, &[head], attempt).await?;
        head = &[];
    }
    loop {
        let bytes = upload.bytes();
        if !bytes.is_empty() {
            if attempt.asked.is_chunked {
                let size = format!("{:x}\r\n", bytes.len());
                send(stream, &[head, size.as_bytes(), bytes, b"\r\n"], attempt).await?;
            } else {
                send(stream, &[head, bytes], attempt).await?;
            }
            head = &[];
            upload.taken();
            attempt
                .watch
                .set(Instant::now() + attempt.asked.bench.site.service.timeouts.attempt);
        }
        if !upload.more().await.map_err(Trouble::Client)? {
            break;
        }
    }
    if attempt.asked.is_chunked {
        let mut end = Vec::new();
        write_last_chunk(&upload.trailers(), &mut end);
        send(stream, &[head, &end], attempt).await?;
    }
    let tally = &attempt.worker.shared.tally;
    tally.add_to_backend(
        attempt.visit.backend.spec.id,
        BackendCell::BytesIn,
        upload.received(),
    );
    Ok(())
}

/// The answer to one request.
struct Answer<'a> {
    attempt: &'a Attempt<'a>,
    stream: &'a RefCell<Stream>,
    buffer: &'a mut Buffer,
}

impl<'a> Answer<'a> {
    fn new(attempt: &'a Attempt<'a>, link: &'a mut Link) -> Self {
        Self {
            attempt,
            stream: &link.stream,
            buffer: &mut link.buffer,
        }
    }

    async fn pass<D: Download>(&mut self, download: &mut D) -> Result<(u16, Reuse), Trouble> {
        let began = Instant::now();
        let end = self.head(download).await?;
        let now = Instant::now();
        let head = &self.buffer.bytes()[..end];
        let answer =
            parse_response(head, &LIMITS, self.attempt.asked.kind).map_err(Trouble::Bad)?;
        let (status, body, keeps_alive) = (answer.status, answer.body, answer.keeps_alive);
        self.attempt
            .judge(status, now.saturating_duration_since(began), now);
        if self.attempt.asks_again(status) {
            return Err(Trouble::Status(status));
        }
        begin(download, &answer, self.attempt).await?;
        self.buffer.consume(end);
        if status == 101 {
            return Ok((status, Reuse::Nothing));
        }
        let trailers = self.body(body, download).await?;
        download.end(&trailers).await.map_err(Trouble::Client)?;
        // What follows an answer belongs to no request.
        let is_clean = keeps_alive && self.buffer.is_empty();
        Ok((
            status,
            if is_clean {
                Reuse::Link
            } else {
                Reuse::Nothing
            },
        ))
    }

    /// Waits for a final head, which 101 is too; others of 1xx go before it.
    async fn head<D: Download>(&mut self, download: &mut D) -> Result<usize, Trouble> {
        let (mut from, mut interim) = (0, 0);
        loop {
            match end_of_head(self.buffer.bytes(), from) {
                Err(_) => return Err(Trouble::Bad(BadAnswer::Malformed)),
                Ok(End::Beyond(next)) if next > LIMITS.head => {
                    return Err(Trouble::Bad(BadAnswer::HeadTooLarge));
                }
                Ok(End::Beyond(next)) => {
                    from = next;
                    self.first_bytes(download).await?;
                }
                Ok(End::At(end)) => {
                    let bytes = self.buffer.bytes();
                    let is_interim = bytes.get(9) == Some(&b'1') && !bytes[9..].starts_with(b"101");
                    if !is_interim {
                        return Ok(end);
                    }
                    interim += 1;
                    if interim > MOST_INTERIM {
                        return Err(Trouble::Bad(BadAnswer::TooManyInterim));
                    }
                    self.interim(end, download).await?;
                    self.buffer.consume(end);
                    from = 0;
                }
            }
        }
    }

    async fn interim<D: Download>(&self, end: usize, download: &mut D) -> Result<(), Trouble> {
        let head = &self.buffer.bytes()[..end];
        let answer =
            parse_response(head, &LIMITS, self.attempt.asked.kind).map_err(Trouble::Bad)?;
        // RFC 9110 10.1.1: who expected it has it from us.
        if answer.status != 100 {
            download.interim(&answer).await.map_err(Trouble::Client)?;
            self.attempt.watch.set(self.attempt.deadline);
        }
        Ok(())
    }

    async fn first_bytes<D: Download>(&mut self, download: &mut D) -> Result<(), Trouble> {
        let filled = poll_fn(|context| {
            let mut stream = self.stream.borrow_mut();
            if let Poll::Ready(filled) = self.buffer.poll_fill(&mut *stream, context) {
                return Poll::Ready(Ok(filled));
            }
            if download.poll_gone(context).is_ready() {
                return Poll::Ready(Err(Trouble::Client(Fault::Gone)));
            }
            self.attempt
                .watch
                .poll(context)
                .map(|_| Err(Trouble::Timeout))
        })
        .await?;
        match filled {
            Ok(Filled::Bytes(_)) => Ok(()),
            // Also within a head: the client saw nothing of it.
            Ok(Filled::End) | Err(_) => Err(Trouble::Lost),
            Ok(Filled::Full) => Err(Trouble::Bad(BadAnswer::HeadTooLarge)),
        }
    }

    async fn body<D: Download>(
        &mut self,
        body: AnswerBody,
        download: &mut D,
    ) -> Result<Vec<Trailer>, Trouble> {
        match body {
            AnswerBody::None { .. } => Ok(Vec::new()),
            AnswerBody::Length(length) => {
                self.counted(length, download).await?;
                Ok(Vec::new())
            }
            AnswerBody::Chunked => self.chunked(download).await,
            AnswerBody::UntilClose => {
                self.until_close(download).await?;
                Ok(Vec::new())
            }
        }
    }

    async fn counted<D: Download>(
        &mut self,
        mut left: u64,
        download: &mut D,
    ) -> Result<(), Trouble> {
        loop {
            let bytes = self.buffer.bytes();
            let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            if here > 0 {
                data(download, &bytes[..here], self.attempt).await?;
                self.buffer.consume(here);
                left -= here as u64;
            }
            if left == 0 {
                return Ok(());
            }
            if self.fill().await? == Filled::End {
                return Err(Trouble::Cut);
            }
        }
    }

    async fn chunked<D: Download>(&mut self, download: &mut D) -> Result<Vec<Trailer>, Trouble> {
        let mut chunked = Chunked::default();
        loop {
            let bytes = self.buffer.bytes();
            match chunked.next(bytes).map_err(|_| Trouble::Cut)? {
                Piece::Data(range) => {
                    let end = range.end;
                    data(download, &bytes[range], self.attempt).await?;
                    self.buffer.consume(end);
                }
                Piece::End(end) => {
                    self.buffer.consume(end);
                    return Ok(chunked.owned_trailers());
                }
                Piece::Incomplete(end) => {
                    self.buffer.consume(end);
                    if self.fill().await? == Filled::End {
                        return Err(Trouble::Cut);
                    }
                }
            }
        }
    }

    async fn until_close<D: Download>(&mut self, download: &mut D) -> Result<(), Trouble> {
        loop {
            if !self.buffer.is_empty() {
                data(download, self.buffer.bytes(), self.attempt).await?;
                self.buffer.clear();
            }
            if self.fill().await? == Filled::End {
                return Ok(());
            }
        }
    }

    async fn fill(&mut self) -> Result<Filled, Trouble> {
        let timeout = self.attempt.asked.bench.site.service.timeouts.answer;
        let mut is_set = false;
        let filled = poll_fn(|context| {
            let mut stream = self.stream.borrow_mut();
            if let Poll::Ready(filled) = self.buffer.poll_fill(&mut *stream, context) {
                return Poll::Ready(Some(filled));
            }
            if !is_set {
                self.attempt.watch.set(Instant::now() + timeout);
                is_set = true;
            }
            self.attempt.watch.poll(context).map(|_| None)
        })
        .await;
        match filled {
            Some(Ok(filled)) => Ok(filled),
            Some(Err(_)) | None => Err(Trouble::Cut),
        }
    }
}

async fn begin<D: Download>(
    download: &mut D,
    answer: &Response<'_>,
    attempt: &Attempt<'_>,
) -> Result<(), Trouble> {
    download
        .begin(answer, &attempt.extra())
        .await
        .map_err(Trouble::Client)
}

async fn data<D: Download>(
    download: &mut D,
    bytes: &[u8],
    attempt: &Attempt<'_>,
) -> Result<(), Trouble> {
    let tally = &attempt.worker.shared.tally;
    tally.add_to_backend(
        attempt.visit.backend.spec.id,
        BackendCell::BytesOut,
        bytes.len() as u64,
    );
    download.data(bytes).await.map_err(Trouble::Client)
}

/// Writes all of it to the backend.
async fn send(
    stream: &RefCell<Stream>,
    parts: &[&[u8]],
    attempt: &Attempt<'_>,
) -> Result<(), Trouble> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut sent = 0;
    poll_fn(|context| {
        let mut stream = stream.borrow_mut();
        while sent < total {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = remaining(parts, sent, &mut slices);
            match Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Err(Trouble::Lost)),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Pending => {
                    return attempt.watch.poll(context).map(|_| Err(Trouble::Timeout));
                }
            }
        }
        match Pin::new(&mut *stream).poll_flush(context) {
            Poll::Ready(result) => Poll::Ready(result.map_err(|_: io::Error| Trouble::Lost)),
            Poll::Pending => attempt.watch.poll(context).map(|_| Err(Trouble::Timeout)),
        }
    })
    .await
}

/// What is left of `parts` after `sent` bytes.
pub(super) fn remaining<'p>(
    parts: &[&'p [u8]],
    mut sent: usize,
    slices: &mut [IoSlice<'p>],
) -> usize {
    let mut count = 0;
    for part in parts {
        if sent >= part.len() {
            sent -= part.len();
            continue;
        }
        slices[count] = IoSlice::new(&part[sent..]);
        count += 1;
        sent = 0;
    }
    count
}

/// Heads that may go before the answer's own.
pub(super) const MOST_INTERIM: usize = 16;

/// What an answer's head may be.
const LIMITS: Limits = Limits {
    head: 64 * 1024,
    fields: 200,
    target: 0,
};
