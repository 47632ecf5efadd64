//! From the tree to the configuration as meant: defaults, references followed, and what only the whole can get wrong.
//!
//! The checker has told what is wrong with single values; readers here pass over those.

mod check;
mod endpoints;
mod firewall;
mod hosts;
mod l4;
mod l7;
mod later;
mod limits;
mod nodes;
mod secret;
mod sets;

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    Admin, Config, ReadFile,
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
    later::check(root, &hosts, problems);
    Some(Config {
        path: path.to_owned(),
        hosts: hosts.into_all(),
        sets,
        limits,
        nodes,
        policies,
        l4,
        l7,
        proxy: l7::proxy(root),
        admin: admin(root),
    })
    .filter(|_| problems.is_empty())
}

fn admin(root: Entry<'_>) -> Admin {
    let socket = root
        .at("admin")
        .and_then(|admin| admin.at("socket"))
        .and_then(Entry::text)
        .unwrap_or("/run/foobar/admin.sock");
    Admin {
        socket: PathBuf::from(socket),
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
