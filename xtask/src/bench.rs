//! Benches: the optimised `foobar-bench`, and the BPF objects that it measures.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Error, Result};

use crate::{
    machine, object,
    product::Product,
    setup::{self, BpfTools, Consent, Scope},
    steps::Steps,
    workspace::{Profile, Workspace},
};

/// Builds what is measured and becomes `foobar-bench ARGUMENTS`; its standard output is the bench's alone.
pub fn run(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    arguments: &[OsString],
) -> Result<ExitCode> {
    machine::refuse_unless_capable("a bench")?;
    // The proxies beside ours, and what asks them.
    let scope = if arguments.first().is_some_and(|first| first == "proxy") {
        Scope::Lab
    } else {
        Scope::Build
    };
    let tools = setup::ensure(workspace, steps, scope, consent)?;
    if let Some((first, rest)) = arguments.split_first()
        && first == "monitor"
    {
        return monitor(workspace, steps, &tools, rest);
    }
    let mut build = workspace.cargo();
    build
        .args(["build", "--package", "foobar-tests", "--bin", BENCH])
        .args(Profile::Release.arguments());
    let bench = workspace.binary(Profile::Release, BENCH);
    let mut command = Command::new(&bench);
    command
        .args(arguments)
        .current_dir(&workspace.root)
        .env_remove("LD_LIBRARY_PATH");
    for object in object::ALL {
        let file = object.build(workspace, steps, &tools)?;
        build.env(object.variable, &file);
        command.env(object.variable, &file);
    }
    steps.run(BENCH, BENCH, &mut build)?;
    let failure = command.exec();
    Err(Error::new(failure).context(format!("cannot start {}", bench.display())))
}

/// What looking at a large node costs: of the product as it is shipped, not of its parts.
fn monitor(
    workspace: &Workspace,
    steps: &mut Steps,
    tools: &BpfTools,
    arguments: &[OsString],
) -> Result<ExitCode> {
    let product = Product::build(workspace, steps, tools, Profile::Release)?;
    let mut build = workspace.cargo();
    build
        .args(["build", "--package", "foobar-tests", "--bin", MONITOR])
        .args(Profile::Release.arguments());
    product.announce_object(&mut build);
    steps.run(MONITOR, MONITOR, &mut build)?;
    let bench = workspace.binary(Profile::Release, MONITOR);
    let mut command = Command::new(&bench);
    command.args(arguments).current_dir(&workspace.root);
    product.announce(&mut command);
    let failure = command.exec();
    Err(Error::new(failure).context(format!("cannot start {}", bench.display())))
}

const MONITOR: &str = "foobar-bench-monitor";
const BENCH: &str = "foobar-bench";
