//! What reaches a real journal: fields, not lines of text. Needs root.

use std::{env, fs, process::Command};

use serde_json::Value;

/// A journal and a node of their own, in namespaces of their own; what the journal holds at the end, as JSON lines.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mkdir -p /run/systemd /run/log
mount -t tmpfs tmpfs /run/systemd
mount -t tmpfs tmpfs /run/log
mkdir -p /run/systemd/journal /run/log/journal
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
ip link add fbj0 type veth peer name fbj1
ip addr add 192.0.2.1/24 dev fbj0
ip link set fbj0 up && ip link set fbj1 up
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 30 \
    -subj /CN=www.example.test -addext subjectAltName=DNS:www.example.test 2>/dev/null
/lib/systemd/systemd-journald 2>journald.log &
journald=$!
until systemd-cat -t waiting true 2>/dev/null; do sleep 0.1; done
export FOOBAR_CONFIG=$PWD/foobar.toml FOOBAR_NODE=journal1 FOOBAR_STATE=$PWD/state
systemd-cat -t cat sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$FOOBAR_BIN" run' &
controller=$!
trap '"$FOOBAR_BIN" detach --all >&2 || true; kill $journald' EXIT
until "$FOOBAR_BIN" stats >/dev/null 2>&1; do sleep 0.2; done
"$FOOBAR_BIN" set add blocklist 198.51.100.9 >&2
curl -sk -m60 -o /dev/null --resolve www.example.test:443:192.0.2.1 https://www.example.test/path?q=1 || true
for wanted in TARGET=alert TARGET=audit TARGET=access BACKEND=web1:80; do
    for _ in $(seq 600); do
        journalctl --no-pager -q -n1 -o cat "$wanted" | grep -q . && break
        sleep 0.1
    done
done
kill -TERM $controller
wait $controller || true
journalctl --no-pager -t foobar -o json
"#;

const CONFIG: &str = r#"
version = 1
[hosts]
journal1 = { public = "192.0.2.1" }
web1 = { private = "192.0.2.11" }
[sets]
blocklist = { max = 16 }
[nodes]
journal1 = { wan = { dev = "fbj0", ingress = "edge" } }
[firewall]
edge = { policy = "allow", rules = [{ name = "blocked", drop = "any", from = ["@blocklist"] }] }
[l4.plain]
on = "journal1"
vip = ["public:8080"]
backends = [{ host = "web1", port = 80 }]
check = { tcp = true, every = "200ms", timeout = "200ms", rise = 1, fall = 1 }
[l7.www]
on = "journal1"
listen = ["public:443"]
hosts = ["www.example.test"]
tls = { cert = "cert.pem", key = { file = "key.pem" } }
backends = [{ host = "web1", port = 8080 }]
[[alert]]
name = "down"
metric = "backends-down"
of = "l4.plain"
above = 0
severity = "critical"
[log]
access = { to = "journal" }
audit = { to = "journal" }
[admin]
socket = "DIRECTORY/admin.sock"
"#;

#[test]
fn the_journal_has_services_backends_and_alerts_as_fields() {
    let foobar =
        env::var("FOOBAR_BIN").expect("FOOBAR_BIN names the product; run `cargo xtask test`");
    let files = tempfile::tempdir().expect("a directory");
    let config = CONFIG.replace("DIRECTORY", &files.path().to_string_lossy());
    fs::write(files.path().join("foobar.toml"), config).expect("written");
    let output = Command::new("unshare")
        .args([
            "--mount", "--net", "timeout", "-k", "5", "300", "bash", "-c", SCRIPT,
        ])
        .current_dir(files.path())
        .env("FOOBAR_BIN", foobar)
        .output()
        .expect("unshare");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let entries: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let has = |wanted: &[(&str, &str)]| {
        assert!(
            entries
                .iter()
                .any(|entry| wanted.iter().all(|(field, value)| entry[*field] == *value)),
            "{wanted:?} among {entries:#?}{complaints}"
        );
    };
    has(&[
        ("MESSAGE", "down"),
        ("SERVICE", "l4.plain"),
        ("BACKEND", "web1:80"),
        ("PRIORITY", "4"),
    ]);
    has(&[
        ("TARGET", "alert"),
        ("ALERT", "down"),
        ("SEVERITY", "critical"),
        ("SERVICE", "l4.plain"),
    ]);
    has(&[
        ("TARGET", "audit"),
        ("REQUEST", "set-add"),
        ("USER", "root"),
        ("RESULT", "done"),
    ]);
    has(&[
        ("TARGET", "access"),
        ("SERVICE", "l7.www"),
        ("PATH", "/path?q=1"),
        ("METHOD", "GET"),
    ]);
    assert!(
        entries.iter().all(|entry| entry["_TRANSPORT"] == "journal"),
        "nothing goes by standard error as well"
    );
}
