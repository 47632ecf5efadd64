//! Who gets in: connections at once, in all and of one client, and the rate of one client's handshakes.
//!
//! One table for all workers, locked in parts and once a connection, never on a request's way.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use tokio::sync::Semaphore;

use crate::{
    config::{Proxy, RequestRate},
    tally::{DoorCell, Tally},
};

/// What a node's workers let in; see [`Proxy`] for the bounds.
#[derive(Debug)]
pub struct Admission {
    bounds: Bounds,
    connections: AtomicU32,
    parts: Vec<Mutex<HashMap<Client, Known>>>,
    hasher: RandomState,
    pub handshakes: Semaphore,
    tally: Tally,
    /// Of this process; the tally knows those of its predecessors too.
    faults: AtomicU32,
}

/// Bounds that a reload may change while connections are open.
#[derive(Debug)]
struct Bounds {
    most: AtomicU32,
    most_of_client: AtomicU32,
    rate: Mutex<RequestRate>,
}

/// Why a connection is closed as it comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    Client,
    Full,
    /// The how manieth time since it last got in.
    Rate(u32),
}

/// A connection that is in, until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    client: Client,
}

/// An IPv4 address, or the /64 of an IPv6 one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Client(u64);

#[derive(Debug)]
struct Known {
    connections: u32,
    tokens: f64,
    refused: u32,
    seen: Instant,
}

impl Admission {
    #[must_use]
    pub fn new(proxy: &Proxy, tally: Tally) -> Arc<Self> {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            bounds: Bounds {
                most: AtomicU32::new(proxy.max_connections),
                most_of_client: AtomicU32::new(proxy.max_connections_per_client),
                rate: Mutex::new(proxy.handshakes_per_client),
            },
            connections: AtomicU32::new(0),
            parts,
            hasher: RandomState::new(),
            handshakes: Semaphore::new(proxy.max_handshakes as usize),
            tally,
            faults: AtomicU32::new(0),
        })
    }

    /// New bounds for those who come from now on.
    pub fn change(&self, before: &Proxy, proxy: &Proxy) {
        let bounds = &self.bounds;
        bounds.most.store(proxy.max_connections, Ordering::Relaxed);
        bounds
            .most_of_client
            .store(proxy.max_connections_per_client, Ordering::Relaxed);
        *locked(&bounds.rate) = proxy.handshakes_per_client;
        let (before, now) = (
            before.max_handshakes as usize,
            proxy.max_handshakes as usize,
        );
        if now >= before {
            self.handshakes.add_permits(now - before);
        } else {
            self.handshakes.forget_permits(before - now);
        }
    }

    /// # Errors
    /// Which bound it would pass.
    pub fn admit(self: &Arc<Self>, client: IpAddr, now: Instant) -> Result<Admitted, Refused> {
        let client = Client::of(client);
        let result = self.let_in(client, now);
        self.count(match result {
            Ok(()) => DoorCell::Accepted,
            Err(Refused::Client) => DoorCell::RefusedClient,
            Err(Refused::Full) => DoorCell::RefusedFull,
            Err(Refused::Rate(_)) => DoorCell::RefusedRate,
        });
        result.map(|()| Admitted {
            admission: self.clone(),
            client,
        })
    }

    fn let_in(&self, client: Client, now: Instant) -> Result<(), Refused> {
        if self.connections.load(Ordering::Relaxed) >= self.bounds.most.load(Ordering::Relaxed) {
            return Err(Refused::Full);
        }
        let rate = *locked(&self.bounds.rate);
        let mut part = self.part(client);
        if part.len() >= MOST_KNOWN {
            forget(&mut part, rate, now);
        }
        let known = part.entry(client).or_insert_with(|| Known {
            connections: 0,
            tokens: burst(rate),
            refused: 0,
            seen: now,
        });
        known.refill(rate, now);
        if known.connections >= self.bounds.most_of_client.load(Ordering::Relaxed) {
            return Err(Refused::Client);
        }
        if known.tokens < 1.0 {
            known.refused += 1;
            return Err(Refused::Rate(known.refused));
        }
        known.refused = 0;
        known.tokens -= 1.0;
        known.connections += 1;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub fn count(&self, cell: DoorCell) {
        self.tally.add_at_door(cell);
    }

    /// A connection, or a worker, ended by a fault of foobar's own.
    pub fn fault(&self) {
        self.count(DoorCell::Faults);
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// [`Self::fault`]s since the start.
    #[must_use]
    pub fn faults(&self) -> u32 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    fn part(&self, client: Client) -> MutexGuard<'_, HashMap<Client, Known>> {
        // A client cannot aim at one part: the hash is keyed.
        let index = self.hasher.hash_one(client) as usize % self.parts.len().max(1);
        locked(&self.parts[index])
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(known) = self.admission.part(self.client).get_mut(&self.client) {
            known.connections = known.connections.saturating_sub(1);
        }
    }
}

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4))),
            // Global unicast never has these as its upper half, so no IPv4 address is among them.
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64 | 1 << 63),
        }
    }
}

impl Known {
    fn refill(&mut self, rate: RequestRate, now: Instant) {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        let earned = passed * rate.requests as f64 / rate.period.as_secs_f64();
        self.tokens = (self.tokens + earned).min(burst(rate));
        self.seen = now;
    }

    fn is_idle(&self, rate: RequestRate, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        let earned = passed * rate.requests as f64 / rate.period.as_secs_f64();
        self.connections == 0 && self.tokens + earned >= burst(rate)
    }
}

/// Those of whom nothing is known that a newcomer would not get too; under a flood of sources, all without connections.
fn forget(part: &mut HashMap<Client, Known>, rate: RequestRate, now: Instant) {
    part.retain(|_, known| !known.is_idle(rate, now));
    if part.len() >= MOST_KNOWN {
        part.retain(|_, known| known.connections > 0);
    }
}

fn burst(rate: RequestRate) -> f64 {
    rate.burst.max(1) as f64
}

/// What a thread that panicked left is counters: they are good enough.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PARTS: usize = 16;
/// In one part: some 100,000 clients in all, in a few megabytes.
const MOST_KNOWN: usize = 6_250;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn proxy() -> Proxy {
        Proxy {
            max_connections: 5,
            max_connections_per_client: 3,
            handshakes_per_client: RequestRate {
                requests: 2,
                period: Duration::from_secs(1),
                burst: 4,
            },
            ..Proxy::default()
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_client_gets_its_share_and_all_together_no_more_than_all() {
        let admission = Admission::new(&proxy(), Tally::private());
        let now = Instant::now();
        let admit = |client| admission.admit(address(client), now);
        let mut held: Vec<_> = (0..3).map(|_| admit("192.0.2.1").expect("room")).collect();
        assert_eq!(
            admit("192.0.2.1").expect_err("three are enough"),
            Refused::Client
        );
        held.push(admit("192.0.2.2").expect("another"));
        held.push(admit("2001:db8::1").expect("another"));
        assert_eq!(admit("192.0.2.3").expect_err("no room"), Refused::Full);
        held.clear();
        assert_eq!(admission.connections(), 0);
        admit("192.0.2.3").expect("room again");
    }

    #[test]
    fn handshakes_have_a_rate_and_a_burst() {
        let admission = Admission::new(&proxy(), Tally::private());
        let begun = Instant::now();
        let admit = |seconds| {
            let now = begun + Duration::from_secs(seconds);
            admission.admit(address("192.0.2.1"), now).map(drop)
        };
        let admitted = (0..10).filter(|_| admit(0).is_ok()).count();
        assert_eq!(admitted, 4);
        assert_eq!(admit(0), Err(Refused::Rate(7)), "six of ten before");
        assert_eq!((0..10).filter(|_| admit(1).is_ok()).count(), 2);
        assert_eq!((0..10).filter(|_| admit(100).is_ok()).count(), 4);
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        assert_eq!(
            Client::of(address("2001:db8::1")),
            Client::of(address("2001:db8::2"))
        );
        assert_ne!(
            Client::of(address("2001:db8::1")),
            Client::of(address("2001:db8:0:1::1"))
        );
        assert_eq!(
            Client::of(address("::ffff:192.0.2.1")),
            Client::of(address("192.0.2.1"))
        );
        assert_ne!(
            Client::of(address("0.0.0.1")),
            Client::of(address("::1:0:0:0:1"))
        );
    }

    #[test]
    fn many_sources_do_not_fill_the_memory() {
        let admission = Admission::new(&Proxy::default(), Tally::private());
        let now = Instant::now();
        for source in 0..300_000_u32 {
            drop(admission.admit(IpAddr::V4(source.into()), now));
        }
        let known: usize = admission.parts.iter().map(|part| locked(part).len()).sum();
        assert!(known <= PARTS * MOST_KNOWN, "{known}");
    }
}
