//! `foobar log`: the lines of a log, as its file holds them or as they are written.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
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
}

pub fn run(arguments: &Arguments, log: Log, follow: bool, filter: &Filter) -> Result<(), Failure> {
    if !follow {
        return show_file(arguments, log, filter);
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

fn show_file(arguments: &Arguments, log: Log, filter: &Filter) -> Result<(), Failure> {
    let path = file(arguments, log)?;
    let file = File::open(&path).map_err(|error| {
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

fn file(arguments: &Arguments, log: Log) -> Result<PathBuf, Failure> {
    let config = super::load(arguments)?;
    let node = super::node(arguments)?;
    match place(&config.log, log) {
        Some(LogTo::File(path)) => Ok(in_node(path, &node)),
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
        };
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
            text: None,
        };
        let line = r#"{"status":503,"path":"/"}"#;
        assert!(filter("5xx").takes(line));
        assert!(filter("503").takes(line));
        assert!(!filter("4xx").takes(line));
        assert!(!filter("503").takes("no JSON"));
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
