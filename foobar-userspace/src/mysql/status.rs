//! A cluster as people and monitoring see it; the JSON is an API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterStatus {
    /// `mysql.app`
    pub name: String,
    /// `observe`, `consensus`, `promote`.
    pub mode: String,
    /// Where writes are taken, and where reads are.
    pub write: Vec<String>,
    pub read: Vec<String>,
    /// The member that takes the writes.
    pub writer: Option<String>,
    /// Members that claim to be primary, when they are several; the writer address leads to none then.
    pub rivals: Vec<String>,
    pub term: u64,
    /// In mode `promote`: it would act.
    pub armed: bool,
    /// It holds the locks of a majority of all members.
    pub leads: bool,
    /// Why nothing more happens by itself: a failover took place, and a human has not said `resume`.
    pub paused: Option<String>,
    /// What is under way: `failover: drain`.
    pub operation: Option<String>,
    pub alarms: Vec<String>,
    /// What keeps `promote` from being armed, with the cure.
    pub lacks: Vec<LackStatus>,
    /// What is worth knowing, with what to do about it.
    #[serde(default)]
    pub hints: Vec<LackStatus>,
    pub members: Vec<MemberStatus>,
    pub failovers: u64,
    pub failovers_given_up: u64,
    pub switchovers: u64,
    /// The writer changed.
    pub role_changes: u64,
    /// Flows that were cut because their member lost its role, by both addresses.
    #[serde(default)]
    pub flows_reset: u64,
    /// For how long the last switchover let nobody write.
    pub last_window_milliseconds: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MemberStatus {
    pub host: String,
    pub port: u16,
    /// `primary`, `replica`, `alone`, `unknown`.
    pub role: String,
    /// `up`, `failing` (a check failed, or for a fault of ours), `gone`.
    pub state: String,
    /// Takes writes, takes reads: `yes`, `keeps` (old connections only), `no`.
    pub writes: String,
    pub reads: String,
    /// Why it takes no writes.
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub server: Option<String>,
    pub version: Option<String>,
    /// The host of the member it replicates from.
    pub source: Option<String>,
    pub receiving: Option<bool>,
    pub applying: Option<bool>,
    pub lag_seconds: Option<f64>,
    /// Since something came from its source.
    pub silence_seconds: Option<f64>,
    pub executed: Option<String>,
    /// Transactions that the primary lacks.
    pub errant: Option<String>,
    pub term: Option<u64>,
    /// `source`, `degraded`, `replica`, `off`; `group` or `galera` in those.
    pub semi_sync: Option<String>,
    pub qps: Option<f64>,
    pub connections: Option<u64>,
    pub check_milliseconds: Option<f64>,
    /// The write probe of the primary does not come back.
    pub writes_stalled: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LackStatus {
    pub member: Option<String>,
    pub what: String,
    pub cure: String,
}
