//! Data directories: made once, kept in the cache, copied for each lab.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail};

/// The template called `name`; `make` fills a fresh directory where there is none yet.
pub fn cached(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let template = cache()?.join(name);
    if template.exists() {
        return Ok(template);
    }
    let unfinished = template.with_extension(format!("{}.new", process::id()));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    match make(&unfinished) {
        // Another lab may have been faster.
        Ok(()) if template.exists() => fs::remove_dir_all(&unfinished)?,
        Ok(()) => fs::rename(&unfinished, &template)?,
        Err(error) => {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
    }
    Ok(template)
}

pub fn cache() -> Result<PathBuf> {
    let base = env::var_os("FOOBAR_CACHE").map_or_else(
        || {
            let home = env::var_os("HOME").context("neither FOOBAR_CACHE nor HOME is set")?;
            Ok(PathBuf::from(home).join(".cache/foobar"))
        },
        |directory| Ok::<_, anyhow::Error>(PathBuf::from(directory)),
    )?;
    let lab = base.join("lab");
    fs::create_dir_all(&lab).with_context(|| format!("cannot make {}", lab.display()))?;
    Ok(lab)
}

pub fn copy(template: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp")
        .arg("-a")
        .arg("--reflink=auto")
        .arg(template)
        .arg(to))
}

/// A name for a template made by `recipe`: another recipe is another template.
pub fn named(kind: &str, recipe: &str) -> String {
    let sum = recipe.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{kind}-{sum:016x}")
}

pub fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}{}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
