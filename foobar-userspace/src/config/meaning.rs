//! From the tree to the configuration as meant: defaults, references followed, and what only the whole can get wrong.
//!
//! The checker has told what is wrong with single values; readers here pass over those.

mod alerts;
mod check;
mod endpoints;
mod firewall;
mod hosts;
mod l4;
mod l7;
mod limits;
mod monitor;
mod mysql;
mod nodes;
mod secret;
mod sets;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    Admin, Config, Host, Node, ReadFile,
    diagnostics::Problems,
    tree::{Entry, Name},
};

/// `None` only if the problems say why.
pub(super) fn estate(
    root: &Spanned<DeValue<'_>>,
    path: &Path,
    files: &ReadFile<'_>,
    problems: &mut Problems,
) -> Option<Config> {
    let root = Entry::root(root);
    let hosts = hosts::read(root, problems);
    let sets = sets::read(root, path, files, problems);
    let limits = limits::read(root, problems);
    let nodes = nodes::read(root, problems);
    let policies = firewall::read(root, &hosts, problems);
    let l4 = l4::read(root, &hosts, &nodes, problems);
    let l7 = l7::read(root, path, &hosts, &l4, problems);
    let mysql = mysql::read(root, path, &hosts, &l4, problems);
    let hosts = hosts.into_all();
    let alerts = alerts::read(root, problems);
    let notify = alerts::notify(root, problems);
    let monitor = monitor::read(root, &hosts, &nodes, problems);
    let admin = admin(root, &hosts, &nodes, problems);
    Some(Config {
        path: path.to_owned(),
        hosts,
        sets,
        limits,
        nodes,
        policies,
        l4,
        l7,
        mysql,
        proxy: l7::proxy(root),
        monitor,
        alerts,
        notify,
        log: monitor::log(root),
        admin,
    })
    .filter(|_| problems.is_empty())
}

fn admin(
    root: Entry<'_>,
    hosts: &BTreeMap<String, Host>,
    nodes: &BTreeMap<String, Node>,
    problems: &mut Problems,
) -> Admin {
    let admin = root.at("admin");
    let socket = admin
        .and_then(|admin| admin.at("socket"))
        .and_then(Entry::text)
        .unwrap_or("/run/foobar/admin.sock");
    Admin {
        socket: PathBuf::from(socket),
        group: admin.and_then(|admin| text(admin, "group")),
        dashboard: admin
            .and_then(|admin| admin.at("dashboard"))
            .and_then(|written| monitor::listen(written, hosts, nodes, problems)),
    }
}

/// The named tables of a section, in the order of the file.
fn section<'a>(root: Entry<'a>, name: &str) -> Vec<(Name<'a>, Entry<'a>)> {
    root.at(name).map(Entry::entries).unwrap_or_default()
}

fn read<T: FromStr>(entry: Entry<'_>, key: &str) -> Option<T> {
    entry.at(key)?.read()
}

fn many<'a>(entry: Entry<'a>, key: &str) -> Vec<Entry<'a>> {
    entry.at(key).map(Entry::one_or_many).unwrap_or_default()
}

fn whole<T: TryFrom<i64>>(entry: Entry<'_>, key: &str) -> Option<T> {
    T::try_from(entry.at(key)?.whole()?).ok()
}

fn text(entry: Entry<'_>, key: &str) -> Option<String> {
    entry.at(key)?.text().map(str::to_owned)
}
