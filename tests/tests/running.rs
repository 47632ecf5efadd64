//! How foobar runs on a machine: as nobody with four capabilities, by a tight unit, from a package. Needs root.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use foobar_lab::patience::holds_within;

const NOBODY: u32 = 65_534;
const CONFIG: &str = r#"version = 1
[hosts]
edge1 = { public = "192.0.2.1", private = "10.9.0.1" }
[sets]
blocklist = { max = 1024 }
[nodes]
edge1 = { wan = { dev = "fbu0", ingress = "edge" } }
[firewall]
edge = { policy = "allow", rules = [{ name = "blocked", drop = "any", from = ["@blocklist"] }] }
[monitor]
prometheus = { listen = "127.0.0.1:9191" }
[admin]
socket = "DIRECTORY/run/{node}.sock"
group = "daemon"
"#;

/// A veth pair, a directory of files and a place in the BPF file system, all gone at the end.
struct Machine {
    files: tempfile::TempDir,
    foobar: PathBuf,
    controller: Option<Child>,
}

impl Machine {
    fn new() -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let machine = Self {
            foobar: foobar(),
            files,
            controller: None,
        };
        run(
            "ip",
            &[
                "link", "add", "fbu0", "type", "veth", "peer", "name", "fbu1",
            ],
        );
        run("ip", &["addr", "add", "192.0.2.1/24", "dev", "fbu0"]);
        for device in ["fbu0", "fbu1"] {
            run("ip", &["link", "set", device, "up"]);
        }
        let root = machine.files.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("readable");
        for directory in ["run", "state"] {
            let path = root.join(directory);
            fs::create_dir(&path).expect("made");
            chown(&path, Some(NOBODY), Some(1)).expect("given");
        }
        let config = CONFIG.replace("DIRECTORY", &root.to_string_lossy());
        fs::write(root.join("foobar.toml"), config).expect("written");
        // As the unit's ExecStartPre and RuntimeDirectory do.
        for place in ["/sys/fs/bpf/foobar", "/run/foobar"] {
            run("install", &["-d", "-o", "nobody", "-m", "0750", place]);
            fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("readable");
        }
        let _ = fs::remove_file("/run/foobar/edge1.lock");
        fs::set_permissions("/sys/fs/bpf", fs::Permissions::from_mode(0o711)).expect("passable");
        machine
    }

    fn clean(&self) {
        let _ = Command::new(&self.foobar)
            .args(["detach", "--all", "--node", "edge1"])
            .output();
        let _ = Command::new("ip").args(["link", "del", "fbu0"]).output();
    }

    fn start(&mut self) {
        let log = fs::File::create(self.files.path().join("log")).expect("a log");
        let child = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=1",
                "--clear-groups",
                "--no-new-privs",
            ])
            .args([CAPABILITIES[0], CAPABILITIES[1], CAPABILITIES[2]])
            .arg(&self.foobar)
            .args(["run", "--node", "edge1", "-c"])
            .arg(self.files.path().join("foobar.toml"))
            .env("FOOBAR_STATE", self.files.path().join("state"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("setpriv");
        self.controller = Some(child);
        let begun = Instant::now();
        while !self.ask(0, &["status"]).status.success() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it does not come up: {}",
                fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks as this user, a member of the group of the socket.
    fn ask(&self, uid: u32, arguments: &[&str]) -> Output {
        Command::new("setpriv")
            .arg(format!("--reuid={uid}"))
            .args(["--regid=1", "--clear-groups"])
            .arg(&self.foobar)
            .args(["--node", "edge1", "-c"])
            .arg(self.files.path().join("foobar.toml"))
            .args(arguments)
            .output()
            .expect("setpriv")
    }
}

const CAPABILITIES: [&str; 3] = [
    "--inh-caps=-all,+bpf,+net_admin,+perfmon,+net_bind_service",
    "--ambient-caps=-all,+bpf,+net_admin,+perfmon,+net_bind_service",
    "--bounding-set=-all,+bpf,+net_admin,+perfmon,+net_bind_service",
];

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.controller {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.clean();
        for place in ["/sys/fs/bpf/foobar", "/run/foobar"] {
            let _ = chown(place, Some(0), Some(0));
        }
    }
}

fn foobar() -> PathBuf {
    env::var_os("FOOBAR_BIN")
        .map(PathBuf::from)
        .expect("FOOBAR_BIN names the product; run `cargo xtask test`")
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        text(&output.stderr)
    );
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn as_nobody_with_four_capabilities_it_filters_and_a_group_may_ask() {
    let mut machine = Machine::new();
    // A binary in somebody's home is not for nobody to run.
    let copy = machine.files.path().join("foobar");
    fs::copy(&machine.foobar, &copy).expect("copied");
    machine.foobar = copy;
    machine.start();
    let status = machine.ask(0, &["-o", "json", "status"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["interfaces"][0]["xdp"], "native", "{status}");
    let links = Command::new("ip")
        .args(["-d", "link", "show", "fbu0"])
        .output()
        .expect("ip");
    assert!(
        text(&links.stdout).contains("prog/xdp"),
        "{}",
        text(&links.stdout)
    );

    // Another user, of the group: may read, and not change.
    let read = machine.ask(1_234, &["stats"]);
    assert!(read.status.success(), "{}", text(&read.stderr));
    let change = machine.ask(1_234, &["set", "add", "blocklist", "198.51.100.1"]);
    assert_eq!(change.status.code(), Some(77), "{}", text(&change.stderr));
    assert!(
        text(&change.stderr).contains("as root"),
        "{}",
        text(&change.stderr)
    );
    let by_root = machine.ask(0, &["set", "add", "blocklist", "198.51.100.1"]);
    assert!(by_root.status.success(), "{}", text(&by_root.stderr));
    let reload = machine.ask(0, &["reload"]);
    assert!(reload.status.success(), "{}", text(&reload.stderr));
    holds_within(60, "both are in the audit log", || {
        let log = fs::read_to_string(machine.files.path().join("log")).expect("a log");
        log.contains("set-add") && log.contains("uid=1234") && log.contains("uid=0")
    });
}

#[test]
fn the_unit_is_tight() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/systemd/foobar.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=30"])
        .arg(&unit)
        .output()
        .expect("systemd-analyze");
    assert!(output.status.success(), "{}", text(&output.stdout));
    let text = fs::read_to_string(unit).expect("a unit");
    let capabilities = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_NET_BIND_SERVICE";
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert!(text.contains(&format!("\n{key}={capabilities}\n")), "{key}");
    }
}

#[test]
fn every_key_of_the_unit_is_known_to_systemd() {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/systemd/foobar.service");
    let text = fs::read_to_string(unit).expect("a unit");
    // The one that would start need not be installed for its unit to be read.
    let text = text.replace("/usr/bin/foobar", "/bin/true");
    let path = directory.path().join("foobar.service");
    fs::write(&path, text).expect("written");
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg("--man=no")
        .arg(&path)
        .output()
        .expect("systemd-analyze");
    let told = self::text(&output.stderr);
    let about_it: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("foobar.service"))
        .collect();
    assert!(about_it.is_empty(), "{about_it:#?}");
}
