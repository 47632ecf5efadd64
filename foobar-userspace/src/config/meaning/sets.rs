//! `[sets]` and the files that they name.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use foobar_ebpf::abi::{MAX_SETS, SET_HOSTS};
use ipnet::IpNet;

use super::{many, read as read_word, section, whole};
use crate::config::{
    ReadFile, Set,
    diagnostics::{Problem, Problems, plain},
    tree::{Entry, Name},
    words::{Element, FilePath, Misread, Period},
};

pub(super) fn read(
    root: Entry<'_>,
    path: &Path,
    files: &ReadFile<'_>,
    problems: &mut Problems,
) -> BTreeMap<String, Set> {
    let sets = section(root, "sets");
    if let Some((name, _)) = sets.get(MAX_SETS as usize) {
        problems.report(
            Problem::new(name.span(), format!("more than {MAX_SETS} sets"))
                .help("join sets that are always used together"),
        );
    }
    sets.into_iter()
        .map(|(name, entry)| {
            let set = set(name, entry, path, files, problems);
            (set.name.clone(), set)
        })
        .collect()
}

fn set(
    name: Name<'_>,
    entry: Entry<'_>,
    path: &Path,
    files: &ReadFile<'_>,
    problems: &mut Problems,
) -> Set {
    let file = read_word::<FilePath>(entry, "file").map(|FilePath(file)| PathBuf::from(file));
    let file_elements = match (&file, entry.at("file")) {
        (Some(file), Some(written)) => elements_of_file(file, written, path, files, problems),
        _ => Vec::new(),
    };
    let set = Set {
        name: name.text.to_owned(),
        elements: many(entry, "elements")
            .into_iter()
            .filter_map(|element| element.read().map(|Element(net)| net))
            .collect(),
        file,
        file_elements,
        max: whole(entry, "max").unwrap_or(SET_HOSTS),
        timeout: read_word::<Period>(entry, "timeout").map(|Period(timeout)| timeout),
    };
    let count = set.elements.len() + set.file_elements.len();
    if count > set.max as usize {
        let span = entry.at("max").map_or(name.span(), Entry::span);
        problems.report(
            Problem::new(
                span,
                format!(
                    "set `{}` has {count} elements, but may hold {}",
                    name.text, set.max
                ),
            )
            .help(format!("raise it: `max = {}`", count.next_power_of_two())),
        );
    }
    set
}

fn elements_of_file(
    file: &Path,
    written: Entry<'_>,
    configuration: &Path,
    files: &ReadFile<'_>,
    problems: &mut Problems,
) -> Vec<IpNet> {
    let path = configuration.parent().unwrap_or(Path::new("")).join(file);
    match files(&path) {
        Ok(text) => elements_of_text(&text, &path, problems),
        Err(error) => {
            problems.report(
                Problem::new(
                    written.span(),
                    format!("cannot read {}: {}", path.display(), plain(&error)),
                )
                .help("create it (an empty file is an empty set), or correct the path"),
            );
            Vec::new()
        }
    }
}

fn elements_of_text(text: &str, path: &Path, problems: &mut Problems) -> Vec<IpNet> {
    let mut elements = Vec::new();
    let mut misread: Vec<(Range<usize>, Misread)> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let element = line.split('#').next().unwrap_or_default();
        let word = element.trim();
        if !word.is_empty() {
            match word.parse::<Element>() {
                Ok(Element(net)) => elements.push(net),
                Err(error) => {
                    let first = start + element.len() - element.trim_start().len();
                    misread.push((first..first + word.len(), error));
                }
            }
        }
        start += line.len();
    }
    report(&misread, text, path, problems);
    elements
}

fn report(misread: &[(Range<usize>, Misread)], text: &str, path: &Path, problems: &mut Problems) {
    if misread.is_empty() {
        return;
    }
    let source = problems.add_source(text, path);
    let more = misread.len().saturating_sub(SHOWN);
    for (index, (span, error)) in misread.iter().take(SHOWN).enumerate() {
        let mut problem = Problem::new(span.clone(), &error.message)
            .in_source(source)
            .help(&error.cure);
        if more > 0 && index == SHOWN - 1 {
            problem = problem.help(format!(
                "{more} more lines of this file cannot be read either"
            ));
        }
        problems.report(problem);
    }
}

/// A file of the wrong kind shall not hide the other mistakes.
const SHOWN: usize = 20;
