//! A balancer: a controller that sees and moves servers, and a packet path that goes on without it.

use std::time::{Duration, Instant};

use crate::mysql::{
    cluster::{Cluster, Fallback, Limits, Memory, Mode, Now, OnWriteStall, RejoinWish},
    lag::{LagLimits, Readable},
    leadership::Leadership,
    task::Order,
};

pub const STEP: Duration = Duration::from_millis(100);

pub struct Balancer {
    pub cluster: Cluster,
    limits: Limits,
    pub pending: Vec<Order>,
    /// Servers that do not answer it, though they may be up.
    pub hidden: [bool; 3],
    /// Its sessions that would hold locks are lost.
    pub barred: bool,
    /// The controller stands still for this many steps more, or has been for so many.
    pub asleep: u32,
    pub slept: u32,
    pub path: Path,
    pub leadership: Leadership,
    /// Failovers that it has made, as its memory counts them.
    pub failovers: u64,
}

/// What the kernel was told last.
#[derive(Clone, Debug, Default)]
pub struct Path {
    writer: Option<usize>,
    lease: Option<Instant>,
}

impl Balancer {
    pub fn new(rank: usize, lease: Option<Duration>) -> Self {
        let limits = Limits {
            mode: Mode::Promote,
            every: STEP,
            fall: 3,
            heartbeat: Duration::from_millis(300),
            lag: LagLimits {
                soft: Duration::from_secs(5),
                hard: Duration::from_secs(50),
            },
            fallback: Fallback::LeastLagged,
            on_write_stall: OnWriteStall::Alarm,
            rejoin: RejoinWish::Automatic,
            cool_down: COOL_DOWN,
            lease,
            balancers: 2,
            own: Vec::new(),
            who: format!("lb{}", rank + 1),
        };
        Self {
            cluster: cluster(&limits, Memory::default()),
            limits,
            pending: Vec::new(),
            hidden: [false; 3],
            barred: false,
            asleep: 0,
            slept: 0,
            path: Path::default(),
            leadership: Leadership::new(3, rank),
            failovers: 0,
        }
    }

    /// The controller crashes, and another one begins with what the first wrote down and what the kernel holds.
    pub fn restart(&mut self) {
        self.cluster = cluster(&self.limits, self.cluster.memory().clone());
        if let Some(writer) = self.path.writer {
            self.cluster.take_up(writer);
        }
        self.pending.clear();
    }

    pub const fn is_awake(&self) -> bool {
        self.asleep == 0
    }

    /// Brings the packet path to what was decided; before every member was looked at it stays as it is.
    pub fn steer(&mut self) {
        if !self.cluster.knows_all() {
            return;
        }
        let steering = self.cluster.steering();
        let writer = steering
            .writes
            .iter()
            .position(|writes| *writes != Readable::No);
        self.path = Path {
            writer,
            lease: self.cluster.lease(),
        };
    }

    /// Whom a packet for the writer address reaches.
    pub fn leads_to(&self, now: Now) -> Option<usize> {
        let lapsed =
            self.limits.lease.is_some() && self.path.lease.is_none_or(|lease| lease <= now.instant);
        self.path.writer.filter(|_| !lapsed)
    }
}

fn cluster(limits: &Limits, memory: Memory) -> Cluster {
    let names = (1..=3).map(|id| (format!("web{id}"), 3306)).collect();
    Cluster::new(limits.clone(), names, memory)
}

pub const COOL_DOWN: Duration = Duration::from_secs(60);
