//! Where metrics and logs go, which thresholds are watched, and who is told.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use super::{Config, Host, Place, Quantity, Secret, Unit};

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Monitor {
    /// Where `/metrics` is served.
    pub prometheus: Option<Listen>,
    pub otlp: Option<Otlp>,
    pub sumologic: Option<SumoLogic>,
    /// On everything that leaves the node.
    pub labels: BTreeMap<String, String>,
}

/// An address that each node reads for itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listen {
    At(SocketAddr),
    Private(NonZeroU16),
    Public(NonZeroU16),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Otlp {
    /// The URL; `/v1/metrics` and `/v1/logs` are put behind it.
    pub endpoint: Secret,
    pub interval: Duration,
    pub signals: Signals,
    /// Bytes kept while the collector does not answer.
    pub buffer: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SumoLogic {
    pub url: Secret,
    pub category: Option<String>,
    pub interval: Duration,
    pub signals: Signals,
    pub buffer: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signals {
    pub metrics: bool,
    pub logs: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alert {
    pub name: String,
    pub metric: Metric,
    /// `l7.www`; `None`: everything on the node together.
    pub of: Option<String>,
    /// [`Metric::Drops`]: of this reason alone.
    pub reason: Option<String>,
    pub threshold: Threshold,
    /// How long it must last (`for`).
    pub lasting: Duration,
    pub severity: Severity,
    /// Notify targets besides the journal, which is always told.
    pub notify: Vec<String>,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metric {
    BackendsDown,
    BackendsUp,
    /// Seconds that the certificate is still good for.
    CertificateExpiry,
    Drops,
    ErrorRate,
    ExportDropped,
    Failover,
    Latency(Quantile),
    /// The fullest map.
    MapPressure,
    /// Clusters of which nobody takes the writes.
    NoWriter,
    /// What keeps `promote` from acting.
    PreflightLacks,
    Qps,
    ReloadFailed,
    ReplicaLag,
    /// Members that all claim to be primary.
    RivalWriters,
    /// Primaries that no longer wait for an acknowledgement.
    SemiSyncDegraded,
    /// Primaries whose write probe does not come back.
    WritesStalled,
    /// Interfaces whose XDP runs in generic mode.
    XdpGeneric,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quantile {
    P50,
    P90,
    P95,
    P99,
    P999,
}

/// Fires on one side of `fires`, and only the other side of `clears` ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Threshold {
    pub side: Side,
    pub fires: Quantity,
    pub clears: Quantity,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Above,
    Below,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    Critical,
    Info,
    Warning,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notify {
    pub name: String,
    pub by: NotifyBy,
    /// How often a lasting alert is told again.
    pub repeat: Duration,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotifyBy {
    /// The base URL of an Alertmanager.
    Alertmanager(String),
    /// A program and its arguments; the alert comes on its standard input.
    Command(Vec<String>),
    Webhook(Secret),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    pub access: AccessLog,
    pub drops: DropLog,
    pub audit: LogFile,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccessLog {
    pub file: LogFile,
    pub format: AccessFormat,
    /// One of how many requests is logged; errors always are.
    pub sample: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccessFormat {
    Combined,
    Json,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DropLog {
    pub file: LogFile,
    /// The most drops told in a second; the others are counted only.
    pub per_second: u32,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogFile {
    pub to: LogTo,
    /// Bytes after which a file is put aside.
    pub max_size: u64,
    /// How many files are kept that were put aside.
    pub keep: u32,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogTo {
    /// May hold `{node}`.
    File(PathBuf),
    Journal,
    Nowhere,
}

impl Listen {
    /// The addresses that it means on `host`; none for an address of another machine.
    #[must_use]
    pub fn addresses(&self, host: &Host) -> Vec<SocketAddr> {
        let at = |addresses: &super::Addresses, port: NonZeroU16| {
            addresses
                .iter()
                .map(|address| SocketAddr::new(address, port.get()))
                .collect()
        };
        match self {
            Self::Public(port) => at(&host.public, *port),
            Self::Private(port) => at(&host.private, *port),
            Self::At(address) => {
                let everywhere = address.ip().is_loopback() || address.ip().is_unspecified();
                let own = host.public.iter().chain(host.private.iter());
                match everywhere || own.into_iter().any(|own| own == address.ip()) {
                    true => vec![*address],
                    false => Vec::new(),
                }
            }
        }
    }
}

impl Metric {
    /// By the words of the file.
    pub const ALL: [(&'static str, Self); 22] = [
        ("qps", Self::Qps),
        ("error-rate", Self::ErrorRate),
        ("latency-p50", Self::Latency(Quantile::P50)),
        ("latency-p90", Self::Latency(Quantile::P90)),
        ("latency-p95", Self::Latency(Quantile::P95)),
        ("latency-p99", Self::Latency(Quantile::P99)),
        ("latency-p999", Self::Latency(Quantile::P999)),
        ("drops", Self::Drops),
        ("backends-up", Self::BackendsUp),
        ("backends-down", Self::BackendsDown),
        ("replica-lag", Self::ReplicaLag),
        ("failover", Self::Failover),
        ("no-writer", Self::NoWriter),
        ("rival-writers", Self::RivalWriters),
        ("semi-sync-degraded", Self::SemiSyncDegraded),
        ("writes-stalled", Self::WritesStalled),
        ("preflight-lacks", Self::PreflightLacks),
        ("certificate-expiry", Self::CertificateExpiry),
        ("map-pressure", Self::MapPressure),
        ("export-dropped", Self::ExportDropped),
        ("reload-failed", Self::ReloadFailed),
        ("xdp-generic", Self::XdpGeneric),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find_map(|(name, metric)| (metric == self).then_some(name))
            .unwrap_or_default()
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find_map(|(known, metric)| (known == name).then_some(metric))
    }

    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::BackendsDown
            | Self::BackendsUp
            | Self::Failover
            | Self::NoWriter
            | Self::PreflightLacks
            | Self::ReloadFailed
            | Self::RivalWriters
            | Self::SemiSyncDegraded
            | Self::WritesStalled
            | Self::XdpGeneric => Unit::Count,
            Self::Drops | Self::ExportDropped | Self::Qps => Unit::PerSecond,
            Self::ErrorRate | Self::MapPressure => Unit::Ratio,
            Self::CertificateExpiry | Self::Latency(_) | Self::ReplicaLag => Unit::Seconds,
        }
    }

    /// The sections whose services have it; none: it is of the node.
    #[must_use]
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::BackendsDown | Self::BackendsUp | Self::Qps => &["l4", "l7", "mysql"],
            Self::CertificateExpiry | Self::ErrorRate | Self::Latency(_) => &["l7"],
            Self::Failover
            | Self::NoWriter
            | Self::PreflightLacks
            | Self::ReplicaLag
            | Self::RivalWriters
            | Self::SemiSyncDegraded
            | Self::WritesStalled => &["mysql"],
            Self::Drops
            | Self::ExportDropped
            | Self::MapPressure
            | Self::ReloadFailed
            | Self::XdpGeneric => &[],
        }
    }
}

impl Quantile {
    #[must_use]
    pub const fn part(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        }
    }
}

impl Severity {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Info => "info",
            Self::Warning => "warning",
        }
    }
}

impl Alert {
    /// Whether `node` is the one that watches it.
    #[must_use]
    pub fn is_of(&self, node: &str, config: &Config) -> bool {
        match self.of.as_deref().and_then(|of| config.node_of(of)) {
            Some(on) => on == node,
            None => true,
        }
    }
}

impl Config {
    /// The node that serves `l4.plain`.
    #[must_use]
    pub fn node_of(&self, service: &str) -> Option<&str> {
        let (kind, name) = service.split_once('.')?;
        match kind {
            "l4" => self.l4.get(name).map(|service| service.on.as_str()),
            "l7" => self.l7.get(name).map(|service| service.on.as_str()),
            _ => None,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            access: AccessLog {
                file: LogFile::to(LogTo::Nowhere),
                format: AccessFormat::Json,
                sample: 1,
            },
            drops: DropLog {
                file: LogFile::to(LogTo::Nowhere),
                per_second: 100,
            },
            audit: LogFile::to(LogTo::Journal),
        }
    }
}

impl LogFile {
    #[must_use]
    pub const fn to(to: LogTo) -> Self {
        Self {
            to,
            max_size: 100 << 20,
            keep: 5,
        }
    }
}
