//! The clocks of the packet path, as user space reads them, and how well the kernel's is kept.
#![expect(unsafe_code, reason = "nothing safe asks adjtimex(2)")]

use std::time::Duration;

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: what `Member::expires` and the buckets are measured by.
#[must_use]
pub fn coarse() -> u64 {
    nanoseconds(ClockId::MonotonicCoarse)
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn monotonic() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// A moment to come, as the packet path counts; 0 for one that is over. A process that is stopped in here comes out with
/// too early a moment, never with too late a one.
#[must_use]
pub fn at(moment: Instant) -> u64 {
    let now = monotonic();
    let left = moment.saturating_duration_since(Instant::now());
    match u64::try_from(left.as_nanos()) {
        Ok(0) | Err(_) => 0,
        Ok(left) => now.saturating_add(left),
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// How well the clock of the wall is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Discipline {
    /// Some program sets it by a source of time.
    pub is_kept: bool,
    /// By how much it may be wrong, as that program says.
    pub error: Duration,
}

/// `None` where the kernel does not say.
#[must_use]
pub fn discipline() -> Option<Discipline> {
    // SAFETY: a struct of integers, of which zero is a value; without modes the call changes nothing.
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such struct to where it was told.
    let state = unsafe { libc::adjtimex(&raw mut time) };
    (state >= 0).then(|| Discipline {
        is_kept: time.status & libc::STA_UNSYNC == 0,
        error: Duration::from_micros(u64::try_from(time.maxerror).unwrap_or_default()),
    })
}
