//! The whole estate: real clients, the balancer, three real servers, foobar on each of the four. Needs root.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use foobar::admin::api::Maps;
use foobar_lab::{Lab, Options};

const SERVICE: &str = "http://203.0.113.10:8080";
const SERVICE6: &str = "http://[2001:db8::10]:8080";
const HUP: i32 = 1;
const KILL: i32 = 9;

/// The lab, taken down at the end of a test however it ends.
struct Estate {
    lab: Lab,
    foobar: PathBuf,
    _lock: fs::File,
}

impl Estate {
    fn up() -> Self {
        let lock = foobar_lab::lock().expect("the lab is free");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let foobar = env::var_os("FOOBAR_BIN")
            .map(PathBuf::from)
            .expect("FOOBAR_BIN names the product; run `cargo xtask test`");
        let options = Options {
            config: root.join("config/foobar.toml"),
            foobar: Some(foobar.clone()),
        };
        let lab = Lab::up(&options, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            lab,
            foobar,
            _lock: lock,
        }
    }

    /// One request from the internet; the server that answered.
    fn whoami(&self, service: &str, more: &[&str]) -> Option<String> {
        let url = format!("{service}/whoami");
        let command = [&["curl", "-gsSf", "-m3", &url], more].concat();
        let output = self.lab.run("client", &command).expect("curl");
        let text = String::from_utf8(output.stdout).ok()?;
        let (_, rest) = text.split_once("\"server\": \"")?;
        Some(rest.split_once('"')?.0.to_owned())
    }

    fn shares(&self, service: &str, requests: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..requests {
            let server = self
                .whoami(service, &[])
                .expect("every request is answered");
            *shares.entry(server).or_default() += 1;
        }
        shares
    }

    /// Requests without a pause while `meanwhile` runs; how many were made and how many failed.
    fn load(&self, meanwhile: impl FnOnce()) -> (usize, usize) {
        let goes_on = AtomicBool::new(true);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut made, mut failed) = (0, 0);
                        while goes_on.load(Ordering::Relaxed) {
                            made += 1;
                            failed += usize::from(self.whoami(SERVICE, &[]).is_none());
                        }
                        (made, failed)
                    })
                })
                .collect();
            meanwhile();
            goes_on.store(false, Ordering::Relaxed);
            clients
                .into_iter()
                .map(|client| client.join().expect("a client"))
                .fold((0, 0), |(a, b), (made, failed)| (a + made, b + failed))
        })
    }

    fn packets_of_rule(&self, policy: &str, rule: &str) -> u64 {
        foobar::snapshot::of_pins("lb1", Maps::LeftOut)
            .expect("lb1 counts")
            .rules
            .iter()
            .find(|counters| counters.policy == policy && counters.rule == rule)
            .map_or(0, |counters| counters.count.packets)
    }

    /// Runs the product's command line on the balancer; it must succeed.
    fn foobar(&self, arguments: &[&str]) -> String {
        let foobar = self.foobar.to_str().expect("UTF-8");
        let config = Lab::config_path();
        let config = config.to_str().expect("UTF-8");
        let command = [&[foobar, "-c", config, "--node", "lb1"], arguments].concat();
        let output = self.lab.run("lb1", &command).expect("foobar");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn rewrite(&self, from: &str, to: &str) {
        let path = Lab::config_path();
        let text = fs::read_to_string(&path).expect("a configuration");
        assert!(text.contains(from), "{from} is in the configuration");
        fs::write(&path, text.replace(from, to)).expect("written");
    }
}

impl Drop for Estate {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(Some(&self.foobar)) {
            eprintln!("cannot take the lab down: {error:#}");
        }
    }
}

#[test]
fn clients_reach_all_servers_about_evenly_and_servers_reach_nobody_else() {
    let estate = Estate::up();
    for service in [SERVICE, SERVICE6] {
        let shares = estate.shares(service, 90);
        for server in ["web1", "web2", "web3"] {
            // 90 requests to three servers: 30 ± 4.5; 12 is four deviations away.
            assert!(
                shares.get(server).is_some_and(|share| *share >= 12),
                "{shares:?}"
            );
        }
    }
    let lab = &estate.lab;
    let tls = [
        "curl",
        "-sSf",
        "-m3",
        "--cacert",
        "/run/foobar-lab/ca.pem",
        "--resolve",
        "www.foobar.com:8443:203.0.113.10",
        "https://www.foobar.com:8443/static/64k",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
    ];
    let output = lab.run("client", &tls).expect("curl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "65536");
    assert!(lab.succeeds("client", &["ping", "-c1", "-W2", "203.0.113.10"]));
    assert!(lab.succeeds("client", &["ping", "-c1", "-W2", "2001:db8::10"]));
    assert!(
        !lab.succeeds("web2", &["curl", "-sSf", "-m2", "http://10.0.0.13/healthz"]),
        "a server opens no connection that its egress rules forbid"
    );
    assert!(
        !lab.succeeds(
            "client",
            &["curl", "-sSf", "-m2", "http://203.0.113.10:8081/"]
        ),
        "no other port is open"
    );
}

#[test]
fn a_dead_server_gets_no_new_connection_and_the_others_lose_none() {
    let estate = Estate::up();
    let download = |server: usize| {
        let url = format!("{SERVICE}/slow?ms=6000&n={server}");
        estate
            .lab
            .succeeds("client", &["curl", "-sSf", "-m12", &url])
    };
    thread::scope(|scope| {
        // Begun before the death: those on the other two must end well; about a third is on the dead one.
        let before: Vec<_> = (0..18).map(|n| scope.spawn(move || download(n))).collect();
        thread::sleep(Duration::from_millis(500));
        estate.lab.stop_web("web2").expect("nginx ends");
        thread::sleep(Duration::from_millis(4500));
        let shares = estate.shares(SERVICE, 30);
        assert!(!shares.contains_key("web2"), "{shares:?}");
        let survived = before
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .filter(|succeeded| *succeeded)
            .count();
        assert!(survived >= 6, "{survived} of 18 survived");
    });
    estate.lab.start_web("web2").expect("nginx starts");
    estate
        .lab
        .wait("web2 is back", || {
            estate.whoami(SERVICE, &[]).as_deref() == Some("web2")
        })
        .expect("it rises");
}

#[test]
fn a_kill_of_the_controller_under_load_loses_no_request() {
    let estate = Estate::up();
    let (made, failed) = estate.load(|| {
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(400));
            estate.lab.signal_foobar("lb1", KILL).expect("it ran");
            thread::sleep(Duration::from_millis(800));
            estate.lab.start_foobar("lb1").expect("it starts again");
        }
        thread::sleep(Duration::from_millis(1500));
    });
    assert!(made > 50, "{made} requests");
    assert_eq!(failed, 0, "of {made} requests");
}

#[test]
fn two_hundred_reloads_under_load_lose_no_packet() {
    let estate = Estate::up();
    let (made, failed) = estate.load(|| {
        let ping = thread::scope(|scope| {
            let ping = scope.spawn(|| {
                let command = [
                    "ping",
                    "-q",
                    "-i",
                    "0.02",
                    "-c",
                    "1000",
                    "-W",
                    "2",
                    "203.0.113.10",
                ];
                estate.lab.run("client", &command).expect("ping")
            });
            for round in 0..200 {
                let (from, to) = if round % 2 == 0 {
                    ("burst = 4_000", "burst = 4_001")
                } else {
                    ("burst = 4_001", "burst = 4_000")
                };
                estate.rewrite(from, to);
                estate.foobar(&["reload"]);
            }
            ping.join().expect("ping")
        });
        let told = String::from_utf8_lossy(&ping.stdout).into_owned();
        assert!(told.contains("1000 received"), "{told}");
    });
    assert!(made > 100, "{made} requests");
    assert_eq!(failed, 0, "of {made} requests");
}

#[test]
fn a_denied_source_gets_nothing_and_is_counted_under_its_rule() {
    let estate = Estate::up();
    let denied = ["--interface", "198.51.100.66"];
    assert!(estate.whoami(SERVICE, &denied).is_some());
    estate.foobar(&["set", "add", "blocklist", "198.51.100.66"]);
    assert!(estate.whoami(SERVICE, &denied).is_none());
    assert!(estate.packets_of_rule("edge", "jailed") > 0);
    assert!(estate.whoami(SERVICE, &[]).is_some(), "others go on");
    let before = estate.packets_of_rule("edge", "web");
    let explained = estate.foobar(&["explain", "tcp", "198.51.100.66", "203.0.113.10:8080"]);
    assert!(
        explained.contains("edge/jailed") && explained.contains("blocklist"),
        "{explained}"
    );
    estate.rewrite("policy = \"drop\"", "policy = \"dorp\"");
    estate.lab.signal_foobar("lb1", HUP).expect("lb1 runs");
    thread::sleep(Duration::from_millis(500));
    assert!(
        estate.whoami(SERVICE, &[]).is_some(),
        "a bad file changes nothing"
    );
    assert!(estate.packets_of_rule("edge", "web") > before);
}
