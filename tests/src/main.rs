//! `foobar-lab`: the lab as a command, for xtask and for scripts.

use std::{
    env,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use foobar_lab::{
    Lab, Options, STATE, databases::Databases, in_namespace, ledger, lock, processes::Processes,
};

#[derive(Debug, Parser)]
#[command(
    name = "foobar-lab",
    about = "The estate in network namespaces, with real servers"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings the lab up and leaves it there.
    Up {
        /// The product's binary; `$FOOBAR_BIN`, or the one beside this one, by default.
        #[arg(long)]
        foobar: Option<PathBuf>,
        #[arg(long, default_value = "config/foobar.toml")]
        config: PathBuf,
        /// Servers and network only.
        #[arg(long)]
        without_foobar: bool,
        /// What the servers run as databases.
        #[arg(long, value_enum, default_value_t)]
        databases: Databases,
    },
    /// Takes the lab down, and what a crash left of one.
    Down,
    /// Says what runs.
    Status,
    /// Writes by the writer address and tells every acknowledgement, in the namespace where it is started.
    #[command(hide = true)]
    Write {
        #[arg(long, default_value_t = ledger::WRITER)]
        at: SocketAddr,
        #[arg(long)]
        writers: u32,
        #[arg(long)]
        idle: u32,
    },
    /// Runs a command on a node: client, lb1, web1 to web3, app1 to app3.
    Exec {
        node: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("foobar-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Up {
            foobar,
            config,
            without_foobar,
            databases,
        } => {
            let _lock = lock()?;
            let foobar = if without_foobar {
                None
            } else {
                Some(product(foobar)?)
            };
            let options = Options {
                config,
                foobar,
                databases,
            };
            let mut progress = |step: &str| eprintln!("lab: {step}");
            Lab::up(&options, &mut progress)?;
            if options.foobar.is_some() {
                print!("{}", WHAT_NEXT);
            }
            Ok(())
        }
        Command::Down => {
            let _lock = lock()?;
            if !Path::new(STATE).exists() {
                eprintln!("lab: nothing is up");
                return Ok(());
            }
            Lab::down(product(None).ok().as_deref())
        }
        Command::Status => status(),
        Command::Write { at, writers, idle } => ledger::write(at, writers, idle),
        Command::Exec { node, command } => exec(&node, &command),
    }
}

/// The product's binary.
fn product(named: Option<PathBuf>) -> Result<PathBuf> {
    let beside = || {
        let own = env::current_exe().ok()?;
        Some(own.parent()?.join("foobar"))
    };
    let path = named
        .or_else(|| env::var_os("FOOBAR_BIN").map(PathBuf::from))
        .or_else(beside)
        .context("no product named; use --foobar")?;
    path.canonicalize()
        .with_context(|| format!("no product at {}; run `cargo xtask build`", path.display()))
}

fn status() -> Result<()> {
    if !Path::new(STATE).exists() {
        println!("down");
        bail!("the lab is down; `cargo xtask lab up` brings it up");
    }
    for name in Processes::new(STATE)?.running()? {
        println!("{name}");
    }
    Ok(())
}

fn exec(node: &str, command: &[String]) -> Result<()> {
    if !Path::new("/run/netns").join(node).exists() {
        bail!(
            "there is no node `{node}`: the lab has client, lb1, web1 to web3 and app1 to app3 once it is up"
        );
    }
    let [program, arguments @ ..] = command else {
        bail!("no command");
    };
    let mut search = env::var_os("PATH").unwrap_or_default();
    if let Some(directory) = product(None).ok().as_deref().and_then(Path::parent) {
        search.push(":");
        search.push(directory);
    }
    let failure = in_namespace(node, program)
        .args(arguments)
        .env("PATH", search)
        .env("FOOBAR_CONFIG", Lab::config_path())
        .env("FOOBAR_NODE", node)
        .exec();
    Err(failure).with_context(|| format!("cannot start {program} on {node}"))
}

const WHAT_NEXT: &str = "\
The lab is up. Try:
  curl http://203.0.113.10:8080/whoami
  curl -g 'http://[2001:db8::10]:8080/whoami'
  curl --cacert /run/foobar-lab/ca.pem --resolve www.foobar.com:8443:203.0.113.10 https://www.foobar.com:8443/whoami
  curl --cacert /run/foobar-lab/ca.pem --resolve www.foobar.com:443:203.0.113.10 https://www.foobar.com/whoami
  cargo xtask lab exec lb1 -- foobar tls list
  cargo xtask lab exec client -- curl -s http://203.0.113.10:8080/whoami
  curl http://203.0.113.10:8080/db/write; curl http://203.0.113.10:8080/db/read
  cargo xtask lab exec lb1 -- foobar stats --from-maps
  cargo xtask lab exec lb1 -- foobar mysql status
  cargo xtask lab exec web2 -- curl -m2 http://198.51.100.7/     # forbidden by web2's egress rules
  cargo xtask lab down
";
