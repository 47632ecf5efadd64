//! Shuffle sharding: a client reaches a few backends only, and another client mostly others.

use crate::stable;

/// Whether a backend is among the `size` that a client may reach, given the identities of all.
///
/// The few highest of a rendezvous: a backend that leaves is replaced by one, and moves no other.
pub fn shard(identities: &[u64], client: u64, size: usize) -> Vec<bool> {
    let mut ranked: Vec<_> = identities
        .iter()
        .enumerate()
        .map(|(index, identity)| (stable::mix(identity ^ stable::mix(client)), index))
        .collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    let mut member = vec![false; identities.len()];
    for (_, index) in ranked.into_iter().take(size.max(1)) {
        member[index] = true;
    }
    member
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn identities(count: u64) -> Vec<u64> {
        (0..count).map(|index| stable::mix(index + 1)).collect()
    }

    #[test]
    fn a_client_reaches_a_subset_and_clients_differ() {
        let all = identities(8);
        let shards: HashSet<_> = (0..200).map(|client| shard(&all, client, 2)).collect();
        assert!(
            shards
                .iter()
                .all(|shard| shard.iter().filter(|is_in| **is_in).count() == 2)
        );
        // 28 pairs there are.
        assert!(shards.len() > 20, "{}", shards.len());
    }

    #[test]
    fn who_poisons_two_of_eight_shares_both_with_few() {
        let all = identities(8);
        let poisoned = shard(&all, 0, 2);
        let hurt = (1..2_000)
            .filter(|client| shard(&all, *client, 2) == poisoned)
            .count();
        assert!(hurt < 120, "{hurt}");
    }

    #[test]
    fn a_backend_more_changes_a_shard_by_one() {
        let (few, more) = (identities(7), identities(8));
        for client in 0..500 {
            let (before, after) = (shard(&few, client, 3), shard(&more, client, 3));
            let lost = before
                .iter()
                .zip(&after)
                .filter(|(before, after)| **before && !**after);
            assert!(lost.count() <= 1);
        }
    }

    #[test]
    fn a_shard_larger_than_all_is_all() {
        assert_eq!(shard(&identities(2), 1, 5), [true, true]);
    }
}
