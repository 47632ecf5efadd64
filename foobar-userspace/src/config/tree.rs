//! The file as a tree of values that know where they stand.

use std::ops::Range;

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

/// Reads as much of `text` as is TOML and reports what is not.
pub(super) fn read<'a>(text: &'a str, problems: &mut Problems) -> Spanned<DeValue<'a>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = on_its_line(text, error.span().unwrap_or(0..0));
        problems.report(
            Problem::new(span, format!("this is not TOML: {}", error.message()))
                .help(cure(error.message())),
        );
    }
    let span = root.span();
    Spanned::new(span, DeValue::Table(root.into_inner()))
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
