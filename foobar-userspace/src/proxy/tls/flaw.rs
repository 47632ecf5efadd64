//! What is wrong with a certificate, a key or a file that the configuration names: where, and the cure.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::config::{Place, SecretError};

/// Something that the configuration names and that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flaw {
    /// Where the configuration names it.
    pub place: Place,
    pub severity: Severity,
    pub message: String,
    pub cure: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// A file that is not there: on another machine it may be.
    Absent,
    /// It works for as long as clients put up with it: an expired certificate, a wrong name.
    Doubtful,
    /// Nothing can be served with it.
    Fatal,
    /// A secret that this process is not given: the unit's own may be.
    Unseen,
}

impl Flaw {
    pub(super) fn fatal(place: Place, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            place,
            severity: Severity::Fatal,
            message: message.into(),
            cure: cure.into(),
        }
    }

    pub(super) fn doubtful(
        place: Place,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Doubtful,
            ..Self::fatal(place, message, cure)
        }
    }

    pub(in crate::proxy) fn unreadable(place: Place, path: &Path, error: &io::Error) -> Self {
        let (why, cure) = match error.kind() {
            io::ErrorKind::NotFound => (
                "there is no such file".to_owned(),
                "put it there, or name another",
            ),
            io::ErrorKind::PermissionDenied => (
                "permission denied".to_owned(),
                "let the user that runs foobar read it",
            ),
            _ => (error.to_string(), "name a file that can be read"),
        };
        let severity = match error.kind() {
            io::ErrorKind::NotFound => Severity::Absent,
            _ => Severity::Fatal,
        };
        Self {
            severity,
            ..Self::fatal(
                place,
                format!("cannot read {}: {why}", path.display()),
                cure,
            )
        }
    }

    pub(super) fn secret(place: Place, error: &SecretError) -> Self {
        let severity = match error {
            SecretError::NoCredentials { .. } | SecretError::NotSet { .. } => Severity::Unseen,
            SecretError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Severity::Absent
            }
            SecretError::Read { .. } | SecretError::Empty { .. } => Severity::Fatal,
        };
        let mut message = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            message = format!("{message}: {cause}");
        }
        Self {
            severity,
            ..Self::fatal(
                place,
                message,
                "put the key there, readable by foobar alone, or name another place",
            )
        }
    }
}

pub(super) fn read(place: Place, path: &PathBuf) -> Result<Vec<u8>, Flaw> {
    std::fs::read(path).map_err(|error| Flaw::unreadable(place, path, &error))
}
