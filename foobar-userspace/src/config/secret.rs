//! Where a secret is found: the file never holds one.

use std::{env, fmt, io, path::PathBuf};

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Secret {
    /// The name of a systemd credential.
    Credential(String),
    /// An environment variable.
    Env(String),
    File(PathBuf),
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("systemd gave this process no credentials (`{0}` is wanted)")]
    NoCredentials(String),
    #[error("the environment variable `{0}` is not set")]
    NoVariable(String),
    #[error("the secret at {0} is empty, or no text")]
    NoText(String),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

impl Secret {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// It is not where the configuration says.
    pub fn find(&self) -> Result<Vec<u8>, SecretError> {
        match self {
            Self::Credential(name) => {
                let directory = env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read(PathBuf::from(directory).join(name))
            }
            Self::Env(name) => env::var(name)
                .map(String::into_bytes)
                .map_err(|_| SecretError::NoVariable(name.clone())),
            Self::File(path) => read(path.clone()),
        }
    }

    /// Finds it, now: one that was renewed is found at the next call. Line ends around it do not count.
    ///
    /// # Errors
    ///
    /// It is not where the configuration says, or not text.
    pub fn reveal(&self) -> Result<Revealed, SecretError> {
        let text = String::from_utf8(self.find()?).unwrap_or_default();
        match text.trim() {
            "" => Err(SecretError::NoText(self.to_string())),
            text => Ok(Revealed(text.to_owned())),
        }
    }
}

fn read(path: PathBuf) -> Result<Vec<u8>, SecretError> {
    std::fs::read(&path).map_err(|source| SecretError::Unreadable { path, source })
}

/// A secret that is text, which no log and no `{:?}` shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Revealed(String);

impl Revealed {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Revealed {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<secret>")
    }
}

impl SecretError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::NoCredentials(name) => format!(
                "add `LoadCredential={name}:/path/of/the/secret` to the unit, or write `{{ file = \"…\" }}`"
            ),
            Self::NoVariable(name) => {
                format!("start foobar with `{name}=…`, or write `{{ file = \"…\" }}`")
            }
            Self::NoText(_) | Self::Unreadable { .. } => {
                "put the secret there, readable by foobar alone, or name another place".to_owned()
            }
        }
    }
}

/// As the file says it.
impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = match self {
            Self::Credential(name) => ("credential", name.clone()),
            Self::Env(name) => ("env", name.clone()),
            Self::File(path) => ("file", path.to_string_lossy().into_owned()),
        };
        write!(formatter, "{{ {key} = {} }}", super::tree::quoted(&value))
    }
}
