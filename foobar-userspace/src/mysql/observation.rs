//! What one check of one server says: a picture of it, or why there is none.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use super::gtid::GtidSet;

/// Who a server is, whatever address it has: `server_uuid` of MySQL, `server_id` of MariaDB.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerId(pub String);

impl fmt::Display for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Make {
    Mariadb,
    Mysql,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    Answered(Box<Picture>),
    Failed(Failure),
}

/// Why a server did not answer; only some of it speaks against the server (N9).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error("connection refused")]
    Refused,
    #[error("no answer in time")]
    TimedOut,
    #[error("shutting down")]
    ShuttingDown,
    /// Our account, our certificate, our share of its connections: it lives.
    #[error("{0}")]
    Ours(String),
}

impl Failure {
    /// What an error that the server itself sent means: whoever answers lives, so all but a shutdown are ours.
    #[must_use]
    pub fn of_server(code: u16, message: &str) -> Self {
        let meaning = match code {
            1053 => return Self::ShuttingDown,
            1040 | 1203 => {
                "too many connections: give the monitor CONNECTION ADMIN and use the admin port"
            }
            1045 | 1698 => "the monitor's account or password is refused",
            1044 | 1142 | 1227 | 1370 => "the monitor's account lacks a privilege",
            1129 | 1130 => "the server blocks this host: set skip_name_resolve, then FLUSH HOSTS",
            _ => return Self::Ours(format!("error {code}: {message}")),
        };
        Self::Ours(format!("{meaning} (error {code}: {message})"))
    }

    #[must_use]
    pub const fn is_evidence(&self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut | Self::ShuttingDown)
    }
}

/// One server as one check saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub server: ServerId,
    pub make: Make,
    pub version: String,
    pub read_only: bool,
    pub super_read_only: bool,
    pub offline: bool,
    /// Whom it replicates from; `None` for one that is nobody's replica.
    pub replication: Option<Replication>,
    /// What it has committed.
    pub executed: GtidSet,
    /// The highest row of `foobar.term`.
    pub term: Option<Term>,
    /// The beat of this node as it arrived there, in microseconds of this node's clock.
    pub beat: Option<u64>,
    /// When it was started at the latest, by the same clock; nothing where that could not be asked.
    pub started: Option<u64>,
    pub semi_sync: SemiSync,
    pub group: Option<GroupView>,
    pub galera: Option<GaleraView>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replication {
    /// Not known before the first connection.
    pub source: Option<ServerId>,
    pub receiving: bool,
    pub applying: bool,
    /// Grows with everything that arrives, heartbeats too: its age is the age of the last sign of life.
    pub pulse: u64,
    /// The server's own idea of its lag: the time-stamps of what it applies, and nothing where nothing comes in.
    pub behind: Option<u64>,
    /// All that has arrived, applied or not.
    pub received: GtidSet,
    pub error: Option<String>,
}

impl Replication {
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.receiving && self.applying
    }
}

/// A row of `foobar.term`: who became primary, and by which count.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Term {
    pub number: u64,
    pub server: ServerId,
    pub origin: Origin,
}

/// Why a term began.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// Nobody was lost.
    #[default]
    Planned,
    FailoverByHand,
    FailoverByItself,
}

impl Origin {
    const NOTED: [(Self, &'static str); 2] = [
        (Self::FailoverByHand, ": failover by hand"),
        (Self::FailoverByItself, ": failover"),
    ];

    /// What the column `who` says: whose term it is, and why it began.
    #[must_use]
    pub fn noted(self, who: &str) -> String {
        let note = Self::NOTED.iter().find(|(origin, _)| *origin == self);
        format!("{who}{}", note.map_or("", |(_, note)| note))
    }

    #[must_use]
    pub fn read(who: &str) -> Self {
        let note = Self::NOTED.iter().find(|(_, note)| who.ends_with(note));
        note.map_or(Self::Planned, |(origin, _)| *origin)
    }
}

/// When a check was made, by the clock of the one who made it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// What it shows cannot be older.
    pub begun: Instant,
    pub took: Duration,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SemiSync {
    /// As a source: asked for, and in effect (it degrades to asynchronous after its time-out).
    pub armed: bool,
    pub in_effect: bool,
    /// Replicas that acknowledge.
    pub replicas: u32,
    /// As a replica.
    pub acknowledges: bool,
}

/// Group Replication as a member itself sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GroupView {
    pub online: bool,
    pub primary: bool,
    /// Whom it takes for the primary.
    pub of_primary: Option<ServerId>,
    /// Members that are ONLINE or RECOVERING, and all members of the view.
    pub reachable: usize,
    pub members: usize,
}

impl GroupView {
    #[must_use]
    pub const fn is_majority(&self) -> bool {
        self.reachable * 2 > self.members
    }
}

/// A Galera node as it sees itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GaleraView {
    pub primary_component: bool,
    /// 4: synced, 2: donor.
    pub state: u8,
    pub ready: bool,
    pub cluster: String,
    pub size: u32,
}

impl GaleraView {
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.primary_component && self.ready && self.state == 4
    }
}

/// Counters and settings, asked for more rarely.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// By the name that the server gives it, in lower case.
    pub settings: BTreeMap<String, String>,
    pub counters: BTreeMap<String, u64>,
    /// How far its clock is ahead of this node's, in microseconds.
    pub ahead: Option<i64>,
    /// Accounts that write past `read_only`, root and those for its own machine apart; none where the monitor cannot see.
    pub unbound: Option<Vec<String>>,
}

impl Survey {
    /// Statements so far: reads and writes.
    #[must_use]
    pub fn statements(&self) -> u64 {
        [
            "com_select",
            "com_insert",
            "com_update",
            "com_delete",
            "com_replace",
            "com_commit",
        ]
        .iter()
        .filter_map(|name| self.counters.get(*name))
        .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_term_began_is_read_as_it_was_noted() {
        for origin in [
            Origin::Planned,
            Origin::FailoverByHand,
            Origin::FailoverByItself,
        ] {
            assert_eq!(Origin::read(&origin.noted("lb1")), origin);
        }
    }

    #[test]
    fn an_error_of_ours_is_never_evidence_against_a_server() {
        for code in [1040, 1045, 1129, 1130, 1142, 1203, 1227, 1290, 9999] {
            assert!(!Failure::of_server(code, "…").is_evidence(), "{code}");
        }
        assert!(!Failure::Ours("tls".to_owned()).is_evidence());
        assert!(Failure::of_server(1053, "…").is_evidence());
        assert!(Failure::Refused.is_evidence() && Failure::TimedOut.is_evidence());
    }
}
