//! Which backend gets a request, and which request gets none: pure decisions of the proxy.
//!
//! Time and randomness come in as arguments. A worker has one of each for a site; what all workers must know together
//! (held-back requests, clients' rates, offences) is small enough to stand behind a lock that only matters when asked.

pub mod blast;
pub mod budget;
pub mod choice;
pub mod ejection;
pub mod offences;
pub mod pace;
pub mod queue;
pub mod random;
pub mod rate;
pub mod shuffle;
pub mod warmth;
