//! Which compiler builds the BPF object: one with core's source beside it and a libLLVM that bpf-linker can use.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::refusal::{Refusal, Status};

/// A compiler that can build the BPF object.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub rustc: PathBuf,
    pub release: String,
    pub llvm: Llvm,
}

#[derive(Clone, Debug)]
pub struct Llvm {
    pub major: u32,
    /// The shared library that this compiler's bitcode belongs to.
    pub library: PathBuf,
}

/// Candidates that will not do, with the reason of each.
#[derive(Debug)]
pub struct Refused(Vec<(String, String)>);

/// The first suitable candidate: `EBPF_RUSTC`, the toolchains of rustup, Debian's compiler.
///
/// # Errors
///
/// Why each candidate was refused.
pub fn find() -> Result<Toolchain, Refused> {
    if let Some(rustc) = env::var_os("EBPF_RUSTC") {
        return examine(Path::new(&rustc))
            .map_err(|reason| Refused(vec![(format!("EBPF_RUSTC={}", rustc.display()), reason)]));
    }
    let mut refused = Vec::new();
    for rustc in rustup_compilers().into_iter().chain([DEBIAN.into()]) {
        match examine(&rustc) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => refused.push((rustc.display().to_string(), reason)),
        }
    }
    Err(Refused(refused))
}

impl Refused {
    /// Debian's packages cannot cure a choice that the user made.
    pub fn curable_by_packages(&self) -> bool {
        env::var_os("EBPF_RUSTC").is_none()
    }

    pub fn into_refusal(self) -> Refusal {
        Refusal::new(Status::NoCompiler, self.to_string())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "no compiler here can build the BPF object:")?;
        for (candidate, reason) in &self.0 {
            writeln!(formatter, "  {candidate}: {reason}")?;
        }
        formatter.write_str(
            "on Debian, `cargo xtask setup` installs rustc-web and rust-web-src; elsewhere:\n  \
             rustup toolchain install nightly --component rust-src",
        )
    }
}

fn rustup_compilers() -> Vec<PathBuf> {
    let Some(list) = answer(Command::new("rustup").args(["toolchain", "list"])) else {
        return Vec::new();
    };
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|toolchain| {
            answer(Command::new("rustup").args(["which", "rustc", "--toolchain", toolchain]))
        })
        .map(|path| PathBuf::from(path.trim()))
        .collect()
}

fn examine(rustc: &Path) -> Result<Toolchain, String> {
    if !rustc.is_file() {
        return Err("is not installed".to_owned());
    }
    let version = answer(Command::new(rustc).arg("-Vv")).ok_or("does not run")?;
    let release = field(&version, "release").ok_or("does not tell its version")?;
    let major = field(&version, "LLVM version")
        .and_then(|version| version.split('.').next()?.parse().ok())
        .ok_or("does not tell the version of its LLVM")?;
    if !LLVM_MAJORS.contains(&major) {
        return Err(format!(
            "has LLVM {major}, and the BPF linker works with {} to {}",
            LLVM_MAJORS.start(),
            LLVM_MAJORS.end()
        ));
    }
    let sysroot = answer(Command::new(rustc).args(["--print", "sysroot"]))
        .ok_or("does not tell its sysroot")?;
    let sysroot = Path::new(sysroot.trim());
    if !sysroot.join(SOURCE).is_file() {
        return Err("has no source of core (rustup component rust-src)".to_owned());
    }
    let library = llvm_library(sysroot, major)
        .ok_or_else(|| format!("has no libLLVM.so of version {major} that a linker could use"))?;
    Ok(Toolchain {
        rustc: rustc.to_path_buf(),
        release: release.to_owned(),
        llvm: Llvm { major, library },
    })
}

fn llvm_library(sysroot: &Path, major: u32) -> Option<PathBuf> {
    let prefix = format!("libLLVM.so.{major}.");
    let places = [
        sysroot.join("lib"),
        PathBuf::from(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH)),
        PathBuf::from(format!("/usr/lib/llvm-{major}/lib")),
    ];
    places
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        // Of that name there are also linker scripts of a few bytes.
        .find(|path| fs::metadata(path).is_ok_and(|file| file.len() > 1 << 20))
}

fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What a command prints, if it succeeds; asked as if xtask had not been started by a toolchain of its own.
fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

const DEBIAN: &str = "/usr/bin/rustc";
const SOURCE: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";
/// The features `llvm-21` to `llvm-23` of bpf-linker 0.13.
const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_not_there_is_refused_with_the_reason() {
        let reason = examine(Path::new("/nowhere/rustc")).unwrap_err();
        assert_eq!(reason, "is not installed");
    }

    #[test]
    fn a_program_that_is_no_compiler_is_refused() {
        let reason = examine(Path::new("/bin/false")).unwrap_err();
        assert_eq!(reason, "does not run");
    }

    #[test]
    fn the_major_version_of_llvm_is_read_from_the_verbose_version() {
        let version = "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(field(version, "LLVM version"), Some("22.1.8"));
        assert_eq!(field(version, "release"), Some("1.96.0"));
    }

    #[test]
    fn every_refused_candidate_is_named_beside_its_reason() {
        let refused = Refused(vec![("/a/rustc".into(), "has LLVM 14".into())]);
        let text = refused.to_string();
        assert!(text.contains("/a/rustc: has LLVM 14"), "{text}");
        assert!(text.contains("--component rust-src"), "{text}");
    }
}
