//! The lab as a test has it: to itself, with the product on it, taken down however the test ends.
#![expect(
    clippy::missing_panics_doc,
    reason = "tests panic rather than return errors: it keeps the stack trace"
)]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use foobar::admin::api::Maps;

use crate::{Lab, Options, databases::Databases, disks::Disks, in_namespace};

pub const SERVICE: &str = "http://203.0.113.10:8080";
pub const SERVICE6: &str = "http://[2001:db8::10]:8080";

/// The lab, taken down at the end of a test however it ends.
#[derive(Debug)]
pub struct Estate {
    pub lab: Lab,
    pub foobar: PathBuf,
    _lock: fs::File,
}

impl Estate {
    pub fn up() -> Self {
        Self::up_with(Databases::default(), Disks::Shared)
    }

    /// With another set-up of databases, or on other disks.
    pub fn up_with(databases: Databases, disks: Disks) -> Self {
        Self::up_from(example(), databases, disks)
    }

    /// With another configuration, made of the text of the example.
    pub fn up_as(change: impl FnOnce(String) -> String) -> Self {
        let text = fs::read_to_string(example()).expect("the example");
        let path = env::temp_dir().join(format!("foobar-lab-{}.toml", process::id()));
        fs::write(&path, change(text)).expect("written");
        Self::up_from(path, Databases::default(), Disks::Shared)
    }

    fn up_from(config: PathBuf, databases: Databases, disks: Disks) -> Self {
        let lock = crate::lock().expect("the lab is free");
        let foobar = env::var_os("FOOBAR_BIN")
            .map(PathBuf::from)
            .expect("FOOBAR_BIN names the product; run `cargo xtask test`");
        let options = Options {
            config,
            foobar: Some(foobar.clone()),
            databases,
        };
        let lab =
            Lab::up_on(disks, &options, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            lab,
            foobar,
            _lock: lock,
        }
    }

    /// With such databases; where they cannot be had, nothing, and the run counts the test as skipped.
    pub fn up_if_possible(test: &str, databases: Databases) -> Option<Self> {
        if let Some(why) = databases.missing() {
            skip(test, &why);
            return None;
        }
        Some(Self::up_with(databases, Disks::Shared))
    }

    /// One request from the internet; the server that answered.
    pub fn whoami(&self, service: &str, more: &[&str]) -> Option<String> {
        let url = format!("{service}/whoami");
        let command = [&["curl", "-gsSf", "-m10", &url], more].concat();
        let output = self.lab.run("client", &command).expect("curl");
        let text = String::from_utf8(output.stdout).ok()?;
        let (_, rest) = text.split_once("\"server\": \"")?;
        Some(rest.split_once('"')?.0.to_owned())
    }

    pub fn shares(&self, service: &str, requests: usize) -> BTreeMap<String, usize> {
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
    pub fn load(&self, meanwhile: impl FnOnce()) -> (usize, usize) {
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

    /// Clients' connections that a server's nginx has open on port 80.
    pub fn connections_of(&self, server: &str) -> usize {
        let command = [
            "ss",
            "-Htn",
            "state",
            "established",
            "sport",
            "=",
            ":80",
            "dst",
            "198.51.100.0/24",
        ];
        let output = self.lab.run(server, &command).expect("ss");
        String::from_utf8_lossy(&output.stdout).lines().count()
    }

    pub fn packets_of_rule(&self, policy: &str, rule: &str) -> u64 {
        foobar::snapshot::of_pins("lb1", Maps::LeftOut)
            .expect("lb1 counts")
            .rules
            .iter()
            .find(|counters| *counters.policy == *policy && *counters.rule == *rule)
            .map_or(0, |counters| counters.count.packets)
    }

    /// The product's command line on the balancer, not started yet.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = in_namespace("lb1", &self.foobar);
        command
            .env("FOOBAR_CONFIG", Lab::config_path())
            .env("FOOBAR_NODE", "lb1")
            .args(arguments);
        command
    }

    /// Runs the product's command line on the balancer to its end.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("foobar starts")
    }

    /// As [`Self::ask`]; it must succeed.
    pub fn foobar(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn rewrite(&self, from: &str, to: &str) {
        let path = Lab::config_path();
        let text = fs::read_to_string(&path).expect("a configuration");
        assert!(text.contains(from), "{from} is in the configuration");
        fs::write(&path, text.replace(from, to)).expect("written");
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/foobar.toml")
}

/// Has the run count a test as skipped: written past the harness, which keeps what tests that do not fail print.
pub fn skip(test: &str, why: &str) {
    let line = format!("\nskipped: {test}: {}\n", why.replace('\n', " "));
    // Nothing to tell it to where that is closed.
    let _ = io::stderr().write_all(line.as_bytes());
}

impl Drop for Estate {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(Some(&self.foobar)) {
            eprintln!("cannot take the lab down: {error:#}");
        }
    }
}
