//! How many requests one client may make: a token bucket each, for a bounded number of clients.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

use crate::config::RequestRate;

/// Clients' buckets.
#[derive(Debug)]
pub struct Rates<K = IpAddr> {
    /// Tokens and when they were counted.
    buckets: HashMap<K, (f64, Instant)>,
    most: usize,
}

impl<K: Copy + Eq + Hash> Rates<K> {
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            buckets: HashMap::new(),
            most,
        }
    }

    /// Whether one more is within the rate.
    pub fn allow(&mut self, client: K, rate: &RequestRate, now: Instant) -> bool {
        self.make_room(rate, now);
        #[expect(clippy::cast_precision_loss, reason = "bursts are far below 2^52")]
        let burst = rate.burst as f64;
        let (tokens, at) = self.buckets.entry(client).or_insert((burst, now));
        let passed = now.saturating_duration_since(*at).as_secs_f64();
        *tokens = (*tokens + passed * per_second(rate)).min(burst);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    /// Full buckets say nothing. If all are in use, some go: for a moment their clients may do more, not less.
    fn make_room(&mut self, rate: &RequestRate, now: Instant) {
        if self.buckets.len() < self.most {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "bursts are far below 2^52")]
        let burst = rate.burst as f64;
        let rate = per_second(rate);
        self.buckets.retain(|_, (tokens, at)| {
            *tokens + now.saturating_duration_since(*at).as_secs_f64() * rate < burst
        });
        if self.buckets.len() >= self.most {
            let mut keep = false;
            self.buckets.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}

/// A client as limits see it: an IPv6 network has as many addresses as it likes.
#[must_use]
pub fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
fn per_second(rate: &RequestRate) -> f64 {
    rate.requests as f64 / rate.period.as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: RequestRate = RequestRate {
        requests: 10,
        period: Duration::from_secs(1),
        burst: 20,
    };

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut rates = Rates::new(100);
        let mut passed = |client: u32, at| {
            (0..1_000)
                .filter(|_| rates.allow(client, &RATE, at))
                .count()
        };
        assert_eq!(passed(1, start), 20);
        assert_eq!(passed(2, start), 20);
        assert_eq!(passed(1, start + Duration::from_secs(1)), 10);
        assert_eq!(passed(1, start + Duration::from_secs(100)), 20);
    }

    #[test]
    fn clients_are_bounded() {
        let start = Instant::now();
        let mut rates = Rates::new(100);
        for client in 0..10_000_u32 {
            rates.allow(client, &RATE, start);
            assert!(rates.buckets.len() <= 100);
        }
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let of = |text: &str| client(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
