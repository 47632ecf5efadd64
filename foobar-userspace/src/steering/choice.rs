//! The choice among the backends that may take a request.

use super::random::Random;
use crate::{config::L7Balance, stable};

/// A backend as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its name's hash: a place in rendezvous hashing that no other backend's coming or going changes.
    pub identity: u64,
    /// Its share; 0: not to be chosen.
    pub weight: f64,
    /// Requests at it now.
    pub in_flight: u32,
    /// What an answer of it takes, in microseconds.
    pub latency: f64,
}

/// A site's way of choosing, with what it must remember.
#[derive(Debug, Default)]
pub struct Chooser {
    /// Of round robin: each backend's credit (smooth weighted round robin).
    credits: Vec<f64>,
}

impl Chooser {
    /// The index of the chosen one; `key` is the hash of what requests are kept together by.
    pub fn choose(
        &mut self,
        balance: &L7Balance,
        candidates: &[Candidate],
        key: Option<u64>,
        random: &mut Random,
    ) -> Option<usize> {
        if let Some(key) = key {
            return rendezvous(candidates, key);
        }
        match balance {
            L7Balance::PowerOfTwo => power_of_two(candidates, random),
            L7Balance::LeastConnections => least(candidates, random),
            L7Balance::RoundRobin => self.round_robin(candidates),
            L7Balance::Hrw(_) => rendezvous(candidates, random.next()),
        }
    }

    fn round_robin(&mut self, candidates: &[Candidate]) -> Option<usize> {
        self.credits.resize(candidates.len(), 0.0);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        for (credit, candidate) in self.credits.iter_mut().zip(candidates) {
            *credit += candidate.weight;
        }
        let chosen = best(candidates, |index, _| self.credits[index])?;
        self.credits[chosen] -= total;
        Some(chosen)
    }
}

/// The better of two that are drawn by weight: as even as looking at all, without all running to the same one.
fn power_of_two(candidates: &[Candidate], random: &mut Random) -> Option<usize> {
    let first = draw(candidates, None, random)?;
    let Some(second) = draw(candidates, Some(first), random) else {
        return Some(first);
    };
    // Whoever is never asked keeps the latency that he once had.
    if random.next().is_multiple_of(SECOND_CHANCE) {
        return Some(first);
    }
    let cost = |index: usize, other: usize| {
        let (candidate, other) = (candidates[index], candidates[other]);
        // What a new request would wait for; an untried backend counts as a fast one.
        let slowness = candidate.latency.max(1.0) / other.latency.max(1.0);
        let penalty = if slowness > ALIKE {
            slowness.sqrt()
        } else {
            1.0
        };
        penalty * f64::from(candidate.in_flight + 1) / candidate.weight
    };
    Some(if cost(second, first) < cost(first, second) {
        second
    } else {
        first
    })
}

/// Latencies up to this ratio are one and the same: of identical servers none shall go idle for a millisecond.
const ALIKE: f64 = 2.0;
/// One choice in so many looks at no latency.
const SECOND_CHANCE: u64 = 16;

fn draw(candidates: &[Candidate], but: Option<usize>, random: &mut Random) -> Option<usize> {
    let weight = |index: usize, candidate: &Candidate| {
        if Some(index) == but {
            0.0
        } else {
            candidate.weight
        }
    };
    let total: f64 = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| weight(index, candidate))
        .sum();
    if total <= 0.0 {
        return None;
    }
    let mut point = fraction(random.next()) * total;
    let mut last = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let weight = weight(index, candidate);
        if weight > 0.0 {
            last = Some(index);
            if point < weight {
                break;
            }
            point -= weight;
        }
    }
    last
}

fn least(candidates: &[Candidate], random: &mut Random) -> Option<usize> {
    // Ties are broken at random, or the first in the file would get all of a quiet site.
    let salt = random.next();
    best(candidates, |_, candidate| {
        let tie = fraction(stable::mix(candidate.identity ^ salt)) * 0.5;
        -(f64::from(candidate.in_flight) + tie) / candidate.weight
    })
}

/// Weighted rendezvous hashing: the highest `-weight / ln(hash)`.
fn rendezvous(candidates: &[Candidate], key: u64) -> Option<usize> {
    best(candidates, |_, candidate| {
        let point = fraction(stable::mix(candidate.identity ^ key)).max(f64::MIN_POSITIVE);
        -candidate.weight / point.ln()
    })
}

fn best(candidates: &[Candidate], score: impl Fn(usize, &Candidate) -> f64) -> Option<usize> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.weight > 0.0)
        .map(|(index, candidate)| (index, score(index, candidate)))
        .reduce(|best, other| if other.1 > best.1 { other } else { best })
        .map(|(index, _)| index)
}

/// In [0, 1).
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HashKey;

    fn candidate(name: &str, weight: f64, in_flight: u32, latency: f64) -> Candidate {
        Candidate {
            identity: stable::hash(name),
            weight,
            in_flight,
            latency,
        }
    }

    fn three(weights: [f64; 3]) -> Vec<Candidate> {
        ["web1", "web2", "web3"]
            .into_iter()
            .zip(weights)
            .map(|(name, weight)| candidate(name, weight, 0, 1_000.0))
            .collect()
    }

    fn shares(balance: &L7Balance, candidates: &[Candidate], keyed: bool) -> Vec<f64> {
        let (mut chooser, mut random) = (Chooser::default(), Random::new(7));
        let mut counts = vec![0.0; candidates.len()];
        for request in 0..30_000_u64 {
            let key = keyed.then(|| stable::mix(request));
            let chosen = chooser.choose(balance, candidates, key, &mut random);
            counts[chosen.unwrap()] += 1.0 / 30_000.0;
        }
        counts
    }

    #[test]
    fn weights_are_kept_by_every_way_of_choosing() {
        for (balance, keyed) in [
            (L7Balance::RoundRobin, false),
            (L7Balance::Hrw(HashKey::Source), true),
            (L7Balance::Hrw(HashKey::Source), false),
        ] {
            let shares = shares(&balance, &three([2.0, 1.0, 1.0]), keyed);
            for (share, expected) in shares.iter().zip([0.5, 0.25, 0.25]) {
                assert!((share - expected).abs() < 0.02, "{balance:?}: {shares:?}");
            }
        }
        let even = shares(&L7Balance::PowerOfTwo, &three([1.0; 3]), false);
        assert!(
            even.iter().all(|share| (share - 1.0 / 3.0).abs() < 0.02),
            "{even:?}"
        );
        let even = shares(&L7Balance::LeastConnections, &three([1.0; 3]), false);
        assert!(
            even.iter().all(|share| (share - 1.0 / 3.0).abs() < 0.02),
            "{even:?}"
        );
    }

    #[test]
    fn idle_servers_of_like_speed_share_evenly_and_a_slow_one_is_heard_from() {
        let shares_of = |latencies: [f64; 3]| {
            let candidates = latencies.map(|latency| candidate("web", 1.0, 0, latency));
            let mut random = Random::new(7);
            let mut counts = [0_u32; 3];
            for _ in 0..3_000 {
                counts[power_of_two(&candidates, &mut random).expect("one")] += 1;
            }
            counts
        };
        let even = shares_of([1_000.0, 1_300.0, 1_900.0]);
        assert!(
            even.iter().all(|count| (800..1_200).contains(count)),
            "{even:?}"
        );
        let [_, _, slow] = shares_of([1_000.0, 1_000.0, 50_000.0]);
        assert!((20..200).contains(&slow), "{slow}");
    }

    #[test]
    fn nobody_is_chosen_when_nobody_may_be() {
        for balance in [
            L7Balance::PowerOfTwo,
            L7Balance::LeastConnections,
            L7Balance::RoundRobin,
            L7Balance::Hrw(HashKey::Source),
        ] {
            let mut chooser = Chooser::default();
            let mut random = Random::new(3);
            assert_eq!(
                chooser.choose(&balance, &three([0.0; 3]), None, &mut random),
                None
            );
            let one = three([0.0, 1.0, 0.0]);
            for _ in 0..50 {
                assert_eq!(chooser.choose(&balance, &one, None, &mut random), Some(1));
            }
        }
    }

    #[test]
    fn the_busier_and_the_slower_get_less() {
        let candidates = [
            candidate("web1", 1.0, 9, 1_000.0),
            candidate("web2", 1.0, 0, 1_000.0),
            candidate("web3", 1.0, 0, 100_000.0),
        ];
        let shares = shares(&L7Balance::PowerOfTwo, &candidates, false);
        assert!(
            shares[1] > 0.6 && shares[0] < 0.35 && shares[2] < 0.35,
            "{shares:?}"
        );
        let mut random = Random::new(3);
        let least =
            Chooser::default().choose(&L7Balance::LeastConnections, &candidates, None, &mut random);
        assert_ne!(least, Some(0));
    }

    #[test]
    fn a_backend_that_leaves_moves_no_key_of_the_others() {
        let all = three([1.0; 3]);
        let without = three([1.0, 0.0, 1.0]);
        for key in (0..2_000).map(stable::mix) {
            let before = rendezvous(&all, key).unwrap();
            let after = rendezvous(&without, key).unwrap();
            assert!(before == after || before == 1);
        }
    }
}
