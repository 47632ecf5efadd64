//! `[proxy]` and `[l7.*]` in effect.

use std::{fmt::Display, net::SocketAddr};

use super::{Keys, backend, check, key, quoted};
use crate::config::{
    Acme, AcmeChallenge, BackendTls, ClientCertificateNeed, Config, HttpLimits, HttpVersion,
    L7Balance, L7Service, ProxyProtocol, RequestRate, Sticky, Timeouts, Tls, TlsVersion,
    words::{Rate, Size},
};

pub(super) fn proxy(config: &Config) -> Vec<(String, String)> {
    let proxy = &config.proxy;
    let mut lines = Lines::default();
    if let Some(workers) = proxy.workers {
        lines.add("workers", workers);
    }
    lines.add("max-connections", proxy.max_connections);
    lines.add(
        "max-connections-per-client",
        proxy.max_connections_per_client,
    );
    lines.add("max-handshakes", proxy.max_handshakes);
    lines.add(
        "handshakes-per-client",
        quoted(&rate(proxy.handshakes_per_client)),
    );
    lines.add("handshakes-burst", proxy.handshakes_per_client.burst);
    lines.text("drain", humantime::format_duration(proxy.drain));
    lines.0
}

pub(super) fn service(service: &L7Service) -> String {
    let mut lines = Lines::default();
    lines.text("on", &service.on);
    lines.list("listen", service.listen.iter().map(SocketAddr::to_string));
    lines.list(
        "http-redirect",
        service.redirect.iter().map(SocketAddr::to_string),
    );
    lines.list("hosts", service.hosts.iter().cloned());
    lines.list("paths", service.paths.iter().cloned());
    lines.add("tls", tls(&service.tls));
    let backends: String = service
        .backends
        .iter()
        .map(|each| format!("  {},\n", backend(each)))
        .collect();
    lines.add("backends", format!("[\n{backends}]"));
    if let Some(tls) = &service.backend_tls {
        lines.add("backend-tls", backend_tls(tls));
    }
    lines.text("backend-protocol", http(service.backend_protocol));
    proxy_protocol(&mut lines, service);
    if let Some(written) = &service.check {
        lines.add("check", check(written));
    }
    balance(&mut lines, service);
    behind(&mut lines, service);
    lines.add("limits", limits(&service.limits));
    lines.add("timeouts", timeouts(&service.timeouts));
    pages(&mut lines, service);
    if let Some(jail) = &service.jail {
        lines.text("jail", &jail.set);
        lines.add("jail-after", jail.after);
        lines.text("jail-within", humantime::format_duration(jail.within));
    }
    let lines: String = lines
        .0
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    format!("\n[l7.{}]\n{lines}", key(&service.name))
}

fn tls(tls: &Tls) -> String {
    let mut keys = Keys::default();
    if !tls.certificates.is_empty() {
        let certificates: Vec<_> = tls
            .certificates
            .iter()
            .map(|certificate| {
                let mut keys = Keys::default();
                keys.text("cert", &certificate.cert.to_string_lossy());
                keys.add("key", super::secret(&certificate.key));
                if let Some(ocsp) = &certificate.ocsp {
                    keys.text("ocsp", &ocsp.to_string_lossy());
                }
                keys.table()
            })
            .collect();
        keys.add("certificates", format!("[{}]", certificates.join(", ")));
    }
    keys.text(
        "min",
        match tls.min {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
        },
    );
    keys.list(
        "alpn",
        tls.alpn.iter().map(|version| http(*version).to_owned()),
    );
    if let Some(client) = &tls.client {
        keys.text("client-ca", &client.ca.to_string_lossy());
        keys.text(
            "client-auth",
            match client.need {
                ClientCertificateNeed::Optional => "optional",
                ClientCertificateNeed::Required => "required",
            },
        );
    }
    match &tls.tickets.keys {
        Some(path) => keys.text("ticket-keys", &path.to_string_lossy()),
        None => keys.duration("ticket-rotation", tls.tickets.rotate),
    }
    if let Some(hsts) = &tls.hsts {
        let mut inner = Keys::default();
        inner.duration("max-age", hsts.max_age);
        inner.add("include-subdomains", hsts.include_subdomains);
        inner.add("preload", hsts.preload);
        keys.add("hsts", inner.table());
    }
    if let Some(written) = &tls.acme {
        keys.add("acme", acme(written));
    }
    keys.table()
}

fn acme(acme: &Acme) -> String {
    let mut keys = Keys::default();
    keys.text("directory", &acme.directory);
    if !acme.contact.is_empty() {
        keys.list("contact", acme.contact.iter().cloned());
    }
    if let Some(ca) = &acme.ca {
        keys.text("ca", &ca.to_string_lossy());
    }
    keys.text(
        "challenge",
        match acme.challenge {
            AcmeChallenge::Http01 => "http-01",
            AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
        },
    );
    keys.duration("renew-before", acme.renew_before);
    keys.table()
}

fn backend_tls(tls: &BackendTls) -> String {
    let mut keys = Keys::default();
    keys.text("ca", &tls.ca.to_string_lossy());
    if let Some((cert, key)) = &tls.identity {
        keys.text("cert", &cert.to_string_lossy());
        keys.add("key", super::secret(key));
    }
    keys.optional("name", tls.name.as_deref());
    keys.table()
}

fn proxy_protocol(lines: &mut Lines, service: &L7Service) {
    let mut keys = Keys::default();
    if !service.proxy_protocol_from.is_empty() {
        keys.list(
            "from",
            service.proxy_protocol_from.iter().map(super::element),
        );
    }
    match service.proxy_protocol_to {
        Some(ProxyProtocol::V1) => keys.text("to-backends", "v1"),
        Some(ProxyProtocol::V2) => keys.text("to-backends", "v2"),
        None => {}
    }
    if !keys.0.is_empty() {
        lines.add("proxy-protocol", keys.table());
    }
}

fn balance(lines: &mut Lines, service: &L7Service) {
    match &service.balance {
        L7Balance::PowerOfTwo => lines.text("balance", "p2c"),
        L7Balance::LeastConnections => lines.text("balance", "least-connections"),
        L7Balance::RoundRobin => lines.text("balance", "round-robin"),
        L7Balance::Hrw(hash) => {
            lines.text("balance", "hrw");
            lines.text("hash", hash);
        }
    }
    match service.sticky {
        Some(Sticky::Cookie) => lines.text("sticky", "cookie"),
        Some(Sticky::Source) => lines.text("sticky", "source"),
        None => {}
    }
    if let Some(shuffle) = service.shuffle {
        lines.add("shuffle", shuffle);
    }
    if let Some(start) = service.slow_start {
        lines.text("slow-start", humantime::format_duration(start));
    }
    lines.add("panic", service.panic_percent);
}

fn behind(lines: &mut Lines, service: &L7Service) {
    let mut keys = Keys::default();
    match &service.ejection {
        Some(ejection) => {
            keys.add("failures", ejection.failures);
            keys.add("percent", ejection.percent);
            keys.add("requests", ejection.requests);
            keys.duration("window", ejection.window);
            keys.duration("for", ejection.lasts);
            keys.add("at-most", ejection.at_most_percent);
        }
        None => keys.add("at-most", 0),
    }
    lines.add("ejection", keys.table());
    let mut keys = Keys::default();
    keys.add("most", service.retries.most);
    keys.add("budget", service.retries.budget_percent);
    keys.add("least", service.retries.least_per_second);
    keys.list("on", service.retries.on.iter().map(ToString::to_string));
    lines.add("retries", keys.table());
    let mut keys = Keys::default();
    keys.add("connections", service.breaker.connections);
    keys.add("requests", service.breaker.requests);
    lines.add("breaker", keys.table());
    let mut keys = Keys::default();
    keys.add("length", service.queue.length);
    keys.duration("wait", service.queue.wait);
    keys.duration("retry-after", service.queue.retry_after);
    lines.add("queue", keys.table());
    let mut keys = Keys::default();
    keys.add("after", service.blast_radius.after);
    match service.blast_radius.hold {
        Some(hold) => keys.duration("hold", hold),
        None => keys.add("off", true),
    }
    lines.add("blast-radius", keys.table());
}

fn limits(limits: &HttpLimits) -> String {
    let mut keys = Keys::default();
    keys.text("head", &Size(limits.head).to_string());
    keys.add("headers", limits.headers);
    keys.text("uri", &Size(limits.uri).to_string());
    keys.text("body", &Size(limits.body).to_string());
    if let Some(written) = limits.per_client {
        keys.text("per-client", &rate(written));
        keys.add("burst", written.burst);
    }
    keys.add("requests-per-connection", limits.requests_per_connection);
    keys.add("h2-streams", limits.h2.streams);
    keys.add("h2-resets", limits.h2.resets);
    keys.add("h2-control-frames", limits.h2.control_frames);
    keys.duration("h2-window", limits.h2.window);
    keys.table()
}

fn timeouts(timeouts: &Timeouts) -> String {
    let mut keys = Keys::default();
    for (key, value) in [
        ("handshake", timeouts.handshake),
        ("head", timeouts.head),
        ("body", timeouts.body),
        ("write", timeouts.write),
        ("idle", timeouts.idle),
        ("connect", timeouts.connect),
        ("attempt", timeouts.attempt),
        ("request", timeouts.request),
        ("answer", timeouts.answer),
        ("backend-idle", timeouts.backend_idle),
        ("tunnel", timeouts.tunnel),
    ] {
        keys.duration(key, value);
    }
    keys.table()
}

fn pages(lines: &mut Lines, service: &L7Service) {
    let mut keys = Keys::default();
    for (status, path) in &service.pages.errors {
        keys.text(&status.to_string(), &path.to_string_lossy());
    }
    if let Some(path) = &service.pages.maintenance {
        keys.text("maintenance", &path.to_string_lossy());
    }
    if !keys.0.is_empty() {
        lines.add("pages", keys.table());
    }
    lines.add("maintenance", service.maintenance);
}

fn http(version: HttpVersion) -> &'static str {
    match version {
        HttpVersion::Http1 => "http/1.1",
        HttpVersion::Http2 => "h2",
    }
}

fn rate(rate: RequestRate) -> String {
    Rate {
        packets: rate.requests,
        period: rate.period,
    }
    .to_string()
}

/// The lines of a section.
#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Lines {
    fn add(&mut self, key: &str, value: impl Display) {
        self.0.push((key.to_owned(), value.to_string()));
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.add(key, quoted(&value.to_string()));
    }

    fn list(&mut self, key: &str, values: impl Iterator<Item = String>) {
        let values: Vec<_> = values.map(|value| quoted(&value)).collect();
        if !values.is_empty() {
            self.add(key, format!("[{}]", values.join(", ")));
        }
    }
}
