//! The private bpf-linker: built once per version and LLVM, kept in the cache.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    refusal::{Refusal, Status},
    steps::Steps,
    toolchain::Llvm,
    workspace::Workspace,
};

/// `<cache>/bpf-linker-<version>-llvm<major>`, with `bin/bpf-linker` and `lib/libLLVM.so`.
#[derive(Clone, Debug)]
pub struct Linker {
    directory: PathBuf,
    major: u32,
}

impl Linker {
    pub fn of(workspace: &Workspace, llvm: &Llvm) -> Self {
        let name = format!("bpf-linker-{VERSION}-llvm{}", llvm.major);
        Self {
            directory: workspace.cache.join(name),
            major: llvm.major,
        }
    }

    pub fn program(&self) -> PathBuf {
        self.directory.join("bin/bpf-linker")
    }

    /// Where it finds its libLLVM; for `LD_LIBRARY_PATH`.
    pub fn libraries(&self) -> PathBuf {
        self.directory.join("lib")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn works(&self) -> bool {
        Command::new(self.program())
            .arg("--version")
            .env("LD_LIBRARY_PATH", self.libraries())
            .output()
            .is_ok_and(|output| {
                output.status.success() && String::from_utf8_lossy(&output.stdout).contains(VERSION)
            })
    }

    pub fn build(&self, workspace: &Workspace, steps: &mut Steps, llvm: &Llvm) -> Result<()> {
        self.link_library(&llvm.library)?;
        let scratch = self.directory.join("build");
        let built = steps.attempt(
            "bpf-linker",
            &format!("bpf-linker {VERSION} for LLVM {} (once)", self.major),
            workspace
                .cargo()
                .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
                .args(["--force", "--no-default-features", "--features"])
                .arg(format!("llvm-{}", self.major))
                .arg("--root")
                .arg(&self.directory)
                .arg("--target-dir")
                .arg(&scratch)
                .env("LLVM_PREFIX", &self.directory)
                .env_remove("CARGO_TARGET_DIR"),
        )?;
        if !built.status.success() || !self.works() {
            return Err(Refusal::new(
                Status::NoLinker,
                format!(
                    "{}\nbpf-linker {VERSION} could not be built against {}\nthe whole output is in {}",
                    built.text,
                    llvm.library.display(),
                    built.log.display()
                ),
            )
            .into());
        }
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
    }

    fn link_library(&self, library: &Path) -> Result<()> {
        let libraries = self.libraries();
        fs::create_dir_all(&libraries)
            .with_context(|| format!("cannot create {}", libraries.display()))?;
        // bpf-linker's build looks for the plain name, the loader for the one that the library calls itself.
        let own_name = library.file_name().context("libLLVM has no name")?;
        for name in [Path::new("libLLVM.so"), Path::new(own_name)] {
            let link = libraries.join(name);
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => symlink(library, &link),
            }
            .with_context(|| format!("cannot link {}", link.display()))?;
        }
        Ok(())
    }
}

pub const VERSION: &str = "0.13.0";
