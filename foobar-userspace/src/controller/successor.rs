//! Giving the node to the process of another binary, or keeping it when that one cannot serve.

use std::{os::fd::AsFd as _, time::Duration};

use tokio::{
    sync::oneshot,
    task::{self, JoinHandle},
};

use super::{
    Controller, Signals, chain,
    notify::{State, notify},
    proxying::{Ending, Proxying},
};
use crate::{
    admin::api::{Apply, Refusal, Response},
    succession::{self, Estate, Heir, SuccessionError},
};

/// Why the loop was left.
pub enum Outcome {
    Stop,
    /// This process can take over.
    Succeeded(Heir),
}

type Answer = oneshot::Sender<Result<Response, Refusal>>;

/// A new process that is being started.
pub struct Succession {
    raising: JoinHandle<Result<Heir, SuccessionError>>,
    asker: Option<Answer>,
}

/// The new process, once it could serve; never where none is started.
pub async fn raised(succession: &mut Option<Succession>) -> Option<Result<Heir, SuccessionError>> {
    let succession = succession.as_mut()?;
    let raised = (&mut succession.raising).await;
    Some(raised.unwrap_or_else(|error| Err(std::io::Error::other(error).into())))
}

/// Until the last connection has ended, or no one wants to wait any more.
pub async fn end_proxy(proxying: Proxying, how: Ending, signals: &mut Signals) {
    tokio::select! {
        () = proxying.end(how) => {}
        _ = signals.terminate.recv() => {}
        _ = signals.interrupt.recv() => {}
    }
}

impl Controller {
    /// Starts the binary on the disk; `asker` hears what came of it.
    pub(super) fn raise(&mut self, asker: Option<Answer>) {
        let refused = match &self.succession {
            Some(_) => Some(Refusal::Conflict {
                message: "an upgrade is under way already".to_owned(),
            }),
            None if self.trial.is_some() => Some(Refusal::Conflict {
                message: "a reload is on trial; `foobar confirm` it first, or let it end"
                    .to_owned(),
            }),
            // What this binary would not read the next will hardly, and here the mistakes can be told.
            None => self.reload(Apply::DryRun).err(),
        };
        if let Some(refusal) = refused {
            tracing::error!("upgrade refused: {refusal}");
            tell(asker, Err(refusal));
            return;
        }
        let meeting = succession::meeting(&self.options.node);
        tracing::info!("starting the next process");
        self.succession = Some(Succession {
            raising: task::spawn_blocking(move || Heir::raise(&meeting, PATIENCE)),
            asker,
        });
    }

    /// Gives all away; by an error all is kept.
    pub(super) async fn hand_over(&mut self, mut heir: Heir) -> Result<(), SuccessionError> {
        if let Some(door) = &mut self.door {
            door.close();
        }
        let estate = Estate {
            tickets: self.proxying.tickets().to_hand_over(),
        };
        let pid = heir.pid();
        task::block_in_place(|| {
            let door = self.door.as_ref().ok_or_else(|| {
                std::io::Error::other("this process has no administration socket to hand over")
            })?;
            let sockets = self
                .proxying
                .sockets()
                .into_iter()
                .flat_map(|all| all.to_hand_over());
            let descriptors: Vec<_> = [self.lock.as_fd(), door.as_fd()]
                .into_iter()
                .chain(sockets)
                .collect();
            heir.bequeath(estate, &descriptors)
        })?;
        let served = task::spawn_blocking(move || heir.take_leave(PATIENCE)).await;
        served.map_err(std::io::Error::other)??;
        notify(State::Succeeded(pid));
        let asker = self
            .succession
            .take()
            .and_then(|succession| succession.asker);
        let message = format!("process {pid} serves now; this one ends with its last connection");
        tracing::info!("{message}");
        tell(asker, Ok(Response::Done { message }));
        Ok(())
    }

    /// Ends with the last connection; the node is another process's.
    pub(super) async fn retire(mut self, signals: &mut Signals) {
        self.monitoring.end();
        self.lock.leave();
        end_proxy(self.proxying, Ending::HandedOver, signals).await;
        tracing::info!("the last connection has ended");
    }

    /// Goes on as if nothing had been tried.
    pub(super) fn stay(&mut self, error: &SuccessionError) {
        let message = format!("not upgraded, this process serves on: {}", chain(error));
        tracing::error!("{message}");
        let asker = self
            .succession
            .take()
            .and_then(|succession| succession.asker);
        tell(asker, Err(Refusal::Failed { message }));
        if let Some(door) = &mut self.door
            && let Err(error) = door.reopen()
        {
            tracing::error!("the administration socket stays closed: {error}");
        }
        // The other may have written to the tables before it failed.
        let desired = self.desired.clone();
        let sizes = self.members.sizes();
        if let Err(refusal) = task::block_in_place(|| self.bring_all(&desired, sizes)) {
            tracing::error!("{refusal}");
        }
    }
}

fn tell(asker: Option<Answer>, answer: Result<Response, Refusal>) {
    if let Some(asker) = asker {
        // The one who asked may have gone.
        let _ = asker.send(answer);
    }
}

/// To load programs and rules into the kernel.
const PATIENCE: Duration = Duration::from_secs(30);
