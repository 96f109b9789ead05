//! `cargo xtask demo`: the service at work on real input, with its plug pulled half-way.
//!
//! Node replays 20,000 flights into the served Worker and follows some of them live
//! (`conformance/demo`), and asks for the kill ([`crate::plug`]). Its exit code says whether what
//! was read is what was sent.

use std::process::{ExitCode, Stdio};

use anyhow::Result;

use crate::build::{self, Profile};
use crate::paths::Paths;
use crate::plug::{self, Script, State};
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
}

/// What to play.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Port on 127.0.0.1 [default: a free one]
    #[arg(long)]
    port: Option<u16>,
    /// Replay the first N flights only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Leave the host alone
    #[arg(long)]
    no_kill: bool,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    setup::tools(paths)?;
    setup::conformance(paths)?;
    build::worker(paths, Profile::Release)?;
    let is_proven = play(paths, &args.options, Stdio::inherit(), |line| {
        println!("{line}");
    })?;
    Ok(if is_proven { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays it once; `true` when everything was proven. `say` gets the lines for people. The Worker
/// must be built.
pub(crate) fn play(
    paths: &Paths,
    options: &Options,
    progress: Stdio,
    say: impl FnMut(&str),
) -> Result<bool> {
    let mut args = Vec::new();
    if let Some(limit) = options.limit {
        args.extend(["--limit".to_owned(), limit.to_string()]);
    }
    if options.no_kill {
        args.push("--no-kill".to_owned());
    }
    let state = State::Disk;
    let script =
        Script { path: "demo/main.mjs", args, port: options.port, vars: Vec::new(), state };
    plug::play(paths, &script, progress, say, |_| ())
}
