//! A certificate with its key: read, looked at, ready to be shown.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig, SignatureAlgorithm,
    pki_types::CertificateDer,
    sign::{CertifiedKey, SingleCertAndKey},
};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use super::{
    flaw::{Flaw, read},
    pem, provider,
};
use crate::config::{Certificate, L7Service, Place};

/// Why a name cannot be proved by a certificate.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("no such certificate can be made")]
    Make(#[from] rcgen::Error),
    #[error("no such certificate can be shown")]
    Show(#[from] rustls::Error),
}

#[derive(Clone, Debug)]
pub struct Identity {
    pub facts: CertificateFacts,
    /// With the OCSP response to staple.
    pub key: Arc<CertifiedKey>,
}

/// What a person wants to know of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFacts {
    pub path: PathBuf,
    /// DNS names.
    pub names: Vec<String>,
    pub issuer: String,
    pub serial: String,
    pub algorithm: &'static str,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub stapled: bool,
}

impl Identity {
    /// # Errors
    /// What makes it unusable.
    pub fn read(certificate: &Certificate) -> Result<Self, Flaw> {
        let place = certificate.place;
        let chain = pem::chain(place, &certificate.cert)?;
        let signing = pem::signing_key(place, &certificate.key)?;
        let ocsp = certificate
            .ocsp
            .as_ref()
            .map(|path| staple(place, path))
            .transpose()?;
        let mut key = CertifiedKey::new(chain, signing);
        key.ocsp = ocsp;
        Self::of(place, &certificate.cert, key)
    }

    /// # Errors
    /// The key is another's, or the certificate cannot be read.
    pub fn of(place: Place, path: &Path, key: CertifiedKey) -> Result<Self, Flaw> {
        key.keys_match().map_err(|_| {
            Flaw::fatal(
                place,
                format!("the key does not belong to {}", path.display()),
                "name the key that the certificate was requested with",
            )
        })?;
        let leaf = key
            .end_entity_cert()
            .map_err(|error| unreadable(place, path, &error.to_string()))?;
        let facts = facts(place, path, leaf, &key)?;
        Ok(Self {
            facts,
            key: Arc::new(key),
        })
    }

    /// Signed by nobody, for a site that waits for its first certificate.
    ///
    /// # Errors
    /// The names cannot stand in a certificate.
    pub fn stopgap(service: &L7Service) -> Result<Self, Flaw> {
        let failed = |error: String| {
            Flaw::fatal(
                service.place,
                format!(
                    "no certificate can be made for `l7.{}`: {error}",
                    service.name
                ),
                "look at its `hosts`",
            )
        };
        let made = rcgen::generate_simple_self_signed(service.hosts.clone())
            .map_err(|error| failed(error.to_string()))?;
        let key = provider()
            .key_provider
            .load_private_key(made.signing_key.into())
            .map_err(|error| failed(error.to_string()))?;
        let key = CertifiedKey::new(vec![made.cert.der().clone()], key);
        Self::of(service.place, Path::new(STOPGAP), key)
    }

    /// RFC 8737: shown to an ACME server that asks for `acme-tls/1`, to prove `name` by a digest.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn proving(name: &str, digest: &[u8]) -> Result<ServerConfig, ProofError> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        // The extension is critical, and rustls itself would refuse what it does not know.
        let key = CertifiedKey::new(
            vec![certificate.der().clone()],
            provider().key_provider.load_private_key(key.into())?,
        );
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        Ok(config)
    }

    /// Whether it is for `name`.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        self.facts.names.iter().any(|pattern| covers(pattern, name))
    }

    #[must_use]
    pub fn is_ecdsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::ECDSA
    }

    /// What speaks against it at `now` for a site of these names.
    #[must_use]
    pub fn doubts(&self, place: Place, now: SystemTime) -> Vec<Flaw> {
        let path = self.facts.path.display();
        let mut flaws = Vec::new();
        if self.facts.not_after <= now {
            flaws.push(Flaw::doubtful(
                place,
                format!("{path} ended on {}", date(self.facts.not_after)),
                "put a renewed certificate there",
            ));
        }
        if self.facts.not_before > now {
            flaws.push(Flaw::doubtful(
                place,
                format!("{path} begins on {} only", date(self.facts.not_before)),
                "wait for that day, or set this machine's clock",
            ));
        }
        flaws
    }
}

/// What stands for a path.
const STOPGAP: &str = "(none yet)";

/// RFC 6125: a wildcard stands for one whole label.
pub(super) fn covers(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let parent = |name: &str| {
        name.split_once('.')
            .map(|(_, parent)| parent.to_ascii_lowercase())
    };
    pattern.starts_with("*.") && !name.starts_with("*.") && parent(pattern) == parent(name)
}

fn facts(
    place: Place,
    path: &Path,
    leaf: &CertificateDer<'_>,
    key: &CertifiedKey,
) -> Result<CertificateFacts, Flaw> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| unreadable(place, path, &error.to_string()))?;
    Ok(CertificateFacts {
        path: path.to_owned(),
        names: names(&parsed),
        issuer: parsed.issuer().to_string(),
        serial: parsed.raw_serial_as_string(),
        algorithm: match key.key.algorithm() {
            SignatureAlgorithm::ECDSA => "ECDSA",
            SignatureAlgorithm::ED25519 => "Ed25519",
            SignatureAlgorithm::RSA => "RSA",
            _ => "other",
        },
        not_before: moment(parsed.validity().not_before.timestamp()),
        not_after: moment(parsed.validity().not_after.timestamp()),
        stapled: key.ocsp.is_some(),
    })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    alternatives
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect()
}

fn unreadable(place: Place, path: &Path, error: &str) -> Flaw {
    Flaw::fatal(
        place,
        format!(
            "the certificate in {} cannot be read: {error}",
            path.display()
        ),
        "look at it with `openssl x509 -text -in` and copy it again",
    )
}

fn moment(seconds: i64) -> SystemTime {
    u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| {
        UNIX_EPOCH + Duration::from_secs(seconds)
    })
}

pub(super) fn date(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string()
}

/// An OCSP response is a DER SEQUENCE; an `openssl ocsp -respout` file is one, a PEM or an HTML error page is not.
fn staple(place: Place, path: &PathBuf) -> Result<Vec<u8>, Flaw> {
    let response = read(place, path)?;
    if response.first() == Some(&0x30) {
        return Ok(response);
    }
    Err(Flaw::fatal(
        place,
        format!("{} is not a DER OCSP response", path.display()),
        "write it with `openssl ocsp … -respout FILE`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(covers("*.foobar.com", "WWW.foobar.com"));
        assert!(!covers("*.foobar.com", "a.b.foobar.com"));
        assert!(!covers("*.foobar.com", "foobar.com"));
        assert!(covers("*.foobar.com", "*.foobar.com"));
        assert!(!covers("*.com", "*.foobar.com"));
    }
}
