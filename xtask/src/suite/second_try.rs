//! Which of the tests that failed are tried once more.

use super::Tally;

/// Tests of one target.
#[derive(Debug, Eq, PartialEq)]
pub struct Suspects {
    pub target: String,
    pub names: Vec<String>,
}

impl Suspects {
    /// Every one of them has to pass.
    pub fn judge(&self, tally: &Tally) -> Result<String, String> {
        if tally.failed == 0 && tally.passed == self.names.len() as u64 {
            Ok("passed alone; why it failed before is in the log of the run".to_owned())
        } else {
            Err("failed twice".to_owned())
        }
    }
}

/// The tests to try again after a run that printed `text`; none when a slow machine cannot be the reason: a contract was
/// broken, many failed, or something else than a test did.
pub fn of(text: &str) -> Option<Vec<Suspects>> {
    if text.contains(BROKEN) {
        return None;
    }
    let failed = failed(text)?;
    let count: usize = failed.iter().map(|suspects| suspects.names.len()).sum();
    (1..=AT_MOST).contains(&count).then_some(failed)
}

/// What failed, by target; nothing when a target is no integration test or broke off without a list.
fn failed(text: &str) -> Option<Vec<Suspects>> {
    let mut all = Vec::new();
    let mut target = None;
    let mut names: Vec<String> = Vec::new();
    let mut broke_off = false;
    for line in text.lines() {
        if line.contains("/deps/")
            && let Some(running) = line.trim_start().strip_prefix("Running ")
        {
            target = integration_test(running);
            names.clear();
        } else if line == "failures:" {
            // The first such line stands before what the tests printed, the last before their names.
            names.clear();
        } else if line.starts_with("test result: FAILED") {
            let target = target.clone()?;
            let names = std::mem::take(&mut names);
            all.push(Suspects { target, names });
        } else if let Some(name) = line.strip_prefix("    ") {
            names.push(name.to_owned());
        }
        broke_off |= line.contains("(signal: ");
    }
    (!broke_off).then_some(all)
}

/// `tests/estate.rs (target/debug/deps/estate-0123)` is `estate`; `tests/tls/main.rs (…)` is `tls`.
fn integration_test(running: &str) -> Option<String> {
    let path = running.split(' ').next()?.strip_prefix("tests/")?;
    let name = path
        .strip_suffix("/main.rs")
        .or_else(|| path.strip_suffix(".rs"))?;
    Some(name.to_owned())
}

/// Said by tests of what must never happen on any machine, however slow.
const BROKEN: &str = "the contract is broken";
/// More than a noisy machine makes fail.
const AT_MOST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
     Running tests/estate.rs (target/debug/deps/estate-1)
running 2 tests
test a ... ok
test b ... FAILED

failures:

---- b stdout ----
thread 'b' panicked at tests/tests/estate.rs:1:
    {\"web1\": 3}

failures:
    b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s

error: test failed, to rerun pass `-p foobar-tests --test estate`
     Running tests/tls/main.rs (target/debug/deps/tls-1)
test c ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    fn suspects() -> Suspects {
        Suspects {
            target: "estate".to_owned(),
            names: vec!["b".to_owned()],
        }
    }

    #[test]
    fn a_test_that_failed_is_tried_again_in_its_target() {
        assert_eq!(of(OUTPUT), Some(vec![suspects()]));
    }

    #[test]
    fn a_target_in_a_directory_is_called_by_the_directory() {
        let output = OUTPUT.replace("tests/estate.rs", "tests/tls/main.rs");
        assert_eq!(of(&output).unwrap()[0].target, "tls");
    }

    #[test]
    fn a_broken_contract_is_never_tried_again() {
        let output = OUTPUT.replace("{\"web1\": 3}", "the contract is broken: 1 lost");
        assert_eq!(of(&output), None);
    }

    #[test]
    fn many_failures_a_crash_and_a_failed_build_are_not_the_machine() {
        let many = OUTPUT.replace("    b\n", "    b\n    c\n    d\n    e\n");
        assert_eq!(of(&many), None);
        let crash = format!("{OUTPUT}(signal: 11, SIGSEGV: invalid memory reference)\n");
        assert_eq!(of(&crash), None);
        assert_eq!(of("error: could not compile `foobar-tests`\n"), None);
    }

    #[test]
    fn a_unit_test_that_failed_is_not_tried_again() {
        let output = OUTPUT.replace("tests/estate.rs", "unittests src/lib.rs");
        assert_eq!(of(&output), None);
    }

    #[test]
    fn a_second_try_that_ran_nothing_has_failed() {
        assert!(suspects().judge(&Tally::default()).is_err());
    }
}
