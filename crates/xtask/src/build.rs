//! `cargo xtask build`: the Worker, from Rust to what workerd loads.
//!
//! cargo compiles `crates/worker` to wasm; `worker-build` then runs wasm-bindgen, wasm-opt and
//! esbuild on it, which is slow and does not look at whether anything changed. So two stamps:
//! 1. nothing that cargo reads has changed (names, sizes, times) → nothing to do at all;
//! 2. cargo ran and its wasm is the same byte for byte → the rest is skipped.
//!
//! Also what `wrangler deploy` runs as its build command.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::paths::Paths;
use crate::process;
use crate::setup;
use crate::stamp::{self, Stamp};

const WASM: &str = "wasm32-unknown-unknown";
/// What cargo calls the library of `crates/worker`.
const CARGO_WASM: &str = "durable_streams_worker.wasm";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compile with the dev profile, without wasm-opt
    #[arg(long)]
    dev: bool,
}

/// How the Worker is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    /// Cargo's name of the directory below `target`.
    fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<()> {
    setup::tools(paths)?;
    worker(paths, if args.dev { Profile::Dev } else { Profile::Release })
}

/// Builds the Worker unless it is up to date. The tools must be set up.
pub(crate) fn worker(paths: &Paths, profile: Profile) -> Result<()> {
    let started = Instant::now();
    let source_stamp = Stamp::new(paths, "build-source");
    let sources = format!("{profile:?} {}", stamp::hash_of_metadata(&sources(paths)?)?);
    let built = is_built(paths);
    if built && source_stamp.matches(&sources) {
        return report(paths, "up to date", started);
    }
    cargo(paths, profile)?;

    let wasm_stamp = Stamp::new(paths, "build-wasm");
    let wasm = wasm_inputs(paths, profile)?;
    if built && wasm_stamp.matches(&wasm) {
        source_stamp.write(&sources)?;
        return report(paths, "unchanged", started);
    }
    source_stamp.clear()?;
    wasm_stamp.clear()?;
    worker_build(paths, &paths.worker(), profile)?;
    if !is_built(paths) {
        bail!("worker-build left no index.js in {}", paths.worker_build().display());
    }
    if profile == Profile::Release {
        strip_names(paths)?;
    }
    wasm_stamp.write(&wasm)?;
    source_stamp.write(&sources)?;
    report(paths, "built", started)
}

fn is_built(paths: &Paths) -> bool {
    ["index.js", "index_bg.wasm"].iter().all(|name| paths.worker_build().join(name).is_file())
}

/// Everything the Worker is made of: all crates except the natively run tools.
fn sources(paths: &Paths) -> Result<Vec<PathBuf>> {
    let mut sources: Vec<PathBuf> =
        ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo", ".tools/.crates.toml"]
            .map(|name| paths.root().join(name))
            .into();
    // Relative to Cargo.lock's tools, npm's are pinned by the lockfile.
    sources.push(paths.wrangler().join("package-lock.json"));
    for entry in fs::read_dir(paths.root().join("crates"))? {
        let entry = entry?;
        if ["xtask", "bench", "contract"].iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        sources.extend(["Cargo.toml", "build.rs", "src"].map(|name| entry.path().join(name)));
    }
    sources.sort();
    Ok(sources)
}

/// Exactly the build that `worker-build` asks cargo for, so that its own run has nothing to do.
fn cargo(paths: &Paths, profile: Profile) -> Result<()> {
    let mut cargo = process::command(paths, "cargo");
    cargo.current_dir(paths.worker()).args(["build", "--lib", "--target", WASM]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo.env("WASM_BINDGEN_USE_JS_SYS", "1");
    // wrangler reads this command's stdout.
    cargo.stdout(std::io::stderr());
    let status = cargo.status().context("cargo does not start")?;
    if !status.success() {
        bail!("the Worker does not compile");
    }
    Ok(())
}

/// What determines `worker-build`'s output, beside cargo's wasm: itself and its configuration.
fn wasm_inputs(paths: &Paths, profile: Profile) -> Result<String> {
    let files = [
        paths.target().join(WASM).join(profile.directory()).join(CARGO_WASM),
        paths.worker().join("Cargo.toml"),
        paths.tools().join(".crates.toml"),
        paths.wrangler().join("package-lock.json"),
    ];
    Ok(format!("{profile:?} {}", stamp::hash_of_contents(&files)?))
}

/// Builds the Worker of the contract suites.
pub(crate) fn contract(paths: &Paths) -> Result<()> {
    worker_build(paths, &paths.contract(), Profile::Release)
}

fn worker_build(paths: &Paths, directory: &Path, profile: Profile) -> Result<()> {
    let mut command = process::command(paths, paths.tool("worker-build"));
    command.current_dir(directory);
    command.arg(match profile {
        Profile::Dev => "--dev",
        Profile::Release => "--release",
    });
    with_binaries(paths, &mut command);
    process::logged(paths, "worker-build", &mut command)?.check().context("worker-build").map(drop)
}

/// Without these variables `worker-build` downloads binaries of its own choice.
fn with_binaries(paths: &Paths, command: &mut Command) {
    command
        .env("WASM_BINDGEN_BIN", paths.tool("wasm-bindgen"))
        .env("WASM_OPT_BIN", paths.wrangler_tool("wasm-opt"))
        .env("ESBUILD_BIN", paths.wrangler_tool("esbuild"));
}

/// Removes the names of functions, which `worker-build` always keeps: a tenth of what is deployed.
fn strip_names(paths: &Paths) -> Result<()> {
    let wasm = paths.worker_build().join("index_bg.wasm");
    let stripped = wasm.with_extension("stripped");
    let mut strip = process::command(paths, paths.wrangler_tool("wasm-opt"));
    strip.arg("--strip-debug").arg(&wasm).arg("-o").arg(&stripped);
    let status = strip.status().context("wasm-opt does not start")?;
    if !status.success() {
        bail!("wasm-opt --strip-debug: {status}");
    }
    fs::rename(&stripped, &wasm).context("replacing the wasm by its stripped form")
}

fn report(paths: &Paths, outcome: &str, started: Instant) -> Result<()> {
    let wasm = fs::read(paths.worker_build().join("index_bg.wasm"))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&wasm)?;
    let gzipped = gzip.finish()?.len();
    eprintln!(
        "build: {outcome} in {:.1} s, wasm {} KiB, gzipped {} KiB",
        started.elapsed().as_secs_f64(),
        wasm.len().div_ceil(1024),
        gzipped.div_ceil(1024)
    );
    Ok(())
}
