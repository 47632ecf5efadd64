//! The host's binaries: `foobar` with the BPF object inside, and `foobar-lab`.

use std::{fmt, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    object,
    setup::BpfTools,
    steps::Steps,
    workspace::{Profile, Workspace},
};

/// What was built, by absolute path.
#[derive(Debug)]
pub struct Product {
    pub object: PathBuf,
    pub foobar: PathBuf,
    pub lab: PathBuf,
}

impl Product {
    pub fn build(
        workspace: &Workspace,
        steps: &mut Steps,
        tools: &BpfTools,
        profile: Profile,
    ) -> Result<Self> {
        let product = Self {
            object: object::PRODUCT.build(workspace, steps, tools)?,
            foobar: workspace.binary(profile, "foobar"),
            lab: workspace.binary(profile, "foobar-lab"),
        };
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--package", "foobar-userspace", "--bin", "foobar"])
            .args(["--package", "foobar-tests", "--bin", "foobar-lab"])
            .args(profile.arguments());
        product.announce_object(&mut cargo);
        steps.run("foobar", "foobar and foobar-lab", &mut cargo)?;
        Ok(product)
    }

    /// For cargo: what goes into `foobar`; the same for every call, or it would be built anew each time.
    pub fn announce_object(&self, command: &mut Command) {
        command.env(object::PRODUCT.variable, &self.object);
    }

    /// For the lab and the tests on it.
    pub fn announce(&self, command: &mut Command) {
        self.announce_object(command);
        command
            .env("FOOBAR_BIN", &self.foobar)
            .env("FOOBAR_LAB_BIN", &self.lab);
    }
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in [&self.object, &self.foobar] {
            writeln!(formatter, "{}", file.display())?;
        }
        write!(formatter, "{}", self.lab.display())
    }
}
