//! `cargo xtask docs`: the pages and the document that are made from the code.
//!
//! A page is one entry in [`PAGES`]. With `--check` nothing is written, and a page that differs
//! from what the code says is an error; `cargo xtask test` runs that.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;

const PAGES: &[Page] = &[
    Page { name: "docs/errors.md", make: protocol::error::documentation },
    Page { name: "crates/worker/src/openapi.json", make: openapi },
];

struct Page {
    /// Below the root.
    name: &'static str,
    make: fn() -> String,
}

/// In one line: the Worker carries it as it is.
fn openapi() -> String {
    protocol::openapi::document().to_string()
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when a page is not what the code makes
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<()> {
    if args.check {
        return check(paths);
    }
    for (path, page) in stale(paths) {
        fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// An error that names the pages which `cargo xtask docs` would write.
pub(crate) fn check(paths: &Paths) -> Result<()> {
    let names: Vec<String> =
        stale(paths).iter().map(|(path, _)| path.display().to_string()).collect();
    if !names.is_empty() {
        bail!("out of date, run `cargo xtask docs`: {}", names.join(", "));
    }
    Ok(())
}

/// The pages that are missing or differ, as they should be.
fn stale(paths: &Paths) -> Vec<(PathBuf, String)> {
    let pages = PAGES.iter().map(|page| (paths.root().join(page.name), (page.make)()));
    pages.filter(|(path, page)| fs::read_to_string(path).ok().as_ref() != Some(page)).collect()
}
