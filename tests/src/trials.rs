//! `foobar-bench mysql`: trial after trial over all nemeses, and what they add up to.

use std::{env, fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde::Serialize;

use crate::{
    Lab, Options,
    databases::Databases,
    nemesis::{Arena, Nemesis, Trial},
};

/// `foobar/bench-mysql/v1`
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub trials: Vec<Trial>,
    /// Trials that did not come to their end, and why.
    pub broken: Vec<String>,
    pub acked: usize,
    pub acked_but_missing: usize,
    pub two_writer_instants: usize,
    pub false_failovers: usize,
}

/// Runs `count` trials, of `only` or of all nemeses in turn; a lab that a trial broke is made anew.
///
/// # Errors
/// When there can be no lab.
pub fn run(
    count: usize,
    only: &[Nemesis],
    idle: u32,
    progress: &mut dyn FnMut(&str),
) -> Result<Report> {
    let _lock = crate::lock()?;
    let foobar = PathBuf::from(env::var_os("FOOBAR_BIN").context("FOOBAR_BIN names the product")?);
    let options = Options {
        config: PathBuf::from("config/foobar.toml"),
        foobar: Some(foobar.clone()),
        databases: Databases::Mariadb,
    };
    let nemeses = if only.is_empty() {
        Nemesis::value_variants()
    } else {
        only
    };
    let mut report = Report::new();
    let mut lab = None;
    for (number, nemesis) in (1..=count).zip(nemeses.iter().cycle()) {
        let up = match lab.take() {
            Some(up) => up,
            None => Lab::up(&options, &mut |_| {})?,
        };
        let arena = Arena {
            lab: &up,
            writer: env::current_exe()?,
            idle,
        };
        match arena.trial(*nemesis) {
            Ok(trial) => {
                progress(&format!("{number}/{count} {}", line(&trial)));
                report.add(trial);
                lab = Some(up);
            }
            Err(error) => {
                progress(&format!("{number}/{count} {nemesis:?} broke: {error:#}"));
                report.broken.push(format!("{nemesis:?}: {error:#}"));
                Lab::down(Some(&foobar))?;
            }
        }
    }
    Lab::down(Some(&foobar))?;
    Ok(report)
}

impl Report {
    const fn new() -> Self {
        Self {
            schema: "foobar/bench-mysql/v1",
            trials: Vec::new(),
            broken: Vec::new(),
            acked: 0,
            acked_but_missing: 0,
            two_writer_instants: 0,
            false_failovers: 0,
        }
    }

    fn add(&mut self, trial: Trial) {
        self.acked += trial.acked;
        self.acked_but_missing += trial.acked_but_missing;
        self.two_writer_instants += trial.two_writer_instants;
        self.false_failovers += usize::from(trial.false_failover);
        self.trials.push(trial);
    }

    /// Medians by nemesis, and the totals.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:24} {:>7} {:>12} {:>12} {:>12}\n",
            "NEMESIS", "TRIALS", "DETECTED ms", "OUTAGE ms", "WORST ms"
        );
        for nemesis in Nemesis::value_variants() {
            let trials: Vec<_> = self
                .trials
                .iter()
                .filter(|trial| trial.nemesis == *nemesis)
                .collect();
            if trials.is_empty() {
                continue;
            }
            let sorted = |pick: fn(&Trial) -> Option<f64>| {
                let mut all: Vec<f64> = trials.iter().filter_map(|trial| pick(trial)).collect();
                all.sort_by(f64::total_cmp);
                all
            };
            let told =
                |value: Option<&f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
            let (detected, outages) = (
                sorted(|trial| trial.detection_ms),
                sorted(|trial| trial.outage_ms),
            );
            let _ = writeln!(
                text,
                "{:24} {:>7} {:>12} {:>12} {:>12}",
                format!("{nemesis:?}"),
                trials.len(),
                told(detected.get(detected.len() / 2)),
                told(outages.get(outages.len() / 2)),
                told(outages.last())
            );
        }
        let _ = writeln!(
            text,
            "acked {}, missing {}, two-writer instants {}, false failovers {}, broken trials {}",
            self.acked,
            self.acked_but_missing,
            self.two_writer_instants,
            self.false_failovers,
            self.broken.len()
        );
        text
    }
}

fn line(trial: &Trial) -> String {
    let millis =
        |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0} ms"));
    format!(
        "{:?}: detected {}, outage {}, reset {}, {} acked, {} missing, {} two-writer instants",
        trial.nemesis,
        millis(trial.detection_ms),
        millis(trial.outage_ms),
        millis(trial.reset_ms),
        trial.acked,
        trial.acked_but_missing,
        trial.two_writer_instants
    )
}
