//! Which module may name what: arrows point inwards.

use std::collections::BTreeSet;

use super::source::{File, Named, named};

struct Rule {
    /// In which files the paths must not be named.
    applies: Box<dyn Fn(&str) -> bool>,
    banned: Vec<&'static [&'static str]>,
    /// Paths that may be named although they lie below a banned one.
    allowed: Option<&'static [&'static str]>,
    reason: String,
}

/// One line for each place that breaks a rule, and for each rule that no file falls under any more.
pub fn findings(files: &[File]) -> Vec<String> {
    let mut findings = BTreeSet::new();
    for rule in rules() {
        let mut guarded = files
            .iter()
            .filter(|file| (rule.applies)(&file.path))
            .peekable();
        if guarded.peek().is_none() {
            findings.insert(format!(
                "no file is left to which this applies: {}",
                rule.reason
            ));
        }
        for file in guarded {
            for path in named(product_part(&file.text)) {
                if rule.allowed.is_some_and(|allowed| names(&path, allowed)) {
                    continue;
                }
                if let Some(banned) = rule.banned.iter().find(|banned| names(&path, banned)) {
                    findings.insert(format!(
                        "{}:{}: names {}, but {}",
                        file.path,
                        path.line,
                        banned.join("::"),
                        rule.reason
                    ));
                }
            }
        }
    }
    findings.into_iter().collect()
}

/// A file without the tests at its end, which may ask the clock.
fn product_part(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod tests {")
        .map_or(text, |(product, _)| product)
}

fn names(path: &Named, banned: &[&str]) -> bool {
    path.segments
        .windows(banned.len())
        .any(|window| window == banned)
}

/// What the administration's socket says is plain values: pure modules that make something of them may know them.
const VALUES: &[&str] = &["crate", "admin", "api"];

fn rules() -> Vec<Rule> {
    let mut rules = vec![
        Rule {
            applies: Box::new(|path| !is_kernel_edge(path) && !path.starts_with("tests/")),
            banned: vec![&["aya"]],
            allowed: None,
            reason: "only foobar-userspace/src/kernel knows aya".to_owned(),
        },
        Rule {
            applies: Box::new(|path| !is_bpf_bin(path)),
            banned: vec![&["aya_ebpf"]],
            allowed: None,
            reason: "only the bins of foobar-ebpf know aya_ebpf".to_owned(),
        },
        Rule {
            applies: Box::new(|path| {
                !is_bpf_bin(path) && !is_kernel_edge(path) && !path.starts_with("tests/")
            }),
            banned: vec![&["unsafe"]],
            allowed: None,
            reason: "only the two kernel modules are unsafe".to_owned(),
        },
        Rule {
            applies: Box::new(|path| {
                PURE.iter().any(|module| is_module(path, module)) && !is_of_tests(path)
                    || path.starts_with("foobar-ebpf/src/") && !is_bpf_bin(path)
            }),
            banned: OUTSIDE_WORLD
                .iter()
                .chain(EDGES.iter().map(|(_, path)| path))
                .copied()
                .collect(),
            allowed: Some(VALUES),
            reason: "a pure module takes time and observations as arguments".to_owned(),
        },
    ];
    rules.extend(EDGES.map(|(edge, _)| Rule {
        applies: Box::new(move |path| is_module(path, edge)),
        banned: outside_of(edge),
        allowed: None,
        reason: format!("the edge {edge} must not know other edges: the controller composes them"),
    }));
    rules
}

/// The other edges, and the one who composes them.
fn outside_of(edge: &str) -> Vec<&'static [&'static str]> {
    let others = EDGES.iter().filter(|(other, _)| *other != edge);
    let controller: &[&str] = &["crate", "controller"];
    others.map(|(_, path)| *path).chain([controller]).collect()
}

fn is_module(path: &str, module: &str) -> bool {
    path.strip_prefix("foobar-userspace/src/")
        .and_then(|path| path.strip_prefix(module))
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// A file that its module declares for tests alone.
fn is_of_tests(path: &str) -> bool {
    ["tests", "simulation"]
        .iter()
        .any(|name| path.contains(&format!("/{name}/")) || path.ends_with(&format!("/{name}.rs")))
}

fn is_kernel_edge(path: &str) -> bool {
    is_module(path, "kernel")
}

fn is_bpf_bin(path: &str) -> bool {
    path.strip_prefix("foobar-ebpf/src/").is_some_and(|rest| {
        matches!(rest, "main.rs" | "kernel.rs")
            || ["kernel/", "bench", "bin/"]
                .iter()
                .any(|start| rest.starts_with(start))
    })
}

const PURE: [&str; 9] = [
    "balancer", "config", "firewall", "http", "labels", "monitor", "mysql", "steering", "tally",
];

const OUTSIDE_WORLD: &[&[&str]] = &[
    &["aya"],
    &["rtnetlink"],
    &["tokio"],
    &["Instant", "now"],
    &["SystemTime", "now"],
    &["TcpListener"],
    &["TcpStream"],
    &["UdpSocket"],
    &["UnixListener"],
    &["UnixStream"],
    &["crate", "controller"],
];

/// The edges, and how the others would name them.
const EDGES: [(&str, &[&str]); 12] = [
    ("acme", &["crate", "acme"]),
    ("admin", &["crate", "admin"]),
    ("courier", &["crate", "courier"]),
    ("database", &["crate", "database"]),
    ("kernel", &["crate", "kernel"]),
    ("logbook", &["crate", "logbook"]),
    ("names", &["crate", "names"]),
    ("probe", &["crate", "probe"]),
    ("proxy", &["crate", "proxy"]),
    ("routes", &["crate", "routes"]),
    ("succession", &["crate", "succession"]),
    ("web", &["crate", "web"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree in which every rule has something to guard.
    fn tree(path: &str, text: &str) -> Vec<File> {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let edges = EDGES.map(|(edge, _)| format!("foobar-userspace/src/{edge}.rs"));
        let others = ["foobar-ebpf/src/abi.rs", "foobar-userspace/src/config.rs"];
        let mut files: Vec<File> = edges
            .iter()
            .map(String::as_str)
            .chain(others)
            .map(|path| file(path, "fn main() {}"))
            .collect();
        files.push(file(path, text));
        files
    }

    #[track_caller]
    fn refused(path: &str, text: &str) {
        let findings = findings(&tree(path, text));
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(
            findings[0].starts_with(&format!("{path}:1: ")),
            "{findings:#?}"
        );
    }

    #[track_caller]
    fn accepted(path: &str, text: &str) {
        assert_eq!(findings(&tree(path, text)), Vec::<String>::new());
    }

    #[test]
    fn aya_is_known_by_the_kernel_edge_alone() {
        refused("foobar-userspace/src/controller.rs", "use aya::Ebpf;");
        refused("xtask/src/main.rs", "use {aya::Ebpf, clap::Parser};");
        accepted("foobar-userspace/src/kernel/load.rs", "use aya::Ebpf;");
        accepted("tests/tests/packets.rs", "use aya::Ebpf;");
    }

    #[test]
    fn aya_ebpf_is_known_by_the_bpf_bins_alone() {
        refused("foobar-ebpf/src/pipeline.rs", "use aya_ebpf::helpers;");
        accepted("foobar-ebpf/src/kernel.rs", "use aya_ebpf::helpers;");
        accepted("foobar-ebpf/src/bench.rs", "use aya_ebpf::helpers;");
    }

    #[test]
    fn unsafe_code_stays_at_the_kernel() {
        refused(
            "foobar-userspace/src/probe/http.rs",
            "fn f() { unsafe { g() } }",
        );
        refused("foobar-ebpf/src/pipeline.rs", "fn f() { unsafe { g() } }");
        accepted(
            "foobar-userspace/src/kernel/plain.rs",
            "unsafe impl A for B {}",
        );
        accepted(
            "foobar-userspace/src/probe/http.rs",
            "// unsafe\n#![forbid(unsafe_code)]",
        );
    }

    #[test]
    fn pure_modules_do_not_reach_out() {
        refused(
            "foobar-userspace/src/balancer/health.rs",
            "use tokio::time;",
        );
        refused(
            "foobar-userspace/src/firewall.rs",
            "let now = Instant::now();",
        );
        refused(
            "foobar-userspace/src/config/load.rs",
            "use std::{fs, net::TcpStream};",
        );
        refused(
            "foobar-userspace/src/labels.rs",
            "use crate::kernel::Deployment;",
        );
        accepted(
            "foobar-userspace/src/config/load.rs",
            "use std::{fs, net::IpAddr};",
        );
        accepted("foobar-userspace/src/firewalls.rs", "use tokio::time;");
    }

    #[test]
    fn the_values_of_the_api_are_known_to_all() {
        accepted(
            "foobar-userspace/src/monitor/view.rs",
            "use crate::admin::api::Snapshot;",
        );
        refused(
            "foobar-userspace/src/monitor/view.rs",
            "use crate::admin::client::ask;",
        );
    }

    #[test]
    fn edges_do_not_know_each_other() {
        refused(
            "foobar-userspace/src/probe/http.rs",
            "use crate::{admin::api, config};",
        );
        refused(
            "foobar-userspace/src/admin/serve.rs",
            "crate::kernel::detach(node)",
        );
        accepted(
            "foobar-userspace/src/controller.rs",
            "use crate::{admin, kernel, probe};",
        );
        accepted(
            "foobar-userspace/src/probe/http.rs",
            "use crate::{config::Check, probe};",
        );
    }

    #[test]
    fn a_rule_that_guards_nothing_is_itself_a_finding() {
        let findings = findings(&[]);
        assert_eq!(findings.len(), rules().len(), "{findings:#?}");
    }
}
