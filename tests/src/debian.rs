//! Packages of another Debian suite, unpacked beside the machine's own: nothing of the machine changes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::template;

/// A folder with `root`, in which the packages and all that they need stand; made once, kept in the cache.
///
/// # Errors
/// When the suite or a package cannot be had.
pub fn unpacked(name: &str, suite: &str, packages: &[&str]) -> Result<PathBuf> {
    template::cached(name, |directory| unpack(directory, suite, packages))
        .map(|directory| directory.join("root"))
}

/// By an apt of the folder's own.
fn unpack(directory: &Path, suite: &str, packages: &[&str]) -> Result<()> {
    template::run(
        Command::new("bash")
            .args(["-euc", SCRIPT, "unpack"])
            .arg(directory)
            .arg(suite)
            .args(packages)
            .env_remove("APT_CONFIG"),
    )
}

const SCRIPT: &str = r#"
R=$1 SUITE=$2
shift 2
mkdir -p $R/apt/lists/partial $R/apt/cache/archives/partial $R/apt/etc/apt.conf.d $R/root
: > $R/apt/status
M=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
    sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+) .*/\2/p' | head -n 1)
test -n "$M"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $M $SUITE main" > $R/apt/etc/sources.list
cat > $R/apt/conf <<C
Dir::Etc "$R/apt/etc"; Dir::Etc::sourcelist "sources.list"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null"; Dir::State::lists "$R/apt/lists"; Dir::State::status "$R/apt/status";
Dir::Cache "$R/apt/cache"; APT::Architecture "amd64"; APT::Install-Recommends "false";
Acquire::Check-Valid-Until "false"; Acquire::Languages "none"; Acquire::Retries "2"; Acquire::http::Timeout "20";
APT::Sandbox::User ""; Debug::NoLocking "1";
C
export APT_CONFIG=$R/apt/conf
apt-get -qq update
apt-get -qq -y --download-only install "$@" libc6
unset APT_CONFIG
for package in $R/apt/cache/archives/*.deb; do dpkg-deb -x $package $R/root; done
rm -rf $R/apt
"#;

/// A program of such a root, by its own loader: this machine's libraries may be older than it wants.
#[must_use]
pub fn program(root: &Path, path: &str) -> Command {
    let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(root.join("usr/lib/x86_64-linux-gnu"))
        .arg(root.join(path));
    command
}
