//! What waits for a collector: bounded, oldest dropped first and counted, tried again with growing pauses.

use std::{collections::VecDeque, time::Duration};

use super::alert::Moment;

/// One request's body, ready to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    pub body: Vec<u8>,
}

/// What came of sending the front batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    Taken,
    /// Try again, at the earliest after what the collector asked for.
    Later {
        after: Option<Duration>,
        why: String,
    },
    /// This batch will never be taken.
    Refused {
        why: String,
    },
    /// The credentials are wrong: another attempt only makes noise.
    Stopped {
        why: String,
    },
}

impl Outcome {
    /// By the status of an answer.
    #[must_use]
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        let why = format!("the collector answered {status}");
        match status {
            200..=299 => Self::Taken,
            401 | 403 => Self::Stopped {
                why: format!("{why}: the secret is wrong or was renewed"),
            },
            408 | 425 | 429 | 500..=599 => Self::Later {
                after: retry_after,
                why,
            },
            _ => Self::Refused { why },
        }
    }
}

/// What became of all batches so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    pub sent: u64,
    pub failures: u64,
    pub dropped: u64,
}

#[derive(Debug)]
pub struct Outbox {
    capacity: u64,
    waiting: VecDeque<Batch>,
    bytes: u64,
    count: Count,
    /// Failures since the last success.
    in_a_row: u32,
    next_attempt: Moment,
    trouble: Option<String>,
    stopped: bool,
    /// The front was handed out.
    in_flight: bool,
}

impl Outbox {
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            waiting: VecDeque::new(),
            bytes: 0,
            count: Count::default(),
            in_a_row: 0,
            next_attempt: Moment::ZERO,
            trouble: None,
            stopped: false,
            in_flight: false,
        }
    }

    /// Adds a batch; the oldest make room for it.
    pub fn put(&mut self, batch: Batch) {
        self.bytes += batch.body.len() as u64;
        self.waiting.push_back(batch);
        while self.bytes > self.capacity {
            // What is under way may be taken yet.
            let oldest = usize::from(self.in_flight);
            let Some(dropped) = self.waiting.remove(oldest) else {
                break;
            };
            self.bytes -= dropped.body.len() as u64;
            self.count.dropped += 1;
        }
    }

    /// The batch to send now; [`Self::settle`] must follow.
    pub fn due(&mut self, now: Moment) -> Option<Batch> {
        if self.stopped || self.in_flight || now < self.next_attempt {
            return None;
        }
        let batch = self.waiting.front()?.clone();
        self.in_flight = true;
        Some(batch)
    }

    /// `jitter` is a random part of 1: nodes that lost a collector together do not come back together.
    pub fn settle(&mut self, outcome: Outcome, now: Moment, jitter: f64) {
        self.in_flight = false;
        match outcome {
            Outcome::Taken => {
                self.leave();
                self.count.sent += 1;
                self.in_a_row = 0;
                self.next_attempt = now;
                self.trouble = None;
            }
            Outcome::Refused { why } => {
                self.leave();
                self.count.failures += 1;
                self.count.dropped += 1;
                self.trouble = Some(why);
            }
            Outcome::Stopped { why } => {
                self.count.failures += 1;
                self.trouble = Some(why);
                self.stopped = true;
            }
            Outcome::Later { after, why } => {
                self.count.failures += 1;
                self.next_attempt = now + after.unwrap_or_default().max(self.pause(jitter));
                self.in_a_row += 1;
                self.trouble = Some(why);
            }
        }
        // A batch that came while a larger one was under way may be one too many now.
        if self.bytes > self.capacity
            && let Some(dropped) = self.waiting.pop_front()
        {
            self.bytes -= dropped.body.len() as u64;
            self.count.dropped += 1;
        }
    }

    /// The secret was renewed: one may try again.
    pub fn resume(&mut self) {
        self.stopped = false;
    }

    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    #[must_use]
    pub fn count(&self) -> Count {
        self.count
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.bytes
    }

    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn leave(&mut self) {
        if let Some(batch) = self.waiting.pop_front() {
            self.bytes -= batch.body.len() as u64;
        }
    }

    /// 1, 2, 4 … 60 seconds, of which at least half.
    fn pause(&self, jitter: f64) -> Duration {
        let whole = FIRST_PAUSE
            .saturating_mul(1 << self.in_a_row.min(10))
            .min(LONGEST_PAUSE);
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(number: u32) -> Batch {
        Batch {
            body: number.to_be_bytes().to_vec(),
        }
    }

    fn number(batch: &Batch) -> u32 {
        u32::from_be_bytes(batch.body.as_slice().try_into().expect("four bytes"))
    }

    fn seconds(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    /// A collector that does not answer until `back`; a batch every 30 seconds, for 20 minutes.
    fn outage(capacity: u64, back: u64) -> (Outbox, Vec<u32>) {
        let mut outbox = Outbox::new(capacity);
        let mut taken = Vec::new();
        for second in 0..1_200 {
            if second % 30 == 0 {
                outbox.put(batch(u32::try_from(second / 30).expect("small")));
            }
            while let Some(batch) = outbox.due(seconds(second)) {
                let outcome = if second < back {
                    Outcome::of_status(503, None)
                } else {
                    taken.push(number(&batch));
                    Outcome::Taken
                };
                outbox.settle(outcome, seconds(second), 0.5);
            }
        }
        (outbox, taken)
    }

    #[test]
    fn ten_minutes_without_a_collector_lose_nothing_within_the_buffer() {
        let (outbox, taken) = outage(1_000, 600);
        assert_eq!(taken, (0..40).collect::<Vec<_>>(), "all, in their order");
        assert_eq!(outbox.count().dropped, 0);
        assert_eq!(outbox.trouble(), None);
    }

    #[test]
    fn a_buffer_that_is_too_small_drops_the_oldest_and_says_so() {
        let (outbox, taken) = outage(10 * 4, 600);
        let lost = u32::try_from(outbox.count().dropped).expect("small");
        assert!(lost > 0);
        assert_eq!(taken, (lost..40).collect::<Vec<_>>());
    }

    #[test]
    fn pauses_grow_to_a_minute_and_the_collectors_wish_is_heard() {
        let mut outbox = Outbox::new(100);
        outbox.put(batch(0));
        let mut now = seconds(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            while outbox.due(now).is_none() {
                now += Duration::from_millis(100);
            }
            outbox.settle(Outcome::of_status(503, None), now, 1.0);
            pauses.push((outbox.next_attempt - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        while outbox.due(now).is_none() {
            now += seconds(1);
        }
        outbox.settle(Outcome::of_status(429, Some(seconds(300))), now, 1.0);
        assert_eq!(outbox.next_attempt - now, seconds(300));
    }

    #[test]
    fn wrong_credentials_stop_it_until_they_change() {
        let mut outbox = Outbox::new(100);
        outbox.put(batch(0));
        assert!(outbox.due(seconds(0)).is_some());
        outbox.settle(Outcome::of_status(401, None), seconds(0), 0.0);
        assert!(outbox.is_stopped());
        assert_eq!(outbox.due(seconds(9_999)), None);
        assert!(outbox.trouble().is_some_and(|why| why.contains("401")));
        outbox.resume();
        assert!(outbox.due(seconds(9_999)).is_some(), "nothing was lost");
    }

    #[test]
    fn what_is_refused_for_good_makes_way_for_the_next() {
        let mut outbox = Outbox::new(100);
        outbox.put(batch(0));
        outbox.put(batch(1));
        assert!(outbox.due(seconds(0)).is_some());
        outbox.settle(Outcome::of_status(400, None), seconds(0), 0.0);
        assert_eq!(outbox.due(seconds(0)).as_ref().map(number), Some(1));
        assert_eq!(outbox.count().dropped, 1);
    }

    proptest! {
        #[test]
        fn every_batch_is_sent_dropped_or_waiting_and_the_bound_holds(
            capacity in 4_u64..64,
            steps in prop::collection::vec((0_u8..3, 0_u16..600), 1..200),
        ) {
            let mut outbox = Outbox::new(capacity);
            let mut put = 0;
            for (second, (what, status)) in (0_u64..).zip(steps) {
                match what {
                    0 => {
                        outbox.put(batch(put));
                        put += 1;
                    }
                    _ => if outbox.due(seconds(second * 100)).is_some() {
                        outbox.settle(Outcome::of_status(status, None), seconds(second * 100), 0.5);
                        outbox.resume();
                    }
                }
                let count = outbox.count();
                prop_assert_eq!(
                    u64::from(put),
                    count.sent + count.dropped + outbox.waiting() as u64
                );
                prop_assert!(outbox.waiting_bytes() <= capacity);
                prop_assert_eq!(outbox.waiting_bytes(), outbox.waiting() as u64 * 4);
            }
        }
    }
}
