//! The built Worker, served on 127.0.0.1 by `wrangler/host.mjs` in a process group of its own.
//!
//! Tests treat a [`Host`] as a machine: start it, use it, pull its plug ([`Host::kill_hard`]),
//! start another one on the same state. It never outlives its owner: dropping stops it, and the
//! host stops by itself when the pipe to its stdin breaks because the owner was killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use crate::paths::Paths;
use crate::process;

/// A cold start takes about one second; a machine under load ten times that.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// What to serve and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// 0 takes a free one.
    pub(crate) port: u16,
    /// Directory of the durable state; without one it ends with the host.
    pub(crate) persist: Option<PathBuf>,
    /// Wipe the state first.
    pub(crate) fresh: bool,
    /// `KEY=VALUE`, each overriding a variable of wrangler.jsonc.
    pub(crate) vars: Vec<String>,
    /// Environment of wrangler.jsonc.
    pub(crate) env: Option<String>,
}

/// Adds the script and its flags to a command that runs node.
pub(crate) fn configure(paths: &Paths, command: &mut Command, options: &Options) {
    configure_script(&paths.wrangler().join("host.mjs"), command, options);
}

fn configure_script(script: &Path, command: &mut Command, options: &Options) {
    command.arg(script);
    command.arg("--port").arg(options.port.to_string());
    if let Some(directory) = &options.persist {
        command.arg("--persist").arg(directory);
    }
    if options.fresh {
        command.arg("--fresh");
    }
    for var in &options.vars {
        command.arg("--var").arg(var);
    }
    if let Some(name) = &options.env {
        command.arg("--env").arg(name);
    }
}

/// A running host.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    group: Pid,
    port: u16,
    log: PathBuf,
}

impl Host {
    /// Starts a host and waits until it serves. The Worker must be built.
    ///
    /// # Errors
    /// What the host wrote to stderr, when it ends or stays silent before it is ready.
    pub(crate) fn start(paths: &Paths, options: &Options) -> Result<Self> {
        Self::start_script(paths, &paths.wrangler().join("host.mjs"), options)
    }

    /// Starts a host of something else than the service.
    ///
    /// # Errors
    /// See [`Host::start`].
    pub(crate) fn start_script(paths: &Paths, script: &Path, options: &Options) -> Result<Self> {
        let log = next_log(paths)?;
        let mut command = process::command(paths, "node");
        configure_script(script, &mut command, options);
        let mut child = command
            .arg("--until-eof")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("node does not start")?;
        let stdout = child.stdout.take().context("the host has no stdout")?;
        let lines = read_lines(stdout);
        let group = Pid::from_child(&child);
        let mut host = Self { child, group, port: 0, log };
        // On failure `host` is dropped here, which stops the process.
        host.port = host.wait_until_ready(&lines)?;
        Ok(host)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the host and the Worker wrote to the console.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Pulls the plug: SIGKILL to node and workerd at once; returns when both are gone.
    pub(crate) fn kill_hard(&mut self) -> Result<()> {
        // The group is gone already when the host ended by itself.
        let _ = kill_process_group(self.group, Signal::KILL);
        self.child.wait()?;
        let started = Instant::now();
        while self.is_alive() {
            if started.elapsed() > STOP_TIMEOUT {
                bail!("process group {} survived SIGKILL", self.group);
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Stops the host in good order, or hard when it does not react in time.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let _ = kill_process(self.group, Signal::TERM);
        let started = Instant::now();
        while self.child.try_wait()?.is_none() && started.elapsed() < STOP_TIMEOUT {
            thread::sleep(POLL);
        }
        self.kill_hard()
    }

    /// Whether a process of the group still serves. A killed process that nobody has reaped yet
    /// stays in the group but holds no port, so the group alone does not tell.
    fn is_alive(&self) -> bool {
        test_kill_process_group(self.group).is_ok()
            && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }

    fn wait_until_ready(&mut self, lines: &Receiver<String>) -> Result<u16> {
        let started = Instant::now();
        loop {
            match lines.recv_timeout(READY_TIMEOUT.saturating_sub(started.elapsed())) {
                Ok(line) => {
                    let url = line.strip_prefix("ready http://127.0.0.1:");
                    if let Some(port) = url.and_then(|port| port.parse().ok()) {
                        return Ok(port);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the host was not ready within {READY_TIMEOUT:?}: {}", self.log());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!("the host ended ({status}): {}", self.log().trim());
                }
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.stop();
    }
}

/// Reads on until the end, so that the host never blocks on a full pipe.
fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The receiver is gone once the host is ready.
            let _ = sender.send(line);
        }
    });
    receiver
}

fn next_log(paths: &Paths) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    fs::create_dir_all(paths.logs())?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(paths.logs().join(format!("host-{number}.log")))
}
