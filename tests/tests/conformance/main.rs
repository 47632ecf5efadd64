//! Suites of others, and what the standards demand, against the sites of the estate. Slow: `cargo xtask conformance`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use foobar_lab::{STATE, estate::Estate, in_namespace, servers::PYTHON};
use serde_json::Value;

const CA: &str = "/run/foobar-lab/ca.pem";

fn ran(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

#[test]
#[ignore = "slow; `cargo xtask conformance`"]
fn http2_frames_are_judged_as_the_standard_says() {
    judged_by("frames.py");
}

#[test]
#[ignore = "slow; `cargo xtask conformance`"]
fn greetings_are_judged_as_the_standard_says() {
    judged_by("greetings.py");
}

fn judged_by(script: &str) {
    let estate = Estate::up();
    // Each case is an offence; they shall all be heard.
    estate.rewrite(
        "jail = \"jail\"\n\n# gRPC",
        "jail = \"jail\"\njail-after = 10000\n\n# gRPC",
    );
    estate.foobar(&["reload"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/conformance")
        .join(script);
    // -B: what it imports leaves nothing compiled beside it.
    let output = ran(in_namespace("client", PYTHON).arg("-B").arg(script).arg(CA));
    let text = String::from_utf8_lossy(&output.stdout);
    eprintln!("{text}");
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "slow; `cargo xtask conformance`"]
fn sslyze_finds_nothing_weak() {
    let _estate = Estate::up();
    let python = env::var_os("FOOBAR_CONFORMANCE")
        .map(|venv| PathBuf::from(venv).join("bin/python"))
        .expect("FOOBAR_CONFORMANCE names the environment; run `cargo xtask conformance`");
    let report = Path::new(STATE).join("sslyze.json");
    let output = ran(in_namespace("client", &python)
        .args([
            "-m",
            "sslyze",
            "--sni",
            "www.foobar.com",
            "--mozilla_config",
            "disable",
            "--sslv2",
            "--sslv3",
            "--tlsv1",
            "--tlsv1_1",
            "--tlsv1_2",
            "--tlsv1_3",
            "--heartbleed",
            "--openssl_ccs",
            "--compression",
            "--reneg",
            "--early_data",
            "--robot",
            "--resum",
            "--json_out",
        ])
        .arg(&report)
        .arg("203.0.113.10:443"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&fs::read_to_string(report).expect("a report"))
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    let results = &report["server_scan_results"][0]["scan_result"];
    let accepted = |version: &str| {
        let suites = &results[version]["result"]["accepted_cipher_suites"];
        suites.as_array().map_or(0, Vec::len)
    };
    for old in [
        "ssl_2_0_cipher_suites",
        "ssl_3_0_cipher_suites",
        "tls_1_0_cipher_suites",
        "tls_1_1_cipher_suites",
    ] {
        assert_eq!(accepted(old), 0, "{old}");
    }
    assert!(
        accepted("tls_1_2_cipher_suites") >= 2 && accepted("tls_1_3_cipher_suites") >= 2,
        "{text}"
    );
    for (check, field, good) in [
        (
            "heartbleed",
            "is_vulnerable_to_heartbleed",
            Value::Bool(false),
        ),
        (
            "openssl_ccs_injection",
            "is_vulnerable_to_ccs_injection",
            Value::Bool(false),
        ),
        (
            "tls_compression",
            "supports_compression",
            Value::Bool(false),
        ),
        (
            "session_renegotiation",
            "is_vulnerable_to_client_renegotiation_dos",
            Value::Bool(false),
        ),
        (
            "tls_1_3_early_data",
            "supports_early_data",
            Value::Bool(false),
        ),
    ] {
        assert_eq!(
            results[check]["result"][field], good,
            "{check}: {}",
            results[check]
        );
    }
    let robot = results["robot"]["result"]["robot_result"]
        .as_str()
        .unwrap_or_default();
    assert!(robot.starts_with("NOT_VULNERABLE"), "{robot}");
}

#[test]
#[ignore = "slow; `cargo xtask conformance`"]
fn testssl_finds_nothing_grave() {
    let _estate = Estate::up();
    let report = Path::new(STATE).join("testssl.json");
    let output = ran(in_namespace("client", "testssl")
        .args([
            "--quiet",
            "--color",
            "0",
            "--ip",
            "203.0.113.10",
            "--nodns",
            "none",
            "--add-ca",
            CA,
            "--jsonfile",
        ])
        .arg(&report)
        .arg("www.foobar.com:443"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&fs::read_to_string(report).expect("a report"))
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    let findings = report.as_array().expect("findings");
    assert!(findings.len() > 100, "it looked: {text}");
    // The lab's authority publishes neither OCSP nor CRL, is in no store, and signs for ever. The order of ciphers is the
    // client's on purpose: it knows whether it has AES in hardware.
    let of_the_lab = [
        "cert_chain_of_trust",
        "cert_revocation",
        "cert_crlDistributionPoints",
        "cert_ocspURL",
        "DNS_CAArecord",
        "cert_validityPeriod",
        "cipher_order",
    ];
    let grave: Vec<&Value> = findings
        .iter()
        .filter(|finding| matches!(finding["severity"].as_str(), Some("HIGH" | "CRITICAL")))
        .filter(|finding| {
            let id = finding["id"].as_str().unwrap_or_default();
            !of_the_lab.iter().any(|known| id.starts_with(known))
        })
        .collect();
    assert!(grave.is_empty(), "{grave:#?}");
}

#[test]
#[ignore = "slow; `cargo xtask conformance`"]
fn a_browser_reaches_the_site() {
    let _estate = Estate::up();
    let profile = Path::new(STATE).join("chromium");
    let output = ran(in_namespace("client", "chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * 203.0.113.10",
            "--ignore-certificate-errors",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("https://www.foobar.com/whoami"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("\"server\": \"web"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
