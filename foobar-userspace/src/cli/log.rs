//! `foobar log`: the lines of a log, as its file holds them or as they are written.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::SystemTime,
};

use foobar::{
    admin::client,
    config::{self, LogTo},
    monitor::lines::Stream,
};
use serde_json::Value;

use super::{
    arguments::{Arguments, Log, Output},
    failure::{Failure, Status},
    output::say,
};

/// Which lines are shown.
#[derive(Debug, Default)]
pub struct Filter {
    /// `404`, `5xx`
    pub status: Option<String>,
    pub text: Option<String>,
    pub since: Option<SystemTime>,
}

pub fn run(arguments: &Arguments, log: Log, follow: bool, filter: &Filter) -> Result<(), Failure> {
    if !follow {
        return show_files(arguments, log, filter);
    }
    if filter.since.is_some() && has_file(arguments, log)? {
        show_files(arguments, log, filter)?;
    }
    let mut ended = Ok(());
    client::follow(&super::socket(arguments)?, stream(log), |line| {
        if filter.takes(line) {
            ended = say(&format!("{}\n", shown(arguments.output, log, line)));
        }
        match ended {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    ended
}

fn show_files(arguments: &Arguments, log: Log, filter: &Filter) -> Result<(), Failure> {
    let path = file(arguments, log)?;
    let aside = filter
        .since
        .map_or_else(Vec::new, |since| put_aside(&path, since));
    for path in aside.iter().chain([&path]) {
        show_file(arguments, log, filter, path)?;
    }
    Ok(())
}

/// `access.log.2`, `access.log.1`: files with lines since then, the oldest first.
fn put_aside(path: &Path, since: SystemTime) -> Vec<PathBuf> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let mut files: Vec<PathBuf> = (1..)
        .map(numbered)
        .take_while(|path| {
            let written = path.metadata().and_then(|about| about.modified());
            written.is_ok_and(|written| written >= since)
        })
        .collect();
    files.reverse();
    files
}

fn show_file(arguments: &Arguments, log: Log, filter: &Filter, path: &Path) -> Result<(), Failure> {
    let file = File::open(path).map_err(|error| {
        Failure::told(
            Status::Failed,
            format!("cannot read {}: {error}", path.display()),
        )
    })?;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| Failure::failed(&error))?;
        if filter.takes(&line) {
            say(&format!("{}\n", shown(arguments.output, log, &line)))?;
        }
    }
    Ok(())
}

fn has_file(arguments: &Arguments, log: Log) -> Result<bool, Failure> {
    let config = super::load(arguments)?;
    Ok(matches!(place(&config.log, log), Some(LogTo::File(_))))
}

fn file(arguments: &Arguments, log: Log) -> Result<PathBuf, Failure> {
    let config = super::load(arguments)?;
    let node = super::node(arguments)?;
    match place(&config.log, log) {
        Some(LogTo::File(path)) => Ok(in_node(path, &node)),
        Some(LogTo::Journal) => Err(Failure::told(
            Status::Failed,
            format!(
                "this log is in the journal: `journalctl -t foobar TARGET={}`; `-f` follows it here",
                stream(log).name()
            ),
        )),
        _ => Err(Failure::told(
            Status::Failed,
            "this log has no file; follow it with -f, or name a file under [log]",
        )),
    }
}

fn place(log: &config::Log, which: Log) -> Option<&LogTo> {
    match which {
        Log::Access => Some(&log.access.file.to),
        Log::Audit => Some(&log.audit.to),
        Log::Drops => Some(&log.drops.file.to),
        Log::Alerts => None,
    }
}

fn in_node(path: &Path, node: &str) -> PathBuf {
    PathBuf::from(path.to_string_lossy().replace("{node}", node))
}

const fn stream(log: Log) -> Stream {
    match log {
        Log::Access => Stream::Access,
        Log::Alerts => Stream::Alerts,
        Log::Audit => Stream::Audit,
        Log::Drops => Stream::Drops,
    }
}

impl Filter {
    fn takes(&self, line: &str) -> bool {
        let status = || {
            serde_json::from_str::<Value>(line)
                .ok()
                .and_then(|line| line.get("status")?.as_u64())
                .map(|status| status.to_string())
                .or_else(|| combined_status(line).map(str::to_owned))
        };
        if let Some(since) = self.since
            && time_of(line).is_some_and(|time| time < since)
        {
            return false;
        }
        let has_text = self.text.as_ref().is_none_or(|text| line.contains(text));
        has_text
            && self.status.as_ref().is_none_or(|wanted| {
                status().is_some_and(|status| match wanted.strip_suffix("xx") {
                    Some(class) => status.starts_with(class),
                    None => status == *wanted,
                })
            })
    }
}

/// When a line was written, in any of the formats; to the second.
fn time_of(line: &str) -> Option<SystemTime> {
    if let Ok(Value::Object(fields)) = serde_json::from_str(line) {
        let time = fields.get("time").or_else(|| fields.get("startsAt"))?;
        return humantime::parse_rfc3339_weak(time.as_str()?).ok();
    }
    let (_, rest) = line.split_once('[')?;
    let (time, _) = rest.split_once(']')?;
    let part = |from: usize, to: usize| time.get(from..to);
    let month = MONTHS.iter().position(|month| part(3, 6) == Some(month))? + 1;
    let text = format!(
        "{}-{month:02}-{}T{}Z",
        part(7, 11)?,
        part(0, 2)?,
        part(12, 20)?
    );
    humantime::parse_rfc3339(&text).ok()
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The word after the request line in quotes.
fn combined_status(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("] \"")?;
    let (_, rest) = rest.split_once("\" ")?;
    rest.split(' ').next()
}

/// For people: the fields in their order, without quotes; for programs: the line as it is.
fn shown(output: Output, log: Log, line: &str) -> String {
    if matches!(output, Output::Json | Output::Jsonl) || log == Log::Access {
        return line.to_owned();
    }
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
        return line.to_owned();
    };
    let words: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| match value {
            Value::String(text) if key == "time" => text.clone(),
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_statuses_takes_all_of_it() {
        let filter = |status: &str| Filter {
            status: Some(status.to_owned()),
            ..Filter::default()
        };
        let line = r#"{"status":503,"path":"/"}"#;
        assert!(filter("5xx").takes(line));
        assert!(filter("503").takes(line));
        assert!(!filter("4xx").takes(line));
        assert!(!filter("503").takes("no JSON"));
        assert!(filter("5xx").takes(&COMBINED.replace("200", "502")));
        assert!(!filter("5xx").takes(COMBINED));
    }

    const COMBINED: &str = "198.51.100.7 - - [14/Nov/2023:22:13:20 +0000] \"GET /a HTTP/1.1\" 200 4321 \"-\" \"-\" www 0.002 -";

    #[test]
    fn lines_before_the_time_are_left_out_in_every_format() {
        let since = |time: &str| Filter {
            since: Some(humantime::parse_rfc3339(time).expect("a time")),
            ..Filter::default()
        };
        for line in [
            COMBINED,
            r#"{"time":"2023-11-14T22:13:20.250Z","status":200}"#,
            r#"{"startsAt":"2023-11-14T22:13:20.000Z"}"#,
        ] {
            assert!(since("2023-11-14T22:13:20Z").takes(line), "{line}");
            assert!(!since("2023-11-14T22:13:21Z").takes(line), "{line}");
        }
    }

    #[test]
    fn files_that_were_put_aside_since_are_read_oldest_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        for name in ["a.log", "a.log.1", "a.log.2"] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        let names = |since| -> Vec<String> {
            put_aside(&path, since)
                .iter()
                .map(|path| {
                    path.file_name()
                        .expect("a name")
                        .to_string_lossy()
                        .into_owned()
                })
                .collect()
        };
        assert_eq!(names(SystemTime::UNIX_EPOCH), ["a.log.2", "a.log.1"]);
        let later = SystemTime::now() + std::time::Duration::from_secs(3_600);
        assert_eq!(names(later), [""; 0]);
    }

    #[test]
    fn a_line_for_people_has_no_quotes_and_no_empty_fields() {
        let line = r#"{"time":"2026-11-24T00:00:00Z","user":"root","uid":0,"pid":null}"#;
        assert_eq!(
            shown(Output::Table, Log::Audit, line),
            "2026-11-24T00:00:00Z user=root uid=0"
        );
        assert_eq!(shown(Output::Jsonl, Log::Audit, line), line);
    }
}
