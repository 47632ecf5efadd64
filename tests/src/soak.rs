//! A soak: nothing is wrong with the primary, and everything else is bad for a long time. Nobody may be promoted.

use std::{
    env, fmt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::{
    Lab, SERVERS,
    ledger::{self, Writer},
    nemesis,
};

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Soak {
    pub minutes: f64,
    /// Threads that do nothing but take the processor.
    pub starving_threads: usize,
    pub loss_percent: u32,
    /// How often the controller stood still for three seconds.
    pub stalls: usize,
    pub false_failovers: u64,
    pub role_changes: u64,
    pub acked: usize,
    pub acked_but_missing: usize,
    pub two_writer_instants: usize,
    /// The longest time without an acknowledgement.
    pub outage_ms: Option<f64>,
}

/// Starves, loses and stalls for `length`.
///
/// # Errors
/// When the kernel cannot lose packets, or the lab ends.
pub fn run(lab: &Lab, length: Duration, progress: &mut dyn FnMut(&str)) -> Result<Soak> {
    lab.wait_for_databases()?;
    let before = lab.cluster().context("the balancer does not answer")?;
    let primary = before.writer.clone().context("no primary")?;
    let writer = Writer::start(&env::current_exe()?, "app3", WRITERS, 0)?;
    lab.wait("the writer writes", || writer.acked() > 50)?;
    let begun = (Instant::now(), ledger::now());
    lose(lab)?;
    let starving_threads = OVERSUBSCRIBED * thread::available_parallelism()?.get();
    let ends = AtomicBool::new(false);
    let stalls = thread::scope(|scope| {
        for _ in 0..starving_threads {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let stalls = stall(lab, &writer, begun.0 + length, progress);
        ends.store(true, Ordering::Relaxed);
        stalls
    });
    let found = find(lab);
    let stalls = stalls?;
    found?;
    thread::sleep(AFTERWARDS);
    let ledger = writer.stop()?;
    lab.wait_for_databases()?;
    let after = lab.cluster().context("the balancer does not answer")?;
    let first = ledger.acks.iter().map(|ack| ack.id).min().unwrap_or(0);
    ledger::wait_until_equal_from(first, &SERVERS, CATCH_UP)?;
    let rows = ledger::rows(&primary, first)?;
    Ok(Soak {
        minutes: begun.0.elapsed().as_secs_f64() / 60.0,
        starving_threads,
        loss_percent: LOSS_PERCENT,
        stalls,
        false_failovers: after.failovers - before.failovers,
        // A restart of the controller would count anew: there is none.
        role_changes: after.role_changes - before.role_changes,
        acked: ledger.acks.len(),
        acked_but_missing: ledger.missing(&rows).len(),
        two_writer_instants: ledger.two_writer_instants(),
        outage_ms: ledger
            .outage(begun.1)
            .map(|outage| outage.as_secs_f64() * 1e3),
    })
}

/// Has the controller stand still now and then; how often.
fn stall(
    lab: &Lab,
    writer: &Writer,
    until: Instant,
    progress: &mut dyn FnMut(&str),
) -> Result<usize> {
    let mut stalls = 0;
    while Instant::now() < until {
        thread::sleep(BETWEEN_STALLS.min(until.saturating_duration_since(Instant::now())));
        lab.signal_foobar("lb1", libc::SIGSTOP)?;
        thread::sleep(nemesis::STALL);
        lab.signal_foobar("lb1", libc::SIGCONT)?;
        stalls += 1;
        let told = lab.cluster().map_or("no answer".to_owned(), |cluster| {
            format!("{} failovers", cluster.failovers)
        });
        progress(&format!(
            "soak: {stalls} stalls, {} acked, {told}",
            writer.acked()
        ));
    }
    Ok(stalls)
}

/// Loses a share of all packets that arrive at the servers and the balancer.
fn lose(lab: &Lab) -> Result<()> {
    for node in SERVERS.into_iter().chain(["lb1"]) {
        let probability = format!("0.{LOSS_PERCENT:02}");
        let rule = [
            "iptables",
            "-w",
            "-A",
            "INPUT",
            "-p",
            "tcp",
            "-m",
            "statistic",
            "--mode",
            "random",
            "--probability",
            &probability,
            "-j",
            "DROP",
        ];
        ensure!(
            lab.succeeds(node, &rule),
            "the kernel cannot lose packets on {node}: iptables lacks `statistic`"
        );
    }
    Ok(())
}

fn find(lab: &Lab) -> Result<()> {
    SERVERS
        .into_iter()
        .chain(["lb1"])
        .try_for_each(|node| nemesis::find(lab, node))
}

impl fmt::Display for Soak {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "soak: {:.1} minutes with {} threads that starve, {} % loss, {} stalls: {} false failovers, {} role changes, \
             {} acked, {} missing, longest silence {:.0} ms",
            self.minutes,
            self.starving_threads,
            self.loss_percent,
            self.stalls,
            self.false_failovers,
            self.role_changes,
            self.acked,
            self.acked_but_missing,
            self.outage_ms.unwrap_or(0.0)
        )
    }
}

const WRITERS: u32 = 3;
/// Threads for each core.
const OVERSUBSCRIBED: usize = 5;
const LOSS_PERCENT: u32 = 5;
const BETWEEN_STALLS: Duration = Duration::from_secs(20);
const AFTERWARDS: Duration = Duration::from_secs(2);
const CATCH_UP: Duration = Duration::from_secs(60);
