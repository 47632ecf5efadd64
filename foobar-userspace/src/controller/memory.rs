//! What operators said while the controller ran, kept over its restarts.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{balancing::Wishes, members::Added};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub wishes: Wishes,
    /// By set.
    pub added: BTreeMap<String, Added>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    backends: Wishes,
    /// By set, then element; the value is the end in Unix seconds.
    members: BTreeMap<String, BTreeMap<IpNet, Option<u64>>>,
}

impl Memory {
    /// What was kept; nothing where there is no file.
    ///
    /// # Errors
    /// When it cannot be read; then it is better told than forgotten.
    pub fn recall(directory: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let file: File = serde_json::from_str(&text).map_err(io::Error::from)?;
        let added = file
            .members
            .into_iter()
            .map(|(set, members)| {
                let members = members
                    .into_iter()
                    .map(|(net, until)| {
                        (net, until.map(|end| UNIX_EPOCH + Duration::from_secs(end)))
                    })
                    .collect();
                (set, members)
            })
            .collect();
        Ok(Self {
            wishes: file.backends,
            added,
        })
    }

    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, directory: &Path) -> io::Result<()> {
        let members = self
            .added
            .iter()
            .map(|(set, members)| {
                let members = members
                    .iter()
                    .map(|(net, until)| (*net, until.map(seconds)))
                    .collect();
                (set.clone(), members)
            })
            .collect();
        let text = serde_json::to_string_pretty(&File {
            backends: self.wishes.clone(),
            members,
        })?;
        let unfinished = directory.join("memory.json.new");
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, path(directory))
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("memory.json")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::BackendWish;

    #[test]
    fn what_was_said_is_known_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(
            Memory::recall(directory.path()).expect("nothing kept"),
            Memory::default()
        );
        let net: IpNet = "192.0.2.0/24".parse().expect("a network");
        let memory = Memory {
            wishes: BTreeMap::from([
                ("l4.plain web1:80 10.0.0.11".to_owned(), BackendWish::Drain),
                (
                    "l4.plain web2:80 10.0.0.12".to_owned(),
                    BackendWish::Weight(7),
                ),
            ]),
            added: BTreeMap::from([(
                "jail".to_owned(),
                BTreeMap::from([(net, Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)))]),
            )]),
        };
        memory.keep(directory.path()).expect("kept");
        assert_eq!(Memory::recall(directory.path()).expect("kept"), memory);
    }
}
