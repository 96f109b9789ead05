//! What a million appends cost at the platform's list prices, without duration.
//!
//! An append is one request to the Worker and one to the object, by construction. Rows written are
//! read from the object's own database after the load: appends that share a commit share a row of
//! `extents`, and no row of it is written twice, so the growth of the table is the number of rows
//! written to it. Every [`CHECKPOINT_ROWS`] rows one row of `lives` is written anew; no producer
//! takes part here, so that is all a checkpoint writes. The log sets no alarm and no other table
//! grows; the tables are counted to prove it.
//!
//! So that rows can be counted, the host makes no segments. What a segment writes is added: it does
//! not depend on the number of its rows, because the table that holds exactly them is dropped.
//!
//! The database is read from a copy, so that nothing interferes with the running object.
//!
//! **Deliveries.** A delivery is one request to a session's stream and one row of its `extents`, which may hold
//! many messages. Beside it stand, by construction: each publish with its request to Worker and object; each
//! batch with a request to the subscription object, one back for the bytes, and a row there; the duty and its
//! alarm, set and cleared at most once a second.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protocol::limits::{CHECKPOINT_ROWS, SEGMENT_APPENDS};
use rusqlite::Connection;
use tempfile::TempDir;

use super::fanout::Source;
use super::{BINARY, Bench, SMALL_BODY, create, request, status};
use crate::load::{self, Load, Until};
use crate::report::{Outcome, Target};

/// Dollars per million of each.
const WORKER_REQUEST: f64 = 0.30;
const OBJECT_REQUEST: f64 = 0.15;
const ROW_WRITTEN: f64 = 1.00;

/// Rows that a segment writes: four of the schema to keep its rows apart, the intent, its duty and
/// the alarm, the segment, the life, the settled intent, the settled duty.
const SEGMENT_ROWS: u64 = 11;

/// Rows of a source's duty to fan out: the duty and the alarm, set and cleared.
const FANOUT_ROWS: u64 = 4;

/// Tables of a stream that an append does not touch.
const OTHER_TABLES: [&str; 6] =
    ["tombstone", "segments", "producers", "forks", "releases", "duties"];

/// Cost of appends over so many connections.
pub(super) fn appends(
    bench: &Bench,
    name: &str,
    (connections, appends): (usize, u64),
    dollars_max: f64,
) -> Result<Vec<Outcome>> {
    let host = bench.host_with("hot", &["SEGMENT_APPENDS=65536", "SEGMENT_BYTES=16777216"])?;
    let known = databases(host.state())?;
    let path = create(&host, name, BINARY)?;
    let database = databases(host.state())?
        .difference(&known)
        .next()
        .cloned()
        .context("the stream has no database")?;
    let before = count(&database)?;

    let (port, until) = (host.port(), Until::Requests(appends));
    let load = Load { port, connections, until, expected: status(204) };
    let bytes = request("POST", &path, BINARY, &SMALL_BODY);
    let measured = load::run(&load, |_, out| out.extend_from_slice(&bytes))?;

    let after = count(&database)?;
    if after.others != before.others {
        bail!("a table grew that appends do not write to: {before:?}, {after:?}");
    }
    let extents = after.extents.saturating_sub(before.extents);
    let rows = (extents + extents / CHECKPOINT_ROWS) as f64 / measured.answered as f64
        + SEGMENT_ROWS as f64 / SEGMENT_APPENDS as f64;
    eprintln!("    {} appends in {extents} rows", measured.answered);
    let dollars = WORKER_REQUEST + OBJECT_REQUEST + rows * ROW_WRITTEN;
    let target = Some(Target::ValueMax(dollars_max));
    Ok(vec![
        outcome(name.to_owned(), dollars, "$/million", target),
        outcome(format!("{name}-rows"), rows * 1e6, "rows/million", None),
    ])
}

/// Cost of a message's delivery to one of 150 sessions: published one after another, and in a burst.
pub(super) fn deliveries(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    const SESSIONS: usize = 150;
    let host = bench.host_with("hot", &["SEGMENT_APPENDS=65536", "SEGMENT_BYTES=16777216"])?;
    let source = Source::make(&host, name, SESSIONS)?;
    let mut outcomes = Vec::new();
    for (suffix, connections, publishes) in [("", 1, 50), ("-burst", 64, 1_000)] {
        let before = fan_out(host.state())?;
        let measured = source.publish_inline(connections, Until::Requests(publishes))?;
        let after = fan_out(host.state())?;
        let appends = after.source.saturating_sub(before.source) as f64;
        let deliveries = after.sessions.saturating_sub(before.sessions) as f64;
        let batches = deliveries / SESSIONS as f64;
        let messages = (publishes * SESSIONS as u64) as f64;
        let extents = appends + deliveries;
        // The life and the link, every so many rows.
        let checkpoints = extents * 2.0 / CHECKPOINT_ROWS as f64;
        let segments = messages * SEGMENT_ROWS as f64 / SEGMENT_APPENDS as f64;
        let duties = measured.elapsed.as_secs_f64().ceil() * FANOUT_ROWS as f64;
        let rows = extents + batches + checkpoints + segments + duties;
        let requests = publishes as f64 + 2.0 * batches + deliveries;
        let dollars =
            publishes as f64 * WORKER_REQUEST + requests * OBJECT_REQUEST + rows * ROW_WRITTEN;
        eprintln!("    {publishes} publishes in {appends} rows, {batches:.1} batches");
        let target = Some(Target::ValueMax(1.25));
        let million = 1e6 / messages;
        let part = |part: &str| format!("{name}{suffix}{part}");
        outcomes.extend([
            outcome(part(""), dollars / messages, "$/million", target),
            outcome(part("-rows"), rows * million, "rows/million", None),
            outcome(part("-requests"), requests * million, "requests/million", None),
        ]);
    }
    Ok(outcomes)
}

fn outcome(name: String, value: f64, unit: &'static str, target: Option<Target>) -> Outcome {
    Outcome { name, value, unit, ceiling: None, ratio: None, target }
}

/// Rows of bytes: those of streams with subscribers, and those of all other streams.
struct FanOut {
    source: u64,
    sessions: u64,
}

fn fan_out(state: &Path) -> Result<FanOut> {
    let mut sums = FanOut { source: 0, sessions: 0 };
    for database in databases(state)? {
        let copy = Copied::of(&database)?;
        if !copy.has("extents")? {
            continue;
        }
        let extents = copy.count("extents")?;
        if copy.count("shards")? > 0 {
            sums.source += extents;
        } else {
            sums.sessions += extents;
        }
    }
    Ok(sums)
}

/// Databases of objects below a directory of state.
fn databases(state: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut directories = vec![state.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sqlite") {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

#[derive(Debug, PartialEq)]
struct Rows {
    extents: u64,
    others: u64,
}

/// Counts the rows of a stream.
fn count(database: &Path) -> Result<Rows> {
    let copy = Copied::of(database)?;
    let others = OTHER_TABLES.iter().map(|table| copy.count(table)).sum::<Result<u64>>()?;
    Ok(Rows { extents: copy.count("extents")?, others })
}

/// A copy of a database and its write-ahead log.
struct Copied {
    connection: Connection,
    _directory: TempDir,
}

impl Copied {
    fn of(database: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let copy = directory.path().join("copy.sqlite");
        fs::copy(database, &copy)?;
        let log = |path: &Path| path.with_extension("sqlite-wal");
        if log(database).exists() {
            fs::copy(log(database), log(&copy))?;
        }
        Ok(Self { connection: Connection::open(&copy)?, _directory: directory })
    }

    fn has(&self, table: &str) -> Result<bool> {
        let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
        Ok(self.connection.query_row(sql, [table], |row| row.get::<_, i64>(0))? > 0)
    }

    fn count(&self, table: &str) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(u64::try_from(rows)?)
    }
}
