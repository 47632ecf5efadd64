//! A small file system of its own for each database: one that can be frozen or filled without the machine's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{databases, template};

/// Where databases keep their files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Disks {
    /// In the lab's folder, all of them.
    #[default]
    Shared,
    /// Each on a loop device with ext4.
    Own,
}

/// Why this machine has no loop devices with ext4 to spare, if so.
#[must_use]
pub fn missing() -> Option<String> {
    let directory = Path::new("/run").join(format!("foobar-disk-{}", std::process::id()));
    let tried = mount(&directory).and_then(|()| template::run(&mut freezing(&directory, "-f")));
    let freed = template::run(&mut freezing(&directory, "-u"));
    release(&directory);
    let _ = fs::remove_file(image(&directory));
    let _ = fs::remove_dir(&directory);
    tried
        .and(freed)
        .err()
        .map(|error| format!("{error:#}").trim().replace('\n', " "))
}

/// Makes a file system at `directory`.
pub(crate) fn mount(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    File::create(image(directory))?.set_len(SIZE)?;
    // No blocks kept back for root, who runs some of these servers: full must be full.
    template::run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-O", "^has_journal"])
            .arg(image(directory)),
    )?;
    template::run(
        Command::new("mount")
            .args(["-o", "loop"])
            .arg(image(directory))
            .arg(directory),
    )
}

/// Whatever writes there waits from now on, and whoever reads does not notice.
///
/// # Errors
/// When it is not a file system of its own.
pub fn freeze(server: &str) -> Result<()> {
    template::run(&mut freezing(&databases::home(server), "-f"))
}

/// # Errors
/// When it was not frozen.
pub fn thaw(server: &str) -> Result<()> {
    template::run(&mut freezing(&databases::home(server), "-u"))
}

/// Takes all the room that is left.
///
/// # Errors
/// When there is room left.
pub fn fill(server: &str) -> Result<()> {
    let script = "fallocate -l $(df --output=avail -B1 \"$1\" | tail -n 1) \"$1/filler\" || true\n\
                  cat /dev/zero > \"$1/rest\" 2> /dev/null && exit 1 || true";
    template::run(
        Command::new("sh")
            .args(["-uc", script, "fill"])
            .arg(databases::home(server)),
    )
}

/// Gives the room back.
///
/// # Errors
/// When it was not taken.
pub fn empty(server: &str) -> Result<()> {
    for name in ["filler", "rest"] {
        fs::remove_file(databases::home(server).join(name))?;
    }
    Ok(())
}

/// Lets what waits for a frozen disk go on: a process that does cannot even be killed.
pub(crate) fn thaw_all(servers: &[&str]) {
    for server in servers {
        // One that is not frozen says so.
        let _ = freezing(&databases::home(server), "-u").output();
    }
}

/// Takes a file system away; none is fine.
pub(crate) fn release(directory: &Path) {
    let _ = Command::new("umount").arg("-l").arg(directory).output();
}

fn freezing(directory: &Path, flag: &str) -> Command {
    let mut command = Command::new("fsfreeze");
    command.arg(flag).arg(directory);
    command
}

fn image(directory: &Path) -> PathBuf {
    directory.with_extension("ext4")
}

/// Sparse: what is not written takes no room.
const SIZE: u64 = 2 << 30;
