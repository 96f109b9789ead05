//! What the Worker takes before it does anything, and what the run left behind.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Bench, CEILING, OURS};
use crate::host::Host;
use crate::http::Client;
use crate::report::{Outcome, Target};
use crate::rounds::median;
use crate::system;

/// The wasm, compressed as the platform counts it.
pub(super) fn wasm_size(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let path = bench.root.join("crates/worker/build/index_bg.wasm");
    let wasm = fs::read(&path).with_context(|| path.display().to_string())?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&wasm)?;
    let value = encoder.finish()?.len() as f64 / 1000.0;
    Ok(vec![plain(name, value, "KB gzipped", Some(Target::ValueMax(700.0)))])
}

/// CPU time of workerd from its start to its first answer, above that of the bare Worker: what it
/// takes to compile and start the wasm. CPU time, because the machine may be busy.
pub(super) fn wasm_start(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let directory = tempfile::tempdir()?;
    let mut differences = Vec::new();
    for round in 0..bench.settings.rounds {
        let state = |side: &str| directory.path().join(format!("{side}-{round}"));
        let ours = started(&bench.root.join(OURS), &state("ours"), "/health")?;
        let bare = started(&bench.root.join(CEILING), &state("ceiling"), "/worker/bytes?1")?;
        eprintln!("    {ours:.1} ms, bare {bare:.1} ms");
        differences.push(ours - bare);
    }
    let value = median(differences.into_iter());
    Ok(vec![plain(name, value, "ms CPU", Some(Target::ValueMax(30.0)))])
}

fn started(script: &Path, state: &Path, path: &str) -> Result<f64> {
    let host = Host::start(script, state, &[])?;
    Client::connect(host.port())?.call(("GET", path), "", b"", 200)?;
    let time = system::cpu_time(host.workerd()).context("no CPU time is known here")?;
    Ok(time.as_secs_f64() * 1000.0)
}

/// Largest resident size of workerd in any of the scenarios that ran before.
pub(super) fn memory(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let peaks = bench.peaks_now();
    let (value, ceiling) = (mib(peaks.ours), mib(peaks.ceiling));
    let ratio = Some(value / ceiling);
    Ok(vec![Outcome { ceiling: Some(ceiling), ratio, ..plain(name, value, "MiB peak", None) }])
}

fn plain(name: &str, value: f64, unit: &'static str, target: Option<Target>) -> Outcome {
    Outcome { name: name.to_owned(), value, unit, ceiling: None, ratio: None, target }
}
