//! The Internet checksum, updated in place (RFC 1071, RFC 1624 equation 3).

/// Adds with end-around carry.
#[inline(always)]
#[must_use]
pub const fn add(sum: u32, word: u32) -> u32 {
    let (sum, carry) = sum.overflowing_add(word);
    sum + carry as u32
}

/// Folds to 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum after words that summed to `old` became words that sum to `new`; sums as
/// [`crate::abi::checksum_words`] makes them.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, old: u32, new: u32) -> u16 {
    let sum = !checksum as u32;
    // !fold(old) is −old in ones' complement.
    let sum = sum + !fold(old) as u32 + fold(new) as u32;
    !fold(sum)
}

/// As [`update`], for UDP over IPv4: 0 stands for "no checksum" and never for a computed one.
#[inline(always)]
#[must_use]
pub const fn update_udp(checksum: u16, old: u32, new: u32) -> u16 {
    if checksum == 0 {
        return 0;
    }
    match update(checksum, old, new) {
        0 => 0xffff,
        updated => updated,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn compute(words: &[u16]) -> u16 {
        !fold(words.iter().fold(0, |sum, word| add(sum, u32::from(*word))))
    }

    proptest! {
        #[test]
        fn an_update_equals_a_new_computation(
            mut words in proptest::collection::vec(1_u16.., 4..40),
            replaced in any::<[u16; 2]>(),
        ) {
            let before = compute(&words);
            let old = u32::from(words[0]) + u32::from(words[1]);
            words[..2].copy_from_slice(&replaced);
            let new = u32::from(replaced[0]) + u32::from(replaced[1]);
            prop_assert_eq!(update(before, old, new), compute(&words));
        }

        #[test]
        fn words_sum_alike_in_pieces(words in proptest::collection::vec(any::<u32>(), 4)) {
            let halves: Vec<u16> = words.iter().flat_map(|w| [(w & 0xffff) as u16, (w >> 16) as u16]).collect();
            prop_assert_eq!(!fold(crate::abi::checksum_words(&words, 0)), compute(&halves));
        }
    }
}
