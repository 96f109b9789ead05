//! Runs suites of `conformance/` with vitest against a host, and reads what became of each test.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Context, Report};
use crate::host::Host;
use crate::process;

/// How much of a failed test's reason stands in the list of failures.
const REASON_LINES_MAX: usize = 4;

/// What became of a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// Neither: skipped, or left to be written.
    #[default]
    Skipped,
}

/// One test of a suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) outcome: Outcome,
    /// Titles of the groups around it, the outermost first.
    pub(super) groups: Vec<String>,
    pub(super) title: String,
    /// Why it failed; empty when it did not.
    pub(super) reason: String,
}

/// A run of vitest.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) tests: Vec<Test>,
    /// Whether the runner ended well, and what it wrote.
    pub(super) ran: Report,
}

impl Run {
    /// How many tests ended like that.
    pub(super) fn count(&self, outcome: Outcome) -> u32 {
        let count = self.tests.iter().filter(|test| test.outcome == outcome).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// What failed and why, briefly: this comes before pages of console.
    pub(super) fn failures(&self) -> String {
        let failed = self.tests.iter().filter(|test| test.outcome == Outcome::Failed);
        failed.map(Test::failure).collect()
    }
}

impl Test {
    fn failure(&self) -> String {
        let reason: Vec<&str> = self.reason.lines().take(REASON_LINES_MAX).collect();
        format!("{} > {}\n    {}\n", self.groups.join(" > "), self.title, reason.join("\n    "))
    }
}

/// Runs vitest with `arguments` against a host; `name` is also the name of its log.
pub(super) fn run(context: &Context, name: &str, arguments: &[&str], host: &Host) -> Result<Run> {
    let paths = &context.paths;
    let directory = tempfile::tempdir()?;
    let results = directory.path().join("results.json");
    let mut vitest = process::command(paths, paths.conformance().join("node_modules/.bin/vitest"));
    vitest.current_dir(paths.conformance());
    vitest.arg("run").args(arguments);
    vitest.args(["--reporter=default", "--reporter=json", "--outputFile"]).arg(&results);
    vitest.env("CONFORMANCE_TEST_URL", host.url());
    vitest.env("NO_COLOR", "1");
    let ran = context.check(name, &mut vitest)?;
    let tests = read(&results).with_context(|| ran.output.clone())?;
    Ok(Run { tests, ran })
}

/// Reads what vitest's JSON reporter wrote.
fn read(path: &Path) -> Result<Vec<Test>> {
    let json: Value = serde_json::from_slice(&fs::read(path)?)?;
    let tests = array(&json, "testResults").iter().flat_map(|file| array(file, "assertionResults"));
    Ok(tests.map(read_test).collect())
}

fn read_test(test: &Value) -> Test {
    let outcome = match test.get("status").and_then(Value::as_str) {
        Some("passed") => Outcome::Passed,
        Some("failed") => Outcome::Failed,
        _ => Outcome::Skipped,
    };
    let texts = |name| array(test, name).iter().filter_map(Value::as_str).map(str::to_owned);
    let title = test.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
    let reason = texts("failureMessages").next().unwrap_or_default();
    Test { outcome, groups: texts("ancestorTitles").collect(), title, reason }
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_with_status_and_groups() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let json = r#"{"testResults":[{"assertionResults":[
            {"status":"passed","ancestorTitles":["Basic","Put"]},
            {"status":"failed","ancestorTitles":[],"title":"it","failureMessages":["why","x"]}]},{"assertionResults":[
            {"status":"skipped","ancestorTitles":["Basic"]},
            {"status":"todo"}]}]}"#;
        fs::write(file.path(), json).unwrap();
        let test = |outcome, groups: &[&str]| Test {
            outcome,
            groups: groups.iter().map(|title| (*title).to_owned()).collect(),
            ..Test::default()
        };
        let failed =
            Test { title: "it".into(), reason: "why".into(), ..test(Outcome::Failed, &[]) };
        let wanted = [
            test(Outcome::Passed, &["Basic", "Put"]),
            failed,
            test(Outcome::Skipped, &["Basic"]),
            test(Outcome::Skipped, &[]),
        ];
        assert_eq!(read(file.path()).unwrap(), wanted);
    }
}
