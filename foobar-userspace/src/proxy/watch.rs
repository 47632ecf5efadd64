//! A deadline that is cheap to move: a timer is touched only when it goes off too early.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::Sleep;

/// The deadline of whatever its task waits for.
#[derive(Debug)]
pub(super) struct Watch(RefCell<Timer>);

#[derive(Debug)]
struct Timer {
    deadline: Instant,
    /// When the timer goes off: never after the deadline.
    armed: Instant,
    sleep: Pin<Box<Sleep>>,
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Late;

impl Watch {
    pub(super) fn new(deadline: Instant) -> Self {
        Self(RefCell::new(Timer {
            deadline,
            armed: deadline,
            sleep: Box::pin(tokio::time::sleep_until(deadline.into())),
        }))
    }

    pub(super) fn set(&self, deadline: Instant) {
        let mut timer = self.0.borrow_mut();
        timer.deadline = deadline;
        if deadline < timer.armed {
            timer.arm(deadline);
        }
    }

    /// What `future` becomes, unless the deadline passes first.
    pub(super) async fn bound<F: Future>(&self, future: F) -> Result<F::Output, Late> {
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(context).map(Err),
        })
        .await
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Late> {
        let mut timer = self.0.borrow_mut();
        while timer.sleep.as_mut().poll(context).is_ready() {
            let deadline = timer.deadline;
            if Instant::now() >= deadline {
                return Poll::Ready(Late);
            }
            timer.arm(deadline);
        }
        Poll::Pending
    }
}

impl Timer {
    fn arm(&mut self, at: Instant) {
        self.armed = at;
        self.sleep.as_mut().reset(at.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_deadline_holds_wherever_it_was_moved() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let watch = Watch::new(at(10_000));
        watch.set(at(20));
        watch.set(at(60));
        assert_eq!(watch.bound(pending::<()>()).await, Err(Late));
        assert!(start.elapsed() >= Duration::from_millis(60));
        watch.set(Instant::now() + Duration::from_secs(10));
        assert_eq!(watch.bound(async { 7 }).await, Ok(7));
    }
}
