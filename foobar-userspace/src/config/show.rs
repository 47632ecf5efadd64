//! The configuration in effect, as TOML: defaults filled in, hosts resolved; read again, it means the same.

mod l7;
mod monitor;
mod mysql;

use std::{fmt::Write as _, time::Duration};

use ipnet::IpNet;

use super::{
    Action, Addresses, Backend, Check, Config, Host, Interface, L4Service, Limit, LimitPer, Node,
    Peer, Policy, Probe, Protocol, Rule, Secret, Set, Traffic, XdpMode, tree::quoted, words::Rate,
};

#[must_use]
pub fn show(config: &Config) -> String {
    let mut text = String::from("version = 1\n");
    section(&mut text, "hosts", config.hosts.values().map(host));
    section(&mut text, "sets", config.sets.values().map(set));
    section(&mut text, "limits", config.limits.values().map(limit));
    section(&mut text, "nodes", config.nodes.values().map(node));
    for policy in config.policies.values() {
        text.push_str(&policy_section(policy));
    }
    for service in config.l4.values() {
        text.push_str(&service_section(service));
    }
    for service in config.l7.values() {
        text.push_str(&l7::service(service));
    }
    for service in config.mysql.values() {
        text.push_str(&mysql::service(service));
    }
    section(&mut text, "proxy", l7::proxy(config).into_iter());
    text.push_str(&monitor::show(config));
    text
}

fn section(text: &mut String, name: &str, entries: impl Iterator<Item = (String, String)>) {
    let lines: String = entries
        .map(|(name, value)| format!("{} = {value}\n", key(&name)))
        .collect();
    if !lines.is_empty() {
        let _ = write!(text, "\n[{name}]\n{lines}");
    }
}

fn host(host: &Host) -> (String, String) {
    let mut keys = Keys::default();
    keys.addresses("public", &host.public);
    keys.addresses("private", &host.private);
    if !host.names.is_empty() {
        keys.list("names", host.names.iter().cloned());
    }
    (host.name.clone(), keys.table())
}

fn set(set: &Set) -> (String, String) {
    let mut keys = Keys::default();
    if !set.elements.is_empty() {
        keys.list("elements", set.elements.iter().map(element));
    }
    if let Some(file) = &set.file {
        keys.text("file", &file.to_string_lossy());
    }
    keys.add("max", set.max);
    if let Some(timeout) = set.timeout {
        keys.duration("timeout", timeout);
    }
    (set.name.clone(), keys.table())
}

fn element(net: &IpNet) -> String {
    Peer::Prefix(*net).to_string()
}

fn limit(limit: &Limit) -> (String, String) {
    let rate = Rate {
        packets: limit.packets,
        period: limit.period,
    };
    let mut keys = Keys::default();
    keys.text("rate", &rate.to_string());
    keys.add("burst", limit.burst);
    keys.text(
        "per",
        match limit.per {
            LimitPer::Rule => "rule",
            LimitPer::Source => "source",
        },
    );
    (limit.name.clone(), keys.table())
}

fn node(node: &Node) -> (String, String) {
    let mut keys = Keys::default();
    for face in &node.interfaces {
        keys.add(&key(&face.name), interface(face));
    }
    (node.name.clone(), keys.table())
}

fn interface(interface: &Interface) -> String {
    let mut keys = Keys::default();
    keys.text("dev", &interface.device);
    keys.text(
        "xdp",
        match interface.xdp {
            XdpMode::Auto => "auto",
            XdpMode::Generic => "generic",
            XdpMode::Native => "native",
        },
    );
    keys.optional("ingress", interface.ingress.as_deref());
    keys.optional("egress", interface.egress.as_deref());
    keys.table()
}

fn policy_section(policy: &Policy) -> String {
    let default = match policy.default {
        Action::Allow => "allow",
        Action::Drop => "drop",
    };
    let rules: String = policy
        .rules
        .iter()
        .map(|each| format!("  {},\n", rule(each)))
        .collect();
    let rules = match rules.as_str() {
        "" => String::new(),
        rules => format!("rules = [\n{rules}]\n"),
    };
    format!(
        "\n[firewall.{}]\npolicy = \"{default}\"\n{rules}",
        key(&policy.name)
    )
}

/// A rule as the file would say it.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let mut keys = Keys::default();
    keys.text("name", &rule.name);
    let verb = match rule.action {
        Action::Allow => "allow",
        Action::Drop => "drop",
    };
    match rule.traffic.as_slice() {
        [Traffic::Any] => keys.text(verb, "any"),
        traffic => keys.list(verb, traffic.iter().map(Traffic::to_string)),
    }
    if !rule.from.is_empty() {
        keys.list("from", rule.from.iter().map(Peer::to_string));
    }
    if !rule.to.is_empty() {
        keys.list("to", rule.to.iter().map(Peer::to_string));
    }
    if let Some(ports) = rule.source_ports {
        keys.text("sport", &ports.to_string());
    }
    if let Some(flags) = rule.flags {
        keys.text("flags", &flags.to_string());
    }
    keys.optional("limit", rule.limit.as_deref());
    keys.optional("jail", rule.jail.as_deref());
    keys.table()
}

fn service_section(service: &L4Service) -> String {
    let proto = match service.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let vips: Vec<_> = service
        .vips
        .iter()
        .map(|vip| format!("\"{vip}\""))
        .collect();
    let backends: String = service
        .backends
        .iter()
        .map(|each| format!("  {},\n", backend(each)))
        .collect();
    let mut text = format!(
        "\n[l4.{}]\non = {}\nvip = [{}]\nproto = \"{proto}\"\nmode = \"dnat\"\nbalance = \"hrw\"\non-backend-loss = \"{}\"\nbackends = [\n{backends}]\n",
        key(&service.name),
        quoted(&service.on),
        vips.join(", "),
        service.on_loss.word(),
    );
    if let Some(written) = &service.check {
        let _ = writeln!(text, "check = {}", check(written));
    }
    text
}

fn backend(backend: &Backend) -> String {
    let mut keys = Keys::default();
    keys.text("host", &backend.host);
    keys.add("port", backend.port);
    keys.add("weight", backend.weight);
    keys.optional("kind", backend.kind.as_deref());
    keys.table()
}

fn check(check: &Check) -> String {
    let mut keys = Keys::default();
    match &check.probe {
        Probe::Tcp => keys.add("tcp", true),
        Probe::Http { path, expect } => {
            keys.text("http", path);
            keys.add("expect", expect);
        }
        Probe::Https { path, expect } => {
            keys.text("https", path);
            keys.add("expect", expect);
        }
    }
    keys.duration("every", check.every);
    keys.duration("timeout", check.timeout);
    keys.add("rise", check.rise);
    keys.add("fall", check.fall);
    keys.table()
}

fn secret(secret: &Secret) -> String {
    let mut keys = Keys::default();
    match secret {
        Secret::Credential(name) => keys.text("credential", name),
        Secret::Environment(name) => keys.text("env", name),
        Secret::File(path) => keys.text("file", &path.to_string_lossy()),
    }
    keys.table()
}

/// The keys of an inline table.
#[derive(Default)]
struct Keys(Vec<String>);

impl Keys {
    fn add(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.push(format!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.add(key, quoted(value));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, &humantime::format_duration(value).to_string());
    }

    fn list(&mut self, key: &str, values: impl Iterator<Item = String>) {
        let values: Vec<_> = values.map(|value| quoted(&value)).collect();
        self.add(key, format!("[{}]", values.join(", ")));
    }

    fn addresses(&mut self, key: &str, addresses: &Addresses) {
        let written: Vec<_> = addresses
            .iter()
            .map(|address| address.to_string())
            .collect();
        if !written.is_empty() {
            self.list(key, written.into_iter());
        }
    }

    fn table(self) -> String {
        match self.0.join(", ") {
            keys if keys.is_empty() => "{}".to_owned(),
            keys => format!("{{ {keys} }}"),
        }
    }
}

/// A name as a key: bare where TOML lets it.
fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if bare { name.to_owned() } else { quoted(name) }
}
