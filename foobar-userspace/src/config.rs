//! The configuration as meant: what a file that passed every check says.

mod checker;
mod diagnostics;
mod diff;
mod grammar;
mod l7;
mod meaning;
mod monitor;
mod mysql;
mod names;
mod nearest;
mod places;
mod quantity;
mod schema;
mod secret;
mod show;
mod tree;
mod words;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

pub use self::{
    diagnostics::{Diagnostic, Diagnostics},
    diff::diff,
    l7::*,
    monitor::{
        AccessFormat, AccessLog, Alert, DropLog, Listen, Log, LogFile, LogTo, Metric, Monitor,
        Notify, NotifyBy, Otlp, Quantile, Severity, Side, Signals, SumoLogic, Threshold,
    },
    mysql::{
        Account, EndpointRole, Fallback, MysqlBalancer, MysqlCheck, MysqlMember, MysqlMode,
        MysqlService, OnWriteStall, RejoinWish,
    },
    quantity::{Quantity, Unit},
    schema::schema,
    secret::{Revealed, Secret, SecretError},
    show::{rule as show_rule, show},
    words::Misread,
};

/// Reads and checks the file at `path` and the set files that it names.
///
/// # Errors
///
/// Every mistake in them, or that the file cannot be read.
pub fn load(path: &Path) -> Result<Config, Diagnostics> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Diagnostics::unreadable(path, &error))?;
    parse(&text, path)
}

/// Checks `text`, which stands (or shall stand) at `path`; set files are read relative to it.
///
/// # Errors
///
/// Every mistake in the text and in the set files that it names.
pub fn parse(text: &str, path: &Path) -> Result<Config, Diagnostics> {
    parse_with(text, path, &|file| std::fs::read_to_string(file))
}

fn parse_with(text: &str, path: &Path, files: &ReadFile<'_>) -> Result<Config, Diagnostics> {
    let mut problems = diagnostics::Problems::new(text, path);
    let readable = tree::readable(text, &mut problems);
    let root = tree::read(&readable, &mut problems);
    let names = names::Names::of(&root, !problems.is_empty());
    checker::check(&root, &names, &mut problems);
    let config = meaning::estate(&root, path, files, &mut problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems.finish()),
    }
}

type ReadFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// A whole, consistent estate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    pub hosts: BTreeMap<String, Host>,
    pub sets: BTreeMap<String, Set>,
    pub limits: BTreeMap<String, Limit>,
    pub nodes: BTreeMap<String, Node>,
    pub policies: BTreeMap<String, Policy>,
    /// L4 services by name (`plain` for `[l4.plain]`).
    pub l4: BTreeMap<String, L4Service>,
    /// L7 services by name (`www` for `[l7.www]`).
    pub l7: BTreeMap<String, L7Service>,
    pub proxy: Proxy,
    /// Database clusters by name (`app` for `[mysql.app]`).
    pub mysql: BTreeMap<String, MysqlService>,
    pub monitor: Monitor,
    /// In the order of the file.
    pub alerts: Vec<Alert>,
    pub notify: BTreeMap<String, Notify>,
    pub log: Log,
    pub admin: Admin,
}

/// Where something stands in the file, both from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    pub name: String,
    pub public: Addresses,
    pub private: Addresses,
    /// DNS names that should resolve to the public addresses.
    pub names: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Set {
    pub name: String,
    pub elements: Vec<IpNet>,
    /// One element a line, `#` comments; read at load and reload.
    pub file: Option<PathBuf>,
    /// What the file held when it was read.
    pub file_elements: Vec<IpNet>,
    /// The most elements it may hold.
    pub max: u32,
    /// Elements added while running stay this long.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limit {
    pub name: String,
    /// Packets a second, as a fraction: packets per period.
    pub packets: u64,
    pub period: Duration,
    pub burst: u64,
    pub per: LimitPer,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitPer {
    Rule,
    Source,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    pub name: String,
    /// In the order of the file.
    pub interfaces: Vec<Interface>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// `wan` in `{ wan = { dev = "eth0" } }`.
    pub name: String,
    pub device: String,
    pub xdp: XdpMode,
    /// Names of policies.
    pub ingress: Option<String>,
    pub egress: Option<String>,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XdpMode {
    /// Native, else generic with a warning.
    Auto,
    Native,
    Generic,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    pub name: String,
    pub default: Action,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    Allow,
    Drop,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    pub name: String,
    pub action: Action,
    /// Any of these; never empty (`any` is [`Traffic::Any`]).
    pub traffic: Vec<Traffic>,
    /// Any of these; empty: from anywhere.
    pub from: Vec<Peer>,
    pub to: Vec<Peer>,
    /// TCP flags (`flags = "syn,!ack"`).
    pub flags: Option<TcpFlags>,
    /// Source ports; `None`: any.
    pub source_ports: Option<PortRange>,
    pub limit: Option<String>,
    /// Set that offenders against the limit are put into.
    pub jail: Option<String>,
    /// As the file says it, on one line.
    pub text: String,
    pub place: Place,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    Prefix(IpNet),
    Set(String),
}

/// What a rule matches above the addresses: `tcp/22`, `udp/1000-2000`, `icmp/echo-request`, `icmp6`, `proto/47`, `any`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Traffic {
    Any,
    Tcp(PortRange),
    Udp(PortRange),
    /// IPv4 only; type and code, `None`: any.
    Icmp(Option<u8>, Option<u8>),
    /// IPv6 only.
    Icmp6(Option<u8>, Option<u8>),
    Protocol(u8),
}

/// Inclusive; `0-65535` is every port *and* packets without ports (fragments).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// Match when `flags & mask == value` (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpFlags {
    pub mask: u8,
    pub value: u8,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct L4Service {
    pub name: String,
    /// The node that balances it.
    pub on: String,
    /// At most one address of each family (a backend's answer must name its vip).
    pub vips: Vec<SocketAddr>,
    pub protocol: Protocol,
    pub on_loss: OnLoss,
    pub tenure: Tenure,
    pub backends: Vec<Backend>,
    pub check: Option<Check>,
    pub place: Place,
}

/// How long the packet path goes on without a word of its controller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tenure {
    ForEver,
    /// Until a deadline that the controller renews.
    Leased,
}

/// What becomes of the flows of a backend that is lost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnLoss {
    /// They stay with it, should it come back.
    Keep,
    /// They go on with another, which resets those that it cannot make sense of.
    #[default]
    Resteer,
    /// Both ends are told at once, by a RST.
    Reset,
}

impl OnLoss {
    pub const ALL: [Self; 3] = [Self::Keep, Self::Resteer, Self::Reset];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Resteer => "resteer",
            Self::Reset => "reset",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Name of a host; its private address is used.
    pub host: String,
    pub addresses: Addresses,
    pub port: NonZeroU16,
    pub weight: u16,
    pub kind: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    pub probe: Probe,
    pub every: Duration,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    /// What goes before all else, as on the connections of requests.
    pub announced: Option<ProxyProtocol>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Probe {
    Tcp,
    Http {
        path: String,
        expect: u16,
    },
    /// Of L7 services alone, as their requests go.
    Https {
        path: String,
        expect: u16,
    },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admin {
    /// May hold `{node}`; see [`Admin::socket_of`].
    pub socket: PathBuf,
    /// Whose members may ask on the socket.
    pub group: Option<String>,
    pub dashboard: Option<Listen>,
}

impl Admin {
    /// The socket of one node: `{node}` replaced by its name.
    #[must_use]
    pub fn socket_of(&self, node: &str) -> PathBuf {
        PathBuf::from(self.socket.to_string_lossy().replace("{node}", node))
    }
}

/// The commented reference, `config/foobar.toml`.
#[must_use]
pub fn example() -> &'static str {
    include_str!("../../config/foobar.toml")
}

impl Addresses {
    /// Both families' addresses, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.v4
            .map(IpAddr::V4)
            .into_iter()
            .chain(self.v6.map(IpAddr::V6))
    }
}

impl PortRange {
    pub const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
    };
}
