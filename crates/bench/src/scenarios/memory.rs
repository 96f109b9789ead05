//! What a live reader costs in memory: growth of workerd's resident size, edge and object together,
//! because one process hosts both.
//!
//! - Idle readers: the slope between [`FEW`] and [`MANY`] of them, so that what is paid once is left
//!   out. Ceiling: the slope of bare hibernating sockets behind the bare edge, which is what the
//!   platform takes for a client's connection, the internal socket and the edge's request. The
//!   difference is ours at edge *and* object: an upper bound of the object's part.
//! - Slow readers: clients that stop reading while [`APPENDED_MIB`] MiB are appended, against the
//!   same appends to a stream without readers.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bench;
use super::live::{LONG_SSE, stream};
use crate::host::Host;
use crate::http::Client;
use crate::link;
use crate::live::{Audience, Mode, Source, TEXT};
use crate::report::{Outcome, Target};
use crate::system;

const FEW: usize = 1_000;
const MANY: usize = 5_000;

const SLOW: usize = 50;
const APPENDED_MIB: usize = 20;
/// 1 MiB in the send buffer, 1 MiB of internal credit, and the page that is being sent.
const SLOW_MIB_MAX: f64 = 3.0;

/// A size is settled when it stays within this part of itself for so long.
const SETTLED_PART: f64 = 0.002;
const SETTLED_FOR: Duration = Duration::from_secs(1);
const SETTLED_TIMEOUT: Duration = Duration::from_secs(8);

const KIB: f64 = 1024.0;

/// Growth per idle reader and per slow one, in both modes that stream.
pub(super) fn readers(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    link::allow_connections(MANY as u64)?;
    let mut outcomes = Vec::new();
    for (mode, word) in [(Mode::Sse, "sse"), (Mode::Ws, "ws")] {
        // Fresh hosts: memory that a process has freed would hide what the next one takes.
        let host = bench.host_with(&format!("idle-{word}"), &[LONG_SSE])?;
        let ours = idle_bytes(&host, mode, stream(&host, name)?)?;
        let bare = bench.ceiling_host(&format!("bare-{word}"))?;
        let ceiling = idle_bytes(&bare, mode, Source::Bare { name: name.to_owned() })?;
        let outcome = |name: String, value, ceiling: Option<f64>, unit, target| Outcome {
            name,
            value,
            unit,
            ceiling,
            ratio: ceiling.map(|ceiling| value / ceiling),
            target,
        };
        let unit = "KiB/idle reader";
        let (ours, ceiling) = (ours / KIB, ceiling / KIB);
        outcomes.push(outcome(format!("{name}-{word}"), ours, Some(ceiling), unit, None));
        outcomes.push(outcome(format!("{name}-{word}-own"), ours - ceiling, None, unit, None));
        let host = bench.host_with(&format!("slow-{word}"), &[LONG_SSE])?;
        let slow = slow_bytes(&host, mode, name)? / KIB / KIB;
        let target = Some(Target::ValueMax(SLOW_MIB_MAX));
        outcomes.push(outcome(
            format!("{name}-{word}-slow"),
            slow,
            None,
            "MiB/slow reader",
            target,
        ));
    }
    Ok(outcomes)
}

/// Bytes per reader that waits.
fn idle_bytes(host: &Host, mode: Mode, source: Source) -> Result<f64> {
    let mut few = Audience::attach(host.port(), mode, FEW, source.clone())?;
    let before = settled(host, || few.idle(SETTLED_FOR / 10))?;
    let mut more = Audience::attach(host.port(), mode, MANY - FEW, source)?;
    let after = settled(host, || {
        few.idle(SETTLED_FOR / 20)?;
        more.idle(SETTLED_FOR / 20)
    })?;
    Ok((after - before) / (MANY - FEW) as f64)
}

/// Bytes per reader that has stopped reading.
fn slow_bytes(host: &Host, mode: Mode, name: &str) -> Result<f64> {
    let pause = || {
        thread::sleep(SETTLED_FOR / 10);
        Ok(())
    };
    fill(host, &stream(host, &format!("{name}-alone"))?)?;
    let before = settled(host, pause)?;
    let source = stream(host, &format!("{name}-slow"))?;
    // Nobody asks it to read from here on.
    let audience = Audience::attach(host.port(), mode, SLOW, source.clone())?;
    fill(host, &source)?;
    let after = settled(host, pause)?;
    drop(audience);
    Ok((after - before) / SLOW as f64)
}

fn fill(host: &Host, source: &Source) -> Result<()> {
    let mut client = Client::connect(host.port())?;
    let body = vec![b'a'; 1 << 20];
    for _ in 0..APPENDED_MIB {
        client.call(("POST", &source.write()), TEXT, &body, 204)?;
    }
    Ok(())
}

/// The resident size of a host's workerd once it has stopped changing. `wait` passes a tenth of
/// [`SETTLED_FOR`].
fn settled(host: &Host, mut wait: impl FnMut() -> Result<()>) -> Result<f64> {
    let size = || {
        let size = system::resident_memory(host.workerd());
        size.map(|size| size as f64).context("no memory is known here")
    };
    let (mut reference, mut since) = (size()?, Instant::now());
    let started = Instant::now();
    while since.elapsed() < SETTLED_FOR && started.elapsed() < SETTLED_TIMEOUT {
        wait()?;
        let now = size()?;
        if (now - reference).abs() > SETTLED_PART * reference {
            (reference, since) = (now, Instant::now());
        }
    }
    size()
}
