//! Appends to one stream.
//!
//! Ceilings: an object that inserts one row a request where latency alone is measured; an object
//! that reads the body and touches no SQL where requests can share a commit; an object that stores
//! the body as one value where the body is large.

use anyhow::Result;

use super::{BINARY, Bench, outcome, request, status};
use crate::report::{Outcome, Target};
use crate::rounds::{Pair, interleave};

const SMALL_BODY: [u8; 256] = [b'a'; 256];

/// One connection: latency.
pub(super) fn alone(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let pair = append(bench, name, 1, "row")?;
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
    let pair = append(bench, name, connections, "body")?;
    let target = Some(Target::RatioMin(ratio_min));
    Ok(vec![outcome(name, "appends/s", &pair, (|s| s.rate, 1.0), target)])
}

fn append(bench: &Bench, name: &str, connections: usize, ceiling: &str) -> Result<Pair> {
    let ours = |round| {
        let path = bench.create(&format!("{name}-{round}"), BINARY)?;
        let bytes = request("POST", &path, BINARY, &SMALL_BODY);
        bench.repeat(&bench.ours, connections, &bytes, status(204))
    };
    let other = |round| {
        let path = format!("/object/{ceiling}/{name}-{round}");
        let bytes = request("POST", &path, BINARY, &SMALL_BODY);
        bench.repeat(&bench.ceiling, connections, &bytes, status(204))
    };
    interleave(bench.rounds, (&bench.ours, ours), (&bench.ceiling, other))
}
