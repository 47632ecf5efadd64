//! `cargo xtask bench proxy`: foobar, nginx and HAProxy side by side, each pinned to one core.

mod backend;
mod caller;
mod client;
mod load;
mod peers;
mod questions;
mod same_share;
mod serve;

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, thread};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::{
    backend::Path,
    load::Load,
    peers::{Behind, Bench, Peer},
};
use super::Output;

#[derive(Debug, Args)]
pub struct Options {
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Interleaved rounds of each case; median and best are shown.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections of the idle case.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Only cases whose name contains this; a latency case needs its rate case.
    #[arg(long)]
    only: Option<String>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the bench starts of itself as processes of their own.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Backend(backend::Options),
    #[command(hide = true)]
    Serve(serve::Options),
    #[command(hide = true)]
    Handshakes(client::Handshakes),
    #[command(hide = true)]
    Idle(client::Idle),
}

pub fn run(options: Options) -> Result<()> {
    match options.part {
        Some(Part::Backend(options)) => backend::run(&options),
        Some(Part::Serve(options)) => serve::run(&options),
        Some(Part::Handshakes(options)) => client::handshakes(&options),
        Some(Part::Idle(options)) => client::idle(&options),
        None => measure(&options),
    }
}

/// A case: what is asked, and through which peers.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    behind: Behind,
    measure: Measure,
}

#[derive(Clone, Copy, Debug)]
enum Measure {
    /// By a client that does not bound it.
    Rate(Path),
    /// Of 1 KB, by h2load.
    Http2Rate,
    /// At half of the slowest one's rate in the case of this name.
    P99(&'static str, Path),
    Handshakes {
        resumed: bool,
    },
    Idle,
}

const CASES: &[Case] = &[
    case(
        "h1-requests-per-s",
        Behind::Clear,
        Measure::Rate(Path::Small),
    ),
    case("h2-requests-per-s", Behind::Clear, Measure::Http2Rate),
    case(
        "h1-64k-requests-per-s",
        Behind::Clear,
        Measure::Rate(Path::Large),
    ),
    case(
        "full-handshakes-per-s",
        Behind::Clear,
        Measure::Handshakes { resumed: false },
    ),
    case(
        "resumed-handshakes-per-s",
        Behind::Clear,
        Measure::Handshakes { resumed: true },
    ),
    case(
        "h1-mtls-requests-per-s",
        Behind::MutualTls,
        Measure::Rate(Path::Small),
    ),
    case(
        "h1-64k-mtls-requests-per-s",
        Behind::MutualTls,
        Measure::Rate(Path::Large),
    ),
    case(
        "h1-p99-us",
        Behind::Clear,
        Measure::P99("h1-requests-per-s", Path::Small),
    ),
    case(
        "h1-64k-p99-us",
        Behind::Clear,
        Measure::P99("h1-64k-requests-per-s", Path::Large),
    ),
    case(
        "h1-mtls-p99-us",
        Behind::MutualTls,
        Measure::P99("h1-mtls-requests-per-s", Path::Small),
    ),
    case(
        "h1-64k-mtls-p99-us",
        Behind::MutualTls,
        Measure::P99("h1-64k-mtls-requests-per-s", Path::Large),
    ),
    case("idle-kb-per-connection", Behind::Clear, Measure::Idle),
];

const fn case(name: &'static str, behind: Behind, measure: Measure) -> Case {
    Case {
        name,
        behind,
        measure,
    }
}

/// What was measured of one case through one peer.
#[derive(Clone, Debug, Default)]
struct Row {
    values: Vec<f64>,
    /// Microseconds of the peer's core for each request or handshake.
    costs: Vec<f64>,
}

type Rows = BTreeMap<(usize, Peer), Row>;

fn measure(options: &Options) -> Result<()> {
    let cores = thread::available_parallelism()?.get();
    if cores < 2 {
        bail!("this bench needs two cores: one for the proxy, one for client and backend");
    }
    let directory = Directory::new()?;
    let mut bench = Bench::start(&directory.0, cores)?;
    eprintln!(
        "proxy on core 0; client and backend on {}",
        if cores == 2 {
            "core 1, together: where the proxy is fast, they are the bound; read the cost in us beside the rate".to_owned()
        } else {
            format!("cores 1 to {}", cores - 1)
        }
    );
    let wanted = |case: &&(usize, &Case)| {
        options
            .only
            .as_ref()
            .is_none_or(|only| case.1.name.contains(only.as_str()))
    };
    let all: Vec<_> = CASES.iter().enumerate().collect();
    let (late, early): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(wanted)
        .partition(|(_, case)| matches!(case.measure, Measure::P99(..)));
    let mut rows = Rows::new();
    for phase in [early, late] {
        for round in 0..options.rounds {
            for (index, case) in &phase {
                if matches!(case.measure, Measure::Idle) && round >= IDLE_ROUNDS {
                    continue;
                }
                // Each peer is the first as often as the others.
                for turn in 0..Peer::ALL.len() {
                    let peer = Peer::ALL[(turn + round) % Peer::ALL.len()];
                    let result = one(&mut bench, case, peer, options, &rows)
                        .with_context(|| format!("{} through {}", case.name, peer.name()))?;
                    let row = rows.entry((*index, peer)).or_default();
                    row.values.push(result.value);
                    row.costs.extend(result.cost);
                }
            }
            eprintln!("round {} of {}", round + 1, options.rounds);
        }
    }
    match options.output {
        Output::Table => print!("{}", table(&rows)),
        Output::Json => println!("{}", envelope(&rows, cores)),
    }
    Ok(())
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    value: f64,
    cost: Option<f64>,
}

fn one(
    bench: &mut Bench,
    case: &Case,
    peer: Peer,
    options: &Options,
    rows: &Rows,
) -> Result<Measured> {
    if matches!(case.measure, Measure::Idle) {
        // A process of its own: what others left behind is not to be counted.
        return Ok(Measured {
            value: bench.idle(peer, options.idle)?,
            cost: None,
        });
    }
    let target = bench.target(peer, case.behind)?;
    let load = Load {
        cores: bench.client_cores(),
        seconds: options.seconds,
        port: target.port,
    };
    let before = target.cpu_time()?;
    let (value, count) = match case.measure {
        Measure::Rate(path) => load.rate(bench, path)?,
        Measure::Http2Rate => load.http2_rate()?,
        Measure::Handshakes { resumed } => load.handshakes(resumed)?,
        Measure::P99(of, path) => {
            let rate = slowest(rows, of).with_context(|| format!("{of} was not measured"))? / 2.0;
            (load.p99(bench, path, rate)?, 0)
        }
        Measure::Idle => bail!("measured above"),
    };
    let spent = target.cpu_time()? - before;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let cost = (count > 0).then(|| spent.as_secs_f64() * 1e6 / count as f64);
    Ok(Measured { value, cost })
}

fn slowest(rows: &Rows, name: &str) -> Option<f64> {
    let of_case = rows
        .iter()
        .filter(|((index, _), _)| CASES[*index].name == name);
    of_case.map(|(_, row)| median(&row.values)).reduce(f64::min)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn is_better_when_less(name: &str) -> bool {
    name.ends_with("-us") || name.starts_with("idle")
}

fn best(name: &str, values: &[f64]) -> f64 {
    let pick = if is_better_when_less(name) {
        f64::min
    } else {
        f64::max
    };
    values.iter().copied().reduce(pick).unwrap_or(f64::NAN)
}

fn table(rows: &Rows) -> String {
    let mut text = format!(
        "{:<28} {:>22} {:>22} {:>22} {:>8}\n",
        "median (best) [us of core]", "foobar", "nginx", "haproxy", "ratio"
    );
    for (index, case) in CASES.iter().enumerate() {
        let of = |peer| rows.get(&(index, peer));
        if of(Peer::Foobar).is_none() {
            continue;
        }
        let _ = write!(text, "{:<28}", case.name);
        for peer in Peer::ALL {
            let cell = of(peer).map(|row| {
                let cost = if row.costs.is_empty() {
                    String::new()
                } else {
                    format!(" [{:.1}]", median(&row.costs))
                };
                format!(
                    "{:.1} ({:.1}){cost}",
                    median(&row.values),
                    best(case.name, &row.values)
                )
            });
            let _ = write!(text, " {:>22}", cell.unwrap_or_default());
        }
        if let Some(ratio) = ratio(rows, index, case.name) {
            let _ = write!(text, " {ratio:>7.2}x");
        }
        text.push('\n');
    }
    text
}

/// foobar against the better of the others; above 1 is better, also where less is.
fn ratio(rows: &Rows, index: usize, name: &str) -> Option<f64> {
    let of = |peer| Some(&rows.get(&(index, peer))?.values);
    let own = of(Peer::Foobar)?;
    let others = [of(Peer::Nginx)?, of(Peer::Haproxy)?];
    let ratios = others.map(|other| ratio_to(own, other, name));
    ratios.into_iter().reduce(f64::min)
}

/// The median of the rounds' own ratios: what changes the machine's speed from round to round is in both sides of each.
fn ratio_to(own: &[f64], other: &[f64], name: &str) -> f64 {
    let rounds = own.iter().zip(other);
    let ratios: Vec<_> = rounds
        .map(|(own, other)| match is_better_when_less(name) {
            true => other / own,
            false => own / other,
        })
        .collect();
    median(&ratios)
}

fn envelope(rows: &Rows, cores: usize) -> Value {
    let cases: Vec<_> = rows
        .iter()
        .map(|((index, peer), row)| {
            let name = CASES[*index].name;
            let mut case = json!({
                "name": name,
                "proxy": peer.name(),
                "value": median(&row.values),
                "unit": unit(name),
                "best": best(name, &row.values),
                "rounds": row.values.len(),
                "values": row.values,
            });
            if !row.costs.is_empty() {
                case["proxy-core-us"] = json!(median(&row.costs));
            }
            if *peer == Peer::Foobar {
                case["ratio-to-the-better"] = json!(ratio(rows, *index, name));
            }
            case
        })
        .collect();
    json!({
        "schema": "foobar/bench-proxy/v1",
        "cores": cores,
        "layout": if cores == 2 { "proxy on core 0, client and backend together on core 1" } else { "proxy on core 0, client and backend on the others" },
        "cases": cases,
    })
}

fn unit(name: &str) -> &'static str {
    if name.ends_with("-us") {
        "us"
    } else if name.starts_with("idle") {
        "KB"
    } else {
        "1/s"
    }
}

/// Certificates, configurations and logs of a run.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("foobar-bench-proxy-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Memory hardly varies.
const IDLE_ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_changes_its_speed_changes_no_ratio() {
        let row = |values: &[f64]| Row {
            values: values.to_vec(),
            costs: Vec::new(),
        };
        let rows = Rows::from([
            ((0, Peer::Foobar), row(&[300.0, 100.0, 200.0])),
            ((0, Peer::Nginx), row(&[150.0, 50.0, 100.0])),
            ((0, Peer::Haproxy), row(&[120.0, 40.0, 90.0])),
        ]);
        assert_eq!(ratio(&rows, 0, "h1-requests-per-s"), Some(2.0));
        assert_eq!(ratio(&rows, 0, "h1-p99-us"), Some(0.4));
        assert_eq!(ratio(&rows, 1, "h2-requests-per-s"), None);
    }
}
