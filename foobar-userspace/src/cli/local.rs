//! What a command does by itself: serve a node, check a file, take programs off.

use std::{
    env,
    error::Error,
    fs,
    io::{self, IsTerminal as _},
    os::unix::{fs::MetadataExt as _, net::UnixListener},
    sync::Arc,
    time::SystemTime,
};

use foobar::{
    admin::{self, Deed, Door, Feeds},
    balancer,
    config::{Config, Diagnostics},
    controller::{self, Options, Possession},
    firewall,
    kernel::{self, NodeLock, Which},
    labels::Labels,
    monitor::lines::{Line, Stream},
    proxy::{
        material::{Material, TicketBook},
        sockets::Sockets,
        tls::Severity,
    },
    succession::Ancestor,
};
use tokio::sync::broadcast;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::{
    arguments::Arguments,
    failure::{Failure, Status},
    output::{colors, say},
};

/// Serves a node until it is told to end.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    log(arguments.verbose);
    let options = options(arguments)?;
    let admin = super::load(arguments)?.admin;
    let socket = match &arguments.socket {
        Some(socket) => socket.clone(),
        None => admin.socket_of(&options.node),
    };
    let ancestor = Ancestor::of_this_process().map_err(|error| Failure::failed(&error))?;
    let (mut possession, listener) = match ancestor {
        Some(ancestor) => inherit(&options, ancestor)?,
        None => {
            // Before the socket: a second controller must not take it from the first.
            let lock = NodeLock::take(&options.node)?;
            let listener = admin::listen(&socket, admin.group.as_deref())
                .map_err(|error| Failure::failed(&error))?;
            (Possession::from(lock), listener)
        }
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::failed(&error))?;
    runtime.block_on(async {
        let feeds = Feeds::new(controller::LINES);
        let book = feeds.lines.clone();
        let record = move |deed| audit(&deed, &book);
        let (door, questions) =
            Door::open(listener, record, feeds.clone()).map_err(|error| Failure::failed(&error))?;
        possession.door = Some(door);
        Ok(controller::run_with(options, possession, questions, feeds).await?)
    })
}

/// Tells the logs who changed what; where to is theirs to know.
fn audit(deed: &Deed, lines: &broadcast::Sender<Arc<Line>>) {
    if let Ok(text) = serde_json::to_string(deed) {
        // Nobody may be listening.
        let _ = lines.send(Arc::new(Line {
            at: deed.at,
            stream: Stream::Audit,
            text,
        }));
    }
}

/// All that the process before has, once this one has seen that it could serve.
fn inherit(
    options: &Options,
    mut ancestor: Ancestor,
) -> Result<(Possession, UnixListener), Failure> {
    controller::rehearse(options)?;
    let inheritance = ancestor
        .succeed()
        .map_err(|error| Failure::failed(&error))?;
    let possession = Possession {
        lock: NodeLock::inherited(inheritance.lock),
        door: None,
        ancestor: Some(ancestor),
        sockets: Sockets::adopt(inheritance.sockets),
        tickets: TicketBook::inherited(&inheritance.estate.tickets, SystemTime::now()),
    };
    Ok((possession, inheritance.admin.into()))
}

/// What [`run`] would put into the kernel.
pub fn dry_run(arguments: &Arguments) -> Result<(), Failure> {
    for line in controller::dry_run(&options(arguments)?)? {
        say(&format!("{line}\n"))?;
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Result<Options, Failure> {
    Ok(Options {
        config: arguments.config.clone(),
        node: super::node(arguments)?,
        state: None,
    })
}

fn log(verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // A kernel newer than the netlink crate is nothing to be warned of twice a second.
    let usual = format!("{level},netlink_packet_route=error");
    let filter = EnvFilter::try_from_env("FOOBAR_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let (journal, terminal) = match journal() {
        Some(journal) => (Some(journal), None),
        None => (None, Some(terminal())),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(terminal)
        .init();
}

fn terminal<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(colors(io::stderr().is_terminal()))
}

/// The journal itself where standard error leads to it, so that fields stay fields: `journalctl SERVICE=l7.www`.
fn journal() -> Option<tracing_journald::Layer> {
    let named = env::var("JOURNAL_STREAM").ok()?;
    let error = fs::metadata("/proc/self/fd/2").ok()?;
    // systemd.exec(5): whoever turned standard error away since does not want the journal.
    if named != format!("{}:{}", error.dev(), error.ino()) {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    Some(
        journal
            .with_field_prefix(None)
            .with_syslog_identifier("foobar".to_owned()),
    )
}

pub fn check(arguments: &Arguments) -> Result<(), Failure> {
    let config = super::load(arguments)?;
    look_at_files(arguments, &config)?;
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

/// Certificates, keys and pages. From a machine that is none of the nodes, what is not there is elsewhere.
fn look_at_files(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let here = super::node(arguments).ok();
    let mut bad = Vec::new();
    for node in config.nodes.keys() {
        let is_this = here.as_ref() == Some(node);
        if here.is_some() && !is_this {
            continue;
        }
        for flaw in Material::flaws(config, node, SystemTime::now()) {
            let passes = match flaw.severity {
                Severity::Absent => !is_this,
                Severity::Unseen => true,
                Severity::Doubtful | Severity::Fatal => false,
            };
            if passes {
                say(&format!("{node}: not looked at: {}\n", flaw.message))?;
            } else {
                bad.push((flaw.place, flaw.message, flaw.cure));
            }
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    Err(Diagnostics::about_things_named(&config.path, bad).into())
}

pub fn detach(arguments: &Arguments, which: &Which) -> Result<(), Failure> {
    for interface in kernel::detach(&super::node(arguments)?, which)? {
        say(&format!("{interface}\n"))?;
    }
    Ok(())
}
