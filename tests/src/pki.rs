//! The lab's certificates: an authority that clients trust, and one inside that balancer and servers trust.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// Names that the balancer answers to.
const NAMES: [&str; 3] = ["www.foobar.com", "foobar.com", "grpc.foobar.com"];

/// Writes into `directory`: `ca.pem`, `www.pem` and `www.key` for clients; `internal-ca.pem` and a pair for `lb1` and
/// each server.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path, servers: &[&str]) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let public = authority("foobar lab")?;
    fs::write(directory.join("ca.pem"), public.pem())?;
    issue(&public, directory, "www", &NAMES)?;
    let internal = authority("foobar lab inside")?;
    fs::write(directory.join("internal-ca.pem"), internal.pem())?;
    for host in servers.iter().chain(&["lb1"]) {
        issue(&internal, directory, host, &[host])?;
    }
    // For those who rotate the pair of the public name.
    fs::write(directory.join("ca.key"), public.key().serialize_pem())?;
    Ok(())
}

/// Replaces `www.pem` and `www.key` by new ones of the same authority, the certificate first as most tools do.
///
/// # Errors
/// When the authority cannot be read, or a file not be written.
pub fn rotate(directory: &Path) -> Result<()> {
    let key = KeyPair::from_pem(&fs::read_to_string(directory.join("ca.key"))?)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "foobar lab");
    let public = CertifiedIssuer::self_signed(params, key)?;
    issue(&public, directory, "www", &NAMES)
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Writes `NAME.pem` and `NAME.key`.
///
/// # Errors
/// When a file cannot be written.
pub fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    directory: &Path,
    name: &str,
    names: &[&str],
) -> Result<()> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, authority)?;
    put(&directory.join(format!("{name}.pem")), &leaf.pem())?;
    put(&directory.join(format!("{name}.key")), &key.serialize_pem())
}

/// Whole or not at all, as a reader sees it.
fn put(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)?;
    Ok(())
}
