//! Connections as the API tells them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Those that the node knows one by one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Connections {
    /// How many match what was asked for; as many or fewer are listed.
    pub total: u64,
    pub counts: Vec<ConnectionCount>,
    pub connections: Vec<ConnectionLine>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ConnectionCount {
    pub kind: ConnectionKind,
    pub service: Option<String>,
    pub backend: Option<String>,
    pub connections: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ConnectionLine {
    pub kind: ConnectionKind,
    /// `tcp`, `udp`, …; `None` where the table does not say.
    pub protocol: Option<String>,
    /// Who opened it: `198.51.100.7:51000`.
    pub from: String,
    /// The vip, the proxy's address, or whom this node asked.
    pub to: String,
    /// `l4.plain`
    pub service: Option<String>,
    /// `web1:80`
    pub backend: Option<String>,
    /// Since its last packet.
    pub idle_seconds: Option<u32>,
}

/// Why a connection is known.
#[derive(
    Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionKind {
    /// A client's, to the proxy.
    Proxied,
    /// Its service resets the flows of a lost backend.
    Session,
    /// Kept on its backend while its slot of the ring moves to another.
    Steered,
    /// This node opened it, and its replies are let in.
    Opened,
}

impl ConnectionKind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxied => "proxied",
            Self::Session => "session",
            Self::Steered => "steered",
            Self::Opened => "opened",
        }
    }
}
