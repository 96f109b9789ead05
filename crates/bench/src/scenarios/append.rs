//! Appends to one stream.
//!
//! Ceilings: an object that inserts one row a request, where latency alone is measured; an object
//! that reads the body and touches no SQL, where requests can share a commit; an object that
//! stores the body as one value, where the body is large.

use std::fmt::Write;

use anyhow::Result;

use super::{BINARY, Bench, JSON, SMALL_BODY, outcome, request, status};
use crate::http::write_request;
use crate::load::{self, Load, Measured};
use crate::report::{Outcome, Target};
use crate::rounds::{Pair, interleave};

const LARGE_BODY_BYTES: usize = 1 << 20;
const BATCH_MESSAGES: usize = 100;

/// What one side of a comparison sends.
struct Kind<'a> {
    connections: usize,
    headers: &'a str,
    body: &'a [u8],
    /// Path of the ceiling below `/object`.
    ceiling: &'a str,
}

/// One connection: latency.
pub(super) fn alone(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let kind = Kind { connections: 1, headers: BINARY, body: &SMALL_BODY, ceiling: "row" };
    let pair = compare(bench, name, &kind)?;
    let target = Some(Target::RatioMax(1.3));
    Ok(vec![outcome(name, "ms p50", &pair, (|s| s.p50_ms, 1.0), target)])
}

/// Many connections: throughput.
pub(super) fn together(
    bench: &Bench,
    name: &str,
    connections: usize,
    ratio_min: f64,
) -> Result<Vec<Outcome>> {
    let kind = Kind { connections, headers: BINARY, body: &SMALL_BODY, ceiling: "body" };
    let pair = compare(bench, name, &kind)?;
    let target = Some(Target::RatioMin(ratio_min));
    Ok(vec![outcome(name, "appends/s", &pair, (|s| s.rate, 1.0), target)])
}

/// Bodies of 1 MiB.
pub(super) fn large(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let body = vec![b'a'; LARGE_BODY_BYTES];
    let kind = Kind { connections: 4, headers: BINARY, body: &body, ceiling: "row" };
    let pair = compare(bench, name, &kind)?;
    let target = Some(Target::RatioMin(0.80));
    Ok(vec![outcome(name, "MiB/s", &pair, (|s| s.rate, 1.0), target)])
}

/// JSON arrays of 100 small messages.
pub(super) fn batches(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let body = small_messages(BATCH_MESSAGES)?;
    let body = body.as_bytes();
    let kind = Kind { connections: 16, headers: JSON, body, ceiling: "body" };
    let pair = compare(bench, name, &kind)?;
    let scale = BATCH_MESSAGES as f64;
    let target = Some(Target::ValueMin(100_000.0));
    Ok(vec![outcome(name, "messages/s", &pair, (|s| s.rate, scale), target)])
}

/// A JSON array of so many small messages.
pub(super) fn small_messages(messages: usize) -> Result<String> {
    let mut body = String::from("[");
    for number in 0..messages {
        let comma = if number == 0 { "" } else { "," };
        write!(body, r#"{comma}{{"n":{number},"text":"small message"}}"#)?;
    }
    body.push(']');
    Ok(body)
}

fn compare(bench: &Bench, name: &str, kind: &Kind<'_>) -> Result<Pair> {
    let ours = |round| {
        let path = bench.create(&format!("{name}-{round}"), kind.headers)?;
        let bytes = request("POST", &path, kind.headers, kind.body);
        bench.repeat(&bench.ours, kind.connections, &bytes, status(204))
    };
    let other = |round| {
        let path = format!("/object/{}/{name}-{round}", kind.ceiling);
        let bytes = request("POST", &path, kind.headers, kind.body);
        bench.repeat(&bench.ceiling, kind.connections, &bytes, status(204))
    };
    interleave(&bench.settings, (&bench.ours, ours), (&bench.ceiling, other))
}

/// Every connection as an idempotent producer of its own, beside appends without producers.
pub(super) fn producers(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    const CONNECTIONS: usize = 64;
    let with = |round| {
        let path = bench.create(&format!("{name}-with-{round}"), BINARY)?;
        produce(bench, CONNECTIONS, &path)
    };
    let without = |round| {
        let path = bench.create(&format!("{name}-without-{round}"), BINARY)?;
        let bytes = request("POST", &path, BINARY, &SMALL_BODY);
        bench.repeat(&bench.ours, CONNECTIONS, &bytes, status(204))
    };
    let pair = interleave(&bench.settings, (&bench.ours, with), (&bench.ours, without))?;
    let target = Some(Target::RatioMin(0.90));
    Ok(vec![outcome(name, "appends/s", &pair, (|s| s.rate, 1.0), target)])
}

fn produce(bench: &Bench, connections: usize, path: &str) -> Result<Measured> {
    let (port, until) = (bench.ours.port(), bench.until());
    let load = Load { port, connections, until, expected: status(200) };
    load::run(&load, |turn, out| {
        let headers = format!(
            "{BINARY}producer-id: producer-{}\r\nproducer-epoch: 0\r\nproducer-seq: {}\r\n",
            turn.connection, turn.request
        );
        write_request(out, "POST", path, &headers, &SMALL_BODY);
    })
}
