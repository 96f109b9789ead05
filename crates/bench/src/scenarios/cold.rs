//! Segments: reading them, and what making them costs the appends beside.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{BINARY, Bench, SMALL_BODY, create, outcome, request, status};
use crate::host::Host;
use crate::http::Client;
use crate::load::{self, Expected, Load};
use crate::report::{Outcome, Target};
use crate::rounds::interleave;

const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS: usize = 8;
const CONNECTIONS: usize = 4;

/// How long uploads may take.
const UPLOADED_TIMEOUT: Duration = Duration::from_secs(60);

/// Chunks of 1 MiB out of a segment. Ceiling: a Worker that passes the same ranges of an object of
/// the same store on, unread.
pub(super) fn read(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let path = bench.create(name, BINARY)?;
    let mut client = Client::connect(bench.ours.port())?;
    let body = vec![b'a'; CHUNK_BYTES];
    let mut offsets = vec!["-1".to_owned()];
    for _ in 0..CHUNKS {
        let reply = client.call(("POST", &path), BINARY, &body, 204)?;
        let next = reply.header("stream-next-offset").context("no stream-next-offset")?;
        offsets.push(next.to_owned());
    }
    offsets.pop();
    client.call(("POST", &path), "stream-closed: true\r\n", b"", 204)?;
    wait_until_uploaded(&bench.ours, name, (CHUNKS * CHUNK_BYTES) as u64)?;

    let object = body.repeat(CHUNKS);
    let mut client = Client::connect(bench.ceiling.port())?;
    client.call(("PUT", "/worker/r2/object"), BINARY, &object, 204)?;
    let expected = Expected { status: 200, body_bytes: Some(CHUNK_BYTES as u64) };
    let in_turns = |host: &Host, requests: Vec<Vec<u8>>| {
        let (port, until) = (host.port(), bench.until());
        let load = Load { port, connections: CONNECTIONS, until, expected };
        let mut next = requests.iter().cycle();
        load::run(&load, |_, out| out.extend_from_slice(next.next().map_or(&[], Vec::as_slice)))
    };
    let get = |target: String| request("GET", &target, "", b"");
    let ours = |_| {
        let requests = offsets.iter().map(|offset| get(format!("{path}?offset={offset}")));
        in_turns(&bench.ours, requests.collect())
    };
    let other = |_| {
        let starts = (0..CHUNKS).map(|chunk| chunk * CHUNK_BYTES);
        let requests = starts.map(|start| get(format!("/worker/r2/object?{start}-{CHUNK_BYTES}")));
        in_turns(&bench.ceiling, requests.collect())
    };
    let pair = interleave(&bench.settings, (&bench.ours, ours), (&bench.ceiling, other))?;
    let target = Some(Target::RatioMin(0.85));
    Ok(vec![outcome(name, "MiB/s", &pair, (|s| s.rate, 1.0), target)])
}

/// Appends with a segment made every 2,048 of them, several a second, beside appends without any.
pub(super) fn rotate(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    const CONNECTIONS: usize = 16;
    let often = bench.host_with("often", &["SEGMENT_APPENDS=2048"])?;
    let never = bench.host_with("never", &["SEGMENT_APPENDS=65536", "SEGMENT_BYTES=16777216"])?;
    let append = |host: &Host, round: u32| {
        let path = create(host, &format!("{name}-{round}"), BINARY)?;
        let bytes = request("POST", &path, BINARY, &SMALL_BODY);
        bench.repeat(host, CONNECTIONS, &bytes, status(204))
    };
    let pair = interleave(
        &bench.settings,
        (&often, |round| append(&often, round)),
        (&never, |round| append(&never, round)),
    )?;
    let (made, unwanted) = (uploads(&often, name).len(), uploads(&never, name).len());
    if made == 0 || unwanted > 0 {
        bail!("{made} segments where some were wanted, {unwanted} where none were");
    }
    eprintln!("    {made} segments");
    let target = Some(Target::RatioMax(1.5));
    Ok(vec![
        outcome(&format!("{name}-p99"), "ms p99", &pair, (|s| s.p99_ms, 1.0), target),
        outcome(&format!("{name}-rate"), "appends/s", &pair, (|s| s.rate, 1.0), None),
    ])
}

/// Waits until a stream's bytes are segments.
pub(super) fn wait_until_uploaded(host: &Host, stream: &str, bytes: u64) -> Result<()> {
    let started = Instant::now();
    while uploads(host, stream).iter().sum::<u64>() < bytes {
        if started.elapsed() > UPLOADED_TIMEOUT {
            bail!("{stream} was not uploaded within {UPLOADED_TIMEOUT:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Sizes of the segments of streams whose names contain `stream`, from the Worker's log lines.
fn uploads(host: &Host, stream: &str) -> Vec<u64> {
    let log = host.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    let rotated = lines.filter(|line: &serde_json::Value| {
        let text = |key: &str| line.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        text("event") == "rotated" && text("segment").contains(&format!("/{stream}"))
    });
    rotated.filter_map(|line| line.get("number").and_then(serde_json::Value::as_u64)).collect()
}
