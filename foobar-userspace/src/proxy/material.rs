//! All that the sites of one node name outside the configuration: certificates, keys, authorities, pages; read at once,
//! so that a mistake in one leaves everything as it is.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::tls::{
    BackendSide, Flaw, Front, Fronts, Identity, Severity, TicketKeys, TicketKeysError, Ticketing,
};
use crate::config::{Config, L7Service, Pages, Place, Tickets};

/// What the proxy needs besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct Material {
    pub fronts: Fronts,
    /// By service.
    pub by_service: BTreeMap<String, Arc<Front>>,
    /// By service.
    pub backends: BTreeMap<String, BackendSide>,
    /// By service.
    pub pages: BTreeMap<String, Texts>,
    /// What works, but not for long or not for everyone.
    pub doubts: Vec<Flaw>,
}

/// The proxy's own answers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Texts {
    pub errors: BTreeMap<u16, Arc<[u8]>>,
    pub maintenance: Option<Arc<[u8]>>,
}

/// The tickets' keys, kept over reloads: a new key would end every session.
#[derive(Debug, Default)]
pub struct TicketBook {
    shared: BTreeMap<PathBuf, Arc<Ticketing>>,
    own: BTreeMap<Duration, (Arc<Ticketing>, SystemTime)>,
}

impl Material {
    /// Reads what the services of `node` name; `fetched` are the certificates that ACME brought.
    ///
    /// # Errors
    /// All that is wrong, doubts too, when something is fatal.
    pub fn read(
        config: &Config,
        node: &str,
        fetched: &BTreeMap<String, Identity>,
        tickets: &mut TicketBook,
        now: SystemTime,
    ) -> Result<Self, Vec<Flaw>> {
        let mut material = Self::default();
        let mut flaws = Vec::new();
        for service in config.l7.values().filter(|service| service.on == node) {
            let site = site(service, fetched.get(&service.name), tickets, now);
            match site {
                Ok(site) => {
                    flaws.extend(site.doubts(service, now));
                    let site = Arc::new(site);
                    for endpoint in &service.listen {
                        material.fronts.add(*endpoint, site.clone());
                    }
                    material.by_service.insert(service.name.clone(), site);
                }
                Err(found) => flaws.extend(found),
            }
            match BackendSide::read(service) {
                Ok(side) => drop(material.backends.insert(service.name.clone(), side)),
                Err(flaw) => flaws.push(flaw),
            }
            match texts(&service.pages, service.place) {
                Ok(texts) => drop(material.pages.insert(service.name.clone(), texts)),
                Err(flaw) => flaws.push(flaw),
            }
        }
        flaws.sort_by_key(|flaw| flaw.place);
        flaws.dedup();
        if flaws.iter().any(|flaw| flaw.severity != Severity::Doubtful) {
            return Err(flaws);
        }
        material.doubts = flaws;
        Ok(material)
    }
    /// All that speaks against the files of `node`, before it runs.
    #[must_use]
    pub fn flaws(config: &Config, node: &str, now: SystemTime) -> Vec<Flaw> {
        match Self::read(
            config,
            node,
            &BTreeMap::new(),
            &mut TicketBook::default(),
            now,
        ) {
            Ok(material) => material.doubts,
            Err(flaws) => flaws,
        }
    }
}

fn site(
    service: &L7Service,
    fetched: Option<&Identity>,
    tickets: &mut TicketBook,
    now: SystemTime,
) -> Result<Front, Vec<Flaw>> {
    let (identities, flaws): (Vec<_>, Vec<_>) = service
        .tls
        .certificates
        .iter()
        .map(Identity::read)
        .partition(Result::is_ok);
    let mut identities: Vec<Identity> = identities.into_iter().flatten().collect();
    let mut flaws: Vec<Flaw> = flaws.into_iter().filter_map(Result::err).collect();
    identities.extend(fetched.cloned());
    if identities.is_empty() && flaws.is_empty() {
        match Identity::stopgap(service) {
            Ok(identity) => identities.push(identity),
            Err(flaw) => flaws.push(flaw),
        }
    }
    let ticketing = match tickets.of(&service.tls.tickets, now) {
        Ok(ticketing) => ticketing,
        Err(error) => {
            flaws.push(ticket_flaw(service.tls.tickets.place, &error));
            return Err(flaws);
        }
    };
    if !flaws.is_empty() {
        return Err(flaws);
    }
    Front::new(service, identities, ticketing).map_err(|flaw| vec![flaw])
}

impl TicketBook {
    /// With the keys that another process sealed with.
    #[must_use]
    pub fn inherited(keys: &[(u64, Vec<u8>)], now: SystemTime) -> Self {
        let own = keys.iter().filter_map(|(rotation, bytes)| {
            let keys = TicketKeys::from_bytes(bytes)?;
            let rotation = Duration::from_secs(*rotation);
            Some((rotation, (Arc::new(Ticketing::new(keys, rotation)), now)))
        });
        Self {
            shared: BTreeMap::new(),
            own: own.collect(),
        }
    }

    /// For the process that takes over.
    #[must_use]
    pub fn to_hand_over(&self) -> Vec<(u64, Vec<u8>)> {
        self.own
            .iter()
            .map(|(rotation, (ticketing, _))| (rotation.as_secs(), ticketing.keys().to_bytes()))
            .collect()
    }

    fn of(
        &mut self,
        tickets: &Tickets,
        now: SystemTime,
    ) -> Result<Arc<Ticketing>, TicketKeysError> {
        let Some(path) = &tickets.keys else {
            if let Some((ticketing, _)) = self.own.get(&tickets.rotate) {
                return Ok(ticketing.clone());
            }
            let ticketing = Arc::new(Ticketing::new(TicketKeys::random()?, tickets.rotate));
            self.own.insert(tickets.rotate, (ticketing.clone(), now));
            return Ok(ticketing);
        };
        let keys = TicketKeys::shared(path)?;
        if let Some(ticketing) = self.shared.get(path) {
            ticketing.change(keys);
            return Ok(ticketing.clone());
        }
        let ticketing = Arc::new(Ticketing::new(keys, tickets.rotate));
        self.shared.insert(path.clone(), ticketing.clone());
        Ok(ticketing)
    }

    /// Rotates what is due, and reads shared keys again.
    ///
    /// # Errors
    /// What could not be read; the keys before stay in use.
    pub fn refresh(&mut self, now: SystemTime) -> Result<(), TicketKeysError> {
        for (rotation, (ticketing, since)) in &mut self.own {
            let due = now.duration_since(*since).is_ok_and(|age| age >= *rotation);
            if due {
                ticketing.change(ticketing.keys().rotated()?);
                *since = now;
            }
        }
        for (path, ticketing) in &self.shared {
            let keys = TicketKeys::shared(path)?;
            if !keys.same(&ticketing.keys()) {
                ticketing.change(keys);
            }
        }
        Ok(())
    }
}

fn ticket_flaw(place: Place, error: &TicketKeysError) -> Flaw {
    let cause = match error {
        TicketKeysError::Unreadable { source, .. } => format!(": {source}"),
        _ => String::new(),
    };
    Flaw {
        place,
        severity: Severity::Fatal,
        message: format!("the keys of session tickets: {error}{cause}"),
        cure: "make one with `head -c 80 /dev/urandom > FILE`, readable by foobar alone".to_owned(),
    }
}

fn texts(pages: &Pages, place: Place) -> Result<Texts, Flaw> {
    let read = |path: &PathBuf| -> Result<Arc<[u8]>, Flaw> {
        let text = std::fs::read(path).map_err(|error| Flaw::unreadable(place, path, &error))?;
        if text.len() > LARGEST_PAGE {
            return Err(Flaw {
                place,
                severity: Severity::Fatal,
                message: format!("the page {} is larger than 1MB", path.display()),
                cure: "a page is held in memory and sent with each refusal: make it smaller"
                    .to_owned(),
            });
        }
        Ok(text.into())
    };
    Ok(Texts {
        errors: pages
            .errors
            .iter()
            .map(|(status, path)| Ok((*status, read(path)?)))
            .collect::<Result<_, Flaw>>()?,
        maintenance: pages.maintenance.as_ref().map(read).transpose()?,
    })
}

const LARGEST_PAGE: usize = 1 << 20;
