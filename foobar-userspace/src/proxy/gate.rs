//! What every request passes, whichever protocol brought it, before it is worth a backend.

use std::{rc::Rc, sync::Arc, time::Instant};

use super::{
    Peer, Site, Worker,
    answers::Own,
    bench::{Bench, Wanted},
    exchange::{Asked, STICKY_COOKIE},
    over_http2,
    sites::Nobody,
    worker::Table,
};
use crate::{
    config::{HashKey, HttpVersion, L7Balance, Sticky},
    http::{self, Body, Forwarded, Request, bare_host, write_request},
    stable,
    steering::random,
    tally::SiteCell,
};

/// A client's connection as requests see it.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) peer: Peer,
    pub(super) forwarded: Forwarded,
    /// The client's hash: of an IPv6 address its network's.
    client: u64,
}

/// A request that may not pass, and the site that says so.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) own: Own,
    pub(super) bench: Option<Rc<Bench>>,
}

impl Origin {
    pub(super) fn new(peer: Peer, worker: &Worker) -> Self {
        let ip = peer.client.ip();
        let network = crate::steering::rate::client(ip).to_string();
        Self {
            forwarded: Forwarded::new(ip, peer.tls.is_some()),
            client: random::hash(worker.shared.memory.common_seed(), &[network.as_bytes()]),
            peer,
        }
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        self.peer.tls.is_some()
    }

    /// Finds the site of a request and asks whether it may pass.
    pub(super) fn admit(
        &self,
        worker: &Worker,
        table: &Table,
        request: &Request<'_>,
        head: usize,
        begun: Instant,
    ) -> Result<Asked, Stopped> {
        let bench = self.bench(table, request)?;
        let tally = &worker.shared.tally;
        let site = &bench.site;
        tally.add(site.id, SiteCell::Requests, 1);
        let stop = |own: Own| Stopped {
            own,
            bench: Some(Rc::clone(&bench)),
        };
        if site.service.maintenance {
            tally.add(site.id, SiteCell::Maintenance, 1);
            return Err(stop(Own::maintenance(site)));
        }
        if let Some(own) = too_much(site, request, head) {
            return Err(stop(own));
        }
        if let Some(rate) = &site.service.limits.per_client
            && !worker
                .shared
                .memory
                .is_within(site.id, self.peer.client.ip(), rate, begun)
        {
            tally.add(site.id, SiteCell::Limited, 1);
            self.offend(worker, site);
            return Err(stop(Own::new(429, "over its rate").after(rate.period)));
        }
        let fingerprint = self.fingerprint(worker, site, request);
        if let Some(left) = worker.shared.memory.held(fingerprint, begun) {
            tally.add(site.id, SiteCell::HeldBack, 1);
            return Err(stop(Own::new(503, "held back").after(left)));
        }
        Ok(self.asked(worker, Rc::clone(&bench), request, fingerprint, begun))
    }

    /// Counts an offence against a site.
    pub(super) fn offend(&self, worker: &Worker, site: &Arc<Site>) {
        let client = self.peer.client.ip();
        let jail = site.service.jail.as_ref();
        worker.shared.offend((site.id, &site.name), client, jail);
    }

    /// The site that a connection is about before it said so: the one of the name that the handshake asked for.
    pub(super) fn presumed<'t>(&self, table: &'t Table) -> Option<&'t Rc<Bench>> {
        let name = self.peer.tls.as_ref()?.sni.as_ref()?;
        let index = table
            .sites
            .find(self.peer.local, name.as_bytes(), b"/")
            .ok()?;
        table.benches.get(index)
    }

    fn bench(&self, table: &Table, request: &Request<'_>) -> Result<Rc<Bench>, Stopped> {
        let host = bare_host(request.host);
        let find = |host| table.sites.find(self.peer.local, host, request.path);
        let stopped = |own| Stopped { own, bench: None };
        let index = match find(host) {
            Ok(index) => index,
            Err(Nobody::Host) => return Err(stopped(Own::new(421, "no such host"))),
            Err(Nobody::Path) => return Err(stopped(Own::new(404, "no such path"))),
        };
        let bench = table
            .benches
            .get(index)
            .ok_or_else(|| stopped(Own::new(421, "no such host")))?;
        if !self.is_entitled(table, bench, request) {
            return Err(stopped(Own::new(421, "another site's certificate")));
        }
        Ok(Rc::clone(bench))
    }

    /// Clients' certificates were asked for, or not, by the name of the handshake: it does not open a site that asks for
    /// others.
    fn is_entitled(&self, table: &Table, bench: &Bench, request: &Request<'_>) -> bool {
        let asks = &bench.site.service.tls.client;
        if asks.is_none() {
            return true;
        }
        let name = self.peer.tls.as_ref().and_then(|tls| tls.sni.as_ref());
        name.and_then(|name| {
            let find = |path| table.sites.find(self.peer.local, name.as_bytes(), path);
            let index = find(request.path).or_else(|_| find(b"/")).ok()?;
            table.benches.get(index)
        })
        .is_some_and(|named| named.site.service.tls.client == *asks)
    }

    fn fingerprint(&self, worker: &Worker, site: &Site, request: &Request<'_>) -> u64 {
        let path = request.path.split(|byte| *byte == b'?').next();
        let seed =
            worker.shared.memory.common_seed() ^ self.client ^ stable::mix(u64::from(site.id));
        random::hash(seed, &[request.method, path.unwrap_or_default()])
    }

    fn asked(
        &self,
        worker: &Worker,
        bench: Rc<Bench>,
        request: &Request<'_>,
        fingerprint: u64,
        begun: Instant,
    ) -> Asked {
        let service = &bench.site.service;
        let sticky = (service.sticky == Some(Sticky::Cookie))
            .then(|| request.cookie(STICKY_COOKIE).and_then(sticky));
        let wanted = Wanted {
            key: self.key(worker, &bench.site, request),
            sticky: sticky.flatten(),
            client: self.client,
        };
        let (mut head, mut parts) = (Vec::new(), None);
        if service.backend_protocol == HttpVersion::Http2 {
            parts = Some(over_http2::request(request, &self.forwarded));
        } else {
            head = worker.spares.take();
            write_request(request, &self.forwarded, &mut head);
        }
        Asked {
            head,
            parts,
            is_idempotent: request.is_idempotent(),
            kind: match request.upgrade {
                Some(_) => http::Asked::Upgrade,
                None if request.is_head() => http::Asked::Head,
                None => http::Asked::Plain,
            },
            is_chunked: request.body == Body::Chunked,
            wants_trailers: request.wants_trailers,
            fingerprint,
            wants_cookie: sticky.is_some_and(|known| known.is_none()),
            wanted,
            is_encrypted: self.is_encrypted(),
            begun,
            client: self.peer.client,
            local: self.peer.local,
            bench,
        }
    }

    fn key(&self, worker: &Worker, site: &Site, request: &Request<'_>) -> Option<u64> {
        let seed = worker.shared.memory.common_seed();
        let service = &site.service;
        if service.sticky == Some(Sticky::Source) {
            return Some(self.client);
        }
        match &service.balance {
            L7Balance::Hrw(HashKey::Source) => Some(self.client),
            L7Balance::Hrw(HashKey::Cookie(name)) => request
                .cookie(name)
                .map(|value| random::hash(seed, &[value])),
            L7Balance::Hrw(HashKey::Header(name)) => request
                .field(name)
                .map(|value| random::hash(seed, &[value])),
            _ => None,
        }
    }
}

fn too_much(site: &Site, request: &Request<'_>, head: usize) -> Option<Own> {
    let limits = site.limits();
    let is_large =
        matches!(request.body, Body::Length(length) if length > site.service.limits.body);
    if is_large {
        return Some(Own::new(413, "body too large"));
    }
    if head > limits.head {
        return Some(Own::new(431, "head too large"));
    }
    if request.path.len() > limits.target {
        return Some(Own::new(414, "target too long"));
    }
    None
}

/// The backend that a cookie names.
fn sticky(value: &[u8]) -> Option<u64> {
    let is_ours = value.len() == 16 && value.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(value).ok().filter(|_| is_ours)?;
    u64::from_str_radix(digits, 16).ok()
}
