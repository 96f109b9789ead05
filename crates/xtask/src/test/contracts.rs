//! Step `contracts`: the contract suites of `Log` and `Segments` on Durable Object SQLite and R2.
//!
//! `crates/contract` is a Worker that runs them inside an object. It shares the compiled
//! dependencies with the service, so the step costs one link.

use anyhow::Result;

use super::{Context, Report};
use crate::build;
use crate::host::{Host, Options};
use crate::process;

/// Log, object store, roster and ledger.
const SUITES: u32 = 4;

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    build::contract(&context.paths)?;
    let script = context.paths.contract().join("host.mjs");
    let mut host = Host::start_script(&context.paths, &script, &Options::default())?;
    let mut curl = process::command(&context.paths, "node");
    let ask = "const answer = await fetch(process.argv[1]); \
               if ((await answer.text()) !== 'ok') process.exit(1);";
    curl.args(["--input-type=module", "--eval", ask, &host.url()]);
    let mut report = context.check("contracts", &mut curl)?;
    host.stop()?;
    report.passed *= SUITES;
    report.output = format!("{}{}", host.log(), report.output);
    Ok(report)
}
