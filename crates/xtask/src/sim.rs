//! `cargo xtask sim`: seeded simulation of streams under faults, in release.
//!
//! `docs/simulation.md` has the fault model and says how to replay a seed. The options are those
//! of the `sim` binary, which gets them as they are.

use std::process::ExitCode;

use anyhow::Result;

use crate::paths::Paths;
use crate::process;

/// The world of streams, and that of sessions and their sources.
const STREAMS: &str = "streams";
const FANOUT: &str = "fanout";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which world: `streams` or `fanout`
    #[arg(long, default_value = STREAMS)]
    world: String,
    /// How many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first one
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Steps of each
    #[arg(long)]
    steps: Option<u32>,
    /// Print every step
    #[arg(long)]
    trace: bool,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let is_clean = simulate(paths, args)?;
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs seeds of both worlds; `true` when none found anything.
pub(crate) fn seeds(paths: &Paths, seeds: u64) -> Result<bool> {
    let run = |world: &str| {
        let world = world.to_owned();
        simulate(paths, &Args { world, seeds, start: 0, steps: None, trace: false })
    };
    let is_ok = run(STREAMS)?;
    Ok(run(FANOUT)? && is_ok)
}

fn simulate(paths: &Paths, args: &Args) -> Result<bool> {
    let mut command = process::command(paths, "cargo");
    command.args(["run", "--quiet", "--release", "--package", "sim", "--"]);
    command.args(["--world", &args.world]);
    command.args(["--seeds", &args.seeds.to_string(), "--start", &args.start.to_string()]);
    if let Some(steps) = args.steps {
        command.args(["--steps", &steps.to_string()]);
    }
    if args.trace {
        command.arg("--trace");
    }
    Ok(command.status()?.success())
}
