//! What is done to a cluster of databases, how it is undone, and what must come of it.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use foobar::admin::api::MysqlCommand;
use serde::Serialize;

use crate::{Lab, SERVERS, databases, disks};

/// A fault, or what an operator does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Nemesis {
    /// SIGKILL for the primary.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP, and SIGCONT once somebody else is primary.
    Freeze,
    /// The primary's packets to and from everybody are lost.
    Isolate,
    /// Those to and from the other servers.
    IsolateFromReplicas,
    /// Those to and from the balancer's own checks.
    IsolateFromMonitor,
    /// Those to and from the applications.
    IsolateFromClients,
    /// Only what it sends is lost.
    Mute,
    /// Only what is sent to it is lost.
    Deafen,
    /// Writes to its disk do not come back; reads do.
    FreezeDisk,
    /// Its disk is full.
    FillDisk,
    /// Every connection of its service port is taken.
    Exhaust,
    /// SIGKILL, and started again at once.
    Restart,
    /// SIGKILL for the balancer's controller, and started again.
    KillController,
    /// SIGSTOP for the balancer's controller for three seconds.
    FreezeController,
    /// SIGKILL for the primary and a replica together.
    KillTwo,
    /// One replica alone acknowledges and applies nothing, then SIGKILL for it and the primary; the replica comes back first.
    KillWitness,
    /// SIGKILL for the primary and for the balancer's controller, which is started again at once.
    KillWithController,
    /// SIGKILL for the primary, SIGSTOP for the balancer's controller for a second.
    KillAndFreezeController,
    Switchover,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// Another primary, by itself.
    Failover,
    /// The same primary, and no failover; with a disk that hangs, nobody new is sent to it.
    Same,
    /// Nobody takes writes until the fault is gone, and this is said to be why.
    Nobody(&'static str),
    /// Another primary, by command.
    Switched,
    /// Either: which one is a matter of milliseconds.
    Any,
}

impl Nemesis {
    #[must_use]
    pub const fn expected(self) -> Expected {
        match self {
            Self::Kill
            | Self::Terminate
            | Self::Freeze
            | Self::Isolate
            | Self::IsolateFromReplicas
            | Self::Mute
            | Self::Deafen
            | Self::KillWithController
            | Self::KillAndFreezeController => Expected::Failover,
            Self::IsolateFromMonitor
            | Self::IsolateFromClients
            | Self::FreezeDisk
            | Self::FillDisk
            | Self::Exhaust
            | Self::KillController
            | Self::FreezeController => Expected::Same,
            Self::Restart => Expected::Any,
            Self::KillTwo => Expected::Nobody("does not answer"),
            Self::KillWitness => Expected::Nobody("was started again"),
            Self::Switchover => Expected::Switched,
        }
    }

    /// Whether it can only be done to a database with a disk of its own.
    #[must_use]
    pub const fn needs_disk(self) -> bool {
        matches!(self, Self::FreezeDisk | Self::FillDisk)
    }

    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn strike(self, lab: &Lab, primary: &str) -> Result<()> {
        match self {
            Self::Kill | Self::Restart => lab.signal_database(primary, libc::SIGKILL),
            Self::Terminate => lab.signal_database(primary, libc::SIGTERM),
            Self::Freeze => lab.signal_database(primary, libc::SIGSTOP),
            Self::Isolate => lose(lab, primary, &["INPUT", "OUTPUT"]),
            Self::Mute => lose(lab, primary, &["OUTPUT"]),
            Self::Deafen => lose(lab, primary, &["INPUT"]),
            Self::IsolateFromReplicas => {
                let rules: Vec<_> = others(primary)
                    .map(address)
                    .flat_map(|other| [format!("INPUT -s {other}"), format!("OUTPUT -d {other}")])
                    .collect();
                let rules: Vec<_> = rules.iter().map(String::as_str).collect();
                lose(lab, primary, &rules)
            }
            Self::IsolateFromMonitor => {
                lose(lab, primary, &["INPUT -s 10.0.0.10", "OUTPUT -d 10.0.0.10"])
            }
            Self::IsolateFromClients => lose(
                lab,
                primary,
                &["INPUT -s 10.0.1.0/24", "OUTPUT -d 10.0.1.0/24"],
            ),
            Self::FreezeDisk => disks::freeze(primary),
            Self::FillDisk => disks::fill(primary),
            Self::Exhaust => {
                // Whoever comes back first takes what there is.
                let user = databases::APPLICATION.0;
                let text = format!("SET GLOBAL max_connections = 10; KILL USER {user}");
                // What set the limit may have failed to kill, and then there is one port left.
                databases::sql(primary, &text)
                    .map(drop)
                    .or_else(|_| say_at_last(|| databases::administer(primary, &text)))
            }
            Self::KillController => lab.signal_foobar("lb1", libc::SIGKILL),
            Self::FreezeController => {
                lab.signal_foobar("lb1", libc::SIGSTOP)?;
                thread::sleep(STALL);
                lab.signal_foobar("lb1", libc::SIGCONT)
            }
            Self::KillTwo => {
                lab.signal_database(primary, libc::SIGKILL)?;
                lab.signal_database(another(primary)?, libc::SIGKILL)
            }
            Self::KillWitness => kill_witness(lab, primary),
            Self::KillWithController => {
                lab.signal_database(primary, libc::SIGKILL)?;
                lab.signal_foobar("lb1", libc::SIGKILL)?;
                // Until then it has the lock; whoever starts it again (systemd) waits for its end.
                lab.wait("the controller has ended", || !Lab::is_node_locked("lb1"))?;
                lab.start_foobar("lb1")
            }
            Self::KillAndFreezeController => {
                lab.signal_foobar("lb1", libc::SIGSTOP)?;
                lab.signal_database(primary, libc::SIGKILL)?;
                thread::sleep(Duration::from_secs(1));
                lab.signal_foobar("lb1", libc::SIGCONT)
            }
            Self::Switchover => lab
                .command_cluster(MysqlCommand::Switchover {
                    to: another(primary)?.to_owned(),
                    dry_run: false,
                })
                .map(drop),
        }
    }

    /// Undoes it.
    ///
    /// # Errors
    /// When it cannot be undone.
    pub fn heal(self, lab: &Lab, primary: &str) -> Result<()> {
        match self {
            Self::Kill
            | Self::Terminate
            | Self::KillWitness
            | Self::KillWithController
            | Self::KillAndFreezeController => {
                lab.wait("the old primary has ended", || {
                    !lab.is_database_running(primary)
                })?;
                lab.start_database(primary)
            }
            Self::Freeze => lab.signal_database(primary, libc::SIGCONT),
            Self::Isolate
            | Self::Mute
            | Self::Deafen
            | Self::IsolateFromReplicas
            | Self::IsolateFromMonitor
            | Self::IsolateFromClients => find(lab, primary),
            Self::FreezeDisk => disks::thaw(primary),
            Self::FillDisk => disks::empty(primary),
            Self::Exhaust => {
                let text = "SET GLOBAL max_connections = 1200";
                say_at_last(|| databases::administer(primary, text))
            }
            Self::KillController => lab.start_foobar("lb1"),
            Self::KillTwo => SERVERS
                .iter()
                .filter(|server| !lab.is_database_running(server))
                .try_for_each(|server| lab.start_database(server)),
            Self::FreezeController | Self::Restart | Self::Switchover => Ok(()),
        }
    }
}

/// A client of a server that is in trouble may itself get into it.
fn say_at_last(say: impl Fn() -> Result<()>) -> Result<()> {
    say().or_else(|_| say()).or_else(|_| say())
}

fn kill_witness(lab: &Lab, primary: &str) -> Result<()> {
    let witness = another(primary)?;
    let other = others(primary).nth(1).context("three servers")?;
    databases::sql(other, "STOP REPLICA IO_THREAD")?;
    databases::sql(witness, "STOP REPLICA SQL_THREAD")?;
    thread::sleep(ALONE);
    lab.signal_database(primary, libc::SIGKILL)?;
    lab.signal_database(witness, libc::SIGKILL)?;
    databases::sql(other, "START REPLICA IO_THREAD")?;
    lab.wait("the witness has ended", || {
        !lab.is_database_running(witness)
    })?;
    lab.start_database(witness)
}

/// Loses the packets of a server's database that rules of iptables choose.
pub(crate) fn lose(lab: &Lab, server: &str, rules: &[&str]) -> Result<()> {
    for rule in rules {
        for port in PORTS {
            for side in ["--sport", "--dport"] {
                let (chain, more) = rule.split_once(' ').unwrap_or((rule, ""));
                let line = format!("iptables -w -A {chain} -p tcp {side} {port} {more} -j DROP");
                let words: Vec<&str> = line.split_whitespace().collect();
                ensure!(lab.succeeds(server, &words), "`{line}` failed on {server}");
            }
        }
    }
    Ok(())
}

/// Loses nothing more.
pub(crate) fn find(lab: &Lab, server: &str) -> Result<()> {
    ensure!(
        lab.succeeds(server, &["iptables", "-w", "-F"]),
        "iptables -F failed on {server}"
    );
    Ok(())
}

fn others(primary: &str) -> impl Iterator<Item = &'static str> {
    SERVERS.into_iter().filter(move |server| *server != primary)
}

fn another(primary: &str) -> Result<&'static str> {
    others(primary).next().context("three servers")
}

fn address(server: &str) -> String {
    format!("10.0.0.1{}", server.trim_start_matches("web"))
}

/// How long one replica alone acknowledges: not so long that a failover is no longer armed for that.
const ALONE: Duration = Duration::from_millis(300);
const PORTS: [u16; 2] = [3306, 3308];
/// How long a controller stands still.
pub(crate) const STALL: Duration = Duration::from_secs(3);
