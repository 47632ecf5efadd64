//! The clocks of the packet path, as user space reads them.

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

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
