//! The access log of the proxy on the whole estate: formats, rotation, following, turned on and off by a reload. Needs root.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use foobar_lab::{estate::Estate, patience::within};
use serde_json::Value;

const OFF: &str = "access = { to = \"none\", format = \"json\" }";

#[test]
fn requests_are_logged_as_the_file_says_and_a_reload_changes_it() {
    let estate = Estate::up();
    let files = tempfile::tempdir().expect("a directory");
    let path = files.path().join("access.log");
    let pid = pid(&estate);
    let json = format!(
        "access = {{ to = \"{}\", format = \"json\", max-size = \"4KB\", keep = 20 }}",
        path.display()
    );
    let combined = json.replace("\"json\"", "\"combined\"");

    ask(&estate, "/whoami?off");
    assert!(!path.exists(), "nobody wanted it");
    turn(&estate, OFF, &json);
    follows_while_it_is_written(&estate);
    json_lines_survive_rotation(&estate, &path);
    turn(&estate, &json, &combined);
    lines_are_as_web_servers_write_them(&estate, &path);
    turn(&estate, &combined, OFF);
    let before = all(&path).len();
    ask(&estate, "/whoami?off-again");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(all(&path).len(), before, "it is off again");
    assert_eq!(self::pid(&estate), pid, "nothing was restarted");
}

fn follows_while_it_is_written(estate: &Estate) {
    let mut following = estate
        .command(&["log", "access", "-f", "--status", "2xx", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("foobar starts");
    let lines = BufReader::new(following.stdout.take().expect("piped")).lines();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| tell.send(line))
    });
    // Whoever follows hears of what comes after he began.
    let line = within(60, "a request is told", || {
        ask(estate, "/whoami?followed");
        told.recv_timeout(Duration::from_secs(1)).ok()
    });
    following.kill().expect("it runs");
    following.wait().expect("it ends");
    let record: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(record["path"], "/whoami?followed");
    assert_eq!(record["site"], "l7.www");
}

fn json_lines_survive_rotation(estate: &Estate, path: &Path) {
    for number in 0..30 {
        ask(estate, &format!("/whoami?number={number}"));
    }
    within(60, "all requests are written", || {
        (all(path)
            .iter()
            .filter(|line| line.contains("?number="))
            .count()
            == 30)
            .then_some(())
    });
    assert!(aside(path, 1).exists(), "a full file is put aside");
    for line in all(path) {
        let record: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(record["status"], 200, "{record}");
        assert_eq!(record["method"], "GET");
        assert_eq!(record["encrypted"], true);
        assert!(
            record["backend"]
                .as_str()
                .is_some_and(|backend| backend.ends_with(":8444"))
        );
        assert!(
            record["client"]
                .as_str()
                .is_some_and(|client| client.starts_with("198.51.100."))
        );
    }
    let told = estate.foobar(&["log", "access", "--since", "10m", "--grep", "?number="]);
    assert_eq!(told.lines().count(), 30, "from files put aside too: {told}");
    assert_eq!(
        estate.foobar(&["log", "access", "--since", "10m", "--status", "5xx"]),
        ""
    );
}

fn lines_are_as_web_servers_write_them(estate: &Estate, path: &Path) {
    ask(estate, "/whoami?combined");
    let line = within(60, "the line is written", || {
        all(path)
            .into_iter()
            .find(|line| line.contains("?combined"))
    });
    let (client, rest) = line.split_once(" - - [").expect("a client");
    assert!(client.starts_with("198.51.100."), "{line}");
    let (time, rest) = rest.split_once("] \"").expect("a time");
    assert!(
        time.ends_with(" +0000") && time.matches(['/', ':']).count() == 5,
        "{line}"
    );
    let (request, rest) = rest.split_once("\" ").expect("a request");
    assert!(request.starts_with("GET /whoami?combined HTTP/"), "{line}");
    assert!(
        rest.starts_with("200 ") && rest.contains("www.foobar.com"),
        "{line}"
    );
    let told = estate.foobar(&["log", "access", "--status", "200", "--since", "1m"]);
    assert!(told.contains("?combined"), "{told}");
}

fn ask(estate: &Estate, path: &str) {
    let url = format!("https://www.foobar.com{path}");
    let command = [
        "curl",
        "-sS",
        "-f",
        "-m30",
        "-o",
        "/dev/null",
        "--cacert",
        "/run/foobar-lab/ca.pem",
        "--resolve",
        "www.foobar.com:443:203.0.113.10",
        &url,
    ];
    let output = estate.lab.run("client", &command).expect("curl");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn turn(estate: &Estate, from: &str, to: &str) {
    estate.rewrite(from, to);
    estate.foobar(&["reload"]);
}

fn pid(estate: &Estate) -> u64 {
    let status: Value =
        serde_json::from_str(&estate.foobar(&["status", "-o", "json"])).expect("JSON");
    status["pid"].as_u64().expect("a process")
}

fn aside(path: &Path, number: u32) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

/// The lines of the log and of those put aside.
fn all(path: &Path) -> Vec<String> {
    let others = (1..)
        .map(|number| aside(path, number))
        .take_while(|path| path.exists());
    std::iter::once(path.to_owned())
        .chain(others)
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}
