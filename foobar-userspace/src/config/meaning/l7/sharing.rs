//! What services must agree on where they share an endpoint, and what they may not share.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    ops::Range,
};

use crate::config::{
    L4Service, L7Service, Protocol,
    diagnostics::{Problem, Problems},
    tree::{Entry, Name},
};

type Written<'a> = (Name<'a>, Entry<'a>, L7Service);

/// Services without a `tls` of their own get that of the one whose names they share.
pub(super) fn settle(
    mut written: Vec<Written<'_>>,
    l4: &BTreeMap<String, L4Service>,
    problems: &mut Problems,
) -> Vec<L7Service> {
    lend_tls(&mut written, problems);
    taken(&written, l4, problems);
    for (index, (_, entry, service)) in written.iter().enumerate() {
        for other in &written[..index] {
            if problems.touch(&entry.extent()) || problems.touch(&other.1.extent()) {
                continue;
            }
            pair(service, *entry, other, problems);
        }
    }
    written.into_iter().map(|(_, _, service)| service).collect()
}

fn lend_tls(written: &mut [Written<'_>], problems: &mut Problems) {
    for borrower in 0..written.len() {
        let (name, entry, service) = &written[borrower];
        if entry.at("tls").is_some() || problems.touch(&entry.extent()) {
            continue;
        }
        let lends = |(_, entry, other): &&Written<'_>| {
            entry.at("tls").is_some()
                && other.on == service.on
                && service
                    .listen
                    .iter()
                    .all(|endpoint| other.listen.contains(endpoint))
                && service.hosts.iter().all(|name| other.hosts.contains(name))
                && service.hosts.is_empty() == other.hosts.is_empty()
        };
        match written.iter().find(lends) {
            Some((_, _, lender)) => {
                let tls = lender.tls.clone();
                written[borrower].2.tls = tls;
            }
            None => problems.report(
                Problem::new(name.span(), "`tls` is missing in an l7 service").help(
                    "add `tls = { cert = \"/etc/foobar/tls/www.pem\", key = { credential = \"www-key\" } }`; only a service that shares endpoints and hosts with another may leave it out",
                ),
            ),
        }
    }
}

/// An endpoint is XDP's, a listener's for TLS, or one for redirects.
fn taken(written: &[Written<'_>], l4: &BTreeMap<String, L4Service>, problems: &mut Problems) {
    let mut uses: HashMap<SocketAddr, (Use, Range<usize>)> = HashMap::new();
    for (_, entry, service) in written {
        let endpoints = service
            .listen
            .iter()
            .map(|endpoint| (endpoint, Use::Tls, "listen"))
            .chain(
                service
                    .redirect
                    .iter()
                    .map(|endpoint| (endpoint, Use::Redirect, "http-redirect")),
            );
        for (endpoint, purpose, key) in endpoints {
            let span = entry.at(key).map_or(entry.span(), Entry::span);
            if let Some((other, first)) = uses.get(endpoint) {
                if *other != purpose && !problems.touch(&span) {
                    problems.report(
                        Problem::new(span, format!("`{endpoint}` cannot be for TLS and for redirects"))
                            .related(first.clone(), "here already")
                            .help("plain HTTP is redirected on another port: write `http-redirect = \"public:80\"`"),
                    );
                }
                continue;
            }
            uses.insert(*endpoint, (purpose, span.clone()));
            let balanced = l4.values().find(|balanced| {
                balanced.protocol == Protocol::Tcp && balanced.vips.contains(endpoint)
            });
            if let Some(balanced) = balanced {
                problems.report(
                    Problem::new(
                        span,
                        format!("`{endpoint}` is a vip of `l4.{}`", balanced.name),
                    )
                    .help("XDP takes its packets before the proxy could see them: give one of the two another port"),
                );
            }
        }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Use {
    Redirect,
    Tls,
}

fn pair(service: &L7Service, entry: Entry<'_>, other: &Written<'_>, problems: &mut Problems) {
    let (_, other_entry, other) = other;
    let shared = service
        .listen
        .iter()
        .find(|endpoint| other.listen.contains(endpoint));
    let Some(endpoint) = shared else { return };
    let span = |entry: Entry<'_>, key| entry.at(key).map_or(entry.span(), Entry::span);
    if service.proxy_protocol_from != other.proxy_protocol_from {
        problems.report(
            Problem::new(
                span(entry, "proxy-protocol"),
                format!(
                    "`l7.{}` and `l7.{}` believe different senders on `{endpoint}`",
                    other.name, service.name
                ),
            )
            .related(span(*other_entry, "proxy-protocol"), "the other")
            .help("the PROXY protocol comes before any name: write the same `from` in both"),
        );
    }
    let Some(name) = common_name(service, other) else {
        return;
    };
    if !same_tls(service, other) {
        problems.report(
            Problem::new(
                span(entry, "tls"),
                format!("{name} has another `tls` in `l7.{}`", other.name),
            )
            .related(span(*other_entry, "tls"), "the other")
            .help("the handshake comes before any path: leave `tls` out in one of the two"),
        );
    }
    if let Some(path) = service.paths.iter().find(|path| other.paths.contains(path)) {
        let key = if service.hosts.is_empty() {
            "listen"
        } else {
            "hosts"
        };
        problems.report(
            Problem::new(
                span(entry, key),
                format!(
                    "`l7.{}` answers for {name} and `{path}` already",
                    other.name
                ),
            )
            .related(span(*other_entry, key), "there")
            .help("give one of the two other `hosts`, other `paths` or another endpoint"),
        );
    }
}

fn common_name(service: &L7Service, other: &L7Service) -> Option<String> {
    if service.hosts.is_empty() && other.hosts.is_empty() {
        return Some("every other name".to_owned());
    }
    service
        .hosts
        .iter()
        .find(|name| other.hosts.contains(name))
        .map(|name| format!("`{name}`"))
}

fn same_tls(service: &L7Service, other: &L7Service) -> bool {
    service.clone().placeless().tls == other.clone().placeless().tls
}
