//! Buffers that connections hold only while bytes are in them.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

/// A worker's spare buffers, all of one size.
#[derive(Debug)]
pub(super) struct Buffers {
    size: usize,
    spare: RefCell<Vec<Box<[u8]>>>,
}

/// Bytes between a reader and whoever takes them; without a buffer while it is empty.
#[derive(Debug)]
pub(super) struct Buffer {
    from: Rc<Buffers>,
    bytes: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Filled {
    Bytes(usize),
    /// The other side says no more.
    End,
    /// There is no room for a byte.
    Full,
}

impl Buffers {
    pub(super) fn new(size: usize) -> Rc<Self> {
        Rc::new(Self {
            size,
            spare: RefCell::default(),
        })
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    fn take(&self) -> Box<[u8]> {
        let spare = self.spare.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; self.size].into_boxed_slice())
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MOST_SPARE {
            spare.push(bytes);
        }
    }
}

impl Buffer {
    pub(super) fn new(from: &Rc<Buffers>) -> Self {
        Self {
            from: Rc::clone(from),
            bytes: None,
            start: 0,
            end: 0,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes
            .as_ref()
            .map_or(&[], |bytes| &bytes[self.start..self.end])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(bytes) = self.bytes.take() {
            self.from.give_back(bytes);
        }
    }

    /// Reads once. While nothing comes an empty buffer's memory serves others.
    pub(super) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Filled>> {
        if self.start > 0 && self.end == self.from.size {
            self.compact();
        }
        if self.end == self.from.size {
            return Poll::Ready(Ok(Filled::Full));
        }
        let mut bytes = self.bytes.take().unwrap_or_else(|| self.from.take());
        let mut room = ReadBuf::new(&mut bytes[self.end..]);
        let polled = Pin::new(reader).poll_read(context, &mut room);
        let count = room.filled().len();
        self.end += count;
        if self.is_empty() {
            self.from.give_back(bytes);
        } else {
            self.bytes = Some(bytes);
        }
        polled.map_ok(|()| match count {
            0 => Filled::End,
            count => Filled::Bytes(count),
        })
    }

    fn compact(&mut self) {
        if let Some(bytes) = &mut self.bytes {
            bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.clear();
    }
}

/// More are given back to the allocator.
const MOST_SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn an_empty_buffer_holds_no_memory() {
        let buffers = Buffers::new(8);
        let mut buffer = Buffer::new(&buffers);
        let mut reader: &[u8] = b"hello, world";
        let filled = poll_fn(|context| buffer.poll_fill(&mut reader, context)).await;
        assert_eq!(filled.unwrap(), Filled::Bytes(8));
        assert_eq!(buffers.spare.borrow().len(), 0);
        let filled = poll_fn(|context| buffer.poll_fill(&mut reader, context)).await;
        assert_eq!(filled.unwrap(), Filled::Full);
        buffer.consume(6);
        let filled = poll_fn(|context| buffer.poll_fill(&mut reader, context)).await;
        assert_eq!(filled.unwrap(), Filled::Bytes(4));
        assert_eq!(buffer.bytes(), b" world");
        buffer.consume(6);
        assert_eq!(buffers.spare.borrow().len(), 1);
        let filled = poll_fn(|context| buffer.poll_fill(&mut reader, context)).await;
        assert_eq!(filled.unwrap(), Filled::End);
        assert_eq!(buffers.spare.borrow().len(), 1);
    }
}
