//! Every test of the workspace: those of the host, then those that need root and the lab.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    machine,
    product::Product,
    setup::{self, Consent, Scope},
    steps::Steps,
    workspace::{Profile, Workspace},
};

/// Runs all tests whose names contain `filter`; one failing part does not keep the others from running.
pub fn run(
    workspace: &Workspace,
    steps: &mut Steps,
    consent: Consent,
    filter: Option<&str>,
) -> Result<ExitCode> {
    machine::refuse_unless_capable("the root tests")?;
    let tools = setup::ensure(workspace, steps, Scope::Lab, consent)?;
    let product = Product::build(workspace, steps, &tools, Profile::Dev)?;
    let mut failures = Vec::new();
    let mut ran = 0;
    for part in [host_tests(workspace), lab_tests(workspace)] {
        let (name, title, mut command, threads) = part;
        product.announce(&mut command);
        command.args(filter).args(threads);
        let result = steps.run_and_judge(name, title, &mut command, |text| {
            let tally = Tally::read(text);
            ran += tally.passed + tally.failed;
            tally.judge(filter)
        });
        failures.extend(result.err());
    }
    if ran == 0
        && let Some(filter) = filter
    {
        failures.push(anyhow::anyhow!("no test's name contains {filter:?}"));
    }
    eprintln!("\n{}", steps.summary());
    for failure in &failures {
        eprintln!("error: {failure:#}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

type Part = (&'static str, &'static str, Command, &'static [&'static str]);

fn host_tests(workspace: &Workspace) -> Part {
    let mut command = workspace.cargo();
    command
        .args(["test", "--no-fail-fast", "--package", "foobar-ebpf"])
        .args(["--package", "foobar-userspace", "--package", "xtask"]);
    ("host-tests", "host tests", command, &[])
}

fn lab_tests(workspace: &Workspace) -> Part {
    let mut command = workspace.cargo();
    command.args(["test", "--no-fail-fast", "--package", "foobar-tests"]);
    // There is one lab, and one public address to reach it by.
    let threads = &["--", "--test-threads=1"];
    (
        "root-tests",
        "packet table and lab, as root",
        command,
        threads,
    )
}

/// What the `test result:` lines of a run add up to; tests that say `skipped:` are not among those that passed.
#[derive(Debug, Default, Eq, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
}

impl Tally {
    fn read(text: &str) -> Self {
        let mut tally = Self::default();
        for line in text.lines().filter(|line| line.starts_with("test result:")) {
            for part in line.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let (Some(Ok(number)), Some(what)) =
                    (words.next().map(str::parse::<u64>), words.next())
                else {
                    continue;
                };
                match what {
                    "passed" => tally.passed += number,
                    "failed" => tally.failed += number,
                    "ignored" => tally.ignored += number,
                    _ => {}
                }
            }
        }
        let skipped = text
            .lines()
            .filter_map(|line| line.strip_prefix("skipped: "));
        tally.skipped = skipped.map(str::to_owned).collect();
        tally.passed = tally.passed.saturating_sub(tally.skipped.len() as u64);
        tally
    }

    fn judge(&self, filter: Option<&str>) -> Result<String, String> {
        if self.failed > 0 {
            return Err(format!(
                "{} of {} failed",
                self.failed,
                self.failed + self.passed
            ));
        }
        if self.passed == 0 && filter.is_none() {
            return Err("no test ran".to_owned());
        }
        let mut told = format!("{} passed", self.passed);
        if self.ignored > 0 {
            told += &format!(", {} ignored", self.ignored);
        }
        if !self.skipped.is_empty() {
            told += &format!(
                ", {} skipped ({})",
                self.skipped.len(),
                self.skipped.join("; ")
            );
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s
";

    #[test]
    fn the_results_of_all_test_binaries_add_up() {
        let tally = Tally::read(OUTPUT);
        let expected = Tally {
            passed: 6,
            failed: 1,
            ignored: 1,
            skipped: Vec::new(),
        };
        assert_eq!(tally, expected);
    }

    #[test]
    fn a_run_of_no_test_at_all_is_a_failure() {
        assert!(Tally::default().judge(None).is_err());
        assert!(Tally::default().judge(Some("name")).is_ok());
    }

    #[test]
    fn ignored_tests_are_mentioned() {
        let tally = Tally {
            passed: 2,
            failed: 0,
            ignored: 1,
            ..Tally::default()
        };
        assert_eq!(tally.judge(None).unwrap(), "2 passed, 1 ignored");
    }

    #[test]
    fn a_test_that_says_it_was_skipped_did_not_pass() {
        let text = "test group ... \nskipped: group: no MySQL 9.7 here\nok\ntest result: ok. 3 passed; 0 failed; 0 ignored\n";
        assert_eq!(
            Tally::read(text).judge(None).unwrap(),
            "2 passed, 1 skipped (group: no MySQL 9.7 here)"
        );
    }
}
