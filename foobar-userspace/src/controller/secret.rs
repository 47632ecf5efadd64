//! The keys of the flow hash: drawn once per deployment, so that no one outside can aim flows at one backend.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use foobar_ebpf::abi::HASH_KEYS;

use crate::kernel::HashKeys;

const BYTES: usize = HASH_KEYS * 8;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is damaged: it has {length} bytes where {BYTES} are needed; remove it, and flows to the balancer's vips \
         are spread anew",
        path.display()
    )]
    Damaged { path: PathBuf, length: usize },
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
}

impl SecretError {
    /// A missing privilege: exit status 77.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Where what outlives a reboot is kept: `$FOOBAR_STATE`, else `/var/lib/foobar`.
#[must_use]
pub fn state_directory(node: &str) -> PathBuf {
    let root = env::var_os("FOOBAR_STATE").map_or_else(|| "/var/lib/foobar".into(), PathBuf::from);
    root.join(node.replace('/', "_"))
}

/// The node's keys, made where there are none yet.
///
/// # Errors
/// When they cannot be read or written.
pub fn hash_keys(directory: &Path) -> Result<HashKeys, SecretError> {
    let path = directory.join("secret");
    match fs::read(&path) {
        Ok(bytes) => parse(&bytes).ok_or(SecretError::Damaged {
            path,
            length: bytes.len(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => draw(directory, &path),
        Err(source) => Err(SecretError::Io {
            doing: "read",
            path,
            source,
        }),
    }
}

fn draw(directory: &Path, path: &Path) -> Result<HashKeys, SecretError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| SecretError::Io {
            doing,
            path,
            source,
        }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io("create", directory))?;
    // Renamed into place: a crash leaves no half of it.
    let unfinished = directory.join("secret.new");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .map_err(io("write", &unfinished))?;
    fs::rename(&unfinished, path).map_err(io("write", path))?;
    Ok(keys(&bytes))
}

fn parse(bytes: &[u8]) -> Option<HashKeys> {
    bytes.try_into().ok().map(keys)
}

fn keys(bytes: &[u8; BYTES]) -> HashKeys {
    let mut keys = [0; HASH_KEYS];
    let (words, _) = bytes.as_chunks();
    for (key, word) in keys.iter_mut().zip(words) {
        *key = u64::from_le_bytes(*word);
    }
    HashKeys(keys)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_keys_are_drawn_once_and_are_nobody_elses_to_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let node = directory.path().join("lb1");
        let first = hash_keys(&node).expect("made");
        assert_eq!(hash_keys(&node).expect("read"), first);
        assert_ne!(first.0, [0; HASH_KEYS]);
        let mode = fs::metadata(node.join("secret"))
            .expect("made")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let other = hash_keys(&directory.path().join("lb2")).expect("made");
        assert_ne!(other, first);
    }

    #[test]
    fn a_damaged_secret_is_told_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("secret"), "short").expect("written");
        let error = hash_keys(directory.path()).expect_err("damaged");
        assert!(error.to_string().contains("5 bytes"), "{error}");
    }
}
