//! Step `blackbox`: our own suites against the served Worker (`conformance/blackbox`).
//!
//! Tests that restart a host or want other variables start one themselves.

use anyhow::Result;

use super::vitest::{self, Outcome};
use super::{Context, Report};
use crate::host::{Host, Options};
use crate::setup;

pub(super) fn run(context: &Context) -> Result<Report> {
    setup::conformance(&context.paths)?;
    suite(context, "blackbox")
}

/// Runs the suite in `conformance/{name}` against a host with a state of its own.
pub(super) fn suite(context: &Context, name: &str) -> Result<Report> {
    context.worker()?;
    let state = tempfile::tempdir()?;
    let persist = Some(state.path().join("state"));
    let mut host = Host::start(&context.paths, &Options { persist, ..Options::default() })?;
    let config = format!("{name}/vitest.config.mjs");
    let run = vitest::run(context, name, &["--config", &config], &host)?;
    host.stop()?;
    // A skipped test is a failed one, and so is a crash of the runner after all have passed.
    let failed = run.count(Outcome::Failed) + run.count(Outcome::Skipped);
    Ok(Report {
        passed: run.count(Outcome::Passed),
        failed: failed.max(run.ran.failed),
        output: format!(
            "{}console of the host:\n{}\n{}",
            run.failures(),
            host.log(),
            run.ran.output
        ),
    })
}
