//! `[l4]`

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    ops::Range,
};

use foobar_ebpf::abi::{Label, MAX_BACKENDS, MAX_VIPS};

use super::{
    check, endpoints,
    hosts::{Hosts, family},
    many, section, text, whole,
};
use crate::config::{
    Addresses, Backend, Host, L4Service, Node, OnLoss, Protocol, Tenure,
    diagnostics::{Problem, Problems},
    tree::{Entry, Name},
};

pub(super) fn read(
    root: Entry<'_>,
    hosts: &Hosts,
    nodes: &BTreeMap<String, Node>,
    problems: &mut Problems,
) -> BTreeMap<String, L4Service> {
    let mut taken = Taken::default();
    section(root, "l4")
        .into_iter()
        .filter_map(|(name, entry)| {
            let service = service(name, entry, hosts, &mut taken, problems)?;
            if nodes.contains_key(&service.on) {
                taken.count(&service, name, problems);
            }
            Some((service.name.clone(), service))
        })
        .collect()
}

/// What each node has given away already.
#[derive(Default)]
struct Taken {
    vips: HashMap<(SocketAddr, Protocol), Range<usize>>,
    /// By node: an answer of a backend's endpoint must name its vip without a look at the flow.
    endpoints: HashMap<(String, SocketAddr, Protocol), (String, Range<usize>)>,
    totals: HashMap<String, (usize, usize)>,
}

fn service(
    name: Name<'_>,
    entry: Entry<'_>,
    hosts: &Hosts,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Option<L4Service> {
    let on = text(entry, "on")?;
    let protocol = match entry.at("proto").and_then(Entry::text) {
        Some("udp") => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let vips = match hosts.get(&on).filter(|_| !hosts.doubtful(&on)) {
        Some(balancer) => vips(entry, balancer, protocol, taken, problems),
        None => Vec::new(),
    };
    let written = backends(name, entry, hosts, problems);
    let service = L4Service {
        name: name.text.to_owned(),
        vips,
        protocol,
        on_loss: on_loss(entry, protocol, problems),
        tenure: Tenure::ForEver,
        backends: written.iter().map(|(_, backend)| backend.clone()).collect(),
        check: entry
            .at("check")
            .and_then(|check| check::read(check, problems)),
        place: problems.place(name.span().start),
        on,
    };
    for (entry, backend) in &written {
        not_itself(&service, backend, *entry, problems);
        taken.endpoints(&service, backend, *entry, problems);
        fits_a_label(&service, backend, *entry, problems);
    }
    let doubtful = written
        .iter()
        .any(|(_, backend)| hosts.doubtful(&backend.host));
    if !doubtful && !problems.touch(&entry.extent()) {
        families(&service, entry, &written, problems);
    }
    Some(service)
}

fn on_loss(service: Entry<'_>, protocol: Protocol, problems: &mut Problems) -> OnLoss {
    let Some(written) = service.at("on-backend-loss") else {
        return OnLoss::default();
    };
    let on_loss = OnLoss::ALL
        .into_iter()
        .find(|known| written.text() == Some(known.word()))
        .unwrap_or_default();
    if on_loss == OnLoss::Reset && protocol == Protocol::Udp {
        problems.report(
            Problem::new(written.span(), "UDP has no RST")
                .help("write `on-backend-loss = \"resteer\"` or `\"keep\"`"),
        );
    }
    on_loss
}

fn vips(
    service: Entry<'_>,
    balancer: &Host,
    protocol: Protocol,
    taken: &mut Taken,
    problems: &mut Problems,
) -> Vec<SocketAddr> {
    let mut vips: Vec<SocketAddr> = Vec::new();
    let written = many(service, "vip");
    if let Some(vip) = service.at("vip")
        && written.is_empty()
    {
        problems.report(
            Problem::new(vip.span(), "a service without a vip cannot be reached")
                .help("write `vip = [\"public:8080\"]`"),
        );
    }
    for written in written {
        for vip in endpoints::resolve(written, balancer, problems) {
            if let Some(first) = taken.vips.get(&(vip, protocol)) {
                problems.report(
                    Problem::new(written.span(), format!("vip `{vip}` is taken"))
                        .related(first.clone(), "here already")
                        .help("give one of the two another port"),
                );
                continue;
            }
            taken.vips.insert((vip, protocol), written.span());
            if vips.iter().any(|other| other.is_ipv4() == vip.is_ipv4()) {
                problems.report(
                    Problem::new(written.span(), format!("a second {} vip of this service", family(vip.ip())))
                        .help("make it a service of its own, with other ports of the backends: an answer must tell which vip it belongs to"),
                );
                continue;
            }
            vips.push(vip);
        }
    }
    vips
}

fn backends<'a>(
    name: Name<'_>,
    service: Entry<'a>,
    hosts: &Hosts,
    problems: &mut Problems,
) -> Vec<(Entry<'a>, Backend)> {
    let written = many(service, "backends");
    if let Some(backends) = service.at("backends")
        && written.is_empty()
    {
        problems.report(
            Problem::new(
                backends.span(),
                format!("service `l4.{}` has no backend", name.text),
            )
            .help("write `backends = [{ host = \"web1\", port = 80 }]`"),
        );
    }
    written
        .into_iter()
        .filter_map(|entry| {
            let host = hosts.get(entry.at("host")?.text()?)?;
            let backend = Backend {
                host: host.name.clone(),
                addresses: host.private.clone(),
                port: whole::<u16>(entry, "port").and_then(NonZeroU16::new)?,
                weight: whole(entry, "weight").unwrap_or(1),
                kind: text(entry, "kind"),
            };
            Some((entry, backend))
        })
        .collect()
}

fn not_itself(service: &L4Service, backend: &Backend, entry: Entry<'_>, problems: &mut Problems) {
    let on = &service.on;
    if backend.host == *on {
        problems.report(
            Problem::new(entry.span(), format!("`{on}` cannot balance to itself"))
                .help("what XDP sends leaves the machine; name another host"),
        );
    }
}

impl Taken {
    fn endpoints(
        &mut self,
        service: &L4Service,
        backend: &Backend,
        entry: Entry<'_>,
        problems: &mut Problems,
    ) {
        let answers = |address: &IpAddr| {
            service
                .vips
                .iter()
                .any(|vip| vip.is_ipv4() == address.is_ipv4())
        };
        for address in backend.addresses.iter().filter(answers) {
            let endpoint = SocketAddr::new(address, backend.port.get());
            let key = (service.on.clone(), endpoint, service.protocol);
            if let Some((other, first)) = self.endpoints.get(&key) {
                let problem = if *other == service.name {
                    Problem::new(
                        entry.span(),
                        format!(
                            "backend `{}:{}` stands twice in this service",
                            backend.host, backend.port
                        ),
                    )
                    .help("keep one; `weight` makes its share larger")
                } else {
                    Problem::new(
                        entry.span(),
                        format!("backend `{}:{}` already answers for `l4.{other}`", backend.host, backend.port),
                    )
                    .help("an answer is known by the backend's address and port alone: let the server listen on one more port and name that here")
                };
                problems.report(problem.related(first.clone(), "here"));
                return;
            }
            self.endpoints
                .insert(key, (service.name.clone(), entry.span()));
        }
    }

    fn count(&mut self, service: &L4Service, name: Name<'_>, problems: &mut Problems) {
        let (vips, backends) = self.totals.entry(service.on.clone()).or_default();
        let before = (*vips, *backends);
        *vips += service.vips.len();
        *backends += service
            .backends
            .iter()
            .map(|backend| backend.addresses.iter().count())
            .sum::<usize>();
        let most = (MAX_VIPS as usize, MAX_BACKENDS as usize);
        for (what, before, now, most) in [
            ("vips", before.0, *vips, most.0),
            ("addresses of backends", before.1, *backends, most.1),
        ] {
            if before <= most && now > most {
                problems.report(
                    Problem::new(
                        name.span(),
                        format!("node `{}` has more than {most} {what}", service.on),
                    )
                    .help("spread the services over more nodes"),
                );
            }
        }
    }
}

/// Every vip needs someone behind it, every backend a vip before it.
fn families(
    service: &L4Service,
    entry: Entry<'_>,
    written: &[(Entry<'_>, Backend)],
    problems: &mut Problems,
) {
    for vip in &service.vips {
        let served = |backend: &Backend| has_family(&backend.addresses, vip.ip());
        if !service.backends.iter().any(served) {
            let family = family(vip.ip());
            let span = entry.at("vip").map_or(entry.span(), Entry::span);
            problems.report(
                Problem::new(span, format!("no backend has a private {family} address for the vip `{vip}`"))
                    .help(format!("add {family} addresses to the backends' hosts (`private = [\"…\", \"…\"]`), or name only the other family's vip")),
            );
        }
    }
    for (written, backend) in written {
        let reached = |vip: &SocketAddr| has_family(&backend.addresses, vip.ip());
        if !service.vips.is_empty()
            && !service.vips.iter().any(reached)
            && !problems.touch(&entry.extent())
        {
            problems.report(
                Problem::new(
                    written.span(),
                    format!(
                        "host `{}` has no private address of the vip's family",
                        backend.host
                    ),
                )
                .help(format!(
                    "add one to `{}` under `[hosts]`, or take this backend out",
                    backend.host
                )),
            );
        }
    }
}

fn has_family(addresses: &Addresses, like: IpAddr) -> bool {
    match like {
        IpAddr::V4(_) => addresses.v4.is_some(),
        IpAddr::V6(_) => addresses.v6.is_some(),
    }
}

/// The kernel's tables name a backend `l4.service host:port address`.
fn fits_a_label(service: &L4Service, backend: &Backend, entry: Entry<'_>, problems: &mut Problems) {
    let longest = backend
        .addresses
        .iter()
        .map(|address| {
            format!(
                "l4.{} {}:{} {address}",
                service.name, backend.host, backend.port
            )
            .len()
        })
        .max()
        .unwrap_or(0);
    let room = size_of::<Label>();
    if longest > room {
        problems.report(
            Problem::new(
                entry.span(),
                format!(
                    "the names of this service and this host are {} letters too long together",
                    longest - room
                ),
            )
            .help("shorten one of them"),
        );
    }
}
