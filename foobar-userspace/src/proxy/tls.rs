//! TLS before and behind the proxy: certificates by name, tickets, and what each side may ask of the other.

mod back;
mod flaw;
mod front;
mod identity;
mod pem;
mod tickets;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::{
    SupportedCipherSuite,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite},
    },
};

pub use self::{
    back::{BackendSide, Upstream},
    flaw::{Flaw, Severity},
    front::{Front, Fronts},
    identity::{CertificateFacts, Identity, ProofError},
    tickets::{TicketKeys, TicketKeysError, Ticketing},
};

/// aws-lc-rs, with the post-quantum key exchange that browsers prefer, and what costs least among the strong first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: CIPHER_SUITES.to_vec(),
        ..aws_lc_rs::default_provider()
    })
}

/// AES-128 before AES-256, as browsers have it: processors hash SHA-256 and not SHA-384, and the key schedule of a
/// handshake is mostly hashing (a quarter of the time of a full handshake, measured).
const CIPHER_SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];
