//! The workers: threads with a runtime each, what they are told, and what is left when one dies.

#[cfg(test)]
mod tests;

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    time::{self, Instant},
};

use super::{
    Shared, Sites, Worker,
    admission::Admission,
    sockets::{BindError, Sockets},
    welcome::{Doorway, Post, Purpose, welcome},
};

/// What all workers go by.
#[derive(Clone, Debug)]
pub struct Standing {
    pub doorway: Arc<Doorway>,
    pub sites: Arc<Sites>,
    pub endpoints: BTreeMap<SocketAddr, Purpose>,
}

/// The workers of a node and the sockets that they accept from.
#[derive(Debug)]
pub struct Crew {
    sockets: Sockets,
    workers: Vec<Hand>,
    /// Threads that are one too many, until their last connection ends.
    leaving: Vec<JoinHandle<()>>,
    admission: Arc<Admission>,
    shared: Shared,
    standing: Standing,
}

#[derive(Debug)]
struct Hand {
    orders: mpsc::UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    Serve(Arc<Doorway>, Arc<Sites>),
    Listen(SocketAddr, Purpose, Vec<TcpListener>),
    /// The endpoint is no more: serve who waits, then close.
    Close(SocketAddr),
    /// Accept no more; the next process has the sockets.
    Leave,
    /// End when the last connection has, or then.
    Drain(Duration),
    /// Die, as by a fault of the worker's own.
    #[cfg(test)]
    Die,
}

impl Crew {
    /// Binds the endpoints and begins to accept; `sockets` are those that an earlier process listened on.
    ///
    /// # Errors
    /// An endpoint cannot be had; nothing runs then.
    pub fn start(
        workers: usize,
        mut sockets: Sockets,
        standing: Standing,
        admission: Arc<Admission>,
        shared: Shared,
    ) -> Result<Self, BindError> {
        let endpoints: BTreeSet<SocketAddr> = standing.endpoints.keys().copied().collect();
        sockets.keep(&endpoints);
        sockets.bind(&endpoints, workers)?;
        let mut crew = Self {
            sockets,
            workers: Vec::new(),
            leaving: Vec::new(),
            admission,
            shared,
            standing,
        };
        for index in 0..workers.max(1) {
            let hand = crew.hire(index);
            crew.workers.push(hand);
        }
        crew.share_out();
        Ok(crew)
    }

    /// Has so many workers from now on. Sockets are never closed, they change hands, so that nobody who waits in one is
    /// lost; a worker too many ends with its last connection, at the latest after `patience`.
    ///
    /// # Errors
    /// An endpoint cannot be bound once more; all stays as it was.
    pub fn resize(&mut self, workers: usize, patience: Duration) -> Result<(), BindError> {
        let workers = workers.max(1);
        if workers == self.workers.len() {
            return Ok(());
        }
        let endpoints = self.standing.endpoints.keys().copied().collect();
        self.sockets.bind(&endpoints, workers)?;
        for index in self.workers.len()..workers {
            let hand = self.hire(index);
            self.workers.push(hand);
        }
        let leaving = self.workers.split_off(workers);
        self.share_out();
        for Hand { orders, thread } in leaving {
            // One that died meanwhile has left already.
            let _ = orders.send(Order::Leave);
            let _ = orders.send(Order::Drain(patience));
            self.leaving.push(thread);
        }
        Ok(())
    }

    /// Gives every worker its part of all sockets, whatever it had before.
    fn share_out(&self) {
        for index in 0..self.workers.len() {
            self.assign(index, self.standing.endpoints.keys().copied().collect());
        }
    }

    fn hire(&self, index: usize) -> Hand {
        let (orders, inbox) = mpsc::unbounded_channel();
        let standing = self.standing.clone();
        let admission = self.admission.clone();
        let shared = self.shared.clone();
        let thread = thread::Builder::new()
            .name(format!("foobar-proxy-{index}"))
            .spawn(move || {
                let work = AssertUnwindSafe(|| work(inbox, standing, &admission, shared));
                if let Err(panic) = std::panic::catch_unwind(work) {
                    admission.fault();
                    tracing::error!("a worker of the proxy ended by a fault: {}", said(&*panic));
                }
            });
        match thread {
            Ok(thread) => Hand { orders, thread },
            Err(error) => {
                tracing::error!("cannot start a worker of the proxy: {error}");
                Hand {
                    orders,
                    // Looks like one that died: it is hired again at the next look.
                    thread: thread::spawn(|| {}),
                }
            }
        }
    }

    fn assign(&self, index: usize, endpoints: Vec<SocketAddr>) {
        for endpoint in endpoints {
            let Some(purpose) = self.standing.endpoints.get(&endpoint) else {
                continue;
            };
            match self.sockets.part(endpoint, index, self.workers.len()) {
                Ok(part) => self.tell(index, Order::Listen(endpoint, *purpose, part)),
                Err(error) => tracing::error!(%endpoint, "a worker cannot listen: {error}"),
            }
        }
    }

    fn tell(&self, index: usize, order: Order) {
        if let Some(hand) = self.workers.get(index) {
            // A worker that died is hired again by [`Self::look_after`], with all it needs to know.
            let _ = hand.orders.send(order);
        }
    }

    /// Has sockets for the endpoints too, from which nobody accepts yet.
    ///
    /// # Errors
    /// An endpoint cannot be had; everything stays as it was.
    pub fn bind(&mut self, endpoints: &BTreeSet<SocketAddr>) -> Result<(), BindError> {
        self.sockets.bind(endpoints, self.workers.len())
    }

    /// Closes what [`Self::bind`] brought.
    pub fn unbind(&mut self) {
        let endpoints = self.standing.endpoints.keys().copied().collect();
        self.sockets.keep(&endpoints);
    }

    /// Goes by `standing` from the next connection and request on; its endpoints are bound.
    pub fn change(&mut self, standing: Standing) {
        let differing = |one: &Standing, other: &Standing| -> Vec<SocketAddr> {
            one.endpoints
                .iter()
                .filter(|(endpoint, purpose)| other.endpoints.get(endpoint) != Some(purpose))
                .map(|(endpoint, _)| *endpoint)
                .collect()
        };
        let gone = differing(&self.standing, &standing);
        let new = differing(&standing, &self.standing);
        self.standing = standing;
        for index in 0..self.workers.len() {
            let Standing { doorway, sites, .. } = self.standing.clone();
            self.tell(index, Order::Serve(doorway, sites));
            for endpoint in &gone {
                self.tell(index, Order::Close(*endpoint));
            }
            self.assign(index, new.clone());
        }
        self.unbind();
    }

    /// Hires again who died; how many.
    pub fn look_after(&mut self) -> usize {
        self.leaving.retain(|thread| !thread.is_finished());
        let dead: Vec<usize> = self
            .workers
            .iter()
            .enumerate()
            .filter(|(_, hand)| hand.thread.is_finished())
            .map(|(index, _)| index)
            .collect();
        for index in &dead {
            let hand = self.hire(*index);
            if let Some(place) = self.workers.get_mut(*index) {
                *place = hand;
            }
            self.assign(*index, self.standing.endpoints.keys().copied().collect());
        }
        dead.len()
    }

    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    #[must_use]
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    #[must_use]
    pub fn size(&self) -> usize {
        self.workers.len()
    }

    /// Accepts no more, leaves the sockets to the next process, and ends when the last connection has, at the latest
    /// after `patience`.
    pub async fn hand_over(self, patience: Duration) {
        for index in 0..self.workers.len() {
            self.tell(index, Order::Leave);
        }
        self.end(patience).await;
    }

    /// Serves who waits to be accepted, takes no more, and ends when the last connection has, at the latest after
    /// `patience`.
    pub async fn drain(self, patience: Duration) {
        for index in 0..self.workers.len() {
            for endpoint in self.standing.endpoints.keys() {
                self.tell(index, Order::Close(*endpoint));
            }
        }
        self.end(patience).await;
    }

    async fn end(self, patience: Duration) {
        for index in 0..self.workers.len() {
            self.tell(index, Order::Drain(patience));
        }
        let workers = self.workers.into_iter().map(|hand| hand.thread);
        let threads: Vec<_> = workers.chain(self.leaving).collect();
        let ended = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // What it died of was told.
                let _ = thread.join();
            }
        });
        let _ = ended.await;
    }
}

fn work(
    inbox: mpsc::UnboundedReceiver<Order>,
    standing: Standing,
    admission: &Arc<Admission>,
    shared: Shared,
) {
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("a worker of the proxy has no runtime: {error}");
            return;
        }
    };
    let tally = shared.tally.clone();
    let reports = shared.reports.clone();
    runtime.block_on(async move {
        let post = Rc::new(Post {
            worker: Worker::new(standing.sites, shared),
            doorway: RefCell::new(standing.doorway),
            admission: admission.clone(),
            tally,
            reports,
        });
        obey(inbox, post).await;
    });
}

/// Until told to end.
async fn obey(mut inbox: mpsc::UnboundedReceiver<Order>, post: Rc<Post>) {
    let mut listening: BTreeMap<SocketAddr, watch::Sender<Listening>> = BTreeMap::new();
    let mut sweep = time::interval(SWEEP);
    loop {
        let order = tokio::select! {
            order = inbox.recv() => order,
            _ = sweep.tick() => {
                post.worker.sweep();
                continue;
            }
        };
        let Some(order) = order else { return };
        match order {
            Order::Serve(doorway, sites) => {
                post.doorway.replace(doorway);
                post.worker.adopt(sites);
            }
            Order::Listen(endpoint, purpose, sockets) => {
                let (stop, stopped) = watch::channel(Listening::On);
                for socket in sockets {
                    let door = accept(socket, endpoint, purpose, stopped.clone(), post.clone());
                    tokio::task::spawn_local(door);
                }
                listening.insert(endpoint, stop);
            }
            Order::Close(endpoint) => {
                if let Some(stop) = listening.remove(&endpoint) {
                    stop.send_replace(Listening::Last);
                }
            }
            Order::Leave => {
                for stop in std::mem::take(&mut listening).into_values() {
                    stop.send_replace(Listening::Off);
                }
            }
            #[cfg(test)]
            Order::Die => panic!("told to die"),
            Order::Drain(patience) => {
                // What was accepted in the last moment gets its request through first.
                tokio::task::yield_now().await;
                let ends = Instant::now() + patience;
                post.worker.drain();
                while Instant::now() < ends && Rc::strong_count(&post) > 1 {
                    time::sleep(LOOK).await;
                }
                return;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Listening {
    On,
    /// Who waits already is still served.
    Last,
    Off,
}

async fn accept(
    socket: TcpListener,
    endpoint: SocketAddr,
    purpose: Purpose,
    mut listening: watch::Receiver<Listening>,
    post: Rc<Post>,
) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%endpoint, "a worker cannot listen: {error}");
            return;
        }
    };
    loop {
        tokio::select! {
            biased;
            changed = listening.changed() => {
                let last = *listening.borrow();
                match (changed, last) {
                    (Ok(()), Listening::On) => {}
                    (_, Listening::Off) => return,
                    _ => break,
                }
            }
            accepted = listener.accept() => take(accepted, endpoint, purpose, &post).await,
        }
    }
    while let Some(accepted) = listener.accept().now_or_never() {
        if accepted.is_err() {
            return;
        }
        take(accepted, endpoint, purpose, &post).await;
    }
}

async fn take(
    accepted: io::Result<(tokio::net::TcpStream, SocketAddr)>,
    endpoint: SocketAddr,
    purpose: Purpose,
    post: &Rc<Post>,
) {
    match accepted {
        Ok((stream, from)) => {
            let connection = welcome(stream, from, endpoint, purpose, post.clone());
            tokio::task::spawn_local(contained(connection, post.admission.clone()));
        }
        Err(error) if is_of_one_connection(&error) => {}
        Err(error) => {
            // Out of file descriptors or memory: those that end give some back.
            tracing::warn!(%endpoint, "cannot accept: {error}");
            time::sleep(BREATH).await;
        }
    }
}

/// A fault in one connection ends that connection.
async fn contained(connection: impl Future<Output = ()>, admission: Arc<Admission>) {
    if let Err(panic) = AssertUnwindSafe(connection).catch_unwind().await {
        admission.fault();
        tracing::error!(
            "a connection ended by a fault of foobar's own: {}",
            said(&*panic)
        );
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// accept(2): the error is of the connection that was waiting, not of the socket.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown
    )
}

const LOOK: Duration = Duration::from_millis(20);
const SWEEP: Duration = Duration::from_secs(1);
const BREATH: Duration = Duration::from_millis(100);
