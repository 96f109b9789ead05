//! `cargo xtask dev`: set up, build and serve.
//!
//! Ends with the line `ready http://127.0.0.1:PORT`. This process becomes the host, so Ctrl-C and
//! every other signal reach it directly, and nothing is left between the terminal and workerd.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::host::{self, Options};
use crate::paths::Paths;
use crate::process;
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 4437)]
    port: u16,
    /// Directory of the durable state [default: .state]
    #[arg(long, value_name = "DIR")]
    persist: Option<PathBuf>,
    /// Wipe the state first
    #[arg(long)]
    fresh: bool,
    /// Override a variable of wrangler.jsonc; may be repeated
    #[arg(long = "var", value_name = "KEY=VALUE")]
    vars: Vec<String>,
    /// Environment of wrangler.jsonc
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<()> {
    setup::tools(paths)?;
    build::worker(paths, Profile::Release)?;
    // The host runs elsewhere: a relative path is relative to the caller's directory.
    let persist = std::path::absolute(args.persist.clone().unwrap_or_else(|| paths.state()))?;
    let options = Options {
        port: args.port,
        persist: Some(persist),
        fresh: args.fresh,
        vars: args.vars.clone(),
        env: args.env.clone(),
    };
    let mut command = process::command(paths, "node");
    host::configure(paths, &mut command, &options);
    // Returns only when it fails.
    Err(command.exec()).context("node does not start")
}
