//! The Debian package under a real systemd: installed, started, watched, upgraded, removed. Needs root.
//!
//! `cargo xtask package` runs it. The machine's own files are the lower layer of an overlay, so nothing of this reaches
//! them; processes, network, mounts and control groups are apart too.

use std::{
    env, fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use foobar_lab::patience::holds_within;

/// Becomes the first process of a machine whose files are an overlay of this one's.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$BASE"
mkdir "$BASE/upper" "$BASE/work" "$BASE/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$BASE/upper,workdir=$BASE/work" "$BASE/root"
cd "$BASE/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
cp "$DEB" foobar.deb
# Images forbid that packages start anything; a machine that boots does not.
rm -f usr/sbin/policy-rc.d
ip link set lo up
ip link add fbp0 type veth peer name fbp1
ip addr add 192.0.2.1/24 dev fbp0
ip link set fbp0 up
ip link set fbp1 up
export container=foobar-test
exec chroot . /lib/systemd/systemd --system --unit=basic.target --show-status=no
"#;

const CONFIG: &str = r#"
version = 1
[hosts]
edge1 = { public = "192.0.2.1" }
[nodes]
edge1 = { wan = { dev = "fbp0", ingress = "edge" } }
[firewall]
edge = { policy = "allow", rules = [{ name = "telnet", drop = ["tcp/23"] }] }
[log]
audit = { to = "/var/log/foobar/audit.log" }
[admin]
socket = "/run/foobar/{node}.sock"
group = "foobar"
"#;

#[test]
#[ignore = "needs the package: `cargo xtask package` runs it"]
fn the_package_installs_runs_and_leaves_nothing() {
    let machine = Machine::boot();
    let before = machine.traces();
    machine.says("dpkg -i /foobar.deb");
    all_is_in_place(&machine);
    the_unit_is_sound(&machine);
    it_runs_with_four_capabilities(&machine);
    it_is_watched(&machine);
    a_bad_file_is_not_taken(&machine);
    an_upgrade_starts_it_anew(&machine);
    nothing_is_left(&machine, &before);
}

fn all_is_in_place(machine: &Machine) {
    machine.says("getent passwd foobar && getent group foobar");
    assert_eq!(machine.says("systemctl is-enabled foobar"), "enabled");
    assert_eq!(machine.asks("systemctl is-active foobar").0, "inactive");
    assert_eq!(
        machine.says("stat -c '%U %G %a' /etc/foobar"),
        "root foobar 750"
    );
    machine.says("foobar --version");
    // Where this machine's dpkg leaves manuals out, the package's contents were checked by its builder.
    let (excludes, _) = machine.asks("grep -rhs path-exclude /etc/dpkg/dpkg.cfg.d");
    if !excludes.contains("/usr/share/man") {
        assert!(
            machine
                .says("zcat /usr/share/man/man1/foobar.1.gz")
                .contains(".TH foobar 1")
        );
        machine.says("zcat /usr/share/man/man1/foobar-set-add.1.gz");
    }
    let completed = machine.says(
        "bash -c '. /usr/share/bash-completion/completions/foobar; COMP_WORDS=(foobar sta); COMP_CWORD=1; \
         _foobar foobar sta foobar; echo ${COMPREPLY[@]}'",
    );
    assert!(
        completed.contains("status") && completed.contains("stats"),
        "{completed}"
    );
}

fn the_unit_is_sound(machine: &Machine) {
    let complaints = machine.says("systemd-analyze verify --man=no foobar.service 2>&1");
    assert!(!complaints.contains("foobar.service:"), "{complaints}");
    let judged = machine.says("systemd-analyze security --no-pager foobar.service");
    let exposure = judged
        .lines()
        .find_map(|line| {
            line.split("Overall exposure level for foobar.service: ")
                .nth(1)
        })
        .and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok())
        .unwrap_or_else(|| panic!("{judged}"));
    println!("exposure {exposure}");
    assert!(exposure <= 2.5, "{judged}");
}

fn it_runs_with_four_capabilities(machine: &Machine) {
    machine.write("/etc/foobar/foobar.toml", CONFIG);
    machine.says("chgrp foobar /etc/foobar/foobar.toml && chmod 0640 /etc/foobar/foobar.toml");
    machine.says("echo FOOBAR_NODE=edge1 >> /etc/default/foobar");
    // The start job ends with READY=1, no sooner.
    machine.says("systemctl start foobar || { journalctl -u foobar --no-pager; exit 1; }");
    assert_eq!(machine.says("systemctl is-active foobar"), "active");
    let pid = machine.pid();
    let status = machine.says(&format!("cat /proc/{pid}/status"));
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
    let four = format!("{:016x}", 1_u64 << 10 | 1 << 12 | 1 << 38 | 1 << 39);
    assert_eq!((field("CapEff:"), field("CapBnd:")), (four.clone(), four));
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Uid:"), machine.says("id -u foobar"));
    assert!(
        machine
            .says("foobar status --node edge1")
            .contains("edge1 healthy")
    );
    assert!(machine.says("ip link show dev fbp0").contains("xdp"));
    machine.says("foobar backend list --node edge1");
    let entries = machine.says("journalctl -u foobar --no-pager -o json _TRANSPORT=journal");
    assert!(entries.contains("\"MESSAGE\":\"running\""), "{entries}");
    // Members of the group may ask, and change nothing.
    machine.says("useradd --groups foobar watcher");
    machine.says("setpriv --reuid=watcher --init-groups foobar status --node edge1 --socket /run/foobar/edge1.sock");
    let (_, refused) = machine.asks(
        "setpriv --reuid=watcher --init-groups foobar reload --node edge1 --socket /run/foobar/edge1.sock",
    );
    assert_eq!(refused, Some(77));
    machine.says("userdel watcher");
}

fn it_is_watched(machine: &Machine) {
    let heard = || {
        let line = machine.says("systemctl show -P WatchdogTimestampMonotonic foobar");
        line.parse::<u64>().unwrap_or_else(|_| panic!("{line}"))
    };
    let first = heard();
    holds_within(60, "it says that it is alive", || heard() > first);
    // Thirty seconds are a long time for a test.
    machine.says("mkdir -p /run/systemd/system/foobar.service.d");
    machine.write(
        "/run/systemd/system/foobar.service.d/watchdog.conf",
        "[Service]\nWatchdogSec=3s\n",
    );
    machine.says("systemctl daemon-reload && systemctl restart foobar");
    let pid = machine.pid();
    machine.says(&format!("kill -STOP {pid}"));
    holds_within(60, "one that hangs is started anew", || {
        machine.says("systemctl show -P NRestarts foobar") != "0"
            && machine.asks("systemctl is-active foobar").0 == "active"
    });
    assert_ne!(machine.pid(), pid);
    assert!(
        machine
            .says("foobar status --node edge1")
            .contains("edge1 healthy")
    );
    machine.says("rm -r /run/systemd/system/foobar.service.d && systemctl daemon-reload");
}

fn a_bad_file_is_not_taken(machine: &Machine) {
    machine.says("systemctl reload foobar");
    machine.says("sed -i 's/tcp.23/tcp_23/' /etc/foobar/foobar.toml");
    let (_, code) = machine.asks("systemctl reload foobar");
    assert_ne!(code, Some(0), "ExecReload checks first");
    assert_eq!(machine.says("systemctl is-active foobar"), "active");
    machine.says("sed -i 's/tcp_23/tcp\\/23/' /etc/foobar/foobar.toml");
    machine.says("systemctl reload foobar");
}

fn an_upgrade_starts_it_anew(machine: &Machine) {
    let pid = machine.pid();
    machine.says("dpkg -i /foobar.deb");
    holds_within(60, "the new one serves", || {
        machine.asks("systemctl is-active foobar").0 == "active" && machine.pid() != pid
    });
    assert!(machine.says("ip link show dev fbp0").contains("xdp"));
    assert!(
        machine
            .says("cat /etc/default/foobar")
            .contains("FOOBAR_NODE=edge1")
    );
}

fn nothing_is_left(machine: &Machine, before: &str) {
    machine.says("dpkg -r foobar");
    assert_eq!(machine.asks("systemctl is-active foobar").0, "inactive");
    assert!(
        !machine.says("ip link show dev fbp0").contains("xdp"),
        "packets pass"
    );
    assert_eq!(machine.asks("ls -d /sys/fs/bpf/foobar").0, "");
    assert!(
        machine
            .says("ls /etc/foobar /etc/default")
            .contains("foobar.toml"),
        "what the operator wrote is kept until a purge"
    );
    machine.says("dpkg -P foobar");
    assert_eq!(machine.traces(), before);
}

/// A system of its own, booted; ended with its test.
struct Machine {
    unshare: Child,
    init: u32,
    base: PathBuf,
}

impl Machine {
    fn boot() -> Self {
        let package = env::var("FOOBAR_DEB")
            .expect("FOOBAR_DEB names the package; run `cargo xtask package`");
        let base = env::temp_dir().join(format!("foobar-package-{}", std::process::id()));
        fs::create_dir_all(&base).expect("a directory");
        let unshare = Command::new("unshare")
            .args([
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--net",
                "--ipc",
                "--uts",
                "--cgroup",
            ])
            .args(["bash", "-c", BOOT])
            .env("BASE", &base)
            .env("DEB", package)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let mut machine = Self {
            unshare,
            init: 0,
            base,
        };
        holds_within(60, "systemd runs", || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            machine.init = children.trim().parse().unwrap_or(0);
            let (state, _) = machine.asks("systemctl is-system-running");
            machine.init != 0 && matches!(state.as_str(), "running" | "degraded")
        });
        machine
    }

    fn output(&self, script: &str) -> Output {
        Command::new("nsenter")
            .args([
                "--target",
                &self.init.to_string(),
                "--all",
                "--root",
                "--wd",
            ])
            .args([
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "sh",
                "-c",
                script,
            ])
            .output()
            .expect("nsenter")
    }

    /// What a command prints, and how it ends.
    fn asks(&self, script: &str) -> (String, Option<i32>) {
        let output = self.output(script);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (text, output.status.code())
    }

    /// What a command prints; it must end well.
    #[track_caller]
    fn says(&self, script: &str) -> String {
        let output = self.output(script);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {text}{complaints}");
        text
    }

    fn write(&self, path: &str, text: &str) {
        self.says(&format!("cat > {path} <<'END'\n{text}\nEND"));
    }

    fn pid(&self) -> String {
        self.says("systemctl show -P MainPID foobar")
    }

    /// All files that are named after it, where a package may put any.
    fn traces(&self) -> String {
        self.says("find /etc /usr /var /run /sys/fs/bpf -name '*foobar*' -not -path '/usr/src/*' 2>/dev/null | sort || true")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = fs::remove_dir(&self.base);
    }
}
