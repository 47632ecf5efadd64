//! Where the kernel would send a packet, kept fresh by netlink: next hops of backends, the routing table, local addresses.

mod netlink;
mod picture;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use ipnet::IpNet;
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::NetlinkMessage,
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket as _, SocketAddr},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use self::{
    netlink::Stale,
    picture::{Hop, Knowledge, Picture},
    table::Numbers,
};

pub type Mac = [u8; 6];

/// What a frame to one address needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NextHop {
    /// 0 when there is none.
    pub interface: u32,
    pub device: String,
    pub source: Mac,
    pub destination: Mac,
    /// In bytes, without the Ethernet header.
    pub mtu: u32,
    /// Why it cannot be used; `None`: resolved.
    pub trouble: Option<Trouble>,
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Trouble {
    #[error("the link is down")]
    LinkDown,
    #[error("the address is this node's own")]
    Local,
    #[error("the neighbour does not answer")]
    NoAnswer,
    #[error("the link of the route has gone")]
    NoLink,
    #[error("there is no route to it")]
    NoRoute,
    #[error("the link is not Ethernet")]
    NotEthernet,
}

/// The main tables of both families.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RouteTable {
    /// By number, from 1; a number keeps its hop while a route uses it, and rests for one table before the next.
    pub hops: BTreeMap<u32, NextHop>,
    /// Longest match wins; 0, or no match: ask the kernel's FIB.
    pub routes: Arc<BTreeMap<IpNet, u32>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkInfo {
    pub index: u32,
    pub name: String,
    pub mac: Mac,
    pub mtu: u32,
    /// Up, with carrier.
    pub up: bool,
    /// `vlan`, `bond`, `veth`, … as the kernel calls it; empty for a network card.
    pub kind: String,
}

/// What changed; each holds the whole of its kind. All four come once at the start.
#[derive(Clone, Debug)]
pub enum Event {
    Links(BTreeMap<String, LinkInfo>),
    Local(BTreeSet<IpAddr>),
    /// By target.
    NextHops(BTreeMap<IpAddr, NextHop>),
    Routes(RouteTable),
}

#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    #[error("cannot ask the kernel for {what}")]
    Ask {
        what: &'static str,
        #[source]
        source: rtnetlink::Error,
    },
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Router {
    targets: watch::Sender<BTreeSet<IpAddr>>,
    handle: Handle,
    task: JoinHandle<()>,
}

impl Router {
    /// Begins to watch the network namespace of the calling thread; must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel gives no netlink socket, or does not answer on it.
    pub async fn start() -> Result<(Self, mpsc::Receiver<Event>), RoutesError> {
        let mut connections = JoinSet::new();
        let handle = connect(&mut connections)?;
        let notifications = subscribe(&mut connections)?;
        let (targets, wanted) = watch::channel(BTreeSet::new());
        let (events, receiver) = mpsc::channel(16);
        let mut watcher = Watcher {
            connections,
            handle: handle.clone(),
            wanted,
            events,
            picture: Picture::default(),
            numbers: Numbers::default(),
            routes: Arc::default(),
            told: Told::default(),
            asked: HashMap::new(),
        };
        watcher.read(Stale::ALL).await?;
        let task = tokio::spawn(watcher.run(notifications));
        let router = Self {
            targets,
            handle,
            task,
        };
        Ok((router, receiver))
    }

    /// Whose next hops [`Event::NextHops`] tells from now on.
    pub fn watch(&self, targets: BTreeSet<IpAddr>) {
        self.targets.send_if_modified(|old| {
            let changed = *old != targets;
            *old = targets;
            changed
        });
    }

    /// The link of that name, as it is now.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn link(&self, name: &str) -> Result<Option<LinkInfo>, RoutesError> {
        netlink::link_named(&self.handle, name).await
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NextHop {
    #[must_use]
    pub fn resolved(&self) -> bool {
        self.trouble.is_none()
    }

    fn unknown(trouble: Trouble) -> Self {
        Self {
            interface: 0,
            device: String::new(),
            source: Mac::default(),
            destination: Mac::default(),
            mtu: 0,
            trouble: Some(trouble),
        }
    }
}

impl RouteTable {
    /// The next hop for `address`; `None`: ask the kernel's FIB.
    #[must_use]
    pub fn look_up(&self, address: IpAddr) -> Option<&NextHop> {
        self.hops.get(&table::look_up(&self.routes, address))
    }
}

impl RoutesError {
    fn asking(what: &'static str) -> impl Fn(rtnetlink::Error) -> Self {
        move |source| Self::Ask { what, source }
    }
}

type Notifications = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

fn connect(connections: &mut JoinSet<()>) -> Result<Handle, RoutesError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RoutesError::Open)?;
    connections.spawn(connection);
    Ok(handle)
}

fn subscribe(connections: &mut JoinSet<()>) -> Result<Notifications, RoutesError> {
    let (mut connection, _, notifications) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ])
    .map_err(RoutesError::Open)?;
    // Room for a burst of route changes; what overruns it is read again whole.
    let socket = connection.socket_mut().socket_mut();
    socket
        .set_rx_buf_sz(1_i32 << 20)
        .map_err(RoutesError::Open)?;
    connections.spawn(connection);
    Ok(notifications)
}

struct Watcher {
    /// End with it.
    connections: JoinSet<()>,
    handle: Handle,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    events: mpsc::Sender<Event>,
    picture: Picture,
    numbers: Numbers,
    /// Of the picture, compiled.
    routes: Arc<BTreeMap<IpNet, u32>>,
    told: Told,
    /// When each neighbour is to be asked for next, and how long to wait after that.
    asked: HashMap<Hop, Patience>,
}

/// What was told last.
#[derive(Default)]
struct Told {
    links: Option<BTreeMap<String, LinkInfo>>,
    local: Option<BTreeSet<IpAddr>>,
    next_hops: Option<BTreeMap<IpAddr, NextHop>>,
    routes: Option<RouteTable>,
}

#[derive(Clone, Copy)]
struct Patience {
    knowledge: Knowledge,
    next: Instant,
    wait: Duration,
}

/// Nobody listens any more.
struct Deaf;

impl Watcher {
    async fn run(mut self, mut notifications: Notifications) {
        let mut stale = Stale::default();
        let mut settled = Instant::now();
        if self.tell().await.is_err() {
            return;
        }
        loop {
            let due = if stale.any() {
                settled
            } else {
                self.ask().await
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    let begun = Instant::now();
                    // Neighbours are read again even if nothing was said: the tables may be larger than they were.
                    let reading = stale.and(Stale { neighbours: true, ..Stale::default() });
                    stale = Stale::default();
                    if let Err(error) = self.read(reading).await {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the routing tables");
                        stale = reading;
                    }
                    // A table that takes long to read is read less often.
                    settled = Instant::now() + begun.elapsed() * 4 + SETTLE;
                    if self.tell().await.is_err() {
                        return;
                    }
                }
                message = notifications.next() => {
                    if !stale.any() {
                        settled = settled.max(Instant::now() + SETTLE);
                    }
                    match message {
                        Some((message, _)) => stale = stale.and(Stale::by(&message)),
                        None => {
                            stale = Stale::ALL;
                            notifications = self.resubscribe().await;
                        }
                    }
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.find_paths().await;
                    if self.tell().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn resubscribe(&mut self) -> Notifications {
        loop {
            match subscribe(&mut self.connections) {
                Ok(notifications) => return notifications,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot watch the routing tables"
                    );
                    tokio::time::sleep(LONGEST_WAIT).await;
                }
            }
        }
    }

    async fn read(&mut self, stale: Stale) -> Result<(), RoutesError> {
        if stale.links {
            self.picture.links = netlink::links(&self.handle).await?;
        }
        if stale.addresses {
            self.picture.local = netlink::addresses(&self.handle).await?;
        }
        if stale.routes {
            self.picture.routes = netlink::routes(&self.handle).await?;
            let routes = self.numbers.compile(&self.picture.routes);
            if *self.routes != routes {
                self.routes = Arc::new(routes);
            }
        }
        if stale.neighbours {
            self.picture.neighbours = netlink::neighbours(&self.handle).await?;
        }
        if stale.routes || stale.links || stale.addresses {
            self.find_paths().await;
        }
        Ok(())
    }

    async fn find_paths(&mut self) {
        let targets = self.wanted.borrow_and_update().clone();
        let mut paths = BTreeMap::new();
        for target in targets {
            paths.insert(target, netlink::path(&self.handle, target).await);
        }
        self.picture.paths = paths;
    }

    async fn tell(&mut self) -> Result<(), Deaf> {
        let links = self.picture.links_by_name();
        tell(&self.events, &mut self.told.links, links, Event::Links).await?;
        let local = self.picture.local.clone();
        tell(&self.events, &mut self.told.local, local, Event::Local).await?;
        let next_hops = self.picture.next_hops();
        tell(
            &self.events,
            &mut self.told.next_hops,
            next_hops,
            Event::NextHops,
        )
        .await?;
        let routes = self.route_table();
        tell(&self.events, &mut self.told.routes, routes, Event::Routes).await
    }

    fn route_table(&self) -> RouteTable {
        let hops = self
            .numbers
            .hops()
            .map(|(hop, number)| (number, self.picture.next_hop(hop, None)))
            .collect();
        RouteTable {
            hops,
            routes: Arc::clone(&self.routes),
        }
    }

    /// Has the kernel ask for the neighbours that are due; answers when to come again.
    async fn ask(&mut self) -> Instant {
        let now = Instant::now();
        let gateways = self.numbers.hops().map(|(hop, _)| hop);
        let wanted = self.picture.wanted(gateways);
        self.asked.retain(|hop, _| wanted.contains_key(hop));
        let mut again = now + REREAD;
        for (hop, knowledge) in wanted {
            let Some(shortest) = patience(knowledge) else {
                self.asked.remove(&hop);
                continue;
            };
            let patience = self
                .asked
                .get(&hop)
                .copied()
                .filter(|patience| patience.knowledge == knowledge)
                .unwrap_or(Patience {
                    knowledge,
                    next: now,
                    wait: shortest,
                });
            let patience = if patience.next <= now {
                if let Err(error) = netlink::provoke(&self.handle, hop).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        ?hop,
                        "cannot ask for a neighbour"
                    );
                }
                Patience {
                    knowledge,
                    next: now + patience.wait,
                    wait: (patience.wait * 2).min(LONGEST_WAIT),
                }
            } else {
                patience
            };
            again = again.min(patience.next);
            self.asked.insert(hop, patience);
        }
        again
    }
}

/// How long to wait at first before asking again; `None`: no need to ask.
fn patience(knowledge: Knowledge) -> Option<Duration> {
    match knowledge {
        Knowledge::Sure => None,
        Knowledge::Stale => Some(LONGEST_WAIT),
        Knowledge::None => Some(SHORTEST_WAIT),
    }
}

async fn tell<T: Clone + PartialEq>(
    events: &mpsc::Sender<Event>,
    told: &mut Option<T>,
    now: T,
    event: fn(T) -> Event,
) -> Result<(), Deaf> {
    if told.as_ref() == Some(&now) {
        return Ok(());
    }
    *told = Some(now.clone());
    events.send(event(now)).await.map_err(|_| Deaf)
}

/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(20);
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
/// The kernel itself gives up after three seconds of asking.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Neighbours are read again after this long even if nobody said anything.
const REREAD: Duration = Duration::from_secs(30);
