//! What `[monitor]`, `[[alert]]`, `[notify]`, `[log]` and `[admin]` mean, and what their mistakes are told.

use std::path::Path;

use super::*;

const ESTATE: &str = r#"version = 1
[hosts]
lb1 = { public = "203.0.113.10", private = "10.0.0.10" }
web1 = { private = "10.0.0.11" }
[nodes]
lb1 = { wan = { dev = "eth0" } }
web1 = { lan = { dev = "eth0" } }
[l4.plain]
on = "lb1"
vip = ["public:8080"]
backends = [{ host = "web1", port = 80 }]
"#;

/// Of design.md, section 6.
const MONITORED: &str = r#"
[monitor]
prometheus = { listen = "private:9101" }
otlp = { endpoint = { credential = "otlp-url" }, interval = "30s", signals = ["metrics", "logs"] }
sumologic = { url = { credential = "sumo-url" }, category = "prod/foobar", interval = "60s" }
[[alert]]
name = "www-qps-high"
metric = "qps"
of = "l4.plain"
above = 5_000
clear-below = 4_000
for = "30s"
notify = ["journal", "ops"]
[[alert]]
name = "map-full"
metric = "map-pressure"
above = "90%"
severity = "critical"
[notify]
ops = { webhook = { credential = "ops-webhook-url" }, repeat = "1h" }
prom = { alertmanager = "http://127.0.0.1:9093/" }
page = { command = ["/usr/bin/logger", "-t", "foobar"] }
[log]
access = { to = "/var/log/foobar/{node}-access.log", format = "combined", sample = 10, max-size = "1GB" }
drops = { to = "journal" }
[admin]
socket = "/run/foobar/admin.sock"
group = "adm"
dashboard = "127.0.0.1:9100"
"#;

fn read(extra: &str) -> Result<Config, Diagnostics> {
    parse(
        &format!("{ESTATE}{extra}"),
        Path::new("/etc/foobar/foobar.toml"),
    )
}

fn monitored() -> Config {
    read(MONITORED).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

#[test]
fn the_designs_example_is_read_as_meant() {
    let config = monitored();
    let alert = &config.alerts[0];
    assert_eq!(
        (alert.name.as_str(), alert.metric, alert.of.as_deref()),
        ("www-qps-high", Metric::Qps, Some("l4.plain"))
    );
    assert_eq!(
        alert.threshold,
        Threshold {
            side: Side::Above,
            fires: Quantity::new(5_000.0),
            clears: Quantity::new(4_000.0),
        }
    );
    assert_eq!(alert.lasting, Duration::from_secs(30));
    assert_eq!(alert.notify, ["ops"]);
    assert_eq!(
        config.alerts[1].threshold.clears,
        Quantity::new(0.9),
        "without hysteresis it ends where it begins"
    );
    let otlp = config.monitor.otlp.as_ref().expect("otlp");
    assert_eq!(otlp.endpoint, Secret::Credential("otlp-url".to_owned()));
    assert!(otlp.signals.logs && otlp.signals.metrics);
    let sumologic = config.monitor.sumologic.as_ref().expect("sumologic");
    assert_eq!(sumologic.interval, Duration::from_secs(60));
    assert_eq!(config.notify["ops"].repeat, Duration::from_secs(3_600));
    assert_eq!(
        config.notify["prom"].by,
        NotifyBy::Alertmanager("http://127.0.0.1:9093".to_owned())
    );
    assert_eq!(config.log.access.file.max_size, 1 << 30);
    assert_eq!(config.log.audit.to, LogTo::Journal);
    assert_eq!(config.admin.group.as_deref(), Some("adm"));
}

#[test]
fn every_node_listens_on_its_own_address() {
    let config = monitored();
    let listen = config.monitor.prometheus.expect("prometheus");
    let of = |host: &str| listen.addresses(&config.hosts[host]);
    assert_eq!(of("lb1"), ["10.0.0.10:9101".parse().expect("an address")]);
    assert_eq!(of("web1"), ["10.0.0.11:9101".parse().expect("an address")]);
}

#[test]
fn an_alert_of_a_service_is_watched_where_the_service_is() {
    let config = monitored();
    let watched_by = |node: &str| -> Vec<&str> {
        let alerts = config.alerts.iter();
        alerts
            .filter(|alert| alert.is_of(node, &config))
            .map(|alert| alert.name.as_str())
            .collect()
    };
    assert_eq!(watched_by("lb1"), ["www-qps-high", "map-full"]);
    assert_eq!(watched_by("web1"), ["map-full"]);
}

#[test]
fn what_is_shown_is_read_as_the_same() {
    let config = monitored();
    let shown = show(&config);
    let again = parse(&shown, Path::new("/etc/foobar/foobar.toml"))
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}\n{shown}"));
    assert_eq!(diff(&config, &again), Vec::<String>::new(), "{shown}");
}

#[test]
fn a_difference_is_told_by_name() {
    let config = monitored();
    let text = MONITORED
        .replace("above = 5_000", "above = 6_000")
        .replace("repeat = \"1h\"", "repeat = \"2h\"")
        .replace("\"journal\" }", "\"none\" }")
        .replace("9101", "9102");
    let next = read(&text).expect("good");
    assert_eq!(
        diff(&config, &next),
        ["~ alert www-qps-high", "~ notify ops", "~ monitor", "~ log"]
    );
}

/// What stands in [`MONITORED`], what stands there instead, and what is told: message and cure.
#[rustfmt::skip]
const SLIPS: &[(&str, &str, &str, &str)] = &[
    ("metric = \"qps\"", "metric = \"qsp\"", "`metric` cannot be `qsp`", "did you mean `qps`?"),
    ("of = \"l4.plain\"", "of = \"l4.plan\"", "unknown service `l4.plan`", "did you mean `l4.plain`?"),
    ("above = 5_000", "above = \"5%\"", "`qps`: this is measured as a number a second", "5_000"),
    ("above = 5_000", "above = -5", "`-5` is not a threshold", "from 0 upwards"),
    ("above = 5_000", "above = \"lots\"", "`lots` is not a threshold", "250ms"),
    ("above = 5_000", "above = true", "`above` must be a number", "5_000"),
    ("above = 5_000", "", "an alert has one threshold", "above = 5_000"),
    ("clear-below = 4_000", "clear-below = 6_000", "on the wrong side of `above`", "at most 5000"),
    ("clear-below = 4_000", "clear-above = 4_000", "`clear-above` does not go with `above`", "clear-below"),
    ("clear-below = 4_000", "reason = \"rule\"", "only `drops` have a reason", "take `reason` out"),
    ("metric = \"map-pressure\"", "metric = \"map-pressure\"\nof = \"l4.plain\"", "`map-pressure` is of a whole node", "take `of` out"),
    ("metric = \"map-pressure\"", "metric = \"error-rate\"\nof = \"l4.plain\"", "an l4 service has no `error-rate`", "name an `l7` service"),
    ("above = \"90%\"", "above = 90", "`map-pressure`: this is measured as a part", "\"5%\""),
    ("name = \"map-full\"", "name = \"www-qps-high\"", "alert `www-qps-high` stands twice", "another name"),
    ("notify = [\"journal\", \"ops\"]", "notify = \"op\"", "unknown notify target `op`", "`ops`"),
    ("webhook = { credential = \"ops-webhook-url\" }", "webhook = \"https://example.com/secret\"", "`webhook` is a secret and never stands in this file", "credential"),
    ("webhook = { credential = \"ops-webhook-url\" }, ", "", "a notify target tells in one way", "webhook = "),
    ("\"http://127.0.0.1:9093/\"", "\"http://me:pw@127.0.0.1:9093\"", "a password in a URL", "without `user:password@`"),
    ("\"http://127.0.0.1:9093/\"", "\"127.0.0.1:9093\"", "is not a URL", "http://127.0.0.1:9093"),
    ("[\"/usr/bin/logger\", \"-t\", \"foobar\"]", "\"logger -t foobar\"", "is not the path of a program", "each argument by itself"),
    ("\"private:9101\"", "\"public:9101\"", "node `web1` has no such address", "127.0.0.1:PORT"),
    ("signals = [\"metrics\", \"logs\"]", "signals = [\"metrics\", \"trace\"]", "`signals` cannot be `trace`", "`metrics`, `logs`"),
    ("interval = \"60s\"", "interval = 60", "`interval` must be a duration", "\"60s\""),
    ("interval = \"60s\"", "buffer = \"32\"", "`32` is not a size", "16MB"),
    ("\"journal\" }", "\"drops.log\" }", "is not a place for a log", "/var/log/foobar"),
    ("[log]", "[monitor.labels]\nnode = \"x\"\n[log]", "`node` is a label of foobar's own", "choose another"),
    ("[log]", "[monitor.labels]\nthe-env = \"x\"\n[log]", "cannot be the name of a label", "letters, digits and `_`"),
    ("page = {", "journal = {", "`journal` is always there", "take it out"),
];

#[test]
fn each_slip_is_told_with_its_cure() {
    for (right, wrong, message, cure) in SLIPS {
        assert!(MONITORED.contains(right), "{right}");
        let told = read(&MONITORED.replacen(right, wrong, 1))
            .expect_err(wrong)
            .iter()
            .cloned()
            .collect::<Vec<_>>();
        assert!(
            told.iter().any(|told| told.message.contains(message)
                && told.help.iter().any(|help| help.contains(cure))),
            "{wrong}: {told:#?}"
        );
        assert!(told.len() <= 2, "{wrong}: {told:#?}");
    }
}

#[test]
fn a_secret_in_the_file_is_never_printed() {
    let text = MONITORED.replace(
        "webhook = { credential = \"ops-webhook-url\" }",
        "webhook = \"https://example.com/s3cret\"",
    );
    let told = read(&text).expect_err("a secret").to_string();
    assert!(!told.contains("s3cret"), "{told}");
}

#[test]
fn the_schema_and_the_metrics_know_the_same_words() {
    let schema = schema();
    let words = &schema["properties"]["alert"]["items"]["properties"]["metric"]["enum"];
    let known: Vec<_> = Metric::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(words, &serde_json::json!(known));
}
