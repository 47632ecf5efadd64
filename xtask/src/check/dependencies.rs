//! Licences, bans, sources and advisories of the dependencies, by a private cargo-deny.

use std::process::Command;

use anyhow::Result;

use crate::{steps::Steps, workspace::Workspace};

pub fn check(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let home = workspace.cache.join(format!("cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if !program.is_file() {
        steps.run(
            "cargo-deny-install",
            &format!("cargo-deny {VERSION} (once, some minutes)"),
            workspace
                .cargo()
                .args(["install", "cargo-deny", "--version", VERSION, "--locked"])
                .arg("--root")
                .arg(&home)
                .arg("--target-dir")
                .arg(workspace.target.join("cargo-deny"))
                .env_remove("CARGO_TARGET_DIR"),
        )?;
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
        "dependencies: licences, bans, sources",
        &mut deny(&["check", "licenses", "bans", "sources"]),
    )?;
    Ok(())
}

const VERSION: &str = "0.20.2";
