//! Secrets: where they are found, never what they are.

use std::{fmt, fs, io, path::PathBuf};

/// As the file writes it: `{ credential = "…" }`, `{ file = "…" }` or `{ env = "…" }`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Secret {
    /// A systemd credential, by name.
    Credential(String),
    File(PathBuf),
    Environment(String),
}

/// What was found there; shown by nobody.
#[derive(Clone, Eq, PartialEq)]
pub struct Revealed(String);

/// Why a secret is not there.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "no systemd credential `{name}` is there; add `LoadCredential={name}:/path/to/it` to the unit, or write `{{ file = \"…\" }}`"
    )]
    NoCredentials { name: String },
    #[error("cannot read the secret at {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the environment variable {name} is not set, or is not text")]
    NotSet { name: String },
    #[error("the secret at {place} is empty")]
    Empty { place: String },
}

impl Secret {
    /// Reads it, now: a secret that was renewed is found at the next call.
    ///
    /// # Errors
    /// When it is not there.
    pub fn reveal(&self) -> Result<Revealed, SecretError> {
        let text = match self {
            Self::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::NoCredentials { name: name.clone() })?;
                read(PathBuf::from(directory).join(name))?
            }
            Self::File(path) => read(path.clone())?,
            Self::Environment(name) => {
                std::env::var(name).map_err(|_| SecretError::NotSet { name: name.clone() })?
            }
        };
        match text.trim() {
            "" => Err(SecretError::Empty {
                place: self.to_string(),
            }),
            secret => Ok(Revealed(secret.to_owned())),
        }
    }
}

/// What `config show` and errors say.
impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(formatter, "credential {name}"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Environment(name) => write!(formatter, "variable {name}"),
        }
    }
}

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

fn read(path: PathBuf) -> Result<String, SecretError> {
    fs::read_to_string(&path).map_err(|source| SecretError::Read { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_file_is_read_without_the_line_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("url");
        fs::write(&path, "https://example.com/hook\n").expect("written");
        let revealed = Secret::File(path).reveal().expect("there");
        assert_eq!(revealed.expose(), "https://example.com/hook");
        assert_eq!(format!("{revealed:?}"), "<secret>");
    }

    #[test]
    fn a_secret_that_is_not_there_says_where_it_was_sought() {
        let error = Secret::File("/nonexistent/url".into())
            .reveal()
            .expect_err("nothing there");
        assert!(error.to_string().contains("/nonexistent/url"), "{error}");
    }
}
