//! Session tickets: sealed under keys that rotate, and that several balancers may share.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    rand,
};
use rustls::server::ProducesTickets;

/// The keys in use, the newest first: it seals, all open.
#[derive(Clone)]
pub struct TicketKeys(Arc<Vec<Key>>);

/// Why shared keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TicketKeysError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds {length} bytes, not {KEY_LENGTH}", path.display())]
    Length { path: PathBuf, length: usize },
    #[error("{} holds no file of {KEY_LENGTH} bytes", path.display())]
    Nothing { path: PathBuf },
    #[error("there is no randomness")]
    NoRandomness,
}

/// What rustls asks; the keys behind it can be changed at any time.
pub struct Ticketing {
    keys: ArcSwap<Vec<Key>>,
    lifetime: Duration,
}

/// Made of 80 bytes as nginx and HAProxy share them: 16 that name the key, 64 that are it.
struct Key {
    bytes: [u8; KEY_LENGTH],
    seal: RandomizedNonceKey,
}

impl TicketKeys {
    /// One new key, of this process alone.
    ///
    /// # Errors
    /// Without randomness.
    pub fn random() -> Result<Self, TicketKeysError> {
        Ok(Self(Arc::new(vec![Key::random()?])))
    }

    /// Those of a file, or of a directory's files: the one changed last seals.
    ///
    /// # Errors
    /// They cannot be read, or are not of 80 bytes.
    pub fn shared(path: &Path) -> Result<Self, TicketKeysError> {
        let unreadable = |source| TicketKeysError::Unreadable {
            path: path.to_owned(),
            source,
        };
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Ok(Self(Arc::new(vec![Key::read(path)?])));
        }
        let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(path)
            .map_err(unreadable)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let path = entry.path();
                let hidden = entry.file_name().to_string_lossy().starts_with(['.', '#']);
                let metadata = fs::metadata(&path).ok()?;
                let changed = metadata.modified().ok()?;
                (metadata.is_file() && !hidden).then_some((changed, path))
            })
            .collect();
        // Of two of one moment the later name: names with a date sort by it.
        files.sort_by(|a, b| b.cmp(a));
        let keys: Vec<Key> = files
            .iter()
            .take(MOST_KEYS)
            .map(|(_, path)| Key::read(path))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(TicketKeysError::Nothing {
                path: path.to_owned(),
            });
        }
        Ok(Self(Arc::new(keys)))
    }

    /// A new key seals from now on; the one before opens for as long again.
    ///
    /// # Errors
    /// Without randomness.
    pub fn rotated(&self) -> Result<Self, TicketKeysError> {
        let before = self.0.first().and_then(|key| Key::of(key.bytes));
        Ok(Self(Arc::new(
            std::iter::once(Key::random()?).chain(before).collect(),
        )))
    }

    /// To be handed to the process that takes over.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|key| key.bytes).collect()
    }

    /// What [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (keys, rest) = bytes.as_chunks::<KEY_LENGTH>();
        let keys: Vec<Key> = keys.iter().filter_map(|bytes| Key::of(*bytes)).collect();
        (rest.is_empty() && !keys.is_empty()).then(|| Self(Arc::new(keys)))
    }

    /// Whether the same keys are in the same order.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0
            .iter()
            .map(|key| key.bytes)
            .eq(other.0.iter().map(|key| key.bytes))
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TicketKeys({})", self.0.len())
    }
}

impl Key {
    fn random() -> Result<Self, TicketKeysError> {
        let mut bytes = [0; KEY_LENGTH];
        rand::fill(&mut bytes).map_err(|_| TicketKeysError::NoRandomness)?;
        Self::of(bytes).ok_or(TicketKeysError::NoRandomness)
    }

    fn read(path: &Path) -> Result<Self, TicketKeysError> {
        let bytes = fs::read(path).map_err(|source| TicketKeysError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let exact: Option<[u8; KEY_LENGTH]> = bytes.as_slice().try_into().ok();
        exact.and_then(Self::of).ok_or(TicketKeysError::Length {
            path: path.to_owned(),
            length: bytes.len(),
        })
    }

    fn of(bytes: [u8; KEY_LENGTH]) -> Option<Self> {
        // Whatever made the 64 bytes: their digest is a key of the length that the cipher wants, and is used for
        // nothing else.
        let secret = bytes.get(NAME_LENGTH..)?;
        let sealing = digest(&SHA256, &[b"foobar session ticket", secret].concat());
        let seal = RandomizedNonceKey::new(&AES_256_GCM, sealing.as_ref()).ok()?;
        Some(Self { bytes, seal })
    }

    fn name(&self) -> &[u8] {
        self.bytes.get(..NAME_LENGTH).unwrap_or_default()
    }
}

impl Ticketing {
    #[must_use]
    pub fn new(keys: TicketKeys, lifetime: Duration) -> Self {
        Self {
            keys: ArcSwap::new(keys.0),
            lifetime,
        }
    }

    pub fn change(&self, keys: TicketKeys) {
        self.keys.store(keys.0);
    }

    #[must_use]
    pub fn keys(&self) -> TicketKeys {
        TicketKeys(self.keys.load_full())
    }
}

impl fmt::Debug for Ticketing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ticketing").finish_non_exhaustive()
    }
}

impl ProducesTickets for Ticketing {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    /// Name of the key, nonce, sealed text with its tag.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key
            .seal
            .seal_in_place_append_tag(Aad::from(key.name()), &mut sealed)
            .ok()?;
        Some([key.name(), nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LENGTH)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.name() == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let length = key
            .seal
            .open_in_place(nonce, Aad::from(name), &mut sealed)
            .ok()?
            .len();
        sealed.truncate(length);
        Some(sealed)
    }
}

const KEY_LENGTH: usize = 80;
const NAME_LENGTH: usize = 16;
/// Each ticket is looked for by name only, but someone's `/dev` shall not be read whole.
const MOST_KEYS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketing(keys: TicketKeys) -> Ticketing {
        Ticketing::new(keys, Duration::from_secs(60))
    }

    #[test]
    fn a_ticket_opens_under_its_key_and_the_one_after_only() {
        let tickets = ticketing(TicketKeys::random().expect("randomness"));
        let ticket = tickets.encrypt(b"session").expect("sealed");
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        tickets.change(tickets.keys().rotated().expect("randomness"));
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        tickets.change(tickets.keys().rotated().expect("randomness"));
        assert_eq!(tickets.decrypt(&ticket), None);
    }

    #[test]
    fn no_changed_byte_opens() {
        let tickets = ticketing(TicketKeys::random().expect("randomness"));
        let ticket = tickets.encrypt(b"session").expect("sealed");
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(tickets.decrypt(&forged), None);
            assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
    }

    #[test]
    fn two_balancers_open_each_other_s_tickets_by_a_shared_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("2026-11-23"), [1; KEY_LENGTH]).expect("written");
        let one = ticketing(TicketKeys::shared(directory.path()).expect("a key"));
        let old = one.encrypt(b"old").expect("sealed");
        fs::write(directory.path().join("2026-11-24"), [2; KEY_LENGTH]).expect("written");
        let two = ticketing(TicketKeys::shared(directory.path()).expect("keys"));
        assert_eq!(two.decrypt(&old).as_deref(), Some(&b"old"[..]));
        let new = two.encrypt(b"new").expect("sealed");
        assert_eq!(one.decrypt(&new), None, "it has not read the new key yet");
        one.change(TicketKeys::shared(directory.path()).expect("keys"));
        assert_eq!(one.decrypt(&new).as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        fs::write(&path, [1; 48]).expect("written");
        let refused = TicketKeys::shared(&path).expect_err("too short");
        assert!(
            refused.to_string().contains("holds 48 bytes, not 80"),
            "{refused}"
        );
        let empty = TicketKeys::shared(&directory.path().join("none")).expect_err("nothing");
        assert!(matches!(empty, TicketKeysError::Unreadable { .. }));
    }

    #[test]
    fn keys_survive_a_change_of_the_process() {
        let keys = TicketKeys::random()
            .and_then(|keys| keys.rotated())
            .expect("randomness");
        let taken = TicketKeys::from_bytes(&keys.to_bytes()).expect("whole");
        assert!(taken.same(&keys));
        assert!(TicketKeys::from_bytes(&keys.to_bytes()[1..]).is_none());
    }
}
