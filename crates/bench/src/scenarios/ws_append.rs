//! Appends over one WebSocket, pipelined.
//!
//! Ceiling: a bare object that acks every frame and touches no SQL, behind a bare edge that passes
//! frames on.

use anyhow::Result;

use super::append::small_messages;
use super::{Bench, JSON, create, outcome};
use crate::live::TEXT;
use crate::pipeline::{self, Pipeline};
use crate::report::{Outcome, Target};
use crate::rounds::interleave;

/// Half of what the service lets a client send ahead.
const UNANSWERED_MAX: usize = 512;
/// Messages of a frame that has many.
const MESSAGES: usize = 50;

/// Text of 256 bytes, one append a frame.
pub(super) fn single(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let payload = format!("\"{}\"", "a".repeat(256));
    compare(bench, name, (TEXT, &payload, "frames/s", 1), 12_000.0)
}

/// Arrays of small JSON messages.
pub(super) fn batches(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let payload = small_messages(MESSAGES)?;
    compare(bench, name, (JSON, &payload, "messages/s", MESSAGES), 60_000.0)
}

fn compare(
    bench: &Bench,
    name: &str,
    (headers, payload, unit, messages): (&str, &str, &'static str, usize),
    rate_min: f64,
) -> Result<Vec<Outcome>> {
    let append = |port, target: &str, named| {
        let (unanswered_max, until) = (UNANSWERED_MAX, bench.until());
        pipeline::run(&Pipeline { port, target, payload, unanswered_max, named, until })
    };
    let ours = |round| {
        let path = create(&bench.ours, &format!("{name}-{round}"), headers)?;
        // Without credit the appends do not come back as data.
        append(bench.ours.port(), &format!("{path}?offset=now&live=ws&credit=0"), true)
    };
    let other = |round| append(bench.ceiling.port(), &format!("/edge/ack/{name}-{round}"), false);
    let pair = interleave(&bench.settings, (&bench.ours, ours), (&bench.ceiling, other))?;
    let target = Some(Target::ValueMin(rate_min));
    Ok(vec![outcome(name, unit, &pair, (|s| s.rate, messages as f64), target)])
}
