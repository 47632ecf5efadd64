//! Alerts are told in time, end by themselves, and do not flap: by the time stamps of condition and notice.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::{collectors::within_namespace, *};

const PUNCTUAL: &str = r#"
[[alert]]
name = "down"
metric = "backends-down"
of = "l4.plain"
above = 0
severity = "critical"
notify = ["ops", "prom"]
[[alert]]
name = "busy"
metric = "qps"
of = "l4.plain"
above = 8
clear-below = 2
notify = "ops"
[notify]
ops = { webhook = { file = "DIRECTORY/webhook-url" } }
prom = { alertmanager = "http://127.0.0.1:9093" }
"#;

/// From a condition that holds to the notice of it.
const BUDGET: Duration = Duration::from_secs(2);

#[test]
fn an_alert_is_told_within_two_seconds_and_does_not_flap() {
    let webhook = Collector::in_namespace("lb1", "127.0.0.1:9999", |_| Reply::status(200));
    let mut estate = Estate::up(PUNCTUAL, |directory| {
        fs::write(directory.join("webhook-url"), "http://127.0.0.1:9999/\n").expect("written");
    });
    webhook.open();
    estate.start_alertmanager();
    let hindrance = Hindrance::watch();
    a_backend_that_is_lost_and_comes_back(&estate, &webhook, &hindrance);
    many_connections_and_few(&webhook, &hindrance);
}

fn a_backend_that_is_lost_and_comes_back(
    estate: &Estate,
    webhook: &Collector,
    hindrance: &Hindrance,
) {
    estate.lab.stop_web("web2").expect("stopped");
    let lost = within(PATIENCE, "the backend is known to be down", || said("down"));
    let told = within(PATIENCE, "the webhook is told", || {
        notice(webhook, "down", "firing")
    });
    hindrance.judge("down to webhook", lost, told.at);
    let taken = within(PATIENCE, "the Alertmanager has it", || {
        let alerts = estate.json("http://127.0.0.1:9093/api/v2/alerts?active=true");
        let alert = alerts
            .as_array()?
            .iter()
            .find(|alert| alert["labels"]["alertname"] == "down")?
            .clone();
        humantime::parse_rfc3339(alert["updatedAt"].as_str()?).ok()
    });
    hindrance.judge("down to Alertmanager", lost, taken);

    estate.lab.start_web("web2").expect("started");
    let back = within(PATIENCE, "the backend is known to be up", || {
        said("up").filter(|back| *back > lost)
    });
    let ended = within(PATIENCE, "the end is told", || {
        notice(webhook, "down", "resolved")
    });
    hindrance.judge("up to webhook", back, ended.at);
    within(PATIENCE, "the Alertmanager heard of the end", || {
        let alerts = estate.json("http://127.0.0.1:9093/api/v2/alerts?active=true");
        let is_there = |alert: &Value| alert["labels"]["alertname"] == "down";
        (!alerts.as_array()?.iter().any(is_there)).then_some(())
    });
}

/// Made by this process: a program for each would make a busy machine too slow for the rates.
fn many_connections_and_few(webhook: &Collector, hindrance: &Hindrance) {
    // The ninth connection of a second makes more than eight.
    let mut made = Vec::new();
    let begun = Instant::now();
    within_namespace("client", || {
        while notice(webhook, "busy", "firing").is_none() {
            assert!(
                begun.elapsed() < Duration::from_secs(PATIENCE),
                "many connections fire"
            );
            made.push(SystemTime::now());
            connect();
            thread::sleep(Duration::from_millis(20));
        }
    });
    let busy = made
        .windows(9)
        .find(|window| {
            let span = window[8].duration_since(window[0]);
            span.is_ok_and(|span| span < Duration::from_secs(1))
        })
        .map(|window| window[8])
        .expect("this machine makes nine connections a second");
    let told = notice(webhook, "busy", "firing").expect("it was told");
    hindrance.judge("busy to webhook", busy, told.at);

    // Between the thresholds nothing is told.
    within_namespace("client", || {
        for _ in 0..20 {
            connect();
            thread::sleep(Duration::from_millis(200));
        }
    });
    // One second after the last connection none was made in the second before.
    let calm = SystemTime::now() + Duration::from_secs(1);
    let ended = within(PATIENCE, "few connections end it", || {
        notice(webhook, "busy", "resolved")
    });
    assert!(
        ended.at <= calm + BUDGET + hindrance.worst(),
        "the end is told {:?} after the condition's",
        ended.at.duration_since(calm)
    );
    for (status, alone) in [("firing", 1), ("resolved", 1)] {
        let told = notices(webhook, "busy", status);
        for notice in &told {
            let holds = match status {
                "firing" => notice.value > 8.0,
                _ => notice.value <= 2.0,
            };
            assert!(holds, "{status} at {}", notice.value);
        }
        // A machine that stood still for a second makes few connections, too.
        if hindrance.worst() < Duration::from_millis(500) {
            assert_eq!(told.len(), alone, "{status}");
        }
    }
}

/// One query at layer 4.
fn connect() {
    let vip = SERVICE.strip_prefix("http://").expect("a URL");
    let vip = vip.parse().expect("an address");
    TcpStream::connect_timeout(&vip, Duration::from_secs(PATIENCE)).expect("the service answers");
}

#[derive(Clone, Debug)]
struct Told {
    at: SystemTime,
    value: f64,
}

fn notice(webhook: &Collector, alert: &str, status: &str) -> Option<Told> {
    notices(webhook, alert, status).into_iter().next()
}

fn notices(webhook: &Collector, alert: &str, status: &str) -> Vec<Told> {
    webhook
        .requests()
        .iter()
        .filter_map(|request| {
            let body: Value = serde_json::from_slice(&request.text).ok()?;
            let is_it = body["status"] == status && body["commonLabels"]["alertname"] == alert;
            let value = body["commonAnnotations"]["value"].as_str()?.parse().ok()?;
            is_it.then_some(Told {
                at: request.at,
                value,
            })
        })
        .collect()
}

/// When the controller last knew web2's nginx to be `up` or `down`, by its log.
fn said(state: &str) -> Option<SystemTime> {
    let log = fs::read_to_string(CONTROLLER_LOG).ok()?;
    log.lines()
        .rev()
        .find(|line| {
            line.contains(&format!(" {state} "))
                && line.contains("l4.plain")
                && line.contains("web2:80")
        })
        .and_then(|line| humantime::parse_rfc3339(line.split_whitespace().next()?).ok())
}

/// How long this machine kept a thread from running that only wanted to sleep ten milliseconds.
pub struct Hindrance {
    worst: Arc<AtomicU64>,
    goes_on: Arc<AtomicBool>,
}

impl Hindrance {
    pub fn watch() -> Self {
        let worst = Arc::new(AtomicU64::new(0));
        let goes_on = Arc::new(AtomicBool::new(true));
        let (known, still) = (worst.clone(), goes_on.clone());
        thread::spawn(move || {
            while still.load(Ordering::Relaxed) {
                let begun = Instant::now();
                thread::sleep(Duration::from_millis(10));
                let late = begun.elapsed().saturating_sub(Duration::from_millis(10));
                let late = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
                known.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self { worst, goes_on }
    }

    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.worst.load(Ordering::Relaxed))
    }

    #[track_caller]
    fn judge(&self, what: &str, condition: SystemTime, told: SystemTime) {
        let took = told
            .duration_since(condition)
            .unwrap_or_else(|_| panic!("{what}: told before it was so"));
        println!(
            "{what}: {} ms (the machine stood still for {} ms)",
            took.as_millis(),
            self.worst().as_millis()
        );
        assert!(
            took <= BUDGET + self.worst(),
            "{what}: {took:?}, and the machine stood still for {:?}",
            self.worst()
        );
    }
}

impl Drop for Hindrance {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
    }
}
