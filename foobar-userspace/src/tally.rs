//! Where the proxy's counters stand in their one array of words, and how they are read again.
//!
//! The array is a memory-mapped BPF array, so that counters outlive the process and are read without it. A site and a
//! site's backend have a block of cells each, found by the dense ids of [`crate::labels`]; a cell only ever grows.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Sites and sites' backends that have blocks.
pub const MAX_SITES: u32 = 64;
pub const MAX_SITE_BACKENDS: u32 = 512;

/// Words of the whole array.
pub const WORDS: usize = DOOR + DOOR_WORDS;

macro_rules! cells {
    ($(#[$about:meta])* $name:ident { $($(#[$help:meta])* $cell:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name {
            $($(#[$help])* $cell,)*
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$cell,)*];

            /// As metrics name it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$cell => $text,)*
                }
            }
        }
    };
}

cells! {
    /// What is counted of a site.
    SiteCell {
        /// Requests whose head was understood.
        Requests = "requests",
        Status1xx = "status_1xx",
        Status2xx = "status_2xx",
        Status3xx = "status_3xx",
        Status4xx = "status_4xx",
        Status5xx = "status_5xx",
        /// Refused by the strictness of the proxy; each ends its connection. Many are an attack.
        Refused = "refused",
        /// Over the limit of requests of one client.
        Limited = "limited",
        /// 503 because the queue was full or too slow.
        Shed = "shed",
        /// 503 because the like of it killed a backend.
        HeldBack = "held_back",
        /// 503 because no backend could take it.
        Unavailable = "unavailable",
        /// The client went away before the answer was whole.
        ClientGone = "client_gone",
        /// A client was too slow with its head, its body, or in taking the answer.
        ClientSlow = "client_slow",
        Retries = "retries",
        /// Retries that the budget did not allow.
        RetriesDenied = "retries_denied",
        /// In flight on a backend that died or closed, and not tried again: that was not safe, or the answer had begun.
        Lost = "lost",
        BytesIn = "bytes_in",
        BytesOut = "bytes_out",
        ConnectionsOpened = "connections_opened",
        ConnectionsClosed = "connections_closed",
        Handshakes = "handshakes",
        Resumptions = "resumptions",
        HandshakesFailed = "handshakes_failed",
        Upgrades = "upgrades",
        Redirects = "redirects",
        /// Answered with the maintenance page.
        Maintenance = "maintenance",
        /// HTTP/2 connections ended because of a flood of frames.
        Floods = "floods",
        /// Clients reported for the jail.
        Offenders = "offenders",
    }
}

cells! {
    /// What is counted of a site's backend.
    BackendCell {
        /// Attempts, retries included.
        Requests = "requests",
        Status1xx = "status_1xx",
        Status2xx = "status_2xx",
        Status3xx = "status_3xx",
        Status4xx = "status_4xx",
        Status5xx = "status_5xx",
        Connects = "connects",
        ConnectFailures = "connect_failures",
        /// Connections that ended before the answer was whole.
        Resets = "resets",
        Timeouts = "timeouts",
        /// Answers that were no HTTP, or of doubtful end.
        BadAnswers = "bad_answers",
        Ejections = "ejections",
        /// Died under a request.
        Deaths = "deaths",
        /// Attempts that a request made here after another.
        Retries = "retries",
        BytesIn = "bytes_in",
        BytesOut = "bytes_out",
        /// Requests begun and ended: the difference is in flight.
        Begun = "begun",
        Ended = "ended",
    }
}

cells! {
    /// What became of connections before any request, whichever site they were for.
    DoorCell {
        Accepted = "accepted",
        /// More connections than may be at once.
        RefusedFull = "refused_full",
        /// More of one client than may be at once.
        RefusedClient = "refused_client",
        /// More handshakes of one client than its rate allows.
        RefusedRate = "refused_rate",
        /// Handshakes that failed: what the client sent, or could not do.
        HandshakesFailed = "handshakes_failed",
        /// Handshakes not finished in time.
        HandshakesTimedOut = "handshakes_timed_out",
        /// Names that no site has.
        UnknownName = "unknown_name",
        /// Connections that a trusted sender began without a good PROXY header.
        BadProxied = "bad_proxied",
        /// Faults of foobar's own: should stay 0 in production.
        Faults = "faults",
    }
}

/// The counters as writers and readers share them.
#[derive(Clone)]
pub struct Tally(Arc<dyn Deref<Target = [AtomicU64]> + Send + Sync>);

impl std::fmt::Debug for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Tally").finish()
    }
}

impl Tally {
    /// On an array of at least [`WORDS`] words; cells beyond a shorter one count nothing.
    #[must_use]
    pub fn new(words: Arc<dyn Deref<Target = [AtomicU64]> + Send + Sync>) -> Self {
        Self(words)
    }

    /// On memory of its own.
    #[must_use]
    pub fn private() -> Self {
        let words: Box<[AtomicU64]> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(words))
    }

    pub fn add(&self, site: u32, cell: SiteCell, amount: u64) {
        self.bump(site_block(site).map(|block| block + cell as usize), amount);
    }

    pub fn add_to_backend(&self, backend: u32, cell: BackendCell, amount: u64) {
        self.bump(
            backend_block(backend).map(|block| block + cell as usize),
            amount,
        );
    }

    pub fn add_at_door(&self, cell: DoorCell) {
        self.bump(Some(DOOR + cell as usize), 1);
    }

    /// An answer of the site to a client.
    pub fn answered(&self, site: u32, status: u16, took: Duration) {
        if let Some(block) = site_block(site) {
            self.bump(
                class(status).map(|class| block + SiteCell::Status1xx as usize + class),
                1,
            );
            self.bump(Some(block + SiteCell::ALL.len() + bucket(took)), 1);
        }
    }

    /// An answer of a backend.
    pub fn backend_answered(&self, backend: u32, status: u16, took: Duration) {
        if let Some(block) = backend_block(backend) {
            self.bump(
                class(status).map(|class| block + BackendCell::Status1xx as usize + class),
                1,
            );
            self.bump(Some(block + BackendCell::ALL.len() + bucket(took)), 1);
        }
    }

    #[must_use]
    pub fn site(&self, site: u32, cell: SiteCell) -> u64 {
        site_block(site).map_or(0, |block| self.read(block + cell as usize))
    }

    #[must_use]
    pub fn backend(&self, backend: u32, cell: BackendCell) -> u64 {
        backend_block(backend).map_or(0, |block| self.read(block + cell as usize))
    }

    #[must_use]
    pub fn at_door(&self, cell: DoorCell) -> u64 {
        self.read(DOOR + cell as usize)
    }

    /// From the head of the request to the end of the answer.
    #[must_use]
    pub fn site_latency(&self, site: u32) -> Latency {
        self.latency(site_block(site).map(|block| block + SiteCell::ALL.len()))
    }

    /// From the attempt to the head of its answer.
    #[must_use]
    pub fn backend_latency(&self, backend: u32) -> Latency {
        self.latency(backend_block(backend).map(|block| block + BackendCell::ALL.len()))
    }

    /// Sets a site's cells to nothing: its id has a new owner.
    pub fn clear_site(&self, site: u32) {
        self.clear(site_block(site), SITE_WORDS);
    }

    pub fn clear_backend(&self, backend: u32) {
        self.clear(backend_block(backend), BACKEND_WORDS);
    }

    fn bump(&self, at: Option<usize>, amount: u64) {
        if let Some(cell) = at.and_then(|at| self.0.get(at)) {
            cell.fetch_add(amount, Ordering::Relaxed);
        }
    }

    fn read(&self, at: usize) -> u64 {
        self.0
            .get(at)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    fn latency(&self, from: Option<usize>) -> Latency {
        let mut latency = Latency::default();
        if let Some(from) = from {
            for (bucket, count) in latency.counts.iter_mut().enumerate() {
                *count = self.read(from + bucket);
            }
        }
        latency
    }

    fn clear(&self, block: Option<usize>, words: usize) {
        for cell in block
            .and_then(|block| self.0.get(block..block + words))
            .unwrap_or_default()
        {
            cell.store(0, Ordering::Relaxed);
        }
    }
}

/// How many took how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Latency {
    pub counts: [u64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
        }
    }
}

impl Latency {
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What this share of them did not exceed: the upper end of a bucket, at most a quarter too much.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among counts; beyond 2^52 nobody asks for the last one"
        )]
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| upper_end(bucket))
        })
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(before.counts) {
            *count = count.saturating_sub(before);
        }
        Self { counts }
    }
}

/// The bucket's upper end, which belongs to the next one; four buckets to a doubling, from 16 us to 134 s.
#[must_use]
pub fn upper_end(bucket: usize) -> Duration {
    let octave = LOWEST + bucket / 4;
    let step = (1_u64 << octave) / 4;
    Duration::from_micros((1 << octave) + step * (bucket as u64 % 4))
}

fn bucket(took: Duration) -> usize {
    let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = microseconds.ilog2() as usize;
    if octave < LOWEST {
        return 0;
    }
    let quarter = usize::try_from((microseconds >> (octave - 2)) & 3).unwrap_or(0);
    (1 + (octave - LOWEST) * 4 + quarter).min(BUCKETS - 1)
}

fn class(status: u16) -> Option<usize> {
    (1..=5)
        .contains(&(status / 100))
        .then(|| usize::from(status / 100) - 1)
}

fn site_block(site: u32) -> Option<usize> {
    (site < MAX_SITES).then(|| site as usize * SITE_WORDS)
}

fn backend_block(backend: u32) -> Option<usize> {
    (backend < MAX_SITE_BACKENDS)
        .then(|| MAX_SITES as usize * SITE_WORDS + backend as usize * BACKEND_WORDS)
}

pub const BUCKETS: usize = 94;
/// 2^4 us is where the buckets begin.
const LOWEST: usize = 4;
const SITE_WORDS: usize = 128;
const BACKEND_WORDS: usize = 120;
const DOOR_WORDS: usize = 32;
/// After all blocks.
const DOOR: usize = MAX_SITES as usize * SITE_WORDS + MAX_SITE_BACKENDS as usize * BACKEND_WORDS;

const _: () = assert!(SiteCell::ALL.len() + BUCKETS <= SITE_WORDS);
const _: () = assert!(BackendCell::ALL.len() + BUCKETS <= BACKEND_WORDS);
const _: () = assert!(DoorCell::ALL.len() <= DOOR_WORDS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_read_again_and_nothing_else() {
        let tally = Tally::private();
        tally.add(1, SiteCell::Retries, 3);
        tally.add_to_backend(0, BackendCell::Resets, 2);
        tally.add_at_door(DoorCell::RefusedRate);
        tally.answered(1, 204, Duration::from_millis(3));
        assert_eq!(tally.site(1, SiteCell::Retries), 3);
        assert_eq!(tally.site(1, SiteCell::Status2xx), 1);
        assert_eq!(tally.backend(0, BackendCell::Resets), 2);
        let door: Vec<u64> = DoorCell::ALL
            .iter()
            .map(|cell| tally.at_door(*cell))
            .collect();
        assert_eq!(door, [0, 0, 0, 1, 0, 0, 0, 0, 0]);
        let sum: u64 = (0..MAX_SITES)
            .flat_map(|site| SiteCell::ALL.iter().map(move |cell| (site, *cell)))
            .map(|(site, cell)| tally.site(site, cell))
            .sum();
        assert_eq!(sum, 4);
        tally.clear_site(1);
        assert_eq!(tally.site(1, SiteCell::Retries), 0);
        assert_eq!(tally.backend(0, BackendCell::Resets), 2);
    }

    #[test]
    fn ids_beyond_the_array_count_nothing() {
        let tally = Tally::private();
        tally.add(MAX_SITES, SiteCell::Requests, 1);
        tally.add_to_backend(MAX_SITE_BACKENDS, BackendCell::Requests, 1);
        assert_eq!(tally.site(MAX_SITES, SiteCell::Requests), 0);
    }

    #[test]
    fn quantiles_are_at_most_a_quarter_too_much() {
        let tally = Tally::private();
        for milliseconds in 1..=100 {
            tally.answered(0, 200, Duration::from_millis(milliseconds));
        }
        let latency = tally.site_latency(0);
        assert_eq!(latency.count(), 100);
        for (share, exact) in [(0.5, 50_u32), (0.99, 99), (1.0, 100)] {
            let found = latency.quantile(share).unwrap();
            let exact = Duration::from_millis(exact.into());
            assert!(
                found >= exact && found <= exact * 5 / 4,
                "{share}: {found:?}"
            );
        }
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    #[test]
    fn every_duration_is_below_the_upper_end_of_its_bucket() {
        for shift in 0..27 {
            for near in [-1_i64, 0, 1] {
                let microseconds = ((1_i64 << shift) + near).max(0).unsigned_abs();
                let took = Duration::from_micros(microseconds);
                let bucket = bucket(took);
                assert!(took < upper_end(bucket), "{took:?}");
                assert!(bucket == 0 || took >= upper_end(bucket - 1), "{took:?}");
            }
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
