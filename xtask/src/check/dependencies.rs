//! Licences, bans, sources and advisories of the dependencies, by a private cargo-deny.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{steps::Steps, workspace::Workspace};

pub fn check(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let home = workspace.cache.join(format!("cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if !program.is_file() {
        let scratch = workspace.target.join("cargo-deny");
        steps.run(
            "cargo-deny-install",
            &format!("cargo-deny {VERSION} (once, some minutes)"),
            workspace
                .cargo()
                .args(["install", "cargo-deny", "--version", VERSION, "--locked"])
                .arg("--root")
                .arg(&home)
                .arg("--target-dir")
                .arg(&scratch)
                .env_remove("CARGO_TARGET_DIR"),
        )?;
        fs::remove_dir_all(&scratch)
            .with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    let deny = |arguments: &[&str]| {
        // Where packets to the outside vanish, a fetch would never end.
        let mut command = Command::new("timeout");
        command
            .arg("120")
            .arg(&program)
            .args(arguments)
            .current_dir(&workspace.root);
        command
    };
    let fetched = steps.attempt(
        "advisories",
        "fetching the advisories of RustSec",
        &mut deny(&["fetch", "db"]),
    )?;
    if fetched.status.success() {
        steps.run(
            "dependencies",
            "dependencies: advisories, licences, bans, sources",
            &mut deny(&["check", "--disable-fetch"]),
        )?;
        return Ok(());
    }
    eprintln!(
        "the advisories were NOT checked: their database cannot be fetched here ({})",
        fetched.log.display()
    );
    steps.run(
        "dependencies",
        "dependencies: licences, bans, sources; NOT advisories",
        &mut deny(&["check", "licenses", "bans", "sources"]),
    )?;
    Ok(())
}

const VERSION: &str = "0.20.2";
