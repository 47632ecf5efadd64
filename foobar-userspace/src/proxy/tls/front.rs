//! TLS towards clients: which site a name leads to, and what that site shows and asks.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion,
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
        WebPkiClientVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    flaw::Flaw,
    identity::{Identity, covers},
    pem, provider,
    tickets::Ticketing,
};
use crate::config::{ClientCertificateNeed, HttpVersion, L7Service, TlsVersion};

/// One service, as its clients meet it.
#[derive(Clone, Debug)]
pub struct Front {
    pub service: String,
    pub hosts: Vec<String>,
    pub identities: Vec<Identity>,
    config: Arc<ServerConfig>,
    /// The same, but the client's order of cipher suites holds.
    deferring: Arc<ServerConfig>,
    /// For the whole handshake.
    pub patience: Duration,
}

/// The fronts of each endpoint.
#[derive(Clone, Debug, Default)]
pub struct Fronts(BTreeMap<SocketAddr, Vec<Arc<Front>>>);

impl Front {
    /// # Errors
    /// What makes it impossible to serve.
    pub fn new(
        service: &L7Service,
        identities: Vec<Identity>,
        tickets: Arc<Ticketing>,
    ) -> Result<Self, Flaw> {
        let deferring = server_config(service, &identities, tickets)?;
        let mut config = deferring.clone();
        config.ignore_client_order = true;
        Ok(Self {
            service: service.name.clone(),
            hosts: service.hosts.clone(),
            identities,
            config: Arc::new(config),
            deferring: Arc::new(deferring),
            patience: service.timeouts.handshake,
        })
    }

    /// The terms for a client. Who puts ChaCha20 first has no hardware for AES, and gets what is cheap for it.
    #[must_use]
    pub fn terms(&self, offered: &[CipherSuite]) -> &Arc<ServerConfig> {
        let is_grease = |suite: &&CipherSuite| u16::from(**suite) & 0x0f0f == 0x0a0a;
        match offered.iter().find(|suite| !is_grease(suite)) {
            Some(
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ) => &self.deferring,
            _ => &self.config,
        }
    }

    /// What clients would complain of.
    #[must_use]
    pub fn doubts(&self, service: &L7Service, now: SystemTime) -> Vec<Flaw> {
        if service.tls.acme.is_some() {
            // What is missing is being ordered; why it does not come is told by the order.
            return Vec::new();
        }
        let place = |index: usize| {
            let certificate = service.tls.certificates.get(index);
            certificate.map_or(service.place, |certificate| certificate.place)
        };
        let mut flaws: Vec<Flaw> = self
            .identities
            .iter()
            .enumerate()
            .flat_map(|(index, identity)| identity.doubts(place(index), now))
            .collect();
        let missing =
            |host: &&String| !self.identities.iter().any(|identity| identity.covers(host));
        for host in self.hosts.iter().filter(missing) {
            let names: Vec<String> = self
                .identities
                .iter()
                .flat_map(|identity| identity.facts.names.iter().map(|name| format!("`{name}`")))
                .collect();
            let names = match names.is_empty() {
                true => "no name at all".to_owned(),
                false => names.join(", "),
            };
            flaws.push(Flaw::doubtful(
                place(0),
                format!("no certificate of `l7.{}` is for `{host}`; it is for {names}", self.service),
                "put a certificate there that bears the name (subjectAltName), or take it out of `hosts`",
            ));
        }
        flaws
    }
}

impl Fronts {
    pub fn add(&mut self, endpoint: SocketAddr, front: Arc<Front>) {
        self.0.entry(endpoint).or_default().push(front);
    }

    /// The site of the name that a client asks for: an exact name before a wildcard before the site of every other
    /// name. A client that asks for none gets the last, else the first there is.
    #[must_use]
    pub fn front(&self, endpoint: SocketAddr, asked: Option<&str>) -> Option<&Arc<Front>> {
        let sites = self.0.get(&endpoint)?;
        let every_other = sites.iter().find(|site| site.hosts.is_empty());
        let Some(name) = asked else {
            return every_other.or(sites.first());
        };
        let exact = |site: &&Arc<Front>| {
            site.hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case(name))
        };
        let wildcard = |site: &&Arc<Front>| site.hosts.iter().any(|host| covers(host, name));
        sites
            .iter()
            .find(exact)
            .or_else(|| sites.iter().find(wildcard))
            .or(every_other)
    }

    /// How long a handshake may take at an endpoint: the longest of its sites, as it begins before a name is known.
    #[must_use]
    pub fn patience(&self, endpoint: SocketAddr) -> Option<Duration> {
        let fronts = self.0.get(&endpoint)?;
        fronts.iter().map(|front| front.patience).max()
    }

    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.keys().copied()
    }
}

fn server_config(
    service: &L7Service,
    identities: &[Identity],
    tickets: Arc<Ticketing>,
) -> Result<ServerConfig, Flaw> {
    let versions: &[&SupportedProtocolVersion] = match service.tls.min {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| unusable(service, &error.to_string()))?;
    let builder = match &service.tls.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let roots: RootCertStore = pem::authorities(client.place, &client.ca)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = match client.need {
                ClientCertificateNeed::Optional => verifier.allow_unauthenticated(),
                ClientCertificateNeed::Required => verifier,
            };
            builder.with_client_cert_verifier(
                verifier
                    .build()
                    .map_err(|error| unusable(service, &error.to_string()))?,
            )
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys(identities))));
    config.alpn_protocols = service
        .tls
        .alpn
        .iter()
        .map(|version| match version {
            HttpVersion::Http1 => b"http/1.1".to_vec(),
            HttpVersion::Http2 => b"h2".to_vec(),
        })
        .collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if service.tls.client.is_none() {
        config.ticketer = tickets;
    } else {
        // A resumed session would bring a certificate that nobody has looked at since.
        config.ticketer = Arc::new(NoTickets);
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn unusable(service: &L7Service, error: &str) -> Flaw {
    Flaw::fatal(
        service.place,
        format!("`l7.{}` cannot serve TLS: {error}", service.name),
        "look at its `tls`",
    )
}

#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Those of cheaper keys first: ECDSA signs ten times as often a second as RSA.
fn keys(identities: &[Identity]) -> Vec<(Vec<String>, Arc<CertifiedKey>)> {
    let mut sorted: Vec<&Identity> = identities.iter().collect();
    sorted.sort_by_key(|identity| !identity.is_ecdsa());
    sorted
        .into_iter()
        .map(|identity| (identity.facts.names.clone(), identity.key.clone()))
        .collect()
}

#[derive(Debug)]
struct ByName(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable =
            |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = |names: &[String]| {
            hello
                .server_name()
                .is_some_and(|asked| names.iter().any(|name| covers(name, asked)))
        };
        let mut usable = self.0.iter().filter(|(_, key)| usable(key));
        // With a key that this client cannot use the handshake fails as the standard says; with none rustls would say
        // `access_denied`, which scanners take for a fault.
        let first = usable.clone().next().or(self.0.first());
        usable
            .find(|(names, _)| named(names))
            .or(first)
            .map(|(_, key)| key.clone())
    }
}
