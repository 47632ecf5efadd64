//! Benches: the optimised `foobar-bench`, and the BPF objects that it measures.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Error, Result};

use crate::{
    machine, object,
    setup::{self, Consent, Scope},
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

const BENCH: &str = "foobar-bench";
