//! X25519 by a client that shows the same share each time, which spares it half of the exchange; a server cannot tell.

use std::sync::LazyLock;

use aws_lc_rs::{
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    error::Unspecified,
};
use rustls::{
    Error, NamedGroup, PeerMisbehaved,
    crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup},
    ffdhe_groups::FfdheGroup,
};

#[derive(Debug)]
pub(super) struct SameShare;

struct Pair {
    secret: PrivateKey,
    share: Vec<u8>,
}

static PAIR: LazyLock<Result<Pair, Unspecified>> = LazyLock::new(Pair::new);

impl Pair {
    fn new() -> Result<Self, Unspecified> {
        let secret = PrivateKey::generate(&X25519)?;
        let share = secret.compute_public_key()?.as_ref().to_vec();
        Ok(Self { secret, share })
    }
}

impl SupportedKxGroup for SameShare {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        match &*PAIR {
            Ok(pair) => Ok(Box::new(pair)),
            Err(Unspecified) => Err(Error::FailedToGetRandomBytes),
        }
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for &'static Pair {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        agree(
            &self.secret,
            UnparsedPublicKey::new(&X25519, peer),
            Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare),
            |secret| Ok(SharedSecret::from(secret)),
        )
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
