//! `cargo xtask bench monitor`: what looking at a large node costs: 10,000 rules, 100 backends. Needs root.

mod target;

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};

use self::target::Webhook;

#[derive(Debug, Parser)]
#[command(
    name = "foobar-bench-monitor",
    about = "Measures what monitoring costs"
)]
struct Arguments {
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Minimum and median are shown.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Seconds over which the controller's own use of the processor is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("foobar-bench-monitor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was measured, and what it must not exceed.
struct Row {
    what: &'static str,
    unit: &'static str,
    least: f64,
    median: f64,
    bar: f64,
}

fn run(arguments: &Arguments) -> Result<bool> {
    let node = Node::start()?;
    let rows = vec![
        node.time("stats", arguments.rounds, 30.0, |node| {
            node.foobar(&["-o", "json", "stats"])
        })?,
        node.time(
            "stats --from-maps",
            arguments.rounds,
            f64::INFINITY,
            |node| node.foobar(&["-o", "json", "stats", "--from-maps"]),
        )?,
        node.time("scrape", arguments.rounds, 50.0, |node| {
            node.scrape().map(drop)
        })?,
        node.scrape_size()?,
        node.time("foobar --help", arguments.rounds, 10.0, |node| {
            node.foobar(&["--help"])
        })?,
        node.own_use(Duration::from_secs(arguments.seconds))?,
        // Last: a backend that is checked ten times a second would be in the use of the processor.
        node.alert(arguments.rounds)?,
    ];
    let good = rows.iter().all(|row| row.median <= row.bar);
    match arguments.output {
        Output::Table => print!("{}", table(&rows)),
        Output::Json => println!("{}", json(&rows)),
    }
    Ok(good)
}

/// A controller on a veth pair of its own, in the namespace that this process was started in.
struct Node {
    files: PathBuf,
    foobar: PathBuf,
    controller: Child,
    webhook: Webhook,
}

impl Node {
    fn start() -> Result<Self> {
        let foobar = std::env::var_os("FOOBAR_BIN")
            .map(PathBuf::from)
            .context("FOOBAR_BIN names the product; run `cargo xtask bench monitor`")?;
        let files = std::env::temp_dir().join(format!("foobar-bench-{}", std::process::id()));
        fs::create_dir_all(&files)?;
        let webhook = Webhook::open()?;
        fs::write(files.join("webhook-url"), webhook.url())?;
        fs::write(files.join("foobar.toml"), config(&files, ""))?;
        let _ = command("ip", &["link", "del", DEVICE]);
        command(
            "ip",
            &[
                "link", "add", DEVICE, "type", "veth", "peer", "name", "fbm1",
            ],
        )?;
        command("ip", &["addr", "add", "192.0.2.1/24", "dev", DEVICE])?;
        command("ip", &["addr", "replace", WATCHED, "dev", "lo"])?;
        for device in [DEVICE, "fbm1"] {
            command("ip", &["link", "set", device, "up"])?;
        }
        let log = fs::File::create(files.join("log"))?;
        let controller = Command::new(&foobar)
            .args(["run", "--node", NODE, "-c"])
            .arg(files.join("foobar.toml"))
            .env("FOOBAR_STATE", files.join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let node = Self {
            files,
            foobar,
            controller,
            webhook,
        };
        let begun = Instant::now();
        while node.foobar(&["-o", "json", "stats"]).is_err() || node.scrape().is_err() {
            if begun.elapsed() > Duration::from_secs(60) {
                let log = fs::read_to_string(node.files.join("log")).unwrap_or_default();
                bail!("the controller does not come up: {log}");
            }
            thread::sleep(Duration::from_millis(200));
        }
        // Two samples, so that there are rates.
        thread::sleep(Duration::from_secs(3));
        Ok(node)
    }

    fn foobar(&self, arguments: &[&str]) -> Result<()> {
        let socket = self.files.join("admin.sock");
        let output = Command::new(&self.foobar)
            .args(["--node", NODE, "--socket"])
            .arg(socket)
            .args(arguments)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        ensure!(output.success(), "foobar {arguments:?} failed");
        Ok(())
    }

    fn scrape(&self) -> Result<u64> {
        let output = Command::new("curl")
            .args(["-fsS", "-o", "/dev/null", "-w", "%{size_download}"])
            .arg("http://192.0.2.1:9191/metrics")
            .output()?;
        ensure!(output.status.success(), "no scrape");
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    fn time(
        &self,
        what: &'static str,
        rounds: usize,
        bar: f64,
        act: impl Fn(&Self) -> Result<()>,
    ) -> Result<Row> {
        let mut took = Vec::new();
        for _ in 0..rounds.max(9) {
            // Longer than a snapshot is shared.
            thread::sleep(Duration::from_millis(300));
            let begun = Instant::now();
            act(self)?;
            took.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        took.sort_by(f64::total_cmp);
        Ok(Row {
            what,
            unit: "ms",
            least: took[0],
            median: took[took.len() / 2],
            bar,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "megabytes to a decimal")]
    fn scrape_size(&self) -> Result<Row> {
        let megabytes = self.scrape()? as f64 / 1e6;
        Ok(Row {
            what: "scrape",
            unit: "MB",
            least: megabytes,
            median: megabytes,
            bar: 5.0,
        })
    }

    /// Of one core, by a controller that nobody asks anything.
    #[expect(clippy::cast_precision_loss, reason = "ticks of seconds")]
    fn own_use(&self, over: Duration) -> Result<Row> {
        let before = self.ticks()?;
        thread::sleep(over);
        let used = (self.ticks()? - before) as f64 / TICKS_PER_SECOND;
        let percent = used / over.as_secs_f64() * 100.0;
        Ok(Row {
            what: "a snapshot each second",
            unit: "% of a core",
            least: percent,
            median: percent,
            bar: 1.0,
        })
    }

    /// From the moment at which a checked backend stops listening to the notice at a webhook, checks of 100 ms included.
    fn alert(&self, rounds: usize) -> Result<Row> {
        fs::write(
            self.files.join("foobar.toml"),
            config(&self.files, &watched()),
        )?;
        self.foobar(&["reload"])?;
        self.webhook.wait("firing")?;
        let mut took = Vec::new();
        for _ in 0..rounds.max(9) {
            let backend = TcpListener::bind((WATCHED, 80))?;
            self.webhook.wait("resolved")?;
            let begun = Instant::now();
            drop(backend);
            self.webhook.wait("firing")?;
            took.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        took.sort_by(f64::total_cmp);
        Ok(Row {
            what: "alert, to the webhook",
            unit: "ms",
            least: took[0],
            median: took[took.len() / 2],
            bar: 2_000.0,
        })
    }

    fn ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.controller.id()))?;
        let (_, rest) = stat.rsplit_once(") ").context("a line of /proc/PID/stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let field =
            |number: usize| -> Result<u64> { Ok(fields.get(number).context("a field")?.parse()?) };
        Ok(field(11)? + field(12)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.controller.kill();
        let _ = self.controller.wait();
        let _ = Command::new(&self.foobar)
            .args(["detach", "--all", "--node", NODE])
            .output();
        let _ = command("ip", &["link", "del", DEVICE]);
        let _ = command("ip", &["addr", "del", WATCHED, "dev", "lo"]);
        let _ = fs::remove_dir_all(&self.files);
    }
}

/// A backend whose loss is an alert.
fn watched() -> String {
    format!(
        "[l4.watched]\non = \"{NODE}\"\nvip = [\"public:8081\"]\nbackends = [{{ host = \"watched\", port = 80 }}]\n\
         check = {{ tcp = true, every = \"100ms\", timeout = \"100ms\", rise = 1, fall = 1 }}\n\
         [[alert]]\nname = \"lost\"\nmetric = \"backends-down\"\nof = \"l4.watched\"\nabove = 0\nnotify = \"ops\"\n"
    )
}

/// A hundred backends are looked at, not checked: connections to all of them are no part of a snapshot.
fn config(files: &Path, more: &str) -> String {
    let mut rules = String::new();
    for number in 0..RULES {
        let (high, low) = (number / 256, number % 256);
        let _ = writeln!(
            rules,
            "  {{ name = \"rule-{number}\", drop = \"tcp/80\", from = \"198.18.{high}.{low}\" }},"
        );
    }
    let hosts: String = (0..BACKENDS)
        .map(|number| {
            format!(
                "web{number} = {{ private = \"192.0.2.{}\" }}\n",
                number + 10
            )
        })
        .collect();
    let backends: Vec<String> = (0..BACKENDS)
        .map(|number| format!("{{ host = \"web{number}\", port = 80 }}"))
        .collect();
    format!(
        "version = 1\n[hosts]\n{NODE} = {{ public = \"192.0.2.1\" }}\nwatched = {{ private = \"{WATCHED}\" }}\n{hosts}[nodes]\n{NODE} = {{ wan = {{ dev = \"{DEVICE}\", ingress = \"edge\" }} }}\n\
         [firewall]\nedge = {{ policy = \"allow\", rules = [\n{rules}] }}\n\
         [l4.plain]\non = \"{NODE}\"\nvip = [\"public:8080\"]\nbackends = [{1}]\ncheck = {{ tcp = true, every = \"1m\" }}\n\
         {more}[notify]\nops = {{ webhook = {{ file = \"{0}/webhook-url\" }} }}\n\
         [monitor]\nprometheus = {{ listen = \"public:9191\" }}\n[admin]\nsocket = \"{0}/admin.sock\"\n",
        files.display(),
        backends.join(", "),
    )
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{RULES} rules, {BACKENDS} backends\n{:26} {:>9} {:>9} {:>9}  unit\n",
        "", "minimum", "median", "bar"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:26} {:>9.2} {:>9.2} {:>9}  {}",
            row.what,
            row.least,
            row.median,
            if row.bar.is_finite() {
                row.bar.to_string()
            } else {
                "-".to_owned()
            },
            row.unit
        );
    }
    text
}

fn json(rows: &[Row]) -> serde_json::Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "what": row.what,
                "unit": row.unit,
                "minimum": row.least,
                "median": row.median,
                "bar": row.bar.is_finite().then_some(row.bar),
            })
        })
        .collect();
    serde_json::json!({
        "schema": "foobar/bench-monitor/v1",
        "rules": RULES,
        "backends": BACKENDS,
        "rows": rows,
    })
}

const NODE: &str = "bench1";
const DEVICE: &str = "fbm0";
/// Of the backend that comes and goes.
const WATCHED: &str = "192.0.2.2";
const RULES: u32 = 10_000;
const BACKENDS: u32 = 100;
/// `getconf CLK_TCK` on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;
