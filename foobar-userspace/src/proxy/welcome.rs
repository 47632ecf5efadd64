//! From an accepted connection to one that speaks: who it is, whether it may, TLS, and then requests.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use rustls::{HandshakeKind, ServerConfig, server::Acceptor};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    ClientCertificate, HttpVersion, Peer, Report, TlsFacts, Worker,
    admission::{Admission, Refused},
    proxied::{self, Proxied},
    redirect, serve,
    tls::Fronts,
    wire::Wire,
};
use crate::{
    config::Jail,
    tally::{DoorCell, SiteCell, Tally},
};

/// What a worker goes by at the door; swapped whole.
#[derive(Debug, Default)]
pub struct Doorway {
    pub fronts: Fronts,
    /// Who must begin with a PROXY header, by endpoint.
    pub proxied_by: BTreeMap<SocketAddr, Vec<IpNet>>,
    /// By endpoint: the site that says so, and where offenders of the handshake go.
    pub jails: BTreeMap<SocketAddr, (Arc<str>, Jail)>,
    /// Certificates for `acme-tls/1` by name.
    pub challenges: BTreeMap<String, Arc<ServerConfig>>,
    /// Dense ids of the sites' counters.
    pub ids: BTreeMap<String, u32>,
}

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    Redirect,
    Tls,
}

/// One worker's door.
#[derive(Debug)]
pub(super) struct Post {
    pub worker: Rc<Worker>,
    pub doorway: RefCell<Arc<Doorway>>,
    pub admission: Arc<Admission>,
    pub tally: Tally,
    pub reports: mpsc::Sender<Report>,
}

/// Why a connection ends before it speaks.
enum Turned {
    /// Nobody is to blame, or it was counted already.
    Away,
    Failed,
    TimedOut,
}

/// Serves one connection to its end.
pub(super) async fn welcome(
    mut stream: TcpStream,
    from: SocketAddr,
    endpoint: SocketAddr,
    purpose: Purpose,
    post: Rc<Post>,
) {
    // Answers are written whole: waiting for more would only be late.
    let _ = stream.set_nodelay(true);
    let doorway = post.doorway.borrow().clone();
    let client = match announced(&mut stream, from, endpoint, &doorway, &post).await {
        Some(client) => client,
        None => return,
    };
    let _admitted = match post.admission.admit(client.ip(), Instant::now()) {
        Ok(admitted) => admitted,
        Err(refused) => {
            tracing::debug!(%client, ?refused, "closed as it came");
            if let Refused::Rate(times) = refused {
                accuse(client.ip(), times, endpoint, &doorway, &post);
            }
            return;
        }
    };
    let peer = |tls| Peer {
        client,
        local: endpoint,
        tls,
    };
    match purpose {
        Purpose::Redirect => Box::pin(redirect(stream, peer(None), post.worker.clone())).await,
        // What a handshake needs is given back after it: ten thousand idle connections would keep it.
        Purpose::Tls => match Box::pin(encrypted(stream, endpoint, &doorway, &post)).await {
            Ok((stream, facts)) => serve(stream, peer(Some(facts)), post.worker.clone()).await,
            Err(turned) => {
                let admission = &post.admission;
                match turned {
                    Turned::Away => {}
                    Turned::Failed => admission.count(DoorCell::HandshakesFailed),
                    Turned::TimedOut => admission.count(DoorCell::HandshakesTimedOut),
                }
            }
        },
    }
}

/// A client that goes on and on beyond the rate of handshakes is for the firewall.
fn accuse(client: IpAddr, times: u32, endpoint: SocketAddr, doorway: &Doorway, post: &Post) {
    let Some((site, jail)) = doorway.jails.get(&endpoint) else {
        return;
    };
    if times == jail.after {
        let report = Report::Jail {
            site: site.clone(),
            set: jail.set.clone(),
            client,
        };
        if let Some(id) = doorway.ids.get(&**site) {
            post.tally.add(*id, SiteCell::Offenders, 1);
        }
        // A full channel means that others are being jailed; this one comes again.
        let _ = post.reports.try_send(report);
    }
}

/// Whose connection it is; `None` when it does not say so as it must.
async fn announced(
    stream: &mut TcpStream,
    from: SocketAddr,
    endpoint: SocketAddr,
    doorway: &Doorway,
    post: &Post,
) -> Option<SocketAddr> {
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let senders = doorway.proxied_by.get(&endpoint);
    if !senders.is_some_and(|nets| nets.iter().any(|net| net.contains(&from.ip()))) {
        return Some(from);
    }
    match timeout(PROXIED_WITHIN, proxied::read(stream)).await {
        Ok(Ok(Proxied::Client(client))) => Some(client),
        Ok(Ok(Proxied::Sender)) => Some(from),
        bad => {
            if let Ok(Err(error)) = bad {
                tracing::debug!(%from, "{error}");
            }
            post.admission.count(DoorCell::BadProxied);
            None
        }
    }
}

async fn encrypted(
    stream: TcpStream,
    endpoint: SocketAddr,
    doorway: &Doorway,
    post: &Post,
) -> Result<(Box<TlsStream<Wire>>, TlsFacts), Turned> {
    let patience = doorway.fronts.patience(endpoint).unwrap_or(PROXIED_WITHIN);
    let begun = Instant::now();
    // Asymmetric cryptography is what a flood costs: who is over the number waits in turn, for no longer than a
    // handshake may take.
    let turn = timeout(patience, post.admission.handshakes.acquire()).await;
    let _turn = turn
        .map_err(|_| Turned::TimedOut)?
        .map_err(|_| Turned::Away)?;
    let left = || patience.saturating_sub(begun.elapsed());
    let hello = LazyConfigAcceptor::new(Acceptor::default(), Wire(stream));
    let mut start = match timeout(left(), hello).await {
        Err(_) => return Err(Turned::TimedOut),
        // A scanner, a health check by TCP: it left before it said anything.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Turned::Away),
        Ok(Err(_)) => return Err(Turned::Failed),
        Ok(Ok(start)) => start,
    };
    let sni = start
        .client_hello()
        .server_name()
        .map(str::to_ascii_lowercase);
    if let Some(config) = challenged(&start.client_hello(), doorway) {
        // The server that proves the name looks at the certificate and leaves.
        let _ = timeout(left(), start.into_stream(config)).await;
        return Err(Turned::Away);
    }
    let Some(front) = doorway.fronts.front(endpoint, sni.as_deref()) else {
        post.admission.count(DoorCell::UnknownName);
        let _ = timeout(left(), start.io.write_all(&UNRECOGNIZED_NAME)).await;
        return Err(Turned::Away);
    };
    let count = |cell| {
        if let Some(id) = doorway.ids.get(&front.service) {
            post.tally.add(*id, cell, 1);
        }
    };
    let terms = front.terms(start.client_hello().cipher_suites()).clone();
    match timeout(left(), start.into_stream(terms)).await {
        Err(_) => {
            count(SiteCell::HandshakesFailed);
            Err(Turned::TimedOut)
        }
        Ok(Err(error)) => {
            tracing::debug!(site = front.service, "handshake: {error}");
            count(SiteCell::HandshakesFailed);
            Err(Turned::Failed)
        }
        Ok(Ok(stream)) => {
            let facts = facts(&stream, sni);
            count(SiteCell::Handshakes);
            if facts.is_resumed {
                count(SiteCell::Resumptions);
            }
            Ok((Box::new(stream), facts))
        }
    }
}

/// RFC 8737: the one protocol that is offered.
fn challenged(
    hello: &rustls::server::ClientHello<'_>,
    doorway: &Doorway,
) -> Option<Arc<ServerConfig>> {
    let mut offered = hello.alpn()?;
    if offered.next() != Some(ACME_TLS) || offered.next().is_some() {
        return None;
    }
    doorway.challenges.get(hello.server_name()?).cloned()
}

fn facts(stream: &TlsStream<Wire>, sni: Option<String>) -> TlsFacts {
    let (_, session) = stream.get_ref();
    TlsFacts {
        sni,
        alpn: match session.alpn_protocol() {
            Some(b"h2") => Some(HttpVersion::Http2),
            Some(_) => Some(HttpVersion::Http1),
            None => None,
        },
        is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        client_certificate: session
            .peer_certificates()
            .and_then(<[_]>::first)
            .and_then(|der| client_certificate(der)),
    }
}

fn client_certificate(der: &[u8]) -> Option<ClientCertificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let fingerprint = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(ClientCertificate {
        subject: parsed.subject().to_string(),
        fingerprint,
    })
}

const ACME_TLS: &[u8] = b"acme-tls/1";
/// A fatal alert, RFC 6066, 3: in clear, as nothing is agreed on yet.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
const PROXIED_WITHIN: Duration = Duration::from_secs(5);
