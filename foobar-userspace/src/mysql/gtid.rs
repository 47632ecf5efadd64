//! Sets of transactions, as MySQL and as MariaDB name them, and their arithmetic.

use std::{collections::BTreeMap, fmt};

/// Which transactions a server has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GtidSet {
    /// By domain and server, the highest number: within the two, numbers have no gap. `gtid_binlog_state` has this shape.
    Mariadb(BTreeMap<(u32, u32), u64>),
    /// By source (`uuid` or `uuid:tag`), inclusive intervals, sorted and apart.
    Mysql(BTreeMap<String, Vec<(u64, u64)>>),
}

/// What is no set of transactions.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAGtidSet {
    #[error("`{0}` is no GTID of MariaDB (`domain-server-number`)")]
    Mariadb(String),
    #[error("`{0}` is no GTID set of MySQL (`uuid:first-last:…`)")]
    Mysql(String),
    #[error("GTIDs of MySQL and of MariaDB cannot be compared")]
    Mixed,
}

impl GtidSet {
    /// # Errors
    /// Names the part that is none.
    pub fn mariadb(text: &str) -> Result<Self, NotAGtidSet> {
        let mut set = BTreeMap::new();
        for part in parts(text) {
            let wrong = || NotAGtidSet::Mariadb(part.to_owned());
            let mut numbers = part.split('-');
            let mut next = || numbers.next().ok_or_else(wrong);
            let domain = next()?.parse().map_err(|_| wrong())?;
            let server = next()?.parse().map_err(|_| wrong())?;
            let number: u64 = next()?.parse().map_err(|_| wrong())?;
            if numbers.next().is_some() {
                return Err(wrong());
            }
            let highest = set.entry((domain, server)).or_insert(number);
            *highest = number.max(*highest);
        }
        Ok(Self::Mariadb(set))
    }

    /// # Errors
    /// Names the part that is none.
    pub fn mysql(text: &str) -> Result<Self, NotAGtidSet> {
        let mut set: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for part in parts(text) {
            let wrong = || NotAGtidSet::Mysql(part.to_owned());
            let mut words = part.split(':').map(str::trim);
            let uuid = words
                .next()
                .filter(|word| is_uuid(word))
                .ok_or_else(wrong)?;
            let uuid = uuid.to_ascii_lowercase();
            let mut source = uuid.clone();
            let mut empty = true;
            for word in words {
                if word.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_') {
                    source = format!("{uuid}:{}", word.to_ascii_lowercase());
                    continue;
                }
                let interval = interval(word).ok_or_else(wrong)?;
                set.entry(source.clone()).or_default().push(interval);
                empty = false;
            }
            if empty {
                return Err(wrong());
            }
        }
        for intervals in set.values_mut() {
            *intervals = joined(std::mem::take(intervals));
        }
        Ok(Self::Mysql(set))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Mariadb(set) => set.is_empty(),
            Self::Mysql(set) => set.is_empty(),
        }
    }

    /// What `self` has and `other` lacks.
    ///
    /// # Errors
    /// When the two are of different makes.
    pub fn minus(&self, other: &Self) -> Result<Self, NotAGtidSet> {
        match (self, other) {
            (Self::Mariadb(left), Self::Mariadb(right)) => Ok(Self::Mariadb(
                left.iter()
                    .filter(|(source, number)| {
                        right.get(source).is_none_or(|known| known < *number)
                    })
                    .map(|(source, number)| (*source, *number))
                    .collect(),
            )),
            (Self::Mysql(left), Self::Mysql(right)) => Ok(Self::Mysql(
                left.iter()
                    .map(|(source, intervals)| {
                        let known = right.get(source).map_or(&[][..], Vec::as_slice);
                        (source.clone(), without(intervals, known))
                    })
                    .filter(|(_, intervals)| !intervals.is_empty())
                    .collect(),
            )),
            _ => Err(NotAGtidSet::Mixed),
        }
    }

    /// # Errors
    /// When the two are of different makes.
    pub fn plus(&self, other: &Self) -> Result<Self, NotAGtidSet> {
        match (self, other) {
            (Self::Mariadb(left), Self::Mariadb(right)) => {
                let mut sum = left.clone();
                for (source, number) in right {
                    let highest = sum.entry(*source).or_insert(*number);
                    *highest = (*highest).max(*number);
                }
                Ok(Self::Mariadb(sum))
            }
            (Self::Mysql(left), Self::Mysql(right)) => {
                let mut sum = left.clone();
                for (source, intervals) in right {
                    let all = sum.entry(source.clone()).or_default();
                    all.extend(intervals);
                    *all = joined(std::mem::take(all));
                }
                Ok(Self::Mysql(sum))
            }
            _ => Err(NotAGtidSet::Mixed),
        }
    }

    /// Whether everything in `other` is in `self`; sets of different makes never cover each other.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_ok_and(|rest| rest.is_empty())
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mariadb(set) => {
                separated(formatter, set, |formatter, ((domain, server), number)| {
                    write!(formatter, "{domain}-{server}-{number}")
                })
            }
            Self::Mysql(set) => separated(formatter, set, |formatter, (source, intervals)| {
                write!(formatter, "{source}")?;
                intervals.iter().try_for_each(|(first, last)| {
                    if first == last {
                        write!(formatter, ":{first}")
                    } else {
                        write!(formatter, ":{first}-{last}")
                    }
                })
            }),
        }
    }
}

fn separated<T>(
    formatter: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            formatter.write_str(",")?;
        }
        write(formatter, item)?;
    }
    Ok(())
}

/// Servers break long sets into lines.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn is_uuid(word: &str) -> bool {
    word.len() == 36
        && word.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn interval(word: &str) -> Option<(u64, u64)> {
    let (first, last) = match word.split_once('-') {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => {
            let only = word.parse().ok()?;
            (only, only)
        }
    };
    (1..=last).contains(&first).then_some((first, last))
}

fn joined(mut intervals: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    intervals.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(intervals.len());
    for (first, last) in intervals {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

fn without(intervals: &[(u64, u64)], known: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    for (first, last) in intervals {
        let mut from = *first;
        for (known_first, known_last) in known {
            if *known_last < from || from > *last {
                continue;
            }
            if known_first > last {
                break;
            }
            if *known_first > from {
                rest.push((from, known_first - 1));
            }
            from = known_last.saturating_add(1);
        }
        if from <= *last {
            rest.push((from, *last));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn mysql(text: &str) -> GtidSet {
        GtidSet::mysql(text).expect("a set")
    }

    fn mariadb(text: &str) -> GtidSet {
        GtidSet::mariadb(text).expect("a set")
    }

    #[test]
    fn sets_read_as_servers_write_them() {
        let text = format!("{A}:1-5:7,\n{B}:1-3:audit:2-4");
        assert_eq!(
            mysql(&text).to_string(),
            format!("{A}:1-5:7,{B}:1-3,{B}:audit:2-4")
        );
        assert_eq!(
            mysql(&format!("{A}:4-5:1-3")).to_string(),
            format!("{A}:1-5")
        );
        assert_eq!(
            mariadb("0-11-104,0-12-110,1-11-3").to_string(),
            "0-11-104,0-12-110,1-11-3"
        );
        assert!(mysql("").is_empty() && mariadb(" ").is_empty());
        for wrong in ["x", "0-1", "0-1-2-3", "0-1-x"] {
            assert!(GtidSet::mariadb(wrong).is_err(), "{wrong}");
        }
        for wrong in [A, "x:1", &format!("{A}:0-1"), &format!("{A}:5-4")] {
            assert!(GtidSet::mysql(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_old_primary_has_alone_is_errant_though_its_number_was_passed() {
        let old = mariadb("0-11-105");
        let new = mariadb("0-11-104,0-12-110");
        assert_eq!(old.minus(&new).expect("one make").to_string(), "0-11-105");
        assert!(!new.covers(&old));
        assert!(new.covers(&mariadb("0-11-104,0-12-107")));
    }

    #[test]
    fn sets_of_two_makes_never_cover_each_other() {
        assert!(!mysql(&format!("{A}:1-9")).covers(&mariadb("0-1-1")));
        assert!(!mariadb("0-1-1").covers(&mysql(&format!("{A}:1"))));
    }

    /// A set of MySQL and, for comparison, its transactions one by one.
    fn written() -> impl Strategy<Value = (GtidSet, BTreeSet<(usize, u64)>)> {
        proptest::collection::vec((0_usize..3, 1_u64..40, 0_u64..6), 0..12).prop_map(|intervals| {
            let mut single = BTreeSet::new();
            let text: Vec<_> = intervals
                .iter()
                .map(|(source, first, more)| {
                    single.extend((*first..=first + more).map(|number| (*source, number)));
                    format!("{}{}:{first}-{}", source, &A[1..], first + more)
                })
                .collect();
            (mysql(&text.join(",")), single)
        })
    }

    fn count(set: &GtidSet) -> u64 {
        let GtidSet::Mysql(set) = set else {
            panic!("a set of MySQL")
        };
        set.values()
            .flatten()
            .map(|(first, last)| last - first + 1)
            .sum()
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_sets((left, one) in written(), (right, other) in written()) {
            let minus = left.minus(&right).expect("one make");
            let plus = left.plus(&right).expect("one make");
            prop_assert_eq!(count(&minus), one.difference(&other).count() as u64);
            prop_assert_eq!(count(&plus), one.union(&other).count() as u64);
            prop_assert_eq!(left.covers(&right), one.is_superset(&other));
            prop_assert!(plus.covers(&left) && plus.covers(&right));
            prop_assert_eq!(&minus.plus(&right).expect("one make"), &plus);
            prop_assert_eq!(mysql(&left.to_string()), left);
        }

        #[test]
        fn a_set_of_mariadb_covers_what_it_was_added_to(
            left in proptest::collection::btree_map((0_u32..2, 1_u32..4), 1_u64..30, 0..5),
            right in proptest::collection::btree_map((0_u32..2, 1_u32..4), 1_u64..30, 0..5),
        ) {
            let (left, right) = (GtidSet::Mariadb(left), GtidSet::Mariadb(right));
            let plus = left.plus(&right).expect("one make");
            prop_assert!(plus.covers(&left) && plus.covers(&right));
            let errant = left.minus(&right).expect("one make");
            prop_assert_eq!(errant.is_empty(), right.covers(&left));
            prop_assert_eq!(mariadb(&left.to_string()), left);
        }
    }
}
