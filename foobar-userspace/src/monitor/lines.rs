//! Lines of the logs that operators read: requests, drops, changes by command, alerts.

use serde::{Deserialize, Serialize};

/// One line, without its end.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Unix nanoseconds.
    pub at: u64,
    pub stream: Stream,
    pub text: String,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    Access,
    Alerts,
    Audit,
    Drops,
}

impl Stream {
    pub const ALL: [Self; 4] = [Self::Access, Self::Alerts, Self::Audit, Self::Drops];

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Alerts => "alerts",
            Self::Audit => "audit",
            Self::Drops => "drops",
        }
    }
}
