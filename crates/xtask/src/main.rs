//! Tasks of the workspace: `cargo xtask <command>`.
//!
//! Everything a person or a machine does with this repository goes through here, so that a laptop
//! and CI do the same: one file per command, helpers beside them ([`paths`], [`process`],
//! [`stamp`], [`host`]). Commands are idempotent and fast when there is nothing to do. A failed
//! command says why in one line on stderr and exits with 1; a bad command line with 2.

#![allow(clippy::print_stdout)] // The commands' output is for people and pipes.

mod bench;
mod build;
mod demo;
mod deploy;
mod dev;
mod docs;
mod host;
mod paths;
mod plug;
mod process;
mod project;
mod reconcile;
mod setup;
mod sim;
mod soak;
mod stamp;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::paths::Paths;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Tasks of the durable-streams workspace",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the pinned tools into `.tools` and `wrangler/node_modules`
    Setup(setup::Args),
    /// Build the Worker into `crates/worker/build`
    Build(build::Args),
    /// Set up, build and serve on 127.0.0.1 with durable local state
    Dev(dev::Args),
    /// Replay 20,000 flights, follow them live, and kill the host half-way
    Demo(demo::Args),
    /// Measure the Worker beside what the platform allows for the same work
    Bench(bench::Args),
    /// Run every test, as CI does
    Test(test::Args),
    /// Simulate streams under faults, seed by seed
    Sim(sim::Args),
    /// Run the long tests: 10,000 seeds, the conformance suite three times, 100 kills, 2,000 readers, fan-out
    Soak(soak::Args),
    /// Create a project of a service, rotate its secret, show it, or sign a token for it
    Project(project::Args),
    /// Compare the object store with the streams of a project; changes nothing
    Reconcile(reconcile::Args),
    /// Write the pages of `docs/` that are made from the code
    Docs(docs::Args),
    /// Set up, build and deploy to Cloudflare
    Deploy(deploy::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let paths = Paths::find()?;
    match command {
        Command::Setup(args) => setup::run(&paths, &args)?,
        Command::Build(args) => build::run(&paths, &args)?,
        Command::Dev(args) => dev::run(&paths, &args)?,
        Command::Demo(args) => return demo::run(&paths, &args),
        Command::Bench(args) => bench::run(&paths, &args)?,
        Command::Test(args) => return test::run(&paths, &args),
        Command::Sim(args) => return sim::run(&paths, &args),
        Command::Soak(args) => return soak::run(&paths, &args),
        Command::Reconcile(args) => return reconcile::run(&args),
        Command::Docs(args) => docs::run(&paths, &args)?,
        Command::Project(args) => project::run(&args)?,
        Command::Deploy(args) => deploy::run(&paths, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what is wrong with the command line; an unknown command gets the help as well.
fn refuse(error: &clap::Error) -> ExitCode {
    // Nothing is left to do when the terminal is gone.
    let _ = error.print();
    if error.kind() == ErrorKind::InvalidSubcommand {
        eprintln!("\n{}", Cli::command().render_help());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
