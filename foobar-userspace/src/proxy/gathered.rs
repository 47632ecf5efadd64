//! A connection whose small writes leave together.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::spares::Spares;

/// Keeps what is written until [`Gathered::poll_out`], or until a TLS record is full.
///
/// `h2` flushes after every DATA frame: each of a hundred small answers would be a record and a system call of its own.
pub(super) struct Gathered<S>(Rc<RefCell<Gathering<S>>>);

struct Gathering<S> {
    stream: S,
    spares: Rc<Spares>,
    /// Holds memory only while there is something to send.
    bytes: Vec<u8>,
    sent: usize,
}

impl<S> Gathered<S> {
    pub(super) fn new(stream: S, spares: &Rc<Spares>) -> Self {
        Self(Rc::new(RefCell::new(Gathering {
            stream,
            spares: Rc::clone(spares),
            bytes: Vec::new(),
            sent: 0,
        })))
    }

    /// The same connection, for whoever knows when it is time to send.
    pub(super) fn same(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Sends what `future` wrote whenever it waits.
    pub(super) async fn beside<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                // Whoever reads learns what became of the connection.
                let _ = self.poll_out(context);
            }
            polled
        })
        .await
    }

    /// Sends what has gathered.
    pub(super) fn poll_out(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_out(context)
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.bytes.len() {
            let left = &self.bytes[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.spares.give(std::mem::take(&mut self.bytes));
        self.sent = 0;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Keeps the slices, or says that they are for the stream itself.
    fn poll_keep(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<Option<usize>>> {
        let total = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if self.bytes.len() + total > RECORD {
            ready!(self.poll_out(context))?;
        }
        if total >= RECORD {
            return Poll::Ready(Ok(None));
        }
        if self.bytes.capacity() == 0 {
            self.bytes = self.spares.take();
        }
        for slice in slices {
            self.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(Some(total)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = self.0.borrow_mut();
        match ready!(gathering.poll_keep(context, slices))? {
            Some(kept) => Poll::Ready(Ok(kept)),
            None => Pin::new(&mut gathering.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says yes to `h2`, which asks after every frame.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        ready!(gathering.poll_out(context))?;
        Pin::new(&mut gathering.stream).poll_shutdown(context)
    }
}

/// What one TLS record holds, RFC 8446 5.1.
const RECORD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;

    fn gathered(room: usize) -> (Gathered<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(room);
        (Gathered::new(near, &Rc::default()), far)
    }

    fn write(gathered: &Gathered<DuplexStream>, bytes: &[u8]) -> Poll<usize> {
        let mut context = Context::from_waker(Waker::noop());
        let written = Pin::new(&mut gathered.same()).poll_write(&mut context, bytes);
        written.map(Result::unwrap)
    }

    fn out(gathered: &Gathered<DuplexStream>) -> Poll<()> {
        let mut context = Context::from_waker(Waker::noop());
        gathered.poll_out(&mut context).map(Result::unwrap)
    }

    fn come(far: &mut DuplexStream) -> Vec<u8> {
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = vec![0; 1 << 20];
        let mut room = ReadBuf::new(&mut bytes);
        let _ = Pin::new(far).poll_read(&mut context, &mut room);
        room.filled().to_vec()
    }

    #[test]
    fn small_writes_leave_together_when_they_are_told_to() {
        let (gathered, mut far) = gathered(1 << 20);
        assert_eq!(write(&gathered, b"one "), Poll::Ready(4));
        assert_eq!(write(&gathered, b"record"), Poll::Ready(6));
        assert_eq!(come(&mut far), b"");
        assert_eq!(out(&gathered), Poll::Ready(()));
        assert_eq!(come(&mut far), b"one record");
        assert_eq!(gathered.0.borrow().bytes.capacity(), 0);
    }

    #[test]
    fn a_full_record_waits_for_nobody_and_keeps_its_place() {
        let (gathered, mut far) = gathered(1 << 20);
        assert_eq!(write(&gathered, b"first"), Poll::Ready(5));
        assert_eq!(write(&gathered, &[b'x'; RECORD]), Poll::Ready(RECORD));
        let came = come(&mut far);
        assert!(came.starts_with(b"firstxxx"));
        assert_eq!(came.len(), 5 + RECORD);
    }

    #[test]
    fn a_stream_that_takes_nothing_holds_its_writer_back() {
        let (gathered, mut far) = gathered(100);
        let piece = [b'y'; 6000];
        assert_eq!(write(&gathered, &piece), Poll::Ready(6000));
        assert_eq!(write(&gathered, &piece), Poll::Ready(6000));
        assert_eq!(write(&gathered, &piece), Poll::Pending);
        let mut total = 0;
        while out(&gathered).is_pending() {
            total += come(&mut far).len();
        }
        assert_eq!(total + come(&mut far).len(), 12_000);
        assert_eq!(write(&gathered, &piece), Poll::Ready(6000));
    }

    #[tokio::test]
    async fn what_has_gathered_is_sent_while_something_else_is_awaited() {
        let (gathered, mut far) = gathered(100);
        let writes = async {
            let mut writer = gathered.same();
            tokio::io::AsyncWriteExt::write_all(&mut writer, b"hello")
                .await
                .unwrap();
            std::future::pending::<()>().await;
        };
        let mut came = [0; 5];
        tokio::select! {
            () = gathered.beside(writes) => unreachable!("it never ends"),
            read = far.read_exact(&mut came) => drop(read.unwrap()),
        }
        assert_eq!(&came, b"hello");
    }
}
