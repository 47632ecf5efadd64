//! One controller a node: a lock that the kernel takes back when its holder dies.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    process,
};

use super::KernelError;

const DIRECTORY: &str = "/run/foobar";

/// Held for as long as it lives.
#[derive(Debug)]
pub struct NodeLock {
    file: File,
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
        Ok(Self { file })
    }
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock with a child that is between fork and exec.
        let _ = self.file.unlock();
    }
}

fn lock_path(node: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}.lock", node.replace('/', "_")))
}
