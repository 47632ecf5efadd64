//! One controller a node: a lock that the kernel takes back when its holder dies.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt as _, fchown},
    },
    path::{Path, PathBuf},
    process,
};

use super::KernelError;

const DIRECTORY: &str = "/run/foobar";

/// Held for as long as it lives.
#[derive(Debug)]
pub struct NodeLock {
    file: File,
    holding: Holding,
}

/// What becomes of the lock with its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Holding {
    /// Free for the next.
    Alone,
    /// Another process has the same open file and goes on with it.
    Shared,
}

impl NodeLock {
    /// # Errors
    /// [`KernelError::Locked`] names the process that has it.
    pub fn take(node: &str) -> Result<Self, KernelError> {
        let path = lock_path(node);
        fs::create_dir_all(DIRECTORY)
            .map_err(|source| KernelError::path("create", DIRECTORY, source))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| KernelError::path("open", &path, source))?;
        give_to_owner_of_directory(&file);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The holder may be about to write its pid; the refusal stands without it.
                let _ = file.read_to_string(&mut pid);
                return Err(KernelError::Locked {
                    node: node.to_owned(),
                    pid: match pid.trim() {
                        "" => "unknown".to_owned(),
                        pid => pid.to_owned(),
                    },
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(KernelError::path("lock", path, source));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", process::id()))
            .map_err(|source| KernelError::path("write", path, source))?;
        Ok(Self {
            file,
            holding: Holding::Alone,
        })
    }

    /// The lock of the process that this one succeeds: theirs until [`Self::own`].
    #[must_use]
    pub fn inherited(descriptor: OwnedFd) -> Self {
        Self {
            file: File::from(descriptor),
            holding: Holding::Shared,
        }
    }

    /// The process that it came from is gone, or about to be.
    ///
    /// # Errors
    /// When this process cannot be named in it.
    pub fn own(&mut self) -> Result<(), KernelError> {
        self.holding = Holding::Alone;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| writeln!(self.file, "{}", process::id()))
            .map_err(|source| KernelError::path("write", DIRECTORY, source))
    }

    /// Another process has it now.
    pub fn leave(mut self) {
        self.holding = Holding::Shared;
    }
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        if self.holding == Holding::Shared {
            return;
        }
        // Closing alone would leave the lock with a child that is between fork and exec.
        let _ = self.file.unlock();
    }
}

impl AsFd for NodeLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What root locked by a command, the controller's own user must be able to lock next.
fn give_to_owner_of_directory(file: &File) {
    if let (Ok(directory), Ok(known)) = (fs::metadata(DIRECTORY), file.metadata())
        && directory.uid() != known.uid()
    {
        // Who may not give it away is not root, and then it is the owner's already.
        let _ = fchown(file, Some(directory.uid()), Some(directory.gid()));
    }
}

fn lock_path(node: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}.lock", node.replace('/', "_")))
}
