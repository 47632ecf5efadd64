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

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use self::{
    back::{BackendSide, Upstream},
    flaw::{Flaw, Severity},
    front::{Front, Fronts},
    identity::{CertificateFacts, Identity, ProofError},
    tickets::{TicketKeys, TicketKeysError, Ticketing},
};

/// aws-lc-rs, with the post-quantum key exchange that browsers prefer.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
