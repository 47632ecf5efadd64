//! "Did you mean …?"

/// The candidate that `word` is most likely a slip of.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lowered = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lowered, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= tolerated(&lowered, candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean `a`?", or all that there is.
pub(super) fn suggest<'a>(
    word: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    match nearest(word, candidates.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("{what}: {}", list(candidates)),
    }
}

/// `a`, `b`, `c`, and how many more.
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{}, and {more} more", quoted[..SHOWN].join(", ")),
        _ => quoted.join(", "),
    }
}

/// A third of the letters may be wrong; of very short words, one.
fn tolerated(word: &str, candidate: &str) -> usize {
    match word.chars().count().max(candidate.chars().count()) {
        0 | 1 => 0,
        letters => (letters / 3).max(1),
    }
}

/// More than these nobody reads.
const SHOWN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word() {
        let words = ["ssh", "web", "per-client"];
        assert_eq!(nearest("shs", words), Some("ssh"));
        assert_eq!(nearest("perclient", words), Some("per-client"));
        assert_eq!(nearest("SSH", words), Some("ssh"));
        assert_eq!(nearest("database", words), None);
    }

    #[test]
    fn a_stranger_gets_the_list() {
        assert_eq!(
            suggest("database", "limits there are", ["a", "b"]),
            "limits there are: `a`, `b`"
        );
    }
}
