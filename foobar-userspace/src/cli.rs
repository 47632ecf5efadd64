//! The commands, and what becomes of their errors.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use foobar::{
    admin::{
        self,
        api::{
            Apply, BackendWish, Explanation, Maps, Packet, Refusal, Request, Response, Snapshot,
            TrafficCount,
        },
        client::{self, ClientError},
    },
    balancer,
    config::{self, Config, Diagnostics},
    controller::{self, RunError},
    firewall,
    kernel::{self, KernelError, NodeLock, Which},
    labels::Labels,
    snapshot,
};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// An XDP firewall and L4 balancer for a small web estate: one binary, one file.
#[derive(Debug, Parser)]
#[command(
    name = "foobar",
    version,
    after_help = "Examples:\n  foobar check -c /etc/foobar/foobar.toml\n  foobar run --node lb1\n  \
                  foobar stats --from-maps --node lb1\n  foobar detach --all --node lb1\n\n\
                  Exit status: 0 ok, 1 failed, 2 usage, 3 daemon not running, 77 not permitted, 78 bad configuration"
)]
struct Arguments {
    /// The configuration of the estate.
    #[arg(
        short,
        long,
        global = true,
        env = "FOOBAR_CONFIG",
        default_value = "/etc/foobar/foobar.toml"
    )]
    config: PathBuf,
    /// Which node of the estate this is; the only one, or the one with this machine's name, by default.
    #[arg(long, global = true, env = "FOOBAR_NODE")]
    node: Option<String>,
    /// The controller's socket; the one that the file names for the node by default.
    #[arg(long, global = true, env = "FOOBAR_SOCKET")]
    socket: Option<PathBuf>,
    /// How answers are shown.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the node until SIGTERM; filtering and balancing go on after that. SIGHUP reads the file again.
    Run,
    /// Reads the file, compiles every node's rules, and says all that is wrong at once.
    Check,
    /// Has the controller read the file again; a file with errors changes nothing.
    Reload {
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// How the node is: interfaces, services, backends, warnings. Exits with 1 when it is not healthy.
    Status,
    /// Shows what the node's programs counted.
    Stats {
        /// Read the pinned maps; works with no controller running.
        #[arg(long)]
        from_maps: bool,
    },
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
    /// Backends of services, by `host` or `host:port`.
    Backend {
        #[command(subcommand)]
        what: BackendCommand,
    },
    /// Removes the programs and everything that they kept from the kernel.
    Detach {
        /// Interfaces by their names in the file (`wan`).
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        interfaces: Vec<String>,
        /// All interfaces of the node, and its maps.
        #[arg(long)]
        all: bool,
    },
    /// Shows the configuration in force, an example, or the schema for editors.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Writes a completion script to standard output.
    Completions { shell: Shell },
}

#[derive(Debug, Subcommand)]
enum RuleCommand {
    List,
}

#[derive(Debug, Subcommand)]
enum SetCommand {
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
struct Element(IpNet);

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
enum BackendCommand {
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
enum ConfigCommand {
    /// The file as it is meant, defaults filled in.
    Show,
    /// A commented example: the reference of the language.
    Example,
    /// A JSON schema.
    Schema,
}

/// Exit statuses, as sysexits.h has the larger ones.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Status {
    Failed = 1,
    NotRunning = 3,
    NotPermitted = 77,
    BadConfiguration = 78,
}

/// What ends a command: its status and all that a person needs to know.
#[derive(Debug)]
struct Failure {
    status: Status,
    text: String,
}

impl Failure {
    fn new(status: Status, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self {
            status,
            text: format!("foobar: {text}"),
        }
    }

    fn failed(error: &dyn Error) -> Self {
        Self::new(Status::Failed, error)
    }
}

impl From<Diagnostics> for Failure {
    fn from(errors: Diagnostics) -> Self {
        Self {
            status: Status::BadConfiguration,
            text: errors.render(io::stderr().is_terminal(), 120),
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
            ClientError::NotPermitted { .. } => Status::NotPermitted,
            ClientError::Refused(Refusal::NotPermitted { .. }) => Status::NotPermitted,
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

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "{}", failure.text.trim_end());
            ExitCode::from(failure.status as u8)
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Run => run(arguments),
        Command::Check => check(arguments),
        Command::Stats { from_maps: true } => show_stats(
            arguments,
            &snapshot::of_pins(&node(arguments)?, Maps::Counted)?,
        ),
        Command::Stats { from_maps: false } => ask(
            arguments,
            &Request::Snapshot {
                maps: Maps::Counted,
            },
        ),
        Command::Status => ask(arguments, &Request::Status),
        Command::Reload { dry_run } => {
            let apply = if *dry_run { Apply::DryRun } else { Apply::Now };
            ask(arguments, &Request::Reload { apply })
        }
        Command::Explain {
            protocol,
            source,
            destination,
            iface,
            egress,
        } => {
            let (source, source_port) = endpoint(source, 51_000)?;
            let (destination, destination_port) = endpoint(destination, 0)?;
            let icmp = protocol.starts_with("icmp");
            ask(
                arguments,
                &Request::Explain(Packet {
                    protocol: protocol.clone(),
                    source,
                    source_port,
                    destination,
                    destination_port: if icmp {
                        destination_port << 8
                    } else {
                        destination_port
                    },
                    flags: 2,
                    interface: iface.clone(),
                    egress: *egress,
                }),
            )
        }
        Command::Rule {
            what: RuleCommand::List,
        } => ask(arguments, &Request::Rules),
        Command::Set { what } => ask(arguments, &set_request(what)),
        Command::Backend { what } => ask(arguments, &backend_request(what)),
        Command::Detach { interfaces, all } => {
            let which = if *all {
                Which::All
            } else {
                Which::Interfaces(interfaces.clone())
            };
            for done in kernel::detach(&node(arguments)?, &which)? {
                say(&format!("{done}\n"))?;
            }
            Ok(())
        }
        Command::Config { what } => match what {
            ConfigCommand::Show => say(&config::show(&load(arguments)?)),
            ConfigCommand::Example => say(config::example()),
            ConfigCommand::Schema => say(&format!("{:#}\n", config::schema())),
        },
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "foobar", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
    }
}

fn set_request(command: &SetCommand) -> Request {
    let prefixes = |elements: &[Element]| elements.iter().map(|element| element.0).collect();
    match command {
        SetCommand::List => Request::Sets,
        SetCommand::Show { set } => Request::SetElements { set: set.clone() },
        SetCommand::Add {
            set,
            elements,
            timeout,
        } => Request::SetAdd {
            set: set.clone(),
            elements: prefixes(elements),
            timeout: *timeout,
        },
        SetCommand::Del { set, elements } => Request::SetDelete {
            set: set.clone(),
            elements: prefixes(elements),
        },
        SetCommand::Flush { set } => Request::SetFlush { set: set.clone() },
    }
}

fn backend_request(command: &BackendCommand) -> Request {
    let (service, backend, wish) = match command {
        BackendCommand::List => return Request::Status,
        BackendCommand::Drain { service, backend } => (service, backend, BackendWish::Drain),
        BackendCommand::Enable { service, backend } => (service, backend, BackendWish::Enable),
        BackendCommand::Disable { service, backend } => (service, backend, BackendWish::Disable),
        BackendCommand::Weight {
            service,
            backend,
            weight,
        } => (service, backend, BackendWish::Weight(*weight)),
    };
    Request::BackendState {
        service: service.clone(),
        backend: backend.clone(),
        wish,
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn endpoint(text: &str, port: u16) -> Result<(IpAddr, u16), Failure> {
    if let Ok(endpoint) = text.parse::<SocketAddr>() {
        return Ok((endpoint.ip(), endpoint.port()));
    }
    text.parse().map(|address| (address, port)).map_err(|_| Failure {
        status: Status::Failed,
        text: format!("foobar: `{text}` is no address; write 198.51.100.7, 198.51.100.7:443 or [2001:db8::7]:443"),
    })
}

fn ask(arguments: &Arguments, request: &Request) -> Result<(), Failure> {
    let socket = match &arguments.socket {
        Some(socket) => socket.clone(),
        None => load(arguments)?.admin.socket_of(&node(arguments)?),
    };
    show(arguments, client::ask(&socket, request)?)
}

fn show(arguments: &Arguments, response: Response) -> Result<(), Failure> {
    match response {
        Response::Status(status) => {
            present(arguments, "status", &*status, || status_text(&status))?;
            if status.healthy {
                return Ok(());
            }
            Err(Failure {
                status: Status::Failed,
                text: format!("foobar: {} is not healthy", status.node),
            })
        }
        Response::Snapshot(snapshot) => show_stats(arguments, &snapshot),
        Response::Reloaded(reloaded) => present(arguments, "reload", &reloaded, || {
            let done = if reloaded.applied {
                "in force"
            } else {
                "not applied (dry run)"
            };
            format!(
                "{}generation {}, {done}\n",
                lines(&reloaded.changes),
                reloaded.generation
            )
        }),
        Response::Rules(rules) => present(arguments, "rule-list", &Rows { rows: &rules }, || {
            rules
                .iter()
                .map(|rule| {
                    format!(
                        "{:>12} packets  {}/{}  {}  ({})\n",
                        rule.count.packets, rule.policy, rule.rule, rule.text, rule.place
                    )
                })
                .collect()
        }),
        Response::Sets(sets) => present(arguments, "set-list", &Rows { rows: &sets }, || {
            sets.iter()
                .map(|set| format!("{:>9} of {:>9}  {}\n", set.elements, set.max, set.name))
                .collect()
        }),
        Response::SetElements(elements) => {
            present(arguments, "set-show", &Rows { rows: &elements }, || {
                elements
                    .iter()
                    .map(|element| {
                        let left = element
                            .expires_in_seconds
                            .map_or(String::new(), |seconds| format!("  for {seconds} s"));
                        format!("{}  {}{left}\n", element.element, element.source)
                    })
                    .collect()
            })
        }
        Response::Done { message } => say(&format!("{message}\n")),
        Response::Explained(explanation) => present(arguments, "explain", &*explanation, || {
            explanation_text(&explanation)
        }),
        Response::ConfigText(text) => say(&text),
    }
}

#[derive(serde::Serialize)]
struct Rows<'a, T> {
    rows: &'a [T],
}

fn present(
    arguments: &Arguments,
    command: &str,
    value: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match arguments.output {
        Output::Json => say(&json(command, value)),
        Output::Table => say(&text()),
    }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text}\n")).collect()
}

fn status_text(status: &admin::api::Status) -> String {
    let mut text = format!(
        "{} {} generation {} of {} (pid {})\n",
        status.node,
        if status.healthy {
            "healthy"
        } else {
            "NOT HEALTHY"
        },
        status.generation,
        status.configuration,
        status.pid
    );
    for interface in &status.interfaces {
        text += &format!(
            "  {} on {}: XDP {}, egress by {}\n",
            interface.name, interface.device, interface.xdp, interface.egress
        );
    }
    for service in &status.services {
        text += &format!("  {} {}\n", service.name, service.vips.join(" "));
        for backend in &service.backends {
            text += &format!(
                "    {}:{} weight {} {:?} {}\n",
                backend.host,
                backend.port,
                backend.weight,
                backend.state,
                backend.detail.as_deref().unwrap_or_default()
            );
        }
    }
    for warning in &status.warnings {
        text += &format!("  warning: {warning}\n");
    }
    text
}

fn explanation_text(explanation: &Explanation) -> String {
    let mut text = format!(
        "{}: {} ({}) on {}\n",
        explanation.verdict, explanation.reason, explanation.returned, explanation.interface
    );
    if let Some(rule) = &explanation.rule {
        text += &format!(
            "  rule {}/{} at {}: {}\n",
            rule.policy, rule.rule, rule.place, rule.text
        );
    }
    for (what, value) in [
        ("set", &explanation.set),
        ("vip", &explanation.vip),
        ("backend", &explanation.backend),
        ("leaves as", &explanation.rewritten),
    ] {
        if let Some(value) = value {
            text += &format!("  {what} {value}\n");
        }
    }
    text
}

fn show_stats(arguments: &Arguments, snapshot: &Snapshot) -> Result<(), Failure> {
    present(arguments, "stats", snapshot, || stats_text(snapshot))
}

fn stats_text(snapshot: &Snapshot) -> String {
    let mut text = format!(
        "{:44} {:>10} {:>12} {:>14} {:>12} {:>14}\n",
        "service, backend", "conns", "packets in", "bytes in", "packets out", "bytes out"
    );
    let mut row = |name: String, traffic: &TrafficCount| {
        text += &format!(
            "{name:44} {:>10} {:>12} {:>14} {:>12} {:>14}\n",
            traffic.connections,
            traffic.packets_in,
            traffic.bytes_in,
            traffic.packets_out,
            traffic.bytes_out
        );
    };
    for service in &snapshot.services {
        row(
            format!("{} {}", service.name, service.vip),
            &service.traffic,
        );
        for backend in &service.backends {
            row(
                format!("  {}:{}", backend.host, backend.port),
                &backend.traffic,
            );
        }
    }
    text += "\nrule, verdict                                   packets          bytes\n";
    for rule in &snapshot.rules {
        text += &format!(
            "{:44} {:>10} {:>14}\n",
            format!("{}/{}", rule.policy, rule.rule),
            rule.count.packets,
            rule.count.bytes
        );
    }
    for interface in &snapshot.interfaces {
        for (direction, verdicts) in &interface.verdicts {
            for (reason, count) in verdicts {
                text += &format!(
                    "{:44} {:>10} {:>14}\n",
                    format!("{} {direction} {reason}", interface.name),
                    count.packets,
                    count.bytes
                );
            }
        }
    }
    text
}

fn load(arguments: &Arguments) -> Result<Config, Failure> {
    Ok(config::load(&arguments.config)?)
}

/// The node that was named, or the only one that it can be.
fn node(arguments: &Arguments) -> Result<String, Failure> {
    if let Some(node) = &arguments.node {
        return Ok(node.clone());
    }
    let config = load(arguments)?;
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut nodes = config.nodes.keys();
    match (nodes.next(), nodes.next()) {
        _ if config.nodes.contains_key(machine.trim()) => Ok(machine.trim().to_owned()),
        (Some(only), None) => Ok(only.clone()),
        _ => Err(Failure {
            status: Status::Failed,
            text: format!(
                "foobar: {} has no node `{}`; name one of {} with --node",
                arguments.config.display(),
                machine.trim(),
                config.nodes.keys().cloned().collect::<Vec<_>>().join(", ")
            ),
        }),
    }
}

/// Serves a node until it is told to end.
fn run(arguments: &Arguments) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env("FOOBAR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let options = controller::Options {
        config: arguments.config.clone(),
        node: node(arguments)?,
        state: None,
    };
    let socket = match &arguments.socket {
        Some(socket) => socket.clone(),
        None => load(arguments)?.admin.socket_of(&options.node),
    };
    // Before the socket: a second controller must not take it from the first.
    let lock = NodeLock::take(&options.node)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::failed(&error))?;
    runtime.block_on(async {
        let listener = admin::listen(&socket).map_err(|error| Failure::failed(&error))?;
        let (questions, receiver) = mpsc::channel(16);
        tokio::spawn(admin::serve(listener, questions));
        Ok(controller::run_locked(options, lock, receiver).await?)
    })
}

fn check(arguments: &Arguments) -> Result<(), Failure> {
    let config = load(arguments)?;
    for node in config.nodes.keys() {
        let bad = |error: &dyn Error| Failure::new(Status::BadConfiguration, error);
        let mut labels = Labels::default();
        let ruleset =
            firewall::compile(&config, node, &mut labels, 1).map_err(|error| bad(&error))?;
        let plan = balancer::plan(&config, node, &mut labels).map_err(|error| bad(&error))?;
        let rules: usize = ruleset.report.values().map(|policy| policy.rules).sum();
        say(&format!(
            "{node}: {} interfaces, {} policies with {rules} rules, {} vips, {} backends\n",
            ruleset.interfaces.len(),
            ruleset.report.len(),
            plan.vips.len(),
            plan.backends.len()
        ))?;
        for (policy, report) in &ruleset.report {
            for rule in &report.unreachable {
                say(&format!(
                    "{node}: warning: rule {policy}/{rule} never matches: earlier rules take all of its packets\n"
                ))?;
            }
        }
    }
    say(&format!("{} is good\n", arguments.config.display()))
}

fn json(command: &str, value: &impl serde::Serialize) -> String {
    let mut envelope = serde_json::json!({ "schema": format!("foobar/{command}/v1") });
    if let (Some(envelope), Ok(serde_json::Value::Object(fields))) =
        (envelope.as_object_mut(), serde_json::to_value(value))
    {
        envelope.extend(fields);
    }
    format!("{envelope}\n")
}

/// To standard output; a reader that left is no error.
fn say(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(&error)),
        _ => Ok(()),
    }
}
