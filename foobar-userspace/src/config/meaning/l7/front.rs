//! Towards clients: certificates, versions, tickets, ACME, the PROXY protocol.

use std::{path::Path, time::Duration};

use ipnet::IpNet;

use super::{duration, file, many, secret};
use crate::config::{
    Acme, AcmeChallenge, Certificate, ClientCertificateNeed, ClientCertificates, Hsts, HttpVersion,
    L7Service, Tickets, Tls, TlsVersion,
    diagnostics::{Problem, Problems},
    meaning::{hosts::Hosts, read as read_word},
    tree::Entry,
    words::{Period, Url, WrittenPeer},
};

/// Without a `tls` of its own, one without certificates: another service must have it.
pub(super) fn tls(service: Entry<'_>, folder: &Path, problems: &mut Problems) -> Tls {
    let Some(entry) = service.at("tls") else {
        return Tls {
            certificates: Vec::new(),
            min: TlsVersion::V12,
            alpn: ALPN.to_vec(),
            client: None,
            tickets: Tickets {
                keys: None,
                rotate: ROTATION,
                place: problems.place(service.span().start),
            },
            hsts: None,
            acme: None,
        };
    };
    let tls = Tls {
        certificates: certificates(entry, folder, problems),
        min: match entry.at("min").and_then(Entry::text) {
            Some("1.3") => TlsVersion::V13,
            _ => TlsVersion::V12,
        },
        alpn: alpn(entry, problems),
        client: client(entry, folder, problems),
        tickets: tickets(entry, folder, problems),
        hsts: entry.at("hsts").and_then(|hsts| strict(hsts, problems)),
        acme: entry
            .at("acme")
            .filter(|acme| acme.value().is_table())
            .map(|acme| self::acme(acme, folder, problems)),
    };
    if entry.value().is_table()
        && tls.certificates.is_empty()
        && tls.acme.is_none()
        && !problems.touch(&entry.extent())
    {
        problems.report(
            Problem::new(entry.span(), "this `tls` has no certificate").help(
                "add `cert = \"/etc/foobar/tls/www.pem\", key = { credential = \"www-key\" }`, or `acme = {}`",
            ),
        );
    }
    tls
}

fn certificates(entry: Entry<'_>, folder: &Path, problems: &mut Problems) -> Vec<Certificate> {
    if entry.at("cert").is_some() != entry.at("key").is_some() {
        let (there, missing) = match entry.at("cert") {
            Some(cert) => (cert, "key = { credential = \"www-key\" }"),
            None => (
                entry.at("key").unwrap_or(entry),
                "cert = \"/etc/foobar/tls/www.pem\"",
            ),
        };
        problems.report(
            Problem::new(there.span(), "a certificate and its key go together")
                .help(format!("add `{missing}`")),
        );
    }
    if let (Some(ocsp), None) = (entry.at("ocsp"), entry.at("cert")) {
        problems.report(
            Problem::new(
                ocsp.span(),
                "`ocsp` is of a certificate, and there is no `cert`",
            )
            .help("put it beside the `cert` that it speaks of"),
        );
    }
    std::iter::once(entry)
        .chain(many(entry, "certificates"))
        .filter_map(|entry| certificate(entry, folder, problems))
        .collect()
}

fn certificate(entry: Entry<'_>, folder: &Path, problems: &Problems) -> Option<Certificate> {
    Some(Certificate {
        cert: file(entry, "cert", folder)?,
        key: secret(entry, "key", folder)?,
        ocsp: file(entry, "ocsp", folder),
        place: problems.place(entry.at("cert")?.span().start),
    })
}

fn alpn(entry: Entry<'_>, problems: &mut Problems) -> Vec<HttpVersion> {
    let mut offered = Vec::new();
    for written in many(entry, "alpn") {
        let version = match written.text() {
            Some("h2") => HttpVersion::Http2,
            Some("http/1.1") => HttpVersion::Http1,
            _ => continue,
        };
        if offered.contains(&version) {
            problems.report(
                Problem::new(written.span(), "a protocol is offered twice").help("keep one"),
            );
            continue;
        }
        offered.push(version);
    }
    match entry.at("alpn") {
        Some(alpn) if alpn.value().is_array() && alpn.elements().is_empty() => {
            problems.report(
                Problem::new(alpn.span(), "`alpn` offers nothing")
                    .help("write `alpn = [\"h2\", \"http/1.1\"]`, or take it out"),
            );
        }
        None => return ALPN.to_vec(),
        Some(_) => {}
    }
    offered
}

fn client(entry: Entry<'_>, folder: &Path, problems: &mut Problems) -> Option<ClientCertificates> {
    let Some(written) = entry.at("client-ca") else {
        if let Some(auth) = entry.at("client-auth") {
            problems.report(
                Problem::new(
                    auth.span(),
                    "`client-auth` without `client-ca` trusts nobody",
                )
                .help("add `client-ca = \"/etc/foobar/tls/clients.pem\"`, or take it out"),
            );
        }
        return None;
    };
    Some(ClientCertificates {
        ca: file(entry, "client-ca", folder)?,
        need: match entry.at("client-auth").and_then(Entry::text) {
            Some("optional") => ClientCertificateNeed::Optional,
            _ => ClientCertificateNeed::Required,
        },
        place: problems.place(written.span().start),
    })
}

fn tickets(entry: Entry<'_>, folder: &Path, problems: &mut Problems) -> Tickets {
    let keys = file(entry, "ticket-keys", folder);
    if let (Some(rotation), Some(_)) = (entry.at("ticket-rotation"), entry.at("ticket-keys")) {
        problems.report(
            Problem::new(
                rotation.span(),
                "keys that are shared are rotated by whoever writes them",
            )
            .help("take `ticket-rotation` out; put a new file among the `ticket-keys` instead"),
        );
    }
    let place = entry.at("ticket-keys").unwrap_or(entry).span().start;
    let rotate = duration(entry, "ticket-rotation", ROTATION);
    if let Some(written) = entry.at("ticket-rotation")
        && !(Duration::from_secs(60)..=LONGEST_ROTATION).contains(&rotate)
        && !problems.touch(&written.span())
    {
        problems.report(
            Problem::new(written.span(), "`ticket-rotation` is out of range").help(
                "who has the key of a ticket can read what was said: write one from `1m` to `7d`",
            ),
        );
    }
    Tickets {
        keys,
        rotate,
        place: problems.place(place),
    }
}

fn strict(entry: Entry<'_>, problems: &mut Problems) -> Option<Hsts> {
    let Period(max_age) = read_word(entry, "max-age")?;
    let truth = |key| entry.at(key).and_then(Entry::truth) == Some(true);
    let hsts = Hsts {
        max_age,
        include_subdomains: truth("include-subdomains"),
        preload: truth("preload"),
    };
    if let Some(preload) = entry.at("preload")
        && hsts.preload
        && (!hsts.include_subdomains || max_age < A_YEAR)
    {
        problems.report(
            Problem::new(
                preload.span(),
                "browsers do not take this name into their list",
            )
            .help(
                "they want `max-age = \"365d\", include-subdomains = true` beside `preload = true`",
            ),
        );
    }
    Some(hsts)
}

fn acme(entry: Entry<'_>, folder: &Path, problems: &mut Problems) -> Acme {
    let mut contact = Vec::new();
    for written in many(entry, "contact") {
        let Some(address) = written.text() else {
            continue;
        };
        let address = address.strip_prefix("mailto:").unwrap_or(address);
        let plain = address.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && host.contains('.') && !address.contains([' ', ',', '<'])
        });
        if !plain {
            problems.report(
                Problem::new(written.span(), format!("`{address}` is not a mail address"))
                    .help("write it bare: `contact = \"admin@foobar.com\"`"),
            );
            continue;
        }
        contact.push(address.to_owned());
    }
    Acme {
        directory: read_word(entry, "directory")
            .map_or_else(|| LETS_ENCRYPT.to_owned(), |Url(url)| url),
        contact,
        ca: file(entry, "ca", folder),
        challenge: match entry.at("challenge").and_then(Entry::text) {
            Some("tls-alpn-01") => AcmeChallenge::TlsAlpn01,
            _ => AcmeChallenge::Http01,
        },
        renew_before: duration(entry, "renew-before", RENEWAL),
        place: problems.place(entry.span().start),
    }
}

/// What ACME and client certificates ask of the rest of the service.
pub(super) fn agreement(service: &L7Service, entry: Entry<'_>, problems: &mut Problems) {
    let Some(tls) = entry.at("tls") else { return };
    let Some(written) = tls.at("acme") else {
        return;
    };
    let Some(acme) = &service.tls.acme else {
        return;
    };
    if problems.touch(&entry.extent()) {
        return;
    }
    if service.hosts.is_empty() {
        problems.report(
            Problem::new(written.span(), "ACME needs to know for which names")
                .help("add `hosts = [\"www.foobar.com\"]` to the service"),
        );
    }
    if let Some(name) = service.hosts.iter().find(|name| name.starts_with("*.")) {
        problems.report(
            Problem::new(
                written.span(),
                format!("ACME proves `{name}` by the DNS only, which foobar does not write"),
            )
            .help("name each host, or give a wildcard certificate by `cert` and `key`"),
        );
    }
    if acme.challenge == AcmeChallenge::Http01 && service.redirect.is_empty() {
        problems.report(
            Problem::new(written.span(), "`http-01` is answered in plain HTTP, and nothing listens there")
                .help("add `http-redirect = \"public:80\"` to the service, or write `challenge = \"tls-alpn-01\"`"),
        );
    }
}

/// Sets change while running and can hold millions: only what the file itself says counts here.
pub(super) fn proxied_by(service: Entry<'_>, hosts: &Hosts, problems: &mut Problems) -> Vec<IpNet> {
    let Some(entry) = service.at("proxy-protocol") else {
        return Vec::new();
    };
    let mut nets = Vec::new();
    for written in many(entry, "from") {
        match written.read() {
            Some(WrittenPeer::Prefix(net)) => nets.push(net),
            Some(WrittenPeer::Host(name)) => {
                let addresses = hosts.get(&name).into_iter().flat_map(|host| {
                    host.private
                        .iter()
                        .chain(host.public.iter())
                        .map(IpNet::from)
                });
                nets.extend(addresses);
            }
            Some(WrittenPeer::Set(name)) => problems.report(
                Problem::new(
                    written.span(),
                    format!("`@{name}` changes while running; whom to believe must not"),
                )
                .help("name the hosts or prefixes themselves"),
            ),
            None => {}
        }
    }
    nets
}

const ALPN: [HttpVersion; 2] = [HttpVersion::Http2, HttpVersion::Http1];
const ROTATION: Duration = Duration::from_secs(12 * 3_600);
const LONGEST_ROTATION: Duration = Duration::from_secs(7 * 86_400);
const RENEWAL: Duration = Duration::from_secs(30 * 86_400);
const A_YEAR: Duration = Duration::from_secs(365 * 86_400);
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
