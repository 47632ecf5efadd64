//! What the access log is told of a request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;

use super::{Site, Worker, answers::Own, exchange::Ending, gate::Origin};
use crate::{
    http::{Request, Version},
    tally::SiteCell,
};

/// Where requests are noted, while somebody wants them.
#[derive(Clone, Debug)]
pub struct AccessTap {
    records: mpsc::Sender<AccessRecord>,
    is_open: Arc<AtomicBool>,
}

impl AccessTap {
    /// Closed at first. When `records` is full, records are lost.
    #[must_use]
    pub fn new(records: mpsc::Sender<AccessRecord>) -> Self {
        Self {
            records,
            is_open: Arc::default(),
        }
    }

    /// From the next request on.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    pub fn close(&self) {
        self.is_open.store(false, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }
}

/// One request and its answer, as they ended.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When the head of the request was read.
    pub at: SystemTime,
    pub site: Arc<str>,
    pub client: SocketAddr,
    pub method: String,
    pub host: String,
    /// With its query.
    pub path: String,
    /// `HTTP/1.1`
    pub version: &'static str,
    /// Of the answer; 499 when the client went away before it.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub took: Duration,
    /// `web1:8443`, the last that was tried.
    pub backend: Option<Arc<str>>,
    pub attempts: u32,
    pub referer: String,
    pub user_agent: String,
    pub is_encrypted: bool,
    /// Why the proxy answered itself, or what cut the answer short.
    pub remark: Option<&'static str>,
}

/// What a request said, for the record that is made when it is over.
#[derive(Debug)]
pub(super) struct Noted {
    at: SystemTime,
    method: String,
    host: String,
    path: String,
    version: &'static str,
    referer: String,
    user_agent: String,
}

impl Noted {
    /// Nothing is noted of a request while nobody wants it.
    pub(super) fn of(request: &Request<'_>, worker: &Worker) -> Option<Self> {
        let is_wanted = worker.shared.access.is_open();
        is_wanted.then(|| Self::new(request, SystemTime::now()))
    }

    fn new(request: &Request<'_>, at: SystemTime) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let field = |name| request.field(name).map(text).unwrap_or_default();
        Self {
            at,
            method: text(request.method),
            host: text(request.host),
            path: text(request.path),
            version: match request.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            referer: field("referer"),
            user_agent: field("user-agent"),
        }
    }
}

/// Counts a request that is over, and notes it for the access log.
pub(super) fn account(
    worker: &Worker,
    site: &Site,
    origin: &Origin,
    begun: Instant,
    ending: &Ending,
    (received, sent): (u64, u64),
    noted: Option<Noted>,
) {
    let took = begun.elapsed();
    let tally = &worker.shared.tally;
    tally.answered(site.id, ending.status, took);
    tally.add(site.id, SiteCell::BytesIn, received);
    tally.add(site.id, SiteCell::BytesOut, sent);
    match ending.remark {
        Some("client gone") => tally.add(site.id, SiteCell::ClientGone, 1),
        Some("client slow") => tally.add(site.id, SiteCell::ClientSlow, 1),
        _ => {}
    }
    if ending.status == 101 {
        tally.add(site.id, SiteCell::Upgrades, 1);
    }
    let Some(noted) = noted else {
        return;
    };
    let record = AccessRecord {
        at: noted.at,
        site: Arc::clone(&site.name),
        client: origin.peer.client,
        method: noted.method,
        host: noted.host,
        path: noted.path,
        version: noted.version,
        status: ending.status,
        bytes_in: received,
        bytes_out: sent,
        took,
        backend: ending.backend.clone(),
        attempts: ending.attempts,
        referer: noted.referer,
        user_agent: noted.user_agent,
        is_encrypted: origin.is_encrypted(),
        remark: ending.remark,
    };
    // A log that cannot keep up loses records, not requests.
    let _ = worker.shared.access.records.try_send(record);
}

/// The same of a request that the gate stopped.
pub(super) fn stopped(
    worker: &Worker,
    site: &Site,
    origin: &Origin,
    begun: Instant,
    own: &Own,
    noted: Option<Noted>,
) {
    let ending = Ending::own(own.clone());
    account(worker, site, origin, begun, &ending, (0, 0), noted);
}
