//! Benchmarks: what the Worker does, beside what the platform allows for the same work.
//!
//! `cargo xtask bench` builds the Worker and this program in release and runs it. Both Workers,
//! ours and the ceiling (`crates/bench/ceiling`), are hosted directly on workerd, with durable
//! state on a real disk; each scenario measures both in turns ([`rounds`]). Absolute numbers
//! depend on the machine, ratios much less.
//!
//! - [`load`], [`http`]: the load generator of requests.
//! - [`live`], [`pipeline`], [`ws`]: the load generators of live readers and of appends over a
//!   WebSocket.
//! - [`link`]: what all of them stand on.
//! - [`host`], [`system`]: workerd as a process.
//! - [`scenarios`]: what is measured, one file a topic.
//! - [`report`]: targets, table, JSON.
//!
//! stdout carries the table, stderr the progress. Exit code 0 when every scenario ran, whether or
//! not its target is met; 1 when one could not be measured.

#![allow(clippy::print_stdout)] // The table is the product.

mod host;
mod http;
mod link;
mod live;
mod load;
mod pipeline;
mod report;
mod rounds;
mod scenarios;
mod system;
mod ws;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::host::Host;
use crate::report::Outcome;
use crate::rounds::Settings;
use crate::scenarios::{Bench, CEILING, OURS, Peaks, SCENARIOS, Scenario};

#[derive(Parser)]
#[command(about = "Benchmarks of the durable-streams Worker; cargo xtask bench runs it")]
struct Args {
    /// Root of the repository; the Worker must be built
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Directory for the state of the Workers, on a real disk; it is removed at the end
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Write the results here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run only the scenario of this name, or those whose names contain it; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds of each side
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds that a round counts
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds to wait before a round for other programs to leave the machine alone
    #[arg(long, default_value_t = 3)]
    patience: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let chosen = choose(&args.only)?;
    let root = std::path::absolute(&args.root)?;
    std::fs::create_dir_all(&args.state)?;
    let settings = Settings {
        rounds: args.rounds.max(1),
        counted: Duration::try_from_secs_f64(args.seconds).context("--seconds")?,
        patience: Duration::from_secs(args.patience),
        time_max: Duration::MAX,
    };
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut peaks = Peaks::default();
    let mut failed = Vec::new();
    for (name, scenario) in chosen {
        eprintln!("{name}");
        // Fresh hosts: no scenario inherits another's memory, and no disk fills up.
        let state = tempfile::tempdir_in(std::path::absolute(&args.state)?)?;
        let bench = Bench {
            ours: Host::start(&root.join(OURS), &state.path().join("ours"), &[])?,
            ceiling: Host::start(&root.join(CEILING), &state.path().join("ceiling"), &[])?,
            root: root.clone(),
            state: state.path().to_owned(),
            settings,
            peaks,
        };
        match scenario(&bench, name) {
            Ok(measured) => outcomes.extend(measured),
            // The others still have something to tell.
            Err(error) => {
                eprintln!("{}bench: {name}: {error:#}", bench.logs());
                failed.push(name);
            }
        }
        peaks = bench.peaks_now();
    }
    println!("{}", report::table(&outcomes));
    if let Some(path) = &args.json {
        let text = report::json(&outcomes)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

/// The scenarios that are asked for: the one of a name, else those whose names contain it.
fn choose(only: &[String]) -> Result<Vec<(&'static str, Scenario)>> {
    if only.is_empty() {
        return Ok(SCENARIOS.to_vec());
    }
    let exact = |wanted: &str| SCENARIOS.iter().any(|(name, _)| *name == wanted);
    let mut chosen = SCENARIOS.to_vec();
    chosen.retain(|(name, _)| {
        only.iter()
            .any(|only| if exact(only) { name == only } else { name.contains(only.as_str()) })
    });
    if chosen.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        bail!("--only {}: there are {}", only.join(" "), names.join(", "));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn a_whole_name_chooses_one_scenario_and_a_part_all_that_have_it() {
        let names = |only: &str| {
            let chosen = choose(&[only.to_owned()]).unwrap();
            chosen.iter().map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert_eq!(names("append-1"), ["append-1"]);
        assert_eq!(names("read-"), ["read-9kb", "read-1mib", "read-cold"]);
        assert!(choose(&["nothing".to_owned()]).is_err());
        assert!(choose(&[]).unwrap().len() > 10);
    }
}
