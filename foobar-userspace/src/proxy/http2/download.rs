//! An answer as HTTP/2 takes it away.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};

use crate::{
    http::{AnswerBody, Response},
    proxy::{
        answers::Extra,
        ends::{Download, Fault, Trailer, header_map},
        exchange::{Asked, Ending},
        link::Link,
        watch::Watch,
    },
    steering::pace::Pace,
};

/// Sends one answer as the client's windows allow.
pub(super) struct Http2Download<'a> {
    respond: &'a mut SendResponse<Bytes>,
    watch: &'a Watch,
    stream: Option<SendStream<Bytes>>,
    /// Of a body whose length was said, what is to come: its last piece ends the stream.
    left: Option<u64>,
    has_ended: bool,
    sent: u64,
    pause: Duration,
    pace: Option<Pace>,
}

impl<'a> Http2Download<'a> {
    pub(super) fn new(
        respond: &'a mut SendResponse<Bytes>,
        watch: &'a Watch,
        asked: &Asked,
    ) -> Self {
        Self {
            respond,
            watch,
            stream: None,
            left: None,
            has_ended: false,
            sent: 0,
            pause: asked.bench.site.service.timeouts.write,
            pace: None,
        }
    }

    /// Resets what was begun and will not end; says how many bytes went out.
    pub(super) fn finish(&mut self, ending: &Ending) -> u64 {
        if ending.own.is_none() && !self.has_ended {
            match &mut self.stream {
                Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
                None => self.respond.send_reset(Reason::CANCEL),
            }
        } else if !ending.is_whole
            && self.has_ended
            && let Some(stream) = &mut self.stream
        {
            // RFC 9113 8.1: the answer stands; the rest of the request's body is not wanted.
            stream.send_reset(Reason::NO_ERROR);
        }
        self.sent
    }

    /// Waits until the client takes something, and says how much.
    async fn room(&mut self, wanted: usize) -> Result<usize, Fault> {
        let Some(stream) = &mut self.stream else {
            return Err(Fault::Gone);
        };
        stream.reserve_capacity(wanted);
        let mut is_timed = false;
        let (watch, pause, pace) = (self.watch, self.pause, &mut self.pace);
        poll_fn(|context| {
            loop {
                match stream.poll_capacity(context) {
                    Poll::Ready(Some(Ok(0))) => {}
                    Poll::Ready(Some(Ok(room))) => return Poll::Ready(Ok(room)),
                    Poll::Ready(_) => return Poll::Ready(Err(Fault::Gone)),
                    Poll::Pending => break,
                }
            }
            if !is_timed {
                let now = Instant::now();
                let pace = pace.get_or_insert_with(|| Pace::new(pause, now));
                watch.set(pace.deadline().max(now + pause / 2));
                is_timed = true;
            }
            watch.poll(context).map(|_| Err(Fault::Slow))
        })
        .await
    }
}

impl Download for Http2Download<'_> {
    async fn interim(&mut self, answer: &Response<'_>) -> Result<(), Fault> {
        let mut response = ::http::Response::new(());
        let Ok(status) = ::http::StatusCode::from_u16(answer.status) else {
            return Ok(());
        };
        *response.status_mut() = status;
        let fields = answer.fields.iter();
        *response.headers_mut() = header_map(fields.map(|field| (field.name, field.value)));
        self.respond
            .send_informational(response)
            .map_err(|_| Fault::Gone)
    }

    async fn begin(&mut self, answer: &Response<'_>, extra: &Extra<'_>) -> Result<(), Fault> {
        let mut response = ::http::Response::new(());
        *response.status_mut() =
            ::http::StatusCode::from_u16(answer.status).unwrap_or(::http::StatusCode::BAD_GATEWAY);
        let fields = answer.fields.iter();
        *response.headers_mut() = header_map(fields.map(|field| (field.name, field.value)));
        let headers = response.headers_mut();
        for (name, value) in extra.pairs() {
            if let Ok(value) = ::http::HeaderValue::from_str(value) {
                headers.append(::http::HeaderName::from_static(name), value);
            }
        }
        let is_end = match answer.body {
            AnswerBody::None { said } => {
                if let Some(length) = said {
                    headers.insert(::http::header::CONTENT_LENGTH, length.into());
                }
                true
            }
            AnswerBody::Length(length) => {
                headers.insert(::http::header::CONTENT_LENGTH, length.into());
                self.left = Some(length);
                length == 0
            }
            AnswerBody::Chunked | AnswerBody::UntilClose => false,
        };
        let stream = self.respond.send_response(response, is_end);
        self.stream = Some(stream.map_err(|_| Fault::Gone)?);
        self.has_ended = is_end;
        Ok(())
    }

    async fn data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        while !bytes.is_empty() {
            let room = self.room(bytes.len()).await?;
            let piece = bytes.split_to(room.min(bytes.len()));
            let length = piece.len() as u64;
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(length);
            }
            let is_end = self.left == Some(0);
            let Some(stream) = &mut self.stream else {
                return Err(Fault::Gone);
            };
            stream.send_data(piece, is_end).map_err(|_| Fault::Gone)?;
            self.has_ended = is_end;
            self.sent += length;
            if let Some(pace) = &mut self.pace {
                pace.advance(length, Instant::now());
            }
        }
        Ok(())
    }

    async fn end(&mut self, trailers: &[Trailer]) -> Result<(), Fault> {
        if self.has_ended {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else {
            return Err(Fault::Gone);
        };
        self.has_ended = true;
        if trailers.is_empty() {
            return stream
                .send_data(Bytes::new(), true)
                .map_err(|_| Fault::Gone);
        }
        let fields = trailers.iter();
        let map = header_map(fields.map(|(name, value)| (&name[..], &value[..])));
        stream.send_trailers(map).map_err(|_| Fault::Gone)
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(context).map(|_| ()),
            None => self.respond.poll_reset(context).map(|_| ()),
        }
    }

    async fn tunnel(&mut self, _link: &mut Link, _idle: Duration) -> Result<(), Fault> {
        // A request by HTTP/2 asks for no upgrade, so no backend answers 101.
        Err(Fault::Gone)
    }

    fn sent(&self) -> u64 {
        self.sent
    }
}
