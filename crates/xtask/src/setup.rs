//! `cargo xtask setup`: installs what building, hosting and deploying need, at pinned versions.
//!
//! Given rustup and Node, everything else lands inside the repository: cargo tools in `.tools`,
//! npm packages in `node_modules`. Only Chromium and Python are the system's: root installs Debian's
//! packages, everybody else is told. Each step first looks whether it is done, so a second run
//! takes a fraction of a second. A step that installs says so before it starts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use crate::paths::Paths;
use crate::process;
use crate::stamp::{self, Stamp};

const WASM_TARGET: &str = "wasm32-unknown-unknown";
const NODE_MAJOR_MIN: u32 = 20;
/// Runs cargo, wasm-bindgen and wasm-opt one after the other.
const ORCHESTRATOR: &str = "worker-build";
/// `wasm-bindgen-cli` must equal the version of the crate in Cargo.toml exactly.
const CARGO_TOOLS: [(&str, &str, &str); 2] =
    [(ORCHESTRATOR, "0.8.7", "worker-build"), ("wasm-bindgen-cli", "0.2.129", "wasm-bindgen")];

/// The virtual environment below `.tools`.
const PYTHON_TOOLS: &str = "python";
/// What makes one; Debian has it in a package of its own.
const PYTHON_MODULES: &str = "import ensurepip, venv";

/// Where Debian's package puts it; the variable names another one.
const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMIUM_VARIABLE: &str = "CHROMIUM";
const APT_GET: &str = "/usr/bin/apt-get";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also install what `test` needs
    #[arg(long)]
    tests: bool,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<()> {
    tools(paths)?;
    if args.tests {
        conformance(paths)?;
        chromium(paths)?;
        schemathesis(paths)?;
    }
    Ok(())
}

/// Installs what `build`, `dev` and `deploy` need.
pub(crate) fn tools(paths: &Paths) -> Result<()> {
    check_node(paths)?;
    ensure_wasm_target(paths)?;
    for (package, version, binary) in CARGO_TOOLS {
        ensure_cargo_tool(paths, package, version, binary)?;
    }
    ensure_node_modules(paths, "wrangler", &paths.wrangler())
}

/// Installs what the conformance suites need on top.
pub(crate) fn conformance(paths: &Paths) -> Result<()> {
    ensure_node_modules(paths, "conformance", &paths.conformance())
}

/// Installs the browser that the step `browser` drives.
pub(crate) fn chromium(paths: &Paths) -> Result<()> {
    if let Some(named) = env::var_os(CHROMIUM_VARIABLE).filter(|named| !named.is_empty()) {
        if !Path::new(&named).is_file() {
            bail!("{CHROMIUM_VARIABLE} names {}, which is no file", Path::new(&named).display());
        }
        return Ok(());
    }
    if Path::new(CHROMIUM).is_file() {
        return Ok(());
    }
    if !geteuid().is_root() || !Path::new(APT_GET).is_file() {
        bail!(
            "{CHROMIUM} is missing: install Debian's package `chromium`, or set the variable \
             {CHROMIUM_VARIABLE} to the path of a Chromium"
        );
    }
    step("Debian's package chromium", || {
        apt_get(paths, "update", &["update"])?;
        apt_get(paths, "install", &["install", "--yes", "--no-install-recommends", "chromium"])
    })
}

/// A tool that [`schemathesis`] installs.
pub(crate) fn python_tool(paths: &Paths, name: &str) -> PathBuf {
    paths.tools().join(PYTHON_TOOLS).join("bin").join(name)
}

/// Installs what the step `schemathesis` runs.
pub(crate) fn schemathesis(paths: &Paths) -> Result<()> {
    ensure_python(paths)?;
    let requirements = paths.conformance().join("schemathesis/requirements.txt");
    let version = process::stdout(process::command(paths, "python3").arg("--version"))?;
    let contents = stamp::hash_of_contents(std::slice::from_ref(&requirements))?;
    let inputs = format!("{version} {contents}");
    let stamp = Stamp::new(paths, "python");
    if stamp.matches(&inputs) && python_tool(paths, "schemathesis").is_file() {
        return Ok(());
    }
    stamp.clear()?;
    step("Python packages of conformance/schemathesis", || {
        let directory = paths.tools().join(PYTHON_TOOLS);
        let mut venv = process::command(paths, "python3");
        venv.args(["-m", "venv", "--clear"]).arg(&directory);
        process::logged(paths, "setup-venv", &mut venv)?.check()?;
        let mut pip = process::command(paths, python_tool(paths, "pip"));
        pip.args(["install", "--no-input", "--requirement"]).arg(&requirements);
        process::logged(paths, "setup-pip", &mut pip)?.check().map(drop)
    })?;
    stamp.write(&inputs)
}

/// Python with its module for virtual environments.
fn ensure_python(paths: &Paths) -> Result<()> {
    let mut python = process::command(paths, "python3");
    python.args(["-c", PYTHON_MODULES]);
    if process::stdout(&mut python).is_ok() {
        return Ok(());
    }
    if !geteuid().is_root() || !Path::new(APT_GET).is_file() {
        bail!("python3 with its module venv is missing: install Debian's package `python3-venv`");
    }
    step("Debian's package python3-venv", || {
        apt_get(paths, "update", &["update"])?;
        apt_get(paths, "install", &["install", "--yes", "--no-install-recommends", "python3-venv"])
    })
}

fn apt_get(paths: &Paths, name: &str, arguments: &[&str]) -> Result<()> {
    let mut command = process::command(paths, APT_GET);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Somebody else may hold the lock, and a mirror may fail once.
    command.args(["-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"]);
    command.args(arguments);
    process::logged(paths, &format!("setup-apt-{name}"), &mut command)?.check().map(drop)
}

fn check_node(paths: &Paths) -> Result<()> {
    let version = process::stdout(process::command(paths, "node").arg("--version"))
        .with_context(|| format!("Node {NODE_MAJOR_MIN} or newer is needed"))?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok());
    if major.is_none_or(|major: u32| major < NODE_MAJOR_MIN) {
        bail!("Node {NODE_MAJOR_MIN} or newer is needed; found {version}");
    }
    Ok(())
}

fn ensure_wasm_target(paths: &Paths) -> Result<()> {
    ensure_target(paths, WASM_TARGET)
}

/// Adds a target to the pinned toolchain, unless it is there.
pub(crate) fn ensure_target(paths: &Paths, target: &str) -> Result<()> {
    let mut rustc = process::command(paths, "rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    if Path::new(&process::stdout(&mut rustc)?).is_dir() {
        return Ok(());
    }
    step(&format!("rustup target {target}"), || {
        let mut rustup = process::command(paths, "rustup");
        rustup.args(["target", "add", target]);
        process::logged(paths, "setup-rustup", &mut rustup)?.check().map(drop)
    })
}

fn ensure_cargo_tool(paths: &Paths, package: &str, version: &str, binary: &str) -> Result<()> {
    // Cargo's own record of what it has installed below this root.
    let installed = fs::read_to_string(paths.tools().join(".crates.toml")).unwrap_or_default();
    let wanted = format!("\"{package} {version} (");
    if installed.contains(&wanted) && paths.tool(binary).is_file() {
        return Ok(());
    }
    step(&format!("{package} {version} (from source, takes minutes)"), || {
        let build = paths.tools().join("target");
        let mut cargo = process::command(paths, "cargo");
        cargo.args(["install", "--locked", "--force", "--root"]).arg(paths.tools());
        cargo.arg("--target-dir").arg(&build).arg(format!("{package}@{version}"));
        if package == ORCHESTRATOR {
            // It only starts others: what optimising it takes is never won back.
            cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
        }
        process::logged(paths, &format!("setup-{package}"), &mut cargo)?.check()?;
        fs::remove_dir_all(&build).context("cannot remove what cargo install left")
    })
}

fn ensure_node_modules(paths: &Paths, name: &str, directory: &Path) -> Result<()> {
    let inputs = ["package.json", "package-lock.json", ".npmrc"].map(|file| directory.join(file));
    let inputs = stamp::hash_of_contents(&inputs)?;
    let stamp = Stamp::new(paths, &format!("npm-{name}"));
    if stamp.matches(&inputs) && directory.join("node_modules").is_dir() {
        return Ok(());
    }
    stamp.clear()?;
    step(&format!("npm packages of {name}/"), || {
        let mut npm = process::command(paths, "npm");
        npm.arg("ci").current_dir(directory);
        process::logged(paths, &format!("setup-npm-{name}"), &mut npm)?.check().map(drop)
    })?;
    stamp.write(&inputs)
}

fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("setup: {what} ...");
    let started = Instant::now();
    work().with_context(|| format!("setup: {what}"))?;
    eprintln!("setup: {what}: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
