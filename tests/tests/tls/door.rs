//! Who gets in: certificates of clients, senders of the PROXY protocol, resumed sessions, floods of handshakes.

use std::{fs, path::Path};

use foobar_lab::{Lab, STATE, estate::Estate};

use super::{CA, client, configuration, curl, json, try_curl};

const ASKED: &str = "https://www.foobar.com/healthz";

#[test]
fn the_door_asks_who_it_is_and_keeps_floods_out() {
    let estate = Estate::up();
    let first = configuration();
    sessions_are_resumed_over_an_upgrade(&estate);
    let with = |from: &str, to: &str| {
        assert!(first.contains(from), "{from}");
        fs::write(Lab::config_path(), first.replacen(from, to, 1)).expect("written");
        estate.foobar(&["reload"]);
    };
    with("min = \"1.2\"", "client-ca = \"tls/internal-ca.pem\"");
    clients_show_certificates(&estate);
    let everywhere = first.replace(
        "listen = [\"public:443\"]",
        "listen = [\"public:443\"]\nproxy-protocol = { from = [\"203.0.113.0/24\", \"198.51.100.0/24\"] }",
    );
    fs::write(Lab::config_path(), everywhere).expect("written");
    estate.foobar(&["reload"]);
    client("proxied_client.py");
    assert!(
        !try_curl(&estate, ASKED, &[]).status.success(),
        "a trusted sender must say whose connection it is"
    );
    with(
        "handshakes-per-client = \"500/s\"",
        "handshakes-per-client = \"2/s\"\nhandshakes-burst = 5",
    );
    floods_end_in_the_jail(&estate);
}

fn sessions_are_resumed_over_an_upgrade(estate: &Estate) {
    let session = Path::new(STATE).join("session");
    let session = session.to_str().expect("UTF-8");
    let shake = |version: &str, flag: &str| {
        let command = format!(
            "printf 'GET /healthz HTTP/1.1\\r\\nHost: www.foobar.com\\r\\nConnection: close\\r\\n\\r\\n' | \
             timeout 30 openssl s_client -ign_eof -connect 203.0.113.10:443 -servername www.foobar.com -CAfile {CA} \
             -{version} -{flag} {session} 2>&1"
        );
        let output = estate
            .lab
            .run("client", &["sh", "-c", &command])
            .expect("openssl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for version in ["tls1_3", "tls1_2"] {
        let full = shake(version, "sess_out");
        assert!(full.contains("New, TLSv1."), "{full}");
        let told = estate.foobar(&["upgrade"]);
        assert!(told.contains("serves now"), "{told}");
        let status = json(&estate.foobar(&["status", "-o", "json"]));
        let pid = status["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        estate
            .lab
            .adopt_foobar("lb1", pid.expect("a pid"))
            .expect("it runs");
        let resumed = shake(version, "sess_in");
        assert!(resumed.contains("Reused, TLSv1."), "{resumed}");
    }
}

fn clients_show_certificates(estate: &Estate) {
    let stranger = try_curl(estate, ASKED, &[]);
    assert!(!stranger.status.success(), "no certificate, no answer");
    let tls = Path::new(STATE).join("tls");
    let (cert, key) = (tls.join("web1.pem"), tls.join("web1.key"));
    let known = [
        "--cert",
        cert.to_str().expect("UTF-8"),
        "--key",
        key.to_str().expect("UTF-8"),
    ];
    assert_eq!(curl(estate, ASKED, &known), "ok\n");
    let (cert, key) = (tls.join("www.pem"), tls.join("www.key"));
    let other = [
        "--cert",
        cert.to_str().expect("UTF-8"),
        "--key",
        key.to_str().expect("UTF-8"),
    ];
    assert!(
        !try_curl(estate, ASKED, &other).status.success(),
        "of another authority"
    );
}

fn floods_end_in_the_jail(estate: &Estate) {
    let jailed = || {
        let rows = json(&estate.foobar(&["set", "show", "jail", "-o", "json"]));
        rows["rows"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(jailed(), 0);
    let flood = "for i in $(seq 40); do curl -so /dev/null -m1 --cacert /run/foobar-lab/ca.pem \
                 --resolve www.foobar.com:443:203.0.113.10 https://www.foobar.com/healthz & done; wait";
    estate
        .lab
        .run("client", &["sh", "-c", flood])
        .expect("curl");
    estate
        .lab
        .wait("the client is jailed", || jailed() == 1)
        .expect("offences were reported");
    let before = estate.packets_of_rule("edge", "jailed");
    assert!(
        !try_curl(estate, ASKED, &["-m2"]).status.success(),
        "XDP drops it now"
    );
    assert!(estate.packets_of_rule("edge", "jailed") > before);
    floods_are_counted(estate);
    estate.foobar(&["set", "flush", "jail"]);
    estate
        .lab
        .wait("let out", || {
            try_curl(estate, ASKED, &["-m2"]).status.success()
        })
        .expect("served again");
}

fn floods_are_counted(estate: &Estate) {
    let snapshot = json(&estate.foobar(&["stats", "services", "-o", "json"]));
    let door = |cell: &str| snapshot["door"][cell].as_u64().unwrap_or_default();
    assert!(
        door("accepted") > 0 && door("refused_rate") > 0,
        "{snapshot}"
    );
    // Those who had to say whose connection it is and did not.
    assert!(door("bad_proxied") > 0, "{snapshot}");
    assert_eq!(door("faults"), 0, "{snapshot}");
    let mut sites = snapshot["sites"].as_array().expect("sites").iter();
    let www = sites.find(|site| site["name"] == "l7.www").expect("www");
    assert_eq!(www["counts"]["offenders"], 1, "{snapshot}");
    let table = estate.foobar(&["stats", "services"]);
    assert!(
        table.contains("refused-rate") && table.contains("offenders"),
        "{table}"
    );
    let metrics = estate
        .lab
        .run(
            "lb1",
            &["curl", "-sS", "-m5", "http://10.0.0.10:9101/metrics"],
        )
        .expect("curl");
    let metrics = String::from_utf8_lossy(&metrics.stdout);
    for series in [
        "foobar_proxy_connections_total{",
        "outcome=\"refused-rate\"",
        "foobar_proxy_handshakes_failed_total{",
        "foobar_http_offenders_total{",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
}
