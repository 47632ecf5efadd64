//! Reloads, rotations, dying backends and upgrades while requests go on and on.

use std::{fs, path::Path, thread, time::Duration};

use foobar_lab::{Lab, STATE, estate::Estate, pki};

use super::{Load, Sums, configuration, json};

#[test]
fn no_request_fails_over_reloads_rotations_dying_backends_and_upgrades() {
    let estate = Estate::up();
    for (what, changes) in [
        ("100 reloads", reloads as fn(&Estate)),
        ("20 rotations", rotations),
        ("5 upgrades", upgrades),
        ("20 dead backends", deaths),
    ] {
        let load = Load::begin(8);
        thread::sleep(Duration::from_millis(500));
        changes(&estate);
        thread::sleep(Duration::from_millis(500));
        let sums = load.end();
        eprintln!("{what}: {sums:?}");
        let Sums { made, failed, .. } = &sums;
        assert!(*made > 100, "{what}: there was load: {sums:?}");
        assert_eq!(*failed, 0, "{what}: {sums:?}");
    }
}

fn reloads(estate: &Estate) {
    let first = configuration();
    for round in 0..100 {
        let (from, to) = match round % 4 {
            0 => ("min = \"1.2\"", "min = \"1.3\""),
            1 => ("\"h2\", \"http/1.1\"", "\"http/1.1\", \"h2\""),
            2 => (
                "listen = [\"public:443\"]\nhttp-redirect",
                "listen = [\"public:443\", \"public:4443\"]\nhttp-redirect",
            ),
            _ => (
                "max-connections = 50_000",
                WORKERS[round / 4 % WORKERS.len()],
            ),
        };
        assert!(first.contains(from), "{from}");
        fs::write(Lab::config_path(), first.replacen(from, to, 1)).expect("written");
        estate.foobar(&["reload"]);
    }
    fs::write(Lab::config_path(), first).expect("written");
    estate.foobar(&["reload"]);
}

/// Workers come and go too.
const WORKERS: [&str; 3] = [
    "workers = 4\nmax-connections = 40_000",
    "workers = 1\nmax-connections = 40_000",
    "workers = 3\nmax-connections = 40_000",
];

fn rotations(estate: &Estate) {
    for _ in 0..20 {
        pki::rotate(&Path::new(STATE).join("tls")).expect("a new pair");
        estate.foobar(&["tls", "reload"]);
        thread::sleep(Duration::from_millis(100));
    }
}

/// Killed, not stopped: connections break in the middle of whatever they were about. Requests here are safe to repeat.
fn deaths(estate: &Estate) {
    for round in 0..20 {
        let server = ["web1", "web2", "web3"][round % 3];
        estate.lab.kill_web(server).expect("it ran");
        thread::sleep(Duration::from_millis(300));
        estate.lab.start_web(server).expect("it starts");
        estate
            .lab
            .wait(&format!("{server} is up"), || {
                let status = json(&estate.foobar(&["backend", "list", "-o", "json"]));
                let rows = status["rows"].as_array().cloned().unwrap_or_default();
                rows.iter()
                    .filter(|service| service["name"] == "l7.www")
                    .filter_map(|service| service["backends"].as_array())
                    .flatten()
                    .all(|backend| backend["state"] == "up")
            })
            .expect("up again");
    }
}

fn upgrades(estate: &Estate) {
    let mut pid = controller(estate);
    for round in 0..5 {
        if round % 2 == 0 {
            let told = estate.foobar(&["upgrade"]);
            assert!(told.contains("serves now"), "{told}");
        } else {
            estate.lab.signal_foobar("lb1", 12).expect("it runs");
            estate
                .lab
                .wait("another process answers", || {
                    let status = estate.ask(&["status", "-o", "json"]);
                    serde_json::from_slice::<serde_json::Value>(&status.stdout)
                        .is_ok_and(|status| status["pid"].as_u64() != Some(pid))
                })
                .expect("an upgrade by SIGUSR2");
        }
        let next = controller(estate);
        assert_ne!(next, pid, "another process serves");
        pid = next;
        let number = u32::try_from(pid).expect("a pid");
        estate.lab.adopt_foobar("lb1", number).expect("it runs");
        thread::sleep(Duration::from_millis(300));
    }
}

fn controller(estate: &Estate) -> u64 {
    let status = estate.ask(&["status", "-o", "json"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    json(&text)["pid"].as_u64().expect("a pid")
}
