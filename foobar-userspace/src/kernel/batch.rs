//! Many entries of a map in one system call: ten thousand rules are read in a millisecond, not in twenty.
#![expect(
    unsafe_code,
    reason = "aya has no BPF_MAP_LOOKUP_BATCH; bpf(2) takes pointers"
)]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::bpf_cmd::BPF_MAP_LOOKUP_BATCH;
use zerocopy::{FromBytes, IntoBytes};

use super::syscall;

/// The first `count` entries of a per-CPU array: for each what `sum` makes of the values of all possible processors.
///
/// # Errors
/// As bpf(2).
pub(super) fn of_processors<V: FromBytes + IntoBytes + Copy>(
    map: BorrowedFd<'_>,
    count: u32,
    processors: usize,
    sum: impl Fn(&[V]) -> V,
) -> io::Result<Vec<V>> {
    const {
        assert!(
            size_of::<V>().is_multiple_of(8),
            "the kernel pads values to eight bytes"
        );
    }
    let count = count as usize;
    let mut keys = vec![0_u32; count];
    let mut values = vec![V::new_zeroed(); count * processors];
    let mut cursor = Cursor::default();
    let mut read = 0;
    while read < count {
        let room = u32::try_from(count - read).unwrap_or(u32::MAX);
        let keys = keys[read..].as_mut_bytes();
        let values = values[read * processors..].as_mut_bytes();
        let got = cursor.lookup(map, room, keys, values)?;
        read += got;
        if cursor.ended || got == 0 {
            break;
        }
    }
    Ok(values.chunks(processors).take(read).map(sum).collect())
}

/// All entries of a hash map that holds at most `max`, as `read` makes them.
///
/// # Errors
/// As bpf(2).
pub(super) fn of_hash<K, V, T>(
    map: BorrowedFd<'_>,
    max: u32,
    mut read: impl FnMut(K, &V) -> T,
) -> io::Result<Vec<T>>
where
    K: FromBytes + IntoBytes + Copy,
    V: FromBytes + IntoBytes + Copy,
{
    let room = max.clamp(1, HASH_STEP);
    let mut keys = vec![K::new_zeroed(); room as usize];
    let mut values = vec![V::new_zeroed(); room as usize];
    let mut entries = Vec::new();
    let mut cursor = Cursor::default();
    // A map that changes meanwhile may be longer than it was.
    while !cursor.ended && entries.len() <= max as usize * 2 {
        let got = cursor.lookup(map, room, keys.as_mut_bytes(), values.as_mut_bytes())?;
        let batch = keys.iter().zip(&values).take(got);
        entries.extend(batch.map(|(key, value)| read(*key, value)));
    }
    Ok(entries)
}

/// How many entries a map has whose keys and values take so many bytes.
///
/// # Errors
/// As bpf(2).
pub(super) fn count(
    map: BorrowedFd<'_>,
    max: u32,
    key_size: usize,
    value_size: usize,
) -> io::Result<u64> {
    let room = max.clamp(1, STEP);
    let mut keys = vec![0_u8; room as usize * key_size];
    let mut values = vec![0_u8; room as usize * value_size];
    let mut entries = 0;
    let mut cursor = Cursor::default();
    while !cursor.ended && entries <= u64::from(max) {
        entries += cursor.lookup(map, room, &mut keys, &mut values)? as u64;
    }
    Ok(entries.min(max.into()))
}

/// Where a walk through a map stands.
#[derive(Default)]
struct Cursor {
    /// A bucket's number, or of arrays and tries a key.
    place: [u64; 8],
    begun: bool,
    ended: bool,
}

impl Cursor {
    /// Fills `keys` and `values` with at most `room` entries; answers how many.
    fn lookup(
        &mut self,
        map: BorrowedFd<'_>,
        room: u32,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<usize> {
        let from = self.place;
        let mut attributes = syscall::attributes();
        // SAFETY: `batch` is such a member, and is written whole before the kernel reads it.
        let batch = unsafe { &mut attributes.batch };
        batch.in_batch = match self.begun {
            true => (&raw const from) as u64,
            false => 0,
        };
        batch.out_batch = (&raw mut self.place) as u64;
        batch.keys = keys.as_mut_ptr() as u64;
        batch.values = values.as_mut_ptr() as u64;
        batch.count = room;
        batch.map_fd = map.as_raw_fd().cast_unsigned();
        // SAFETY: the kernel writes at most `room` keys and values, which the callers made room for by the sizes of the
        // map, and a place that is no longer than the longest key, 64 bytes.
        let result = unsafe { syscall::bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        // SAFETY: written by the kernel or left as it was, an integer both times.
        let got = unsafe { attributes.batch.count } as usize;
        self.begun = true;
        match result {
            Ok(()) => Ok(got),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.ended = true;
                Ok(got)
            }
            Err(error) => Err(error),
        }
    }
}

const STEP: u32 = 16_384;
/// Entries stay in the processor's cache between the kernel and their reader; a bucket never has as many.
const HASH_STEP: u32 = 1024;
