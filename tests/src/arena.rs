//! Trials: from a healthy cluster under a writer's load, through a fault, to a healthy cluster, and what came of it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use foobar::admin::api::{ClusterStatus, MemberStatus, MysqlCommand};
use serde::Serialize;

use crate::{
    Lab, SERVERS, STATE,
    ledger::{self, Ledger, Writer},
    nemesis::{Expected, Nemesis},
};

/// A lab with a writer's program, for one trial after the other.
#[derive(Debug)]
pub struct Arena<'a> {
    pub lab: &'a Lab,
    /// `foobar-lab`, which writes.
    pub writer: PathBuf,
    pub crowd: Crowd,
}

/// The application's connections.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Those that write without a pause.
    pub busy: u32,
    /// Those that wait for an answer.
    pub idle: u32,
}

/// What came of one trial.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub nemesis: Nemesis,
    /// From the fault to the verdict that the primary is lost, that its writes hang, or that nobody may take any; none where
    /// there was none.
    pub detection_ms: Option<f64>,
    /// The longest time in which no write was acknowledged; none where it was no longer than usual.
    pub outage_ms: Option<f64>,
    /// From the cut of a server's connections to the last client that was told; none where nobody had to be.
    pub reset_ms: Option<f64>,
    /// For how long a switchover let nobody write, by its own account.
    pub readonly_ms: Option<f64>,
    pub acked: usize,
    pub acked_but_missing: usize,
    pub two_writer_instants: usize,
    pub false_failover: bool,
    /// Of every client that was cut: how long after the decision it was told.
    #[serde(skip)]
    pub resets: Vec<f64>,
}

impl Trial {
    /// Asserts what holds however slow the machine is.
    ///
    /// # Panics
    /// When it does not; a test that says so is not tried again.
    #[track_caller]
    pub fn assert_contract(&self) {
        let kept =
            self.acked_but_missing == 0 && self.two_writer_instants == 0 && !self.false_failover;
        assert!(kept, "{BROKEN}: {self:?}");
    }
}

/// What a test says then.
pub const BROKEN: &str = "the contract is broken";

/// What happened before the writer was looked at.
struct Course {
    fault: u64,
    primary: String,
    changed: bool,
    /// When the controller was seen to say that writes do not come back.
    alarmed: Option<u64>,
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
        let writer = self.start_writer()?;
        let fault = ledger::now();
        nemesis.strike(self.lab, &primary)?;
        let outcome = self.await_outcome(nemesis, &primary, before.term, &writer);
        let healed = nemesis.heal(self.lab, &primary);
        let (changed, alarmed) = outcome?;
        healed?;
        if nemesis.needs_disk() {
            self.wait_for_writes(&writer)?;
        }
        thread::sleep(AFTERWARDS);
        let ledger = writer.stop()?;
        let after = self.recover(nemesis)?;
        let trail = self.audit().split_off(audited);
        let course = Course {
            fault,
            primary,
            changed,
            alarmed,
        };
        self.judge(nemesis, &ledger, &course, &after, &trail)
    }

    fn start_writer(&self) -> Result<Writer> {
        let Crowd { busy, idle } = self.crowd;
        let writer = Writer::start(&self.writer, "app3", busy, idle)?;
        self.lab.wait("the writer writes", || {
            writer.acked() > 50 && writer.waiting() >= idle as usize
        })?;
        Ok(writer)
    }

    /// Waits for what must come; whether the primary is another, and when writes were said to hang.
    fn await_outcome(
        &self,
        nemesis: Nemesis,
        primary: &str,
        term: u64,
        writer: &Writer,
    ) -> Result<(bool, Option<u64>)> {
        let is_another = || {
            let writer = self.lab.cluster().and_then(|cluster| cluster.writer);
            writer.is_some_and(|writer| writer != primary)
        };
        let mut alarmed = None;
        let changed = match nemesis.expected() {
            Expected::Failover | Expected::Switched => {
                self.lab.wait_long("another primary takes writes", || {
                    let later = |ledger: Ledger| ledger.acks.iter().any(|ack| ack.term > term);
                    let acked = writer.so_far().is_ok_and(later);
                    acked && is_another()
                })?;
                true
            }
            Expected::Same => {
                if nemesis.needs_disk() {
                    self.lab
                        .wait("it is said that writes hang", || self.is_stalled())?;
                    alarmed = Some(ledger::now());
                }
                thread::sleep(WATCHED);
                is_another()
            }
            Expected::Nobody(why) => {
                self.lab
                    .wait("it is said why there is no failover", || self.is_told(why))?;
                thread::sleep(WATCHED);
                let cluster = self.lab.cluster().context("the balancer does not answer")?;
                ensure!(
                    cluster.writer.is_none(),
                    "{:?} takes writes",
                    cluster.writer
                );
                false
            }
            Expected::Any => {
                self.lab.start_database(primary)?;
                self.lab.wait("somebody takes writes", || {
                    self.lab.cluster().is_some_and(|cluster| {
                        cluster.writer.is_some() && cluster.operation.is_none()
                    })
                })?;
                thread::sleep(WATCHED);
                is_another()
            }
        };
        Ok((changed, alarmed))
    }

    fn is_told(&self, why: &str) -> bool {
        let told = |alarm: &String| alarm.contains("a failover is due") && alarm.contains(why);
        self.lab
            .cluster()
            .is_some_and(|cluster| cluster.alarms.iter().any(told))
    }

    fn is_stalled(&self) -> bool {
        self.lab
            .cluster()
            .is_some_and(|cluster| cluster.members.iter().any(|member| member.writes_stalled))
    }

    /// Waits for an acknowledgement; a server looks only once a minute whether its disk has room again.
    fn wait_for_writes(&self, writer: &Writer) -> Result<()> {
        let acked = writer.acked();
        self.lab
            .wait_long("writes go on", || writer.acked() > acked)
    }

    fn judge(
        &self,
        nemesis: Nemesis,
        ledger: &Ledger,
        course: &Course,
        after: &str,
        trail: &[(u64, String)],
    ) -> Result<Trial> {
        let first = ledger.acks.iter().map(|ack| ack.id).min().unwrap_or(0);
        let rows = ledger::rows(after, first)?;
        ledger::wait_until_equal_from(first, &SERVERS, CATCH_UP)?;
        let fault = course.fault;
        let mut after_fault = trail.iter().filter(|(at, _)| *at >= fault);
        let lost = format!("{} is lost", course.primary);
        let told = |said: &str| {
            let line = trail.iter().find(|(_, what)| what.starts_with(said));
            line.map(|(at, _)| *at)
        };
        let verdict = course
            .alarmed
            .or_else(|| told(&lost))
            .or_else(|| told(NOBODY));
        let cut = after_fault
            .find(|(_, what)| is_a_cut(what, &lost))
            .map(|(at, _)| *at);
        let resets = cut.map_or(Vec::new(), |cut| resets(ledger, cut));
        let readonly = self
            .lab
            .cluster()
            .filter(|_| nemesis == Nemesis::Switchover)
            .and_then(|cluster| cluster.last_window_milliseconds);
        Ok(Trial {
            nemesis,
            detection_ms: verdict.map(|at| milliseconds(fault, at)),
            outage_ms: ledger
                .outage(fault)
                .map(|outage| outage.as_secs_f64() * 1e3),
            reset_ms: resets.iter().copied().max_by(f64::total_cmp),
            readonly_ms: readonly,
            acked: ledger.acks.len(),
            acked_but_missing: ledger.missing(&rows).len(),
            two_writer_instants: ledger.two_writer_instants(),
            false_failover: course.changed && nemesis.expected() == Expected::Same,
            resets,
        })
    }

    /// Back to a primary with two replicas, as an operator would bring it there; the primary.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn recover(&self, nemesis: Nemesis) -> Result<String> {
        let lab = self.lab;
        let begun = Instant::now();
        loop {
            let cluster = lab.cluster();
            if let Some(cluster) = &cluster {
                self.help_deposed(cluster)?;
                let all_up = cluster.members.iter().all(|member| member.state == "up");
                if cluster.paused.is_some() && all_up {
                    // Refused while it is busy: then later.
                    let _ = lab.command_cluster(MysqlCommand::Resume);
                }
                if let Some(writer) = cluster.writer.clone().filter(|_| is_whole(cluster)) {
                    return Ok(writer);
                }
            }
            if begun.elapsed() > RECOVERY {
                bail!(
                    "{nemesis:?}: no recovery within {RECOVERY:?}: {cluster:#?}\n{:#?}",
                    self.audit()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Does what the controller asks of the operator of a deposed server: one that holds commits which nobody acknowledged
    /// cannot be closed, until a restart cuts them off (MariaDB) or shows them (MySQL), and then it must be made anew.
    fn help_deposed(&self, cluster: &ClusterStatus) -> Result<()> {
        let deposed = |member: &&MemberStatus| {
            member.role == "deposed" && member.state == "up" && member.source.is_none()
        };
        let Some(member) = cluster.members.iter().find(deposed) else {
            return Ok(());
        };
        let host = &member.host;
        let last = self.audit().pop().map(|(_, what)| what).unwrap_or_default();
        if !last.contains(&format!("{host} stays out")) {
            return Ok(());
        }
        if last.contains("restart it") {
            self.lab.signal_database(host, libc::SIGKILL)?;
            self.lab
                .wait("it has ended", || !self.lab.is_database_running(host))?;
            // Else it is the same server that may not follow.
            self.lab.wait("it is seen gone", || self.is_gone(host))?;
            self.lab.start_database(host)?;
        } else if let Some(primary) = &cluster.writer
            && last.contains("rebuild it from the primary")
        {
            self.lab.rebuild_database(host, primary)?;
        }
        Ok(())
    }

    fn is_gone(&self, host: &str) -> bool {
        let gone = |member: &MemberStatus| member.host == host && member.state == "gone";
        self.lab
            .cluster()
            .is_some_and(|cluster| cluster.members.iter().any(gone))
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

/// A primary with two replicas, and nothing under way.
fn is_whole(cluster: &ClusterStatus) -> bool {
    let readers = cluster
        .members
        .iter()
        .filter(|member| member.reads == "yes")
        .count();
    let stalled = cluster.members.iter().any(|member| member.writes_stalled);
    readers == 2
        && cluster.armed
        && cluster.leads
        && cluster.operation.is_none()
        && cluster.paused.is_none()
        && !stalled
}

/// Whether a line of the trail is written just before the writer address leaves its server.
fn is_a_cut(what: &str, lost: &str) -> bool {
    what.starts_with(NOBODY)
        || what.starts_with(lost)
        || what.starts_with("switchover to term") && what.ends_with(": drain")
}

/// How long after the cut each client was told that was told after it.
fn resets(ledger: &Ledger, cut: u64) -> Vec<f64> {
    let told = ledger.cuts.iter().chain(&ledger.broken);
    told.filter(|at| **at >= cut && **at < cut + OF_THIS_CUT)
        .map(|at| milliseconds(cut, *at))
        .collect()
}

fn milliseconds(from: u64, to: u64) -> f64 {
    Duration::from_micros(to.saturating_sub(from)).as_secs_f64() * 1e3
}

const NOBODY: &str = "nobody may take writes";
/// Microseconds after which a client is cut for another reason.
const OF_THIS_CUT: u64 = 5_000_000;
/// How long nothing must happen where nothing may.
const WATCHED: Duration = Duration::from_secs(4);
const AFTERWARDS: Duration = Duration::from_millis(700);
const CATCH_UP: Duration = Duration::from_secs(60);
const RECOVERY: Duration = Duration::from_secs(180);

/// An application of few connections.
pub const FEW: Crowd = Crowd { busy: 3, idle: 0 };
