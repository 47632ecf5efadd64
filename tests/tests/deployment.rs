//! A deployment on a real kernel: what is adopted, refused and removed. Needs root and an embedded object.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use aya::test_helpers::NetNsGuard;
use foobar::{
    admin::api::Maps,
    config::XdpMode,
    kernel::{
        self, Deployment, Direction, EgressMode, HashKeys, Hook, IngressMode, KernelError,
        NodeLock, Origin, Prefix, Sizes, Table, Which,
    },
};
use foobar_ebpf::abi::{EndpointV4, LabelKey, RING_SLOTS, Slot, Vip};
use foobar_lab::network::prepare_namespaces;

const KEYS: HashKeys = HashKeys([1, 2, 3, 4, 5, 6, 7]);

#[test]
fn a_fresh_start_attaches_to_both_directions() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    assert_eq!(deployment.origin(), &Origin::Fresh);

    deployment.prepare(&[lab.hook()]).expect("programs load");
    assert_eq!(
        lab.xdp(),
        None,
        "nothing is attached before the tables are filled"
    );
    let attachments = deployment.attach().expect("programs attach");

    assert_eq!(attachments.len(), 1);
    assert_eq!(attachments[0].ingress, IngressMode::Native);
    assert!(lab.xdp().is_some());
    assert_eq!(lab.pinned("links"), ["wan-egress", "wan-ingress"]);
}

#[test]
fn a_new_controller_adopts_what_the_old_one_left() {
    let lab = Lab::new();
    let mut old = lab.open();
    old.prepare(&[lab.hook()]).expect("programs load");
    old.attach().expect("programs attach");
    let vip = EndpointV4 {
        address: 1,
        port: 2,
        protocol: 6,
        zero: 0,
    };
    old.tables_mut()
        .vips_v4
        .insert(
            vip,
            Vip {
                vip: 3,
                sum: 4,
                flags: 0,
                zero: 0,
            },
        )
        .expect("room");
    old.tables_mut().set_ring(3, &ring(5)).expect("ring");
    let before = lab.xdp();
    drop(old);
    assert_eq!(lab.xdp(), before, "the packet path outlives its controller");

    let mut new = lab.open();
    assert_eq!(new.origin(), &Origin::Adopted);
    assert_eq!(
        new.tables().vips_v4.contents().expect("readable"),
        HashMap::from([(
            vip,
            Vip {
                vip: 3,
                sum: 4,
                flags: 0,
                zero: 0
            }
        )])
    );
    assert_eq!(
        new.tables().ring(3).expect("readable"),
        Some(Box::new(ring(5)))
    );
    assert_eq!(new.tables().ring(4).expect("readable"), None);
    new.prepare(&[lab.hook()]).expect("programs load");
    new.attach().expect("programs are replaced");
    let after = lab.xdp();
    assert!(after.is_some() && after != before, "{before:?} {after:?}");
    assert_eq!(lab.pinned("links"), ["wan-egress", "wan-ingress"]);
}

#[test]
fn traffic_goes_on_while_controllers_come_and_go() {
    let lab = Lab::new();
    let peer = lab.run(
        "ip",
        &["-n", &lab.peer, "addr", "add", "10.9.9.2/24", "dev", "eth0"],
    );
    assert!(peer, "the peer has an address");
    assert!(lab.run("ip", &["addr", "add", "10.9.9.1/24", "dev", "eth0"]));
    let ping = |count: &str| {
        lab.run(
            "ping",
            &["-q", "-i", "0.02", "-W", "1", "-c", count, "10.9.9.2"],
        )
    };
    assert!(ping("2"), "before anything is attached");
    let mut ping_meanwhile = Command::new("ping")
        .args(["-q", "-i", "0.01", "-W", "1", "-c", "200", "10.9.9.2"])
        .stdout(process::Stdio::null())
        .spawn()
        .expect("ping runs");
    for _ in 0..5 {
        let mut deployment = lab.open();
        deployment.prepare(&[lab.hook()]).expect("programs load");
        deployment.attach().expect("programs attach");
    }
    // ping fails unless every answer came back.
    assert!(ping_meanwhile.wait().expect("ping ends").success());
}

#[test]
fn tables_that_are_too_small_are_enlarged_and_keep_what_they_held() {
    let lab = Lab::new();
    let mut old = lab.open();
    old.prepare(&[lab.hook()]).expect("programs load");
    old.attach().expect("programs attach");
    old.tables_mut().local_v4.insert(7, 1).expect("room");
    old.tables_mut().set_ring(3, &ring(5)).expect("ring");
    let before = lab.xdp();
    drop(old);

    let more = Sizes {
        set_hosts: 200_000,
        ..Sizes::default()
    };
    let mut new = Deployment::open(&lab.node, KEYS, more).expect("opens");
    assert_eq!(new.origin(), &Origin::Enlarged);
    assert_eq!(
        lab.xdp(),
        before,
        "the old programs serve until the new tables are filled"
    );
    assert_eq!(
        new.tables().local_v4.contents().expect("readable"),
        HashMap::from([(7, 1)])
    );
    assert_eq!(
        new.tables().ring(3).expect("readable"),
        Some(Box::new(ring(5)))
    );
    new.prepare(&[lab.hook()]).expect("programs load");
    new.attach().expect("links are swapped");
    assert_ne!(lab.xdp(), before);
    drop(new);

    let again = Deployment::open(&lab.node, KEYS, more).expect("opens");
    assert_eq!(again.origin(), &Origin::Adopted);
    assert_eq!(again.tables().set_hosts_v4.max(), 200_000);
    drop(again);
    let smaller = lab.open();
    assert_eq!(
        smaller.origin(),
        &Origin::Adopted,
        "larger tables serve as well"
    );
}

#[test]
fn maps_of_another_layout_are_replaced() {
    let lab = Lab::new();
    drop(lab.open());
    fs::remove_file(lab.pins().join("maps/BACKENDS")).expect("pinned");
    let rebuilt = lab.open();
    assert_eq!(
        rebuilt.origin(),
        &Origin::Rebuilt("BACKENDS is missing".to_owned())
    );
    drop(rebuilt);

    fs::remove_file(lab.pins().join("maps/LAYOUT")).expect("pinned");
    let mut rebuilt = lab.open();
    assert_eq!(
        rebuilt.origin(),
        &Origin::Rebuilt("they are incomplete".to_owned())
    );
    rebuilt.prepare(&[lab.hook()]).expect("programs load");
    rebuilt.attach().expect("programs attach");
    drop(rebuilt);
    assert_eq!(lab.open().origin(), &Origin::Adopted);
}

#[test]
fn another_xdp_program_is_left_alone_and_named() {
    let lab = Lab::new();
    let other = Lab::node_name();
    let _removed = Removed(other.clone());
    let mut theirs = Deployment::open(&other, KEYS, Sizes::default()).expect("opens");
    theirs.prepare(&[lab.hook()]).expect("programs load");
    theirs.attach().expect("programs attach");
    let before = lab.xdp();

    let mut ours = lab.open();
    ours.prepare(&[lab.hook()]).expect("programs load");
    let error = ours.attach().expect_err("the device is taken");
    let KernelError::Occupied {
        ref device,
        ref program,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(device, "eth0");
    assert!(
        program.contains("`ingress`") && program.contains(&before.expect("attached").to_string()),
        "{program}"
    );
    assert!(
        error.to_string().contains("ip link set dev eth0 xdp off"),
        "{error}"
    );
    assert_eq!(lab.xdp(), before);
    assert!(
        lab.pinned("links").is_empty(),
        "the egress program is taken back"
    );
}

#[test]
fn a_missing_device_is_named() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    let hook = Hook {
        device: "eth7".to_owned(),
        ..lab.hook()
    };
    let error = deployment.prepare(&[hook]).expect_err("no such device");
    assert!(matches!(error, KernelError::NoDevice { .. }), "{error:?}");
    assert!(
        error.to_string().contains("there is no device eth7"),
        "{error}"
    );
}

#[test]
fn generic_mode_is_what_auto_falls_back_to() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    // lo has no native XDP.
    let on_lo = |mode| Hook {
        device: "lo".to_owned(),
        mode,
        ..lab.hook()
    };
    deployment
        .prepare(&[on_lo(XdpMode::Native)])
        .expect("programs load");
    let error = deployment.attach().expect_err("lo has no native XDP");
    assert!(
        matches!(error, KernelError::NoNativeXdp { .. }),
        "{error:?}"
    );

    deployment
        .prepare(&[on_lo(XdpMode::Auto)])
        .expect("programs load");
    let attachments = deployment.attach().expect("programs attach");
    assert_eq!(attachments[0].ingress, IngressMode::Generic);
}

#[test]
fn another_xdp_mode_is_taken_on_at_the_next_start() {
    let lab = Lab::new();
    let mut old = lab.open();
    old.prepare(&[lab.hook()]).expect("programs load");
    old.attach().expect("programs attach");
    drop(old);
    let mut new = lab.open();
    new.prepare(&[Hook {
        mode: XdpMode::Generic,
        ..lab.hook()
    }])
    .expect("programs load");
    assert_eq!(
        new.attach().expect("programs attach")[0].ingress,
        IngressMode::Generic
    );
}

#[test]
fn a_device_that_was_removed_and_came_back_is_served_again() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    deployment.prepare(&[lab.hook()]).expect("programs load");
    deployment.attach().expect("programs attach");
    assert!(
        deployment.reattach_lost().expect("reattaches").is_empty(),
        "nothing is lost yet"
    );
    assert!(lab.run("ip", &["link", "del", "eth0"]));
    assert!(
        deployment.reattach_lost().expect("reattaches").is_empty(),
        "it is still gone"
    );
    lab.make_veth();
    assert_eq!(lab.xdp(), None);
    assert_eq!(deployment.reattach_lost().expect("reattaches").len(), 1);
    assert!(lab.xdp().is_some());
    drop(deployment);

    assert!(lab.run("ip", &["link", "del", "eth0"]));
    lab.make_veth();
    let mut restarted = lab.open();
    restarted.prepare(&[lab.hook()]).expect("programs load");
    restarted.attach().expect("severed links are replaced");
    assert!(lab.xdp().is_some());
}

#[test]
fn a_renamed_interface_keeps_its_links() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    deployment.prepare(&[lab.hook()]).expect("programs load");
    deployment.attach().expect("programs attach");
    let before = lab.xdp();
    let renamed = Hook {
        interface: "outside".to_owned(),
        ..lab.hook()
    };
    deployment
        .prepare(std::slice::from_ref(&renamed))
        .expect("programs load");
    deployment.attach().expect("the link is replaced");
    assert_ne!(lab.xdp(), before);
    assert_eq!(
        deployment.retire_all_but(&[renamed]).expect("nothing left"),
        Vec::<String>::new()
    );
    assert_eq!(lab.pinned("links"), ["outside-egress", "outside-ingress"]);
    assert!(lab.xdp().is_some());
    assert_eq!(deployment.attachments().len(), 1);
    drop(deployment);

    let link = lab.pins().join("links/outside-ingress");
    fs::rename(&link, link.with_file_name("wan-ingress~")).expect("as a crash would leave it");
    let mut restarted = lab.open();
    restarted.prepare(&[lab.hook()]).expect("programs load");
    restarted.attach().expect("the link is found again");
}

#[test]
fn two_interfaces_may_swap_their_names() {
    let lab = Lab::new();
    assert!(lab.run(
        "ip",
        &[
            "link", "add", "eth1", "type", "veth", "peer", "name", "eth2"
        ]
    ));
    let on = |interface: &str, device: &str, id| Hook {
        id,
        interface: interface.to_owned(),
        device: device.to_owned(),
        mode: XdpMode::Auto,
    };
    for hooks in [
        [on("wan", "eth0", 0), on("lan", "eth1", 1)],
        [on("wan", "eth1", 2), on("lan", "eth0", 3)],
    ] {
        let mut deployment = lab.open();
        deployment.prepare(&hooks).expect("programs load");
        let attachments = deployment.attach().expect("programs attach");
        assert_eq!(attachments.len(), 2);
        assert_eq!(lab.pinned("links").len(), 4);
        assert!(lab.xdp().is_some());
    }
}

#[test]
fn clsact_serves_where_there_is_no_tcx() {
    let lab = Lab::new();
    for _ in 0..2 {
        let mut deployment = lab.open().with_clsact();
        deployment.prepare(&[lab.hook()]).expect("programs load");
        let attachments = deployment.attach().expect("programs attach");
        assert_eq!(attachments[0].egress, EgressMode::Clsact);
        deployment
            .tables_mut()
            .set_label(
                LabelKey {
                    kind: LabelKey::INTERFACE,
                    id: 0,
                },
                "wan eth0",
            )
            .expect("room");
        drop(deployment);
        let filters = lab.output("tc", &["filter", "show", "dev", "eth0", "egress"]);
        assert_eq!(
            filters.matches("egress direct-action").count(),
            1,
            "{filters}"
        );
    }
    assert_eq!(
        kernel::detach(&lab.node, &Which::All).expect("detaches"),
        ["wan"]
    );
    let filters = lab.output("tc", &["filter", "show", "dev", "eth0", "egress"]);
    assert_eq!(filters.matches("direct-action").count(), 0, "{filters}");
}

#[test]
fn an_interface_that_left_the_configuration_is_detached() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    deployment.prepare(&[lab.hook()]).expect("programs load");
    deployment.attach().expect("programs attach");
    assert_eq!(
        deployment
            .retire_all_but(&[lab.hook()])
            .expect("nothing to do"),
        Vec::<String>::new()
    );
    assert_eq!(deployment.retire_all_but(&[]).expect("detaches"), ["wan"]);
    assert_eq!(lab.xdp(), None);
    assert!(lab.pinned("links").is_empty());
}

#[test]
fn detach_removes_all_but_not_under_a_running_controller() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    deployment.prepare(&[lab.hook()]).expect("programs load");
    deployment.attach().expect("programs attach");
    deployment
        .tables_mut()
        .set_label(
            LabelKey {
                kind: LabelKey::INTERFACE,
                id: 0,
            },
            "wan eth0",
        )
        .expect("room");
    drop(deployment);

    let lock = NodeLock::take(&lab.node).expect("free");
    let error = kernel::detach(&lab.node, &Which::All).expect_err("locked");
    assert!(
        matches!(&error, KernelError::Locked { pid, .. } if *pid == process::id().to_string()),
        "{error:?}"
    );
    assert!(lab.xdp().is_some());
    drop(lock);

    let error = kernel::detach(&lab.node, &Which::Interfaces(vec!["eth9".to_owned()]))
        .expect_err("unknown");
    assert!(error.to_string().contains("it has wan"), "{error}");
    assert_eq!(
        kernel::detach(&lab.node, &Which::Interfaces(vec!["eth0".to_owned()])).expect("detaches"),
        ["wan"]
    );
    assert_eq!(lab.xdp(), None);
    assert!(lab.pins().join("maps").exists(), "the maps stay");
    assert!(
        kernel::detach(&lab.node, &Which::All)
            .expect("detaches")
            .is_empty()
    );
    assert!(!lab.pins().exists());
    let error = kernel::detach(&lab.node, &Which::All).expect_err("nothing left");
    assert!(
        matches!(error, KernelError::NotDeployed { .. }),
        "{error:?}"
    );
}

#[test]
fn every_table_takes_and_gives_back_what_it_is_for() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    let tables = deployment.tables_mut();
    let prefix = Prefix {
        length: 24,
        address: u32::from_ne_bytes([10, 0, 0, 0]),
    };
    tables
        .routes_v4
        .become_exactly(&HashMap::from([(prefix, 3)]))
        .expect("room");
    assert_eq!(
        tables.routes_v4.contents().expect("readable"),
        HashMap::from([(prefix, 3)])
    );
    assert_eq!(tables.routes_v4.count().expect("readable"), 1);
    tables
        .routes_v4
        .become_exactly(&HashMap::new())
        .expect("empties");
    assert_eq!(tables.routes_v4.count().expect("readable"), 0);
    tables
        .routes_v4
        .remove(prefix)
        .expect("an absent entry is fine");

    for address in 0..1024 {
        tables.local_v4.insert(address, 1).expect("room");
    }
    let error = tables.local_v4.insert(1024, 1).expect_err("full");
    assert!(
        matches!(error, KernelError::Full { max: 1024, .. }),
        "{error:?}"
    );

    tables.set_ruleset(&[1, 2, 3]).expect("swaps");
    tables
        .set_label(
            LabelKey {
                kind: LabelKey::RULE,
                id: 9,
            },
            "edge/web",
        )
        .expect("room");
    tables
        .set_label(
            LabelKey {
                kind: LabelKey::INTERFACE,
                id: 0,
            },
            "wan eth0",
        )
        .expect("room");
    tables
        .set_label(
            LabelKey {
                kind: LabelKey::VIP,
                id: 0,
            },
            "l4.plain 203.0.113.10:8080",
        )
        .expect("room");
    tables
        .set_label(
            LabelKey {
                kind: LabelKey::BACKEND,
                id: 0,
            },
            "l4.plain web1:80 10.0.0.11",
        )
        .expect("room");
    tables
        .set_label(
            LabelKey {
                kind: LabelKey::BACKEND,
                id: 1,
            },
            "l4.plain web1:80 2001:db8::11",
        )
        .expect("room");
    tables.rules.reset(9).expect("resets");
    drop(deployment);

    let snapshot =
        foobar::snapshot::of_pins(&lab.node, Maps::Counted).expect("readable without a controller");
    assert_eq!(
        (&*snapshot.rules[0].policy, &*snapshot.rules[0].rule),
        ("edge", "web")
    );
    assert_eq!(snapshot.interfaces[0].device, "eth0");
    assert_eq!(
        snapshot.services[0].backends.len(),
        1,
        "the IPv4 vip has the IPv4 backend alone"
    );
}

#[test]
fn a_frame_can_be_tried_in_both_directions() {
    let lab = Lab::new();
    let mut deployment = lab.open();
    deployment.prepare(&[lab.hook()]).expect("programs load");
    deployment.attach().expect("programs attach");
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    for direction in [Direction::Ingress, Direction::Egress] {
        let trial = deployment.try_frame("wan", direction, &arp).expect("runs");
        let pass = match direction {
            Direction::Ingress => 2,
            Direction::Egress => 0,
        };
        assert_eq!(trial.returned, pass, "{direction:?}");
        assert_eq!(trial.frame, arp);
    }
    let error = deployment
        .try_frame("lan", Direction::Ingress, &arp)
        .expect_err("unknown");
    assert!(error.to_string().contains("no interface lan"), "{error}");
}

fn ring(backend: u32) -> [Slot; RING_SLOTS as usize] {
    [Slot::new(backend, Slot::NOBODY, false); RING_SLOTS as usize]
}

/// A network namespace with eth0, whose peer is in another one, and a node's name nobody else uses.
struct Lab {
    node: String,
    peer: String,
    _removed: Removed,
    _namespace: NetNsGuard,
}

impl Lab {
    fn new() -> Self {
        let node = Self::node_name();
        prepare_namespaces().expect("a place for namespaces");
        let lab = Self {
            peer: format!("{node}-peer"),
            _removed: Removed(node.clone()),
            _namespace: NetNsGuard::new().expect("a network namespace"),
            node,
        };
        assert!(lab.run("ip", &["netns", "add", &lab.peer]));
        lab.make_veth();
        lab
    }

    fn node_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!(
            "deployment-test-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        )
    }

    fn make_veth(&self) {
        assert!(self.run(
            "ip",
            &[
                "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &self.peer
            ]
        ));
        assert!(self.run("ip", &["link", "set", "eth0", "up"]));
        assert!(self.run("ip", &["-n", &self.peer, "link", "set", "eth0", "up"]));
    }

    fn open(&self) -> Deployment {
        Deployment::open(&self.node, KEYS, Sizes::default()).expect("the deployment opens")
    }

    fn hook(&self) -> Hook {
        Hook {
            id: 0,
            interface: "wan".to_owned(),
            device: "eth0".to_owned(),
            mode: XdpMode::Auto,
        }
    }

    fn pins(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/foobar").join(&self.node)
    }

    fn pinned(&self, kind: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.pins().join(kind)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    /// Id of the XDP program on eth0.
    fn xdp(&self) -> Option<u64> {
        let links: serde_json::Value =
            serde_json::from_str(&self.output("ip", &["-j", "-d", "link", "show", "dev", "eth0"]))
                .expect("JSON");
        links[0]["xdp"]["prog"]["id"].as_u64()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        Command::new(program)
            .args(arguments)
            .stdout(process::Stdio::null())
            .status()
            .expect("the program is installed")
            .success()
    }

    fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .output()
            .expect("the program is installed");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run("ip", &["netns", "del", &self.peer]);
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
