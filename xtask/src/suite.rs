//! Every test of the workspace: those of the host, then those that need root and the lab.

mod second_try;

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
    let suite = Suite {
        workspace,
        product: &product,
        filter,
    };
    let parts = [suite.on_the_host(steps), suite.in_the_lab(steps)];
    let ran: u64 = parts.iter().flatten().map(|tally| tally.ran()).sum();
    let mut failures: Vec<_> = parts.into_iter().filter_map(Result::err).collect();
    if ran == 0
        && failures.is_empty()
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

/// The tests, and what they need.
#[derive(Clone, Copy, Debug)]
struct Suite<'a> {
    workspace: &'a Workspace,
    product: &'a Product,
    filter: Option<&'a str>,
}

impl Suite<'_> {
    fn on_the_host(self, steps: &mut Steps) -> Result<Tally> {
        let mut command = self.tests(&["foobar-ebpf", "foobar-userspace", "xtask"]);
        command.args(self.filter);
        let transcript = steps.run_and_judge("host-tests", "host tests", &mut command, |text| {
            Tally::read(text).judge(self.filter)
        })?;
        Ok(Tally::read(&transcript.text))
    }

    /// What fails beside all others is tried once more alone (decision 14).
    fn in_the_lab(self, steps: &mut Steps) -> Result<Tally> {
        const TITLE: &str = "packet table and lab, as root";
        let mut command = self.tests(&["foobar-tests"]);
        command.args(self.filter).args(ONE_LAB);
        let (first, failure) =
            steps.attempt_and_judge("root-tests", TITLE, &mut command, |text| {
                Tally::read(text).judge(self.filter)
            })?;
        let tally = Tally::read(&first.text);
        let Some(failure) = failure else {
            return Ok(tally);
        };
        let Some(again) = second_try::of(&first.text) else {
            return Err(first.refusal(TITLE, &failure).into());
        };
        for (number, suspects) in again.iter().enumerate() {
            let mut command = self.tests(&["foobar-tests"]);
            command
                .args(["--test", &suspects.target])
                .args(ONE_LAB)
                .arg("--exact")
                .args(&suspects.names);
            let title = format!("once more: {}", suspects.names.join(", "));
            let name = format!("root-tests-again-{number}");
            steps.run_and_judge(&name, &title, &mut command, |text| {
                suspects.judge(&Tally::read(text))
            })?;
        }
        Ok(tally)
    }

    fn tests(self, packages: &[&str]) -> Command {
        let mut command = self.workspace.cargo();
        command.args(["test", "--no-fail-fast"]);
        for package in packages {
            command.args(["--package", package]);
        }
        self.product.announce(&mut command);
        command
    }
}

/// There is one lab, and one public address to reach it by.
const ONE_LAB: &[&str] = &["--", "--test-threads=1"];

/// What the `test result:` lines of a run add up to; tests that say `skipped:` are not among those that passed.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
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

    fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    fn judge(&self, filter: Option<&str>) -> Result<String, String> {
        if self.failed > 0 {
            return Err(format!("{} of {} failed", self.failed, self.ran()));
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
