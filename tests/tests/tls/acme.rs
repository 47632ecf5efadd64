//! Certificates from a real ACME server: ordered, proved by HTTP and by TLS, renewed, kept over a restart.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use foobar_lab::{STATE, estate::Estate, in_namespace};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{configuration, json, try_curl};

/// Pebble, the test server of Let's Encrypt's authors, in the internet.
struct Pebble(Child);

impl Pebble {
    /// Its certificates are good for `seconds`.
    fn start(estate: &Estate, seconds: u32) -> Self {
        let home = Path::new(STATE).join("pebble");
        fs::create_dir_all(&home).expect("a directory");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
            .expect("an authority");
        fs::write(Path::new(STATE).join("tls/acme-ca.pem"), authority.pem()).expect("written");
        foobar_lab::pki::issue(&authority, &home, "pebble", &["203.0.113.1"]).expect("a pair");
        let configuration = serde_json::json!({ "pebble": {
            "listenAddress": "203.0.113.1:14000",
            "managementListenAddress": "203.0.113.1:15000",
            "certificate": home.join("pebble.pem"),
            "privateKey": home.join("pebble.key"),
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": seconds,
        }});
        let path = home.join("pebble.json");
        fs::write(&path, configuration.to_string()).expect("written");
        let log = fs::File::create(home.join("log")).expect("a log");
        let child = in_namespace("client", "pebble")
            .args(["-dnsserver", "203.0.113.1:53", "-config"])
            .arg(path)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("pebble; `cargo xtask setup` installs it");
        let pebble = Self(child);
        let directory = "https://203.0.113.1:14000/dir";
        estate
            .lab
            .wait("the ACME server answers", || {
                estate
                    .lab
                    .succeeds("client", &["curl", "-sfkm1", directory])
            })
            .expect("it starts");
        pebble
    }

    fn root(estate: &Estate) -> String {
        let output = estate.lab.run(
            "client",
            &["curl", "-skm5", "https://203.0.113.1:15000/roots/0"],
        );
        let path = Path::new(STATE).join("pebble/root.pem");
        fs::write(&path, output.expect("curl").stdout).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn certificates_are_ordered_proved_renewed_and_kept() {
    let estate = Estate::up();
    let _pebble = Pebble::start(&estate, 24);
    let first = configuration();
    let tls = "tls = { cert = \"tls/www.pem\", key = { file = \"tls/www.key\" }, min = \"1.2\", alpn = [\"h2\", \"http/1.1\"] }";
    assert!(first.contains(tls));
    for challenge in ["tls-alpn-01", "http-01"] {
        let acme = format!(
            "tls = {{ acme = {{ directory = \"https://203.0.113.1:14000/dir\", ca = \"tls/acme-ca.pem\", contact = \"admin@foobar.com\", challenge = \"{challenge}\" }} }}"
        );
        let names = match challenge {
            "http-01" => "hosts = [\"www.foobar.com\", \"foobar.com\"]",
            // Other names want another certificate.
            _ => "hosts = [\"www.foobar.com\", \"shop.foobar.com\"]",
        };
        let text = first.replacen(tls, &acme, 1).replacen(
            "hosts = [\"www.foobar.com\", \"foobar.com\"]",
            names,
            1,
        );
        fs::write(foobar_lab::Lab::config_path(), text).expect("written");
        estate.foobar(&["reload"]);
        let before = wait_for_another(&estate, "");
        let root = Pebble::root(&estate);
        let trusted = try_curl(
            &estate,
            "https://www.foobar.com/healthz",
            &["--cacert", &root],
        );
        assert!(
            trusted.status.success(),
            "{}",
            String::from_utf8_lossy(&trusted.stderr)
        );
        if challenge == "http-01" {
            let renewed = wait_for_another(&estate, &before);
            restart(&estate);
            let (kept, issuer) = certificate(&estate);
            assert!(
                issuer.contains("Pebble") && kept.len() == renewed.len(),
                "{issuer}"
            );
        }
    }
}

/// Waits for a certificate of Pebble's with another serial number.
fn wait_for_another(estate: &Estate, before: &str) -> String {
    let mut serial = String::new();
    let obtained = estate.lab.wait("a certificate from the ACME server", || {
        let (found, issuer) = certificate(estate);
        let is_new = issuer.contains("Pebble") && found != before && covers_all(estate);
        serial = found;
        is_new
    });
    if let Err(error) = obtained {
        let status = estate.ask(&["status"]);
        panic!("{error:#}\n{}", String::from_utf8_lossy(&status.stdout));
    }
    serial
}

fn row(estate: &Estate) -> serde_json::Value {
    json(&estate.foobar(&["tls", "show", "www", "-o", "json"]))["rows"][0].clone()
}

fn certificate(estate: &Estate) -> (String, String) {
    let row = row(estate);
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (text("serial"), text("issuer"))
}

/// As many names as the service has.
fn covers_all(estate: &Estate) -> bool {
    let wanted = if configuration().contains("shop.foobar.com") {
        "shop.foobar.com"
    } else {
        "foobar.com"
    };
    let row = row(estate);
    let names = row["names"].as_array().cloned().unwrap_or_default();
    names.iter().any(|name| name == wanted)
}

fn restart(estate: &Estate) {
    estate.lab.signal_foobar("lb1", 15).expect("it runs");
    estate
        .lab
        .wait("the controller ends", || {
            !estate.ask(&["status"]).status.success()
                && estate.ask(&["status"]).status.code() == Some(3)
        })
        .expect("ended");
    estate.lab.start_foobar("lb1").expect("it starts again");
    estate
        .lab
        .wait("it answers", || {
            estate.ask(&["tls", "list"]).status.success()
        })
        .expect("running");
}
