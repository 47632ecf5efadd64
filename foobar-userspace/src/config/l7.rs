//! The TLS-terminating proxy as meant: sites, their certificates, their backends, and every bound.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{Backend, Check, Place, Secret};

/// What the proxy of one node shares among its sites.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proxy {
    /// Threads, each with its own listeners; `None`: one a core.
    pub workers: Option<NonZeroU16>,
    /// Connections of clients at once.
    pub max_connections: u32,
    /// Of one client (IPv6: of one /64).
    pub max_connections_per_client: u32,
    /// TLS handshakes at once.
    pub max_handshakes: u32,
    /// TLS handshakes of one client.
    pub handshakes_per_client: RequestRate,
    /// How long connections may end by themselves at a stop.
    pub drain: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            workers: None,
            max_connections: 50_000,
            max_connections_per_client: 1_000,
            max_handshakes: 2_000,
            handshakes_per_client: RequestRate {
                requests: 100,
                period: Duration::from_secs(1),
                burst: 200,
            },
            drain: Duration::from_secs(30),
        }
    }
}

/// A site: some names and paths, and what answers for them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct L7Service {
    pub name: String,
    /// The node that runs the proxy.
    pub on: String,
    /// Where it listens for TLS; several services may share an endpoint.
    pub listen: Vec<SocketAddr>,
    /// Where plain HTTP is redirected to HTTPS.
    pub redirect: Vec<SocketAddr>,
    /// Lower case; `*.foobar.com` is any one label; empty: every name that no other service has.
    pub hosts: Vec<String>,
    /// Prefixes of whole segments, `/` for all; the longest of all services decides.
    pub paths: Vec<String>,
    pub tls: Tls,
    pub backends: Vec<Backend>,
    /// Without it requests go to the backends in clear.
    pub backend_tls: Option<BackendTls>,
    pub backend_protocol: HttpVersion,
    /// Who may say by the PROXY protocol whose connection it is; they must.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Told to the backends; then every client has connections of its own.
    pub proxy_protocol_to: Option<ProxyProtocol>,
    pub check: Option<Check>,
    pub balance: L7Balance,
    pub sticky: Option<Sticky>,
    /// How many backends one client may reach.
    pub shuffle: Option<u8>,
    pub slow_start: Option<Duration>,
    /// With less than this share of the weights healthy, health is not believed and all are used.
    pub panic_percent: u8,
    pub ejection: Option<Ejection>,
    pub retries: Retries,
    pub breaker: Breaker,
    pub queue: Queue,
    pub blast_radius: BlastRadius,
    pub limits: HttpLimits,
    pub timeouts: Timeouts,
    pub pages: Pages,
    /// Answer everything with the maintenance page.
    pub maintenance: bool,
    pub jail: Option<Jail>,
    pub place: Place,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// Chosen by the name that the client asks for; empty only with `acme`.
    pub certificates: Vec<Certificate>,
    pub min: TlsVersion,
    /// In order of preference.
    pub alpn: Vec<HttpVersion>,
    pub client: Option<ClientCertificates>,
    pub tickets: Tickets,
    pub hsts: Option<Hsts>,
    pub acme: Option<Acme>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// The chain, PEM, the site's own first.
    pub cert: PathBuf,
    pub key: Secret,
    /// A DER OCSP response to staple.
    pub ocsp: Option<PathBuf>,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    V12,
    V13,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpVersion {
    Http1,
    Http2,
}

/// Certificates of clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificates {
    /// Who signs them, PEM.
    pub ca: PathBuf,
    pub need: ClientCertificateNeed,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCertificateNeed {
    Optional,
    Required,
}

/// Session tickets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tickets {
    /// A file, or a directory of files, of 80 random bytes each, which several balancers share; `None`: keys of its own.
    pub keys: Option<PathBuf>,
    /// How long the proxy's own keys encrypt; they decrypt as long again.
    pub rotate: Duration,
    pub place: Place,
}

/// `Strict-Transport-Security`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hsts {
    pub max_age: Duration,
    pub include_subdomains: bool,
    pub preload: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acme {
    /// URL of the server's directory.
    pub directory: String,
    /// Mail addresses.
    pub contact: Vec<String>,
    /// Who signs the server's own certificate; `None`: the public authorities.
    pub ca: Option<PathBuf>,
    pub challenge: AcmeChallenge,
    /// How long before its end a certificate is renewed.
    pub renew_before: Duration,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AcmeChallenge {
    /// A file under `/.well-known/acme-challenge/` of the redirect listener.
    Http01,
    /// A certificate for the ALPN `acme-tls/1`.
    TlsAlpn01,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendTls {
    /// Who signs the backends' certificates, PEM.
    pub ca: PathBuf,
    /// The proxy's own chain, PEM, with its key.
    pub identity: Option<(PathBuf, Secret)>,
    /// The name in every backend's certificate; `None`: the name of its host.
    pub name: Option<String>,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyProtocol {
    V1,
    V2,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum L7Balance {
    /// The better of two at random, by requests in flight, latency and weight.
    PowerOfTwo,
    LeastConnections,
    RoundRobin,
    /// Rendezvous hashing.
    Hrw(HashKey),
}

/// What a request is hashed by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HashKey {
    Source,
    Cookie(String),
    /// Lower case.
    Header(String),
}

/// What keeps a client at one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sticky {
    Cookie,
    Source,
}

/// When a backend that answers badly is left out for a while.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// Or this share of failures, once `requests` were seen within `window`.
    pub percent: u8,
    pub requests: u32,
    pub window: Duration,
    /// How long the first time; longer each time again.
    pub lasts: Duration,
    /// The largest share of the backends that may be out.
    pub at_most_percent: u8,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retries {
    /// Attempts after the first; 0: none.
    pub most: u8,
    /// Retries as a share of requests.
    pub budget_percent: u8,
    /// Allowed in any case.
    pub least_per_second: u32,
    pub on: Vec<RetryOn>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum RetryOn {
    /// Nothing was sent: safe for every method.
    Connect,
    /// The connection ended before a byte of the answer.
    Reset,
    /// 502, 503 or 504.
    Status(u16),
    Timeout,
}

/// What one backend may hold at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Breaker {
    pub connections: u32,
    pub requests: u32,
}

/// Requests that wait for a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Queue {
    pub length: u32,
    /// Who waits longer is refused with 503.
    pub wait: Duration,
    pub retry_after: Duration,
}

/// What becomes of a request that killed a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlastRadius {
    /// Deaths of backends after which its like are held back.
    pub after: u32,
    /// For how long; `None`: they are not.
    pub hold: Option<Duration>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpLimits {
    /// Bytes of a request's head.
    pub head: u64,
    pub headers: u16,
    /// Bytes of a request's body.
    pub body: u64,
    pub uri: u64,
    /// Requests of one client (IPv6: of one /64).
    pub per_client: Option<RequestRate>,
    /// Requests on one connection.
    pub requests_per_connection: u32,
    pub h2: H2Limits,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct H2Limits {
    pub streams: u32,
    /// Streams that a client may reset beyond those it lets end, in `window`.
    pub resets: u32,
    /// SETTINGS, PING and other frames without use in `window`.
    pub control_frames: u32,
    pub window: Duration,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestRate {
    pub requests: u64,
    pub period: Duration,
    pub burst: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    pub handshake: Duration,
    /// For a whole head, from its first byte.
    pub head: Duration,
    /// Between two reads of a body.
    pub body: Duration,
    /// Between two writes that a client takes.
    pub write: Duration,
    /// Between the requests of a client's connection.
    pub idle: Duration,
    pub connect: Duration,
    /// For the head of one attempt's answer.
    pub attempt: Duration,
    /// For the whole request with its retries, to the head of the answer.
    pub request: Duration,
    /// Between two reads of an answer's body.
    pub answer: Duration,
    /// Of a pooled connection; below the backend's keep-alive.
    pub backend_idle: Duration,
    /// Of an upgraded connection that says nothing.
    pub tunnel: Duration,
}

/// Answers of the proxy itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pages {
    /// HTML files by status.
    pub errors: BTreeMap<u16, PathBuf>,
    pub maintenance: Option<PathBuf>,
}

/// Where offenders go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Jail {
    pub set: String,
    /// Offences.
    pub after: u32,
    pub within: Duration,
}

impl L7Service {
    /// Without what only says where it stands, to be compared.
    #[must_use]
    pub fn placeless(mut self) -> Self {
        const NOWHERE: Place = Place { line: 0, column: 0 };
        self.place = NOWHERE;
        self.tls.tickets.place = NOWHERE;
        for certificate in &mut self.tls.certificates {
            certificate.place = NOWHERE;
        }
        if let Some(client) = &mut self.tls.client {
            client.place = NOWHERE;
        }
        if let Some(acme) = &mut self.tls.acme {
            acme.place = NOWHERE;
        }
        if let Some(tls) = &mut self.backend_tls {
            tls.place = NOWHERE;
        }
        self
    }

    /// The name that the certificate of one of its backends must bear.
    #[must_use]
    pub fn backend_name<'a>(&'a self, backend: &'a Backend) -> &'a str {
        self.backend_tls
            .as_ref()
            .and_then(|tls| tls.name.as_deref())
            .unwrap_or(&backend.host)
    }
}
