//! Answers on standard output: as JSON in an envelope, or as text.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::atomic::{AtomicU8, Ordering},
};

use comfy_table::{
    Attribute, Cell, CellAlignment, Color as Paint, ContentArrangement, Table, presets,
};
use serde::Serialize;

use super::{
    arguments::{Color, Output},
    failure::Failure,
};

/// Says it in the format that was asked for.
///
/// # Errors
/// When standard output cannot be written to; [`Failure::reader_left`] when nobody reads any more.
pub fn present(
    output: Output,
    command: &str,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match output {
        Output::Json => say(&json(command, value, Layout::Pretty)),
        Output::Jsonl => say(&json(command, value, Layout::OneLine)),
        Output::Table | Output::Wide => say(&text()),
    }
}

/// # Errors
/// As [`present`].
pub fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_left()),
        Err(error) => Err(Failure::failed(&error)),
        Ok(()) => Ok(()),
    }
}

/// An answer that is a list.
#[derive(Serialize)]
pub struct Rows<'a, T> {
    pub rows: &'a [T],
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    Pretty,
    OneLine,
}

fn json(command: &str, value: &impl Serialize, layout: Layout) -> String {
    let schema = format!("foobar/{command}/v1");
    let envelope = Envelope {
        schema: &schema,
        value,
    };
    let text = match layout {
        Layout::Pretty => serde_json::to_string_pretty(&envelope),
        Layout::OneLine => serde_json::to_string(&envelope),
    };
    let mut text = text.unwrap_or_else(|_| serde_json::json!({ "schema": schema }).to_string());
    text.push('\n');
    text
}

/// Written as it goes: a tree of ten thousand rules in between takes longer than all the rest.
#[derive(Serialize)]
struct Envelope<'a, T> {
    schema: &'a str,
    #[serde(flatten)]
    value: &'a T,
}

/// Heads over columns; numbers to the right.
pub struct Columns(Table);

impl Columns {
    pub fn new(heads: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(
                heads
                    .iter()
                    .map(|head| Cell::new(head).add_attribute(Attribute::Bold)),
            );
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if colors(io::stdout().is_terminal()) {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        Self(table)
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.0.add_row(cells);
    }

    pub fn text(&self) -> String {
        self.0
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

pub fn text(text: impl ToString) -> Cell {
    Cell::new(text)
}

pub fn number(number: impl ToString) -> Cell {
    Cell::new(number).set_alignment(CellAlignment::Right)
}

pub fn good(text: impl ToString) -> Cell {
    Cell::new(text).fg(Paint::Green)
}

pub fn doubtful(text: impl ToString) -> Cell {
    Cell::new(text).fg(Paint::Yellow)
}

pub fn bad(text: impl ToString) -> Cell {
    Cell::new(text).fg(Paint::Red)
}

/// `48.2k`: three digits that count; rates below ten keep a decimal.
pub fn short(number: f64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    // The sum of no numbers is -0.0.
    let mut scaled = number + 0.0;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    let decimals = match (unit, scaled) {
        (0, whole) if whole.fract() == 0.0 => 0,
        (_, small) if small < 9.995 => {
            if unit == 0 {
                1
            } else {
                2
            }
        }
        (_, middle) if middle < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{}", UNITS[unit])
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn short_total(number: u64) -> String {
    short(number as f64)
}

/// A rate where there is one.
pub fn short_rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), short)
}

static COLOR: AtomicU8 = AtomicU8::new(AUTO);
const AUTO: u8 = 0;
const ALWAYS: u8 = 1;
const NEVER: u8 = 2;

/// Takes `--color`, once, before anything is said.
pub fn choose_colors(color: Color) {
    let choice = match color {
        Color::Auto => AUTO,
        Color::Always => ALWAYS,
        Color::Never => NEVER,
    };
    COLOR.store(choice, Ordering::Relaxed);
}

/// Whether to colour what goes to a stream.
pub fn colors(is_terminal: bool) -> bool {
    match COLOR.load(Ordering::Relaxed) {
        ALWAYS => true,
        NEVER => false,
        // https://no-color.org: set and not empty.
        _ => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.5, "0.5"),
            (7.0, "7"),
            (999.0, "999"),
            (999.7, "1.00k"),
            (1_234.0, "1.23k"),
            (48_200.0, "48.2k"),
            (999_900.0, "1.00M"),
            (61_000_000.0, "61.0M"),
        ] {
            assert_eq!(short(number), expected);
        }
    }

    #[test]
    fn an_envelope_names_its_schema_first_and_is_one_line_when_streamed() {
        let line = json("set-list", &Rows { rows: &[1, 2] }, Layout::OneLine);
        assert_eq!(line, "{\"schema\":\"foobar/set-list/v1\",\"rows\":[1,2]}\n");
    }

    #[test]
    fn columns_stand_below_each_other_without_trailing_blanks() {
        let mut columns = Columns::new(&["RULE", "PACKETS"]);
        columns.row(vec![text("edge/web"), number(7)]);
        columns.row(vec![text("x"), number(1_000)]);
        assert_eq!(
            columns.text(),
            "RULE      PACKETS\nedge/web        7\nx            1000\n"
        );
    }
}
