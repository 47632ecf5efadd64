//! Who waits for a backend, and who is told at once to come again later.

use std::time::Duration;

use crate::config::Queue;

/// How a site stands when a request comes.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests at backends, and the most there may be.
    pub in_flight: u32,
    pub room: u32,
    /// Requests that wait already.
    pub waiting: u32,
    /// What an answer takes.
    pub service: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    Enter,
    /// At most so long.
    Wait(Duration),
    Shed,
}

/// A request waits only if its turn is likely to come in time: a queue that is longer than that makes every request in
/// it late, and helps none.
#[must_use]
pub fn admit(load: Load, queue: &Queue) -> Admission {
    if load.in_flight < load.room && load.waiting == 0 {
        return Admission::Enter;
    }
    if load.room == 0 || load.waiting >= queue.length || expected_wait(load) > queue.wait {
        return Admission::Shed;
    }
    Admission::Wait(queue.wait)
}

/// With `room` servers, one gets free every `service / room`.
fn expected_wait(load: Load) -> Duration {
    load.service.saturating_mul(load.waiting + 1) / load.room.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: Queue = Queue {
        length: 100,
        wait: Duration::from_millis(500),
        retry_after: Duration::from_secs(1),
    };

    fn load(in_flight: u32, waiting: u32, service: u64) -> Load {
        Load {
            in_flight,
            room: 10,
            waiting,
            service: Duration::from_millis(service),
        }
    }

    #[test]
    fn who_finds_room_enters() {
        assert_eq!(admit(load(9, 0, 10_000), &QUEUE), Admission::Enter);
    }

    #[test]
    fn who_would_wait_too_long_is_shed_at_once() {
        let wait = Admission::Wait(QUEUE.wait);
        assert_eq!(admit(load(10, 0, 100), &QUEUE), wait);
        assert_eq!(admit(load(10, 48, 100), &QUEUE), wait);
        assert_eq!(admit(load(10, 50, 100), &QUEUE), Admission::Shed);
        assert_eq!(admit(load(10, 100, 0), &QUEUE), Admission::Shed);
        assert_eq!(admit(load(10, 0, 6_000), &QUEUE), Admission::Shed);
    }

    #[test]
    fn nobody_overtakes_those_who_wait() {
        assert_eq!(admit(load(9, 1, 1), &QUEUE), Admission::Wait(QUEUE.wait));
    }

    #[test]
    fn a_site_without_room_keeps_nobody_waiting() {
        let nowhere = Load {
            room: 0,
            ..load(0, 0, 1)
        };
        assert_eq!(admit(nowhere, &QUEUE), Admission::Shed);
    }
}
