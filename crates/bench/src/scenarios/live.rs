//! Live readers: how long a write takes to reach the last of them.
//!
//! Ceiling: a bare object that stores the write as one row and sends it to as many hibernating
//! sockets, behind a bare edge that forwards what comes to each client in the same mode. Readers
//! are attached anew in each round, so that nobody reads while the other side is measured.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, outcome};
use crate::host::Host;
use crate::http::Client;
use crate::link;
use crate::live::{Audience, Mode, Source, TEXT};
use crate::load::Measured;
use crate::report::{Outcome, Target};
use crate::rounds::{Settings, interleave};
use crate::system;

/// An SSE response outlives the longest round.
pub(super) const LONG_SSE: &str = "SSE_LIFETIME_MS=600000";

/// Rounds of a comparison at most, and the time after which none is begun.
const ROUNDS_MAX: u32 = 3;
const TIME_MAX: Duration = Duration::from_secs(30);

/// Time from sending a write to its arrival at the last reader.
pub(super) fn latency(
    bench: &Bench,
    name: &str,
    (mode, readers): (Mode, usize),
) -> Result<Vec<Outcome>> {
    link::allow_connections(readers as u64)?;
    let host = bench.host_with("live", &[LONG_SSE])?;
    // A write to thousands takes long: fewer of them say as much.
    let writes = match (mode, readers) {
        (_, ..=100) => 30,
        (Mode::LongPoll, 101..=1000) => 6,
        (_, 101..=1000) => 12,
        (Mode::LongPoll, _) => 3,
        _ => 5,
    };
    let settings = Settings {
        rounds: bench.settings.rounds.min(ROUNDS_MAX),
        time_max: TIME_MAX,
        ..bench.settings
    };
    let measure = |host: &Host, source: Source| -> Result<Measured> {
        let files = system::open_files(host.workerd());
        let mut audience = Audience::attach(host.port(), mode, readers, source)?;
        let measured = audience.measure(writes, host.workerd())?;
        audience.leave(host.workerd(), files)?;
        Ok(measured)
    };
    let ours = |round| {
        let source = stream(&host, &format!("{name}-{round}"))?;
        measure(&host, source).context("ours").inspect_err(|_| eprintln!("{}", host.log()))
    };
    let other = |round| {
        let source = Source::Bare { name: format!("{name}-{round}") };
        measure(&bench.ceiling, source).context("the ceiling")
    };
    let pair = interleave(&settings, (&host, ours), (&bench.ceiling, other))?;
    let target = Some(Target::RatioMax(1.5));
    let p99 = outcome(name, "ms p99", &pair, (|s| s.p99_ms, 1.0), target);
    let p50 = Outcome {
        name: format!("{name}-p50"),
        value: pair.ours(|s| s.p50_ms),
        unit: "ms p50",
        ceiling: Some(pair.other(|s| s.p50_ms)),
        ratio: Some(pair.ratio(|s| s.p50_ms)),
        target: None,
    };
    Ok(vec![p99, p50])
}

/// Makes a stream of text.
pub(super) fn stream(host: &Host, name: &str) -> Result<Source> {
    let path = format!("/v1/stream/bench/{name}");
    let mut client = Client::connect(host.port())?;
    let reply = client.call(("PUT", &path), TEXT, b"", 201)?;
    let tail = reply.header("stream-next-offset").context("no stream-next-offset")?.to_owned();
    Ok(Source::Stream { path, tail })
}
