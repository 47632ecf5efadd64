//! The loop: observations in, desired state out, differences applied.

mod access;
mod answers;
pub mod apply;
mod balancing;
mod bringing;
pub mod checks;
mod clusters;
mod drops;
mod estate;
mod exports;
mod facts;
pub mod hops;
mod logs;
mod members;
mod memory;
mod monitoring;
pub mod notify;
mod pages;
pub mod proxying;
mod reloading;
mod resets;
mod roles;
mod rules;
mod samples;
pub mod secret;
mod status;
mod successor;
mod tellers;
mod tending;
mod trial;
mod upstreams;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task, time,
};

use self::{
    apply::{Desired, apply},
    balancing::Balancing,
    checks::{Checks, Observation},
    clusters::{Clusters, Steered},
    estate::{Estate, EstateError},
    facts::Facts,
    members::{Members, Now},
    memory::Memory,
    monitoring::Monitoring,
    notify::{State, notify},
    proxying::{Ending, ProxyInbox, Proxying, diagnostics},
    secret::SecretError,
    status::Troubles,
    successor::{Outcome, Succession, end_proxy, raised},
    trial::Trial,
};
use crate::{
    admin::{
        Door, Feeds, Question,
        api::{Apply, Refusal},
    },
    config::{self, Diagnostics},
    kernel::{
        Deployment, HashKeys, KernelError, Mapped, NodeLock, Origin, PROXY_TALLY, Table as _, clock,
    },
    labels::Labels,
    proxy::{
        AccessTap,
        material::{Material, TicketBook},
        sockets::{BindError, Sockets},
        tls::Severity,
    },
    routes::{Event, NextHop, Router, RoutesError},
    snapshot::Names,
    succession::{Ancestor, SuccessionError},
    tally::{Tally, WORDS},
};

#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    pub node: String,
    /// Where what outlives a reboot is kept; `None`: [`secret::state_directory`].
    pub state: Option<PathBuf>,
}

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the configuration has errors")]
    Configuration(#[from] Diagnostics),
    #[error(transparent)]
    Estate(#[from] EstateError),
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Routes(#[from] RoutesError),
    #[error(transparent)]
    Succession(#[from] SuccessionError),
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl RunError {
    /// As the command line ends: 77 not permitted, 78 bad configuration, 1 anything else.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Estate(_) => 78,
            Self::Kernel(error) if error.is_permission() => 77,
            Self::Secret(error) if error.is_permission() => 77,
            Self::Listen(error) if error.is_permission() => 77,
            _ => 1,
        }
    }
}

/// Puts the node into service and keeps it there until SIGTERM or SIGINT; what is in the kernel then stays and serves on.
///
/// Needs tokio's multi-threaded runtime.
///
/// # Errors
/// When it cannot start. Once it runs, failures are logged, told by `status`, and tried again.
pub async fn run(options: Options, questions: mpsc::Receiver<Question>) -> Result<(), RunError> {
    let lock = NodeLock::take(&options.node)?;
    run_with(options, lock.into(), questions, Feeds::new(LINES)).await
}

/// [`run`], for one who had to lock the node earlier, as before taking over its socket or another process's work; log
/// lines come and go by `feeds`.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    options: Options,
    possession: Possession,
    questions: mpsc::Receiver<Question>,
    feeds: Feeds,
) -> Result<(), RunError> {
    // Before anything is attached: a signal during the start is then heard after it.
    let signals = Signals::listen().map_err(RunError::Signals)?;
    let ancestor = possession.ancestor;
    let inherited = Inherited {
        sockets: possession.sockets,
        tickets: possession.tickets,
    };
    let (mut controller, inbox) =
        Controller::start(options, possession.lock, inherited, possession.door, &feeds).await?;
    if let Some(ancestor) = ancestor {
        controller.lock.own()?;
        // It may have given up waiting and serves on; then the lock told this process nothing, and it ends.
        ancestor.release()?;
    }
    controller.serve(signals, inbox, questions).await;
    Ok(())
}

/// Whether [`run`] could go on with this configuration and these files.
///
/// # Errors
/// As [`run`] for the configuration.
pub fn rehearse(options: &Options) -> Result<(), RunError> {
    let config = config::load(&options.config)?;
    let estate = Estate::compile(config, &options.node, Labels::default(), 1)?;
    let fatal: Vec<_> = Material::flaws(&estate.config, &options.node, SystemTime::now())
        .into_iter()
        .filter(|flaw| flaw.severity != Severity::Doubtful)
        .collect();
    if fatal.is_empty() {
        Ok(())
    } else {
        Err(diagnostics(&estate.config, fatal).into())
    }
}

/// What a process has of the node before it runs.
#[derive(Debug)]
pub struct Possession {
    pub lock: NodeLock,
    pub door: Option<Door>,
    /// The process to succeed.
    pub ancestor: Option<Ancestor>,
    /// Its listening sockets.
    pub sockets: Sockets,
    pub tickets: TicketBook,
}

impl From<NodeLock> for Possession {
    fn from(lock: NodeLock) -> Self {
        Self {
            lock,
            door: None,
            ancestor: None,
            sockets: Sockets::default(),
            tickets: TicketBook::default(),
        }
    }
}

/// What [`run`] would change, one line each; changes nothing.
///
/// # Errors
/// As [`run`] for the configuration.
pub fn dry_run(options: &Options) -> Result<Vec<String>, RunError> {
    let config = config::load(&options.config)?;
    let estate = Estate::compile(config, &options.node, Labels::default(), 1)?;
    Ok(estate.summary())
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    upgrade: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// What the process before left.
#[derive(Debug, Default)]
struct Inherited {
    sockets: Sockets,
    tickets: TicketBook,
}

/// Where news comes from.
struct Inbox {
    observations: mpsc::Receiver<Observation<u32>>,
    events: mpsc::Receiver<Event>,
    steered: mpsc::Receiver<Steered>,
    proxy: ProxyInbox,
}

struct Controller {
    options: Options,
    keys: HashKeys,
    /// Where [`Memory`] is kept.
    directory: PathBuf,
    started: Instant,
    started_at: SystemTime,
    /// That of the estate, for those who look at it beside the loop.
    config: Arc<config::Config>,
    /// Those of the ids that the kernel knows, for the same.
    names: Arc<Names>,
    loaded_at: SystemTime,
    deployment: Deployment,
    estate: Estate,
    balancing: Balancing,
    members: Members,
    /// What the kernel was brought to last.
    desired: Desired,
    /// Epochs of the backends at which their lost sessions were ended.
    swept: BTreeMap<u32, u32>,
    /// How many sessions of each service were ended.
    reset: BTreeMap<String, u64>,
    in_service: bool,
    checks: Checks<u32>,
    clusters: Clusters,
    proxying: Proxying,
    router: Router,
    hops: BTreeMap<IpAddr, NextHop>,
    /// Clients' addresses that packets wanted resolved, and until when to care.
    wanted: BTreeMap<IpAddr, Instant>,
    troubles: Troubles,
    monitoring: Monitoring,
    /// When files that changed are read.
    settling: Option<Instant>,
    trial: Option<Trial>,
    succession: Option<Succession>,
    door: Option<Door>,
    lock: NodeLock,
}

impl Controller {
    async fn start(
        options: Options,
        lock: NodeLock,
        inherited: Inherited,
        door: Option<Door>,
        feeds: &Feeds,
    ) -> Result<(Self, Inbox), RunError> {
        let config = config::load(&options.config)?;
        let directory = options
            .state
            .clone()
            .unwrap_or_else(|| secret::state_directory(&options.node));
        let keys = secret::hash_keys(&directory)?;
        let mut troubles = Troubles::default();
        let memory = Memory::recall(&directory).unwrap_or_else(|error| {
            troubles.note(
                "memory",
                format!(
                    "what was said before the restart is lost: cannot read {}: {error}",
                    directory.display()
                ),
            );
            Memory::default()
        });
        // Before anything is opened: a configuration that does not compile changes nothing.
        let draft = Estate::compile(config, &options.node, Labels::default(), 1)?;
        // Outlives this process, and is read without it.
        let words = u32::try_from(WORDS).unwrap_or(u32::MAX);
        let words = task::block_in_place(|| Mapped::adopt(&options.node, PROXY_TALLY, words))?;
        let tally = Tally::new(Arc::new(words));
        let (access, records) = mpsc::channel(ACCESS_RECORDS);
        let (mut proxying, proxy) = Proxying::new(
            &options.node,
            &directory,
            memory.wishes.clone(),
            inherited.tickets,
            inherited.sockets,
            tally,
            AccessTap::new(access),
        );
        proxying.note_requests(&draft.config.log.access);
        let proxy_draft = proxying
            .draft(&draft.config, draft.sites.clone())
            .map_err(|flaws| diagnostics(&draft.config, flaws))?;
        proxying.bind(&proxy_draft)?;
        let sizes = Members::new(draft.sets(), &memory.added).sizes();
        let deployment = task::block_in_place(|| Deployment::open(&options.node, keys, sizes))?;
        let labels = Labels::restore(deployment.tables().labels.contents()?);
        let estate = Estate::compile(draft.config, &options.node, labels, 1)?;
        let (router, events) = Router::start().await?;
        let (clusters, steered) =
            Clusters::new(options.node.clone(), directory.clone()).map_err(RunError::Thread)?;
        let (checks, observations) =
            Checks::new(Arc::new(|_, check, address| probe(check, address)));
        let proxy_draft = proxying
            .draft(&estate.config, estate.sites.clone())
            .map_err(|flaws| diagnostics(&estate.config, flaws))?;
        proxying.adopt(proxy_draft);
        if let Origin::Rebuilt(reason) = deployment.origin() {
            troubles.note(
                "state",
                format!(
                    "the tables in the kernel could not be taken over: {reason}; counters, jails and remembered flows \
                     started anew"
                ),
            );
        }
        let tables = deployment.tables();
        let balancing = Balancing::restore(
            estate.plan.clone(),
            memory.wishes,
            &tables.label_texts()?,
            |vip| tables.ring(vip),
            |backend| tables.backends.get(backend),
            Instant::now(),
        )?;
        let members = Members::new(estate.sets(), &memory.added);
        let started_at = SystemTime::now();
        let config = Arc::new(estate.config.clone());
        let facts = Facts {
            config: config.clone(),
            names: Arc::default(),
            started_at,
            loaded_at: started_at,
            reload_failed: false,
            in_service: false,
            generation: estate.ruleset.generation,
            interfaces: Vec::new(),
            services: balancing.services(),
            certificates: Vec::new(),
            clusters: Vec::new(),
        };
        let mut controller = Self {
            monitoring: Monitoring::begin(&options.node, facts, records, feeds),
            started_at,
            config,
            names: Arc::default(),
            keys,
            directory,
            started: Instant::now(),
            loaded_at: SystemTime::now(),
            desired: Desired::default(),
            swept: BTreeMap::new(),
            reset: BTreeMap::new(),
            in_service: false,
            hops: BTreeMap::new(),
            wanted: BTreeMap::new(),
            options,
            deployment,
            estate,
            balancing,
            members,
            checks,
            clusters,
            proxying,
            router,
            troubles,
            settling: None,
            trial: None,
            succession: None,
            door,
            lock,
        };
        let mut inbox = Inbox {
            observations,
            events,
            steered,
            proxy,
        };
        controller.aim();
        controller.look_around(&mut inbox).await;
        match task::block_in_place(|| controller.take_service()) {
            Ok(()) => {
                controller.proxying.start()?;
                Ok((controller, inbox))
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = controller.deployment.abandon();
                Err(error.into())
            }
        }
    }

    /// Waits a moment for next hops and first checks, so that the first packets find a settled ring.
    async fn look_around(&mut self, inbox: &mut Inbox) {
        let patience = time::sleep(LOOK_AROUND);
        tokio::pin!(patience);
        while !self.balancing.knows_all()
            || !self.knows_ways()
            || !self.proxying.upstreams().knows_all()
        {
            tokio::select! {
                () = &mut patience => return,
                Some(event) = inbox.events.recv() => self.learn(event),
                Some(observation) = inbox.observations.recv() => self.observe(observation),
                Some(steered) = inbox.steered.recv() => self.follow_roles(&steered),
                Some(observation) = inbox.proxy.observations.recv() => {
                    self.proxying.observe(observation);
                }
            }
        }
    }

    fn knows_ways(&self) -> bool {
        self.balancing
            .targets()
            .iter()
            .all(|target| self.hops.get(target).is_some_and(NextHop::resolved))
    }

    fn take_service(&mut self) -> Result<(), KernelError> {
        self.deployment.prepare(&self.estate.hooks)?;
        let desired = self.desire(&self.estate, &self.balancing, &self.members);
        apply(&mut self.deployment, &desired)?;
        self.take_for_present(desired);
        self.in_service = true;
        self.balancing.enter_service();
        self.end_lost_sessions();
        for attachment in self.deployment.attachments() {
            tracing::info!(
                interface = attachment.hook.interface,
                device = attachment.hook.device,
                ingress = ?attachment.ingress,
                egress = ?attachment.egress,
                "in service"
            );
        }
        Ok(())
    }

    async fn serve(
        mut self,
        mut signals: Signals,
        mut inbox: Inbox,
        mut questions: mpsc::Receiver<Question>,
    ) {
        self.tell_monitoring();
        notify(State::Ready);
        tracing::info!(
            node = self.options.node,
            configuration = %self.options.config.display(),
            "running"
        );
        loop {
            match self.attend(&mut signals, &mut inbox, &mut questions).await {
                Outcome::Stop => break,
                Outcome::Succeeded(heir) => match self.hand_over(heir).await {
                    Ok(()) => return self.retire(&mut signals).await,
                    Err(error) => self.stay(&error),
                },
            }
        }
        notify(State::Stopping);
        tracing::info!("ending; connections of the proxy may end by themselves");
        end_proxy(self.proxying, Ending::Closed, &mut signals).await;
        tracing::info!("stopped; the packet path stays in service, `foobar detach` removes it");
    }

    /// Until told to end, or until another process can take over.
    async fn attend(
        &mut self,
        signals: &mut Signals,
        inbox: &mut Inbox,
        questions: &mut mpsc::Receiver<Question>,
    ) -> Outcome {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Outcome::Stop,
                _ = signals.interrupt.recv() => return Outcome::Stop,
                _ = signals.hangup.recv() => {
                    notify(State::Reloading);
                    if let Err(refusal) = task::block_in_place(|| self.reload(Apply::Now)) {
                        tracing::error!("reload refused: {refusal}");
                    }
                    notify(State::Ready);
                }
                _ = signals.upgrade.recv() => task::block_in_place(|| self.raise(None)),
                Some(heir) = raised(&mut self.succession) => match heir {
                    Ok(heir) => return Outcome::Succeeded(heir),
                    Err(error) => self.stay(&error),
                },
                Some(question) = questions.recv() => self.answer(question),
                Some(observation) = inbox.observations.recv() => {
                    task::block_in_place(|| self.observe(observation));
                }
                Some(steered) = inbox.steered.recv() => {
                    task::block_in_place(|| self.follow_roles(&steered));
                }
                Some(observation) = inbox.proxy.observations.recv() => {
                    self.proxying.observe(observation);
                }
                Some(event) = inbox.proxy.acme.recv() => {
                    if self.proxying.hear_of_order(event)
                        && let Err(refusal) = self.refresh_tls()
                    {
                        tracing::error!("{refusal}");
                    }
                }
                Some(report) = inbox.proxy.reports.recv() => {
                    let mut reports = vec![report];
                    while let Ok(report) = inbox.proxy.reports.try_recv() {
                        reports.push(report);
                    }
                    task::block_in_place(|| self.hear(reports));
                }
                Some(event) = inbox.events.recv() => task::block_in_place(|| self.learn(event)),
                _ = tick.tick() => task::block_in_place(|| self.tick()),
            }
        }
    }
}

impl Controller {
    /// Points the checks and the router at the backends as they are now.
    fn aim(&mut self) {
        self.checks.aim(self.balancing.aims());
        self.clusters.aim(self.estate.clusters(), |endpoint| {
            self.balancing.has_slots(endpoint)
        });
        self.clusters.guard(self.estate.config.mysql.values());
        let wanted = self.wanted.keys().copied();
        let targets: BTreeSet<IpAddr> =
            self.balancing.targets().into_iter().chain(wanted).collect();
        self.router.watch(targets);
    }

    fn observe(&mut self, observation: Observation<u32>) {
        if self.balancing.observe(observation, Instant::now()) {
            self.bring_balancing();
            self.tell_monitoring();
        }
    }

    fn learn(&mut self, event: Event) {
        let tables = self.deployment.tables_mut();
        let learnt = match event {
            Event::Links(_) => Ok(None),
            Event::Local(local) => hops::apply_local(tables, &local).map(|()| None),
            Event::Routes(routes) => hops::apply_routes(tables, &routes),
            Event::NextHops(hops) => {
                for (target, hop) in &hops {
                    let before = self.hops.get(target).and_then(|hop| hop.trouble);
                    match hop.trouble {
                        Some(trouble) if before != Some(trouble) => {
                            tracing::warn!(%target, "no next hop: {trouble}");
                        }
                        None if before.is_some() => {
                            tracing::info!(%target, device = hop.device, "next hop found")
                        }
                        _ => {}
                    }
                }
                self.hops = hops;
                self.bring_balancing();
                return;
            }
        };
        match learnt {
            Ok(None) => self.troubles.clear("routes"),
            Ok(Some(warning)) => self.troubles.note("routes", warning),
            Err(error) => self.troubles.grave("routes", chain(&error)),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.balancing.is_due(now) {
            match self.deployment.tables().remembered_flows() {
                Ok(flows) => {
                    let second = clock::coarse() / 1_000_000_000;
                    if self.balancing.settle(&flows, second, now) {
                        self.bring_balancing();
                    }
                }
                Err(error) => tracing::warn!("{}", chain(&error)),
            }
        }
        if self.members.expire(SystemTime::now()) {
            self.bring_members();
            self.keep_memory();
        }
        self.tend_proxy(now);
        self.end_trial(now);
        match hops::take_wanted(self.deployment.tables_mut()) {
            Ok(wanted) => self.want(wanted, now),
            Err(error) => tracing::warn!("{}", chain(&error)),
        }
        match self.deployment.reattach_lost() {
            Ok(back) => {
                for attachment in back {
                    tracing::warn!(
                        interface = attachment.hook.interface,
                        device = attachment.hook.device,
                        "the device came back; in service again"
                    );
                }
                self.troubles.clear("attachment");
            }
            Err(error) => self.troubles.grave("attachment", chain(&error)),
        }
        self.tell_monitoring();
        notify(State::Alive);
    }

    fn tell_monitoring(&self) {
        self.monitoring.tell(Facts {
            config: self.config.clone(),
            names: self.names.clone(),
            started_at: self.started_at,
            loaded_at: self.loaded_at,
            reload_failed: self.troubles.has("reload"),
            in_service: self.in_service,
            generation: self.estate.ruleset.generation,
            interfaces: self.interfaces(),
            services: self.services(),
            certificates: self.proxying.certificates(),
            clusters: self.clusters_told(),
        });
    }

    /// Has clients' addresses resolved that packets lacked, and kept fresh for a while.
    fn want(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        let before: Vec<IpAddr> = self.wanted.keys().copied().collect();
        self.wanted.retain(|_, until| *until > now);
        for address in addresses {
            if self.wanted.len() < MOST_WANTED || self.wanted.contains_key(&address) {
                self.wanted.insert(address, now + WANTED_FOR);
            }
        }
        if !self.wanted.keys().eq(before.iter()) {
            self.aim();
        }
    }

    /// Of both balancers.
    fn wishes(&self) -> balancing::Wishes {
        let is_site = |label: &&String| label.starts_with("l7.");
        let of_sites = self.proxying.upstreams().wishes().iter();
        let of_vips = self.balancing.wishes().iter();
        of_sites
            .filter(|(label, _)| is_site(label))
            .chain(of_vips.filter(|(label, _)| !is_site(label)))
            .map(|(label, wish)| (label.clone(), *wish))
            .collect()
    }

    fn keep_memory(&mut self) {
        let memory = Memory {
            wishes: self.wishes(),
            added: self.members.added(),
        };
        match memory.keep(&self.directory) {
            Ok(()) => self.troubles.clear("memory"),
            Err(error) => self.troubles.note(
                "memory",
                format!(
                    "a restart will not know what was said since: cannot write to {}: {error}",
                    self.directory.display()
                ),
            ),
        }
    }
}

fn probe(
    check: config::Check,
    address: std::net::SocketAddr,
) -> std::pin::Pin<Box<dyn Future<Output = Result<Duration, String>> + Send>> {
    Box::pin(async move {
        crate::probe::run(&check, address, None)
            .await
            .map_err(|error| chain(&error))
    })
}

fn now() -> Now {
    Now {
        coarse: clock::coarse(),
        wall: SystemTime::now(),
    }
}

fn refusal(error: &KernelError) -> Refusal {
    let message = chain(error);
    match error {
        KernelError::NotPermitted { .. } => Refusal::NotPermitted { message },
        KernelError::Full { .. } => Refusal::Conflict { message },
        _ => Refusal::Failed { message },
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent errors say what their cause says.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Beyond these, requests are served and not logged.
const ACCESS_RECORDS: usize = 8_192;
/// Log lines that one who reads too slowly may be behind.
pub const LINES: usize = 8_192;
const TICK: Duration = Duration::from_millis(500);
const LOOK_AROUND: Duration = Duration::from_millis(1_500);
const WANTED_FOR: Duration = Duration::from_secs(60);
/// A scan from spoofed addresses must not make the router watch the whole link.
const MOST_WANTED: usize = 256;
const RENDER_WIDTH: usize = 120;
