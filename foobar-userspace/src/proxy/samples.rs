//! Sites for tests.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use super::{Site, SiteBackend, Sites};
use crate::{
    balancer::Availability,
    config::{self, L7Service},
};

/// A service as the configuration has it by default, which listens at `listen`.
pub(crate) fn service(name: &str, listen: &str) -> L7Service {
    let text = format!(
        "version = 1\n[hosts]\nlb1 = {{ public = [\"192.0.2.1\"], private = \"10.0.0.1\" }}\n\
         web1 = {{ private = \"10.0.0.11\" }}\n[nodes]\nlb1 = {{ wan = {{ dev = \"eth0\" }} }}\n\
         [l7.{name}]\non = \"lb1\"\nlisten = \"public:443\"\ntls = {{ cert = \"/c\", key = {{ file = \"/k\" }} }}\n\
         backends = [{{ host = \"web1\", port = 80 }}]\n"
    );
    let config = config::parse(&text, "/etc/foobar/foobar.toml".as_ref())
        .map_err(|errors| errors.render(false, 120))
        .unwrap();
    let mut service = config.l7[name].clone();
    service.listen = vec![listen.parse().unwrap()];
    service
}

pub(crate) fn sites(services: Vec<L7Service>) -> Sites {
    let sites = services
        .into_iter()
        .enumerate()
        .map(|(index, service)| Site {
            name: service.name.as_str().into(),
            id: u32::try_from(index).unwrap(),
            backends: Vec::new(),
            pages: Default::default(),
            maintenance_page: None,
            service,
        });
    Sites::new(1, sites.collect(), HashMap::new())
}

pub(crate) fn backend(index: u32, address: SocketAddr) -> SiteBackend {
    SiteBackend {
        name: Arc::from(address.to_string()),
        id: index,
        address,
        weight: 1,
        availability: Availability::Up,
        since: None,
        tls: None,
    }
}
