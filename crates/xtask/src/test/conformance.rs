//! Step `conformance`: the published suite, unpatched, against a host with fresh state.
//!
//! The number of tests is part of the test: a suite that silently runs fewer proves nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Context, Report};
use crate::host::{Host, Options};
use crate::process;
use crate::setup;

/// All tests of the suite at its pinned version, without the reserved subscriptions API.
const PUBLISHED_TESTS: u32 = 332;

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    let paths = &context.paths;
    setup::conformance(paths)?;
    let state = tempfile::tempdir()?;
    let persist = Some(state.path().join("state"));
    let mut host = Host::start(
        paths,
        &Options {
            persist,
            ..Options::default()
        },
    )?;

    let results = state.path().join("results.json");
    let mut vitest = process::command(paths, paths.conformance().join("node_modules/.bin/vitest"));
    vitest.current_dir(paths.conformance());
    vitest
        .args([
            "run",
            "published.test.mjs",
            "--reporter=json",
            "--outputFile",
        ])
        .arg(&results);
    vitest.env("BASE_URL", host.url());
    let ran = context.check("conformance", &mut vitest)?;
    host.stop()?;
    let mut report = read(&results).with_context(|| ran.output.clone())?;
    let console = host.log();
    if !console.is_empty() {
        report
            .output
            .push_str(&format!("console of the host:\n{console}"));
    }
    if ran.failed > 0 && report.failed == 0 {
        report.add(&ran);
    }
    Ok(report)
}

/// Reads vitest's results, and counts whatever is missing or skipped as failed.
fn read(results: &Path) -> Result<Report> {
    let results: Value = serde_json::from_slice(&fs::read(results)?)?;
    let count = |name: &str| {
        let count = results
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_default();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let (passed, failed) = (count("numPassedTests"), count("numFailedTests"));
    let skipped = count("numPendingTests") + count("numTodoTests");
    let mut output = failures(&results);
    output.push_str(&format!(
        "{passed} passed, {failed} failed, {skipped} skipped; the suite has {PUBLISHED_TESTS}\n"
    ));
    let is_complete = passed + failed == PUBLISHED_TESTS && skipped == 0;
    let failed = if is_complete { failed } else { failed.max(1) };
    Ok(Report {
        passed,
        failed,
        output,
    })
}

/// Names and first lines of the messages of what failed.
fn failures(results: &Value) -> String {
    let items = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let text = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut output = String::new();
    for file in items(results, "testResults") {
        let message = text(&file, "message");
        if !message.is_empty() {
            output.push_str(&format!("{message}\n"));
        }
        for test in items(&file, "assertionResults") {
            if text(&test, "status") != "failed" {
                continue;
            }
            let messages = items(&test, "failureMessages");
            let first = messages.first().and_then(Value::as_str).unwrap_or_default();
            let first = first.lines().next().unwrap_or_default();
            output.push_str(&format!(
                "FAILED {}\n    {first}\n",
                text(&test, "fullName")
            ));
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(json: &str) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.json");
        fs::write(&file, json).unwrap();
        read(&file).unwrap()
    }

    #[test]
    fn a_complete_run_passes() {
        let report = report_of(r#"{"numPassedTests":332,"numFailedTests":0,"numPendingTests":0}"#);
        assert_eq!((report.passed, report.failed), (332, 0));
    }

    #[test]
    fn a_skipped_or_missing_test_fails_the_step() {
        let skipped = report_of(r#"{"numPassedTests":331,"numFailedTests":0,"numPendingTests":1}"#);
        assert_eq!((skipped.passed, skipped.failed), (331, 1));
        let fewer = report_of(r#"{"numPassedTests":300,"numFailedTests":0}"#);
        assert_eq!((fewer.passed, fewer.failed), (300, 1));
    }
}
