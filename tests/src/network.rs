//! The lab's namespaces, links, addresses and routes.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use foobar::config::{Config, Host};

use crate::{passing, servers};

/// The namespace of the servers' bridge.
const LAN: &str = "foobar-lan";
/// Where the applications have their addresses.
const APPLICATIONS: &str = "10.0.1.0/24";
/// The machine's own leg into the lab.
const HOST: &str = "foobar-host";
/// How long the kernel may take to call an address its own.
const PATIENCE: Duration = Duration::from_secs(5);
const NAMESPACES: [&str; 9] = [
    "client", "lb1", "web1", "web2", "web3", "app1", "app2", "app3", LAN,
];

/// A second balancer, where the configuration has one, and the clients behind it.
pub const SECOND: &str = "lb2";
pub const SECOND_CLIENT: &str = "client2";
const SECOND_CLIENTS: &str = "10.0.2.0/24";

#[derive(Debug)]
pub struct Network {
    script: Vec<(Option<String>, String)>,
}

impl Network {
    /// # Errors
    /// When the configuration lacks a host that the lab is made of.
    pub fn new(config: &Config) -> Result<Self> {
        let balancer = config
            .hosts
            .get("lb1")
            .context("the lab needs a host `lb1`")?;
        let mut network = Self { script: Vec::new() };
        for namespace in NAMESPACES {
            network.on_machine(format!("ip netns add {namespace}"));
            network.inside(namespace, "ip link set lo up");
        }
        network.wan();
        for address in balancer.public.iter() {
            let bits = if address.is_ipv4() { 24 } else { 64 };
            network.inside(
                "lb1",
                &format!("ip addr add {address}/{bits} dev eth0 nodad"),
            );
        }
        network.inside(LAN, "ip link add br0 type bridge");
        network.inside(LAN, "ip link set br0 up");
        network.lan("lb1", "eth1");
        // Servers reach each other through the balancer too.
        network.inside(
            LAN,
            &format!("ip link set lb1 xdpdrv pinned {}", passing::PIN),
        );
        for address in balancer.private.iter() {
            let bits = if address.is_ipv4() { 24 } else { 64 };
            network.inside(
                "lb1",
                &format!("ip addr add {address}/{bits} dev eth1 nodad"),
            );
        }
        network.inside("lb1", "ip route add default via 203.0.113.1");
        network.inside("lb1", "ip -6 route add default via 2001:db8::1");
        for server in servers::of(config) {
            network.lan(&server.name, "eth0");
            for address in server.private.iter() {
                let bits = if address.is_ipv4() { 24 } else { 64 };
                let name = &server.name;
                network.inside(
                    name,
                    &format!("ip addr add {address}/{bits} dev eth0 nodad"),
                );
            }
            // The balancer rewrites destinations: answers must come back through it.
            for address in balancer.private.iter() {
                network.inside(&server.name, &format!("ip route add default via {address}"));
            }
            network.application(server, balancer)?;
        }
        if let Some(second) = config.hosts.get(SECOND) {
            network.second(second, config)?;
        }
        network.host();
        for router in ["client", "lb1"] {
            network.inside(router, "sysctl -qw net.ipv4.ip_forward=1");
            network.inside(router, "sysctl -qw net.ipv6.conf.all.forwarding=1");
        }
        Ok(network)
    }

    /// # Errors
    /// The command that failed, and what it said.
    pub fn create(&self) -> Result<()> {
        passing::pin()?;
        for (namespace, line) in &self.script {
            let begun = Instant::now();
            while let Err(error) = run(namespace.as_deref(), line) {
                if begun.elapsed() > PATIENCE || !is_too_early(&error) {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        passing::unpin()
    }

    fn on_machine(&mut self, line: String) {
        self.script.push((None, line));
    }

    fn inside(&mut self, namespace: &str, line: &str) {
        self.script
            .push((Some(namespace.to_owned()), line.to_owned()));
    }

    /// The internet's link to the balancer. Clients are all of 198.51.100.0/25 and 2001:db8:c::/112.
    fn wan(&mut self) {
        self.on_machine("ip link add wan0 netns client type veth peer name eth0 netns lb1".into());
        self.peer("client", "wan0");
        self.inside("lb1", "ip link set eth0 up");
        self.inside("client", "ip addr add 203.0.113.1/24 dev wan0");
        self.inside("client", "ip addr add 2001:db8::1/64 dev wan0 nodad");
        self.inside("client", "ip addr add 198.51.100.7/32 dev lo");
        self.inside("client", "ip addr add 2001:db8:c::7/128 dev lo");
        self.inside("client", "ip route add local 198.51.100.0/25 dev lo");
        self.inside("client", "ip -6 route add local 2001:db8:c::/112 dev lo");
        self.inside(
            "client",
            "ip route add 203.0.113.10/32 dev wan0 src 198.51.100.7",
        );
        self.inside(
            "client",
            "ip -6 route add 2001:db8::10/128 dev wan0 src 2001:db8:c::7",
        );
    }

    /// Its clients come from a network of their own, and answers go back to that through it.
    fn second(&mut self, second: &Host, config: &Config) -> Result<()> {
        for namespace in [SECOND, SECOND_CLIENT] {
            self.on_machine(format!("ip netns add {namespace}"));
            self.inside(namespace, "ip link set lo up");
        }
        self.lan(SECOND, "eth1");
        self.inside(
            LAN,
            &format!("ip link set {SECOND} xdpdrv pinned {}", passing::PIN),
        );
        let address = second
            .private
            .v4
            .context("the second balancer needs a private IPv4 address")?;
        self.inside(SECOND, &format!("ip addr add {address}/24 dev eth1"));
        self.on_machine(format!(
            "ip link add wan0 netns {SECOND_CLIENT} type veth peer name eth0 netns {SECOND}"
        ));
        self.peer(SECOND_CLIENT, "wan0");
        self.inside(SECOND, "ip link set eth0 up");
        self.inside(SECOND, "ip addr add 10.0.2.1/24 dev eth0");
        self.inside(SECOND, "sysctl -qw net.ipv4.ip_forward=1");
        self.inside(SECOND_CLIENT, "ip addr add 10.0.2.2/24 dev wan0");
        self.inside(SECOND_CLIENT, "ip route add default via 10.0.2.1");
        for server in servers::of(config) {
            let back = format!("ip route add {SECOND_CLIENTS} via {address}");
            self.inside(&server.name, &back);
        }
        Ok(())
    }

    fn lan(&mut self, name: &str, device: &str) {
        self.on_machine(format!(
            "ip link add {name} netns {LAN} type veth peer name {device} netns {name}"
        ));
        self.inside(LAN, &format!("ip link set {name} master br0"));
        self.peer(LAN, name);
        self.inside(name, &format!("ip link set {device} up"));
    }

    /// The application's own network beside its server, as a container has it, and its way to the databases: over the
    /// balancer and back over it, also where the database is on the same machine.
    fn application(&mut self, server: &Host, balancer: &Host) -> Result<()> {
        let (name, inside) = (&server.name, servers::application(&server.name));
        let address = servers::application_address(&server.name)?;
        let (Some(here), Some(back)) = (server.private.v4, balancer.private.v4) else {
            bail!("{name} and {} need private IPv4 addresses", balancer.name);
        };
        self.on_machine(format!(
            "ip link add app0 netns {name} type veth peer name eth0 netns {inside}"
        ));
        self.inside(name, "ip link set app0 up");
        self.inside(
            name,
            &format!("ip route add {address}/32 dev app0 src {here}"),
        );
        for key in ["all", "app0", "eth0"] {
            self.inside(name, &format!("sysctl -qw net.ipv4.conf.{key}.rp_filter=0"));
        }
        self.inside(name, "sysctl -qw net.ipv4.ip_forward=1");
        self.inside(name, &format!("ip route add default via {back} table 100"));
        self.inside(
            name,
            &format!("ip rule add from {here} to {APPLICATIONS} ipproto tcp sport 3306 lookup 100"),
        );
        self.inside(&inside, "ip link set eth0 up");
        self.inside(&inside, "ethtool -K eth0 tx off");
        self.inside(&inside, &format!("ip addr add {address}/32 dev eth0"));
        self.inside(&inside, &format!("ip route add {here} dev eth0"));
        self.inside(&inside, &format!("ip route add default via {here}"));
        self.inside("lb1", &format!("ip route add {address}/32 via {here}"));
        Ok(())
    }

    /// The far end of an interface that runs XDP: GRO, so that frames redirected to it arrive; no checksum offload, or
    /// frames with partial checksums are lost when they are sent on.
    fn peer(&mut self, namespace: &str, device: &str) {
        self.inside(namespace, &format!("ip link set {device} up"));
        self.inside(namespace, &format!("ethtool -K {device} gro on tx off"));
    }

    /// A way from this machine's own shell to the public addresses.
    fn host(&mut self) {
        self.on_machine(format!(
            "ip link add {HOST} type veth peer name host0 netns client"
        ));
        self.on_machine(format!("ip addr add 198.51.100.194/26 dev {HOST}"));
        self.on_machine(format!("ip addr add 2001:db8:d::2/64 dev {HOST} nodad"));
        self.on_machine(format!("ip link set {HOST} up"));
        self.inside("client", "ip addr add 198.51.100.193/26 dev host0");
        self.inside("client", "ip addr add 2001:db8:d::1/64 dev host0 nodad");
        self.inside("client", "ip link set host0 up");
        self.inside("client", "ethtool -K host0 tx off");
        self.on_machine(format!("ethtool -K {HOST} tx off"));
        self.on_machine("ip route replace 203.0.113.10/32 via 198.51.100.193".into());
        self.on_machine("ip -6 route replace 2001:db8::10/128 via 2001:db8:d::1".into());
    }
}

/// Has `ip netns` prepare `/run/netns`: its first `add` mounts the directory over itself, which hides every namespace that
/// was mounted there before by others, a test's guard among them.
///
/// # Errors
/// When `ip` fails.
pub fn prepare_namespaces() -> Result<()> {
    let name = format!("foobar-prepare-{}", std::process::id());
    run(None, &format!("ip netns add {name}"))?;
    run(None, &format!("ip netns del {name}"))
}

/// Removes what [`Network::create`] made; what is not there is fine.
///
/// # Errors
/// When `ip` cannot be started.
pub fn remove() -> Result<()> {
    for namespace in NAMESPACES.into_iter().chain([SECOND, SECOND_CLIENT]) {
        if Path::new("/run/netns").join(namespace).exists() {
            run(None, &format!("ip netns del {namespace}"))?;
        }
    }
    // The far end went with its namespace, and this one with it, though not at once.
    let _ = run(None, &format!("ip link del {HOST}"));
    Ok(())
}

fn run(namespace: Option<&str>, line: &str) -> Result<()> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [program, arguments @ ..] = words.as_slice() else {
        bail!("an empty command");
    };
    let mut command = match namespace {
        Some(namespace) => crate::in_namespace(namespace, program),
        None => Command::new(program),
    };
    let output = command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!(
            "`{line}` failed{}: {}",
            namespace.map_or(String::new(), |namespace| format!(" in {namespace}")),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// An IPv6 address is tentative until the kernel's own worker has had its turn, even on a loopback.
fn is_too_early(error: &anyhow::Error) -> bool {
    error.to_string().contains("Invalid source address")
}
