//! A Worker hosted on workerd by a script of Node, in a process group of its own.
//!
//! The public port is a direct socket into the Worker: a request meets nothing but workerd. A host
//! never outlives its owner: dropping it kills the group, and the script ends by itself when the
//! pipe to its stdin breaks.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::system;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// A running host.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    group: Pid,
    port: u16,
    workerd: u32,
    state: PathBuf,
    log: PathBuf,
}

impl Host {
    /// Starts `script` with durable state in `state` and variables of the Worker, and waits until
    /// it serves.
    ///
    /// # Errors
    /// What the script wrote to stderr, when it ends or stays silent before it is ready.
    pub(crate) fn start(script: &Path, state: &Path, vars: &[&str]) -> Result<Self> {
        let log = state.with_extension("log");
        let mut child = Command::new("node")
            .arg(script)
            .args([OsStr::new("--port"), OsStr::new("0"), OsStr::new("--persist")])
            .args([state.as_os_str(), OsStr::new("--until-eof")])
            .args(vars.iter().flat_map(|var| ["--var", var]))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("node does not start")?;
        let stdout = child.stdout.take().context("the host has no stdout")?;
        let group = Pid::from_child(&child);
        let state = state.to_owned();
        // From here on dropping `host` stops the process.
        let mut host = Self { child, group, port: 0, workerd: 0, state, log };
        host.port = host.wait_until_ready(stdout)?;
        host.workerd = system::child_named(host.child.id(), "workerd")
            .context("the host started no workerd")?;
        Ok(host)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Process id of workerd.
    pub(crate) fn workerd(&self) -> u32 {
        self.workerd
    }

    /// Directory of the durable state.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// What the host and the Worker wrote to the console.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_ready(&mut self, stdout: std::process::ChildStdout) -> Result<u16> {
        let (sender, lines) = channel();
        // Reads on until the end, so that the host never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The receiver is gone once the host is ready.
                let _ = sender.send(line);
            }
        });
        let started = Instant::now();
        loop {
            match lines.recv_timeout(READY_TIMEOUT.saturating_sub(started.elapsed())) {
                Ok(line) => {
                    let port = line.strip_prefix("ready http://127.0.0.1:");
                    if let Some(port) = port.and_then(|port| port.parse().ok()) {
                        return Ok(port);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the host was not ready within {READY_TIMEOUT:?}: {}", self.log())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!("the host ended ({status}): {}", self.log().trim())
                }
            }
        }
    }

    /// Stops the host in good order, or hard when it does not react in time.
    fn stop(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let started = Instant::now();
        while self.child.try_wait()?.is_none() && started.elapsed() < STOP_TIMEOUT {
            thread::sleep(POLL);
        }
        // The group is gone already when the host ended by itself.
        let _ = kill_process_group(self.group, Signal::KILL);
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.stop();
    }
}
