//! The command line as it is written.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime},
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use foobar_ebpf::verdict::Reason;
use ipnet::IpNet;

/// An XDP firewall and L4 balancer for a small web estate: one binary, one file.
#[derive(Debug, Parser)]
#[command(
    name = "foobar",
    version,
    max_term_width = 120,
    after_help = "Examples:\n  foobar check -c /etc/foobar/foobar.toml\n  foobar run --node lb1\n  \
                  foobar stats -w\n  foobar explain tcp 198.51.100.7:51000 203.0.113.10:443\n  \
                  foobar detach --all --node lb1\n\n\
                  Exit status: 0 ok, 1 failed or unhealthy, 2 usage, 3 daemon not running, 77 not permitted, \
                  78 bad configuration"
)]
pub struct Arguments {
    /// The configuration of the estate.
    #[arg(
        short,
        long,
        global = true,
        env = "FOOBAR_CONFIG",
        default_value = "/etc/foobar/foobar.toml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// Which node of the estate this is; the only one, or the one with this machine's name, by default.
    #[arg(long, global = true, env = "FOOBAR_NODE")]
    pub node: Option<String>,
    /// The controller's socket; the one that the file names for the node by default.
    #[arg(long, global = true, env = "FOOBAR_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How answers are shown.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Colours; NO_COLOR is heard too.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Say more: `run -v` logs at debug level, `-vv` at trace level.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For people with wide terminals: every column.
    Wide,
    /// One JSON object.
    Json,
    /// One JSON object a line, one line an answer; for -w.
    Jsonl,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the node until SIGTERM; filtering and balancing go on after that. SIGHUP reads the file again.
    Run {
        /// Only say what would be put into the kernel.
        #[arg(long)]
        dry_run: bool,
    },
    /// Reads the file, compiles every node's rules, and says all that is wrong at once.
    Check,
    /// Has the controller read the file again; a file with errors changes nothing.
    Reload {
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
        /// Go back by itself to what ran before, unless `foobar confirm` follows within so many seconds.
        #[arg(
            long,
            value_name = "SECONDS",
            value_parser = clap::value_parser!(u32).range(1..=3_600),
            conflicts_with = "dry_run"
        )]
        confirm: Option<u32>,
    },
    /// Keeps what `reload --confirm` put in force.
    Confirm,
    /// How the node is: interfaces, services, backends, warnings. Exits with 1 when it is not healthy.
    Status {
        #[command(flatten)]
        watch: Watch,
    },
    /// What stands between this machine and a node in good service, with the cure of each.
    Doctor {
        /// The name server to ask, instead of this machine's.
        #[arg(long, value_name = "ADDRESS", value_parser = name_server)]
        dns: Option<SocketAddr>,
        /// Ask nobody on the network.
        #[arg(long, conflicts_with = "dns")]
        offline: bool,
    },
    /// What the node's programs counted: totals and rates.
    Stats {
        /// One part; services, rules and drops by default.
        #[arg(value_enum)]
        part: Option<Part>,
        /// Only rows whose name contains this.
        filter: Option<String>,
        #[command(flatten)]
        watch: Watch,
        /// Read the pinned maps; works with no controller running.
        #[arg(long)]
        from_maps: bool,
        /// Add up what is shown.
        #[arg(long)]
        total: bool,
    },
    /// A screen of what happens, second by second: services, backends, rules, drops, MySQL.
    Top,
    /// Sends the described packet through the loaded program and says what decided.
    Explain {
        /// tcp, udp, icmp or icmp6.
        protocol: String,
        /// ADDRESS or ADDRESS:PORT, IPv6 as [ADDRESS]:PORT.
        source: String,
        /// As SOURCE; for ICMP the type stands for the port.
        destination: String,
        /// Name or device; the node's first by default.
        #[arg(long)]
        iface: Option<String>,
        /// As it would leave, not as it would come in.
        #[arg(long)]
        egress: bool,
    },
    /// The rules of the node, with what they counted.
    Rule {
        #[command(subcommand)]
        what: RuleCommand,
    },
    /// Sets of addresses, which rules name.
    Set {
        #[command(subcommand)]
        what: SetCommand,
    },
    /// Services and their health.
    Service {
        #[command(subcommand)]
        what: ServiceCommand,
    },
    /// Backends of services, by `host` or `host:port`.
    Backend {
        #[command(subcommand)]
        what: BackendCommand,
    },
    /// Packets that are dropped, one by one, as they are told of: which, and why. Until Ctrl-C.
    Drops {
        /// As it always does.
        #[arg(short, long)]
        follow: bool,
        /// Only those for this reason (`policy`), or by this rule (`edge/jailed`).
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
        /// Only from this address or prefix.
        #[arg(long, value_name = "NET")]
        src: Option<Element>,
        /// Write the frames into a capture file too, the first 96 bytes of each.
        #[arg(long, value_name = "FILE")]
        pcap: Option<PathBuf>,
    },
    /// Connections that the node knows one by one: of the proxy, of services that reset, of moving slots, of its own.
    Conns {
        /// Only those with this in an address, a service, a backend or the kind (`web1`, `l7.www`, `opened`).
        filter: Option<String>,
        /// Only how many there are, by kind, service and backend.
        #[arg(long)]
        count_only: bool,
        /// List at most so many.
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 1_000)]
        limit: u32,
    },
    /// Database clusters: who is primary, and moving it.
    Mysql {
        /// The cluster's name in the file (`app`); needed where a node leads to several.
        #[arg(long, global = true)]
        cluster: Option<String>,
        #[command(subcommand)]
        what: MysqlCommand,
    },
    /// Thresholds of the file: how they stand, and whether those are reached who are told.
    Alert {
        #[command(subcommand)]
        what: AlertCommand,
    },
    /// The node's logs as they are written.
    Log {
        /// access, alerts, audit or drops.
        #[arg(value_enum, default_value_t = Log::Access)]
        log: Log,
        /// Go on as lines come, until Ctrl-C; without it, what a log file holds already.
        #[arg(short, long)]
        follow: bool,
        /// Only requests that were answered so: 404, or 5xx.
        #[arg(long, value_name = "STATUS", value_parser = answer)]
        status: Option<String>,
        /// Only lines that contain this.
        #[arg(long, value_name = "TEXT")]
        grep: Option<String>,
        /// Only lines since then, from files that were put aside too: 10m, 2h, or 2026-11-25T03:00:00Z.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<SystemTime>,
    },
    /// Certificates of the sites.
    Tls {
        #[command(subcommand)]
        what: TlsCommand,
    },
    /// Lets the binary on the disk take over, with its listening sockets, and no connection is lost. As SIGUSR2.
    Upgrade,
    /// Removes the programs and everything that they kept from the kernel.
    Detach {
        /// Interfaces by their names in the file (`wan`) or their devices.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        interfaces: Vec<String>,
        /// All interfaces of the node, and its maps.
        #[arg(long)]
        all: bool,
    },
    /// The configuration: in effect, against the one in force, an example, or the schema for editors.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Writes a manual page for each command into a directory.
    #[command(hide = true)]
    Man { directory: PathBuf },
    /// Writes a completion script to standard output.
    Completions { shell: Shell },
}

/// Again and again.
#[derive(Args, Clone, Copy, Debug)]
pub struct Watch {
    /// Show it again every so many seconds (1 by default), until Ctrl-C.
    #[arg(
        short = 'w',
        long = "watch",
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = false,
        default_missing_value = "1",
        value_parser = seconds
    )]
    pub every: Option<Duration>,
    /// End after so many times.
    #[arg(short = 'n', long = "count", value_name = "COUNT", requires = "every")]
    pub rounds: Option<u32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Part {
    Services,
    Backends,
    Rules,
    /// By reason.
    Drops,
    /// Every verdict of every interface.
    Interfaces,
    /// Handshakes and certificates.
    Tls,
    /// Members of database clusters.
    Mysql,
    /// How full each map is.
    Maps,
}

#[derive(Debug, Subcommand)]
pub enum MysqlCommand {
    /// The topology with roles, lag and reasons; what keeps `promote` from being armed, with the cure.
    Status {
        #[command(flatten)]
        watch: Watch,
        /// The SQL of the tables that foobar writes to, and nothing else.
        #[arg(long)]
        schema: bool,
    },
    /// Makes a replica the primary, with the shortest time in which nobody takes writes; restores all when a step fails.
    Switchover {
        /// The host that shall take the writes.
        #[arg(long)]
        to: String,
        /// Print the plan.
        #[arg(long)]
        dry_run: bool,
    },
    /// Replaces a lost primary by hand: all evidence is asked for as if it were automatic, but no pause and no cool-down.
    Failover,
    /// Has a member follow the primary, if it has nothing that the primary lacks.
    Rejoin { member: String },
    /// Lets automatic failover act again, once a human has looked.
    Resume,
}

#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// All rules in their order.
    List {
        /// Only rules whose `policy/rule` contains this.
        filter: Option<String>,
    },
    /// One rule, by `policy/rule`.
    Show { rule: String },
}

#[derive(Debug, Subcommand)]
pub enum SetCommand {
    List,
    /// All elements of a set.
    Show {
        set: String,
    },
    Add {
        set: String,
        #[arg(required = true)]
        elements: Vec<Element>,
        /// How long they stay (`10m`).
        #[arg(long, value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    Del {
        set: String,
        #[arg(required = true)]
        elements: Vec<Element>,
    },
    Flush {
        set: String,
    },
}

/// An address or a prefix.
#[derive(Clone, Copy, Debug)]
pub struct Element(pub IpNet);

impl FromStr for Element {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(address.into())),
            Err(_) => text.parse().map(Self),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    List,
    /// One service with its backends, by `plain` or `l4.plain`.
    Show {
        service: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum BackendCommand {
    List,
    /// No new connections; those that are open go on.
    Drain {
        service: String,
        backend: String,
    },
    Enable {
        service: String,
        backend: String,
    },
    /// Nothing at all.
    Disable {
        service: String,
        backend: String,
    },
    Weight {
        service: String,
        backend: String,
        weight: u16,
    },
}

#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    List,
    /// Tells everyone of an alert as if it fired, and then as if it ended.
    Test {
        name: String,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Log {
    Access,
    Alerts,
    Audit,
    Drops,
}

#[derive(Debug, Subcommand)]
pub enum TlsCommand {
    List,
    /// The certificates of one service, by `www` or `l7.www`.
    Show {
        service: String,
    },
    /// Reads certificates, keys and pages again; mistakes change nothing.
    Reload,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// The file as it is meant, defaults filled in.
    Show,
    /// What a reload would change.
    Diff,
    /// A commented example: the reference of the language.
    Example,
    /// A JSON schema.
    Schema,
}

/// `203.0.113.1` or `203.0.113.1:5353`.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: IpAddr| (address, 53).into()))
        .map_err(|_| "write an address, as 203.0.113.1 or 203.0.113.1:5353".to_owned())
}

/// So long ago, or a time by the clock.
fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return SystemTime::now()
            .checked_sub(ago)
            .ok_or_else(|| "that is before all time".to_owned());
    }
    humantime::parse_rfc3339_weak(text).map_err(|_| {
        "write how long ago, as 10m, or a time (UTC), as 2026-11-25T03:00:00Z".to_owned()
    })
}

/// Of a drop, or a rule by its policy and name.
fn reason(text: &str) -> Result<String, String> {
    let known = || {
        let reasons = Reason::ALL.into_iter().filter(|reason| reason.drops());
        reasons.map(Reason::name)
    };
    if text.contains('/') || known().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let known: Vec<&str> = known().collect();
    Err(format!(
        "write a rule, as edge/jailed, or a reason: {}",
        known.join(", ")
    ))
}

/// A status of HTTP, or a class of them.
fn answer(text: &str) -> Result<String, String> {
    let (class, rest) = text.split_at_checked(1).unwrap_or_default();
    let is_class = matches!(class, "1" | "2" | "3" | "4" | "5");
    let is_one = rest.len() == 2 && rest.bytes().all(|byte| byte.is_ascii_digit());
    (is_class && (is_one || rest == "xx"))
        .then(|| text.to_owned())
        .ok_or_else(|| "write a status, as 404, or a class, as 5xx".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds: &f64| (0.1..=3_600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write seconds from 0.1 to 3600".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_could_never_be_found_is_refused() {
        let takes = |arguments: &[&str]| {
            let line = ["foobar"].iter().chain(arguments);
            Arguments::try_parse_from(line).map_err(|error| error.to_string())
        };
        for good in ["policy", "edge/jailed"] {
            assert!(takes(&["drops", "--reason", good]).is_ok(), "{good}");
        }
        // An admitted packet's reason is none of a drop.
        for bad in ["polcy", "rule-allow"] {
            let told = takes(&["drops", "--reason", bad]).expect_err(bad);
            assert!(told.contains("policy, "), "{told}");
        }
        for good in ["404", "5xx"] {
            assert!(takes(&["log", "--status", good]).is_ok(), "{good}");
        }
        for bad in ["", "5", "6xx", "40x", "4044", "ä"] {
            assert!(takes(&["log", "--status", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_watch_takes_its_seconds_or_a_second() {
        let every = |arguments: &[&str]| {
            let line = ["foobar", "stats"].iter().chain(arguments);
            match Arguments::try_parse_from(line)
                .expect("good arguments")
                .command
            {
                Command::Stats { watch, .. } => watch.every,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(every(&[]), None);
        assert_eq!(every(&["-w"]), Some(Duration::from_secs(1)));
        assert_eq!(every(&["-w", "0.5"]), Some(Duration::from_millis(500)));
        assert_eq!(
            every(&["services", "plain", "-w"]),
            Some(Duration::from_secs(1))
        );
    }
}
