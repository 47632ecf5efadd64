//! What an operator does every day: connections, sums, a reload that may lock him out. Needs root.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use foobar_lab::{estate::Estate, in_namespace, patience::holds_within};
use serde_json::Value;

#[test]
fn connections_sums_and_trials_are_as_the_manual_says() {
    let estate = Estate::up();
    connections_are_told_by_kind(&estate);
    parts_are_told_and_added_up(&estate);
    a_reload_that_nobody_confirms_goes_back(&estate);
}

fn connections_are_told_by_kind(estate: &Estate) {
    let _site = Held::open("client", &["203.0.113.10", "443"]);
    // The answers to an application come back through the balancer.
    let _writer = Held::open("app2", &["10.0.0.10", "3306"]);
    let asked = ["dig", "+time=1", "+tries=1", "@203.0.113.1", "foobar.com"];
    estate.lab.run("lb1", &asked).expect("dig");
    let has = |filter: &str, kind: &str, service: Option<&str>| {
        let told = json(&estate.foobar(&["conns", filter, "-o", "json"]));
        assert_eq!(told["schema"], "foobar/conns/v1");
        told["connections"]
            .as_array()
            .expect("connections")
            .iter()
            .any(|line| line["kind"] == kind && line["service"].as_str() == service)
    };
    holds_within(60, "the site's connection is known", || {
        has("203.0.113.10:443", "proxied", Some("l7.grpc,l7.www"))
    });
    holds_within(60, "the writer's session is known", || {
        has("10.0.0.10:3306", "session", Some("mysql.app.write"))
    });
    assert!(
        has("203.0.113.1:53", "opened", None),
        "what this node asked"
    );

    let counted = json(&estate.foobar(&["conns", "--count-only", "-o", "json"]));
    assert!(counted["total"].as_u64() >= Some(3), "{counted}");
    assert_eq!(counted["connections"], Value::Array(Vec::new()));
    let people = estate.foobar(&["conns", "--count-only"]);
    assert!(
        people.contains("session") && people.contains("mysql.app"),
        "{people}"
    );
    let one = json(&estate.foobar(&["conns", "-n", "1", "-o", "json"]));
    assert_eq!(one["connections"].as_array().map(Vec::len), Some(1));
}

fn parts_are_told_and_added_up(estate: &Estate) {
    let databases = json(&estate.foobar(&["stats", "mysql", "-o", "json"]));
    assert_eq!(
        databases["clusters"][0]["members"].as_array().map(Vec::len),
        Some(3)
    );
    let people = estate.foobar(&["stats", "mysql"]);
    assert!(
        people.contains("writes: web1") && people.contains("replica"),
        "{people}"
    );
    let certificates = json(&estate.foobar(&["stats", "tls", "www", "-o", "json"]));
    assert_eq!(certificates["certificates"][0]["service"], "l7.www");
    assert_eq!(certificates["sites"].as_array().map(Vec::len), Some(1));
    assert!(estate.foobar(&["stats", "tls"]).contains("HANDSHAKES"));

    estate
        .whoami(foobar_lab::estate::SERVICE, &[])
        .expect("an answer");
    let lines = estate.foobar(&["stats", "--total", "-w", "0.3", "-n", "2", "-o", "jsonl"]);
    let lines: Vec<Value> = lines.lines().map(json).collect();
    assert_eq!(lines.len(), 2, "it ends by itself");
    let sum: u64 = lines[1]["services"]
        .as_array()
        .expect("services")
        .iter()
        .filter_map(|service| service["connections"].as_u64())
        .sum();
    assert_eq!(
        lines[1]["total"]["connections"]["total"].as_u64(),
        Some(sum)
    );
    assert!(estate.foobar(&["stats", "--total"]).contains("TOTAL"));
}

fn a_reload_that_nobody_confirms_goes_back(estate: &Estate) {
    let reaches = || estate.whoami(foobar_lab::estate::SERVICE, &[]).is_some();
    let told = estate.ask(&["confirm"]);
    assert_eq!(told.status.code(), Some(1), "nothing is on trial");

    assert!(reaches());
    // The mistake that locks its author out.
    estate.rewrite("\"tcp/443\", \"tcp/8080\"", "\"tcp/443\"");
    let reloaded = json(&estate.foobar(&["reload", "--confirm", "15", "-o", "json"]));
    assert_eq!(reloaded["reverts-in-seconds"], 15);
    assert!(estate.foobar(&["status"]).contains("on trial"));
    assert!(!reaches(), "the change is in force");
    holds_within(60, "what ran before comes back", reaches);
    let status = estate.foobar(&["status"]);
    assert!(status.contains("nobody confirmed"), "{status}");

    estate.foobar(&["reload", "--confirm", "10"]);
    let confirmed = estate.foobar(&["confirm"]);
    assert!(confirmed.contains("stays"), "{confirmed}");
    thread::sleep(Duration::from_secs(12));
    assert!(!reaches(), "what was confirmed stays");
    assert!(!estate.foobar(&["status"]).contains("nobody confirmed"));
    estate.rewrite("\"tcp/443\"", "\"tcp/443\", \"tcp/8080\"");
    estate.foobar(&["reload"]);
    assert!(reaches());
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A TCP connection that is kept open until it is dropped.
struct Held(Child);

impl Held {
    fn open(from: &str, to: &[&str]) -> Self {
        let mut command: Command = in_namespace(from, "nc");
        command
            .args(to)
            // An end of the input would end the connection.
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        Self(command.spawn().expect("nc"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
