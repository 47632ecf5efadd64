//! Bounded access to a frame: the seam between the packet path and where packets live.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A header that can be read from and written to any place of a frame.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy> Header for T {}

pub trait Frame {
    /// The header at `offset`, if all of it is there.
    fn read<H: Header>(&self, offset: usize) -> Option<H>;

    /// Writes a header over what is at `offset`; `None`, and nothing written, if it does not fit.
    fn write<H: Header>(&mut self, offset: usize, header: H) -> Option<()>;

    /// Whether the frame has at least `length` bytes, parts beyond the first buffer included.
    fn holds(&self, length: usize) -> bool;

    /// Bytes of the whole frame.
    fn length(&self) -> usize;

    /// Cuts what is beyond the first `length` bytes; `None`, and nothing cut, where that cannot be done.
    fn truncate(&mut self, length: usize) -> Option<()>;
}

/// A frame in memory, for tests and for user space.
#[derive(Debug)]
pub struct MemoryFrame<'a>(pub &'a mut [u8]);

impl Frame for MemoryFrame<'_> {
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        let (header, _) = H::read_from_prefix(self.0.get(offset..)?).ok()?;
        Some(header)
    }

    fn write<H: Header>(&mut self, offset: usize, header: H) -> Option<()> {
        header.write_to_prefix(self.0.get_mut(offset..)?).ok()
    }

    fn holds(&self, length: usize) -> bool {
        self.0.len() >= length
    }

    fn length(&self) -> usize {
        self.0.len()
    }

    fn truncate(&mut self, length: usize) -> Option<()> {
        if length > self.0.len() {
            return None;
        }
        let (kept, _) = core::mem::take(&mut self.0).split_at_mut_checked(length)?;
        self.0 = kept;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_or_left_as_it_is() {
        let mut bytes = [1, 2, 3];
        let mut frame = MemoryFrame(&mut bytes);
        assert_eq!(frame.truncate(4), None);
        assert_eq!(frame.0, [1, 2, 3]);
        assert_eq!(frame.truncate(2), Some(()));
        assert_eq!(frame.0, [1, 2]);
    }
}
