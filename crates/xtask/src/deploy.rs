//! `cargo xtask deploy`: set up, build and hand over to `wrangler deploy`.
//!
//! wrangler asks for a login, or takes `CLOUDFLARE_API_TOKEN`.

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::paths::Paths;
use crate::process;
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Environment of wrangler.jsonc
    #[arg(long)]
    env: Environment,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Environment {
    Staging,
    Production,
}

impl Environment {
    fn name(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<()> {
    setup::tools(paths)?;
    build::worker(paths, Profile::Release)?;
    let status = process::command(paths, paths.wrangler_tool("wrangler"))
        .current_dir(paths.wrangler())
        .args(["deploy", "--env", args.env.name()])
        .status()
        .context("wrangler does not start")?;
    if !status.success() {
        bail!("wrangler deploy: {status}");
    }
    Ok(())
}
