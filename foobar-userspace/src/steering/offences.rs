//! Who offended often enough to be put into the jail.

use std::{collections::HashMap, hash::Hash, net::IpAddr, time::Instant};

use crate::config::Jail;

/// Offences by client.
#[derive(Debug)]
pub struct Offences<K = IpAddr> {
    /// How many, and since when.
    counts: HashMap<K, (u32, Instant)>,
    most: usize,
}

impl<K: Copy + Eq + Hash> Offences<K> {
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            counts: HashMap::new(),
            most,
        }
    }

    /// One more; true when it is the one too many.
    pub fn commit(&mut self, client: K, jail: &Jail, now: Instant) -> bool {
        if self.counts.len() >= self.most && !self.counts.contains_key(&client) {
            self.counts
                .retain(|_, (_, since)| now.saturating_duration_since(*since) < jail.within);
            if self.counts.len() >= self.most {
                self.counts.clear();
            }
        }
        let (count, since) = self.counts.entry(client).or_insert((0, now));
        if now.saturating_duration_since(*since) >= jail.within {
            (*count, *since) = (0, now);
        }
        *count += 1;
        if *count < jail.after {
            return false;
        }
        self.counts.remove(&client);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn jail() -> Jail {
        Jail {
            set: "jail".to_owned(),
            after: 3,
            within: Duration::from_secs(60),
        }
    }

    #[test]
    fn the_third_offence_within_a_minute_is_one_too_many() {
        let start = Instant::now();
        let mut offences = Offences::new(10);
        let mut at = |seconds| offences.commit(1, &jail(), start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(2)], [false, false, true]);
        assert_eq!(
            [at(3), at(62), at(64), at(65)],
            [false, false, false, false]
        );
        assert!(at(66));
    }

    #[test]
    fn offenders_are_bounded() {
        let start = Instant::now();
        let mut offences = Offences::new(10);
        for client in 0..1_000 {
            offences.commit(client, &jail(), start);
            assert!(offences.counts.len() <= 10);
        }
    }
}
