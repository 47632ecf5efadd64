//! Where plain HTTP is sent to HTTPS, and ACME's challenges are answered.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    Peer, Worker,
    answers::{Extra, Manner, Own},
    sites::Sites,
    watch::Watch,
    worker::Seat,
};
use crate::{
    http::{End, Limits, Request, bare_host, end_of_head, parse_request},
    tally::SiteCell,
};

/// Answers one request and closes.
pub(super) async fn serve<S>(mut stream: S, peer: Peer, worker: Rc<Worker>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _seat = Seat::take(&worker);
    let watch = Watch::new(Instant::now() + PATIENCE);
    let _ = watch
        .bound(async {
            let mut bytes = Vec::new();
            if let Some(answer) = answer(&mut stream, &mut bytes, &peer, &worker).await {
                let _ = stream.write_all(&answer).await;
            }
            let _ = stream.shutdown().await;
            // What the client still sends must not turn our answer into a reset.
            while matches!(stream.read(&mut [0; 1024]).await, Ok(count) if count > 0) {}
        })
        .await;
}

/// None when the client ends before its request does.
async fn answer<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
    peer: &Peer,
    worker: &Worker,
) -> Option<Vec<u8>> {
    let mut from = 0;
    let end = loop {
        match end_of_head(bytes, from) {
            Ok(End::At(end)) => break end,
            Ok(End::Beyond(_)) if bytes.len() > LIMITS.head => {
                return Some(own(&Own::new(431, "head too large")));
            }
            Ok(End::Beyond(next)) => from = next,
            Err(refusal) => return Some(own(&Own::refusal(refusal))),
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    };
    let table = worker.table();
    let sites = &table.sites;
    let request = match parse_request(&bytes[..end], &LIMITS, false) {
        Ok(request) => request,
        Err(refusal) => return Some(own(&Own::refusal(refusal))),
    };
    if let Some(proof) = challenge(sites, &request) {
        return Some(text(proof));
    }
    let host = bare_host(request.host);
    let Some((site, port)) = sites.redirect(peer.local, host, request.path) else {
        return Some(own(&Own::new(404, "no such host")));
    };
    worker.shared.tally.add(site, SiteCell::Redirects, 1);
    Some(elsewhere(host, port, request.path))
}

fn challenge<'s>(sites: &'s Sites, request: &Request<'_>) -> Option<&'s str> {
    let token = request.path.strip_prefix(b"/.well-known/acme-challenge/")?;
    let token = str::from_utf8(token).ok()?;
    sites.challenges.get(token).map(String::as_str)
}

fn own(own: &Own) -> Vec<u8> {
    let mut out = Vec::new();
    let manner = Manner {
        keeps_alive: false,
        is_head: false,
    };
    own.write(None, &Extra::NONE, manner, &mut out);
    out
}

fn text(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// 308 keeps method and body, which 301 does not.
fn elsewhere(host: &[u8], port: u16, path: &[u8]) -> Vec<u8> {
    let mut out = b"HTTP/1.1 308 Permanent Redirect\r\nlocation: https://".to_vec();
    out.extend_from_slice(host);
    if port != 443 {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    if path == b"*" {
        out.push(b'/');
    } else {
        out.extend_from_slice(path);
    }
    out.extend_from_slice(b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    out
}

const LIMITS: Limits = Limits {
    head: 16 * 1024,
    fields: 100,
    target: 8 * 1024,
};
const PATIENCE: Duration = Duration::from_secs(10);
