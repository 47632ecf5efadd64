//! The lab's namespaces, links, addresses and routes.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use foobar::config::Config;

use crate::servers;

/// The namespace of the servers' bridge.
const LAN: &str = "foobar-lan";
/// The machine's own leg into the lab.
const HOST: &str = "foobar-host";
/// How long the kernel may take to call an address its own.
const PATIENCE: Duration = Duration::from_secs(5);
const NAMESPACES: [&str; 6] = ["client", "lb1", "web1", "web2", "web3", LAN];

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
        for (namespace, line) in &self.script {
            let begun = Instant::now();
            while let Err(error) = run(namespace.as_deref(), line) {
                if begun.elapsed() > PATIENCE || !is_too_early(&error) {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
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

    fn lan(&mut self, name: &str, device: &str) {
        self.on_machine(format!(
            "ip link add {name} netns {LAN} type veth peer name {device} netns {name}"
        ));
        self.inside(LAN, &format!("ip link set {name} master br0"));
        self.peer(LAN, name);
        self.inside(name, &format!("ip link set {device} up"));
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

/// Removes what [`Network::create`] made; what is not there is fine.
///
/// # Errors
/// When `ip` cannot be started.
pub fn remove() -> Result<()> {
    for namespace in NAMESPACES {
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
