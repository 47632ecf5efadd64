//! `{ credential = "…" }`, `{ file = "…" }`, `{ env = "…" }`

use std::path::PathBuf;

use crate::config::{Secret, tree::Entry};

/// What is wrong with it the checker has said.
pub(super) fn read(entry: Entry<'_>, key: &str) -> Option<Secret> {
    let secret = entry.at(key)?;
    let text = |name| secret.at(name).and_then(Entry::text).map(str::to_owned);
    text("credential")
        .map(Secret::Credential)
        .or_else(|| text("env").map(Secret::Environment))
        .or_else(|| text("file").map(|path| Secret::File(PathBuf::from(path))))
}
