//! The sites as workers see them: one immutable table from configuration, health and certificates, swapped whole.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use rustls::pki_types::ServerName;

use crate::{balancer::Availability, config::L7Service, http::Limits};

/// All sites of a node.
#[derive(Debug, Default)]
pub struct Sites {
    /// Grows with every change of configuration, health or an operator's wish.
    pub generation: u64,
    sites: Vec<Arc<Site>>,
    entrances: HashMap<SocketAddr, Entrance>,
    redirects: HashMap<SocketAddr, Entrance>,
    /// What to answer under `/.well-known/acme-challenge/`: token to key authorisation.
    pub challenges: HashMap<String, String>,
}

/// A site and the present state of its backends.
#[derive(Debug)]
pub struct Site {
    pub service: L7Service,
    pub name: Arc<str>,
    /// The dense id of its counters.
    pub id: u32,
    /// In the order of the configuration.
    pub backends: Vec<SiteBackend>,
    /// HTML by status.
    pub pages: BTreeMap<u16, Bytes>,
    pub maintenance_page: Option<Bytes>,
}

/// A backend of a site.
#[derive(Clone, Debug)]
pub struct SiteBackend {
    /// `web1:8443`
    pub name: Arc<str>,
    /// The dense id of its counters.
    pub id: u32,
    pub address: SocketAddr,
    /// After what the operator wished.
    pub weight: u16,
    pub availability: Availability,
    /// Since when it is up, if it was down before: slow start counts from here.
    pub since: Option<Instant>,
    pub tls: Option<BackendTls>,
}

/// How a backend is spoken to in secret.
#[derive(Clone)]
pub struct BackendTls {
    pub config: Arc<rustls::ClientConfig>,
    pub name: ServerName<'static>,
}

impl std::fmt::Debug for BackendTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("BackendTls")
            .field(&self.name)
            .finish()
    }
}

/// Which site answers, of those that listen at one address.
#[derive(Debug, Default)]
struct Entrance {
    /// Names in lower case.
    exact: HashMap<Vec<u8>, Paths>,
    /// `foobar.com` for `*.foobar.com`.
    one_label: HashMap<Vec<u8>, Paths>,
    others: Paths,
}

/// Prefixes of whole segments, the longest first, and the index of the site.
type Paths = Vec<(Vec<u8>, usize)>;

/// Why no site answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Nobody {
    /// No site has this name here: 421.
    Host,
    /// Nor this path: 404.
    Path,
}

impl Sites {
    #[must_use]
    pub fn new(generation: u64, sites: Vec<Site>, challenges: HashMap<String, String>) -> Self {
        let sites: Vec<_> = sites.into_iter().map(Arc::new).collect();
        let mut entrances: HashMap<SocketAddr, Entrance> = HashMap::new();
        let mut redirects: HashMap<SocketAddr, Entrance> = HashMap::new();
        for (index, site) in sites.iter().enumerate() {
            for address in &site.service.listen {
                entrances
                    .entry(*address)
                    .or_default()
                    .add(&site.service, index);
            }
            for address in &site.service.redirect {
                redirects
                    .entry(*address)
                    .or_default()
                    .add(&site.service, index);
            }
        }
        let all = entrances.values_mut().chain(redirects.values_mut());
        all.for_each(Entrance::sort);
        Self {
            generation,
            sites,
            entrances,
            redirects,
            challenges,
        }
    }

    #[must_use]
    pub fn all(&self) -> &[Arc<Site>] {
        &self.sites
    }

    /// The index of the site that answers at `local` for a host and path.
    pub(super) fn find(
        &self,
        local: SocketAddr,
        host: &[u8],
        path: &[u8],
    ) -> Result<usize, Nobody> {
        self.entrances
            .get(&local)
            .ok_or(Nobody::Host)?
            .find(host, path)
    }

    /// Of a name that is redirected to HTTPS at `local`: the site's id, and the port where it listens.
    pub(super) fn redirect(
        &self,
        local: SocketAddr,
        host: &[u8],
        path: &[u8],
    ) -> Option<(u32, u16)> {
        let index = self.redirects.get(&local)?.find(host, path).ok()?;
        let site = self.sites.get(index)?;
        let same_family = site
            .service
            .listen
            .iter()
            .find(|listen| listen.is_ipv4() == local.is_ipv4());
        let listen = same_family.or(site.service.listen.first())?;
        Some((site.id, listen.port()))
    }
}

impl Site {
    pub(super) fn limits(&self) -> Limits {
        let limits = &self.service.limits;
        Limits {
            head: usize::try_from(limits.head).unwrap_or(usize::MAX),
            fields: usize::from(limits.headers),
            target: usize::try_from(limits.uri).unwrap_or(usize::MAX),
        }
    }
}

impl Entrance {
    fn add(&mut self, service: &L7Service, index: usize) {
        let paths = service.paths.iter().map(|path| {
            let prefix = path.strip_suffix('/').unwrap_or(path);
            (prefix.as_bytes().to_vec(), index)
        });
        if service.hosts.is_empty() {
            self.others.extend(paths.clone());
        }
        for host in &service.hosts {
            let known = match host.strip_prefix("*.") {
                Some(rest) => self.one_label.entry(rest.as_bytes().to_vec()),
                None => self.exact.entry(host.as_bytes().to_vec()),
            };
            known.or_default().extend(paths.clone());
        }
    }

    fn sort(&mut self) {
        let known = self.exact.values_mut().chain(self.one_label.values_mut());
        for paths in known.chain([&mut self.others]) {
            paths.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
    }

    /// The more exact name goes before the longer path.
    fn find(&self, host: &[u8], path: &[u8]) -> Result<usize, Nobody> {
        let mut lower = [0; 256];
        let lower = lower.get_mut(..host.len()).ok_or(Nobody::Host)?;
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        let parent = memchr::memchr(b'.', lower).map(|dot| &lower[dot + 1..]);
        let paths = self
            .exact
            .get(&*lower)
            .or_else(|| self.one_label.get(parent?))
            .or((!self.others.is_empty()).then_some(&self.others))
            .ok_or(Nobody::Host)?;
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        paths
            .iter()
            .find(|(prefix, _)| {
                path.strip_prefix(prefix.as_slice()).is_some_and(|rest| {
                    rest.is_empty() || rest.first() == Some(&b'/') || path == b"*"
                })
            })
            .map(|(_, index)| *index)
            .ok_or(Nobody::Path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    fn sites() -> Sites {
        let service = |name: &str, hosts: &[&str], paths: &[&str]| {
            let mut service = samples::service(name, "192.0.2.1:443");
            service.hosts = hosts.iter().map(ToString::to_string).collect();
            service.paths = paths.iter().map(ToString::to_string).collect();
            service
        };
        samples::sites(vec![
            service("www", &["www.foobar.com"], &["/"]),
            service("api", &["www.foobar.com"], &["/api/", "/rpc"]),
            service("star", &["*.foobar.com"], &["/"]),
            service("rest", &[], &["/only"]),
        ])
    }

    #[track_caller]
    fn answers(host: &str, path: &str, expected: Result<&str, Nobody>) {
        let sites = sites();
        let found = sites
            .find(
                "192.0.2.1:443".parse().unwrap(),
                host.as_bytes(),
                path.as_bytes(),
            )
            .map(|index| &*sites.all()[index].name);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_name_and_then_the_longest_path_choose_the_site() {
        answers("www.foobar.com", "/", Ok("www"));
        answers("WWW.Foobar.COM", "/apis", Ok("www"));
        answers("www.foobar.com", "/api", Ok("api"));
        answers("www.foobar.com", "/api/x?y", Ok("api"));
        answers("www.foobar.com", "/rpc?x", Ok("api"));
        answers("img.foobar.com", "/rpc", Ok("star"));
        answers("a.img.foobar.com", "/only/x", Ok("rest"));
        answers("elsewhere.org", "/", Err(Nobody::Path));
    }

    #[test]
    fn a_connection_elsewhere_reaches_no_site() {
        let elsewhere = "192.0.2.1:444".parse().unwrap();
        let found = sites().find(elsewhere, b"www.foobar.com", b"/");
        assert_eq!(found, Err(Nobody::Host));
    }
}
