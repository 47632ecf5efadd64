//! The lab's daemons: started in sessions of their own, remembered by pid and start time, ended as groups.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

#[derive(Debug)]
pub struct Processes {
    directory: PathBuf,
}

/// Lines of each log that an error shows.
const TAIL: usize = 12;

impl Processes {
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(state: &str) -> Result<Self> {
        let directory = Path::new(state).join("processes");
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}; are you root?", directory.display()))?;
        Ok(Self { directory })
    }

    fn note(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pid"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Starts a daemon; its output goes to a log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(name))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let started = start_time(child.id()).unwrap_or_default();
        fs::write(self.note(name), format!("{} {started}", child.id()))?;
        // Reaped here as long as this process lives, by init afterwards.
        thread::spawn(move || {
            let mut child = child;
            let _ = child.wait();
        });
        Ok(())
    }

    /// Remembers another process by a name: one that the first has started and left its work to.
    ///
    /// # Errors
    /// When it does not run.
    pub fn adopt(&self, name: &str, pid: u32) -> Result<()> {
        let started = start_time(pid).with_context(|| format!("no process {pid} runs"))?;
        fs::write(self.note(name), format!("{pid} {started}"))?;
        Ok(())
    }

    /// The pid, if the process that was started still runs: a pid that was given to another has another start time.
    fn pid(&self, name: &str) -> Option<i32> {
        let note = fs::read_to_string(self.note(name)).ok()?;
        let (pid, started) = note.split_once(' ')?;
        let pid: u32 = pid.parse().ok()?;
        (start_time(pid)?.to_string() == started).then_some(pid.cast_signed())
    }

    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.pid(name).is_some()
    }

    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str, signal: i32) -> Result<()> {
        let Some(pid) = self.pid(name) else {
            bail!("{name} does not run");
        };
        kill(pid, signal)
    }

    /// Ends a daemon with its children, and waits for it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&self, name: &str) -> Result<()> {
        let Some(pid) = self.pid(name) else {
            return Ok(());
        };
        let group = group(pid).unwrap_or(pid);
        kill(-group, libc::SIGTERM)?;
        let begun = Instant::now();
        while self.pid(name).is_some() {
            if begun.elapsed() > Duration::from_secs(3) {
                kill(-group, libc::SIGKILL)?;
            }
            if begun.elapsed() > Duration::from_secs(6) {
                bail!("{name} (pid {pid}) does not end");
            }
            thread::sleep(Duration::from_millis(20));
        }
        fs::remove_file(self.note(name)).or_else(absent_is_fine)?;
        Ok(())
    }

    /// Kills a daemon and its children at once.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, name: &str) -> Result<()> {
        let Some(pid) = self.pid(name) else {
            bail!("{name} does not run");
        };
        kill(-group(pid).unwrap_or(pid), libc::SIGKILL)?;
        while self.pid(name).is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// # Errors
    /// When one does not end; the others are ended all the same.
    pub fn end_all(&self) -> Result<()> {
        let mut result = Ok(());
        for name in self.names("pid")? {
            if let Err(error) = self.end(&name) {
                result = Err(error);
            }
        }
        result
    }

    /// Names of the daemons that run.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn running(&self) -> Result<Vec<String>> {
        let mut names = self.names("pid")?;
        names.retain(|name| self.is_running(name));
        names.sort();
        Ok(names)
    }

    fn names(&self, extension: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == extension)
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The last lines of all logs.
    #[must_use]
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for name in self.names("log").unwrap_or_default() {
            let log = fs::read_to_string(self.log(&name)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                text += &format!("{name}: {line}\n");
            }
        }
        text
    }
}

/// Field 5 of `/proc/PID/stat`.
fn group(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(2)?.parse().ok()
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot; none for a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Signals a process, or a group by its negated number; one that ended by itself in between is fine.
fn kill(pid: i32, signal: i32) -> Result<()> {
    Command::new("kill")
        .args([format!("-{signal}"), "--".to_owned(), pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .context("cannot start kill")?;
    Ok(())
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}
