//! Counters of user space in a memory-mapped, pinned BPF array: counted without a system call, kept over restarts, and
//! read without a controller.
#![expect(
    unsafe_code,
    reason = "memory that the kernel shares is reached by mmap(2)"
)]

use std::{
    fmt, io,
    ops::Deref,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    ptr::{self, NonNull},
    slice,
    sync::atomic::AtomicU64,
};

use aya::maps::MapData;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;

use super::{
    KernelError,
    bpffs::{self, Pins},
};

/// The counters of the proxy.
pub const PROXY_TALLY: &str = "PROXY_TALLY";

/// An array of words that other processes see too.
pub struct Mapped {
    start: NonNull<AtomicU64>,
    words: usize,
    name: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    Count,
    Read,
}

// SAFETY: the memory is shared and mapped until drop; all access to it is atomic.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The node's words of this name, as they were left; zeros where there are none, or others than `words`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn adopt(node: &str, name: &'static str, words: u32) -> Result<Self, KernelError> {
        bpffs::mount_if_absent()?;
        let directory = Pins::of(node).mapped();
        bpffs::create_directory(&directory)?;
        let pin = directory.join(name);
        if pin.exists() {
            let old = open(&pin, name)?;
            if old
                .info()
                .map_err(|error| refused("read", name, error))?
                .max_entries()
                == words
            {
                return Self::map(&old, name, words, Purpose::Count);
            }
            std::fs::remove_file(&pin)
                .map_err(|source| KernelError::path("remove", &pin, source))?;
        }
        let new = create(name, words)?;
        new.pin(&pin).map_err(|error| KernelError::Map {
            doing: "pin",
            map: name,
            source: error.into(),
        })?;
        Self::map(&new, name, words, Purpose::Count)
    }

    /// The node's words of this name, to be read.
    ///
    /// # Errors
    /// [`KernelError::NotDeployed`] where there are none.
    pub fn look(node: &str, name: &'static str) -> Result<Self, KernelError> {
        bpffs::permitted()?;
        let pin = Pins::of(node).mapped().join(name);
        if !pin.exists() {
            return Err(KernelError::NotDeployed {
                node: node.to_owned(),
            });
        }
        let map = open(&pin, name)?;
        let words = map
            .info()
            .map_err(|error| refused("read", name, error))?
            .max_entries();
        Self::map(&map, name, words, Purpose::Read)
    }

    fn map(
        data: &MapData,
        name: &'static str,
        words: u32,
        purpose: Purpose,
    ) -> Result<Self, KernelError> {
        let protection = match purpose {
            Purpose::Count => libc::PROT_READ | libc::PROT_WRITE,
            Purpose::Read => libc::PROT_READ,
        };
        let words = words as usize;
        // SAFETY: a new mapping where the kernel likes; the descriptor is open for the length of the call, and the
        // mapping outlives it.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                words * size_of::<AtomicU64>(),
                protection,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<AtomicU64>()) {
            Some(mapped) if start != libc::MAP_FAILED => Ok(Self {
                start: mapped,
                words,
                name,
            }),
            _ => Err(KernelError::Map {
                doing: "map into memory",
                map: name,
                source: io::Error::last_os_error().into(),
            }),
        }
    }
}

impl Deref for Mapped {
    type Target = [AtomicU64];

    /// Words that were opened to be read may only be loaded: a store ends the process.
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `map` mapped that many words, page-aligned, and they stay mapped until drop; the kernel never
        // invalidates a value of an integer.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: of exactly what `map` mapped; no reference outlives `self`.
        unsafe {
            libc::munmap(
                self.start.as_ptr().cast(),
                self.words * size_of::<AtomicU64>(),
            );
        }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Mapped({}, {} words)", self.name, self.words)
    }
}

fn create(name: &'static str, words: u32) -> Result<MapData, KernelError> {
    let array = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        4,
        8,
        words,
        aya_obj::generated::BPF_F_MMAPABLE,
    );
    MapData::create(array, name, None).map_err(|error| refused("create", name, error))
}

fn open(pin: &Path, name: &'static str) -> Result<MapData, KernelError> {
    MapData::from_pin(pin).map_err(|error| refused("open", name, error))
}

fn refused(doing: &'static str, name: &'static str, error: aya::maps::MapError) -> KernelError {
    KernelError::map(doing, name, error)
}
