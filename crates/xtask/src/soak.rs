//! `cargo xtask soak`: what takes longer than a test may, run before a capability counts as done.

use std::process::ExitCode;

use anyhow::Result;

use crate::paths::Paths;
use crate::{sim, test};

const SEEDS: u64 = 10_000;
const CONFORMANCE_RUNS: u32 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    println!("sim: {SEEDS} seeds");
    let mut is_ok = sim::seeds(paths, SEEDS)?;
    for run in 1..=CONFORMANCE_RUNS {
        println!("conformance: run {run} of {CONFORMANCE_RUNS}");
        is_ok &= test::only(paths, "conformance")?;
    }
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
