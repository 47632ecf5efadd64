//! `[l7]` and `[proxy]`: the sites, and what they must agree on where they share an endpoint.

mod behind;
mod bounds;
mod front;
mod sharing;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{check, endpoints, hosts::Hosts, many, read as read_word, section, text, whole};
use crate::config::{
    Backend, Host, L4Service, L7Service, Proxy, RequestRate, Secret,
    diagnostics::{Problem, Problems},
    tree::{Entry, Name},
    words::{DnsName, FilePath, Period, Rate, UrlPath},
};

pub(super) fn read(
    root: Entry<'_>,
    path: &Path,
    hosts: &Hosts,
    l4: &BTreeMap<String, L4Service>,
    problems: &mut Problems,
) -> BTreeMap<String, L7Service> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut written = Vec::new();
    for (name, entry) in section(root, "l7") {
        if let Some(service) = service(root, name, entry, folder, hosts, problems) {
            written.push((name, entry, service));
        }
    }
    let services = sharing::settle(written, l4, problems);
    services
        .into_iter()
        .map(|service| (service.name.clone(), service))
        .collect()
}

/// What the proxies of all nodes share.
pub(super) fn proxy(root: Entry<'_>) -> Proxy {
    let default = Proxy::default();
    let Some(entry) = root.at("proxy") else {
        return default;
    };
    let count = |key, default| whole(entry, key).unwrap_or(default);
    Proxy {
        workers: whole(entry, "workers").and_then(NonZeroU16::new),
        max_connections: count("max-connections", default.max_connections),
        max_connections_per_client: count(
            "max-connections-per-client",
            default.max_connections_per_client,
        ),
        max_handshakes: count("max-handshakes", default.max_handshakes),
        handshakes_per_client: rate(entry, "handshakes-per-client", "handshakes-burst")
            .unwrap_or(default.handshakes_per_client),
        drain: duration(entry, "drain", default.drain),
    }
}

fn service(
    root: Entry<'_>,
    name: Name<'_>,
    entry: Entry<'_>,
    folder: &Path,
    hosts: &Hosts,
    problems: &mut Problems,
) -> Option<L7Service> {
    let on = text(entry, "on")?;
    let balancer = hosts.get(&on).filter(|_| !hosts.doubtful(&on));
    let backend_tls = entry
        .at("backend-tls")
        .and_then(|tls| behind::tls(tls, folder, problems));
    let proxy_protocol_to = behind::proxy_protocol(entry);
    let service = L7Service {
        name: name.text.to_owned(),
        listen: listens(entry, "listen", balancer, problems),
        redirect: listens(entry, "http-redirect", balancer, problems),
        hosts: names(entry, problems),
        paths: paths(entry, problems),
        tls: front::tls(entry, folder, problems),
        backends: backends(name, entry, hosts, problems),
        backend_protocol: behind::protocol(entry),
        proxy_protocol_from: front::proxied_by(entry, hosts, problems),
        proxy_protocol_to,
        check: entry.at("check").and_then(|written| {
            check::read_l7(written, backend_tls.is_some(), proxy_protocol_to, problems)
        }),
        balance: behind::balance(entry, problems),
        sticky: behind::sticky(entry, problems),
        shuffle: behind::shuffle(entry, problems),
        slow_start: read_word(entry, "slow-start").map(|Period(start)| start),
        panic_percent: whole(entry, "panic").unwrap_or(34),
        ejection: behind::ejection(entry),
        retries: behind::retries(entry),
        breaker: behind::breaker(entry),
        queue: behind::queue(entry),
        blast_radius: behind::blast_radius(entry, problems),
        limits: bounds::limits(entry, problems),
        timeouts: bounds::timeouts(entry, problems),
        pages: bounds::pages(entry, folder, problems),
        maintenance: entry.at("maintenance").and_then(Entry::truth) == Some(true),
        jail: bounds::jail(root, entry, problems),
        place: problems.place(name.span().start),
        backend_tls,
        on,
    };
    front::agreement(&service, entry, problems);
    Some(service)
}

fn listens(
    entry: Entry<'_>,
    key: &str,
    balancer: Option<&Host>,
    problems: &mut Problems,
) -> Vec<SocketAddr> {
    let written = many(entry, key);
    if let Some(listen) = entry.at(key)
        && written.is_empty()
        && key == "listen"
    {
        problems.report(
            Problem::new(
                listen.span(),
                "a service that listens nowhere cannot be reached",
            )
            .help("write `listen = [\"public:443\"]`"),
        );
    }
    let Some(balancer) = balancer else {
        return Vec::new();
    };
    let mut endpoints = Vec::new();
    for written in written {
        for endpoint in endpoints::resolve(written, balancer, problems) {
            if endpoints.contains(&endpoint) {
                if !problems.touch(&written.span()) {
                    problems.report(
                        Problem::new(written.span(), format!("`{endpoint}` is named twice"))
                            .help("keep one"),
                    );
                }
                continue;
            }
            endpoints.push(endpoint);
        }
    }
    endpoints
}

fn names(entry: Entry<'_>, problems: &mut Problems) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for written in many(entry, "hosts") {
        let Some(DnsName(name)) = written.read() else {
            continue;
        };
        let name = name.to_ascii_lowercase();
        if names.contains(&name) {
            problems.report(
                Problem::new(written.span(), format!("`{name}` is named twice")).help("keep one"),
            );
            continue;
        }
        names.push(name);
    }
    names
}

fn paths(entry: Entry<'_>, problems: &mut Problems) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for written in many(entry, "paths") {
        let Some(UrlPath(path)) = written.read() else {
            continue;
        };
        if path.contains(['?', '#', '*']) {
            problems.report(
                Problem::new(written.span(), format!("`{path}` is more than a path"))
                    .help("a prefix is meant, with all below it: write `/api` for `/api`, `/api/` and `/api/users`"),
            );
        }
        let path = match path.trim_end_matches('/') {
            "" => "/".to_owned(),
            path => path.to_owned(),
        };
        if paths.contains(&path) {
            problems.report(
                Problem::new(written.span(), format!("`{path}` is named twice")).help("keep one"),
            );
            continue;
        }
        paths.push(path);
    }
    if paths.is_empty() {
        paths.push("/".to_owned());
    }
    paths
}

fn backends(
    name: Name<'_>,
    service: Entry<'_>,
    hosts: &Hosts,
    problems: &mut Problems,
) -> Vec<Backend> {
    let written = many(service, "backends");
    if let Some(backends) = service.at("backends")
        && written.is_empty()
    {
        problems.report(
            Problem::new(
                backends.span(),
                format!("service `l7.{}` has no backend", name.text),
            )
            .help("write `backends = [{ host = \"web1\", port = 8443 }]`"),
        );
    }
    let mut backends: Vec<Backend> = Vec::new();
    for entry in written {
        let Some(backend) = behind::backend(entry, hosts, problems) else {
            continue;
        };
        let same = |other: &&Backend| other.host == backend.host && other.port == backend.port;
        if backends.iter().any(|other| same(&other)) {
            problems.report(
                Problem::new(
                    entry.span(),
                    format!(
                        "backend `{}:{}` stands twice in this service",
                        backend.host, backend.port
                    ),
                )
                .help("keep one; `weight` makes its share larger"),
            );
            continue;
        }
        behind::fits_a_label(name.text, &backend, entry, problems);
        backends.push(backend);
    }
    backends
}

/// A relative path begins where the configuration stands.
fn file(entry: Entry<'_>, key: &str, folder: &Path) -> Option<PathBuf> {
    read_word(entry, key).map(|FilePath(file)| folder.join(file))
}

fn secret(entry: Entry<'_>, key: &str, folder: &Path) -> Option<Secret> {
    super::secret::read(entry, key).map(|secret| match secret {
        Secret::File(path) => Secret::File(folder.join(path)),
        other => other,
    })
}

fn duration(entry: Entry<'_>, key: &str, default: Duration) -> Duration {
    read_word(entry, key).map_or(default, |Period(duration)| duration)
}

fn rate(entry: Entry<'_>, rate: &str, burst: &str) -> Option<RequestRate> {
    let Rate { packets, period } = read_word(entry, rate)?;
    Some(RequestRate {
        requests: packets,
        period,
        burst: whole(entry, burst).unwrap_or(packets.saturating_mul(2)),
    })
}
