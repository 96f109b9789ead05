//! `cargo xtask test`: every test there is, in a fixed order; exactly what CI runs.
//!
//! A step is one entry in [`STEPS`]. It runs to its end whatever happened before it, its output is
//! shown when it failed (or with `--verbose`), and the last line of all is `N passed, M failed`.
//! Steps that need the built Worker ask [`Context::worker`] for it, so `--only fmt` builds nothing.

mod blackbox;
mod browser;
mod checks;
mod conformance;
mod contracts;
mod demo;
mod deploy_dry_run;
mod local_host;
mod operators_tables;
mod schemathesis;
mod soak_fanout;
mod soak_kill;
mod soak_readers;
mod vitest;
mod wasm;

use std::cell::Cell;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;
use clap::builder::PossibleValuesParser;

use crate::build::{self, Profile};
use crate::paths::Paths;
use crate::process;
use crate::setup;

/// How much of a failed step's output is shown; all of it is in `.tools/logs`.
const SHOWN_LINES_MAX: usize = 300;

/// Cheap ones first.
const STEPS: &[Step] = &[
    Step { name: "fmt", run: checks::fmt },
    Step { name: "deny-deps", run: checks::deny_deps },
    Step { name: "docs", run: checks::docs },
    Step { name: "clippy", run: checks::clippy },
    Step { name: "unit", run: checks::unit },
    Step { name: "unit-wasm", run: wasm::run },
    Step { name: "doc", run: checks::doc },
    Step { name: "deploy-dry-run", run: deploy_dry_run::run },
    Step { name: "local-host", run: local_host::run },
    Step { name: "contracts", run: contracts::run },
    Step { name: "conformance", run: conformance::run },
    Step { name: "conformance-cold", run: conformance::run_cold },
    Step { name: "conformance-auth", run: conformance::run_auth },
    Step { name: "blackbox", run: blackbox::run },
    Step { name: "schemathesis", run: schemathesis::run },
    Step { name: "browser", run: browser::run },
    Step { name: "demo", run: demo::run },
    Step { name: "soak-kill", run: soak_kill::run },
    Step { name: "soak-readers", run: soak_readers::run },
    Step { name: "soak-fanout", run: soak_fanout::run },
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run this step only; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = names())]
    only: Vec<String>,
    /// Show the output of steps that pass, too
    #[arg(long, short)]
    verbose: bool,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(STEPS.iter().map(|step| step.name))
}

struct Step {
    name: &'static str,
    /// An error counts as one failed test.
    run: fn(&Context) -> Result<Report>,
}

/// What a step did.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) output: String,
}

impl Report {
    /// One test, passed or not.
    pub(crate) fn single(passed: bool, output: String) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), output }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.output.push_str(&other.output);
    }
}

/// What steps share.
pub(crate) struct Context {
    pub(crate) paths: Paths,
    has_worker: Cell<bool>,
}

impl Context {
    /// Builds the Worker as it is deployed, once.
    pub(crate) fn worker(&self) -> Result<()> {
        if !self.has_worker.get() {
            setup::tools(&self.paths)?;
            build::worker(&self.paths, Profile::Release)?;
            self.has_worker.set(true);
        }
        Ok(())
    }

    /// Runs a command that is one test: its exit code tells.
    pub(crate) fn check(&self, log: &str, command: &mut Command) -> Result<Report> {
        let logged = process::logged(&self.paths, &format!("test-{log}"), command)?;
        let output = format!("$ {}\n{}", process::line(command), logged.output);
        Ok(Report::single(logged.status.success(), output))
    }
}

/// Runs one step; `true` when all of its tests passed.
pub(crate) fn only(paths: &Paths, name: &str) -> Result<bool> {
    let args = Args { only: vec![name.to_owned()], verbose: false };
    Ok(run(paths, &args)? == ExitCode::SUCCESS)
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let context = Context { paths: paths.clone(), has_worker: Cell::new(false) };
    let wanted = |step: &&Step| args.only.is_empty() || args.only.iter().any(|n| n == step.name);
    let started = Instant::now();
    let mut total = Report::default();
    let mut failures = Vec::new();
    for step in STEPS.iter().filter(wanted) {
        let report = run_step(&context, step, args.verbose)?;
        if report.failed > 0 {
            failures.push(step.name);
        }
        total.add(&report);
    }
    println!("\n{:.1} s in all", started.elapsed().as_secs_f64());
    if !failures.is_empty() {
        println!("failed: {}", failures.join(", "));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    let is_ok = total.failed == 0 && total.passed > 0;
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_step(context: &Context, step: &Step, is_verbose: bool) -> Result<Report> {
    print!("{:<16}", step.name);
    std::io::stdout().flush()?;
    let started = Instant::now();
    let report =
        (step.run)(context).unwrap_or_else(|error| Report::single(false, format!("{error:#}\n")));
    let verdict = if report.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "{verdict:<8}{:>7.1} s   {} passed, {} failed",
        started.elapsed().as_secs_f64(),
        report.passed,
        report.failed
    );
    if is_verbose {
        println!("{}", report.output.trim_end());
    } else if report.failed > 0 {
        show_ends(&report.output);
    }
    Ok(report)
}

/// What failed stands first, and the runner's own summary last.
fn show_ends(output: &str) {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    let Some(hidden) = lines.len().checked_sub(SHOWN_LINES_MAX).filter(|hidden| *hidden > 0) else {
        return println!("{}", lines.join("\n"));
    };
    let (first, last) = (SHOWN_LINES_MAX / 2, hidden + SHOWN_LINES_MAX / 2);
    println!("{}", lines.get(..first).unwrap_or_default().join("\n"));
    println!("... {hidden} lines more in .tools/logs ...");
    println!("{}", lines.get(last..).unwrap_or_default().join("\n"));
}
