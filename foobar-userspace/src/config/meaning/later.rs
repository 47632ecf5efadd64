//! What later versions build: its mistakes are told too, beside "not yet supported".

use super::many;
use crate::config::{
    diagnostics::{Problem, Problems},
    tree::Entry,
};

pub(super) fn check(root: Entry<'_>, problems: &mut Problems) {
    for alert in many(root, "alert") {
        thresholds(alert, problems);
    }
}

fn thresholds(alert: Entry<'_>, problems: &mut Problems) {
    let given = ["above", "below"]
        .into_iter()
        .filter(|key| alert.at(key).is_some());
    if alert.value().is_table() && given.count() != 1 && !problems.touch(&alert.extent()) {
        problems.report(
            Problem::new(alert.span(), "an alert has one threshold")
                .help("write either `above = 5_000` or `below = 2`"),
        );
    }
}
