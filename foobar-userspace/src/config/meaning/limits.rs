//! `[limits]`

use std::{collections::BTreeMap, time::Duration};

use super::{read as read_word, section, whole};
use crate::config::{
    Limit, LimitPer,
    diagnostics::{Problem, Problems},
    tree::Entry,
    words::Rate,
};

pub(super) fn read(root: Entry<'_>, problems: &mut Problems) -> BTreeMap<String, Limit> {
    section(root, "limits")
        .into_iter()
        .filter_map(|(name, entry)| {
            let rate: Rate = read_word(entry, "rate")?;
            let limit = Limit {
                name: name.text.to_owned(),
                packets: rate.packets,
                period: rate.period,
                burst: whole(entry, "burst").unwrap_or(rate.packets),
                per: match entry.at("per").and_then(Entry::text) {
                    Some("source") => LimitPer::Source,
                    _ => LimitPer::Rule,
                },
            };
            if forgives(&limit) > FORGIVEN {
                let span = entry.at("burst").map_or(name.span(), Entry::span);
                problems.report(
                    Problem::new(span, format!("this burst is years of `{rate}`"))
                        .help("write a smaller `burst`"),
                );
            }
            Some((limit.name.clone(), limit))
        })
        .collect()
}

/// How long an empty bucket takes to fill.
fn forgives(limit: &Limit) -> Duration {
    let nanoseconds = limit.period.as_nanos() * u128::from(limit.burst) / u128::from(limit.packets);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// The packet path counts it in nanoseconds of 64 bits.
const FORGIVEN: Duration = Duration::from_secs(10 * 366 * 86_400);
