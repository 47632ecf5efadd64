//! Thresholds (`5_000`, `2.5`, `"5%"`, `"250ms"`, `"20k/s"`), read and written.

use std::{str::FromStr, time::Duration};

use super::{
    tree::Entry,
    words::{Misread, Period},
};

/// A number in the unit of what it measures, to the millionth.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Quantity {
    millionths: i64,
}

/// What a number is a number of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Of things: backends, failovers.
    Count,
    /// Things a second.
    PerSecond,
    /// A part of a whole, 0 to 1.
    Ratio,
    Seconds,
}

/// A threshold as written: the number, and the unit if there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WrittenQuantity {
    number: f64,
    unit: Option<Unit>,
}

impl Quantity {
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float that is too large becomes the largest integer, which no measurement reaches"
    )]
    pub fn new(value: f64) -> Self {
        Self {
            millionths: (value * MILLION).round() as i64,
        }
    }

    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a threshold needs no more than 52 bits"
    )]
    pub fn value(self) -> f64 {
        self.millionths as f64 / MILLION
    }

    /// As the file would say it.
    #[must_use]
    pub fn written(self, unit: Unit) -> String {
        match unit {
            Unit::Count | Unit::PerSecond => self.value().to_string(),
            Unit::Ratio => format!("\"{}%\"", (self.value() * 100.0 * 1e6).round() / 1e6),
            Unit::Seconds => format!("\"{}\"", duration(self.value())),
        }
    }

    /// As a person would say it: `5000/s`, `5%`, `250ms`.
    #[must_use]
    pub fn spoken(self, unit: Unit) -> String {
        match unit {
            Unit::PerSecond => format!("{}/s", self.value()),
            _ => self.written(unit).replace('"', ""),
        }
    }
}

fn duration(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    humantime::format_duration(duration).to_string()
}

impl Unit {
    /// An example of a threshold in it, as the file would say it.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Count => "2",
            Self::PerSecond => "5_000",
            Self::Ratio => "\"5%\"",
            Self::Seconds => "\"250ms\"",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Count => "a number",
            Self::PerSecond => "a number a second",
            Self::Ratio => "a part of the whole, in percent",
            Self::Seconds => "a duration",
        }
    }
}

impl WrittenQuantity {
    /// `None` for what is neither a number nor a string.
    pub fn of(entry: Entry<'_>) -> Option<Result<Self, Misread>> {
        if let Some(text) = entry.text() {
            return Some(text.parse());
        }
        let number: f64 = match entry.whole() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a threshold needs no more than 52 bits"
            )]
            Some(whole) => whole as f64,
            None => entry
                .value()
                .as_float()?
                .as_str()
                .replace('_', "")
                .parse()
                .ok()?,
        };
        if number < 0.0 || !number.is_finite() {
            return Some(Err(Misread::new(
                format!("`{number}` is not a threshold"),
                "write a number from 0 upwards",
            )));
        }
        Some(Ok(Self { number, unit: None }))
    }

    /// What it means for something measured in `unit`.
    pub fn meant(self, unit: Unit) -> Result<Quantity, Misread> {
        let fits = match (self.unit, unit) {
            (Some(written), unit) => written == unit,
            (None, Unit::Count | Unit::PerSecond) => true,
            (None, Unit::Ratio | Unit::Seconds) => false,
        };
        if !fits {
            return Err(Misread::new(
                format!("this is measured as {}", unit.what()),
                format!("write it like {}", unit.example()),
            ));
        }
        Ok(Quantity::new(self.number))
    }
}

impl FromStr for WrittenQuantity {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let misread = || {
            Misread::new(
                format!("`{text}` is not a threshold"),
                "write a number (`5_000`), a part (`\"5%\"`), a duration (`\"250ms\"`) or a rate (`\"20k/s\"`)",
            )
        };
        let number = |digits: &str| -> Result<f64, Misread> {
            let plain = !digits.is_empty()
                && digits
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'.');
            if !plain {
                return Err(misread());
            }
            digits.parse().map_err(|_| misread())
        };
        if let Some(percent) = text.strip_suffix('%') {
            return Ok(Self {
                number: number(percent.trim())? / 100.0,
                unit: Some(Unit::Ratio),
            });
        }
        if let Some(rate) = text.strip_suffix("/s") {
            let (digits, factor) = scaled(rate.trim());
            return Ok(Self {
                number: number(digits)? * factor,
                unit: Some(Unit::PerSecond),
            });
        }
        let Period(duration) = text.parse().map_err(|_| misread())?;
        Ok(Self {
            number: duration.as_secs_f64(),
            unit: Some(Unit::Seconds),
        })
    }
}

/// `20k` is 20 times a thousand.
fn scaled(text: &str) -> (&str, f64) {
    if let Some(digits) = text.strip_suffix(['k', 'K']) {
        (digits, 1e3)
    } else if let Some(digits) = text.strip_suffix('M') {
        (digits, 1e6)
    } else {
        (text, 1.0)
    }
}

const MILLION: f64 = 1_000_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(text: &str, unit: Unit) -> Option<f64> {
        let written: WrittenQuantity = text.parse().ok()?;
        written.meant(unit).ok().map(Quantity::value)
    }

    #[test]
    fn a_threshold_is_read_in_the_unit_of_what_it_measures() {
        assert_eq!(meant("5%", Unit::Ratio), Some(0.05));
        assert_eq!(meant("250ms", Unit::Seconds), Some(0.25));
        assert_eq!(meant("14d", Unit::Seconds), Some(1_209_600.0));
        assert_eq!(meant("20k/s", Unit::PerSecond), Some(20_000.0));
        assert_eq!(meant("5%", Unit::Seconds), None);
        assert_eq!(meant("five", Unit::Count), None);
        assert_eq!(meant("-5%", Unit::Ratio), None);
    }

    #[test]
    fn a_threshold_is_written_as_it_is_read() {
        assert_eq!(Quantity::new(0.05).written(Unit::Ratio), "\"5%\"");
        assert_eq!(Quantity::new(0.25).written(Unit::Seconds), "\"250ms\"");
        assert_eq!(Quantity::new(5_000.0).written(Unit::PerSecond), "5000");
        assert_eq!(Quantity::new(5_000.0).spoken(Unit::PerSecond), "5000/s");
    }
}
