//! The names that a file defines, for references and for "did you mean".

use std::collections::{BTreeMap, BTreeSet};

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    grammar::{FILE_TABLE, Realm},
    nearest::nearest,
    tree::Entry,
};

pub(super) struct Names {
    defined: BTreeMap<Realm, BTreeSet<String>>,
    /// Part of the file could not be read: what seems to be missing may stand there.
    pub partial: bool,
}

impl Names {
    pub fn of(root: &Spanned<DeValue<'_>>, partial: bool) -> Self {
        let root = Entry::root(root);
        let names = Realm::ALL.map(|realm| {
            let mut names: BTreeSet<_> = realm
                .sections()
                .iter()
                .flat_map(|section| names_in(root, realm, section))
                .collect();
            if realm == Realm::Notify {
                names.insert("journal".to_owned());
            }
            (realm, names)
        });
        Self {
            defined: BTreeMap::from(names),
            partial,
        }
    }

    pub fn has(&self, realm: Realm, name: &str) -> bool {
        self.partial
            || self
                .defined
                .get(&realm)
                .is_some_and(|names| names.contains(name))
    }

    pub fn of_realm(&self, realm: Realm) -> impl Iterator<Item = &str> + Clone {
        self.defined
            .get(&realm)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

fn names_in(root: Entry<'_>, realm: Realm, section: &str) -> Vec<String> {
    let Some(entry) = root.at(section).or_else(|| misspelled(root, section)) else {
        return Vec::new();
    };
    entry
        .entries()
        .into_iter()
        .map(|(name, _)| match realm {
            Realm::Service => format!("{section}.{}", name.text),
            _ => name.text.to_owned(),
        })
        .collect()
}

/// `[host]` for `[hosts]` is one mistake, not one more at every mention of a host.
fn misspelled<'a>(root: Entry<'a>, section: &str) -> Option<Entry<'a>> {
    let known = || FILE_TABLE.keys.iter().map(|key| key.name);
    root.entries()
        .into_iter()
        .filter(|(name, _)| !known().any(|known| known == name.text))
        .find(|(name, _)| nearest(name.text, known()) == Some(section))
        .map(|(_, entry)| entry)
}
