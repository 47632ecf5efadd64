//! Certificates, keys and authorities out of PEM files.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::SigningKey,
};

use super::{
    flaw::{Flaw, read},
    provider,
};
use crate::config::{Place, Secret};

/// The chain in the file, never empty.
pub(super) fn chain(place: Place, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let text = read(place, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Flaw::fatal(
            place,
            format!("{} holds no certificate", path.display()),
            "it must be PEM: `-----BEGIN CERTIFICATE-----`, the site's own first, then its issuers",
        )),
        Err(error) => Err(Flaw::fatal(
            place,
            format!("{} is not PEM: {error}", path.display()),
            "copy the file again; each part begins with `-----BEGIN CERTIFICATE-----`",
        )),
    }
}

/// Those who sign the certificates of others.
pub(super) fn authorities(place: Place, path: &PathBuf) -> Result<RootCertStore, Flaw> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(place, path)? {
        roots.add(certificate).map_err(|error| {
            Flaw::fatal(
                place,
                format!("{} holds no authority: {error}", path.display()),
                "name the certificate of the authority itself, made with `basicConstraints = CA:TRUE`",
            )
        })?;
    }
    Ok(roots)
}

pub(super) fn private_key(place: Place, secret: &Secret) -> Result<PrivateKeyDer<'static>, Flaw> {
    let revealed = secret
        .reveal()
        .map_err(|error| Flaw::secret(place, &error))?;
    let text = revealed.expose();
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        if text.contains("ENCRYPTED") {
            Flaw::fatal(
                place,
                format!("the key in {secret} has a passphrase"),
                "take it off with `openssl pkey -in KEY -out PLAIN`, and keep the file for foobar alone",
            )
        } else {
            Flaw::fatal(
                place,
                format!("there is no private key in {secret}"),
                "it must be PEM: `-----BEGIN PRIVATE KEY-----`",
            )
        }
    })
}

pub(super) fn signing_key(place: Place, secret: &Secret) -> Result<Arc<dyn SigningKey>, Flaw> {
    let key = private_key(place, secret)?;
    provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| {
            Flaw::fatal(
                place,
                format!("the key in {secret} cannot be used: {error}"),
                "use an ECDSA key on P-256 or P-384, Ed25519, or RSA of 2048 bits and more",
            )
        })
}
