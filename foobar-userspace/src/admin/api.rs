//! Questions and answers of the administration socket; the JSON is an API.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::connections::{ConnectionCount, ConnectionKind, ConnectionLine, Connections};
pub use crate::{
    balancer::health::{BackendState, BackendWish},
    mysql::status::{ClusterStatus, LackStatus, MemberStatus},
};

/// What the controller is asked; one variant per route.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    Status,
    /// The counters, as they stand.
    Snapshot {
        #[serde(default)]
        maps: Maps,
    },
    Reload {
        apply: Apply,
    },
    Rules,
    Sets,
    /// All elements of one set.
    SetElements {
        set: String,
    },
    SetAdd {
        set: String,
        #[schemars(with = "Vec<String>")]
        elements: Vec<IpNet>,
        timeout: Option<Duration>,
    },
    SetDelete {
        set: String,
        #[schemars(with = "Vec<String>")]
        elements: Vec<IpNet>,
    },
    SetFlush {
        set: String,
    },
    BackendState {
        service: String,
        /// `host` or `host:port`.
        backend: String,
        wish: BackendWish,
    },
    Explain(Packet),
    ConfigShow,
    Mysql {
        /// `app`; the only one of the node by default.
        cluster: Option<String>,
        command: MysqlCommand,
    },
    /// Those that the node knows one by one.
    Connections {
        /// Only those with this in an address, a service, a backend or the kind.
        filter: Option<String>,
        /// How many to list; all by default.
        limit: Option<u32>,
    },
    /// Keeps what a reload on trial put in force.
    Confirm,
    /// Tells everyone of an alert as if it fired, and then as if it ended.
    AlertTest {
        name: String,
    },
    /// The certificates of the sites.
    Certificates,
    /// Reads certificates, keys and pages again.
    TlsReload,
    /// Lets the binary on disk take over without a lost connection.
    Upgrade,
}

/// What an operator wants of a database cluster.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MysqlCommand {
    Status,
    Switchover {
        to: String,
        dry_run: bool,
    },
    Failover,
    Rejoin {
        member: String,
    },
    /// Automatic failover may act again.
    Resume,
}

/// Whether a snapshot tells how full each map is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Maps {
    Counted,
    #[default]
    LeftOut,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Apply {
    DryRun,
    Now,
    /// Until it is confirmed; what ran before comes back if nobody does in time.
    OnTrial {
        seconds: u32,
    },
}

/// The controller's answer to each [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    Status(Box<Status>),
    Snapshot(Box<Snapshot>),
    Reloaded(Reloaded),
    Rules(Vec<RuleLine>),
    Sets(Vec<SetLine>),
    Certificates(Vec<CertificateLine>),
    SetElements(Vec<ElementLine>),
    Done { message: String },
    Explained(Box<Explanation>),
    ConfigText(String),
    Clusters(Vec<ClusterStatus>),
    Connections(Connections),
}

/// Why a request was refused.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum Refusal {
    /// No set, service, backend, … of that name; the text says which and what there is.
    #[error("{message}")]
    NotFound { message: String },
    /// The request contradicts the state (set full, element not there, …).
    #[error("{message}")]
    Conflict { message: String },
    /// The configuration has errors; rendered as `check` renders them.
    #[error("{rendered}")]
    BadConfiguration { rendered: String },
    /// The kernel refused.
    #[error("{message}")]
    Failed { message: String },
    #[error("{message}")]
    NotPermitted { message: String },
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    pub version: String,
    pub node: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub configuration: String,
    /// Unix seconds of the last successful load.
    pub loaded_at: u64,
    pub generation: u64,
    pub healthy: bool,
    /// What a person should know: generic XDP, services without backends, a failed reload, …
    pub warnings: Vec<String>,
    pub interfaces: Vec<InterfaceStatus>,
    pub services: Vec<ServiceStatus>,
    #[serde(default)]
    pub clusters: Vec<ClusterStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct InterfaceStatus {
    pub name: String,
    pub device: String,
    /// `native`, `generic`.
    pub xdp: String,
    /// `tcx`, `clsact`, or `none` where there is no egress policy.
    pub egress: String,
    pub ingress_policy: Option<String>,
    pub egress_policy: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceStatus {
    /// `l4.plain`
    pub name: String,
    pub vips: Vec<String>,
    pub backends: Vec<BackendStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BackendStatus {
    pub host: String,
    pub port: u16,
    pub weight: u16,
    pub state: BackendState,
    /// Of the last failed check, or why the state is what it is.
    pub detail: Option<String>,
    pub check_milliseconds: Option<f64>,
}

/// A certificate of a site.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateLine {
    /// `l7.www`
    pub service: String,
    pub path: String,
    pub names: Vec<String>,
    pub issuer: String,
    pub serial: String,
    /// `ECDSA`
    pub algorithm: String,
    /// RFC 3339
    pub not_before: String,
    pub not_after: String,
    /// Until its end; 0 after it.
    pub days_left: u64,
    /// With an OCSP response.
    pub stapled: bool,
}

/// All counters at one instant; they only grow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    pub node: String,
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub taken_at: u64,
    /// `controller` or `maps`.
    pub source: String,
    pub interfaces: Vec<InterfaceCounters>,
    pub rules: Vec<RuleCounters>,
    pub services: Vec<ServiceCounters>,
    /// Database clusters; none when read from the maps alone.
    #[serde(default)]
    pub clusters: Vec<ClusterStatus>,
    /// What the proxy serves.
    #[serde(default)]
    pub sites: Vec<SiteCounters>,
    /// What became of connections to the proxy before any request, by name: `accepted`, `refused_rate`, ...; empty where
    /// there is no proxy.
    #[serde(default)]
    pub door: BTreeMap<String, u64>,
    /// Only where they were asked for: counting them takes a walk through each.
    pub maps: Vec<MapUse>,
    /// What the controller knows beside the counters; `None` when read from the maps alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerState>,
    #[serde(default)]
    pub certificates: Vec<CertificateExpiry>,
    #[serde(default)]
    pub alerts: Vec<AlertLine>,
    #[serde(default)]
    pub exports: Vec<ExportLine>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ControllerState {
    pub version: String,
    /// Unix seconds.
    pub started_at: f64,
    /// Unix seconds at which the snapshot was taken.
    pub at: f64,
    /// Unix seconds of the last successful load.
    pub loaded_at: f64,
    /// The last reload was refused; what ran before goes on.
    pub reload_failed: bool,
    pub generation: u64,
    pub interfaces: Vec<InterfaceStatus>,
}

/// An `[[alert]]` and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AlertLine {
    pub name: String,
    pub metric: String,
    pub of: Option<String>,
    pub severity: String,
    /// `calm`, `pending` (holds, and not for long enough yet) or `firing`.
    pub state: AlertState,
    /// `above 5000/s`
    pub threshold: String,
    /// What was measured last; `None` where there is nothing to measure.
    pub value: Option<f64>,
    /// The value as a person would say it.
    pub said: Option<String>,
    /// Unix seconds since when it is in this state; `None` when it always was.
    pub since: Option<f64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlertState {
    Calm,
    Pending,
    Firing,
}

/// Where metrics and logs are pushed to, and how that goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ExportLine {
    /// `otlp`, `sumologic`
    pub exporter: String,
    /// `metrics`, `logs`
    pub signal: String,
    /// Batches that were taken.
    pub sent: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Batches that were given up, because the buffer was full or they were refused for good.
    pub dropped: u64,
    /// Over the last second or two.
    pub dropped_per_second: f64,
    pub waiting_bytes: u64,
    pub waiting: u64,
    /// What went wrong last, while something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct InterfaceCounters {
    pub name: String,
    pub device: String,
    /// By direction (`ingress`, `egress`), then reason ([`foobar_ebpf::verdict::Reason::name`]); zeros left out.
    pub verdicts: BTreeMap<String, BTreeMap<String, Count>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
    /// Over the last second or two; not there before that much was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<CountRate>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CountRate {
    pub packets: f64,
    pub bytes: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", from = "FlatRuleCounters")]
#[schemars(!from)]
pub struct RuleCounters {
    // Shared: ten thousand names are not copied each second.
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    #[serde(flatten)]
    pub count: Count,
}

/// What is flattened is read by way of a tree of values: 6.1 ms of ten thousand rules against 3.8.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FlatRuleCounters {
    policy: Arc<str>,
    rule: Arc<str>,
    packets: u64,
    bytes: u64,
    per_second: Option<CountRate>,
}

impl From<FlatRuleCounters> for RuleCounters {
    fn from(flat: FlatRuleCounters) -> Self {
        let FlatRuleCounters {
            policy,
            rule,
            packets,
            bytes,
            per_second,
        } = flat;
        Self {
            policy,
            rule,
            count: Count {
                packets,
                bytes,
                per_second,
            },
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceCounters {
    /// `l4.plain`
    pub name: String,
    /// `203.0.113.10:8080`
    pub vip: String,
    #[serde(flatten)]
    pub traffic: TrafficCount,
    pub backends: Vec<BackendCounters>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BackendCounters {
    pub host: String,
    pub port: u16,
    /// `None` when read from the maps alone.
    pub weight: Option<u16>,
    pub state: Option<BackendState>,
    #[serde(flatten)]
    pub traffic: TrafficCount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TrafficCount {
    pub connections: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Over the last second or two; not there before that much was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<TrafficRate>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TrafficRate {
    /// At layer 4 a query is a new connection.
    pub qps: f64,
    pub packets_in: f64,
    pub bytes_in: f64,
    pub packets_out: f64,
    pub bytes_out: f64,
}

/// How long a site's certificate is still good for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateExpiry {
    /// `l7.www`
    pub service: String,
    pub path: String,
    /// Negative after its end.
    pub seconds_left: f64,
}

/// A site of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SiteCounters {
    /// `l7.www`
    pub name: String,
    #[serde(flatten)]
    pub requests: RequestCount,
    pub backends: Vec<SiteBackendCounters>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SiteBackendCounters {
    pub host: String,
    pub port: u16,
    /// `None` when read from the maps alone.
    pub weight: Option<u16>,
    pub state: Option<BackendState>,
    #[serde(flatten)]
    pub requests: RequestCount,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RequestCount {
    /// By name: `requests`, `status_2xx`, `retries`, …
    pub counts: BTreeMap<String, u64>,
    /// How many answers took how long, by bucket ([`crate::tally::upper_end`]); empty buckets at the end are left out.
    pub latency: Vec<u64>,
    /// Over the last second or two; not there before that much was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<RequestRate>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RequestRate {
    pub qps: f64,
    pub bytes_in: f64,
    pub bytes_out: f64,
    /// Answers with 5xx, of all; `None` without any answer.
    pub error_rate: Option<f64>,
    /// Seconds; `None` without any answer.
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MapUse {
    pub name: String,
    pub entries: u64,
    pub max_entries: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reloaded {
    pub applied: bool,
    pub generation: u64,
    /// One line per difference, `+ rule edge/web`, `- backend l4.plain web3:80`, …
    pub changes: Vec<String>,
    /// What ran before comes back then, unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_in_seconds: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RuleLine {
    pub policy: String,
    pub order: u32,
    pub rule: String,
    /// `allow` or `drop`.
    pub action: String,
    /// As the file says it.
    pub text: String,
    /// `foobar.toml:38:3`
    pub place: String,
    #[serde(flatten)]
    pub count: Count,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SetLine {
    pub name: String,
    pub elements: u64,
    pub max: u32,
    pub timeout_seconds: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ElementLine {
    #[schemars(with = "String")]
    pub element: IpNet,
    /// `configuration`, `file`, `command`, `jail`.
    pub source: String,
    pub expires_in_seconds: Option<u64>,
}

/// `explain PROTO SRC DST [--iface I] [--egress]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Packet {
    /// `tcp`, `udp`, `icmp`, `icmp6`.
    pub protocol: String,
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    /// ICMP: `type << 8 | code`.
    pub destination_port: u16,
    /// TCP flags; SYN by default.
    pub flags: u8,
    /// Name or device; the first of the node by default.
    pub interface: Option<String>,
    pub egress: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// `pass`, `drop`, `transmit`.
    pub verdict: String,
    /// [`foobar_ebpf::verdict::Reason::name`]
    pub reason: String,
    /// What the program returned: `XDP_PASS`, `XDP_DROP`, `XDP_TX`, `XDP_REDIRECT`, `TC_ACT_OK`, `TC_ACT_SHOT`.
    pub returned: String,
    pub interface: String,
    pub policy: Option<String>,
    /// `edge/web`, with `order`, `text`, `place`.
    pub rule: Option<RuleLine>,
    pub set: Option<String>,
    pub tokens_left: Option<u64>,
    pub vip: Option<String>,
    pub backend: Option<String>,
    /// Of the frame that would leave, where it is rewritten: `198.51.100.7:51000 -> 10.0.0.12:80`.
    pub rewritten: Option<String>,
    pub program_id: u32,
    pub nanoseconds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_rule_are_read_as_they_are_written() {
        let rates = [
            None,
            Some(CountRate {
                packets: 0.5,
                bytes: 32.0,
            }),
        ];
        for per_second in rates {
            let written = RuleCounters {
                policy: "edge".into(),
                rule: "a \"quoted\" one".into(),
                count: Count {
                    packets: 7,
                    bytes: 448,
                    per_second,
                },
            };
            let text = serde_json::to_string(&written).expect("JSON");
            let read: RuleCounters = serde_json::from_str(&text).expect("the same");
            assert_eq!((read.policy, read.rule), (written.policy, written.rule));
            assert_eq!(read.count, written.count);
        }
    }
}
