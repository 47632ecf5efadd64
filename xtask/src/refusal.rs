//! Ends that have an exit status of their own.

use std::fmt;

/// Why xtask stops, said to the user as it stands.
#[derive(Debug)]
pub struct Refusal {
    pub status: Status,
    pub message: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Status {
    Failed = 1,
    NoCompiler = 3,
    NoLinker = 4,
    PanicInObject = 5,
    DeepStack = 6,
    NotPermitted = 77,
}

impl Refusal {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
