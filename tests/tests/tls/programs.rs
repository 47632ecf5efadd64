//! What real programs on either side make of the proxy: openssl's OCSP, nginx and HAProxy by the PROXY protocol, curl.

use std::{fs, path::Path, process::Child};

use foobar_lab::{Lab, STATE, estate::Estate, in_namespace};

use super::{CA, configuration, curl, json};

const WHOAMI: &str = "https://www.foobar.com/whoami";
/// The end of `[l7.www]`.
const END: &str = "jail = \"jail\"\n\n# gRPC";

#[test]
fn real_programs_see_what_the_configuration_says() {
    let estate = Estate::up();
    let first = configuration();
    let with = |changes: &[(&str, &str)]| {
        let changed = changes.iter().fold(first.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        fs::write(Lab::config_path(), changed).expect("written");
        estate.foobar(&["reload"]);
    };
    with(&[]);
    openssl_sees_the_stapled_response(&estate, &with);
    curl_sees_the_pages(&estate, &with);
    haproxy_says_whose_connection_it_is(&estate, &with);
    nginx_hears_whose_connection_it_is(&estate, &with);
}

type Reconfigure<'a> = &'a dyn Fn(&[(&str, &str)]);

fn openssl_sees_the_stapled_response(estate: &Estate, with: Reconfigure<'_>) {
    let tls = Path::new(STATE).join("tls");
    // What an authority's responder would say of the certificate, good for a day.
    let answer = "set -e; cd \"$0\"\n\
        serial=$(openssl x509 -in www.pem -noout -serial | cut -d= -f2)\n\
        printf 'V\\t491231235959Z\\t\\t%s\\tunknown\\t/CN=www\\n' \"$serial\" > index.txt\n\
        openssl ocsp -no_nonce -issuer ca.pem -cert www.pem -reqout www.request\n\
        openssl ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -ndays 1 \
          -reqin www.request -respout www.ocsp";
    let made = estate
        .lab
        .run(
            "client",
            &["sh", "-c", answer, tls.to_str().expect("UTF-8")],
        )
        .expect("openssl");
    assert!(
        tls.join("www.ocsp").exists(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let status = || {
        let ask = format!(
            "openssl s_client -status -connect 203.0.113.10:443 -servername www.foobar.com -CAfile {CA} </dev/null 2>&1"
        );
        let output = estate
            .lab
            .run("client", &["sh", "-c", &ask])
            .expect("openssl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let before = status();
    assert!(
        before.contains("OCSP response: no response sent"),
        "{before}"
    );
    with(&[(
        "key = { file = \"tls/www.key\" }, min",
        "key = { file = \"tls/www.key\" }, ocsp = \"tls/www.ocsp\", min",
    )]);
    let stapled = status();
    assert!(
        stapled.contains("OCSP Response Status: successful")
            && stapled.contains("Cert Status: good"),
        "{stapled}"
    );
    let listed = json(&estate.foobar(&["tls", "show", "www", "-o", "json"]));
    assert_eq!(listed["rows"][0]["stapled"], true, "{listed}");
}

fn curl_sees_the_pages(estate: &Estate, with: Reconfigure<'_>) {
    let state = Path::new(STATE);
    fs::write(state.join("sorry.html"), "<h1>Sorry</h1>\n").expect("written");
    fs::write(state.join("works.html"), "<h1>Road works</h1>\n").expect("written");
    let pages = format!(
        "pages = {{ \"503\" = \"{}\", maintenance = \"{}\" }}",
        state.join("sorry.html").display(),
        state.join("works.html").display()
    );
    let end = |more: &str| END.replace("\n\n", &format!("\n{pages}\n{more}\n\n"));
    with(&[(END, &end(""))]);
    let ask = |flag: &str| {
        curl(
            estate,
            WHOAMI,
            &[flag, "-D-", "-w", "%{http_code} %{content_type}"],
        )
    };
    assert!(ask("--http1.1").contains("\"server\""));
    for server in ["web1", "web2", "web3"] {
        estate.foobar(&["backend", "disable", "l7.www", server]);
    }
    for flag in ["--http1.1", "--http2"] {
        let answer = ask(flag);
        assert!(
            answer.ends_with("<h1>Sorry</h1>\n503 text/html; charset=utf-8"),
            "{answer}"
        );
        assert!(answer.to_lowercase().contains("retry-after: "), "{answer}");
    }
    // Read again without a reload, as certificates are.
    fs::write(state.join("sorry.html"), "<h1>Still sorry</h1>\n").expect("written");
    estate
        .lab
        .wait("the new page", || ask("--http1.1").contains("Still sorry"))
        .expect("it is read when it changes");
    for server in ["web1", "web2", "web3"] {
        estate.foobar(&["backend", "enable", "l7.www", server]);
    }
    with(&[(END, &end("maintenance = true"))]);
    for flag in ["--http1.1", "--http2"] {
        let answer = ask(flag);
        assert!(
            answer.ends_with("<h1>Road works</h1>\n503 text/html; charset=utf-8"),
            "{answer}"
        );
    }
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn haproxy_says_whose_connection_it_is(estate: &Estate, with: Reconfigure<'_>) {
    with(&[
        (
            "listen = [\"public:443\"]\nhttp-redirect",
            "listen = [\"public:443\"]\nproxy-protocol = { from = [\"198.51.100.0/24\"] }\nhttp-redirect",
        ),
        (
            "listen = [\"public:443\"]\nhosts = [\"grpc",
            "listen = [\"public:443\"]\nproxy-protocol = { from = [\"198.51.100.0/24\"] }\nhosts = [\"grpc",
        ),
    ]);
    let home = Path::new(STATE).join("haproxy.cfg");
    let text = "defaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
        listen one\n bind 127.0.0.1:7001\n server lb1 203.0.113.10:443 send-proxy\n\
        listen two\n bind 127.0.0.1:7002\n server lb1 203.0.113.10:443 send-proxy-v2\n";
    fs::write(&home, text).expect("written");
    let child = in_namespace("client", "haproxy")
        .arg("-db")
        .arg("-f")
        .arg(&home)
        .spawn()
        .expect("haproxy");
    let _running = Running(child);
    let ask = |port: &str| {
        let through = format!("www.foobar.com:443:127.0.0.1:{port}");
        super::try_curl(
            estate,
            WHOAMI,
            &["--interface", "127.0.0.9", "--connect-to", &through],
        )
    };
    estate
        .lab
        .wait("HAProxy listens", || ask("7001").status.success())
        .expect("by version 1");
    for port in ["7001", "7002"] {
        let answer = String::from_utf8_lossy(&ask(port).stdout).into_owned();
        let client = json(&answer)["headers"]["x-forwarded-for"].clone();
        assert_eq!(client, "127.0.0.9", "{port}: {answer}");
    }
}

fn nginx_hears_whose_connection_it_is(estate: &Estate, with: Reconfigure<'_>) {
    let configuration = Path::new(STATE).join("web1/nginx.conf");
    let announced = fs::read_to_string(&configuration)
        .expect("nginx's configuration")
        .replace(
            "listen 8444 ssl; listen [::]:8444 ssl;",
            "listen 8444 ssl proxy_protocol;",
        )
        .replace("X-Peer $remote_addr", "X-Peer $proxy_protocol_addr");
    fs::write(&configuration, announced).expect("written");
    estate.lab.kill_web("web1").expect("it ran");
    estate.lab.start_web("web1").expect("it starts");
    let alone = (
        "{ host = \"web1\", port = 8444 }, { host = \"web2\", port = 8444 }, { host = \"web3\", port = 8444 }",
        "{ host = \"web1\", port = 8444 }",
    );
    for version in ["v1", "v2"] {
        with(&[alone]);
        comes_to_be(estate, "down");
        let end = format!(
            "jail = \"jail\"\nproxy-protocol = {{ to-backends = \"{version}\" }}\n\n# gRPC"
        );
        with(&[(END, &end), alone]);
        comes_to_be(estate, "up");
        let answer = curl(estate, WHOAMI, &["--interface", "198.51.100.30"]);
        let headers = json(&answer)["headers"].clone();
        assert_eq!(headers["x-peer"], headers["x-forwarded-for"], "{version}");
        assert_eq!(headers["x-peer"], "198.51.100.30", "{version}: {answer}");
        assert_eq!(
            headers["x-certificate"], "CN=lb1",
            "encrypted behind the header"
        );
    }
}

/// What the `http` check makes of the site's only backend.
fn comes_to_be(estate: &Estate, state: &str) {
    estate
        .lab
        .wait(&format!("the backend is {state}"), || {
            let listed = json(&estate.foobar(&["backend", "list", "-o", "json"]));
            let rows = listed["rows"].as_array().cloned().unwrap_or_default();
            rows.iter()
                .filter(|service| service["name"] == "l7.www")
                .any(|www| www["backends"][0]["state"] == state)
        })
        .expect("checked");
}
