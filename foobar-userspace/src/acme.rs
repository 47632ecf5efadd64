//! Certificates from an ACME server (RFC 8555): ordered, proved, kept in a directory, renewed in time.

use std::{
    collections::BTreeMap,
    error::Error as _,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, OrderStatus, RetryPolicy,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time,
};

use crate::{
    config::{Acme, AcmeChallenge},
    stable,
};

/// What a site wants of its ACME server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    pub service: String,
    pub names: Vec<String>,
    pub acme: Acme,
}

/// News for the controller.
#[derive(Debug)]
pub enum Event {
    /// Show these to whoever asks, and say when they can be seen.
    Prove {
        service: String,
        proofs: Vec<Proof>,
        shown: oneshot::Sender<()>,
    },
    /// A new certificate lies at [`paths`].
    Obtained { service: String },
    /// It is tried again.
    Failed { service: String, why: String },
}

/// Proves the ownership of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    pub name: String,
    pub challenge: AcmeChallenge,
    pub token: String,
    pub key_authorization: String,
    /// SHA-256 of the key authorisation.
    pub digest: Vec<u8>,
}

/// The orders under way; ended when dropped.
#[derive(Debug)]
pub struct Orders {
    directory: PathBuf,
    events: mpsc::Sender<Event>,
    running: BTreeMap<String, (Wanted, Task)>,
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no certificate yet.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("the ACME server")]
    Server(#[from] instant_acme::Error),
    #[error("the server offers no {0} for {1}")]
    NoChallenge(&'static str, String),
    #[error("{name} is not proved: {why}")]
    NotProved { name: String, why: String },
    #[error("the order ended as {0:?}")]
    Status(OrderStatus),
    #[error("cannot keep {}", path.display())]
    Keep { path: PathBuf, source: io::Error },
    #[error("foobar is ending")]
    Ending,
}

impl Orders {
    /// `directory` is where accounts and certificates are kept.
    #[must_use]
    pub fn new(directory: PathBuf) -> (Self, mpsc::Receiver<Event>) {
        let (events, inbox) = mpsc::channel(16);
        let orders = Self {
            directory,
            events,
            running: BTreeMap::new(),
        };
        (orders, inbox)
    }

    /// Keeps the certificates of exactly these from now on; `ends` are the validities of those that are there already.
    pub fn aim(&mut self, wanted: Vec<Wanted>, validity: impl Fn(&str) -> Option<Validity>) {
        self.running.retain(|service, (before, _)| {
            wanted
                .iter()
                .any(|wanted| wanted.service == *service && wanted == before)
        });
        for wanted in wanted {
            if !self.running.contains_key(&wanted.service) {
                let task = tokio::spawn(keep(
                    wanted.clone(),
                    validity(&wanted.service),
                    self.directory.clone(),
                    self.events.clone(),
                ));
                let task = Task(task.abort_handle());
                self.running.insert(wanted.service.clone(), (wanted, task));
            }
        }
    }
}

/// How long a certificate that is there is good, for the names that are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Validity {
    /// When it is renewed: `before` its end, but not before two thirds of its life.
    #[must_use]
    pub fn due(&self, before: Duration) -> SystemTime {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default();
        self.not_after - before.min(life / 3)
    }
}

/// The chain and the key of a service.
#[must_use]
pub fn paths(directory: &Path, service: &str) -> (PathBuf, PathBuf) {
    let home = directory.join(service);
    (home.join("cert.pem"), home.join("key.pem"))
}

async fn keep(
    wanted: Wanted,
    mut validity: Option<Validity>,
    directory: PathBuf,
    events: mpsc::Sender<Event>,
) {
    let mut patience = FIRST_PATIENCE;
    loop {
        if let Some(validity) = validity {
            let due = validity.due(wanted.acme.renew_before);
            // In steps, as the wall clock may be set meanwhile.
            while let Ok(left) = due.duration_since(SystemTime::now()) {
                time::sleep(left.min(STEP)).await;
            }
        }
        let service = wanted.service.clone();
        let begun = SystemTime::now();
        let event = match order(&wanted, &directory, &events).await {
            Ok(life) => {
                patience = FIRST_PATIENCE;
                validity = Some(Validity {
                    not_before: begun,
                    not_after: begun + life,
                });
                Event::Obtained { service }
            }
            Err(error) => {
                validity = None;
                Event::Failed {
                    service,
                    why: chain(&error),
                }
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
        if validity.is_none() {
            time::sleep(patience).await;
            patience = (patience * 2).min(LAST_PATIENCE);
        }
    }
}

/// Orders a certificate and keeps it; how long it is good.
async fn order(
    wanted: &Wanted,
    directory: &Path,
    events: &mpsc::Sender<Event>,
) -> Result<Duration, OrderError> {
    let account = account(&wanted.acme, directory).await?;
    let names: Vec<Identifier> = wanted.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let proofs = proofs(&mut order, wanted).await?;
    let (shown, seen) = oneshot::channel();
    let asked = Event::Prove {
        service: wanted.service.clone(),
        proofs,
        shown,
    };
    events.send(asked).await.map_err(|_| OrderError::Ending)?;
    seen.await.map_err(|_| OrderError::Ending)?;
    let proved = prove(&mut order, wanted.acme.challenge).await;
    if let Err(error) = proved {
        return Err(why_not(&mut order).await.unwrap_or(error));
    }
    let key = order.finalize().await?;
    let certificate = order.poll_certificate(&RetryPolicy::default()).await?;
    let (cert_path, key_path) = paths(directory, &wanted.service);
    put(&key_path, &key)?;
    put(&cert_path, &certificate)?;
    Ok(life(&certificate))
}

/// The one that is kept for this server, else a new one.
async fn account(acme: &Acme, directory: &Path) -> Result<Account, OrderError> {
    let name = format!("account-{:016x}.json", stable::hash(&acme.directory));
    let path = directory.join(name);
    let builder = || match &acme.ca {
        Some(ca) => Account::builder_with_root(ca),
        None => Account::builder(),
    };
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(credentials) = serde_json::from_str::<AccountCredentials>(&text)
        && let Ok(account) = builder()?.from_credentials(credentials).await
    {
        return Ok(account);
    }
    let contact: Vec<String> = acme
        .contact
        .iter()
        .map(|address| format!("mailto:{address}"))
        .collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = builder()?
        .create(&new, acme.directory.clone(), None)
        .await?;
    let text = serde_json::to_string(&credentials).map_err(|error| OrderError::Keep {
        path: path.clone(),
        source: error.into(),
    })?;
    put(&path, &text)?;
    Ok(account)
}

async fn proofs(
    order: &mut instant_acme::Order,
    wanted: &Wanted,
) -> Result<Vec<Proof>, OrderError> {
    let (kind, word) = kind(wanted.acme.challenge);
    let mut proofs = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let challenge = authorization
            .challenge(kind.clone())
            .ok_or_else(|| OrderError::NoChallenge(word, name.clone()))?;
        let key = challenge.key_authorization();
        proofs.push(Proof {
            name,
            challenge: wanted.acme.challenge,
            token: challenge.token.clone(),
            key_authorization: key.as_str().to_owned(),
            digest: key.digest().as_ref().to_vec(),
        });
    }
    Ok(proofs)
}

async fn prove(
    order: &mut instant_acme::Order,
    challenge: AcmeChallenge,
) -> Result<(), OrderError> {
    let (kind, _) = kind(challenge);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(kind.clone()) {
            challenge.set_ready().await?;
        }
    }
    match order.poll_ready(&RetryPolicy::default()).await? {
        OrderStatus::Ready | OrderStatus::Valid => Ok(()),
        status => Err(OrderError::Status(status)),
    }
}

/// What the server says of the first name that it did not find proved.
async fn why_not(order: &mut instant_acme::Order) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        let said = state
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = said {
            return Some(OrderError::NotProved {
                why: problem.to_string(),
                name: authorization.identifier().to_string(),
            });
        }
    }
    None
}

fn kind(challenge: AcmeChallenge) -> (ChallengeType, &'static str) {
    match challenge {
        AcmeChallenge::Http01 => (ChallengeType::Http01, "http-01"),
        AcmeChallenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
    }
}

/// Of the certificate as it was issued a moment ago.
fn life(chain: &str) -> Duration {
    let ends = x509_parser::pem::parse_x509_pem(chain.as_bytes())
        .ok()
        .and_then(|(_, pem)| Some(pem.parse_x509().ok()?.validity().not_after.timestamp()))
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    ends.and_then(|ends| ends.duration_since(SystemTime::now()).ok())
        .unwrap_or(STEP)
}

/// For foobar alone, and whole or not at all.
fn put(path: &Path, text: &str) -> Result<(), OrderError> {
    let keep = |source| OrderError::Keep {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(keep)?;
    }
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&new)
        .and_then(|mut file| {
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path))
        .map_err(keep)
}

fn chain(error: &OrderError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

const STEP: Duration = Duration::from_secs(3_600);
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// Servers count failures by the hour.
const LAST_PATIENCE: Duration = Duration::from_secs(6 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_in_time_and_a_short_life_is_not_renewed_at_once() {
        let day = Duration::from_secs(86_400);
        let start = SystemTime::UNIX_EPOCH + 1_000 * day;
        let of = |days| Validity {
            not_before: start,
            not_after: start + days * day,
        };
        assert_eq!(of(90).due(20 * day), start + 70 * day);
        assert_eq!(of(90).due(60 * day), start + 60 * day);
        assert_eq!(of(6).due(30 * day), start + 4 * day);
    }

    #[test]
    fn what_is_kept_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let (_, key) = paths(directory.path(), "www");
        put(&key, "secret").expect("kept");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&key), 0o600);
        assert_eq!(mode(key.parent().expect("a directory")), 0o700);
    }
}
