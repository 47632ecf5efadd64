//! Tells targets of alerts: the journal, webhooks, Alertmanagers, programs.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinHandle,
    time,
};

use super::{chain, facts::Facts};
use crate::{
    config::{Notify, NotifyBy, Revealed},
    courier::{Courier, CourierError, Parcel},
    monitor::{
        alert::News,
        lines::{Line, Stream},
        notice::Notice,
        outbox::Outcome,
        watch::JOURNAL,
    },
};

pub async fn run(
    mut notices: mpsc::Receiver<Notice>,
    facts: watch::Receiver<Arc<Facts>>,
    courier: Courier,
    lines: broadcast::Sender<Arc<Line>>,
) {
    // What an alert tells a target comes in its order: an end that overtook a beginning would never be told.
    let mut last: BTreeMap<(String, String), JoinHandle<()>> = BTreeMap::new();
    while let Some(notice) = notices.recv().await {
        if notice.target == JOURNAL {
            write_down(&notice);
            // Nobody may be listening.
            let _ = lines.send(Arc::new(line(&notice)));
            continue;
        }
        let target = facts.borrow().config.notify.get(&notice.target).cloned();
        if let Some(target) = target {
            let course = (notice.target.clone(), notice.alert.clone());
            let before = last.remove(&course);
            // A target that hangs must not keep the others waiting.
            let told = tokio::spawn(after(before, tell(courier.clone(), target, notice)));
            last.insert(course, told);
        }
    }
}

async fn after(before: Option<JoinHandle<()>>, act: impl Future<Output = ()>) {
    if let Some(before) = before {
        // However it ended.
        let _ = before.await;
    }
    act.await;
}

fn write_down(notice: &Notice) {
    let Notice {
        alert,
        severity,
        summary,
        metric,
        value,
        ..
    } = notice;
    let service = notice.of.as_deref();
    match notice.news {
        News::Fires => {
            tracing::warn!(target: "alert", alert, severity, metric, service, value, "fires: {summary}");
        }
        News::StillFires => {
            tracing::warn!(target: "alert", alert, severity, metric, service, value, "still fires: {summary}");
        }
        News::Ends => {
            tracing::info!(target: "alert", alert, severity, metric, service, value, "ended: {summary}");
        }
    }
}

fn line(notice: &Notice) -> Line {
    Line {
        at: nanoseconds(SystemTime::now()),
        stream: Stream::Alerts,
        text: notice.webhook()["alerts"][0].to_string(),
    }
}

pub fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

/// Three times, for a night's page must not be lost to one reset connection.
async fn tell(courier: Courier, target: Notify, notice: Notice) {
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=ATTEMPTS {
        let failure = match attempt_to_tell(&courier, &target, &notice).await {
            Ok(()) => return,
            Err(failure) => failure,
        };
        if attempt == ATTEMPTS || failure.is_final {
            tracing::error!(
                alert = notice.alert,
                target = target.name,
                "nobody was told: {}",
                failure.why
            );
            return;
        }
        time::sleep(pause).await;
        pause *= 4;
    }
}

struct Failure {
    why: String,
    is_final: bool,
}

impl From<CourierError> for Failure {
    fn from(error: CourierError) -> Self {
        Self {
            why: chain(&error),
            is_final: matches!(error, CourierError::Url | CourierError::Header(_)),
        }
    }
}

async fn attempt_to_tell(
    courier: &Courier,
    target: &Notify,
    notice: &Notice,
) -> Result<(), Failure> {
    match &target.by {
        NotifyBy::Webhook(secret) => {
            let url = secret.reveal().map_err(|error| Failure {
                why: chain(&error),
                is_final: true,
            })?;
            post(courier, url, notice.webhook()).await
        }
        NotifyBy::Alertmanager(base) => {
            let url = Revealed::from(format!("{base}/api/v2/alerts"));
            post(courier, url, notice.alertmanager()).await
        }
        NotifyBy::Command(words) => {
            let input = notice.webhook().to_string();
            Ok(courier.run(words, input.as_bytes()).await?)
        }
    }
}

async fn post(courier: &Courier, url: Revealed, body: serde_json::Value) -> Result<(), Failure> {
    let answer = courier
        .post(Parcel {
            url,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        })
        .await?;
    match Outcome::of_status(answer.status, answer.retry_after) {
        Outcome::Taken => Ok(()),
        Outcome::Later { why, .. } => Err(Failure {
            why,
            is_final: false,
        }),
        Outcome::Refused { why } | Outcome::Stopped { why } => Err(Failure {
            why,
            is_final: true,
        }),
    }
}

const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn an_end_waits_for_its_beginning_to_be_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = |what: &'static str| {
            let told = told.clone();
            async move {
                tokio::task::yield_now().await;
                told.lock().expect("no panic").push(what);
            }
        };
        let begins = tokio::spawn(tell("fires"));
        after(Some(begins), tell("ends")).await;
        assert_eq!(*told.lock().expect("no panic"), ["fires", "ends"]);
    }
}
