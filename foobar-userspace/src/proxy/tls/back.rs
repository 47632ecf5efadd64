//! TLS towards the backends: whom to trust, who we are, and sessions of each backend's own.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc};

use rustls::{
    ClientConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use super::{flaw::Flaw, pem, provider};
use crate::config::{BackendTls, HttpVersion, L7Service};

/// How one backend is greeted.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub config: Arc<ClientConfig>,
    /// The name that its certificate must bear.
    pub name: ServerName<'static>,
}

/// The backends of one service by host and port.
#[derive(Clone, Debug, Default)]
pub struct BackendSide(BTreeMap<(String, NonZeroU16), Upstream>);

impl BackendSide {
    /// Empty for a service without `backend-tls`.
    ///
    /// # Errors
    /// What is wrong with the authority, the certificate or the key.
    pub fn read(service: &L7Service) -> Result<Self, Flaw> {
        let Some(tls) = &service.backend_tls else {
            return Ok(Self::default());
        };
        let identity = identity(tls)?;
        let template = template(tls, identity, service.backend_protocol)?;
        let upstreams = service.backends.iter().map(|backend| {
            let written = service.backend_name(backend);
            let name = ServerName::try_from(written.to_owned()).map_err(|_| {
                Flaw::fatal(
                    tls.place,
                    format!("no certificate can be for the name `{written}`"),
                    "add `name = \"web.internal\"`, a name that the backends' certificates bear",
                )
            })?;
            let mut config = template.clone();
            // A ticket of one server means nothing to another, and would be shown to it.
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            let upstream = Upstream {
                config: Arc::new(config),
                name,
            };
            Ok(((backend.host.clone(), backend.port), upstream))
        });
        upstreams.collect::<Result<_, _>>().map(Self)
    }

    /// `None`: in clear.
    #[must_use]
    pub fn of(&self, host: &str, port: NonZeroU16) -> Option<&Upstream> {
        self.0.get(&(host.to_owned(), port))
    }
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(tls: &BackendTls) -> Result<Option<Own>, Flaw> {
    let Some((cert, key)) = &tls.identity else {
        return Ok(None);
    };
    let chain = pem::chain(tls.place, cert)?;
    let key = pem::private_key(tls.place, key)?;
    Ok(Some((chain, key)))
}

fn template(
    tls: &BackendTls,
    identity: Option<Own>,
    protocol: HttpVersion,
) -> Result<ClientConfig, Flaw> {
    let roots = pem::authorities(tls.place, &tls.ca)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(tls, &error))?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(tls, &error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match protocol {
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}

fn unusable(tls: &BackendTls, error: &rustls::Error) -> Flaw {
    Flaw::fatal(
        tls.place,
        format!("the certificate towards the backends cannot be used: {error}"),
        "name the certificate and the key that belong together",
    )
}

/// A pool needs few: one handshake each for what is opened at once.
const SESSIONS: usize = 64;
