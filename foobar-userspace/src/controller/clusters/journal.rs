//! What a cluster's controller remembers over restarts, and the trail of what it did.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::mysql::cluster::Memory;

#[derive(Debug)]
pub struct Journal {
    memory: PathBuf,
    trail: PathBuf,
}

impl Journal {
    pub fn new(directory: &Path, cluster: &str) -> Self {
        Self {
            memory: directory.join(format!("mysql-{cluster}.json")),
            trail: directory.join(format!("mysql-{cluster}.audit")),
        }
    }

    /// # Errors
    /// When there is something that cannot be read: then nothing may be done by oneself.
    pub fn recall(&self) -> io::Result<Memory> {
        match fs::read_to_string(&self.memory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(error) => Err(error),
            Ok(text) => Ok(serde_json::from_str(&text)?),
        }
    }

    /// On the disk when this returns: who was deposed must not be forgotten by a crash.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, memory: &Memory) -> io::Result<()> {
        let unfinished = self.memory.with_extension("json.new");
        let mut file = File::create(&unfinished)?;
        file.write_all(serde_json::to_string_pretty(memory)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.memory)
    }

    /// A line of the trail: when, in microseconds since 1970, and what.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, micros: u64, what: &str) -> io::Result<()> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&self.trail)?;
        let line = serde_json::json!({ "at": micros, "what": what });
        file.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_deposed_is_known_after_a_restart_and_a_broken_note_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Journal::new(directory.path(), "app");
        assert_eq!(journal.recall().expect("nothing yet"), Memory::default());
        let memory = Memory {
            paused: Some("web2 took over".to_owned()),
            fenced: [("11".to_owned(), 3)].into(),
            ..Memory::default()
        };
        journal.keep(&memory).expect("kept");
        assert_eq!(journal.recall().expect("kept"), memory);
        fs::write(directory.path().join("mysql-app.json"), "{").expect("written");
        assert!(journal.recall().is_err());
    }
}
