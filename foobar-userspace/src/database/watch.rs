//! The checks of one member, again and again.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{self, Instant, MissedTickBehavior},
};

use super::{Endpoint, Talk, mariadb, mysql, standing::Standing, survey::survey_of, talk::text};
use crate::mysql::{
    Failure, Observation, Picture,
    observation::{Look, Make, Survey},
};

/// What came of a check.
#[derive(Debug)]
pub enum Seen {
    Checked {
        member: usize,
        observation: Observation,
        look: Look,
    },
    Surveyed {
        member: usize,
        survey: Survey,
    },
}

/// When a member is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// The first time.
    pub from: Instant,
    pub every: Duration,
    pub timeout: Duration,
}

/// Looks at a member every so often until nobody listens.
pub async fn watch(
    member: usize,
    endpoint: Endpoint,
    node: String,
    rhythm: Rhythm,
    seen: mpsc::Sender<Seen>,
) {
    let timeout = rhythm.timeout;
    let mut talk = Talk::new(endpoint, Vec::new());
    let mut known = None;
    let mut ticks = time::interval_at(rhythm.from, rhythm.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_survey = Instant::now();
    let mut pause = SURVEY;
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let picture = look(&mut talk, &mut known, &node, begun + timeout).await;
        let answered = picture.is_ok();
        let observation = match picture {
            Ok(picture) => Observation::Answered(Box::new(picture)),
            Err(failure) => {
                // Another server may answer at this address next; one that hangs is still the same.
                known = known.filter(|_| failure == Failure::TimedOut);
                Observation::Failed(failure)
            }
        };
        let look = Look {
            begun: begun.into_std(),
            took: begun.elapsed(),
        };
        if seen
            .send(Seen::Checked {
                member,
                observation,
                look,
            })
            .await
            .is_err()
        {
            return;
        }
        if answered && begun >= next_survey {
            next_survey = begun + SURVEY;
            let until = Instant::now() + timeout.max(SURVEY_WITHIN);
            let Some((make, standing)) = &mut known else {
                continue;
            };
            let questions = match make {
                Make::Mariadb => &mariadb::QUESTIONS,
                Make::Mysql => &mysql::QUESTIONS,
            };
            let survey = survey_of(&mut talk, standing, questions, until).await;
            match survey {
                Ok(survey) => {
                    pause = SURVEY;
                    if seen.send(Seen::Surveyed { member, survey }).await.is_err() {
                        return;
                    }
                }
                // Each that waits holds a session of the server's.
                Err(Failure::TimedOut) => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    next_survey = begun + pause;
                }
                // What keeps it from coming the next check tells.
                Err(_) => {}
            }
        }
    }
}

/// Looks at all beats of a member every so often, until nobody listens; when each look began.
pub async fn listen(
    endpoint: Endpoint,
    every: Duration,
    timeout: Duration,
    heard: mpsc::Sender<(Result<String, Failure>, Instant)>,
) {
    let mut talk = Talk::new(endpoint, Vec::new());
    let mut ticks = time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let beats = talk
            .rows(BEATS, begun + timeout)
            .await
            .map(|rows| rows.first().map(|row| text(row, 0)).unwrap_or_default());
        if heard.send((beats, begun)).await.is_err() {
            return;
        }
    }
}

async fn look(
    talk: &mut Talk,
    known: &mut Option<(Make, Standing)>,
    node: &str,
    until: Instant,
) -> Result<Picture, Failure> {
    let (make, standing) = match known {
        Some(known) => known,
        None => known.insert((talk.make(until).await?, Standing::default())),
    };
    match make {
        Make::Mariadb => mariadb::picture(talk, standing, node, until).await,
        Make::Mysql => mysql::picture(talk, standing, node, until).await,
    }
}

const SURVEY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SURVEY_WITHIN: Duration = Duration::from_secs(1);
/// Changes with every beat, whatever the balancers' clocks say.
const BEATS: &str = "SELECT CAST(SUM(at) AS CHAR) FROM foobar.heartbeat";
