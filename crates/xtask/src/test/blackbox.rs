//! Step `blackbox`: our own suites against the served Worker (`conformance/blackbox`).
//!
//! Tests that restart a host or want other variables start one themselves.

use anyhow::Result;

use super::vitest::{self, Outcome};
use super::{Context, Report};
use crate::host::{Host, Options};
use crate::setup;

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    setup::conformance(&context.paths)?;
    let state = tempfile::tempdir()?;
    let persist = Some(state.path().join("state"));
    let mut host = Host::start(&context.paths, &Options { persist, ..Options::default() })?;
    let arguments = ["--config", "blackbox/vitest.config.mjs"];
    let run = vitest::run(context, "blackbox", &arguments, &host)?;
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
