//! The connection that moves roles: it holds this cluster's lock, and what it does it does by that right.
//!
//! `GET_LOCK` belongs to the session. A controller that stands still loses its sessions, with them its locks, and the
//! statements that it still wanted to send have nowhere to go.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use super::{
    Endpoint, Talk, mariadb, mysql,
    talk::{quoted, text},
};
use crate::mysql::{
    Failure,
    leadership::Hold,
    observation::Make,
    task::{Order, Report, Task},
};

/// What a hand says.
#[derive(Debug)]
pub enum Heard {
    Lock { member: usize, hold: Hold },
    Report { number: u64, report: Report },
}

/// What it takes to be told to follow another member.
#[derive(Clone, Debug)]
pub struct Stage {
    /// By member: where servers reach it.
    pub members: Vec<SocketAddr>,
    pub replication: Peer,
    /// Whose terms these are.
    pub who: String,
}

#[derive(Clone)]
pub struct Peer {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.user)
    }
}

#[derive(Debug)]
pub struct Hand {
    member: usize,
    talk: Talk,
    lock: String,
    stage: Stage,
    make: Option<Make>,
    held: bool,
}

impl Hand {
    #[must_use]
    pub fn new(member: usize, endpoint: Endpoint, cluster: &str, stage: Stage) -> Self {
        // A session that says nothing for that long is ended by the server, and its lock is free.
        let opening = vec!["SET SESSION wait_timeout = 2".to_owned()];
        Self {
            member,
            talk: Talk::new(endpoint, opening),
            lock: quoted(&format!("foobar:{cluster}")),
            stage,
            make: None,
            held: false,
        }
    }

    /// Keeps the lock and carries out orders, until nobody gives any.
    pub async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        yields: watch::Receiver<bool>,
        heard: mpsc::Sender<Heard>,
    ) {
        let mut renewal = time::interval(RENEW);
        let mut told = None;
        renewal.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    let number = order.number;
                    let yields = *yields.borrow();
                    let report = self.carry_out(order, yields).await;
                    if heard.send(Heard::Report { number, report }).await.is_err() {
                        return;
                    }
                }
                _ = renewal.tick() => {
                    let yields = *yields.borrow();
                    let hold = self.hold(yields).await.unwrap_or_else(|failure| {
                        tracing::debug!(member = self.member, "no lock: {failure}");
                        self.make = None;
                        Hold::Nobody
                    });
                    self.held = hold == Hold::Own;
                    if told != Some(hold) {
                        told = Some(hold);
                        let member = self.member;
                        if heard.send(Heard::Lock { member, hold }).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Takes the lock, keeps it or lets go of it; who has it then.
    async fn hold(&mut self, yields: bool) -> Result<Hold, Failure> {
        let until = Instant::now() + RENEW_WITHIN;
        let lock = &self.lock;
        if !self.talk.is_open() || self.make.is_none() {
            self.held = false;
            self.make = Some(self.talk.make(until).await?);
        }
        if !yields && !self.held {
            let take = format!("SELECT GET_LOCK({lock}, 0)");
            self.talk.rows_here(&take, until).await?;
        } else if yields && self.held {
            let release = format!("SELECT RELEASE_LOCK({lock})");
            self.talk.rows_here(&release, until).await?;
        }
        let sql = format!("SELECT IS_USED_LOCK({lock}) = CONNECTION_ID()");
        let rows = self.talk.rows_here(&sql, until).await?;
        Ok(match rows.first().map(|row| text(row, 0)).as_deref() {
            Some("1") => Hold::Own,
            Some("0") => Hold::Another,
            _ => Hold::Nobody,
        })
    }

    async fn carry_out(&mut self, order: Order, yields: bool) -> Report {
        let until = Instant::now() + order.within;
        let (task, member) = (order.task, self.member);
        // A member that has just come back is asked before its lock was due to be taken again; but one that came back since it
        // was found to be a witness may be none any more.
        if !self.held && !yields && task != Task::StopReceiving {
            self.held = matches!(self.hold(false).await, Ok(Hold::Own));
        }
        if !self.held {
            return Report::Failed("its lock is not held".to_owned());
        }
        let done = match self.make {
            Some(Make::Mariadb) => {
                mariadb::perform(&mut self.talk, &task, &self.stage, until).await
            }
            Some(Make::Mysql) => mysql::perform(&mut self.talk, &task, &self.stage, until).await,
            None => Err(Failure::Ours("never seen".to_owned())),
        };
        match done {
            Ok(position) => {
                tracing::info!(member, "{task}: done");
                Report::Done(position)
            }
            Err(failure) => {
                tracing::warn!(member, "{task}: {failure}");
                Report::Failed(format!("{task}: {failure}"))
            }
        }
    }
}

const RENEW: Duration = Duration::from_millis(300);
const RENEW_WITHIN: Duration = Duration::from_millis(500);
