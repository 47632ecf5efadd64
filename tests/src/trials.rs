//! `foobar-bench mysql`: trial after trial over all nemeses, switchovers, crowds and a soak, and what they add up to.

use std::{collections::BTreeMap, env, fmt::Write as _, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde::Serialize;

use crate::{
    Lab, Options,
    arena::{Arena, Crowd, Trial},
    databases::Databases,
    disks::{self, Disks},
    nemesis::Nemesis,
    quantiles::Quantiles,
    soak::{self, Soak},
};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Those in which roles are moved by foobar: MariaDB, or MySQL 9.7.
    pub databases: Databases,
    pub trials: usize,
    /// Only these, in turn; all where there are none.
    pub only: Vec<Nemesis>,
    /// Clients that wait for an answer in each trial.
    pub idle: u32,
    pub switchovers: usize,
    /// Trials in which a thousand clients lose a primary that hangs.
    pub crowds: usize,
    pub soak: Duration,
}

/// `foobar/bench-mysql/v1`
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub trials: Vec<Trial>,
    /// Trials that did not come to their end, and why.
    pub broken: Vec<String>,
    /// What this machine cannot do, and why.
    pub left_out: Vec<String>,
    pub acked: usize,
    pub acked_but_missing: usize,
    pub two_writer_instants: usize,
    pub false_failovers: usize,
    pub nemeses: BTreeMap<String, Summary>,
    /// How long after the decision each of a thousand clients was told.
    pub crowd_reset_ms: Quantiles,
    /// For how long each switchover let nobody write: by its own account, and as the writers saw it.
    pub switchover_readonly_ms: Quantiles,
    pub switchover_outage_ms: Quantiles,
    /// Checks of members that were well, in a lab at rest before the first trial.
    pub check_ms: Quantiles,
    /// The same before each trial, while what the one before it did to the servers dies away.
    pub check_between_trials_ms: Quantiles,
    pub soak: Option<Soak>,
}

/// Of one nemesis.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub trials: usize,
    pub detection_ms: Quantiles,
    pub outage_ms: Quantiles,
    pub reset_ms: Quantiles,
}

/// Carries out the plan; a lab that a trial broke is made anew.
///
/// # Errors
/// When there can be no lab.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let _lock = crate::lock()?;
    if let Some(why) = plan.databases.missing() {
        bail!("these databases cannot be had: {why}");
    }
    let mut bench = Bench::new(plan.databases, progress)?;
    bench.rest()?;
    let only = bench.possible(&plan.only);
    for (number, nemesis) in (1..=plan.trials).zip(only.iter().cycle()) {
        let crowd = Crowd {
            busy: BUSY,
            idle: plan.idle,
        };
        let trial = bench.trial(&format!("{number}/{}", plan.trials), *nemesis, crowd)?;
        bench.report.trials.extend(trial);
    }
    for number in 1..=plan.switchovers {
        let name = format!("switchover {number}/{}", plan.switchovers);
        let crowd = Crowd {
            busy: BUSY,
            idle: 0,
        };
        let trial = bench.trial(&name, Nemesis::Switchover, crowd)?;
        bench.report.trials.extend(trial);
    }
    let mut told = Vec::new();
    for number in 1..=plan.crowds {
        let name = format!("crowd {number}/{}", plan.crowds);
        let trial = bench.trial(&name, Nemesis::Freeze, THOUSAND)?;
        told.extend(trial.iter().flat_map(|trial| trial.resets.clone()));
        bench.report.trials.extend(trial);
    }
    bench.report.crowd_reset_ms = Quantiles::of(told);
    if plan.soak > Duration::ZERO {
        bench.soak(plan.soak)?;
    }
    bench.end()
}

struct Bench<'a> {
    options: Options,
    disks: Disks,
    lab: Option<Lab>,
    /// How often in a row there was none.
    without_lab: u32,
    report: Report,
    checks: Vec<f64>,
    progress: &'a mut dyn FnMut(&str),
}

impl<'a> Bench<'a> {
    fn new(databases: Databases, progress: &'a mut dyn FnMut(&str)) -> Result<Self> {
        let foobar =
            PathBuf::from(env::var_os("FOOBAR_BIN").context("FOOBAR_BIN names the product")?);
        let mut report = Report {
            schema: "foobar/bench-mysql/v1",
            ..Report::default()
        };
        let disks = match disks::missing() {
            None => Disks::Own,
            Some(why) => {
                report
                    .left_out
                    .push(format!("disks that freeze or are full: {why}"));
                Disks::Shared
            }
        };
        Ok(Self {
            options: Options {
                config: PathBuf::from("config/foobar.toml"),
                foobar: Some(foobar),
                databases,
            },
            disks,
            lab: None,
            without_lab: 0,
            report,
            checks: Vec::new(),
            progress,
        })
    }

    /// Of those that are wanted, those that this machine can do.
    fn possible(&self, wanted: &[Nemesis]) -> Vec<Nemesis> {
        let all = if wanted.is_empty() {
            Nemesis::value_variants()
        } else {
            wanted
        };
        all.iter()
            .copied()
            .filter(|nemesis| self.disks == Disks::Own || !nemesis.needs_disk())
            .collect()
    }

    fn lab(&mut self) -> Result<Lab> {
        match self.lab.take() {
            Some(lab) => Ok(lab),
            None => Lab::up_on(self.disks, &self.options, &mut |_| {}),
        }
    }

    /// One trial; none where it broke, and then there is no lab any more.
    fn trial(&mut self, name: &str, nemesis: Nemesis, crowd: Crowd) -> Result<Option<Trial>> {
        let lab = match self.lab() {
            Ok(lab) => lab,
            Err(error) if self.without_lab < MOST_WITHOUT_LAB => {
                self.without_lab += 1;
                (self.progress)(&format!("{name} no lab: {error:#}"));
                self.report.broken.push(format!("no lab: {error:#}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.without_lab = 0;
        self.checks.extend(checks(&lab, SAMPLES));
        let arena = Arena {
            lab: &lab,
            writer: env::current_exe()?,
            crowd,
        };
        match arena.trial(nemesis) {
            Ok(trial) => {
                (self.progress)(&format!("{name} {}", line(&trial)));
                self.lab = Some(lab);
                Ok(Some(trial))
            }
            Err(error) => {
                (self.progress)(&format!("{name} {nemesis:?} broke: {error:#}"));
                self.report.broken.push(format!("{nemesis:?}: {error:#}"));
                // The next one tries again to take it down, and says what keeps it from that.
                let _ = Lab::down(self.options.foobar.as_deref());
                Ok(None)
            }
        }
    }

    fn rest(&mut self) -> Result<()> {
        let lab = self.lab()?;
        thread::sleep(SETTLE);
        self.report.check_ms = Quantiles::of(checks(&lab, RESTING_SAMPLES));
        self.lab = Some(lab);
        Ok(())
    }

    fn soak(&mut self, length: Duration) -> Result<()> {
        let lab = self.lab()?;
        let soaked = soak::run(&lab, length, self.progress);
        self.report.soak = match soaked {
            Ok(soak) => Some(soak),
            Err(error) => {
                self.report.broken.push(format!("soak: {error:#}"));
                None
            }
        };
        self.lab = Some(lab);
        Ok(())
    }

    fn end(mut self) -> Result<Report> {
        if self.lab.take().is_some() {
            Lab::down(self.options.foobar.as_deref())?;
        }
        self.report.check_between_trials_ms = Quantiles::of(self.checks);
        self.report.add_up();
        Ok(self.report)
    }
}

/// What the checks of members that are well took, one look after the other.
fn checks(lab: &Lab, looks: u32) -> Vec<f64> {
    let look = |_| {
        thread::sleep(SAMPLE);
        lab.cluster().map(|cluster| cluster.members)
    };
    (0..looks)
        .filter_map(look)
        .flatten()
        .filter(|member| member.state == "up")
        .filter_map(|member| member.check_milliseconds)
        .collect()
}

impl Report {
    fn add_up(&mut self) {
        for trial in &self.trials {
            self.acked += trial.acked;
            self.acked_but_missing += trial.acked_but_missing;
            self.two_writer_instants += trial.two_writer_instants;
            self.false_failovers += usize::from(trial.false_failover);
        }
        if let Some(soak) = &self.soak {
            self.acked += soak.acked;
            self.acked_but_missing += soak.acked_but_missing;
            self.two_writer_instants += soak.two_writer_instants;
            self.false_failovers += usize::try_from(soak.false_failovers).unwrap_or(usize::MAX);
        }
        let switchovers = |value: fn(&Trial) -> Option<f64>| {
            let all = self.of(Nemesis::Switchover);
            Quantiles::of(all.into_iter().filter_map(value))
        };
        let readonly = switchovers(|trial| trial.readonly_ms);
        let outage = switchovers(|trial| trial.outage_ms);
        self.switchover_readonly_ms = readonly;
        self.switchover_outage_ms = outage;
        self.nemeses = Nemesis::value_variants()
            .iter()
            .map(|nemesis| (name(*nemesis), Summary::of(&self.of(*nemesis))))
            .filter(|(_, summary)| summary.trials > 0)
            .collect();
    }

    fn of(&self, nemesis: Nemesis) -> Vec<&Trial> {
        self.trials
            .iter()
            .filter(|trial| trial.nemesis == nemesis)
            .collect()
    }

    /// Fails where the contract does not hold.
    ///
    /// # Errors
    /// What does not.
    pub fn verdict(&self) -> Result<()> {
        let bad = self.acked_but_missing + self.two_writer_instants + self.false_failovers;
        if bad + self.broken.len() > 0 {
            bail!("the contract does not hold: {}", self.totals());
        }
        Ok(())
    }

    /// Quantiles by nemesis, and the totals.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:26} {:>6} {:>20} {:>20} {:>20}\n{:26} {:>6}",
            "NEMESIS", "TRIALS", "DETECTED ms", "OUTAGE ms", "TOLD AFTER CUT ms", "", ""
        );
        for _ in 0..3 {
            let _ = write!(text, " {:>20}", "p50 / p99");
        }
        text.push('\n');
        for (name, summary) in &self.nemeses {
            let _ = writeln!(
                text,
                "{name:26} {:>6} {:>20} {:>20} {:>20}",
                summary.trials,
                told(&summary.detection_ms),
                told(&summary.outage_ms),
                told(&summary.reset_ms)
            );
        }
        for (name, quantiles) in [
            ("a thousand clients told", &self.crowd_reset_ms),
            ("switchover, read-only", &self.switchover_readonly_ms),
            ("switchover, as seen", &self.switchover_outage_ms),
            ("checks at rest", &self.check_ms),
            ("checks between trials", &self.check_between_trials_ms),
        ] {
            if let (Some(p50), Some(p99), Some(max)) = (quantiles.p50, quantiles.p99, quantiles.max)
            {
                let _ = writeln!(
                    text,
                    "{name}: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms of {}",
                    quantiles.count
                );
            }
        }
        for why in &self.left_out {
            let _ = writeln!(text, "left out: {why}");
        }
        if let Some(soak) = &self.soak {
            let _ = writeln!(text, "{soak}");
        }
        let _ = writeln!(text, "{}", self.totals());
        text
    }

    fn totals(&self) -> String {
        format!(
            "acked {}, missing {}, two-writer instants {}, false failovers {}, broken trials {}",
            self.acked,
            self.acked_but_missing,
            self.two_writer_instants,
            self.false_failovers,
            self.broken.len()
        )
    }
}

impl Summary {
    fn of(trials: &[&Trial]) -> Self {
        let pick = |value: fn(&Trial) -> Option<f64>| {
            Quantiles::of(trials.iter().filter_map(|trial| value(trial)))
        };
        Self {
            trials: trials.len(),
            detection_ms: pick(|trial| trial.detection_ms),
            outage_ms: pick(|trial| trial.outage_ms),
            reset_ms: pick(|trial| trial.reset_ms),
        }
    }
}

fn name(nemesis: Nemesis) -> String {
    nemesis
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn told(quantiles: &Quantiles) -> String {
    match (quantiles.p50, quantiles.p99) {
        (Some(p50), Some(p99)) => format!("{p50:.0} / {p99:.0}"),
        _ => "-".to_owned(),
    }
}

fn line(trial: &Trial) -> String {
    let millis =
        |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0} ms"));
    format!(
        "{:?}: detected {}, outage {}, told {}, read-only {}, {} acked, {} missing, {} two-writer instants{}",
        trial.nemesis,
        millis(trial.detection_ms),
        millis(trial.outage_ms),
        millis(trial.reset_ms),
        millis(trial.readonly_ms),
        trial.acked,
        trial.acked_but_missing,
        trial.two_writer_instants,
        if trial.false_failover {
            ", FALSE FAILOVER"
        } else {
            ""
        }
    )
}

const BUSY: u32 = 3;
const MOST_WITHOUT_LAB: u32 = 3;
const THOUSAND: Crowd = Crowd {
    busy: 100,
    idle: 900,
};
/// Looks at the checks before each trial.
const SAMPLES: u32 = 4;
/// Six hundred checks of three members.
const RESTING_SAMPLES: u32 = 200;
/// After the lab's start.
const SETTLE: Duration = Duration::from_secs(3);
const SAMPLE: Duration = Duration::from_millis(210);
