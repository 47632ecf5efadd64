//! The sites of the estate: real clients over TLS, three real servers behind mutual TLS. Needs root.

mod acme;
mod door;
mod life;
mod programs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use foobar_lab::{Lab, STATE, estate::Estate, in_namespace};
use serde_json::Value;

const CA: &str = "/run/foobar-lab/ca.pem";

/// curl from the internet to a name of the balancer's; what it wrote.
fn curl(estate: &Estate, url: &str, more: &[&str]) -> String {
    let output = try_curl(estate, url, more);
    assert!(
        output.status.success(),
        "{url} {more:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn try_curl(estate: &Estate, url: &str, more: &[&str]) -> std::process::Output {
    let fixed = [
        "curl",
        "-sS",
        "-m10",
        "--cacert",
        CA,
        "--resolve",
        "www.foobar.com:443:203.0.113.10",
        "--resolve",
        "foobar.com:443:203.0.113.10",
        "--resolve",
        "www.foobar.com:80:203.0.113.10",
        "--resolve",
        "elsewhere.org:443:203.0.113.10",
        url,
    ];
    estate
        .lab
        .run("client", &[&fixed[..], more].concat())
        .expect("curl")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A client in Python, to its end.
fn client(name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tls")
        .join(name);
    let output = in_namespace("client", foobar_lab::servers::PYTHON)
        .arg(script)
        .arg(CA)
        .output()
        .expect("python3");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text.trim(),
        "ok",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn clients_reach_the_sites_and_nothing_crosses_the_estate_in_clear() {
    let estate = Estate::up();
    requests_arrive_by_mutual_tls(&estate);
    plain_http_is_redirected(&estate);
    versions_and_names_are_held_to(&estate);
    client("websocket_client.py");
    client("grpc_client.py");
    backends_drain_and_come_back(&estate);
    certificates_are_listed_renewed_and_refused(&estate);
}

fn requests_arrive_by_mutual_tls(estate: &Estate) {
    for (version, flag) in [("1.1", "--http1.1"), ("2", "--http2")] {
        let text = curl(
            estate,
            "https://www.foobar.com/whoami",
            &[
                flag,
                "-w",
                "\n%{http_version}",
                "-H",
                "X-Forwarded-For: 192.0.2.66",
            ],
        );
        let (body, spoken) = text.rsplit_once('\n').expect("two parts");
        assert_eq!(spoken, version);
        let headers = &json(body)["headers"];
        assert_eq!(headers["x-peer"], "10.0.0.10", "the balancer asks");
        assert_eq!(headers["x-certificate"], "CN=lb1", "and shows who it is");
        let forwarded = headers["x-forwarded-for"].as_str().expect("said");
        assert!(
            !forwarded.contains("192.0.2.66"),
            "nobody is believed: {forwarded}"
        );
    }
    let big = vec![b'b'; 5 << 20];
    let path = Path::new(STATE).join("big");
    fs::write(&path, &big).expect("written");
    let data = format!("@{}", path.display());
    for flag in ["--http1.1", "--http2"] {
        let echoed = curl(
            estate,
            "https://www.foobar.com/echo",
            &[
                flag,
                "--data-binary",
                &data,
                "-H",
                "Content-Type: text/plain",
            ],
        );
        assert!(echoed.as_bytes() == big, "{} bytes", echoed.len());
    }
    // In clear the servers' port for the proxy is not to be had, nor without a certificate of the estate's.
    let refused = estate
        .lab
        .run(
            "lb1",
            &[
                "curl",
                "-skS",
                "-m3",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "https://10.0.0.11:8444/healthz",
            ],
        )
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "400");
}

fn plain_http_is_redirected(estate: &Estate) {
    let text = curl(
        estate,
        "http://www.foobar.com/path?a=b",
        &["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"],
    );
    let (status, to) = text.split_once(' ').expect("two words");
    assert!(["301", "308"].contains(&status), "{text}");
    assert_eq!(to, "https://www.foobar.com/path?a=b");
}

fn versions_and_names_are_held_to(estate: &Estate) {
    for flags in [
        ["--tlsv1.3", "--tls-max", "1.3"],
        ["--tlsv1.2", "--tls-max", "1.2"],
    ] {
        curl(estate, "https://www.foobar.com/healthz", &flags);
    }
    let old = try_curl(
        estate,
        "https://www.foobar.com/healthz",
        &[
            "--tlsv1.1",
            "--tls-max",
            "1.1",
            "--ciphers",
            "DEFAULT@SECLEVEL=0",
        ],
    );
    assert!(!old.status.success(), "TLS 1.1 is over");
    let unknown = try_curl(estate, "https://elsewhere.org/healthz", &["-k"]);
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("unrecognized name"), "{told}");
}

fn backends_drain_and_come_back(estate: &Estate) {
    // Latency decides by default: a server that was slow once gets little for a while.
    estate.rewrite(
        "jail = \"jail\"\n\n# gRPC",
        "jail = \"jail\"\nbalance = \"round-robin\"\n\n# gRPC",
    );
    estate.foobar(&["reload"]);
    let servers = || -> Vec<String> {
        let mut servers: Vec<String> = (0..30)
            .map(|_| {
                let body = curl(estate, "https://www.foobar.com/whoami", &[]);
                json(&body)["server"].as_str().expect("a name").to_owned()
            })
            .collect();
        servers.sort();
        servers.dedup();
        servers
    };
    assert_eq!(servers(), ["web1", "web2", "web3"]);
    let told = estate.foobar(&["backend", "drain", "l7.www", "web2"]);
    assert!(told.contains("web2:8444 of l7.www drains"), "{told}");
    assert_eq!(servers(), ["web1", "web3"]);
    estate.foobar(&["backend", "enable", "www", "web2:8444"]);
    assert_eq!(servers(), ["web1", "web2", "web3"]);
    estate
        .lab
        .wait("all are up", || {
            let status = json(&estate.foobar(&["status", "-o", "json"]));
            let mut services = status["services"].as_array().into_iter().flatten();
            services
                .find(|service| service["name"] == "l7.www")
                .and_then(|www| www["backends"].as_array())
                .is_some_and(|backends| backends.iter().all(|backend| backend["state"] == "up"))
        })
        .expect("nothing is wrong with them");
}

fn certificates_are_listed_renewed_and_refused(estate: &Estate) {
    let serial = || {
        let lines = json(&estate.foobar(&["tls", "show", "www", "-o", "json"]));
        lines["rows"][0]["serial"]
            .as_str()
            .expect("a serial")
            .to_owned()
    };
    let before = serial();
    let tls = Path::new(STATE).join("tls");
    foobar_lab::pki::rotate(&tls).expect("a new pair");
    estate.foobar(&["tls", "reload"]);
    assert_ne!(serial(), before);
    curl(estate, "https://www.foobar.com/healthz", &[]);
    let good = fs::read(tls.join("www.key")).expect("a key");
    fs::copy(tls.join("lb1.key"), tls.join("www.key")).expect("another key");
    let refused = estate.ask(&["tls", "reload"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(
        told.contains("the key does not belong to") && told.contains("foobar.toml:"),
        "{told}"
    );
    let checked = estate.ask(&["check"]);
    assert_eq!(checked.status.code(), Some(78));
    curl(estate, "https://www.foobar.com/healthz", &[]);
    fs::write(tls.join("www.key"), good).expect("written");
    estate.foobar(&["tls", "reload"]);
    estate.foobar(&["check"]);
}

/// Requests without a pause, from a process of their own, until it is told to end.
struct Load(std::process::Child);

#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "told when a test fails")]
struct Sums {
    made: u64,
    failed: u64,
    /// On a kept connection that the server closed meanwhile, and made again.
    again: u64,
    errors: Vec<String>,
}

impl Load {
    fn begin(threads: usize) -> Self {
        let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/load.py");
        let mut command: Command = in_namespace("client", foobar_lab::servers::PYTHON);
        let child = command
            .arg(script)
            .args(["203.0.113.10", "443", CA, &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        Self(child)
    }

    fn end(mut self) -> Sums {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().expect("its sums");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

fn configuration() -> String {
    fs::read_to_string(Lab::config_path()).expect("a configuration")
}
