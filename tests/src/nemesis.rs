//! What is done to a cluster of databases, and trials of it under a writer's load.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use foobar::admin::api::{ClusterStatus, MemberStatus, MysqlCommand};
use serde::Serialize;

use crate::{
    Lab, STATE, databases,
    ledger::{self, Ledger, Writer},
};

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
    Switchover,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// Another primary, by itself.
    Failover,
    /// The same primary, and no failover.
    Same,
    /// Nobody takes writes until the fault is gone.
    Nobody,
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
            | Self::Mute => Expected::Failover,
            Self::IsolateFromMonitor
            | Self::IsolateFromClients
            | Self::Exhaust
            | Self::KillController
            | Self::FreezeController => Expected::Same,
            Self::Restart => Expected::Any,
            Self::KillTwo => Expected::Nobody,
            Self::Switchover => Expected::Switched,
        }
    }
}

/// What came of one trial.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub nemesis: Nemesis,
    /// From the fault to the decision; none where there was none.
    pub detection_ms: Option<f64>,
    /// From the fault to the first acknowledged write after it.
    pub outage_ms: Option<f64>,
    /// From the fault to the last of the idle clients being told; none where not all were.
    pub reset_ms: Option<f64>,
    pub acked: usize,
    pub acked_but_missing: usize,
    pub two_writer_instants: usize,
    pub false_failover: bool,
}

/// A lab with a writer's program, for one trial after the other.
#[derive(Debug)]
pub struct Arena<'a> {
    pub lab: &'a Lab,
    /// `foobar-lab`, which writes.
    pub writer: PathBuf,
    pub idle: u32,
}

impl Arena<'_> {
    /// One trial from a healthy cluster to a healthy cluster.
    ///
    /// # Errors
    /// When what must come of it does not, or the cluster does not recover.
    pub fn trial(&self, nemesis: Nemesis) -> Result<Trial> {
        self.lab.wait_for_databases()?;
        let before = self.lab.cluster().context("the balancer does not answer")?;
        let primary = before.writer.clone().context("no primary")?;
        let audited = self.audit().len();
        let writer = Writer::start(&self.writer, "app3", WRITERS, self.idle)?;
        self.lab.wait("the writer writes", || writer.acked() > 50)?;
        let fault = ledger::now();
        self.strike(nemesis, &primary)?;
        let changed = self.await_outcome(nemesis, &primary, before.term, &writer)?;
        self.heal(nemesis, &primary)?;
        thread::sleep(AFTERWARDS);
        let ledger = writer.stop()?;
        let after = self.recover(nemesis)?;
        let trail = self.audit().split_off(audited);
        self.judge(nemesis, &ledger, fault, &after, changed, &trail)
    }

    fn judge(
        &self,
        nemesis: Nemesis,
        ledger: &Ledger,
        fault: u64,
        primary: &str,
        changed: bool,
        trail: &[(u64, String)],
    ) -> Result<Trial> {
        let rows = ledger::rows(primary)?;
        ledger::wait_until_equal(&SERVERS, Duration::from_secs(20))?;
        let decided = trail.iter().find(|(_, what)| what.contains("began"));
        let millis =
            |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from)).as_secs_f64() * 1e3;
        let told: Vec<u64> = ledger
            .cuts
            .iter()
            .copied()
            .filter(|at| *at >= fault)
            .collect();
        Ok(Trial {
            nemesis,
            detection_ms: decided.map(|(at, _)| millis(fault, *at)),
            outage_ms: ledger
                .outage(fault)
                .map(|outage| outage.as_secs_f64() * 1e3),
            reset_ms: (self.idle > 0 && told.len() >= self.idle as usize)
                .then(|| told.iter().max().map(|at| millis(fault, *at)))
                .flatten(),
            acked: ledger.acks.len(),
            acked_but_missing: ledger.missing(&rows).len(),
            two_writer_instants: ledger.two_writer_instants(),
            false_failover: changed && nemesis.expected() == Expected::Same,
        })
    }

    fn strike(&self, nemesis: Nemesis, primary: &str) -> Result<()> {
        let lab = self.lab;
        match nemesis {
            Nemesis::Kill | Nemesis::Restart => lab.signal_database(primary, libc::SIGKILL),
            Nemesis::Terminate => lab.signal_database(primary, libc::SIGTERM),
            Nemesis::Freeze => lab.signal_database(primary, libc::SIGSTOP),
            Nemesis::Isolate => self.filter(primary, &["INPUT -p tcp", "OUTPUT -p tcp"]),
            Nemesis::Mute => self.filter(primary, &["OUTPUT -p tcp"]),
            Nemesis::IsolateFromReplicas => {
                let others = SERVERS.iter().filter(|server| **server != primary);
                let rules: Vec<_> = others
                    .flat_map(|other| {
                        let address = address(other);
                        [
                            format!("INPUT -p tcp -s {address}"),
                            format!("OUTPUT -p tcp -d {address}"),
                        ]
                    })
                    .collect();
                self.filter(
                    primary,
                    &rules.iter().map(String::as_str).collect::<Vec<_>>(),
                )
            }
            Nemesis::IsolateFromMonitor => self.filter(
                primary,
                &["INPUT -p tcp -s 10.0.0.10", "OUTPUT -p tcp -d 10.0.0.10"],
            ),
            Nemesis::IsolateFromClients => self.filter(
                primary,
                &[
                    "INPUT -p tcp -s 10.0.1.0/24",
                    "OUTPUT -p tcp -d 10.0.1.0/24",
                ],
            ),
            Nemesis::Exhaust => {
                databases::sql(primary, "SET GLOBAL max_connections = 10").map(drop)
            }
            Nemesis::KillController => lab.signal_foobar("lb1", libc::SIGKILL),
            Nemesis::FreezeController => lab.signal_foobar("lb1", libc::SIGSTOP),
            Nemesis::KillTwo => {
                lab.signal_database(primary, libc::SIGKILL)?;
                let other = SERVERS
                    .iter()
                    .find(|server| **server != primary)
                    .context("three servers")?;
                lab.signal_database(other, libc::SIGKILL)
            }
            Nemesis::Switchover => {
                let to = SERVERS
                    .iter()
                    .find(|server| **server != primary)
                    .context("three servers")?;
                let command = MysqlCommand::Switchover {
                    to: (*to).to_owned(),
                    dry_run: false,
                };
                lab.command_cluster(command).map(drop)
            }
        }
    }

    /// Waits for what must come; whether the primary is another.
    fn await_outcome(
        &self,
        nemesis: Nemesis,
        primary: &str,
        term: u64,
        writer: &Writer,
    ) -> Result<bool> {
        let is_another = || {
            let writer = self.lab.cluster().and_then(|cluster| cluster.writer);
            writer.is_some_and(|writer| writer != primary)
        };
        match nemesis.expected() {
            Expected::Failover | Expected::Switched => {
                self.lab.wait("another primary takes writes", || {
                    let later = |ledger: Ledger| ledger.acks.iter().any(|ack| ack.term > term);
                    let acked = writer.so_far().is_ok_and(later);
                    acked && is_another()
                })?;
                Ok(true)
            }
            Expected::Same => {
                thread::sleep(WATCHED);
                Ok(self.lab.cluster().is_some_and(|_| is_another()))
            }
            Expected::Nobody => {
                thread::sleep(WATCHED);
                let cluster = self.lab.cluster().context("the balancer does not answer")?;
                ensure!(
                    cluster.writer.is_none(),
                    "{:?} takes writes",
                    cluster.writer
                );
                Ok(false)
            }
            Expected::Any => {
                self.lab.start_database(primary)?;
                self.lab.wait("somebody takes writes", || {
                    self.lab.cluster().is_some_and(|cluster| {
                        cluster.writer.is_some() && cluster.operation.is_none()
                    })
                })?;
                thread::sleep(WATCHED);
                Ok(is_another())
            }
        }
    }

    fn heal(&self, nemesis: Nemesis, primary: &str) -> Result<()> {
        let lab = self.lab;
        match nemesis {
            Nemesis::Kill | Nemesis::Terminate => {
                lab.wait("the old primary has ended", || {
                    !lab.is_database_running(primary)
                })?;
                lab.start_database(primary)
            }
            Nemesis::Freeze => lab.signal_database(primary, libc::SIGCONT),
            Nemesis::Isolate
            | Nemesis::Mute
            | Nemesis::IsolateFromReplicas
            | Nemesis::IsolateFromMonitor
            | Nemesis::IsolateFromClients => self.unfilter(primary),
            Nemesis::Exhaust => {
                databases::sql(primary, "SET GLOBAL max_connections = 151").map(drop)
            }
            Nemesis::KillController => lab.start_foobar("lb1"),
            Nemesis::FreezeController => lab.signal_foobar("lb1", libc::SIGCONT),
            Nemesis::KillTwo => SERVERS
                .iter()
                .filter(|server| !lab.is_database_running(server))
                .try_for_each(|server| lab.start_database(server)),
            Nemesis::Restart | Nemesis::Switchover => Ok(()),
        }
    }

    /// Back to a primary with two replicas, as an operator would bring it there; the primary.
    fn recover(&self, nemesis: Nemesis) -> Result<String> {
        let lab = self.lab;
        let begun = Instant::now();
        loop {
            let cluster = lab.cluster();
            let writer = cluster.as_ref().and_then(|cluster| cluster.writer.clone());
            if let Some(cluster) = &cluster {
                self.restart_refused(cluster)?;
                let all_up = cluster.members.iter().all(|member| member.state == "up");
                if cluster.paused.is_some() && all_up {
                    let _ = lab.command_cluster(MysqlCommand::Resume);
                }
            }
            if let (Some(writer), Some(cluster)) = (&writer, &cluster) {
                let readers = cluster
                    .members
                    .iter()
                    .filter(|member| member.reads == "yes")
                    .count();
                if readers == 2 && cluster.armed && cluster.leads && cluster.operation.is_none() {
                    return Ok(writer.clone());
                }
            }
            if begun.elapsed() > RECOVERY {
                bail!(
                    "{nemesis:?}: no recovery within {RECOVERY:?}: {:#?}",
                    cluster
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// A deposed server that holds commits which nobody acknowledged cannot be closed: its operator restarts it, and the
    /// restart cuts them off.
    fn restart_refused(&self, cluster: &ClusterStatus) -> Result<()> {
        let deposed = |member: &&MemberStatus| {
            member.role == "deposed" && member.state == "up" && member.source.is_none()
        };
        let Some(member) = cluster.members.iter().find(deposed) else {
            return Ok(());
        };
        let last = self.audit().pop().map(|(_, what)| what).unwrap_or_default();
        if last.contains(&format!("{} stays out", member.host)) && last.contains("restart it") {
            self.lab.signal_database(&member.host, libc::SIGKILL)?;
            self.lab.wait("it has ended", || {
                !self.lab.is_database_running(&member.host)
            })?;
            // It must be seen gone, else it is the same server that may not follow.
            thread::sleep(Duration::from_secs(1));
            self.lab.start_database(&member.host)?;
        }
        Ok(())
    }

    fn filter(&self, server: &str, rules: &[&str]) -> Result<()> {
        for rule in rules {
            for port in PORTS {
                for side in ["--sport", "--dport"] {
                    let line = format!("iptables -w -A {rule} {side} {port} -j DROP");
                    let words: Vec<&str> = line.split(' ').collect();
                    ensure!(
                        self.lab.succeeds(server, &words),
                        "`{line}` failed on {server}"
                    );
                }
            }
        }
        Ok(())
    }

    fn unfilter(&self, server: &str) -> Result<()> {
        ensure!(
            self.lab.succeeds(server, &["iptables", "-w", "-F"]),
            "iptables -F failed on {server}"
        );
        Ok(())
    }

    /// The audit trail of the balancer's controller.
    #[must_use]
    pub fn audit(&self) -> Vec<(u64, String)> {
        let path = Path::new(STATE).join("state/lb1/mysql-app.audit");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                Some((line["at"].as_u64()?, line["what"].as_str()?.to_owned()))
            })
            .collect()
    }
}

fn address(server: &str) -> String {
    format!("10.0.0.1{}", server.trim_start_matches("web"))
}

pub const SERVERS: [&str; 3] = ["web1", "web2", "web3"];
const PORTS: [u16; 2] = [3306, 3308];
const WRITERS: u32 = 3;
/// How long nothing must happen where nothing may.
const WATCHED: Duration = Duration::from_secs(4);
const AFTERWARDS: Duration = Duration::from_millis(700);
const RECOVERY: Duration = Duration::from_secs(60);
