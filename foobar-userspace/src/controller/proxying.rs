//! The proxy of this node under the controller: what it is given, when it changes, what it reports.

mod files;
mod report;
mod serving;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use self::{files::stamps, serving::endpoints};
use super::{
    balancing::Wishes,
    chain,
    checks::{Checks, Observation, Probing},
    upstreams::{SitePlan, Upstreams},
};
use crate::{
    acme::{self, Orders, Proof, Validity, Wanted},
    config::{self, Config, Diagnostics},
    probe::{self, Secrecy},
    proxy::{
        AccessTap, Memory, Report, Shared,
        admission::Admission,
        crew::Crew,
        material::{Material, TicketBook},
        sockets::{BindError, Sockets},
        tls::{Flaw, Identity},
    },
    tally::Tally,
};

/// The controller's side of the proxy.
#[derive(Debug)]
pub struct Proxying {
    node: String,
    config: config::Proxy,
    upstreams: Upstreams,
    material: Material,
    tickets: TicketBook,
    /// What ACME brought, by service.
    fetched: BTreeMap<String, Identity>,
    orders: Orders,
    /// Where accounts and certificates of ACME are kept.
    directory: PathBuf,
    /// By service, until the next.
    proofs: BTreeMap<String, Vec<Proof>>,
    acme_troubles: BTreeMap<String, String>,
    checks: Checks<u32>,
    secrecy: Arc<ArcSwap<HashMap<u32, Secrecy>>>,
    shared: Shared,
    /// Until there is a crew.
    sockets: Option<Sockets>,
    crew: Option<Crew>,
    in_service: bool,
    generation: u64,
    refreshed: Instant,
    stamps: BTreeMap<PathBuf, Option<SystemTime>>,
}

/// What comes from it.
#[derive(Debug)]
pub struct ProxyInbox {
    pub observations: mpsc::Receiver<Observation<u32>>,
    pub reports: mpsc::Receiver<Report>,
    pub acme: mpsc::Receiver<acme::Event>,
}

/// A configuration's proxy, complete and not in service yet.
#[derive(Debug)]
pub struct Draft {
    config: config::Proxy,
    upstreams: Upstreams,
    material: Material,
}

impl Proxying {
    pub fn new(
        node: &str,
        state: &Path,
        wishes: Wishes,
        tickets: TicketBook,
        sockets: Sockets,
        tally: Tally,
        access: AccessTap,
    ) -> (Self, ProxyInbox) {
        let secrecy: Arc<ArcSwap<HashMap<u32, Secrecy>>> = Arc::default();
        let known = secrecy.clone();
        let (checks, observations) = Checks::new(Arc::new(move |id, check, address| {
            ask(check, address, known.load().get(&id).cloned())
        }));
        let (reports, inbox) = mpsc::channel(REPORTS);
        let directory = state.join("acme");
        let (orders, acme) = Orders::new(directory.clone());
        let proxying = Self {
            node: node.to_owned(),
            config: config::Proxy::default(),
            upstreams: Upstreams::new(wishes),
            material: Material::default(),
            tickets,
            fetched: BTreeMap::new(),
            orders,
            directory,
            proofs: BTreeMap::new(),
            acme_troubles: BTreeMap::new(),
            checks,
            secrecy,
            shared: Shared {
                tally,
                reports,
                access,
                memory: Memory::new(getrandom::u64().unwrap_or_default()),
            },
            sockets: Some(sockets),
            crew: None,
            in_service: false,
            generation: 0,
            refreshed: Instant::now(),
            stamps: BTreeMap::new(),
        };
        let inbox = ProxyInbox {
            observations,
            reports: inbox,
            acme,
        };
        (proxying, inbox)
    }

    /// Whether requests are noted from now on.
    pub fn note_requests(&self, log: &config::AccessLog) {
        match log.file.to {
            config::LogTo::Nowhere => self.shared.access.close(),
            _ => self.shared.access.open(),
        }
    }

    /// Reads what a configuration names; changes nothing that serves.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn draft(&mut self, config: &Config, plan: SitePlan) -> Result<Draft, Vec<Flaw>> {
        let now = SystemTime::now();
        self.fetched = self.obtained(&plan);
        let material = Material::read(config, &self.node, &self.fetched, &mut self.tickets, now)?;
        Ok(Draft {
            config: config.proxy.clone(),
            upstreams: self.upstreams.replanned(plan),
            material,
        })
    }

    /// What speaks against a draft and not against what runs.
    pub fn new_doubts(&self, draft: &Draft) -> Vec<Flaw> {
        let known = |doubt: &&Flaw| {
            let doubts = &self.material.doubts;
            doubts.iter().any(|known| known.message == doubt.message)
        };
        let doubts = draft.material.doubts.iter();
        doubts.filter(|doubt| !known(doubt)).cloned().collect()
    }

    /// Takes the endpoints of a draft that are not had yet; nobody is accepted there yet.
    ///
    /// # Errors
    /// One cannot be had; none is taken then.
    pub fn bind(&mut self, draft: &Draft) -> Result<(), BindError> {
        let endpoints: BTreeSet<SocketAddr> =
            endpoints(draft.upstreams.plan()).into_keys().collect();
        match (&mut self.crew, &mut self.sockets) {
            (Some(crew), _) => crew.bind(&endpoints),
            (None, Some(sockets)) => sockets.bind(&endpoints, workers(&draft.config)),
            (None, None) => Ok(()),
        }
    }

    /// Gives back what [`Self::bind`] took.
    pub fn unbind(&mut self) {
        let endpoints: BTreeSet<SocketAddr> =
            endpoints(self.upstreams.plan()).into_keys().collect();
        match (&mut self.crew, &mut self.sockets) {
            (Some(crew), _) => crew.unbind(),
            (None, Some(sockets)) => sockets.keep(&endpoints),
            (None, None) => {}
        }
    }

    /// Goes by a draft from now on: checks, and the workers where they run.
    pub fn adopt(&mut self, draft: Draft) {
        let before = std::mem::replace(&mut self.config, draft.config);
        if let Some(crew) = &self.crew {
            crew.admission().change(&before, &self.config);
        }
        self.upstreams = draft.upstreams;
        self.material = draft.material;
        self.stamps = stamps(self.upstreams.plan());
        self.secrecy.store(Arc::new(self.secrets()));
        self.checks.aim(self.upstreams.aims());
        self.tell();
        self.resize();
        self.order();
    }

    /// As many workers as the configuration says, without a restart.
    fn resize(&mut self) {
        let (workers, patience) = (workers(&self.config), self.config.drain);
        let Some(crew) = &mut self.crew else { return };
        if let Err(error) = crew.resize(workers, patience) {
            tracing::error!("the proxy keeps {} workers: {}", crew.size(), chain(&error));
        }
    }

    /// What ACME brought for these sites until now.
    fn obtained(&self, plan: &SitePlan) -> BTreeMap<String, Identity> {
        let sites = plan.sites.iter().map(|site| &site.service);
        sites
            .filter_map(|service| {
                let acme = service.tls.acme.as_ref()?;
                let (cert, key) = acme::paths(&self.directory, &service.name);
                // One that is not there yet, or no good, is ordered.
                let identity = Identity::read(&config::Certificate {
                    cert,
                    key: config::Secret::File(key),
                    ocsp: None,
                    place: acme.place,
                });
                Some((service.name.clone(), identity.ok()?))
            })
            .collect()
    }

    /// Has certificates ordered and renewed for the sites that want it.
    fn order(&mut self) {
        let sites = self.upstreams.plan().sites.iter().map(|site| &site.service);
        let wanted: Vec<Wanted> = sites
            .filter_map(|service| {
                let mut acme = service.tls.acme.clone()?;
                acme.place = config::Place { line: 0, column: 0 };
                Some(Wanted {
                    service: service.name.clone(),
                    names: service.hosts.clone(),
                    acme,
                })
            })
            .collect();
        self.acme_troubles
            .retain(|service, _| wanted.iter().any(|wanted| wanted.service == *service));
        let names: BTreeMap<String, Vec<String>> = wanted
            .iter()
            .map(|wanted| (wanted.service.clone(), wanted.names.clone()))
            .collect();
        let fetched = &self.fetched;
        self.orders.aim(wanted, |service| {
            let identity = fetched.get(service)?;
            let names = names.get(service)?;
            let covers_all = names.iter().all(|name| identity.covers(name));
            covers_all.then_some(Validity {
                not_before: identity.facts.not_before,
                not_after: identity.facts.not_after,
            })
        });
    }

    /// News of an order; true when a certificate is to be read.
    pub fn hear_of_order(&mut self, event: acme::Event) -> bool {
        match event {
            acme::Event::Prove {
                service,
                proofs,
                shown,
            } => {
                self.proofs.insert(service, proofs);
                self.tell();
                // The order may have been given up meanwhile.
                let _ = shown.send(());
                false
            }
            acme::Event::Obtained { service } => {
                tracing::info!(service, "a certificate was obtained");
                self.proofs.remove(&service);
                self.acme_troubles.remove(&service);
                self.fetched = self.obtained(self.upstreams.plan());
                true
            }
            acme::Event::Failed { service, why } => {
                tracing::warn!(service, "no certificate could be obtained: {why}");
                self.acme_troubles.insert(service, why);
                false
            }
        }
    }

    /// Begins to accept, now or with the first site.
    ///
    /// # Errors
    /// An endpoint cannot be had.
    pub fn start(&mut self) -> Result<(), BindError> {
        self.in_service = true;
        if self.upstreams.plan().sites.is_empty() {
            return Ok(());
        }
        let sockets = self.sockets.take().unwrap_or_default();
        let crew = Crew::start(
            workers(&self.config),
            sockets,
            self.standing(),
            Admission::new(&self.config, self.shared.tally.clone()),
            self.shared.clone(),
        )?;
        for (endpoint, purpose) in &crew.standing().endpoints {
            tracing::info!(%endpoint, ?purpose, workers = crew.size(), "listening");
        }
        self.crew = Some(crew);
        Ok(())
    }

    /// Tells the workers what has changed, and starts them with the first site.
    pub fn tell(&mut self) {
        self.generation += 1;
        let standing = self.standing();
        match &mut self.crew {
            Some(crew) => crew.change(standing),
            None if self.in_service => {
                // The endpoints are bound: nothing is left that could fail.
                if let Err(error) = self.start() {
                    tracing::error!("{}", chain(&error));
                }
            }
            None => {}
        }
    }

    /// A worker lost a backend under a request, or could not reach it: its check does not wait for its turn.
    pub fn doubt(&self, site: &str, backend: &str) {
        if let Some(id) = self.upstreams.find(site, backend) {
            self.checks.hurry(id);
        }
    }

    pub fn observe(&mut self, observation: Observation<u32>) {
        if self.upstreams.observe(observation, Instant::now()) {
            self.tell();
        }
    }

    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    pub fn upstreams_mut(&mut self) -> &mut Upstreams {
        &mut self.upstreams
    }

    pub fn tickets(&self) -> &TicketBook {
        &self.tickets
    }

    pub fn sockets(&self) -> Option<&Sockets> {
        self.crew.as_ref().map(Crew::sockets)
    }

    /// Reads certificates, keys and pages again.
    ///
    /// # Errors
    /// What is wrong; what was before goes on.
    pub fn refresh(&mut self, config: &Config) -> Result<(), Vec<Flaw>> {
        let now = SystemTime::now();
        self.material = Material::read(config, &self.node, &self.fetched, &mut self.tickets, now)?;
        self.stamps = stamps(self.upstreams.plan());
        self.secrecy.store(Arc::new(self.secrets()));
        self.tell();
        Ok(())
    }

    /// Whether a file that a site names has changed since it was read.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        stamps(self.upstreams.plan()) != self.stamps
    }

    /// Remembers how the files are now: they were looked at, and were no good.
    pub fn note_stamps(&mut self) {
        self.stamps = stamps(self.upstreams.plan());
    }

    /// Looks after workers and tickets; what is wrong.
    pub fn tick(&mut self, now: Instant) -> Option<String> {
        if let Some(crew) = &mut self.crew {
            let hired = crew.look_after();
            if hired > 0 {
                tracing::error!(hired, "workers of the proxy died and were started again");
            }
        }
        if now.duration_since(self.refreshed) < REFRESH {
            return None;
        }
        self.refreshed = now;
        let refreshed = self.tickets.refresh(SystemTime::now());
        refreshed.err().map(|error| {
            format!(
                "the keys of session tickets stay as they were: {}",
                chain(&error)
            )
        })
    }

    /// Ends: `how` the sockets are left.
    pub async fn end(mut self, how: Ending) {
        let patience = self.config.drain;
        let Some(crew) = self.crew.take() else { return };
        match how {
            Ending::Closed => crew.drain(patience).await,
            Ending::HandedOver => crew.hand_over(patience).await,
        }
    }
}

/// The flaws as the configuration's mistakes.
pub fn diagnostics(config: &Config, flaws: Vec<Flaw>) -> Diagnostics {
    let told = flaws
        .into_iter()
        .map(|flaw| (flaw.place, flaw.message, flaw.cure));
    Diagnostics::about_things_named(&config.path, told.collect())
}

/// What becomes of the sockets when the proxy ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    Closed,
    HandedOver,
}

fn ask(check: config::Check, address: SocketAddr, secrecy: Option<Secrecy>) -> Probing {
    Box::pin(async move {
        probe::run(&check, address, secrecy.as_ref())
            .await
            .map_err(|error| chain(&error))
    })
}

fn workers(config: &config::Proxy) -> usize {
    config.workers.map_or_else(
        || thread::available_parallelism().map_or(1, usize::from),
        |workers| usize::from(workers.get()),
    )
}

const REPORTS: usize = 256;
const REFRESH: Duration = Duration::from_secs(5);
