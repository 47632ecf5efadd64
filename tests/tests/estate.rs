//! The whole estate: real clients, the balancer, three real servers, foobar on each of the four. Needs root.

use std::{thread, time::Duration};

use foobar_lab::estate::{Estate, SERVICE, SERVICE6};

const HUP: i32 = 1;
const KILL: i32 = 9;
/// Connections that are open when a server dies.
const CLIENTS: usize = 18;

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
    let download = |number: usize| {
        let url = format!("{SERVICE}/slow?ms=10000&n={number}");
        estate
            .lab
            .succeeds("client", &["curl", "-sSf", "-m60", &url])
    };
    thread::scope(|scope| {
        let before: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || download(number)))
            .collect();
        let open = || ["web1", "web2", "web3"].map(|server| estate.connections_of(server));
        estate
            .lab
            .wait("all are connected", || {
                open().iter().sum::<usize>() == CLIENTS
            })
            .expect("connections");
        let [first, dead, third] = open();
        estate.lab.stop_web("web2").expect("nginx ends");
        estate
            .lab
            .wait("web2 is seen dead by both its addresses", || {
                let told = estate.ask(&["status"]).stdout;
                let told = String::from_utf8_lossy(&told).into_owned();
                ["10.0.0.12", "fd00::12"]
                    .iter()
                    .all(|address| told.contains(&format!("web2:80 {address}: down")))
            })
            .expect("a warning");
        let shares = estate.shares(SERVICE, 30);
        assert!(!shares.contains_key("web2"), "{shares:?}");
        let survived = before
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .filter(|succeeded| *succeeded)
            .count();
        assert_eq!(survived, first + third, "{dead} were on the dead one");
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
    let hasty = [&denied[..], &["-m3"]].concat();
    assert!(estate.whoami(SERVICE, &hasty).is_none());
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
