//! Whether the length of a stream matters: the same operations on a stream with millions of
//! messages and on one with 1,000. What the other scenarios call the ceiling is here the short
//! stream.
//!
//! Messages of 43 bytes are appended in JSON arrays of 100 over 16 connections. Both streams are
//! in segments up to a hot rest: the short one because its segments are small.

use anyhow::{Context, Result};

use super::cold::wait_until_uploaded;
use super::{Bench, JSON, create, outcome, request, status};
use crate::host::Host;
use crate::http::Client;
use crate::load::{self, Expected, Load, Measured, Until};
use crate::report::{Outcome, Target};
use crate::rounds::interleave;

const SHORT: u64 = 1_000;
/// Messages of an append that fills a stream.
const BATCH: u64 = 100;
/// Bytes of a message in the log.
const MESSAGE_BYTES: u64 = 43;
/// Appends of a round: few, so that the short stream stays short.
const APPENDS: u64 = 300;
/// Offsets read in turns.
const OFFSETS: u64 = 64;
const RATIO_MAX: f64 = 1.1;
const READ_CHUNK: &str = "READ_CHUNK_BYTES=4300";

/// Append, read of the last message, and read at a random offset.
pub(super) fn compare(bench: &Bench, name: &str, messages: u64) -> Result<Vec<Outcome>> {
    let long = bench.host_with("long", &[READ_CHUNK])?;
    let short = bench.host_with("short", &[READ_CHUNK, "SEGMENT_BYTES=16384"])?;
    let long_path = filled(&long, "long", messages)?;
    Ok(vec![
        append(bench, name, (&long, &long_path), &short)?,
        tail_read(bench, name, (&long, &long_path), &short)?,
        random_read(bench, name, (&long, &long_path, messages), &short)?,
    ])
}

/// One append at a time.
fn append(
    bench: &Bench,
    name: &str,
    (long, long_path): (&Host, &str),
    short: &Host,
) -> Result<Outcome> {
    // Appends make a short stream longer: each round has a new one, filled beforehand.
    let fresh: Vec<_> = (0..bench.settings.rounds_max())
        .map(|round| filled(short, &format!("append-{round}"), SHORT))
        .collect::<Result<_>>()?;
    let mut fresh = fresh.iter();
    let body = message(0);
    let one_by_one = |host: &Host, path: &str| requests(host, path, 1, APPENDS, body.as_bytes());
    let pair = interleave(
        &bench.settings,
        (long, |_| one_by_one(long, long_path)),
        (short, |_| one_by_one(short, fresh.next().context("no short stream is left")?)),
    )?;
    let target = Some(Target::RatioMax(RATIO_MAX));
    Ok(outcome(&format!("{name}-append"), "ms p50", &pair, (|s| s.p50_ms, 1.0), target))
}

/// The last message.
fn tail_read(
    bench: &Bench,
    name: &str,
    (long, long_path): (&Host, &str),
    short: &Host,
) -> Result<Outcome> {
    let long_read = last_message(long, long_path)?;
    let short_read = last_message(short, &filled(short, "tail", SHORT)?)?;
    let expected = Expected { status: 200, body_bytes: Some(MESSAGE_BYTES) };
    let pair = interleave(
        &bench.settings,
        (long, |_| bench.repeat(long, 1, &long_read, expected)),
        (short, |_| bench.repeat(short, 1, &short_read, expected)),
    )?;
    let target = Some(Target::RatioMax(RATIO_MAX));
    Ok(outcome(&format!("{name}-tail"), "ms p50", &pair, (|s| s.p50_ms, 1.0), target))
}

/// Pages of 100 messages at offsets all over the segments.
fn random_read(
    bench: &Bench,
    name: &str,
    (long, long_path, messages): (&Host, &str, u64),
    short: &Host,
) -> Result<Outcome> {
    let short_path = filled(short, "random", SHORT)?;
    wait_until_uploaded(short, "random", SHORT * MESSAGE_BYTES / 3)?;
    wait_until_uploaded(long, "long", messages * MESSAGE_BYTES / 2)?;
    let read = |host: &Host, path: &str, messages: u64| {
        let reads = offsets(host, path, messages)?;
        let mut next = reads.iter().cycle();
        let expected = status(200);
        let load = Load { port: host.port(), connections: 1, until: bench.until(), expected };
        load::run(&load, |_, out| out.extend_from_slice(next.next().map_or(&[], Vec::as_slice)))
    };
    let pair = interleave(
        &bench.settings,
        (long, |_| read(long, long_path, messages / 2)),
        (short, |_| read(short, &short_path, SHORT / 3)),
    )?;
    let target = Some(Target::RatioMax(RATIO_MAX));
    Ok(outcome(&format!("{name}-random"), "ms p50", &pair, (|s| s.p50_ms, 1.0), target))
}

/// A JSON message of [`MESSAGE_BYTES`] with the two bytes that end it in the log.
fn message(number: u64) -> String {
    format!(r#"{{"number":{number:>8},"text":"of a message"}}"#)
}

/// Makes a stream of so many messages; returns its path.
fn filled(host: &Host, name: &str, messages: u64) -> Result<String> {
    let path = create(host, name, JSON)?;
    let batch: Vec<String> = (0..BATCH).map(message).collect();
    let body = format!("[{}]", batch.join(","));
    requests(host, &path, 16, messages / BATCH, body.as_bytes())?;
    Ok(path)
}

fn requests(
    host: &Host,
    path: &str,
    connections: usize,
    requests: u64,
    body: &[u8],
) -> Result<Measured> {
    let (port, until) = (host.port(), Until::Requests(requests));
    let load = Load { port, connections, until, expected: status(204) };
    let bytes = request("POST", path, JSON, body);
    load::run(&load, |_, out| out.extend_from_slice(&bytes))
}

/// A request for the last message, which is appended for it.
fn last_message(host: &Host, path: &str) -> Result<Vec<u8>> {
    let mut client = Client::connect(host.port())?;
    let tail = tail_of(&mut client, path)?;
    client.call(("POST", path), JSON, message(0).as_bytes(), 204)?;
    Ok(request("GET", &format!("{path}?offset={tail}"), "", b""))
}

fn tail_of(client: &mut Client, path: &str) -> Result<String> {
    let reply = client.call(("PUT", path), JSON, b"", 200)?;
    Ok(reply.header("stream-next-offset").context("no stream-next-offset")?.to_owned())
}

/// Requests at offsets spread over the first messages, where batches begin.
fn offsets(host: &Host, path: &str, messages: u64) -> Result<Vec<Vec<u8>>> {
    let tail = tail_of(&mut Client::connect(host.port())?, path)?;
    let (generation, _) = tail.split_once('_').context("an offset without generation")?;
    let batches = (messages / BATCH).max(1);
    let read = |number: u64| {
        // Large steps, so that one does not follow the other.
        let batch = (number * 7_919) % batches;
        let position = batch * BATCH * MESSAGE_BYTES;
        request("GET", &format!("{path}?offset={generation}_{position:016}"), "", b"")
    };
    Ok((0..OFFSETS).map(read).collect())
}
