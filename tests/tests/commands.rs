//! The command line as people and scripts use it, on the whole estate. Needs root.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use foobar_lab::estate::Estate;
use serde_json::Value;

#[test]
fn every_command_answers_people_and_scripts() {
    let estate = Estate::up();
    answers_are_enveloped(&estate);
    statistics_narrow_stream_and_do_without_a_controller(&estate);
    a_rule_that_a_reload_renames_has_one_name_everywhere(&estate);
    the_doctor_finds_nothing_and_then_what_is_wrong(&estate);
    a_closed_pipe_is_no_error(&estate);
    exit_statuses_are_as_documented(&estate);
}

fn answers_are_enveloped(estate: &Estate) {
    for (arguments, schema) in [
        (&["status"][..], "foobar/status/v1"),
        (&["stats"], "foobar/stats/v1"),
        (&["doctor", "--dns", "203.0.113.1"], "foobar/doctor/v1"),
        (&["rule", "list"], "foobar/rule-list/v1"),
        (&["rule", "show", "edge/web"], "foobar/rule-show/v1"),
        (&["set", "list"], "foobar/set-list/v1"),
        (&["set", "show", "admins"], "foobar/set-show/v1"),
        (&["service", "list"], "foobar/service-list/v1"),
        (&["service", "show", "plain"], "foobar/service-show/v1"),
        (&["backend", "list"], "foobar/backend-list/v1"),
        (&["reload", "--dry-run"], "foobar/reload/v1"),
        (&["config", "diff"], "foobar/reload/v1"),
        (
            &["explain", "udp", "198.51.100.7", "203.0.113.10:53"],
            "foobar/explain/v1",
        ),
    ] {
        let text = estate.foobar(&[arguments, &["-o", "json"]].concat());
        assert_eq!(json(&text)["schema"], schema, "{arguments:?}: {text}");
        let people = estate.foobar(arguments);
        assert!(!people.trim().is_empty(), "{arguments:?} says something");
        assert!(!people.contains('\x1b'), "no colours into a pipe: {people}");
    }
}

fn statistics_narrow_stream_and_do_without_a_controller(estate: &Estate) {
    estate
        .whoami(foobar_lab::estate::SERVICE, &[])
        .expect("an answer");
    let backends = json(&estate.foobar(&["stats", "backends", "web2", "-o", "json"]));
    let services = backends["services"].as_array().expect("services");
    assert!(!services.is_empty() && backends["rules"].as_array().is_some_and(Vec::is_empty));
    for service in services {
        assert_eq!(service["backends"].as_array().map(Vec::len), Some(1));
        assert_eq!(service["backends"][0]["host"], "web2");
    }
    let maps = json(&estate.foobar(&["stats", "maps", "--from-maps", "-o", "json"]));
    assert!(maps["maps"].as_array().is_some_and(|maps| maps.len() > 10));

    for source in [
        &["stats", "-w", "0.2", "-o", "jsonl"][..],
        &["stats", "--from-maps", "-w", "0.2", "-o", "jsonl"],
    ] {
        let lines = first_lines(estate.command(source), 3);
        for line in &lines {
            assert_eq!(json(line)["schema"], "foobar/stats/v1", "{line}");
        }
        let last = json(&lines[2]);
        let rate = &last["services"][0]["per-second"]["qps"];
        assert!(rate.is_number(), "{source:?} tells rates: {last}");
    }
}

/// The controller remembers names between snapshots, the maps hold them.
fn a_rule_that_a_reload_renames_has_one_name_everywhere(estate: &Estate) {
    let names = |more: &[&str]| -> Vec<String> {
        let command = [&["stats", "rules", "-o", "json"], more].concat();
        let counted = json(&estate.foobar(&command));
        let rules = counted["rules"].as_array().expect("rules");
        rules
            .iter()
            .map(|rule| format!("{}/{}", rule["policy"], rule["rule"]).replace('"', ""))
            .collect()
    };
    let (old, new) = ("name = \"ping\"", "name = \"echo\"");
    for (from, to, expected) in [(old, new, "edge/echo"), (new, old, "edge/ping")] {
        estate.rewrite(from, to);
        estate.foobar(&["reload"]);
        // A snapshot is shared for a moment.
        let is_told = || names(&[]).iter().any(|name| name == expected);
        estate.lab.wait("the new name", is_told).expect("renamed");
        assert_eq!(names(&[]), names(&["--from-maps"]));
    }
}

fn the_doctor_finds_nothing_and_then_what_is_wrong(estate: &Estate) {
    let well = estate.foobar(&["doctor", "--dns", "203.0.113.1"]);
    assert!(
        well.contains("name www.foobar.com") && well.contains("runs foobar natively"),
        "{well}"
    );
    estate.rewrite(
        "names = [\"www.foobar.com\"",
        "names = [\"www.elsewhere.test\"",
    );
    let ill = estate.ask(&["doctor", "--dns", "203.0.113.1"]);
    assert_eq!(ill.status.code(), Some(1), "{}", text(&ill));
    let told = String::from_utf8_lossy(&ill.stdout);
    assert!(
        told.contains("www.elsewhere.test") && told.contains("FAIL") && told.contains("cure:"),
        "{told}"
    );
    assert!(estate.ask(&["doctor", "--offline"]).status.success());
    estate.rewrite(
        "names = [\"www.elsewhere.test\"",
        "names = [\"www.foobar.com\"",
    );
}

fn a_closed_pipe_is_no_error(estate: &Estate) {
    let mut example = estate
        .command(&["config", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("foobar starts");
    drop(example.stdout.take());
    let mut complaint = String::new();
    let mut errors = example.stderr.take().expect("piped");
    errors.read_to_string(&mut complaint).expect("UTF-8");
    assert_eq!(complaint, "");
    assert!(example.wait().expect("it ends").success());
}

fn exit_statuses_are_as_documented(estate: &Estate) {
    let status = |arguments: &[&str]| {
        let output = estate.ask(arguments);
        assert!(
            !text(&output).contains("panicked"),
            "{arguments:?}: {}",
            text(&output)
        );
        output.status.code()
    };
    assert_eq!(status(&["status"]), Some(0));
    assert_eq!(status(&["rule", "show", "edge/none"]), Some(1));
    assert_eq!(status(&["statsu"]), Some(2));
    assert_eq!(
        status(&["explain", "tcp", "nowhere", "203.0.113.10"]),
        Some(2)
    );
    assert_eq!(status(&["status", "--socket", "/run/nobody.sock"]), Some(3));
    assert_eq!(status(&["run"]), Some(1), "a second controller is refused");

    let nobody = |arguments: &[&str]| {
        let foobar = estate.foobar.to_str().expect("UTF-8").to_owned();
        let command = [
            &["setpriv", "--reuid=65534", "--clear-groups", &foobar][..],
            arguments,
        ];
        let output = estate.lab.run("lb1", &command.concat()).expect("setpriv");
        (output.status.code(), text(&output))
    };
    let (code, told) = nobody(&["stats", "--from-maps", "--node", "lb1"]);
    assert_eq!(code, Some(77), "{told}");

    estate.rewrite("policy = \"drop\"", "policy = \"dorp\"");
    for arguments in [&["check"][..], &["reload"], &["run", "--dry-run"]] {
        let output = estate.ask(arguments);
        let told = text(&output);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {told}");
        assert!(
            told.contains("foobar.toml:") && told.contains("dorp") && told.contains("drop"),
            "{arguments:?} names place and cure: {told}"
        );
    }
    assert_eq!(status(&["status"]), Some(1), "a failed reload is unhealthy");
    estate.rewrite("policy = \"dorp\"", "policy = \"drop\"");
    assert_eq!(status(&["reload"]), Some(0));
    assert_eq!(status(&["status"]), Some(0));
}

/// The first lines that a command prints; it is ended then.
fn first_lines(mut command: Command, count: usize) -> Vec<String> {
    let begun = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("foobar starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let lines: Vec<String> = out
        .lines()
        .take(count)
        .map(|line| line.expect("UTF-8"))
        .collect();
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(begun.elapsed() < Duration::from_secs(120));
    lines
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .concat()
        .iter()
        .map(|byte| char::from(*byte))
        .collect()
}
