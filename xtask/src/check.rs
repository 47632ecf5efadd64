//! Everything short of the tests that a change must pass: format, lints, layering, documentation, dependencies.

mod dependencies;
mod layering;
mod source;

use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};

use crate::{object, steps::Steps, workspace::Workspace};

pub fn run(workspace: &Workspace, steps: &mut Steps) -> Result<ExitCode> {
    let mut failures = Vec::new();
    for (name, title, mut command) in commands(workspace) {
        failures.extend(steps.run(&name, &title, &mut command).err());
    }
    failures.extend(steps.check("layering", || layering(workspace)).err());
    failures.extend(dependencies::check(workspace, steps).err());
    eprintln!("\n{}", steps.summary());
    for failure in &failures {
        eprintln!("error: {failure:#}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn commands(workspace: &Workspace) -> Vec<(String, String, Command)> {
    let mut format = workspace.cargo();
    format.args(["fmt", "--all", "--", "--check"]);
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--workspace", "--all-targets"]);
    clippy.args(["--", "-D", "warnings"]);
    let mut documentation = workspace.cargo();
    documentation
        .args(["doc", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings");
    let mut commands = vec![
        ("format".to_owned(), "format".to_owned(), format),
        ("clippy".to_owned(), "lints".to_owned(), clippy),
    ];
    for object in object::ALL {
        let mut clippy = workspace.cargo();
        clippy
            .args(["clippy", "--package", "foobar-ebpf", "--bin", object.bin])
            .args(["--features", "kernel", "--profile", "bpf"])
            .args(["--", "-D", "warnings"])
            // The bins use BPF's inline assembly, which is not stable.
            .env("RUSTC_BOOTSTRAP", "1");
        let title = format!("lints of the BPF bin {}", object.bin);
        commands.push((format!("clippy-{}", object.bin), title, clippy));
    }
    commands.push((
        "documentation".to_owned(),
        "documentation".to_owned(),
        documentation,
    ));
    for (_, _, command) in &mut commands {
        // The same as for a build, so that none makes the other start anew.
        let object = object::PRODUCT.accepted(workspace);
        if object.is_file() {
            command.env(object::PRODUCT.variable, object);
        }
    }
    commands
}

fn layering(workspace: &Workspace) -> Result<((), String)> {
    let files = source::read(&workspace.root)?;
    let findings = layering::findings(&files);
    if findings.is_empty() {
        return Ok(((), format!("{} files", files.len())));
    }
    Err(anyhow!("layering:\n  {}", findings.join("\n  ")))
}
