//! What the workers go by, made of the plan, the material and the health of the backends.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;

use super::Proxying;
use crate::{
    config,
    controller::{
        chain,
        upstreams::{SitePlan, endpoint},
    },
    probe::Secrecy,
    proxy::{
        BackendTls, Site, SiteBackend, Sites,
        crew::Standing,
        tls::Identity,
        welcome::{Doorway, Purpose},
    },
};

impl Proxying {
    pub(super) fn standing(&self) -> Standing {
        let plan = self.upstreams.plan();
        let mut doorway = Doorway {
            fronts: self.material.fronts.clone(),
            challenges: self.proving_certificates(),
            ..Doorway::default()
        };
        for site in &plan.sites {
            let service = &site.service;
            doorway.ids.insert(service.name.clone(), site.id);
            for endpoint in &service.listen {
                if !service.proxy_protocol_from.is_empty() {
                    let from = service.proxy_protocol_from.clone();
                    doorway.proxied_by.insert(*endpoint, from);
                }
                if let Some(jail) = &service.jail {
                    let name = service.name.as_str().into();
                    doorway.jails.insert(*endpoint, (name, jail.clone()));
                }
            }
        }
        Standing {
            doorway: Arc::new(doorway),
            sites: Arc::new(self.sites()),
            endpoints: endpoints(plan),
        }
    }

    fn sites(&self) -> Sites {
        let sites = self.upstreams.plan().sites.iter().map(|site| {
            let service = &site.service;
            let texts = self.material.pages.get(&service.name);
            let bytes = |text: &Arc<[u8]>| Bytes::copy_from_slice(text);
            let backends = self
                .upstreams
                .standings(site)
                .into_iter()
                .zip(&service.backends)
                .map(|(standing, backend)| SiteBackend {
                    name: endpoint(backend),
                    id: standing.id,
                    address: standing.address,
                    weight: standing.weight,
                    availability: standing.availability,
                    since: standing.since,
                    tls: self.upstream(service, backend),
                });
            Site {
                name: service.name.as_str().into(),
                id: site.id,
                backends: backends.collect(),
                pages: texts
                    .map(|texts| {
                        let pages = texts.errors.iter();
                        pages.map(|(status, text)| (*status, bytes(text))).collect()
                    })
                    .unwrap_or_default(),
                maintenance_page: texts
                    .and_then(|texts| texts.maintenance.as_ref())
                    .map(bytes),
                service: service.clone(),
            }
        });
        let proofs = self.proofs.values().flatten();
        let challenges = proofs.map(|proof| (proof.token.clone(), proof.key_authorization.clone()));
        Sites::new(self.generation, sites.collect(), challenges.collect())
    }

    fn upstream(
        &self,
        service: &config::L7Service,
        backend: &config::Backend,
    ) -> Option<BackendTls> {
        let side = self.material.backends.get(&service.name)?;
        let upstream = side.of(&backend.host, backend.port)?;
        Some(BackendTls {
            config: upstream.config.clone(),
            name: upstream.name.clone(),
        })
    }

    pub(super) fn secrets(&self) -> HashMap<u32, Secrecy> {
        let sites = self.upstreams.plan().sites.iter();
        sites
            .flat_map(|site| {
                site.backends
                    .iter()
                    .zip(&site.service.backends)
                    .map(move |pair| (site, pair))
            })
            .filter_map(|(site, (id, backend))| {
                let tls = self.upstream(&site.service, backend)?;
                let secrecy = Secrecy {
                    config: tls.config,
                    name: tls.name,
                };
                Some((*id, secrecy))
            })
            .collect()
    }

    /// For who asks by `acme-tls/1`, by name.
    fn proving_certificates(&self) -> BTreeMap<String, Arc<rustls::ServerConfig>> {
        let proofs = self.proofs.values().flatten();
        proofs
            .filter(|proof| proof.challenge == config::AcmeChallenge::TlsAlpn01)
            .filter_map(
                |proof| match Identity::proving(&proof.name, &proof.digest) {
                    Ok(config) => Some((proof.name.clone(), Arc::new(config))),
                    Err(error) => {
                        tracing::warn!(name = proof.name, "cannot be proved: {}", chain(&error));
                        None
                    }
                },
            )
            .collect()
    }
}

pub(super) fn endpoints(plan: &SitePlan) -> BTreeMap<SocketAddr, Purpose> {
    let sites = plan.sites.iter();
    sites
        .flat_map(|site| {
            let service = &site.service;
            let redirect = service
                .redirect
                .iter()
                .map(|endpoint| (*endpoint, Purpose::Redirect));
            let listen = service
                .listen
                .iter()
                .map(|endpoint| (*endpoint, Purpose::Tls));
            redirect.chain(listen)
        })
        .collect()
}
