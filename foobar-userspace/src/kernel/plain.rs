//! Bridges the types of the kernel boundary to aya: the only `unsafe` of user space.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A key or value of a map.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub T);

// SAFETY: aya reads and writes the bytes of a `Pod`. `Plain<T>` has the layout of `T`; `IntoBytes` proves that all of
// `T`'s bytes are initialised (no padding reaches the kernel), `FromBytes` that whatever the kernel writes is a `T`,
// `Immutable` that no byte changes behind a shared reference.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> aya::Pod for Plain<T> {}
