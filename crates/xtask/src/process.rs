//! Running other programs.
//!
//! Children get the environment of the terminal, not the one `cargo run` adds for this binary:
//! the latter would change build scripts' fingerprints and so rebuild crates for nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::paths::Paths;

/// How often a program that runs long says so.
const HEARTBEAT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// How much of a failed program's log is shown.
const TAIL_LINES: usize = 40;

/// A command that runs at the repository's root.
pub(crate) fn command(paths: &Paths, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths.root());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_from_cargo_run) {
            command.env_remove(name);
        }
    }
    command
}

fn is_from_cargo_run(name: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    matches!(name, "CARGO" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "LD_LIBRARY_PATH")
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// The same as the person would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let mut words = vec![program.to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

/// Runs `command` and returns its stdout, trimmed; its stderr is part of the error.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let name = line(command);
    let output = command.output().with_context(|| format!("{name} does not start"))?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a program did whose output went to a file.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) status: ExitStatus,
    /// stdout and stderr, in the order they were written.
    pub(crate) output: String,
    pub(crate) log: PathBuf,
}

impl Logged {
    /// An error with the end of the output, unless the program succeeded.
    pub(crate) fn check(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let lines: Vec<&str> = self.output.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
        bail!("{}\n{}\nwhole log: {}", self.status, tail.join("\n"), self.log.display())
    }
}

/// Runs `command` with its output in the log `name`, and tells from time to time where it is.
pub(crate) fn logged(paths: &Paths, name: &str, command: &mut Command) -> Result<Logged> {
    fs::create_dir_all(paths.logs())?;
    let log = paths.logs().join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("{} does not start", line(command)))?;
    let status = wait(child, &log)?;
    let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    Ok(Logged { status, output, log })
}

fn wait(mut child: Child, log: &Path) -> Result<ExitStatus> {
    let started = Instant::now();
    let mut next = HEARTBEAT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() >= next {
            next += HEARTBEAT;
            let text = fs::read(log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let last = text.lines().next_back().unwrap_or_default().trim();
            eprintln!("  {:>6.1} s ... {last}", started.elapsed().as_secs_f64());
        }
        thread::sleep(POLL);
    }
}
