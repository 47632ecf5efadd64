//! Database clusters under way: a task for each, which watches, decides and acts; the packet path follows what it says.

mod conduct;
mod guarding;
mod journal;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use self::conduct::{Conductor, Wanted};
use crate::{
    admin::api::{ClusterStatus, MysqlCommand, Refusal, Response},
    balancer::Availability,
    config::{EndpointRole, MysqlService},
};

/// Whom the addresses of a cluster lead to now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Steered {
    /// `mysql.app.write`, and what each member gets there.
    pub endpoints: Vec<(String, Vec<Share>)>,
    pub lease: Option<Lease>,
}

/// Until when an address may be served; `None`: not at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    pub endpoint: String,
    pub until: Option<Instant>,
}

/// A member by host and port, and what it gets.
pub type Share = (String, u16, Availability);

#[derive(Debug)]
pub struct Clusters {
    node: String,
    directory: PathBuf,
    steered: mpsc::Sender<Steered>,
    running: BTreeMap<String, Running>,
    guards: BTreeMap<String, Guarding>,
    thread: Thread,
}

/// A runtime of one thread that does nothing else: what the controller's own are busy with makes no check late.
#[derive(Debug)]
struct Thread {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("databases")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(task).abort_handle()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // To wait for it is not allowed in a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A member on this node under guard.
#[derive(Debug)]
struct Guarding {
    service: MysqlService,
    task: AbortHandle,
}

impl Drop for Guarding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Running {
    service: MysqlService,
    status: Shared,
    commands: mpsc::Sender<Wanted>,
    task: AbortHandle,
}

/// The newest status, written by the task and read by whoever asks.
type Shared = Arc<Mutex<ClusterStatus>>;

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Clusters {
    /// # Errors
    /// When no thread can be started.
    pub fn new(node: String, directory: PathBuf) -> io::Result<(Self, mpsc::Receiver<Steered>)> {
        let (steered, receiver) = mpsc::channel(64);
        let clusters = Self {
            node,
            directory,
            steered,
            running: BTreeMap::new(),
            guards: BTreeMap::new(),
            thread: Thread::start()?,
        };
        Ok((clusters, receiver))
    }

    /// Conducts exactly these from now on; one whose configuration stays goes on undisturbed. `has_slots` tells who takes
    /// part in an endpoint already.
    pub fn aim<'a>(
        &mut self,
        services: impl Iterator<Item = &'a MysqlService>,
        has_slots: impl Fn(&str) -> BTreeSet<(String, u16)>,
    ) {
        let mut before = std::mem::take(&mut self.running);
        for service in services {
            let same = |running: &Running| is_same(&running.service, service);
            let running = match before.remove(&service.name) {
                Some(running) if same(&running) => running,
                other => {
                    drop(other);
                    let writers = has_slots(&service.endpoint(EndpointRole::Write));
                    self.begin(service, &writers)
                }
            };
            self.running.insert(service.name.clone(), running);
        }
    }

    /// Guards exactly the members of these that are on this node.
    pub fn guard<'a>(&mut self, services: impl Iterator<Item = &'a MysqlService>) {
        let mut before = std::mem::take(&mut self.guards);
        for service in services.filter(|service| service.guarded(&self.node).is_some()) {
            let same = |known: &Guarding| is_same(&known.service, service);
            let known = before.remove(&service.name).filter(same);
            let guarding = known.unwrap_or_else(|| self.begin_to_guard(service));
            self.guards.insert(service.name.clone(), guarding);
        }
    }

    fn begin_to_guard(&self, service: &MysqlService) -> Guarding {
        let (node, steered) = (self.node.clone(), self.steered.clone());
        let task = guarding::guard(service.clone(), node, steered);
        Guarding {
            service: service.clone(),
            task: self.thread.spawn(task),
        }
    }

    fn begin(&self, service: &MysqlService, writers: &BTreeSet<(String, u16)>) -> Running {
        let status = Shared::default();
        let (commands, wanted) = mpsc::channel(8);
        let conductor = Conductor::new(
            service.clone(),
            self.node.clone(),
            &self.directory,
            writers,
            self.steered.clone(),
            Arc::clone(&status),
        );
        let task = self.thread.spawn(conductor.run(wanted));
        Running {
            service: service.clone(),
            status,
            commands,
            task,
        }
    }

    pub fn status(&self) -> Vec<ClusterStatus> {
        self.running
            .values()
            .map(|running| {
                running
                    .status
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
            .collect()
    }

    /// Hands a command to its cluster, which answers when it is done.
    pub fn command(
        &self,
        cluster: Option<&str>,
        command: MysqlCommand,
        answer: oneshot::Sender<Result<Response, Refusal>>,
    ) {
        if command == MysqlCommand::Status {
            // The one who asked may have gone, here and below.
            let _ = answer.send(self.told(cluster));
            return;
        }
        match self.find(cluster) {
            Err(refusal) => drop(answer.send(Err(refusal))),
            Ok(running) => {
                if let Err(error) = running.commands.try_send(Wanted { command, answer }) {
                    let (mpsc::error::TrySendError::Full(wanted)
                    | mpsc::error::TrySendError::Closed(wanted)) = error;
                    let _ = wanted.answer.send(Err(Refusal::Conflict {
                        message: "the cluster is busy with other commands".to_owned(),
                    }));
                }
            }
        }
    }

    fn told(&self, cluster: Option<&str>) -> Result<Response, Refusal> {
        let all = self.status();
        match cluster {
            None => Ok(Response::Clusters(all)),
            Some(_) => {
                let name = format!("mysql.{}", self.find(cluster)?.service.name);
                Ok(Response::Clusters(
                    all.into_iter()
                        .filter(|status| status.name == name)
                        .collect(),
                ))
            }
        }
    }

    fn find(&self, cluster: Option<&str>) -> Result<&Running, Refusal> {
        let names = || {
            let names: Vec<_> = self
                .running
                .keys()
                .map(|name| format!("`{name}`"))
                .collect();
            match names.is_empty() {
                true => "there is none".to_owned(),
                false => format!("there is {}", names.join(", ")),
            }
        };
        match cluster {
            Some(name) => {
                let bare = name.strip_prefix("mysql.").unwrap_or(name);
                self.running.get(bare).ok_or_else(|| Refusal::NotFound {
                    message: format!("this node leads to no cluster `{name}`; {}", names()),
                })
            }
            None => match self.running.values().collect::<Vec<_>>().as_slice() {
                [one] => Ok(*one),
                _ => Err(Refusal::NotFound {
                    message: format!("name a cluster with --cluster; {}", names()),
                }),
            },
        }
    }
}

/// But for where it stands in the file.
fn is_same(known: &MysqlService, service: &MysqlService) -> bool {
    *known
        == MysqlService {
            place: known.place,
            ..service.clone()
        }
}
