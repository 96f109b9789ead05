//! `cargo xtask demo`: the service at work on real input, with its plug pulled half-way.
//!
//! Node replays 20,000 flights into the served Worker and follows some of them live
//! (`conformance/demo`). When it writes `@kill`, the host is killed and started again on the same
//! port and state. Everything else that node writes is for the person who watches; its exit code
//! says whether what was read is what was sent.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::process::{Child, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::host::{self, Host};
use crate::paths::Paths;
use crate::process;
use crate::setup;

/// Where a free port is looked for. Systems take the ports of outgoing connections from 32768 up;
/// one of those could be gone, or connect to itself, while the host is down. The hosts of the
/// black-box suites have the ports above.
const PORTS: RangeInclusive<u16> = 4600..=4619;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
}

/// What to play.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Port on 127.0.0.1 [default: a free one]
    #[arg(long)]
    port: Option<u16>,
    /// Replay the first N flights only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Leave the host alone
    #[arg(long)]
    no_kill: bool,
}

pub(crate) fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    setup::tools(paths)?;
    setup::conformance(paths)?;
    build::worker(paths, Profile::Release)?;
    let is_proven = play(paths, &args.options, Stdio::inherit(), |line| {
        println!("{line}");
    })?;
    Ok(if is_proven { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays it once, on a host and a state of its own; `true` when everything was proven. `say` gets
/// the lines for people. The Worker must be built.
pub(crate) fn play(
    paths: &Paths,
    options: &Options,
    progress: Stdio,
    mut say: impl FnMut(&str),
) -> Result<bool> {
    let state = tempfile::tempdir()?;
    let hosting = host::Options {
        port: options.port.map_or_else(free_port, Ok)?,
        persist: Some(state.path().join("state")),
        ..host::Options::default()
    };
    let mut host = Host::start(paths, &hosting)?;

    let mut node = process::command(paths, "node");
    node.arg(paths.conformance().join("demo/main.mjs"));
    node.arg("--url").arg(host.url());
    if let Some(limit) = options.limit {
        node.arg("--limit").arg(limit.to_string());
    }
    if options.no_kill {
        node.arg("--no-kill");
    }
    let mut node = node
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(progress)
        .spawn()
        .context("node does not start")?;
    let told = follow(&mut node, &mut say, || {
        host.kill_hard()?;
        host = Host::start(paths, &hosting).context("after SIGKILL")?;
        Ok(())
    });
    if told.is_err() {
        // It would wait for a host that does not come back.
        let _ = node.kill();
    }
    let status = node.wait()?;
    told?;
    if !status.success() {
        say(&format!("console of the host:\n{}", host.log()));
    }
    host.stop()?;
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

fn free_port() -> Result<u16> {
    PORTS
        .into_iter()
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .with_context(|| format!("all ports from {} to {} are taken", PORTS.start(), PORTS.end()))
}
