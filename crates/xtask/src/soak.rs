//! `cargo xtask soak`: what takes longer than a test may, run before a capability counts as done.

mod fanout;
mod kill;
mod readers;

use std::process::ExitCode;

use anyhow::Result;

use crate::paths::Paths;
use crate::{sim, test};

pub(crate) use fanout::{Options as FanoutOptions, play as play_fanout};
pub(crate) use kill::{Options as KillOptions, play as play_kill};
pub(crate) use readers::{Options as ReadersOptions, play as play_readers};

const SEEDS: u64 = 10_000;
const CONFORMANCE_RUNS: u32 = 3;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(clap::Subcommand)]
enum Part {
    /// Kill the host again and again while it moves bytes to the object store
    Kill(KillOptions),
    /// Let thousands read live, and some of them stop reading
    Readers(ReadersOptions),
    /// Let sessions follow sources while the host is killed again and again
    Fanout(FanoutOptions),
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let is_ok = match &args.part {
        Some(Part::Kill(options)) => kill::run(paths, options)?,
        Some(Part::Readers(options)) => readers::run(paths, options)?,
        Some(Part::Fanout(options)) => fanout::run(paths, options)?,
        None => all(paths)?,
    };
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn all(paths: &Paths) -> Result<bool> {
    println!("sim: {SEEDS} seeds");
    let mut is_ok = sim::seeds(paths, SEEDS)?;
    for run in 1..=CONFORMANCE_RUNS {
        println!("conformance: run {run} of {CONFORMANCE_RUNS}");
        is_ok &= test::only(paths, "conformance")?;
    }
    let options = KillOptions::default();
    println!("kill: {} rounds", options.rounds);
    is_ok &= kill::run(paths, &options)?;
    let options = ReadersOptions::default();
    println!("readers: {} for {} s", options.readers, options.seconds);
    is_ok &= readers::run(paths, &options)?;
    let options = FanoutOptions::default();
    println!("fanout: {} rounds, {} sessions", options.rounds, options.sessions);
    is_ok &= fanout::run(paths, &options)?;
    let options = FanoutOptions::wide();
    println!("fanout: {} subscribers of one source", options.wide.unwrap_or_default());
    is_ok &= fanout::run(paths, &options)?;
    Ok(is_ok)
}
