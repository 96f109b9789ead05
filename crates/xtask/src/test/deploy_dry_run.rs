//! Step `deploy-dry-run`: wrangler accepts the configuration of every environment and collects
//! the modules of the built Worker, and operators are told of all that is configured there. Needs
//! neither a network nor a login.

use anyhow::Result;

use super::{Context, Report, operators_tables};
use crate::process;

/// The empty name is the top level of wrangler.jsonc.
const ENVIRONMENTS: [&str; 3] = ["", "staging", "production"];
const MODULES: [&str; 2] = ["index.js", "index_bg.wasm"];

pub(super) fn run(context: &Context) -> Result<Report> {
    let mut report = operators_tables::run(context)?;
    context.worker()?;
    for name in ENVIRONMENTS {
        report.add(&dry_run(context, name)?);
    }
    Ok(report)
}

fn dry_run(context: &Context, environment: &str) -> Result<Report> {
    let paths = &context.paths;
    let directory = tempfile::tempdir()?;
    let mut wrangler = process::command(paths, paths.wrangler_tool("wrangler"));
    wrangler.current_dir(paths.wrangler());
    wrangler.args(["deploy", "--dry-run", "--env", environment, "--outdir"]).arg(directory.path());
    wrangler.env("WRANGLER_LOG_PATH", paths.logs().join("wrangler"));
    wrangler.env("WRANGLER_SEND_METRICS", "false");
    wrangler.env("CI", "1");
    let mut report = context.check(&format!("deploy-dry-run-{environment}"), &mut wrangler)?;
    for module in MODULES {
        if report.failed == 0 && !directory.path().join(module).is_file() {
            report = Report::single(false, format!("{}\nno {module} in it\n", report.output));
        }
    }
    Ok(report)
}
