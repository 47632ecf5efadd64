//! The monitoring of the whole estate, against the real programs that operators use. Needs root.

#[path = "monitor/browser.rs"]
mod browser;
#[path = "monitor/collectors.rs"]
mod collectors;
#[path = "monitor/punctual.rs"]
mod punctual;

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use foobar_lab::{Lab, Options, databases::Databases, in_namespace, patience::within};
use serde_json::Value;

use self::{
    browser::Browser,
    collectors::{Collector, Reply},
    punctual::Hindrance,
};

const SERVICE: &str = "http://203.0.113.10:8080";
const CONTROLLER_LOG: &str = "/run/foobar-lab/processes/foobar-lb1.log";
/// Seconds after which nothing will come any more, even on a slow and busy machine.
const PATIENCE: u64 = 120;

/// The lab with more in its configuration; taken down at the end of a test however it ends.
struct Estate {
    lab: Lab,
    foobar: PathBuf,
    files: tempfile::TempDir,
    children: Vec<Child>,
    _lock: fs::File,
}

impl Estate {
    /// `DIRECTORY` in `more` becomes the test's own directory.
    fn up(more: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::up_with(Databases::None, more, prepare)
    }

    /// A real one, which `http://127.0.0.1:9093` leads to on the balancer.
    fn start_alertmanager(&mut self) {
        fs::write(
            self.files.path().join("alertmanager.yml"),
            "route: {receiver: none, group_wait: 1s}\nreceivers: [{name: none}]\n",
        )
        .expect("written");
        self.start(
            "lb1",
            "prometheus-alertmanager",
            &[
                "--config.file=alertmanager.yml",
                "--storage.path=alertmanager",
                "--web.listen-address=127.0.0.1:9093",
                "--cluster.listen-address=",
            ],
        );
        within(PATIENCE, "the Alertmanager answers", || {
            let status = self.json("http://127.0.0.1:9093/api/v2/status");
            status["uptime"].is_string().then_some(())
        });
    }

    fn up_with(databases: Databases, more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let lock = foobar_lab::lock().expect("the lab is free");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let foobar = env::var_os("FOOBAR_BIN")
            .map(PathBuf::from)
            .expect("FOOBAR_BIN names the product; run `cargo xtask test`");
        let files = tempfile::tempdir().expect("a directory");
        prepare(files.path());
        let example = fs::read_to_string(root.join("config/foobar.toml")).expect("the example");
        let more = more.replace("DIRECTORY", &files.path().to_string_lossy());
        let config = files.path().join("foobar.toml");
        // The example's own alerts and logs would only be in the way.
        let (before, after) = example.split_once("# Metrics to be").expect("monitoring");
        let (_, admin) = after.split_once("\n# The socket").expect("administration");
        fs::write(&config, format!("{before}{more}\n# The socket{admin}")).expect("written");
        let options = Options {
            config,
            foobar: Some(foobar.clone()),
            databases,
        };
        let lab = Lab::up(&options, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            lab,
            foobar,
            files,
            children: Vec::new(),
            _lock: lock,
        }
    }

    fn requests(&self, count: u32) {
        for _ in 0..count {
            let url = format!("{SERVICE}/healthz");
            assert!(
                self.lab.succeeds("client", &["curl", "-fsS", "-m30", &url]),
                "every request is answered"
            );
        }
    }

    /// Connections at some rate until it is dropped.
    fn load(&self) -> Load {
        let mut command = in_namespace("client", "sh");
        command
            .arg("-c")
            .arg(format!(
                "while :; do curl -s -m2 -o /dev/null {SERVICE}/healthz; sleep 0.02; done"
            ))
            .process_group(0);
        Load(command.spawn().expect("sh"))
    }

    fn start(&mut self, namespace: &str, program: &str, arguments: &[&str]) {
        let log = fs::File::create(self.files.path().join(format!(
            "{}.log",
            Path::new(program).file_name().expect("a name").to_string_lossy()
        )))
        .expect("a log");
        let child = in_namespace(namespace, program)
            .args(arguments)
            .current_dir(self.files.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        self.children.push(child);
    }

    fn get(&self, url: &str) -> String {
        let output = self
            .lab
            .run("lb1", &["curl", "-gsS", "-m30", url])
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn json(&self, url: &str) -> Value {
        serde_json::from_str(&self.get(url)).unwrap_or(Value::Null)
    }

    fn foobar(&self, arguments: &[&str]) -> String {
        let foobar = self.foobar.to_str().expect("UTF-8");
        let config = Lab::config_path();
        let config = config.to_str().expect("UTF-8");
        let command = [&[foobar, "-c", config, "--node", "lb1"], arguments].concat();
        let output = self.lab.run("lb1", &command).expect("foobar");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn stats(&self, arguments: &[&str]) -> Value {
        let text = self.foobar(&[&["-o", "json", "stats"], arguments].concat());
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = Lab::down(Some(&self.foobar)) {
            eprintln!("{error:#}");
        }
    }
}

struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.0.wait();
    }
}

/// The value of one series of an exposition.
fn series(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    text.lines()
        .filter(|line| {
            line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
        })
        .find(|line| labels.iter().all(|label| line.contains(label)))
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

const MONITORED: &str = r#"
[monitor]
prometheus = { listen = "private:9101" }
"#;

#[test]
fn maps_socket_and_scrape_say_the_same() {
    let estate = Estate::up(MONITORED, |_| {});
    estate.requests(20);
    let connections = |stats: &Value| {
        let services = stats["services"].as_array()?;
        services
            .iter()
            .find(|service| service["vip"] == "203.0.113.10:8080")?["connections"]
            .as_u64()
    };
    // The checks of health go on meanwhile, but they do not go through the vip.
    let maps = connections(&estate.stats(&["--from-maps"]));
    assert!(maps >= Some(20), "{maps:?}");
    within(PATIENCE, "the socket says what the maps hold", || {
        (connections(&estate.stats(&[])) == maps).then_some(())
    });
    let text = within(PATIENCE, "a scrape says what the maps hold", || {
        let text = estate.get("http://10.0.0.10:9101/metrics");
        let scraped = series(
            &text,
            "foobar_service_connections_total",
            &["l4.plain", "vip=\"203.0.113.10:8080\""],
        );
        (scraped == maps.map(|count| count as f64)).then_some(text)
    });
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(estate.get("http://10.0.0.10:9101/healthz"), "ok\n");
    assert_eq!(estate.get("http://10.0.0.10:9101/readyz"), "ready\n");
    assert!(
        estate
            .get("http://10.0.0.11:9101/metrics")
            .contains("foobar_rule_packets_total{policy=\"server\""),
        "every node shows its own"
    );
    // promtool reads the classic format: there a counter's help stands under its full name.
    lint(&text);
}

fn lint(text: &str) {
    let classic: String = text
        .lines()
        .filter(|line| !line.starts_with("# UNIT") && !line.starts_with("# EOF"))
        .scan(BTreeSet::new(), |counters, line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            Some(match words.as_slice() {
                ["#", "HELP", name, help] if text.contains(&format!("# TYPE {name} counter\n")) => {
                    counters.insert((*name).to_owned());
                    format!("# HELP {name}_total {help}\n")
                }
                ["#", "TYPE", name, "counter"] if counters.contains(*name) => {
                    format!("# TYPE {name}_total counter\n")
                }
                _ => format!("{line}\n"),
            })
        })
        .collect();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    std::io::Write::write_all(
        &mut promtool.stdin.take().expect("piped"),
        classic.as_bytes(),
    )
    .expect("read");
    let output = promtool.wait_with_output().expect("an end");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
}

#[test]
fn every_query_of_the_dashboard_and_of_the_rules_finds_something() {
    let mut estate = Estate::up_with(Databases::default(), MONITORED, |directory| {
        let nodes: Vec<String> = (10..=13)
            .map(|last| format!("'10.0.0.{last}:9101'"))
            .collect();
        fs::write(
            directory.join("prometheus.yml"),
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n- job_name: foobar\n  static_configs:\n  - targets: [{}]\n",
                shipped("prometheus/foobar-alerts.yml").display(),
                nodes.join(",")
            ),
        )
        .expect("written");
    });
    estate.start(
        "lb1",
        "prometheus",
        &[
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=prometheus",
            "--web.listen-address=127.0.0.1:9090",
        ],
    );
    let _load = estate.load();
    within(PATIENCE, "all four nodes are scraped", || {
        let targets = estate.json("http://127.0.0.1:9090/api/v1/query?query=sum(up)");
        (targets["data"]["result"][0]["value"][1] == "4").then_some(())
    });
    let text = fs::read_to_string(shipped("grafana/foobar.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    assert!(queries.len() >= 32, "{}", queries.len());
    // A rate needs two scrapes, which a busy machine makes late.
    within(PATIENCE, "every query finds something", || {
        queries.retain(|query| {
            let query = query
                .replace("$__rate_interval", "10s")
                .replace("$node", ".*")
                .replace("$service", ".*");
            let answer = evaluate(&estate, &query);
            let finds = answer["data"]["result"]
                .as_array()
                .is_some_and(|series| !series.is_empty());
            if !finds {
                println!("nothing yet: {query}: {answer}");
            }
            !finds
        });
        queries.is_empty().then_some(())
    });
    let rules = estate.json("http://127.0.0.1:9090/api/v1/rules");
    let groups = rules["data"]["groups"].as_array().expect("groups");
    let health: Vec<&Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
        .collect();
    assert!(health.len() >= 10);
    assert!(health.iter().all(|rule| rule["health"] == "ok"), "{rules}");
}

fn evaluate(estate: &Estate, query: &str) -> Value {
    let output = estate
        .lab
        .run(
            "lb1",
            &[
                "curl",
                "-gsS",
                "-m30",
                "http://127.0.0.1:9090/api/v1/query",
                "--data-urlencode",
                &format!("query={query}"),
            ],
        )
        .expect("curl");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config")
        .join(path)
}

#[test]
fn the_alert_rules_do_what_their_tests_say() {
    let run = |arguments: &[&str]| {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(shipped("prometheus"))
            .output()
            .expect("promtool");
        assert!(
            output.status.success(),
            "{arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(&["check", "rules", "foobar-alerts.yml"]);
    run(&["test", "rules", "foobar-alerts-test.yml"]);
}

const ALERTS: &str = r#"
[[alert]]
name = "down"
metric = "backends-down"
of = "l4.plain"
above = 0
severity = "critical"
notify = ["ops", "prom", "page"]
[[alert]]
name = "busy"
metric = "qps"
of = "l4.plain"
above = 2
clear-below = 1
notify = "ops"
[notify]
ops = { webhook = { file = "DIRECTORY/webhook-url" } }
prom = { alertmanager = "http://127.0.0.1:9093" }
page = { command = ["/bin/sh", "-c", "cat >> DIRECTORY/paged"] }
[log]
audit = { to = "DIRECTORY/audit.log" }
"#;

#[test]
fn alerts_reach_webhook_alertmanager_and_program_and_end_by_themselves() {
    let webhook = Collector::in_namespace("lb1", "127.0.0.1:9999", |_| Reply::status(200));
    let mut estate = Estate::up(ALERTS, |directory| {
        fs::write(
            directory.join("webhook-url"),
            "http://127.0.0.1:9999/s3cret\n",
        )
        .expect("written");
    });
    webhook.open();
    estate.start_alertmanager();
    let told = |alert: &str, status: &str| {
        webhook
            .bodies()
            .iter()
            .any(|body| {
                let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
                body["status"] == status && body["commonLabels"]["alertname"] == alert
            })
            .then_some(())
    };
    let at_alertmanager = || {
        let alerts = estate.json("http://127.0.0.1:9093/api/v2/alerts?active=true");
        alerts
            .as_array()
            .into_iter()
            .flatten()
            .any(|alert| alert["labels"]["alertname"] == "down")
    };

    let answer = estate.foobar(&["alert", "test", "down"]);
    assert!(answer.contains("told journal, ops, page, prom"), "{answer}");
    within(PATIENCE, "the rehearsal is told", || {
        told("down", "resolved")
    });

    estate.lab.stop_web("web2").expect("stopped");
    within(PATIENCE, "the alert fires", || {
        let alerts = estate.stats(&[])["alerts"].clone();
        alerts
            .as_array()?
            .iter()
            .any(|alert| alert["name"] == "down" && alert["state"] == "firing")
            .then_some(())
    });
    within(PATIENCE, "the webhook is told", || told("down", "firing"));
    within(PATIENCE, "the Alertmanager has it", || {
        at_alertmanager().then_some(())
    });
    within(PATIENCE, "the program was run", || {
        let paged = fs::read_to_string(estate.files.path().join("paged")).ok()?;
        paged.contains("\"alertname\":\"down\"").then_some(())
    });

    estate.lab.start_web("web2").expect("started");
    within(PATIENCE, "the end is told", || {
        let ends = webhook
            .bodies()
            .iter()
            .filter(|body| {
                let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
                body["status"] == "resolved" && body["commonLabels"]["alertname"] == "down"
            })
            .count();
        (ends >= 2).then_some(())
    });
    within(PATIENCE, "the Alertmanager heard of the end", || {
        (!at_alertmanager()).then_some(())
    });

    let load = estate.load();
    within(PATIENCE, "many queries fire", || told("busy", "firing"));
    drop(load);
    within(PATIENCE, "few queries end it", || told("busy", "resolved"));

    let audit = fs::read_to_string(estate.files.path().join("audit.log")).expect("an audit log");
    assert!(
        audit.contains("\"user\":\"root\"") && audit.contains("\"request\":\"alert-test\""),
        "{audit}"
    );
    let log = fs::read_to_string(CONTROLLER_LOG).expect("the controller's log");
    assert!(!log.contains("s3cret"), "a URL is a secret");
}

const PUSHED: &str = r#"
[monitor]
otlp = { endpoint = { file = "DIRECTORY/otlp-url" }, interval = "1s", signals = ["metrics", "logs"] }
sumologic = { url = { file = "DIRECTORY/sumo-url" }, category = "test/foobar", interval = "1s", signals = ["metrics", "logs"] }
labels = { environment = "test" }
[[alert]]
name = "any"
metric = "drops"
above = "1000k/s"
"#;

#[test]
fn sumo_logic_gets_what_it_can_read_and_an_outage_loses_nothing() {
    let sumo = Collector::in_namespace("lb1", "127.0.0.1:9998", collectors::sumo_logic());
    let estate = Estate::up(PUSHED, |directory| {
        fs::write(directory.join("otlp-url"), "http://127.0.0.1:1/otlp").expect("written");
        fs::write(
            directory.join("sumo-url"),
            "http://127.0.0.1:9998/receiver/v1/http/s3cret",
        )
        .expect("written");
    });
    let hindrance = Hindrance::watch();
    // Somebody who never answers, and then nobody: what goes on is gathered meanwhile.
    let silent = collectors::within_namespace("lb1", || {
        TcpListener::bind("127.0.0.1:9998").expect("bound")
    });
    let exports = |signal: &str| {
        let stats = estate.stats(&[]);
        let lines = stats["exports"].as_array().cloned().unwrap_or_default();
        lines
            .into_iter()
            .find(|line| line["exporter"] == "sumologic" && line["signal"] == signal)
    };
    within(PATIENCE, "an answer was waited for in vain", || {
        exports("metrics").filter(|line| {
            let trouble = line["trouble"].as_str().unwrap_or_default();
            trouble.contains("no answer within")
        })
    });
    drop(silent);
    let waiting = within(PATIENCE, "batches wait", || {
        exports("metrics").filter(|line| line["waiting"].as_u64() >= Some(5))
    });
    assert!(waiting["trouble"].is_string(), "{waiting}");
    estate.foobar(&["alert", "test", "any"]);
    sumo.open();
    within(PATIENCE, "all that waited is taken", || {
        let line = exports("metrics")?;
        (line["waiting"] == 0 && line["sent"].as_u64() >= Some(5)).then_some(())
    });
    let line = exports("metrics").expect("there");
    assert_eq!(line["dropped"], 0, "{line}");
    assert!(line["failures"].as_u64() >= Some(1), "{line}");
    within(PATIENCE, "the log lines arrive", || {
        sumo.requests()
            .iter()
            .any(|request| {
                request.kind.starts_with("text/plain")
                    && String::from_utf8_lossy(&request.text).contains("\"alertname\":\"any\"")
            })
            .then_some(())
    });
    let requests = sumo.requests();
    let metrics: Vec<_> = requests
        .iter()
        .filter(|request| request.kind == "application/vnd.sumologic.prometheus")
        .collect();
    let times: Vec<u64> = metrics
        .iter()
        .map(|request| {
            let text = String::from_utf8_lossy(&request.text).into_owned();
            assert!(
                text.contains("foobar_service_connections_total{service=\"l4.plain\""),
                "{text}"
            );
            assert!(text.contains("environment=\"test\""), "{text}");
            text.lines()
                .next()
                .and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .expect("a time")
        })
        .collect();
    assert!(times.is_sorted(), "in their order");
    let longest = times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .expect("several");
    let stood_still = hindrance.worst();
    assert!(
        Duration::from_millis(longest) < Duration::from_secs(3) + stood_still,
        "no gap over the outage: {longest} ms, and the machine stood still for {stood_still:?}"
    );
    assert!(sumo.complaints().is_empty(), "{:?}", sumo.complaints());
    let log = fs::read_to_string(CONTROLLER_LOG).expect("the controller's log");
    assert!(!log.contains("s3cret"), "the URL is a password");
}

#[test]
fn a_store_that_speaks_otlp_has_the_metrics_and_their_labels() {
    let mut estate = Estate::up(PUSHED, |directory| {
        fs::write(
            directory.join("otlp-url"),
            "http://127.0.0.1:8428/opentelemetry",
        )
        .expect("written");
        fs::write(directory.join("sumo-url"), "http://127.0.0.1:1/x").expect("written");
    });
    let store = collectors::victoria_metrics();
    let store: Vec<String> = std::iter::once(store.get_program())
        .chain(store.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (loader, arguments) = store.split_first().expect("a command");
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .chain([
            "-storageDataPath=victoria",
            "-httpListenAddr=127.0.0.1:8428",
        ])
        .collect();
    estate.start("lb1", loader, &arguments);
    estate.requests(5);
    let found = within(PATIENCE, "the store has it", || {
        let answer = estate.json(
            "http://127.0.0.1:8428/api/v1/query?query=foobar_service_connections&latency_offset=1s",
        );
        let result = answer["data"]["result"].as_array()?.clone();
        (!result.is_empty()).then_some(result)
    });
    let series = found
        .iter()
        .find(|series| series["metric"]["vip"] == "203.0.113.10:8080")
        .expect("the vip");
    assert_eq!(series["metric"]["environment"], "test");
    assert_eq!(series["metric"]["host.name"], "lb1");
}

const WATCHED: &str = r#"
[[alert]]
name = "backend-down"
metric = "backends-down"
above = 0
severity = "critical"
[[alert]]
name = "plain-busy"
metric = "qps"
of = "l4.plain"
above = 5_000
[[alert]]
name = "map-nearly-full"
metric = "map-pressure"
above = "90%"
"#;

#[test]
fn the_dashboard_draws_what_happens_in_a_browser() {
    let estate = Estate::up_with(Databases::default(), WATCHED, |_| {});
    let _load = estate.load();
    let mut browser = Browser::open("lb1", estate.files.path(), "http://127.0.0.1:9100/");
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots");
    browser.resize(1_600, 1_000, false);
    browser.wait(
        "seconds are drawn",
        "Number(document.body.dataset.drawn) >= 15",
    );
    browser.wait(
        "queries are shown",
        "parseFloat(document.getElementById('total-qps').textContent) > 3",
    );
    browser.wait(
        "all is well",
        "document.getElementById('state-text').textContent === 'all well'",
    );
    browser.wait(
        "the databases are drawn with role and lag",
        "document.querySelector('.member.primary .role').textContent === 'primary' \
         && document.querySelectorAll('.member progress:not([hidden])').length === 2",
    );
    for _ in ["to light or dark", "to the other"] {
        browser.press("t");
        browser.wait(
            "the theme turns",
            "['light', 'dark'].includes(document.documentElement.dataset.theme)",
        );
        let theme = browser.evaluate("document.documentElement.dataset.theme");
        let theme = theme.as_str().expect("a theme");
        browser.screenshot(&pictures.join(format!("dashboard-{theme}.png")));
    }
    browser.press("?");
    browser.wait("keys are told", "!document.getElementById('keys').hidden");
    browser.press("?");
    browser.press("j");
    browser.wait(
        "the keyboard walks",
        "document.activeElement.matches('main > section')",
    );

    estate.lab.stop_web("web2").expect("stopped");
    browser.wait(
        "the alert is shown",
        "document.getElementById('alerts').textContent.includes('backend-down')",
    );
    browser.wait(
        "the state is bad",
        "document.getElementById('state').className === 'bad'",
    );
    browser.press("t");
    browser.screenshot(&pictures.join("dashboard-alert.png"));
    browser.resize(390, 844, true);
    browser.wait(
        "a phone shows all of it without scrolling sideways",
        "document.documentElement.scrollWidth <= 390",
    );
    std::thread::sleep(Duration::from_millis(1_200));
    browser.screenshot(&pictures.join("dashboard-phone.png"));
    assert_eq!(browser.complaints, Vec::<String>::new());
    // Nothing can be changed here.
    let refused = estate
        .lab
        .run(
            "lb1",
            &[
                "curl",
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-X",
                "POST",
                "http://127.0.0.1:9100/events",
            ],
        )
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "405");
}

#[test]
fn drops_are_told_one_by_one_while_somebody_follows() {
    let estate = Estate::up(MONITORED, |_| {});
    let capture = estate.files.path().join("drops.pcap");
    let foobar = estate.foobar.to_str().expect("UTF-8");
    let config = Lab::config_path();
    let mut following = in_namespace("lb1", foobar)
        .args(["--node", "lb1", "-o", "jsonl", "-c"])
        .arg(&config)
        .args(["drops", "--reason", "policy", "--pcap"])
        .arg(&capture)
        .stdout(Stdio::piped())
        .spawn()
        .expect("foobar starts");
    let lines = lines_of(following.stdout.take().expect("piped"));
    let mut told: Vec<Value> = Vec::new();
    within(PATIENCE, "three are told", || {
        // Nothing listens there, and no rule allows it.
        let refused = ["nc", "-z", "-w1", "203.0.113.10", "9999"];
        assert!(!estate.lab.succeeds("client", &refused));
        told.extend(
            lines
                .try_iter()
                .map(|line| serde_json::from_str(&line).expect("JSON"))
                .filter(|drop: &Value| drop["dport"] == 9_999),
        );
        (told.len() >= 3).then_some(())
    });
    let ended = Command::new("kill")
        .args(["-TERM", &following.id().to_string()])
        .status();
    assert!(ended.expect("kill").success());
    following.wait().expect("an end");
    assert_eq!(told[0]["reason"], "policy");
    assert_eq!(told[0]["interface"], "wan");
    assert_eq!(told[0]["dst"], "203.0.113.10");
    assert_eq!(told[0]["flags"], "S");
    let written = fs::read(&capture).expect("a capture");
    assert!(written.len() > 24 + 3 * (16 + 54), "{}", written.len());
}

/// The lines that a program prints, as they come.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
