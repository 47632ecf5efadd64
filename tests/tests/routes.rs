//! The netlink edge on real links: a node and its neighbour in network namespaces (needs root).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::test_helpers::NetNsGuard;
use foobar::routes::{Event, LinkInfo, NextHop, RouteTable, Router, Trouble};
use foobar_lab::network::prepare_namespaces;
use tokio::sync::mpsc;

/// A node in its own namespace (the thread's), and a neighbour at the other end of a veth.
struct Estate {
    neighbour: Neighbour,
    _node: NetNsGuard,
}

struct Neighbour(String);

impl Estate {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        prepare_namespaces().expect("a place for namespaces");
        let node = NetNsGuard::new().expect("a namespace; are you root?");
        let name = format!(
            "foobar-routes-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        run(&format!("ip netns add {name}"));
        let estate = Self {
            neighbour: Neighbour(name),
            _node: node,
        };
        run(&format!(
            "ip link add lan address 02:00:00:00:00:01 mtu 1400 type veth peer name eth0 address 02:00:00:00:00:02 netns {}",
            estate.neighbour.0
        ));
        run("ip address add 10.9.0.1/24 dev lan");
        run("ip address add fd09::1/64 dev lan nodad");
        run("ip link set lan up");
        estate.neighbour.ip("address add 10.9.0.2/24 dev eth0");
        estate.neighbour.ip("address add fd09::2/64 dev eth0 nodad");
        estate.neighbour.ip("link set eth0 up");
        estate
    }
}

impl Neighbour {
    fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.0));
    }

    fn run(&self, command: &str) {
        run(&format!("ip netns exec {} {command}", self.0));
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let removed = Command::new("ip").args(["netns", "del", &self.0]).status();
        assert!(
            removed.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "cannot remove the namespace {}",
            self.0
        );
    }
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a program"))
        .args(words)
        .output()
        .expect("a program that can be run");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// All that was told, the latest of each kind.
struct Told {
    events: mpsc::Receiver<Event>,
    links: BTreeMap<String, LinkInfo>,
    local: BTreeSet<IpAddr>,
    next_hops: BTreeMap<IpAddr, NextHop>,
    routes: RouteTable,
}

impl Told {
    fn new(events: mpsc::Receiver<Event>) -> Self {
        Self {
            events,
            links: BTreeMap::new(),
            local: BTreeSet::new(),
            next_hops: BTreeMap::new(),
            routes: RouteTable::default(),
        }
    }

    async fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
        while !reached(self) {
            let event = tokio::time::timeout_at(deadline, self.events.recv())
                .await
                .unwrap_or_else(|_| {
                    panic!("not told: {what}; {:?} {:?}", self.next_hops, self.routes)
                })
                .expect("the watcher goes on");
            match event {
                Event::Links(links) => self.links = links,
                Event::Local(local) => self.local = local,
                Event::NextHops(next_hops) => self.next_hops = next_hops,
                Event::Routes(routes) => self.routes = routes,
            }
        }
    }

    fn destination(&self, target: &str) -> Option<[u8; 6]> {
        self.next_hops
            .get(&address(target))
            .filter(|hop| hop.resolved())
            .map(|hop| hop.destination)
    }

    fn trouble(&self, target: &str) -> Option<Trouble> {
        self.next_hops.get(&address(target))?.trouble
    }

    /// The gateway's MAC that the table gives for `target`.
    fn routed(&self, target: &str) -> Option<[u8; 6]> {
        self.routes
            .look_up(address(target))
            .filter(|hop| hop.resolved())
            .map(|hop| hop.destination)
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn watch(router: &Router, targets: &[&str]) {
    router.watch(targets.iter().map(|target| address(target)).collect());
}

/// In the thread's own namespace, so on this thread.
fn watching(test: impl AsyncFnOnce(&Estate, Router, Told)) {
    let estate = Estate::new();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            let (router, events) = Router::start().await.expect("netlink");
            test(&estate, router, Told::new(events)).await;
        });
}

const NODE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MOVED: [u8; 6] = [2, 0, 0, 0, 0, 3];

#[test]
fn a_target_on_the_link_is_resolved_without_traffic() {
    watching(async |_, router, mut told| {
        watch(&router, &["10.9.0.2", "fd09::2"]);
        told.until("both families", |told| {
            told.destination("10.9.0.2").is_some() && told.destination("fd09::2").is_some()
        })
        .await;
        let lan = router.link("lan").await.expect("an answer").expect("lan");
        let hop = &told.next_hops[&address("10.9.0.2")];
        assert_eq!(hop.source, NODE);
        assert_eq!(hop.destination, NEIGHBOUR);
        assert_eq!(hop.interface, lan.index);
        assert_eq!(hop.device, "lan");
        assert_eq!(hop.mtu, 1400);
        assert_eq!(told.destination("fd09::2"), Some(NEIGHBOUR));
        assert_eq!(lan.mac, NODE);
        assert!(lan.up);
        assert_eq!(lan.kind, "veth");
        assert!(router.link("wan").await.expect("an answer").is_none());
    });
}

#[test]
fn a_target_behind_a_gateway_gets_the_gateways_address() {
    watching(async |_, router, mut told| {
        run("ip route add 192.0.2.0/24 via 10.9.0.2 mtu 1300");
        run("ip route add 2001:db8::/32 via fd09::2");
        run("ip route add 198.51.100.0/24 via inet6 fd09::2");
        watch(&router, &["192.0.2.77", "2001:db8::77", "198.51.100.7"]);
        told.until("all", |told| {
            ["192.0.2.77", "2001:db8::77", "198.51.100.7"]
                .iter()
                .all(|target| told.destination(target) == Some(NEIGHBOUR))
        })
        .await;
        assert_eq!(told.next_hops[&address("192.0.2.77")].mtu, 1300);
    });
}

#[test]
fn why_a_target_cannot_be_reached_is_told() {
    watching(async |_, router, mut told| {
        run("ip route add blackhole 192.0.2.0/24");
        run("ip route add 203.0.113.0/24 dev lan");
        watch(
            &router,
            &["192.0.2.1", "198.51.100.1", "10.9.0.1", "203.0.113.9"],
        );
        told.until("each", |told| {
            told.trouble("192.0.2.1") == Some(Trouble::NoRoute)
                && told.trouble("198.51.100.1") == Some(Trouble::NoRoute)
                && told.trouble("10.9.0.1") == Some(Trouble::Local)
                && told.trouble("203.0.113.9") == Some(Trouble::NoAnswer)
        })
        .await;
    });
}

#[test]
fn a_neighbour_that_comes_late_is_found() {
    watching(async |estate, router, mut told| {
        watch(&router, &["10.9.0.50"]);
        told.until("silence", |told| {
            told.trouble("10.9.0.50") == Some(Trouble::NoAnswer)
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        estate.neighbour.ip("address add 10.9.0.50/24 dev eth0");
        told.until("an answer", |told| {
            told.destination("10.9.0.50") == Some(NEIGHBOUR)
        })
        .await;
    });
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    watching(async |estate, router, mut told| {
        watch(&router, &["10.9.0.2"]);
        told.until("resolved", |told| {
            told.destination("10.9.0.2") == Some(NEIGHBOUR)
        })
        .await;
        estate
            .neighbour
            .run("sysctl -qw net.ipv4.conf.eth0.arp_notify=1");
        // The kernel keeps an address for a second against flapping.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        estate
            .neighbour
            .ip("link set eth0 address 02:00:00:00:00:03");
        told.until("moved", |told| told.destination("10.9.0.2") == Some(MOVED))
            .await;
    });
}

#[test]
fn a_neighbour_that_falls_silent_is_noticed_without_traffic() {
    watching(async |estate, router, mut told| {
        for (name, value) in [
            ("base_reachable_time_ms", 1000),
            ("delay_first_probe_time", 1),
        ] {
            run(&format!("sysctl -qw net.ipv4.neigh.lan.{name}={value}"));
        }
        watch(&router, &["10.9.0.2"]);
        told.until("resolved", |told| told.destination("10.9.0.2").is_some())
            .await;
        estate.neighbour.ip("address del 10.9.0.2/24 dev eth0");
        told.until("silence", |told| {
            told.trouble("10.9.0.2") == Some(Trouble::NoAnswer)
        })
        .await;
        estate.neighbour.ip("address add 10.9.0.2/24 dev eth0");
        told.until("back", |told| {
            told.destination("10.9.0.2") == Some(NEIGHBOUR)
        })
        .await;
    });
}

#[test]
fn a_link_that_goes_down_takes_its_hops_along_and_brings_them_back() {
    watching(async |estate, router, mut told| {
        watch(&router, &["10.9.0.2", "fd09::2"]);
        told.until("resolved", |told| told.destination("10.9.0.2").is_some())
            .await;
        estate.neighbour.ip("link set eth0 down");
        told.until("carrier lost", |told| {
            told.destination("10.9.0.2").is_none() && !told.links["lan"].up
        })
        .await;
        estate.neighbour.ip("link set eth0 up");
        told.until("back", |told| {
            told.destination("10.9.0.2") == Some(NEIGHBOUR)
        })
        .await;
        run("ip link del lan");
        told.until("gone", |told| {
            told.trouble("10.9.0.2") == Some(Trouble::NoRoute) && !told.links.contains_key("lan")
        })
        .await;
    });
}

#[test]
fn routes_with_a_gateway_get_a_hop_and_others_ask_the_kernel() {
    watching(async |_, _router, mut told| {
        run("ip route add default via 10.9.0.2");
        run("ip -6 route add default via fd09::2");
        run("ip route add blackhole 192.0.2.0/24");
        run("ip route add 198.51.100.0/24 nexthop via 10.9.0.2 nexthop via 10.9.0.3");
        run("ip route add 203.0.113.7/32 dev lan");
        told.until("the defaults", |told| {
            told.routed("8.8.8.8") == Some(NEIGHBOUR)
                && told.routed("2001:db8::1") == Some(NEIGHBOUR)
                && told.routes.look_up(address("203.0.113.7")).is_some()
        })
        .await;
        for kernel in ["10.9.0.7", "192.0.2.1", "198.51.100.1", "fd09::7"] {
            assert!(told.routes.look_up(address(kernel)).is_none(), "{kernel}");
        }
        assert_eq!(
            told.routes
                .look_up(address("203.0.113.7"))
                .and_then(|hop| hop.trouble),
            Some(Trouble::NoAnswer)
        );
        run("ip route del default");
        told.until("the default gone", |told| {
            told.routes.look_up(address("8.8.8.8")).is_none()
        })
        .await;
        assert_eq!(told.routed("2001:db8::1"), Some(NEIGHBOUR));
    });
}

#[test]
fn a_routing_rule_makes_the_whole_family_the_kernels() {
    watching(async |_, _router, mut told| {
        run("ip route add default via 10.9.0.2");
        run("ip -6 route add default via fd09::2");
        told.until("the defaults", |told| told.routed("8.8.8.8").is_some())
            .await;
        run("ip rule add from 192.0.2.0/24 table 100");
        told.until("the rule", |told| {
            told.routes.look_up(address("8.8.8.8")).is_none()
        })
        .await;
        told.until("IPv6 untouched", |told| {
            told.routed("2001:db8::1") == Some(NEIGHBOUR)
        })
        .await;
    });
}

#[test]
fn local_addresses_are_told_as_they_come_and_go() {
    watching(async |_, _router, mut told| {
        let own = ["127.0.0.1", "10.9.0.1", "fd09::1", "::1"];
        told.until("at the start", |told| {
            own.iter().all(|own| told.local.contains(&address(own)))
        })
        .await;
        assert!(!told.local.contains(&address("10.9.0.2")));
        run("ip address add 203.0.113.10/32 dev lan");
        told.until("added", |told| {
            told.local.contains(&address("203.0.113.10"))
        })
        .await;
        run("ip address del 203.0.113.10/32 dev lan");
        told.until("removed", |told| {
            !told.local.contains(&address("203.0.113.10"))
        })
        .await;
    });
}

#[test]
fn a_burst_of_changes_ends_in_the_truth() {
    watching(async |_, _router, mut told| {
        let batch: String = (0..=255)
            .flat_map(|third| {
                (0..8).map(move |fourth| {
                    format!("route add 172.16.{third}.{}/27 via 10.9.0.2\n", fourth * 32)
                })
            })
            .chain(["route add 172.17.0.0/16 via 10.9.0.2\n".to_owned()])
            .collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), batch).expect("written");
        run(&format!("ip -batch {}", file.path().display()));
        told.until("all", |told| {
            told.routes.routes.len() == 2049 && told.routed("172.17.1.1") == Some(NEIGHBOUR)
        })
        .await;
    });
}
