//! A request's body as HTTP/2 brings it.

use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll, time::Instant};

use bytes::Bytes;
use h2::RecvStream;

use crate::{
    http::{Refusal, trailers_of_http2, without_underscores},
    proxy::{
        ends::{Fault, Trailer, Upload, fields_of},
        exchange::Asked,
        watch::Watch,
    },
    steering::pace::Pace,
};

/// Gives the client room for more only when a piece was taken.
#[derive(Debug)]
pub(super) struct Http2Upload {
    stream: RecvStream,
    piece: Bytes,
    pace: Pace,
    watch: Watch,
    given: Option<Instant>,
    received: Rc<Cell<u64>>,
    most: u64,
    trailers: Vec<Trailer>,
}

impl Http2Upload {
    pub(super) fn new(stream: RecvStream, asked: &Asked) -> Self {
        let service = &asked.bench.site.service;
        let pace = Pace::new(service.timeouts.body, asked.begun);
        Self {
            stream,
            piece: Bytes::new(),
            watch: Watch::new(pace.deadline()),
            pace,
            given: None,
            received: Rc::default(),
            most: service.limits.body,
            trailers: Vec::new(),
        }
    }

    pub(super) fn counter(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.received)
    }

    /// The body is whole; something may follow it.
    async fn end(&mut self) -> Result<(), Fault> {
        let trailers = match self.watch.bound(self.stream.trailers()).await {
            Ok(Ok(trailers)) => trailers,
            Ok(Err(_)) => return Err(Fault::Gone),
            Err(_) => return Err(Fault::Slow),
        };
        if let Some(trailers) = trailers {
            let trailers = trailers_of_http2(fields_of(&trailers)).map_err(Fault::Refused)?;
            self.trailers = without_underscores(trailers);
        }
        Ok(())
    }
}

impl Upload for Http2Upload {
    async fn more(&mut self) -> Result<bool, Fault> {
        if let Some(given) = self.given.take() {
            self.pace.forgive(given.elapsed());
        }
        self.watch.set(self.pace.deadline());
        loop {
            let data = poll_fn(|context| match self.stream.poll_data(context) {
                Poll::Ready(data) => Poll::Ready(Ok(data)),
                Poll::Pending => self.watch.poll(context).map(|_| Err(Fault::Slow)),
            })
            .await?;
            match data {
                None => {
                    self.end().await?;
                    return Ok(false);
                }
                Some(Err(_)) => return Err(Fault::Gone),
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.pace.advance(piece.len() as u64, Instant::now());
                    let total = self.received.get() + piece.len() as u64;
                    self.received.set(total);
                    if total > self.most {
                        return Err(Fault::Refused(Refusal::BodyTooLarge));
                    }
                    self.piece = piece;
                    return Ok(true);
                }
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.piece
    }

    fn take(&mut self) -> Bytes {
        let piece = self.piece.clone();
        self.taken();
        piece
    }

    fn taken(&mut self) {
        let _ = self
            .stream
            .flow_control()
            .release_capacity(self.piece.len());
        self.piece = Bytes::new();
        self.given = Some(Instant::now());
    }

    fn received(&self) -> u64 {
        self.received.get()
    }

    fn trailers(&mut self) -> Vec<Trailer> {
        std::mem::take(&mut self.trailers)
    }
}
