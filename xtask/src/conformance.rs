//! The slow suites against the sites of the lab: sslyze from a Python environment of their own, testssl.sh, Chromium.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    machine,
    product::Product,
    setup::{self, Consent, Scope},
    steps::Steps,
    workspace::{Profile, Workspace},
};

/// Sets up, builds, and runs every suite whose name contains `filter`.
pub fn run(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    filter: Option<&str>,
) -> Result<ExitCode> {
    machine::refuse_unless_capable("conformance")?;
    let tools = setup::ensure(workspace, steps, Scope::Conformance, consent)?;
    let environment = workspace.target.join("xtask/conformance");
    if !environment.join("bin/sslyze").exists() {
        let mut make = Command::new("/usr/bin/python3");
        make.args(["-m", "venv"]).arg(&environment);
        steps.run("venv", "a Python environment", &mut make)?;
        let mut install = Command::new(environment.join("bin/pip"));
        install.args(["install", "--quiet", SSLYZE]);
        steps.run("sslyze", "sslyze", &mut install)?;
    }
    let product = Product::build(workspace, steps, &tools, Profile::Dev)?;
    let mut command = workspace.cargo();
    command
        .args([
            "test",
            "--package",
            "foobar-tests",
            "--test",
            "conformance",
            "--",
        ])
        .args(["--ignored", "--test-threads=1", "--nocapture"])
        .args(filter)
        .env("FOOBAR_CONFORMANCE", &environment);
    product.announce(&mut command);
    steps.run("conformance", "conformance", &mut command)?;
    eprintln!("\n{}", steps.summary());
    Ok(ExitCode::SUCCESS)
}

const SSLYZE: &str = "sslyze==6.3.1";
