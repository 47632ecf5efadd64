//! Long steps: progress while they run, a log of each, what failed, and how long all of it took.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, IsTerminal as _, PipeReader, Write as _},
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    processes,
    refusal::{Refusal, Status},
};

#[derive(Debug)]
pub struct Steps {
    logs: PathBuf,
    terminal: bool,
    limit: Duration,
    started: Instant,
    outcomes: Vec<Outcome>,
}

#[derive(Debug)]
struct Outcome {
    title: String,
    elapsed: Duration,
    end: End,
}

/// How a step ended, with a remark.
#[derive(Clone, Debug)]
enum End {
    Done(String),
    /// Did not work, and the caller knows how to go on.
    Without(String),
    Failed(String),
}

impl End {
    fn mark_and_remark(&self) -> (char, &str) {
        match self {
            Self::Done(remark) => ('✓', remark),
            Self::Without(reason) => ('!', reason),
            Self::Failed(reason) => ('✗', reason),
        }
    }
}

/// What a step printed, and how it ended.
#[derive(Debug)]
pub struct Transcript {
    pub text: String,
    pub status: ExitStatus,
    pub log: PathBuf,
}

impl Transcript {
    fn judged(&self, judge: impl FnOnce(&str) -> Result<String, String>) -> Result<String, String> {
        if self.status.success() {
            judge(&self.text)
        } else {
            Err(match judge(&self.text) {
                Err(reason) => format!("{reason}, {}", self.status),
                Ok(_) => self.status.to_string(),
            })
        }
    }

    /// What the user is told of a step that failed.
    pub fn refusal(&self, title: &str, failure: &str) -> Refusal {
        Refusal::new(
            Status::Failed,
            format!(
                "{title}: {failure}\nthe whole output is in {}",
                self.log.display()
            ),
        )
    }
}

impl Steps {
    pub fn new(logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        Ok(Self {
            logs,
            terminal: io::stderr().is_terminal(),
            limit: LIMIT,
            started: Instant::now(),
            outcomes: Vec::new(),
        })
    }

    /// Runs `command` as a step; `name` is the log's.
    ///
    /// # Errors
    ///
    /// When it cannot be started or fails; its output has been shown then.
    pub fn run(&mut self, name: &str, title: &str, command: &mut Command) -> Result<Transcript> {
        self.run_and_judge(name, title, command, |_| Ok(String::new()))
    }

    /// Like [`Steps::run`], for a step that can fail with exit status 0: `judge` reads what it printed and answers
    /// with a remark for the summary or with what is wrong.
    pub fn run_and_judge(
        &mut self,
        name: &str,
        title: &str,
        command: &mut Command,
        judge: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<Transcript> {
        let started = Instant::now();
        let transcript = self.transcribe(name, title, command)?;
        match transcript.judged(judge) {
            Ok(remark) => {
                self.finish(title, started.elapsed(), End::Done(remark));
                Ok(transcript)
            }
            Err(failure) => {
                self.finish(title, started.elapsed(), End::Failed(failure.clone()));
                eprintln!("{}", tail(&transcript.text));
                Err(transcript.refusal(title, &failure).into())
            }
        }
    }

    /// Like [`Steps::run_and_judge`], for a step whose failure the caller may make good: what is wrong comes back beside
    /// what the step printed.
    pub fn attempt_and_judge(
        &mut self,
        name: &str,
        title: &str,
        command: &mut Command,
        judge: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<(Transcript, Option<String>)> {
        let started = Instant::now();
        let transcript = self.transcribe(name, title, command)?;
        let (end, failure) = match transcript.judged(judge) {
            Ok(remark) => (End::Done(remark), None),
            Err(failure) => (End::Without(failure.clone()), Some(failure)),
        };
        self.finish(title, started.elapsed(), end);
        if failure.is_some() {
            eprintln!("{}", tail(&transcript.text));
        }
        Ok((transcript, failure))
    }

    /// Runs a step whose failure the caller judges.
    pub fn attempt(
        &mut self,
        name: &str,
        title: &str,
        command: &mut Command,
    ) -> Result<Transcript> {
        let started = Instant::now();
        let transcript = self.transcribe(name, title, command)?;
        let end = if transcript.status.success() {
            End::Done(String::new())
        } else {
            End::Without(transcript.status.to_string())
        };
        self.finish(title, started.elapsed(), end);
        Ok(transcript)
    }

    /// Does something short that is no command of its own, as a step.
    pub fn check<T>(
        &mut self,
        title: &str,
        act: impl FnOnce() -> Result<(T, String)>,
    ) -> Result<T> {
        let started = Instant::now();
        match act() {
            Ok((value, remark)) => {
                self.finish(title, started.elapsed(), End::Done(remark));
                Ok(value)
            }
            Err(error) => {
                self.finish(title, started.elapsed(), End::Failed("failed".to_owned()));
                Err(error)
            }
        }
    }

    /// Every step with its time, for the end of a long command.
    pub fn summary(&self) -> String {
        let width = self
            .outcomes
            .iter()
            .map(|outcome| outcome.title.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for outcome in &self.outcomes {
            let (mark, remark) = outcome.end.mark_and_remark();
            let line = format!(
                "{mark} {title:width$} {elapsed:>8}  {remark}",
                title = outcome.title,
                elapsed = seconds(outcome.elapsed),
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text + &format!("  in all {}", seconds(self.started.elapsed()))
    }

    fn transcribe(&self, name: &str, title: &str, command: &mut Command) -> Result<Transcript> {
        let log = self.logs.join(format!("{name}.log"));
        let mut file =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        writeln!(file, "$ {}", shown(command))?;
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let mut child = command
            .stdin(std::process::Stdio::null())
            .stdout(writer.try_clone().context("cannot share a pipe")?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        // The command keeps its ends of the pipe open, and so it would never read as closed.
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());

        let mut progress = Progress::new(self.terminal, title);
        let mut text = String::new();
        let lines = lines_of(reader);
        let started = Instant::now();
        let mut in_time = true;
        loop {
            if in_time && started.elapsed() > self.limit {
                in_time = false;
                text.push_str(&format!("ended after {}\n", seconds(self.limit)));
                processes::kill_with_descendants(child.id());
            }
            match lines.recv_timeout(Duration::from_millis(500)) {
                Ok(line) => {
                    file.write_all(line.as_bytes())?;
                    progress.line(line.trim_end());
                    text.push_str(&line);
                }
                Err(RecvTimeoutError::Timeout) => progress.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if !in_time {
            file.write_all(b"ended: it took too long\n")?;
        }
        let status = child.wait().context("cannot wait for a step")?;
        progress.end();
        Ok(Transcript { text, status, log })
    }

    fn finish(&mut self, title: &str, elapsed: Duration, end: End) {
        let (mark, remark) = end.mark_and_remark();
        let line = format!("{mark} {title} ({}) {remark}", seconds(elapsed));
        eprintln!("{}", line.trim_end());
        self.outcomes.push(Outcome {
            title: title.to_owned(),
            elapsed,
            end,
        });
    }
}

/// What a person sees of a running step: a spinner at a terminal, now and then a line elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    title: String,
    started: Instant,
    spoken: Duration,
    last: String,
}

impl Progress {
    fn new(terminal: bool, title: &str) -> Self {
        let bar = terminal.then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
                    .expect("the template above is well-formed");
            let bar = ProgressBar::new_spinner()
                .with_style(style)
                .with_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            title: title.to_owned(),
            started: Instant::now(),
            spoken: Duration::ZERO,
            last: String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.trim().to_owned());
        }
        line.trim().clone_into(&mut self.last);
        self.tick();
    }

    fn tick(&mut self) {
        let elapsed = self.started.elapsed();
        let due = if self.spoken.is_zero() {
            Duration::from_secs(1)
        } else {
            self.spoken + Duration::from_secs(30)
        };
        if self.bar.is_some() || elapsed < due {
            return;
        }
        if self.spoken.is_zero() {
            eprintln!("… {}", self.title);
        } else {
            eprintln!("… {} ({}) {}", self.title, seconds(elapsed), self.last);
        }
        self.spoken = elapsed;
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

pub fn seconds(elapsed: Duration) -> String {
    let whole = elapsed.as_secs();
    if whole < 60 {
        format!("{:.1} s", elapsed.as_secs_f64())
    } else {
        format!("{}:{:02} min", whole / 60, whole % 60)
    }
}

/// The command as one could paste it, for the head of its log.
fn shown(command: &Command) -> String {
    let mut words: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| {
            let value = value?.to_string_lossy().replace('\x1f', " ");
            Some(format!("{}='{value}'", name.display()))
        })
        .collect();
    words.push(command.get_program().to_string_lossy().into_owned());
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// What is worth reading of the output of a failed step.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.ends_with(" ... ok"))
        .collect();
    let skipped = lines.len().saturating_sub(SHOWN_LINES);
    let shown = lines[skipped..].join("\n");
    if skipped == 0 {
        shown
    } else {
        format!("({skipped} lines more)\n{shown}")
    }
}

/// Hung, not slow: a machine with two cores needs a third of it for the slowest step.
const LIMIT: Duration = Duration::from_secs(45 * 60);
const SHOWN_LINES: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn steps() -> (tempfile::TempDir, Steps) {
        let directory = tempfile::tempdir().unwrap();
        let steps = Steps::new(directory.path().to_path_buf()).unwrap();
        (directory, steps)
    }

    #[test]
    fn a_step_keeps_both_streams_in_its_log() {
        let (_directory, mut steps) = steps();
        let transcript = steps
            .run("both", "both", &mut shell("echo out; echo err >&2"))
            .unwrap();
        assert_eq!(transcript.text, "out\nerr\n");
        let log = fs::read_to_string(transcript.log).unwrap();
        assert!(log.ends_with("out\nerr\n"), "{log}");
    }

    #[test]
    fn a_failing_step_says_where_its_output_is() {
        let (_directory, mut steps) = steps();
        let error = steps.run("bad", "bad", &mut shell("exit 3")).unwrap_err();
        assert!(error.to_string().contains("bad.log"), "{error}");
        assert!(steps.summary().contains("✗ bad"), "{}", steps.summary());
    }

    #[test]
    fn an_attempt_that_fails_is_left_to_the_caller() {
        let (_directory, mut steps) = steps();
        let transcript = steps.attempt("try", "try", &mut shell("exit 3")).unwrap();
        assert!(!transcript.status.success());
        assert!(steps.summary().contains("! try"), "{}", steps.summary());
    }

    #[test]
    fn a_step_that_hangs_is_ended_with_all_its_processes() {
        let (_directory, mut steps) = steps();
        steps.limit = Duration::from_millis(100);
        let started = Instant::now();
        let error = steps
            .run(
                "hang",
                "hang",
                &mut shell("(sleep 60; echo) & sleep 60; echo"),
            )
            .unwrap_err();
        assert!(error.to_string().contains("signal"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_step_can_fail_by_what_it_printed() {
        let (_directory, mut steps) = steps();
        let error = steps
            .run_and_judge("judged", "judged", &mut shell("echo nothing"), |text| {
                Err(format!("it says {}", text.trim()))
            })
            .unwrap_err();
        assert!(error.to_string().contains("it says nothing"), "{error}");
    }
}
