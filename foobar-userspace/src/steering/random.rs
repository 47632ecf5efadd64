//! A fast generator for choices that nobody gains from guessing.

use crate::stable;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        stable::mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the product of two 64-bit numbers, shifted by 64"
    )]
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.next() as u128 * bound as u128) >> 64) as usize
    }
}

/// A keyed hash for tables that clients fill: a seed of the process keeps them from colliding at will.
#[must_use]
pub fn hash(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut hash = seed ^ 0x9e37_79b9_7f4a_7c15;
    for part in parts {
        let mut words = part.chunks_exact(8);
        for word in &mut words {
            let word = word.try_into().map_or(0, u64::from_le_bytes);
            hash = (hash ^ word)
                .wrapping_mul(0xff51_afd7_ed55_8ccd)
                .rotate_left(29);
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        hash ^= u64::from_le_bytes(last) ^ (part.len() as u64) << 56;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }
    stable::mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_below_the_bound_and_reach_all_of_it() {
        let mut random = Random::new(1);
        let mut seen = [0; 7];
        for _ in 0..7_000 {
            seen[random.below(7)] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1_200).contains(count)),
            "{seen:?}"
        );
    }

    #[test]
    fn a_hash_depends_on_seed_bytes_and_borders() {
        let base = hash(1, &[b"GET", b"/index.html"]);
        assert_eq!(base, hash(1, &[b"GET", b"/index.html"]));
        assert_ne!(base, hash(2, &[b"GET", b"/index.html"]));
        assert_ne!(base, hash(1, &[b"GET/", b"index.html"]));
        assert_ne!(base, hash(1, &[b"GET", b"/index.html\0"]));
    }
}
