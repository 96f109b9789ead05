//! `cargo xtask deploy`: set up, build and hand over to `wrangler deploy`.
//!
//! wrangler asks for a login, or takes `CLOUDFLARE_API_TOKEN`. What has to be there before is told
//! in docs/deploy.md.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

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
    let configuration = fs::read_to_string(paths.wrangler().join("wrangler.jsonc"))?;
    let placeholder = placeholder(args.env);
    // wrangler would say so after the build, and without the cure.
    ensure!(
        !configuration.contains(&placeholder),
        "wrangler.jsonc has {placeholder} where the id of a KV namespace belongs: see \
         \"Resources\" in docs/deploy.md"
    );
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

/// What stands in the configuration of an environment until its registry exists.
fn placeholder(environment: Environment) -> String {
    format!("REGISTRY_ID_OF_{}", environment.name().to_ascii_uppercase())
}
