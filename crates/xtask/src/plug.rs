//! Node scripts that have the plug of their host pulled.
//!
//! When a script writes the line `@kill`, its host is killed and started again on the same port and
//! state, and the script gets a line `restarted`. Everything else that it writes is for the person
//! who watches; its exit code says whether it is satisfied.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::host::{self, Host};
use crate::paths::Paths;
use crate::process;

/// Where a free port is looked for. Systems take the ports of outgoing connections from 32768 up;
/// one of those could be gone, or connect to itself, while the host is down. The hosts of the
/// black-box suites have the ports above.
const PORTS: Range<u16> = 4600..4610;

/// Where Linux has files that are in memory.
const MEMORY: &str = "/dev/shm";

/// A script below `conformance`.
pub(crate) struct Script<'a> {
    pub(crate) path: &'a str,
    pub(crate) args: Vec<String>,
    /// Port on 127.0.0.1; without one, a free one.
    pub(crate) port: Option<u16>,
    /// `KEY=VALUE`: variables of the Worker.
    pub(crate) vars: Vec<String>,
    /// Where the state of the host is.
    pub(crate) state: State,
}

/// Where the state of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// On a disk, where it outlives the host.
    Disk,
    /// In memory, if the system has a file system there. For thousands of objects: each makes and deletes
    /// two files whenever it wakes and sleeps, and ext4 looks at all that were deleted in the last seconds
    /// for each that is made.
    Memory,
}

impl State {
    fn directory(self) -> Result<TempDir> {
        let memory = Path::new(MEMORY);
        Ok(match self {
            Self::Memory if memory.is_dir() => tempfile::tempdir_in(memory)?,
            Self::Disk | Self::Memory => tempfile::tempdir()?,
        })
    }
}

/// Runs a script on a host and a state of its own; `true` when it is satisfied. `say` gets the
/// lines for people, `ended` what each host wrote to its console. The Worker must be built.
pub(crate) fn play(
    paths: &Paths,
    script: &Script,
    progress: Stdio,
    mut say: impl FnMut(&str),
    mut ended: impl FnMut(&str),
) -> Result<bool> {
    let state = script.state.directory()?;
    let claim = if script.port.is_none() { Some(Claim::new()?) } else { None };
    let hosting = host::Options {
        port: script.port.or(claim.as_ref().map(|claim| claim.port)).unwrap_or_default(),
        persist: Some(state.path().join("state")),
        vars: script.vars.clone(),
        ..host::Options::default()
    };
    let mut host = Host::start(paths, &hosting)?;

    let mut node = process::command(paths, "node");
    node.arg(paths.conformance().join(script.path));
    node.arg("--url").arg(host.url()).args(&script.args);
    let mut node = node
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(progress)
        .spawn()
        .context("node does not start")?;
    let told = follow(&mut node, &mut say, || {
        host.kill_hard()?;
        ended(&host.log());
        host = Host::start(paths, &hosting).context("after SIGKILL")?;
        Ok(())
    });
    if told.is_err() {
        // It would wait for a host that does not come back.
        let _ = node.kill();
    }
    let status = node.wait()?;
    told?;
    host.stop()?;
    let log = host.log();
    ended(&log);
    if !status.success() {
        say(&format!("console of the host:\n{log}"));
    }
    Ok(status.success())
}

/// Reads what node says until it has ended, and does what it asks for.
fn follow(
    node: &mut Child,
    say: &mut impl FnMut(&str),
    mut restart: impl FnMut() -> Result<()>,
) -> Result<()> {
    let stdout = node.stdout.take().context("node has no stdout")?;
    let mut stdin = node.stdin.take().context("node has no stdin")?;
    for line in BufReader::new(stdout).lines() {
        match line?.as_str() {
            "@kill" => {
                restart()?;
                // If nobody reads it any more, the exit code will say why.
                let _ = writeln!(stdin, "restarted");
            }
            line => say(line),
        }
    }
    Ok(())
}

/// A port that is ours while its host is being restarted, too: whoever owns a port listens on its
/// twin.
struct Claim {
    port: u16,
    _twin: TcpListener,
}

impl Claim {
    fn new() -> Result<Self> {
        let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let twin_of = |port| port + PORTS.end - PORTS.start;
        PORTS
            .filter_map(|port| Some((port, listen(twin_of(port)).ok()?)))
            .find(|(port, _)| listen(*port).is_ok())
            .map(|(port, twin)| Self { port, _twin: twin })
            .with_context(|| format!("all ports from {} are taken", PORTS.start))
    }
}
