//! `cargo xtask bench`: set up, build in release, measure beside the platform's ceilings.
//!
//! The measuring is done by the crate `bench`; this command gives it a built Worker, the tools on
//! its path and a place for state on the disk of the repository.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::paths::Paths;
use crate::process;
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the results here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run only the scenario of this name, or those whose names contain it; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds of each side
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds that a round counts
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds to wait before a round for other programs to leave the machine alone
    #[arg(long)]
    patience: Option<u64>,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<()> {
    setup::tools(paths)?;
    build::worker(paths, Profile::Release)?;
    let mut command = process::command(paths, "cargo");
    command.args(["run", "--quiet", "--release", "--package", "bench", "--", "--root"]);
    command.arg(paths.root()).arg("--state").arg(paths.target().join("bench"));
    if let Some(file) = &args.json {
        // cargo runs elsewhere: a relative path is relative to the caller's directory.
        command.arg("--json").arg(std::path::absolute(file)?);
    }
    let rounds = args.rounds.map(|rounds| rounds.to_string());
    let seconds = args.seconds.map(|seconds| seconds.to_string());
    let patience = args.patience.map(|patience| patience.to_string());
    let options = args.only.iter().map(|name| ("--only", name));
    let options = options.chain(rounds.iter().map(|rounds| ("--rounds", rounds)));
    let options = options.chain(seconds.iter().map(|seconds| ("--seconds", seconds)));
    for (flag, value) in options.chain(patience.iter().map(|patience| ("--patience", patience))) {
        command.args([OsStr::new(flag), OsStr::new(value)]);
    }
    let status = command.status().context("cargo does not start")?;
    if !status.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}
