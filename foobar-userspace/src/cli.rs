//! The commands, and what becomes of their errors.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use foobar::{
    balancer,
    config::{self, Config, Diagnostics},
    controller::{self, RunError},
    firewall,
    kernel::{self, KernelError, Which},
    labels::Labels,
    snapshot,
};
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
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the node until SIGTERM; filtering and balancing go on after that. SIGHUP reads the file again.
    Run,
    /// Reads the file, compiles every node's rules, and says all that is wrong at once.
    Check,
    /// Shows what the node's programs counted, as JSON.
    Stats {
        /// Read the pinned maps; works with no controller running. The only way yet.
        #[arg(long, required = true)]
        from_maps: bool,
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
        Command::Stats { .. } => {
            let node = node(arguments)?;
            let snapshot = snapshot::of_pins(&node)?;
            say(&json("stats", &snapshot))
        }
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
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::failed(&error))?;
    // The sender stays, or the controller would see its questions end.
    let (_questions, receiver) = mpsc::channel(16);
    Ok(runtime.block_on(controller::run(options, receiver))?)
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
