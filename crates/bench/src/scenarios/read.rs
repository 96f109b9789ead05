//! Catch-up reads of what is still in the object ("hot").

use anyhow::{Context, Result};

use super::{BINARY, Bench, JSON, outcome, request};
use crate::http::Client;
use crate::load::{self, Expected, Load};
use crate::report::{Outcome, Target};
use crate::rounds::interleave;

const CHUNK_BYTES: usize = 1 << 20;
/// Chunks of the large stream, read in turns: too few for a segment.
const CHUNKS: usize = 6;

/// About 9 KB of JSON that came in 200 appends. Ceiling: an object that returns as many bytes.
pub(super) fn json(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    const APPENDS: usize = 200;
    const CONNECTIONS: usize = 16;
    let path = bench.create(name, JSON)?;
    let mut client = Client::connect(bench.ours.port())?;
    for number in 0..APPENDS {
        let body = format!(r#"{{"number":{number:>4},"text":"about 44 bytes"}}"#);
        client.call(("POST", &path), JSON, body.as_bytes(), 204)?;
    }
    let body_bytes = client.call(("GET", &path), "", b"", 200)?.body_bytes();
    let expected = Expected { status: 200, body_bytes: Some(body_bytes) };
    let ours = |_| {
        let bytes = request("GET", &path, "", b"");
        bench.repeat(&bench.ours, CONNECTIONS, &bytes, expected)
    };
    let other = |_| {
        let bytes = request("GET", &format!("/object/bytes/{name}?{body_bytes}"), "", b"");
        bench.repeat(&bench.ceiling, CONNECTIONS, &bytes, expected)
    };
    let pair = interleave(&bench.settings, (&bench.ours, ours), (&bench.ceiling, other))?;
    let target = Some(Target::RatioMin(0.70));
    Ok(vec![outcome(name, "reads/s", &pair, (|s| s.rate, 1.0), target)])
}

/// Chunks of 1 MiB. Ceiling: a Worker without an object that returns as many bytes.
pub(super) fn chunks(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    const CONNECTIONS: usize = 4;
    let path = bench.create(name, BINARY)?;
    let mut client = Client::connect(bench.ours.port())?;
    let body = vec![b'a'; CHUNK_BYTES];
    let mut offsets = vec!["-1".to_owned()];
    for _ in 0..CHUNKS {
        let reply = client.call(("POST", &path), BINARY, &body, 204)?;
        let next = reply.header("stream-next-offset").context("no stream-next-offset")?;
        offsets.push(next.to_owned());
    }
    // The last offset is the tail: there is nothing to read.
    offsets.pop();
    let requests: Vec<_> = offsets
        .iter()
        .map(|offset| request("GET", &format!("{path}?offset={offset}"), "", b""))
        .collect();
    let expected = Expected { status: 200, body_bytes: Some(CHUNK_BYTES as u64) };
    let (connections, until) = (CONNECTIONS, bench.until());
    let ours = |_| {
        let load = Load { port: bench.ours.port(), connections, until, expected };
        let mut next = requests.iter().cycle();
        load::run(&load, |_, out| out.extend_from_slice(next.next().map_or(&[], Vec::as_slice)))
    };
    let other = |_| {
        let bytes = request("GET", &format!("/worker/bytes?{CHUNK_BYTES}"), "", b"");
        bench.repeat(&bench.ceiling, connections, &bytes, expected)
    };
    let pair = interleave(&bench.settings, (&bench.ours, ours), (&bench.ceiling, other))?;
    let target = Some(Target::RatioMin(0.70));
    Ok(vec![outcome(name, "MiB/s", &pair, (|s| s.rate, 1.0), target)])
}
