//! Bytes in both directions, once a connection has changed its protocol.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    buffers::{Buffer, Filled},
    link::Link,
    watch::Watch,
};

/// Moves bytes until both sides are done, one breaks, or nothing comes for `idle`; says how many went to the client.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    client: &RefCell<S>,
    input: &RefCell<Buffer>,
    link: &mut Link,
    idle: Duration,
    watch: &Watch,
) -> u64 {
    let backend = link.stream.get_mut();
    let (mut upwards, mut downwards) = (Direction::default(), Direction::default());
    watch.set(Instant::now() + idle);
    poll_fn(|context| {
        let moved = upwards.moved + downwards.moved;
        let mut client = client.borrow_mut();
        let mut input = input.borrow_mut();
        let up = upwards.poll(&mut *client, &mut input, backend, context);
        let down = downwards.poll(backend, &mut link.buffer, &mut *client, context);
        if upwards.moved + downwards.moved > moved {
            watch.set(Instant::now() + idle);
        }
        match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ => watch.poll(context).map(|_| ()),
        }
    })
    .await;
    downwards.moved
}

/// One of the two.
#[derive(Debug, Default)]
struct Direction {
    moved: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Open,
    /// The reader has ended; the writer is to be told.
    Ending,
    Ended,
}

impl Direction {
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        buffer: &mut Buffer,
        to: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut needs_flush = false;
        loop {
            if self.state == State::Ended {
                return Poll::Ready(Ok(()));
            }
            while !buffer.is_empty() {
                let Poll::Ready(count) = Pin::new(&mut *to).poll_write(context, buffer.bytes())?
                else {
                    return Poll::Pending;
                };
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                buffer.consume(count);
                self.moved += count as u64;
                needs_flush = true;
            }
            if self.state == State::Ending {
                let shut = Pin::new(&mut *to).poll_shutdown(context)?;
                if shut.is_ready() {
                    self.state = State::Ended;
                    continue;
                }
                return Poll::Pending;
            }
            match buffer.poll_fill(from, context)? {
                Poll::Ready(Filled::End) => self.state = State::Ending,
                Poll::Ready(_) => {}
                Poll::Pending => {
                    if needs_flush {
                        let _ = Pin::new(&mut *to).poll_flush(context)?;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}
