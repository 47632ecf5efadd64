//! Vectors that somebody emptied, for whoever needs one next.

use std::cell::RefCell;

/// A worker's spare vectors: most have room already.
#[derive(Debug, Default)]
pub(super) struct Spares(RefCell<Vec<Vec<u8>>>);

impl Spares {
    /// An empty vector.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give(&self, mut bytes: Vec<u8>) {
        let mut spares = self.0.borrow_mut();
        if bytes.capacity() <= LARGEST && spares.len() < MOST {
            bytes.clear();
            spares.push(bytes);
        }
    }
}

const MOST: usize = 64;
const LARGEST: usize = 64 * 1024;
