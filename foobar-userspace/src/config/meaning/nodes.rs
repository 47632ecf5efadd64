//! `[nodes]`

use std::collections::{BTreeMap, HashMap};

use foobar_ebpf::abi::MAX_INTERFACES;

use super::{read as read_word, section, text};
use crate::config::{
    Interface, Node, XdpMode,
    diagnostics::{Problem, Problems},
    tree::{Entry, Name},
    words::Device,
};

pub(super) fn read(root: Entry<'_>, problems: &mut Problems) -> BTreeMap<String, Node> {
    section(root, "nodes")
        .into_iter()
        .map(|(name, entry)| {
            let node = Node {
                name: name.text.to_owned(),
                interfaces: interfaces(name, entry, problems),
            };
            (node.name.clone(), node)
        })
        .collect()
}

fn interfaces(node: Name<'_>, entry: Entry<'_>, problems: &mut Problems) -> Vec<Interface> {
    let written = entry.entries();
    if written.is_empty() && entry.value().is_table() {
        problems.report(
            Problem::new(
                node.span(),
                format!("node `{}` has no interface", node.text),
            )
            .help(format!(
                "write `{} = {{ wan = {{ dev = \"eth0\" }} }}`",
                node.text
            )),
        );
    }
    if let Some((name, _)) = written.get(MAX_INTERFACES as usize) {
        problems.report(
            Problem::new(
                name.span(),
                format!(
                    "node `{}` has more than {MAX_INTERFACES} interfaces",
                    node.text
                ),
            )
            .help("name only those that need a firewall or carry a vip"),
        );
    }
    let mut devices = HashMap::new();
    written
        .into_iter()
        .filter_map(|(name, entry)| {
            let Device(device) = read_word(entry, "dev")?;
            let span = entry.at("dev").map_or(name.span(), Entry::span);
            if let Some(first) = devices.insert(device.clone(), span.clone()) {
                problems.report(
                    Problem::new(
                        span,
                        format!("device `{device}` is named twice on node `{}`", node.text),
                    )
                    .related(first, "first named here")
                    .help("a device is one interface; join the two"),
                );
            }
            Some(Interface {
                name: name.text.to_owned(),
                device,
                xdp: match entry.at("xdp").and_then(Entry::text) {
                    Some("native") => XdpMode::Native,
                    Some("generic") => XdpMode::Generic,
                    _ => XdpMode::Auto,
                },
                ingress: text(entry, "ingress"),
                egress: text(entry, "egress"),
                place: problems.place(name.span().start),
            })
        })
        .collect()
}
