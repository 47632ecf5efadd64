//! Where things are: the checkout, its target directory, the cache, and the cargo that runs us.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Deserialize;

#[derive(Debug)]
pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
    /// Outlives `cargo clean`: the private linker and cargo-deny.
    pub cache: PathBuf,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    Dev,
    Release,
}

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
}

impl Workspace {
    pub fn find() -> Result<Self> {
        // At run time, not by `env!`: two checkouts that share a target directory would build each other's object.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .context("CARGO_MANIFEST_DIR is not set: start it as `cargo xtask …`")?;
        let root = Path::new(&package)
            .parent()
            .context("the package xtask lies outside of a workspace")?
            .to_path_buf();
        let target = target_directory(&root)?;
        fs::create_dir_all(&target)
            .with_context(|| format!("cannot create {}", target.display()))?;
        Ok(Self {
            root,
            target,
            cache: cache_directory()?,
        })
    }

    pub fn cargo(&self) -> Command {
        let mut command = Command::new(cargo_program());
        command.current_dir(&self.root);
        command
    }

    pub fn binary(&self, profile: Profile, name: &str) -> PathBuf {
        self.target.join(profile.directory()).join(name)
    }

    pub fn logs(&self) -> PathBuf {
        self.target.join("xtask")
    }
}

impl Profile {
    pub fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }
}

pub fn cargo_program() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The file that a shell would start for `name`, also when PATH lacks the directories for administrators.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn target_directory(root: &Path) -> Result<PathBuf> {
    let output = Command::new(cargo_program())
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;
    Ok(metadata.target_directory)
}

fn cache_directory() -> Result<PathBuf> {
    let own = env::var_os("FOOBAR_CACHE").map(PathBuf::from);
    let shared = || env::var_os("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("foobar"));
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache/foobar"));
    own.or_else(shared)
        .or_else(home)
        .ok_or_else(|| anyhow!("neither HOME nor FOOBAR_CACHE is set: no place for the BPF linker"))
}
