//! The file as a tree of values that know where they stand.

use std::{borrow::Cow, ops::Range};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Problem, Problems};

/// A value, or a place where one could be: readers of the wrong type answer `None`, the checker has said why.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a>(&'a Spanned<DeValue<'a>>);

/// A key of a table.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub text: &'a str,
    span: (usize, usize),
}

/// `text` with what is not TOML blanked out, and reported: once for each line that stands for itself, lest one missing
/// bracket be told a hundred times.
pub(super) fn readable<'a>(text: &'a str, problems: &mut Problems) -> Cow<'a, str> {
    if DeTable::parse(text).is_ok() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        sections(text)
            .into_iter()
            .map(|section| repaired(text, section, problems))
            .collect(),
    )
}

/// Reads what [`readable`] left; what only the sections together get wrong is reported.
pub(super) fn read<'a>(readable: &'a str, problems: &mut Problems) -> Spanned<DeValue<'a>> {
    let (root, errors) = DeTable::parse_recoverable(readable);
    for error in &errors {
        problems.report(not_toml(readable, 0, error));
    }
    let span = root.span();
    Spanned::new(span, DeValue::Table(root.into_inner()))
}

/// From each line that begins with `[` to the next.
fn sections(text: &str) -> Vec<Range<usize>> {
    let headers = text.match_indices("\n[").map(|(newline, _)| newline + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(headers).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .copied()
        .zip(ends)
        .map(|(start, end)| start..end)
        .collect()
}

fn repaired(text: &str, section: Range<usize>, problems: &mut Problems) -> String {
    let start = section.start;
    let mut left = text[section].to_owned();
    let mut found = Vec::new();
    while let Some(error) = first_error(&left) {
        let at = on_its_line(&left, error.span().unwrap_or(0..0)).start;
        let line = line_around(&left, at);
        let hopeless =
            line.start == 0 || left[line.clone()].trim().is_empty() || found.len() > LINES;
        found.push(not_toml(&left, start, &error));
        if hopeless {
            found.truncate(1);
            left = blank(&left);
        } else {
            let end = if like_a_header(&left[line.clone()]) {
                left.len()
            } else {
                line.end
            };
            let blanked = blank(&left[line.start..end]);
            left.replace_range(line.start..end, &blanked);
        }
    }
    for problem in found {
        problems.report(problem);
    }
    left
}

/// `limits]`: what follows belongs to a section whose name cannot be told.
fn like_a_header(line: &str) -> bool {
    let last = line
        .trim()
        .rsplit([' ', '}', ','])
        .next()
        .unwrap_or_default();
    let name = last.trim_end_matches(']');
    !name.is_empty()
        && last.ends_with(']')
        && name
            .chars()
            .all(|letter| letter.is_alphanumeric() || "-_.[\"".contains(letter))
}

fn first_error(text: &str) -> Option<toml::de::Error> {
    let (_, errors) = DeTable::parse_recoverable(text);
    errors
        .into_iter()
        .min_by_key(|error| error.span().map_or(0, |span| span.start))
}

fn line_around(text: &str, at: usize) -> Range<usize> {
    let at = text.floor_char_boundary(at);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..]
        .find('\n')
        .map_or(text.len(), |newline| at + newline);
    start..end
}

/// As long as before, so that everything behind it stays where it is.
fn blank(text: &str) -> String {
    let blank = |byte| if byte == b'\n' { '\n' } else { ' ' };
    text.bytes().map(blank).collect()
}

fn not_toml(text: &str, start: usize, error: &toml::de::Error) -> Problem {
    let span = on_its_line(text, error.span().unwrap_or(0..0));
    Problem::new(
        start + span.start..start + span.end,
        format!("this is not TOML: {}", error.message()),
    )
    .help(cure(error.message()))
}

/// What is missing at the end of a line is told there, not on the next.
fn on_its_line(text: &str, span: Range<usize>) -> Range<usize> {
    match text.get(..span.start) {
        Some(before) if before.ends_with('\n') && span.len() <= 1 => {
            let end = before.trim_end().len();
            end..end + 1
        }
        _ => span,
    }
}

fn cure(message: &str) -> &'static str {
    if message.contains("duplicate key") {
        "every key may stand once in a table; join the two, or rename one"
    } else if message.contains("unclosed") || message.contains("invalid basic string") {
        "add what closes it: `]`, `}` or `\"`"
    } else if message.contains("string values must be quoted") {
        "put the value between double quotes"
    } else if message.contains("newline") || message.contains("inline table") {
        "in `{ … }` everything stands on one line, or use a `[section]`"
    } else {
        "see https://toml.io/en/v1.0.0, and `foobar config example` for a whole file"
    }
}

impl<'a> Entry<'a> {
    pub fn root(value: &'a Spanned<DeValue<'a>>) -> Self {
        Self(value)
    }

    pub fn value(self) -> &'a DeValue<'a> {
        self.0.get_ref()
    }

    pub fn span(self) -> Range<usize> {
        self.0.span()
    }

    /// Where it and all that it holds stand, also under headers further down.
    pub fn extent(self) -> Range<usize> {
        let mut extent = self.span();
        let mut widen = |other: Range<usize>| {
            extent = extent.start.min(other.start)..extent.end.max(other.end);
        };
        for (name, entry) in self.entries() {
            widen(name.span());
            widen(entry.extent());
        }
        for entry in self.elements() {
            widen(entry.extent());
        }
        extent
    }

    pub fn at(self, key: &str) -> Option<Self> {
        self.entries()
            .into_iter()
            .find_map(|(name, entry)| (name.text == key).then_some(entry))
    }

    /// The entries of a table in the order of the file.
    pub fn entries(self) -> Vec<(Name<'a>, Self)> {
        let Some(table) = self.value().as_table() else {
            return Vec::new();
        };
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let span = key.span();
                let name = Name {
                    text: key.get_ref(),
                    span: (span.start, span.end),
                };
                (name, Self(value))
            })
            .collect();
        entries.sort_by_key(|(name, _)| name.span);
        entries
    }

    /// The elements of an array; none of anything else.
    pub fn elements(self) -> Vec<Self> {
        self.value()
            .as_array()
            .map(|array| array.iter().map(Self).collect())
            .unwrap_or_default()
    }

    /// The elements of an array; itself when it stands alone.
    pub fn one_or_many(self) -> Vec<Self> {
        if self.value().is_array() {
            self.elements()
        } else {
            vec![self]
        }
    }

    pub fn text(self) -> Option<&'a str> {
        self.value().as_str()
    }

    pub fn whole(self) -> Option<i64> {
        let integer = self.value().as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    pub fn truth(self) -> Option<bool> {
        self.value().as_bool()
    }

    /// The value in one line of TOML, without comments.
    pub fn written(self) -> String {
        match self.value() {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(truth) => truth.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => {
                let elements: Vec<_> = self.elements().into_iter().map(Self::written).collect();
                format!("[{}]", elements.join(", "))
            }
            DeValue::Table(_) => {
                let keys: Vec<_> = self
                    .entries()
                    .into_iter()
                    .map(|(name, entry)| format!("{} = {}", name.text, entry.written()))
                    .collect();
                format!("{{ {} }}", keys.join(", "))
            }
        }
    }

    /// Its text, read as a `T`; what is wrong with it the checker has said.
    pub fn read<T: std::str::FromStr>(self) -> Option<T> {
        self.text()?.parse().ok()
    }
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Name<'_> {
    pub fn span(self) -> Range<usize> {
        self.span.0..self.span.1
    }
}

/// Broken lines of a section after which it is given up.
const LINES: usize = 4;
