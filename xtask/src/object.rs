//! The BPF objects: compiled with a compiler of their own, refused when a kernel would refuse them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    refusal::{Refusal, Status},
    setup::BpfTools,
    stack,
    steps::Steps,
    workspace::Workspace,
};

/// A bin of the package foobar-ebpf, and the variable by which others learn of the built file.
#[derive(Debug)]
pub struct Object {
    pub bin: &'static str,
    pub variable: &'static str,
}

pub const PRODUCT: Object = Object {
    bin: "foobar-ebpf",
    variable: "FOOBAR_EBPF_OBJECT",
};

pub const BENCH: Object = Object {
    bin: "foobar-bench-ebpf",
    variable: "FOOBAR_BENCH_EBPF_OBJECT",
};

/// Every one that is linted, and built for a bench.
pub const ALL: &[Object] = &[PRODUCT, BENCH];

impl Object {
    /// Builds it and answers with the accepted file.
    pub fn build(
        &self,
        workspace: &Workspace,
        steps: &mut Steps,
        tools: &BpfTools,
    ) -> Result<PathBuf> {
        let target = workspace
            .target
            .join(format!("bpf-llvm{}", tools.toolchain.llvm.major));
        steps.run(
            self.bin,
            &format!("BPF object {}", self.bin),
            workspace
                .cargo()
                .args(["build", "--package", "foobar-ebpf", "--bin", self.bin])
                .args(["--features", "kernel", "--profile", "bpf"])
                .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
                .arg(&target)
                .env("RUSTC", &tools.toolchain.rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_ENCODED_RUSTFLAGS", rustflags(tools))
                .env("LD_LIBRARY_PATH", tools.linker.libraries())
                .env_remove("CARGO")
                .env_remove("RUSTFLAGS")
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("RUSTC_WRAPPER")
                .env_remove("RUSTC_WORKSPACE_WRAPPER"),
        )?;
        let built = target.join(TARGET).join("bpf").join(self.bin);
        let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        refuse_panics(&built, &bytes)?;
        refuse_deep_stacks(&built, &bytes)?;
        let accepted = self.accepted(workspace);
        keep(&accepted, &bytes).with_context(|| format!("cannot write {}", accepted.display()))?;
        Ok(accepted)
    }

    /// Where it lies once built and found free of panics.
    pub fn accepted(&self, workspace: &Workspace) -> PathBuf {
        workspace.target.join("bpf").join(format!("{}.o", self.bin))
    }
}

fn rustflags(tools: &BpfTools) -> String {
    let linker = format!("-Clinker={}", tools.linker.program().display());
    [
        "-Ctarget-cpu=v3",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        &linker,
    ]
    .join("\x1f")
}

/// A panic compiles, and only the kernel refuses it, with a message that helps nobody.
fn refuse_panics(object: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let symbols: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|name| contains(name, b"9panicking"))
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    if symbols.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        Status::PanicInObject,
        format!(
            "{} can panic ({} symbols of core::panicking), and the kernel would refuse it:\n  {}\n\
             look for indexing, division, unwrap and slices in foobar-ebpf",
            object.display(),
            symbols.len(),
            symbols.join("\n  ")
        ),
    ))
}

/// What the kernel at hand takes an older one may refuse.
fn refuse_deep_stacks(object: &Path, bytes: &[u8]) -> Result<()> {
    let chain = stack::deepest(bytes).with_context(|| format!("in {}", object.display()))?;
    if chain.bytes <= stack::MOST {
        return Ok(());
    }
    Err(Refusal::new(
        Status::DeepStack,
        format!(
            "{}: functions that are active at once take {} bytes of stack as Linux 6.1 counts them, and there are {}:\n  {chain}\n\
             keep large values in maps of a CPU, or pass them by reference",
            object.display(),
            chain.bytes,
            stack::MOST
        ),
    )
    .into())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Writes only what differs, so that cargo does not build the embedding binary anew.
fn keep(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(file).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = file.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(new, file)
}

const TARGET: &str = "bpfel-unknown-none";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_names_cores_panics_is_refused() {
        let bytes = b"\x7fELF\0_ZN4core9panicking5panic17h0E\0";
        let refusal = refuse_panics(Path::new("object"), bytes).unwrap_err();
        assert_eq!(refusal.status, Status::PanicInObject);
        assert!(refusal.message.contains("_ZN4core9panicking5panic17h0E"));
    }

    #[test]
    fn an_object_without_panics_is_accepted() {
        refuse_panics(Path::new("object"), b"\x7fELF\0ingress\0").unwrap();
    }

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bpf/object.o");
        keep(&file, b"one").unwrap();
        let before = fs::metadata(&file).unwrap().modified().unwrap();
        keep(&file, b"one").unwrap();
        assert_eq!(before, fs::metadata(&file).unwrap().modified().unwrap());
        keep(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
    }
}
