//! Tells of dropped packets while somebody wants to know: a log, or one who follows; nobody listening costs nothing.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use foobar_ebpf::abi::{DropEvent, LabelKey};
use tokio::{
    sync::{broadcast, watch},
    task, time,
};

use super::{chain, facts::Facts, tellers::nanoseconds};
use crate::{
    config::LogTo,
    kernel::{self, Drops},
    monitor::{
        drops::{Named, line, rule_of},
        lines::{Line, Stream},
    },
};

pub async fn run(
    node: String,
    facts: watch::Receiver<Arc<Facts>>,
    lines: broadcast::Sender<Arc<Line>>,
    followed: broadcast::Sender<Arc<Line>>,
) {
    let mut reader: Option<Reader> = None;
    let mut is_silent = false;
    let mut tick = time::interval(EVERY);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (to, per_second, in_service) = {
            let facts = facts.borrow();
            let terms = &facts.config.log.drops;
            (terms.file.to.clone(), terms.per_second, facts.in_service)
        };
        let is_logged = to != LogTo::Nowhere;
        let is_wanted = in_service && (is_logged || followed.receiver_count() > 0);
        if !is_wanted {
            // The ring is closed, and nothing is put into it any more.
            reader = None;
            // One that was killed while it listened left the packet path talking.
            if in_service && !is_silent {
                is_silent = true;
                let silenced = task::block_in_place(|| Drops::open(&node)?.tell(0));
                if let Err(error) = silenced {
                    tracing::warn!("{}", chain(&error));
                }
            }
            continue;
        }
        let told = task::block_in_place(|| {
            let reader = match &mut reader {
                Some(reader) => reader,
                closed => closed.insert(Reader::open(&node)?),
            };
            reader.read(per_second)
        });
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!("drops cannot be told: {}", chain(&error));
                reader = None;
                time::sleep(AGAIN).await;
                continue;
            }
        };
        for line in told {
            let line = Arc::new(line);
            if is_logged {
                let _ = lines.send(line.clone());
            }
            // Nobody may be listening any more.
            let _ = followed.send(line);
        }
    }
}

struct Reader {
    node: String,
    drops: Drops,
    labels: HashMap<LabelKey, String>,
    /// One in so many is told by the packet path.
    one_in: u32,
}

impl Reader {
    fn open(node: &str) -> Result<Self, kernel::KernelError> {
        let mut drops = Drops::open(node)?;
        // What lay there from before is no news.
        while drops.take().is_some() {}
        drops.tell(1)?;
        Ok(Self {
            node: node.to_owned(),
            drops,
            labels: kernel::pinned::labels(node)?,
            one_in: 1,
        })
    }

    /// At most as many as a second may have; when more came, the packet path tells fewer from now on.
    fn read(&mut self, per_second: u32) -> Result<Vec<Line>, kernel::KernelError> {
        let budget = (per_second / PER_SECOND).max(1) as usize;
        let now = SystemTime::now();
        let at = humantime::format_rfc3339_millis(now).to_string();
        let mut told = Vec::new();
        let mut came = 0_usize;
        while let Some(event) = self.drops.take() {
            came += 1;
            if told.len() < budget {
                told.push(self.line(&event, now, &at)?);
            }
        }
        let one_in = if came > budget * 2 {
            self.one_in.saturating_mul(2).min(1 << 20)
        } else if came < budget / 4 {
            (self.one_in / 2).max(1)
        } else {
            self.one_in
        };
        if one_in != self.one_in {
            self.one_in = one_in;
            self.drops.tell(one_in)?;
        }
        Ok(told)
    }

    fn line(
        &mut self,
        event: &DropEvent,
        now: SystemTime,
        at: &str,
    ) -> Result<Line, kernel::KernelError> {
        let rule = rule_of(event).map(|id| LabelKey {
            kind: LabelKey::RULE,
            id,
        });
        let interface = LabelKey {
            kind: LabelKey::INTERFACE,
            id: event.interface,
        };
        // A reload may have named new ones.
        let is_new = |key: &LabelKey| !self.labels.contains_key(key);
        if is_new(&interface) || rule.as_ref().is_some_and(is_new) {
            self.labels = kernel::pinned::labels(&self.node)?;
        }
        let label = |key| self.labels.get(&key).map(String::as_str);
        let named = Named {
            interface: label(interface)
                .and_then(|label| label.split(' ').next())
                .unwrap_or("?"),
            rule: rule.and_then(label),
        };
        Ok(Line {
            at: nanoseconds(now),
            stream: Stream::Drops,
            text: line(event, named, at),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Err(error) = self.drops.tell(0) {
            tracing::warn!("{}", chain(&error));
        }
    }
}

const EVERY: Duration = Duration::from_millis(100);
const PER_SECOND: u32 = 10;
const AGAIN: Duration = Duration::from_secs(2);
