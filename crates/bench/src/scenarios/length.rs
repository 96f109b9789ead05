//! Whether the length of a stream matters: the same operation on a stream with 100,000 messages
//! and on one with 1,000. What the other scenarios call the ceiling is here the short stream.
//!
//! Messages of 256 B are appended one a request over 64 connections, so the rows are those that
//! group commit makes.

use anyhow::{Context, Result};

use super::{BINARY, Bench, SMALL_BODY, outcome, request, status};
use crate::http::Client;
use crate::load::{self, Expected, Load, Measured, Until};
use crate::report::{Outcome, Target};
use crate::rounds::{Pair, interleave};

const SHORT: u64 = 1_000;
const LONG: u64 = 100_000;
/// Appends of a round: few, so that the short stream stays short.
const APPENDS: u64 = 300;
const RATIO_MAX: f64 = 1.1;

/// One append at a time to a long and to a short stream.
pub(super) fn append(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let long = filled(bench, &format!("{name}-long"), LONG)?;
    // Appends make a short stream longer: each round has a new one, filled beforehand.
    let short: Vec<_> = (0..bench.settings.rounds_max())
        .map(|round| filled(bench, &format!("{name}-short-{round}"), SHORT))
        .collect::<Result<_>>()?;
    let mut short = short.iter();
    let pair = interleave(
        &bench.settings,
        (&bench.ours, |_| one_by_one(bench, &long)),
        (&bench.ours, |_| one_by_one(bench, short.next().context("no short stream is left")?)),
    )?;
    Ok(vec![latency(name, &pair)])
}

/// The last message of a long and of a short stream.
pub(super) fn tail_read(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let long = last_message(bench, &filled(bench, &format!("{name}-long"), LONG)?)?;
    let short = last_message(bench, &filled(bench, &format!("{name}-short"), SHORT)?)?;
    let expected = Expected { status: 200, body_bytes: Some(SMALL_BODY.len() as u64) };
    let pair = interleave(
        &bench.settings,
        (&bench.ours, |_| bench.repeat(&bench.ours, 1, &long, expected)),
        (&bench.ours, |_| bench.repeat(&bench.ours, 1, &short, expected)),
    )?;
    Ok(vec![latency(name, &pair)])
}

fn latency(name: &str, pair: &Pair) -> Outcome {
    let target = Some(Target::RatioMax(RATIO_MAX));
    outcome(name, "ms p50", pair, (|s| s.p50_ms, 1.0), target)
}

/// Makes a stream of so many messages; returns its path.
fn filled(bench: &Bench, name: &str, messages: u64) -> Result<String> {
    let path = bench.create(name, BINARY)?;
    requests(bench, &path, 64, messages)?;
    Ok(path)
}

fn one_by_one(bench: &Bench, path: &str) -> Result<Measured> {
    requests(bench, path, 1, APPENDS)
}

fn requests(bench: &Bench, path: &str, connections: usize, requests: u64) -> Result<Measured> {
    let (port, until) = (bench.ours.port(), Until::Requests(requests));
    let load = Load { port, connections, until, expected: status(204) };
    let bytes = request("POST", path, BINARY, &SMALL_BODY);
    load::run(&load, |_, out| out.extend_from_slice(&bytes))
}

/// A request for the last message, which is appended for it.
fn last_message(bench: &Bench, path: &str) -> Result<Vec<u8>> {
    let mut client = Client::connect(bench.ours.port())?;
    let tail = client.call(("PUT", path), BINARY, b"", 200)?.header("stream-next-offset");
    let tail = tail.context("no stream-next-offset")?.to_owned();
    client.call(("POST", path), BINARY, &SMALL_BODY, 204)?;
    Ok(request("GET", &format!("{path}?offset={tail}"), "", b""))
}
