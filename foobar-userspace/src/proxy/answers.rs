//! Answers that the proxy makes itself: its pages, and what they say to machines.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::Site;
use crate::http::Refusal;

/// An answer of the proxy's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Own {
    pub(super) status: u16,
    /// For the access log.
    pub(super) remark: &'static str,
    pub(super) retry_after: Option<Duration>,
    page: Option<Bytes>,
}

impl Own {
    pub(super) fn new(status: u16, remark: &'static str) -> Self {
        Self {
            status,
            remark,
            retry_after: None,
            page: None,
        }
    }

    pub(super) fn refusal(refusal: Refusal) -> Self {
        Self::new(refusal.status(), "refused")
    }

    pub(super) fn after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    pub(super) fn maintenance(site: &Site) -> Self {
        let mut own = Self::new(503, "maintenance").after(Duration::from_secs(60));
        own.page.clone_from(&site.maintenance_page);
        own
    }

    /// The body and its type: the site's page for the status, else a line of text.
    pub(super) fn body(&self, site: Option<&Arc<Site>>) -> (Bytes, &'static str) {
        let page = self
            .page
            .clone()
            .or_else(|| site.and_then(|site| site.pages.get(&self.status).cloned()));
        page.map_or_else(
            || {
                let text = format!("{} {}\n", self.status, reason(self.status));
                (Bytes::from(text), "text/plain; charset=utf-8")
            },
            |page| (page, "text/html; charset=utf-8"),
        )
    }

    /// A whole HTTP/1.1 answer; the connection ends after it unless it is kept alive.
    pub(super) fn write(
        &self,
        site: Option<&Arc<Site>>,
        extra: &Extra<'_>,
        manner: Manner,
        out: &mut Vec<u8>,
    ) {
        let (body, kind) = self.body(site);
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncache-control: no-store\r\n",
            self.status,
            reason(self.status),
            body.len(),
        );
        out.extend_from_slice(head.as_bytes());
        if let Some(seconds) = self.retry_seconds() {
            out.extend_from_slice(format!("retry-after: {seconds}\r\n").as_bytes());
        }
        if !manner.keeps_alive {
            out.extend_from_slice(b"connection: close\r\n");
        }
        extra.write(out);
        out.extend_from_slice(b"\r\n");
        if !manner.is_head {
            out.extend_from_slice(&body);
        }
    }

    pub(super) fn retry_seconds(&self) -> Option<u64> {
        let time = self.retry_after?;
        Some(time.as_secs().max(1))
    }
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) keeps_alive: bool,
    pub(super) is_head: bool,
}

/// What the proxy adds to a site's answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extra<'a> {
    /// `Strict-Transport-Security`, where the connection is encrypted.
    pub(super) hsts: Option<&'a str>,
    /// `Set-Cookie`, for who shall come back to the same backend.
    pub(super) cookie: Option<&'a str>,
}

impl Extra<'_> {
    pub(super) const NONE: Self = Extra {
        hsts: None,
        cookie: None,
    };

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let hsts = self.hsts.map(|value| ("strict-transport-security", value));
        let cookie = self.cookie.map(|value| ("set-cookie", value));
        hsts.into_iter().chain(cookie)
    }

    /// As whole lines.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.pairs() {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The value of `Strict-Transport-Security` of a site.
pub(super) fn hsts(site: &Site) -> Option<String> {
    let hsts = site.service.tls.hsts?;
    let mut value = format!("max-age={}", hsts.max_age.as_secs());
    if hsts.include_subdomains {
        value += "; includeSubDomains";
    }
    if hsts.preload {
        value += "; preload";
    }
    Some(value)
}

pub(super) const fn reason(status: u16) -> &'static str {
    match status {
        308 => "Permanent Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "OK",
    }
}
