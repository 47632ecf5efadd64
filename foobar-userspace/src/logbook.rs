//! Log files: lines are appended, and a file that became too large is put aside.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{config::LogFile, monitor::lines::Stream};

/// Why a line is not in its file.
#[derive(Debug, thiserror::Error)]
pub enum LogbookError {
    #[error("cannot write to {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot put {path} aside")]
    Rotate { path: PathBuf, source: io::Error },
}

/// The open files by stream.
#[derive(Debug, Default)]
pub struct Logbook {
    files: BTreeMap<Stream, Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Logbook {
    /// # Errors
    /// When the file cannot be written to; the next line tries again.
    pub fn write(
        &mut self,
        stream: Stream,
        path: &Path,
        terms: &LogFile,
        text: &str,
    ) -> Result<(), LogbookError> {
        let written = self.append(stream, path, terms, text);
        if written.is_err() {
            self.files.remove(&stream);
        }
        written
    }

    fn append(
        &mut self,
        stream: Stream,
        path: &Path,
        terms: &LogFile,
        text: &str,
    ) -> Result<(), LogbookError> {
        let failed = |source| LogbookError::Write {
            path: path.to_owned(),
            source,
        };
        // Another path after a reload, or a file that someone moved away.
        if self
            .files
            .get(&stream)
            .is_some_and(|open| open.path != path || !path.exists())
        {
            self.files.remove(&stream);
        }
        let length = text.len() as u64 + 1;
        if let Some(open) = self.files.get(&stream)
            && open.bytes + length > terms.max_size
            && open.bytes > 0
        {
            self.files.remove(&stream);
            rotate(path, terms.keep).map_err(|source| LogbookError::Rotate {
                path: path.to_owned(),
                source,
            })?;
        }
        let open = match self.files.entry(stream) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(open(path).map_err(failed)?),
        };
        open.file
            .write_all(format!("{text}\n").as_bytes())
            .map_err(failed)?;
        open.bytes += length;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Open> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    Ok(Open {
        path: path.to_owned(),
        bytes: file.metadata()?.len(),
        file,
    })
}

/// `access.log` becomes `access.log.1`, that one `.2`, up to `keep`.
fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if keep == 0 {
        return fs::remove_file(path);
    }
    for number in (1..keep).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogTo;

    fn terms(max_size: u64, keep: u32) -> LogFile {
        LogFile {
            to: LogTo::Nowhere,
            max_size,
            keep,
        }
    }

    fn files(directory: &Path) -> BTreeMap<String, String> {
        fs::read_dir(directory)
            .expect("a directory")
            .map(|entry| {
                let path = entry.expect("readable").path();
                let name = path.file_name().expect("a name").to_string_lossy();
                (name.into_owned(), fs::read_to_string(&path).expect("text"))
            })
            .collect()
    }

    #[test]
    fn a_file_that_is_full_is_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        let mut logbook = Logbook::default();
        for number in 0..7 {
            logbook
                .write(
                    Stream::Audit,
                    &path,
                    &terms(12, 2),
                    &format!("line{number}"),
                )
                .expect("written");
        }
        let files: Vec<_> = files(directory.path()).into_iter().collect();
        assert_eq!(
            files,
            [
                ("a.log".to_owned(), "line6\n".to_owned()),
                ("a.log.1".to_owned(), "line4\nline5\n".to_owned()),
                ("a.log.2".to_owned(), "line2\nline3\n".to_owned()),
            ]
        );
    }

    #[test]
    fn a_file_is_continued_after_a_restart_and_after_it_was_moved() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/a.log");
        let write = |logbook: &mut Logbook, text| {
            logbook
                .write(Stream::Drops, &path, &terms(1_000, 1), text)
                .expect("written");
        };
        write(&mut Logbook::default(), "one");
        let mut logbook = Logbook::default();
        write(&mut logbook, "two");
        assert_eq!(fs::read_to_string(&path).expect("text"), "one\ntwo\n");
        fs::rename(&path, directory.path().join("moved")).expect("moved");
        write(&mut logbook, "three");
        assert_eq!(fs::read_to_string(&path).expect("text"), "three\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_says_which() {
        let error = Logbook::default()
            .write(Stream::Audit, Path::new("/proc/x/a.log"), &terms(9, 1), "x")
            .expect_err("no such place");
        assert!(error.to_string().contains("/proc/x/a.log"), "{error}");
    }
}
