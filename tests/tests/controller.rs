//! The controller on a real kernel, between a client and two web servers. Needs root and an embedded object.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::test_helpers::NetNsGuard;
use foobar::{
    admin::{
        Question,
        api::{
            Apply, BackendState, BackendWish, Explanation, Maps, Packet, Refusal, Request,
            Response, Snapshot, Status,
        },
    },
    controller::{self, Options, RunError},
    kernel::{self, KernelError, Which},
};
use foobar_lab::network::prepare_namespaces;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

#[test]
fn connections_reach_all_servers_and_survive_the_controller() {
    let lab = Lab::new();
    let controller = lab.start();
    let shares = lab.fetch(60);
    assert!(
        shares["web1"] >= 15 && shares["web2"] >= 15,
        "even shares: {shares:?}"
    );

    let download = lab.slow_download();
    drop(controller);
    assert_eq!(lab.fetch(20).values().sum::<u32>(), 20, "nobody controls");
    let before = lab.ring();
    let controller = lab.start();
    assert_eq!(lab.ring(), before, "a restart moves no slot");
    assert_eq!(lab.fetch(20).values().sum::<u32>(), 20);
    assert!(finished(download), "a connection lives through the restart");

    let snapshot = controller.snapshot();
    let service = &snapshot.services[0];
    assert_eq!(
        (service.name.as_str(), service.vip.as_str()),
        ("l4.plain", "203.0.113.10:8080")
    );
    assert_eq!(service.traffic.connections, 161);
    assert_eq!(service.backends.len(), 2);
    let of_backends: u64 = service
        .backends
        .iter()
        .map(|backend| backend.traffic.connections)
        .sum();
    assert_eq!(of_backends, 161);
    assert_eq!(service.backends[0].state, Some(BackendState::Up));
    let web = snapshot
        .rules
        .iter()
        .find(|rule| &*rule.rule == "web")
        .expect("counted");
    assert!(web.count.packets > 400, "{web:?}");
}

#[test]
fn a_dead_server_gets_no_new_connection_and_comes_back() {
    let mut lab = Lab::new();
    let controller = lab.start();
    assert!(controller.status().healthy, "{:?}", controller.status());
    lab.kill("web1");
    controller.until("web1 is down", |status| {
        state(status, "web1") == BackendState::Down
    });
    assert_eq!(lab.fetch(20), BTreeMap::from([("web2".to_owned(), 20)]));
    let status = controller.status();
    assert!(status.healthy, "the other one serves: {status:?}");
    assert!(
        status
            .warnings
            .iter()
            .any(|warning| warning.contains("web1:80") && warning.contains("down")),
        "{status:?}"
    );

    lab.kill("web2");
    controller.until("all are down", |status| !status.healthy);
    lab.serve("web1");
    controller.until("web1 is up", |status| {
        state(status, "web1") == BackendState::Up
    });
    assert_eq!(lab.fetch(20), BTreeMap::from([("web1".to_owned(), 20)]));
    lab.serve("web2");
    controller.until("web2 is up", |status| {
        state(status, "web2") == BackendState::Up
    });
    assert!(lab.fetch(40)["web2"] > 0);
}

#[test]
fn a_drained_server_keeps_its_connections_and_stays_drained_over_a_restart() {
    let lab = Lab::new();
    let controller = lab.start();
    let downloads: Vec<Child> = (0..8).map(|_| lab.slow_download()).collect();
    thread::sleep(Duration::from_millis(300));
    controller.done(Request::BackendState {
        service: "plain".to_owned(),
        backend: "web1".to_owned(),
        wish: BackendWish::Drain,
    });
    assert_eq!(lab.fetch(20), BTreeMap::from([("web2".to_owned(), 20)]));
    for download in downloads {
        assert!(finished(download), "an open connection goes on");
    }
    drop(controller);
    let controller = lab.start();
    assert_eq!(lab.fetch(20), BTreeMap::from([("web2".to_owned(), 20)]));
    assert_eq!(state(&controller.status(), "web1"), BackendState::Drain);
    controller.done(Request::BackendState {
        service: "l4.plain".to_owned(),
        backend: "web1:80".to_owned(),
        wish: BackendWish::Enable,
    });
    assert!(lab.fetch(40)["web1"] > 0);
    let unknown = controller.refused(Request::BackendState {
        service: "plain".to_owned(),
        backend: "web7".to_owned(),
        wish: BackendWish::Drain,
    });
    assert!(
        unknown.to_string().contains("`web1:80`, `web2:80`"),
        "{unknown}"
    );
}

#[test]
fn a_reload_takes_effect_and_a_bad_file_changes_nothing() {
    let lab = Lab::new();
    let controller = lab.start();
    assert!(lab.ping());
    let text = lab.configuration();
    lab.configure(&text.replace("icmp/echo-request", "icmp/timestamp-request"));
    let Response::Reloaded(dry) = controller.answered(Request::Reload {
        apply: Apply::DryRun,
    }) else {
        panic!("not a reload");
    };
    assert!(
        !dry.applied && dry.changes == ["~ rule edge/ping"],
        "{dry:?}"
    );
    assert!(lab.ping(), "a dry run changes nothing");
    let Response::Reloaded(reloaded) = controller.answered(Request::Reload { apply: Apply::Now })
    else {
        panic!("not a reload");
    };
    assert!(
        reloaded.applied && reloaded.changes == ["~ rule edge/ping"],
        "{reloaded:?}"
    );
    assert!(!lab.ping());
    assert_eq!(lab.fetch(5).values().sum::<u32>(), 5);

    lab.configure(&text.replace("policy = \"drop\"", "policy = \"dorp\""));
    let refusal = controller.refused(Request::Reload { apply: Apply::Now });
    assert!(
        matches!(&refusal, Refusal::BadConfiguration { rendered } if rendered.contains("dorp")),
        "{refusal:?}"
    );
    let status = controller.status();
    assert!(
        !status.healthy && status.generation == reloaded.generation,
        "{status:?}"
    );
    assert_eq!(lab.fetch(5).values().sum::<u32>(), 5);

    lab.configure(&text);
    controller.answered(Request::Reload { apply: Apply::Now });
    assert!(lab.ping() && controller.status().healthy);
}

#[test]
fn reloads_under_load_lose_no_request() {
    let lab = Lab::new();
    let controller = lab.start();
    let text = lab.configuration();
    let load = lab.load(400);
    for round in 0..50 {
        let weight = if round % 2 == 0 {
            "weight = 3"
        } else {
            "weight = 1"
        };
        lab.configure(&text.replace("weight = 1", weight));
        controller.answered(Request::Reload { apply: Apply::Now });
    }
    assert!(finished(load), "every request was answered");
}

#[test]
fn services_interfaces_and_rules_come_and_go_by_reload() {
    let lab = Lab::new();
    let controller = lab.start();
    let text = lab.configuration();
    lab.fetch(20);
    let second = text.replace("tcp/8080", "tcp/8080-8081")
        + &text[text.find("[l4.plain]").expect("there")..]
            .replace("l4.plain", "l4.second")
            .replace("public:8080", "public:8081")
            .replace("port = 80", "port = 81");
    lab.configure(&second);
    controller.answered(Request::Reload { apply: Apply::Now });
    assert_eq!(controller.status().services.len(), 2);
    lab.configure(&text.replace("lan2 = { dev = \"lan2\", xdp = \"generic\" }", ""));
    controller.answered(Request::Reload { apply: Apply::Now });
    let status = controller.status();
    assert_eq!(status.interfaces.len(), 2, "{status:?}");
    let snapshot = controller.snapshot();
    assert_eq!(
        snapshot.services.len(),
        1,
        "the labels of what is gone are gone"
    );
    assert_eq!(snapshot.interfaces.len(), 2);
    let before = snapshot.services[0].traffic.connections;
    assert!(before >= 20, "{before}");
    let line = text
        .lines()
        .find(|line| line.starts_with("backends"))
        .expect("there");
    lab.configure(&text.replace(line, "backends = [{ host = \"web1\", port = 80 }]"));
    controller.answered(Request::Reload { apply: Apply::Now });
    let snapshot = controller.snapshot();
    assert_eq!(snapshot.services[0].backends.len(), 1);
    assert_eq!(
        snapshot.services[0].traffic.connections, before,
        "what a backend counted that is gone stays counted"
    );
    assert_eq!(lab.fetch(10), BTreeMap::from([("web1".to_owned(), 10)]));
    lab.configure(&text);
    controller.answered(Request::Reload { apply: Apply::Now });
    assert_eq!(controller.status().interfaces.len(), 3);
    assert!(lab.fetch(40).len() == 2);
}

#[test]
fn who_is_put_into_a_set_is_cut_off_until_taken_out() {
    let lab = Lab::new();
    let controller = lab.start();
    let client = "203.0.113.7/32".parse().expect("a network");
    let add = |timeout| Request::SetAdd {
        set: "jail".to_owned(),
        elements: vec![client],
        timeout,
    };
    controller.done(add(None));
    assert!(lab.fetch(2).is_empty(), "jailed");
    let Response::SetElements(elements) = controller.answered(Request::SetElements {
        set: "jail".to_owned(),
    }) else {
        panic!("not elements");
    };
    assert_eq!(
        (
            elements.len(),
            elements[0].element,
            elements[0].source.as_str()
        ),
        (1, client, "jail")
    );
    assert!(
        elements[0]
            .expires_in_seconds
            .is_some_and(|left| left > 500)
    );
    controller.done(Request::SetDelete {
        set: "jail".to_owned(),
        elements: vec![client],
    });
    assert_eq!(lab.fetch(2).values().sum::<u32>(), 2);

    controller.done(add(Some(Duration::from_secs(1))));
    assert!(lab.fetch(1).is_empty());
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(lab.fetch(2).values().sum::<u32>(), 2, "the time is over");

    let around = "203.0.113.0/24".parse().expect("a network");
    let banned = |elements| Request::SetAdd {
        set: "banned".to_owned(),
        elements,
        timeout: None,
    };
    controller.done(banned(vec![around]));
    assert!(lab.fetch(2).is_empty());
    drop(controller);
    let controller = lab.start();
    assert!(lab.fetch(2).is_empty(), "what was said outlives a restart");
    controller.done(Request::SetFlush {
        set: "banned".to_owned(),
    });
    assert_eq!(lab.fetch(2).values().sum::<u32>(), 2);
    let unknown = controller.refused(Request::SetFlush {
        set: "jial".to_owned(),
    });
    assert!(matches!(unknown, Refusal::NotFound { .. }), "{unknown:?}");
    let snapshot = controller.snapshot();
    let jailed = snapshot
        .rules
        .iter()
        .find(|rule| &*rule.rule == "jailed")
        .expect("counted");
    assert!(jailed.count.packets >= 6, "{jailed:?}");
}

#[test]
fn a_long_block_list_moves_the_tables_and_keeps_what_they_hold() {
    let lab = Lab::new();
    let controller = lab.start();
    lab.fetch(10);
    let before = controller.snapshot().services[0].traffic;
    let ring = lab.ring();
    let list = lab.directory.path().join("blocklist.txt");
    let hosts: String = (0..80_000_u32)
        .map(|host| format!("{}\n", std::net::Ipv4Addr::from(0x0a80_0000 + host)))
        .collect();
    fs::write(&list, hosts + "203.0.113.7\n").expect("written");
    let text = lab.configuration();
    lab.configure(&text.replace(
        "banned = { max = 1000 }",
        "banned = { file = \"blocklist.txt\", max = 1000000 }",
    ));
    controller.answered(Request::Reload { apply: Apply::Now });
    assert!(lab.fetch(2).is_empty(), "the list holds the client");
    assert!(controller.snapshot().services[0].traffic.connections >= before.connections);
    lab.configure(&text);
    controller.answered(Request::Reload { apply: Apply::Now });
    assert_eq!(lab.ring(), ring, "no slot moved");
    controller.done(Request::SetAdd {
        set: "jail".to_owned(),
        elements: vec!["192.0.2.1/32".parse().expect("a host")],
        timeout: None,
    });
    let status = controller.status();
    assert!(status.healthy, "{status:?}");
}

#[test]
fn a_device_that_goes_is_told_and_served_again_when_it_comes_back() {
    let lab = Lab::new();
    let controller = lab.start();
    lab.run("ip link del lan2");
    controller.until("lan2 is gone", |status| {
        !status.healthy
            && status
                .warnings
                .iter()
                .any(|text| text.contains("lan2 is gone"))
    });
    lab.run(&format!(
        "ip link add lan2 type veth peer name eth0 netns {}",
        lab.peer("web2")
    ));
    lab.run("ip link set lan2 up");
    controller.until("lan2 is back", |status| {
        !status.warnings.iter().any(|text| text.contains("is gone"))
    });
    thread::sleep(Duration::from_secs(1));
    assert!(lab.succeeds("ip link show dev lan2 | grep -q xdp"));
}

#[test]
fn explain_names_the_rule_the_backend_and_the_rewritten_packet() {
    let lab = Lab::new();
    let controller = lab.start();
    let web = controller.explain("tcp", 8080, false);
    assert_eq!(
        (web.verdict.as_str(), web.reason.as_str()),
        ("transmit", "forwarded"),
        "{web:?}"
    );
    let rule = web.rule.as_ref().expect("a rule decided");
    assert_eq!(
        (rule.policy.as_str(), rule.rule.as_str(), rule.order),
        ("edge", "web", 2)
    );
    assert!(rule.place.starts_with("foobar.toml:"), "{}", rule.place);
    assert_eq!(web.vip.as_deref(), Some("l4.plain 203.0.113.10:8080"));
    let backend = web.backend.as_deref().expect("a backend");
    assert!(backend.starts_with("l4.plain web"), "{backend}");
    let rewritten = web.rewritten.as_deref().expect("rewritten");
    assert!(
        rewritten.starts_with("203.0.113.7:51000 -> 10.0."),
        "{rewritten}"
    );

    let ssh = controller.explain("tcp", 22, false);
    assert_eq!(
        (
            ssh.verdict.as_str(),
            ssh.reason.as_str(),
            ssh.returned.as_str()
        ),
        ("drop", "policy", "XDP_DROP")
    );
    assert!(ssh.rule.is_none() && ssh.rewritten.is_none());
    let out = controller.explain("tcp", 25, true);
    assert_eq!(
        (out.verdict.as_str(), out.returned.as_str()),
        ("pass", "TC_ACT_OK"),
        "{out:?}"
    );
    let before = controller.snapshot().rules;
    controller.explain("tcp", 8080, false);
    assert_eq!(
        before.iter().map(|rule| rule.count).collect::<Vec<_>>(),
        controller
            .snapshot()
            .rules
            .iter()
            .map(|rule| rule.count)
            .collect::<Vec<_>>(),
        "explaining counts nothing"
    );
}

#[test]
fn a_second_controller_is_refused_and_the_first_goes_on() {
    let lab = Lab::new();
    let _controller = lab.start();
    let error = lab.try_start().expect_err("refused");
    assert!(
        matches!(error, RunError::Kernel(KernelError::Locked { .. })),
        "{error:?}"
    );
    assert!(
        error.to_string().contains(&process::id().to_string()),
        "{error}"
    );
    assert_eq!(error.exit_status(), 1);
    assert_eq!(lab.fetch(5).values().sum::<u32>(), 5);
}

#[test]
fn a_configuration_that_cannot_run_changes_nothing() {
    let lab = Lab::new();
    lab.configure(
        &lab.configuration()
            .replace("dev = \"lan2\"", "dev = \"lan9\""),
    );
    let error = lab.try_start().expect_err("refused");
    assert!(error.to_string().contains("lan9"), "{error}");
    assert!(!lab.pins().join("links").exists(), "nothing is attached");
    lab.configure("version = 1\n[nodes]\n");
    assert_eq!(lab.try_start().expect_err("refused").exit_status(), 78);
}

fn state(status: &Status, host: &str) -> BackendState {
    status.services[0]
        .backends
        .iter()
        .find(|backend| backend.host == host)
        .expect("configured")
        .state
}

fn finished(mut child: Child) -> bool {
    child.wait().expect("ends").success()
}

struct Controller {
    _runtime: Runtime,
    questions: mpsc::Sender<Question>,
}

impl Controller {
    fn ask(&self, request: Request) -> Result<Response, Refusal> {
        let (answer, received) = oneshot::channel();
        self.questions
            .blocking_send(Question { request, answer })
            .expect("it listens");
        received.blocking_recv().expect("it answers")
    }

    fn answered(&self, request: Request) -> Response {
        self.ask(request)
            .unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    fn refused(&self, request: Request) -> Refusal {
        self.ask(request).expect_err("refused")
    }

    fn done(&self, request: Request) {
        let Response::Done { .. } = self.answered(request) else {
            panic!("not done");
        };
    }

    fn status(&self) -> Status {
        let Response::Status(status) = self.answered(Request::Status) else {
            panic!("not a status");
        };
        *status
    }

    fn snapshot(&self) -> Snapshot {
        let Response::Snapshot(snapshot) = self.answered(Request::Snapshot {
            maps: Maps::Counted,
        }) else {
            panic!("not a snapshot");
        };
        *snapshot
    }

    fn explain(&self, protocol: &str, port: u16, egress: bool) -> Explanation {
        let (source, destination): (IpAddr, IpAddr) = match egress {
            false => ([203, 0, 113, 7].into(), [203, 0, 113, 10].into()),
            true => ([203, 0, 113, 10].into(), [203, 0, 113, 7].into()),
        };
        let Response::Explained(explanation) = self.answered(Request::Explain(Packet {
            protocol: protocol.to_owned(),
            source,
            source_port: 51_000,
            destination,
            destination_port: port,
            flags: 2,
            interface: None,
            egress,
        })) else {
            panic!("not explained");
        };
        *explanation
    }

    fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) {
        let begun = Instant::now();
        while !holds(&self.status()) {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{what}: {:?}",
                self.status()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The balancer in this thread's network namespace, a client and two servers in others.
struct Lab {
    node: String,
    directory: tempfile::TempDir,
    servers: BTreeMap<String, Child>,
    _removed: Removed,
    _namespace: NetNsGuard,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let node = format!(
            "ct{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        prepare_namespaces().expect("a place for namespaces");
        let mut lab = Self {
            directory: tempfile::tempdir().expect("a directory"),
            servers: BTreeMap::new(),
            _removed: Removed(node.clone()),
            _namespace: NetNsGuard::new().expect("a network namespace"),
            node,
        };
        for (device, peer, own, theirs) in [
            ("wan0", "client", "203.0.113.10/24", "203.0.113.7/24"),
            ("lan1", "web1", "10.0.1.10/24", "10.0.1.11/24"),
            ("lan2", "web2", "10.0.2.10/24", "10.0.2.11/24"),
        ] {
            lab.join(device, peer, own, theirs);
        }
        lab.run("sysctl -qw net.ipv4.ip_forward=1");
        for (server, balancer) in [("web1", "10.0.1.10"), ("web2", "10.0.2.10")] {
            lab.run(&format!(
                "ip -n {} route add default via {balancer}",
                lab.peer(server)
            ));
            lab.serve(server);
        }
        lab.configure(&CONFIGURATION.replace("NODE", &lab.node));
        lab
    }

    fn join(&self, device: &str, peer: &str, own: &str, theirs: &str) {
        let peer = self.peer(peer);
        for command in [
            format!("ip netns add {peer}"),
            format!("ip link add {device} type veth peer name eth0 netns {peer}"),
            format!("ip addr add {own} dev {device}"),
            format!("ip link set {device} up"),
            format!("ip -n {peer} addr add {theirs} dev eth0"),
            format!("ip -n {peer} link set eth0 up"),
            format!("ip -n {peer} link set lo up"),
            format!("ip netns exec {peer} ethtool -K eth0 tx off"),
        ] {
            self.run(&command);
        }
    }

    fn peer(&self, name: &str) -> String {
        format!("{}-{name}", self.node)
    }

    fn run(&self, command: &str) {
        assert!(self.succeeds(command), "{command}");
    }

    fn succeeds(&self, command: &str) -> bool {
        Command::new("sh")
            .args(["-c", command])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("sh runs")
            .success()
    }

    fn serve(&mut self, server: &str) {
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.peer(server),
                "python3",
                "-c",
                SERVER,
                server,
            ])
            .spawn()
            .expect("python runs");
        self.servers.insert(server.to_owned(), child);
        let port = format!(
            "ip netns exec {} sh -c 'ss -tln | grep -q :80'",
            self.peer(server)
        );
        let begun = Instant::now();
        while !self.succeeds(&port) {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{server} listens"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, server: &str) {
        let mut child = self.servers.remove(server).expect("runs");
        child.kill().expect("killed");
        child.wait().expect("ends");
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("foobar.toml")
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.path()).expect("written")
    }

    fn configure(&self, text: &str) {
        fs::write(self.path(), text).expect("written");
    }

    fn options(&self) -> Options {
        Options {
            config: self.path(),
            node: self.node.clone(),
            state: Some(self.directory.path().join("state")),
        }
    }

    fn start(&self) -> Controller {
        let runtime = Runtime::new().expect("a runtime");
        let (questions, inbox) = mpsc::channel(8);
        let run = runtime.spawn(controller::run(self.options(), inbox));
        let controller = Controller {
            _runtime: runtime,
            questions,
        };
        let begun = Instant::now();
        loop {
            assert!(
                !run.is_finished(),
                "{:?}",
                controller._runtime.block_on(run)
            );
            let (answer, received) = oneshot::channel();
            let asked = controller.questions.blocking_send(Question {
                request: Request::Status,
                answer,
            });
            if asked.is_ok()
                && let Ok(Ok(Response::Status(status))) = received.blocking_recv()
                && status.services[0]
                    .backends
                    .iter()
                    .all(|backend| backend.state != BackendState::Unknown)
            {
                return controller;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it starts");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn try_start(&self) -> Result<(), RunError> {
        let (_questions, inbox) = mpsc::channel(1);
        Runtime::new()
            .expect("a runtime")
            .block_on(controller::run(self.options(), inbox))
    }

    fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/foobar").join(&self.node)
    }

    fn ring(&self) -> Vec<String> {
        let map = self.pins().join("maps/RINGS");
        assert!(map.exists());
        // Which server a source port reaches says what the ring says.
        (0..30).map(|port| self.get(41_000 + port)).collect()
    }

    fn get(&self, port: u32) -> String {
        let output = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.peer("client"),
                "curl",
                "-s",
                "-m",
                "2",
                "--local-port",
                &port.to_string(),
                "http://203.0.113.10:8080/whoami",
            ])
            .output()
            .expect("curl runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// How many of so many requests each server answered.
    fn fetch(&self, count: u32) -> BTreeMap<String, u32> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            let output = Command::new("ip")
                .args([
                    "netns",
                    "exec",
                    &self.peer("client"),
                    "curl",
                    "-s",
                    "-m",
                    "1",
                    "http://203.0.113.10:8080/whoami",
                ])
                .output()
                .expect("curl runs");
            if output.status.success() {
                let server = String::from_utf8(output.stdout).expect("UTF-8");
                *shares.entry(server).or_insert(0) += 1;
            }
        }
        shares
    }

    /// One connection of several seconds.
    fn slow_download(&self) -> Child {
        Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.peer("client"),
                "curl",
                "-sf",
                "-m",
                "20",
                "-o",
                "/dev/null",
                "http://203.0.113.10:8080/slow",
            ])
            .spawn()
            .expect("curl runs")
    }

    /// So many requests one after the other, ends with the first failure.
    fn load(&self, count: u32) -> Child {
        let script = format!(
            "for i in $(seq {count}); do curl -sf -m 1 -o /dev/null http://203.0.113.10:8080/whoami || exit 1; done"
        );
        Command::new("ip")
            .args(["netns", "exec", &self.peer("client"), "sh", "-c", &script])
            .spawn()
            .expect("sh runs")
    }

    fn ping(&self) -> bool {
        self.succeeds(&format!(
            "ip netns exec {} ping -c 1 -W 1 203.0.113.10",
            self.peer("client")
        ))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.servers.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for peer in ["client", "web1", "web2"] {
            self.succeeds(&format!("ip netns del {}", self.peer(peer)));
        }
    }
}

/// Removes a node's pins, also when its test panics.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = kernel::detach(&self.0, &Which::All);
        let _ = fs::remove_file(format!("/run/foobar/{}.lock", self.0));
    }
}

const CONFIGURATION: &str = r#"
version = 1
[hosts]
NODE = { public = "203.0.113.10", private = "10.0.1.10" }
web1 = { private = "10.0.1.11" }
web2 = { private = "10.0.2.11" }
[sets]
jail = { max = 1000, timeout = "10m" }
banned = { max = 1000 }
[nodes.NODE]
wan = { dev = "wan0", xdp = "generic", ingress = "edge", egress = "out" }
lan1 = { dev = "lan1", xdp = "generic" }
lan2 = { dev = "lan2", xdp = "generic" }
[firewall]
edge = { policy = "drop", rules = [
  { name = "jailed", drop = "any", from = ["@jail", "@banned"] },
  { name = "web", allow = ["tcp/8080"] },
  { name = "ping", allow = ["icmp/echo-request"] } ] }
out = { policy = "allow", rules = [] }
[l4.plain]
on = "NODE"
vip = ["public:8080"]
proto = "tcp"
mode = "dnat"
backends = [{ host = "web1", port = 80, weight = 1 }, { host = "web2", port = 80 }]
check = { http = "/healthz", expect = 200, every = "200ms", timeout = "150ms", rise = 2, fall = 2 }
"#;

const SERVER: &str = r#"
import http.server, socketserver, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/slow":
            for _ in range(30):
                self.wfile.write(b"x" * 1000)
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.wfile.write(sys.argv[1].encode())
    def log_message(self, *_):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
Server(("0.0.0.0", 80), Handler).serve_forever()
"#;
