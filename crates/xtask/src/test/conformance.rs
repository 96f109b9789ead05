//! Steps `conformance`, `conformance-cold` and `conformance-auth`: the published suite, unpatched,
//! against a host with fresh state; once open to everybody, once moving bytes to the object store all
//! the time, and once asking for tokens, which a proxy adds.
//!
//! The number of tests is part of the test: a suite that silently runs fewer proves nothing. The
//! suite registers its tests of the reserved subscriptions API as skipped; those and no others may
//! be skipped.

use anyhow::Result;

use super::vitest::{self, Outcome, Test};
use super::{Context, Report};
use crate::host::{Host, Options};
use crate::setup;

/// All tests of the suite at its pinned version, without the reserved ones.
const PUBLISHED_TESTS: u32 = 332;
/// The suite's name of the group that its option `subscriptions` would turn on, and its size.
const RESERVED_GROUP: &str = "Reserved subscription APIs";
const RESERVED_TESTS: u32 = 6;
/// Two tests wait for a long-poll to end within the test runner's default of 5 s, which the
/// service's default of 20 s outlasts. The suite's own server is tested with half a second.
const LONG_POLL: &str = "LONG_POLL_TIMEOUT_MS=2000";
/// Some tests' streams become segments, and some of those are several.
const SMALL_SEGMENTS: &str = "SEGMENT_BYTES=1024";

/// The admin token of conformance/tokens.mjs.
pub(super) const ADMIN_TOKEN: &str = "ADMIN_TOKEN=admin-token-of-tests-0123456789abcdef";

pub(super) fn run(context: &Context) -> Result<Report> {
    published(context, "conformance", "published.test.mjs", &[LONG_POLL])
}

pub(super) fn run_cold(context: &Context) -> Result<Report> {
    published(context, "conformance-cold", "published.test.mjs", &[LONG_POLL, SMALL_SEGMENTS])
}

pub(super) fn run_auth(context: &Context) -> Result<Report> {
    let vars = [LONG_POLL, "AUTH=jwt", ADMIN_TOKEN];
    published(context, "conformance-auth", "authorised.test.mjs", &vars)
}

/// Runs the suite of a file against a host with these variables; `name` is also that of its log.
fn published(context: &Context, name: &str, file: &str, vars: &[&str]) -> Result<Report> {
    context.worker()?;
    let paths = &context.paths;
    setup::conformance(paths)?;
    let state = tempfile::tempdir()?;
    let options = Options {
        persist: Some(state.path().join("state")),
        vars: vars.iter().map(|var| (*var).to_owned()).collect(),
        ..Options::default()
    };
    let mut host = Host::start(paths, &options)?;

    let run = vitest::run(context, name, &[file], &host)?;
    host.stop()?;
    let mut report = Results::of(&run.tests).report();
    // A crash of the runner is a failure even if every test had passed before.
    report.failed = report.failed.max(run.ran.failed);
    report.output = format!(
        "{}{}console of the host:\n{}\n{}",
        report.output,
        run.failures(),
        host.log(),
        run.ran.output
    );
    Ok(report)
}

/// How many tests ended how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Results {
    passed: u32,
    failed: u32,
    /// Of the reserved group.
    reserved: u32,
    /// Neither passed nor failed nor reserved.
    skipped: u32,
}

impl Results {
    fn of(tests: &[Test]) -> Self {
        let mut results = Self::default();
        for test in tests {
            let is_reserved = test.groups.iter().any(|title| title == RESERVED_GROUP);
            let count = match test.outcome {
                Outcome::Passed => &mut results.passed,
                Outcome::Failed => &mut results.failed,
                Outcome::Skipped if is_reserved => &mut results.reserved,
                Outcome::Skipped => &mut results.skipped,
            };
            *count += 1;
        }
        results
    }

    fn report(&self) -> Report {
        let is_complete = self.passed + self.failed == PUBLISHED_TESTS
            && self.skipped == 0
            && self.reserved == RESERVED_TESTS;
        let failed = if is_complete { self.failed } else { self.failed.max(1) };
        let output = format!(
            "{} passed, {} failed, {} skipped beside {} reserved; \
             wanted {PUBLISHED_TESTS} passed, {RESERVED_TESTS} reserved\n",
            self.passed, self.failed, self.skipped, self.reserved
        );
        Report { passed: self.passed, failed, output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: Results = Results { passed: 332, failed: 0, reserved: 6, skipped: 0 };

    #[test]
    fn a_complete_run_passes() {
        let report = COMPLETE.report();
        assert_eq!((report.passed, report.failed), (332, 0));
    }

    #[test]
    fn a_skipped_or_missing_test_fails_the_step() {
        let (passed, skipped) = (331, 1);
        let one_skipped = Results { passed, skipped, ..COMPLETE };
        assert_eq!(one_skipped.report().failed, 1);
        let one_missing = Results { passed, ..COMPLETE };
        assert_eq!(one_missing.report().failed, 1);
        let reserved_gone = Results { reserved: 5, ..COMPLETE };
        assert_eq!(reserved_gone.report().failed, 1);
    }

    #[test]
    fn results_are_counted_by_status_and_group() {
        let test = |outcome, group: &str| Test {
            outcome,
            groups: vec![group.to_owned()],
            ..Test::default()
        };
        let tests = [
            test(Outcome::Passed, "Basic"),
            test(Outcome::Failed, "Basic"),
            test(Outcome::Skipped, "Basic"),
            test(Outcome::Skipped, RESERVED_GROUP),
        ];
        let wanted = Results { passed: 1, failed: 1, reserved: 1, skipped: 1 };
        assert_eq!(Results::of(&tests), wanted);
    }
}
