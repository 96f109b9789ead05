//! `sim [--world streams|fanout] --seeds N --start S [--steps N] [--trace]`: runs seeds and reports the first failures.

#![allow(clippy::print_stdout, reason = "a command line tool")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sim::world::Setup;
use sim::{Outcome, SQLITE_EVERY, fanout, run_each, simulate};

struct Options {
    seeds: u64,
    start: u64,
    /// As many as the world is used to, unless said otherwise.
    steps: Option<u32>,
    fanout: bool,
    trace: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { seeds: 1_000, start: 0, steps: None, fanout: false, trace: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--trace" {
            options.trace = true;
            continue;
        }
        let value = arguments.next().ok_or(format!("{argument} needs a value"))?;
        if argument == "--world" {
            options.fanout = match value.as_str() {
                "streams" => false,
                "fanout" => true,
                _ => return Err(format!("{value} is no world")),
            };
            continue;
        }
        let number: u64 = value.parse().map_err(|_| format!("{value} is no number"))?;
        match argument.as_str() {
            "--seeds" => options.seeds = number,
            "--start" => options.start = number,
            "--steps" => options.steps = Some(u32::try_from(number).unwrap_or(u32::MAX)),
            _ => return Err(format!("{argument} is no option")),
        }
    }
    Ok(options)
}

fn run(options: &Options, seed: u64) -> Outcome {
    let echo = options.trace;
    if options.fanout {
        let steps = options.steps.unwrap_or(fanout::STEPS);
        return fanout::simulate(fanout::Setup { seed, steps, bug: fanout::Bug::None, echo });
    }
    let steps = options.steps.unwrap_or(400);
    let sqlite = seed.is_multiple_of(SQLITE_EVERY);
    simulate(Setup { seed, steps, sqlite, echo, ..Setup::default() })
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!(
                "{error}\nusage: sim [--world streams|fanout] --seeds N --start S [--steps N] [--trace]"
            );
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let progress = Mutex::new((Instant::now(), 0u64));
    let summary = run_each(
        options.seeds,
        options.start,
        |seed| run(&options, seed),
        |outcome| {
            if let Some(failure) = &outcome.failure {
                eprintln!("{failure}\n");
            }
            let Ok(mut progress) = progress.lock() else { return };
            progress.1 += 1;
            if progress.0.elapsed() >= Duration::from_secs(1) {
                progress.0 = Instant::now();
                eprintln!("{} of {} seeds", progress.1, options.seeds);
            }
        },
    );
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} steps, {} failures, {seconds:.1} s, {:.0} seeds/s",
        summary.seeds,
        summary.steps,
        summary.failures.len(),
        summary.seeds as f64 / seconds,
    );
    for failure in summary.failures.iter().take(20) {
        println!("seed {} step {}: {}", failure.seed, failure.step, failure.violation);
    }
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
