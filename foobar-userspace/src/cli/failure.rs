//! How a command ends: its exit status and all that a person needs to know.

use std::{
    error::Error,
    io::{self, IsTerminal as _},
};

use foobar::{
    admin::{api::Refusal, client::ClientError},
    config::Diagnostics,
    controller::RunError,
    kernel::KernelError,
};

use super::output;

/// What ends a command early.
#[derive(Debug)]
pub struct Failure {
    pub status: Status,
    /// Nothing where nobody is left to tell.
    pub text: String,
}

/// Exit statuses, as sysexits.h has the larger ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Status {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    NotRunning = 3,
    NotPermitted = 77,
    BadConfiguration = 78,
}

impl Failure {
    pub fn new(status: Status, error: &dyn Error) -> Self {
        Self::told(status, chain(error))
    }

    pub fn told(status: Status, text: impl AsRef<str>) -> Self {
        Self {
            status,
            text: format!("foobar: {}", text.as_ref()),
        }
    }

    pub fn failed(error: &dyn Error) -> Self {
        Self::new(Status::Failed, error)
    }

    /// Whoever read standard output has seen enough, as `head` has: no failure at all.
    pub const fn reader_left() -> Self {
        Self {
            status: Status::Ok,
            text: String::new(),
        }
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl From<Diagnostics> for Failure {
    fn from(errors: Diagnostics) -> Self {
        Self {
            status: Status::BadConfiguration,
            text: errors.render(output::colors(io::stderr().is_terminal()), 120),
        }
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let status = if error.is_permission() {
            Status::NotPermitted
        } else {
            Status::Failed
        };
        Self::new(status, &error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = match &error {
            ClientError::NotRunning { .. } => Status::NotRunning,
            ClientError::NotPermitted { .. }
            | ClientError::Refused(Refusal::NotPermitted { .. }) => Status::NotPermitted,
            ClientError::Refused(Refusal::BadConfiguration { rendered }) => {
                return Self {
                    status: Status::BadConfiguration,
                    text: rendered.clone(),
                };
            }
            _ => Status::Failed,
        };
        Self::new(status, &error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Configuration(errors) => errors.into(),
            other => {
                let status = match other.exit_status() {
                    77 => Status::NotPermitted,
                    78 => Status::BadConfiguration,
                    _ => Status::Failed,
                };
                Self::new(status, &other)
            }
        }
    }
}
