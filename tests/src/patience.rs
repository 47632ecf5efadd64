//! Waiting for what is to come, and saying what did not.

use std::{
    thread,
    time::{Duration, Instant},
};

/// What `look` finds, looked for again and again: for several times what a machine at rest needs, since others use it too.
///
/// # Panics
/// When nothing is found in time: a test's way to say what is missing.
#[track_caller]
pub fn within<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(seconds),
            "not within {seconds} s: {what}"
        );
        thread::sleep(AGAIN);
    }
}

/// The same for what only holds or does not.
#[track_caller]
pub fn holds_within(seconds: u64, what: &str, mut holds: impl FnMut() -> bool) {
    within(seconds, what, || holds().then_some(()));
}

const AGAIN: Duration = Duration::from_millis(50);
