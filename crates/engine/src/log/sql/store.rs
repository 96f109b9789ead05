//! One write, one statement.

use protocol::lifetime::Lifetime;

use std::ops::Range;

use super::rows::Columns;
use super::{BOTH, Database, EXTENTS, Value};
use crate::codec::Writer;
use crate::extent::write_deltas;
use crate::life::Life;
use crate::log::{Blob, ForkRow, Key, LogError, Write};

pub(super) fn int<B>(value: u64) -> Value<B> {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

pub(super) fn text<B>(value: &str) -> Value<B> {
    Value::Text(value.to_owned())
}

pub(super) fn blob<B: Blob>(bytes: Vec<u8>) -> Value<B> {
    Value::Blob(B::from_vec(bytes))
}

/// Stores one write. Each arm is one statement, but for the tables that a row is spread over.
pub(super) fn store<D: Database>(database: &mut D, write: Write<D::Bytes>) -> Result<(), LogError> {
    match write {
        Write::Extent { key, head, bytes } => database.execute(
            "INSERT OR REPLACE INTO extents (start, head, bytes) VALUES (?, ?, ?)",
            vec![int(key.0), blob(head), Value::Blob(bytes)],
        ),
        Write::Life(life) => store_life(database, &life),
        Write::DropLife(generation) => {
            database.execute("DELETE FROM lives WHERE generation = ?", vec![int(generation.0)])
        }
        Write::Tombstone(tombstone) => database.execute(
            "INSERT OR REPLACE INTO tombstone (id, generation, next_base) VALUES (1, ?, ?)",
            vec![int(tombstone.generation.0), int(tombstone.next_base.0)],
        ),
        Write::Seal | Write::EraseExtents { .. } => {
            Err(LogError::Failed("what changes tables has a transaction of its own".into()))
        }
        Write::Producer { generation, id, state, as_of } => database.execute(
            "INSERT OR REPLACE INTO producers (generation, id, epoch, seq, as_of) \
             VALUES (?, ?, ?, ?, ?)",
            vec![
                int(generation.0),
                text(id.as_str()),
                int(state.epoch.0),
                int(state.seq.0),
                int(as_of.0),
            ],
        ),
        Write::EraseProducers { generation, rows } => database.execute(
            "DELETE FROM producers WHERE generation = ?1 AND id IN \
             (SELECT id FROM producers WHERE generation = ?1 LIMIT ?2)",
            vec![int(generation.0), int(u64::from(rows))],
        ),
        Write::Link { .. }
        | Write::DropLinks { .. }
        | Write::EraseLinks { .. }
        | Write::Shard { .. }
        | Write::DropShard { .. } => store_fanout(database, write),
        Write::Fork(..) | Write::DropFork(..) | Write::Release(..) | Write::DropRelease(..) => {
            store_relation(database, write)
        }
        Write::Segment(..)
        | Write::EraseSegments { .. }
        | Write::Rotation(..)
        | Write::DropRotation(..)
        | Write::Marker(..)
        | Write::DropMarker(..) => store_cold(database, write),
        Write::Duty(duty, due) => database.execute(
            "INSERT OR REPLACE INTO duties (kind, due) VALUES (?, ?)",
            vec![Value::Integer(duty.code()), int(due.0)],
        ),
        Write::DropDuty(duty) => {
            database.execute("DELETE FROM duties WHERE kind = ?", vec![Value::Integer(duty.code())])
        }
        Write::Alarm(at) => database.set_alarm(at),
    }
}

fn store_life<D: Database>(database: &mut D, life: &Life) -> Result<(), LogError> {
    let (ttl_s, expires_at) = match life.lifetime {
        Lifetime::Unlimited => (Value::Null, Value::Null),
        Lifetime::Ttl { seconds } => (int(seconds), Value::Null),
        Lifetime::ExpiresAt { at } => (Value::Null, int(at.0)),
    };
    database.execute(
        "INSERT OR REPLACE INTO lives (generation, base, phase, content_type, ttl_s, expires_at, \
         touched, checkpoint, hot_ends, seq, closed, origin) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        vec![
            int(life.generation.0),
            int(life.base.0),
            Value::Integer(life.phase_code()),
            text(life.content_type.as_str()),
            ttl_s,
            expires_at,
            int(life.touched.0),
            int(life.checkpoint.0),
            int(life.hot_ends),
            life.seq.as_ref().map_or(Value::Null, |seq| text(seq.as_str())),
            blob(life.closed.encode()),
            life.origin.as_ref().map_or(Value::Null, |origin| blob(origin.encode())),
        ],
    )
}

fn store_relation<D: Database>(database: &mut D, write: Write<D::Bytes>) -> Result<(), LogError> {
    match write {
        Write::Fork(id, row) => {
            let (source, at) = match row {
                ForkRow::Referenced { source, at } => (int(source.0), int(at.0)),
                ForkRow::Refused => (Value::Null, Value::Null),
            };
            database.execute(
                "INSERT OR REPLACE INTO forks (child, generation, source, at) VALUES (?, ?, ?, ?)",
                vec![text(&id.child), int(id.generation.0), source, at],
            )
        }
        Write::DropFork(id) => database.execute(
            "DELETE FROM forks WHERE child = ? AND generation = ?",
            vec![text(&id.child), int(id.generation.0)],
        ),
        Write::Release(release) => database.execute(
            "INSERT OR REPLACE INTO releases (generation, source, attempts) VALUES (?, ?, ?)",
            vec![
                int(release.generation.0),
                text(&release.source),
                int(u64::from(release.attempts)),
            ],
        ),
        Write::DropRelease(generation) => {
            database.execute("DELETE FROM releases WHERE generation = ?", vec![int(generation.0)])
        }
        _ => Err(LogError::Failed("not a relation".into())),
    }
}

/// Stores what has to do with fan-out.
fn store_fanout<D: Database>(database: &mut D, write: Write<D::Bytes>) -> Result<(), LogError> {
    match write {
        Write::Link { life, link, state, as_of } => database.execute(
            "INSERT OR REPLACE INTO links (life, source, generation, epoch, next, as_of) \
             VALUES (?, ?, ?, ?, ?, ?)",
            vec![
                int(life.0),
                text(&link.source),
                int(link.generation.0),
                int(state.epoch.0),
                state.next.map_or(Value::Null, |next| int(next.0)),
                int(as_of.0),
            ],
        ),
        Write::DropLinks { life, source, generation, from, up_to } => database.execute(
            "DELETE FROM links WHERE life = ?1 AND source = ?2 \
             AND generation = coalesce(?3, generation) AND next IS NOT NULL \
             AND epoch BETWEEN ?4 AND ?5",
            vec![
                int(life.0),
                text(&source),
                generation.map_or(Value::Null, |generation| int(generation.0)),
                int(from.0),
                int(up_to.0),
            ],
        ),
        Write::EraseLinks { life, rows } => database.execute(
            "DELETE FROM links WHERE life = ?1 AND (source, generation) IN \
             (SELECT source, generation FROM links WHERE life = ?1 LIMIT ?2)",
            vec![int(life.0), int(u64::from(rows))],
        ),
        Write::Shard { generation, shard } => database.execute(
            "INSERT OR REPLACE INTO shards (generation, shard) VALUES (?, ?)",
            vec![int(generation.0), int(u64::from(shard.0))],
        ),
        Write::DropShard { generation, shard } => database.execute(
            "DELETE FROM shards WHERE generation = ? AND shard = ?",
            vec![int(generation.0), int(u64::from(shard.0))],
        ),
        _ => Err(LogError::Failed("nothing of fan-out".into())),
    }
}

/// Stores what has to do with segments.
fn store_cold<D: Database>(database: &mut D, write: Write<D::Bytes>) -> Result<(), LogError> {
    match write {
        Write::Segment(row) => database.execute(
            "INSERT OR REPLACE INTO segments (start, length, own, name, size, sums, ends) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            vec![
                int(row.key.0),
                int(row.length),
                int(u64::from(row.own)),
                text(&row.name),
                int(row.size),
                blob(encode_sums(&row.sums)),
                blob(encode_ends(&row.ends)),
            ],
        ),
        Write::EraseSegments { keys, rows } => database.execute(
            "DELETE FROM segments WHERE start IN (SELECT start FROM segments WHERE start >= ? \
             AND start < ? ORDER BY start LIMIT ?)",
            vec![int(keys.start.0), int(keys.end.0), int(u64::from(rows))],
        ),
        Write::Rotation(row) => {
            let (name, start, until) = match &row.intent {
                None => (Value::Null, Value::Null, Value::Null),
                Some(intent) => (text(&intent.name), int(intent.from.0), int(intent.to.0)),
            };
            database.execute(
                "INSERT OR REPLACE INTO rotations (generation, attempt, name, start, until) \
                 VALUES (?, ?, ?, ?, ?)",
                vec![int(row.generation.0), int(row.attempt), name, start, until],
            )
        }
        Write::DropRotation(generation) => {
            database.execute("DELETE FROM rotations WHERE generation = ?", vec![int(generation.0)])
        }
        Write::Marker(marker) => database.execute(
            "INSERT OR REPLACE INTO markers (due, name, attempts) VALUES (?, ?, ?)",
            vec![int(marker.due.0), text(&marker.name), int(u64::from(marker.attempts))],
        ),
        Write::DropMarker(marker) => database.execute(
            "DELETE FROM markers WHERE due = ? AND name = ?",
            vec![int(marker.due.0), text(&marker.name)],
        ),
        _ => Err(LogError::Failed("nothing of segments".into())),
    }
}

fn encode_sums(sums: &[u32]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()
}

fn encode_ends(ends: &[u64]) -> Vec<u8> {
    let mut writer = Writer::default();
    write_deltas(&mut writer, ends);
    writer.finish()
}

/// Gives the extents stored so far a table of their own. Four rows of the schema are written.
pub(super) fn seal<D: Database>(database: &mut D, sealed: &mut bool) -> Result<(), LogError> {
    if *sealed || database.query("SELECT 1 FROM extents LIMIT 1", vec![])?.is_empty() {
        return Ok(());
    }
    database.execute("ALTER TABLE extents RENAME TO sealed", vec![])?;
    database.execute(EXTENTS, vec![])?;
    *sealed = true;
    Ok(())
}

/// Erases the first `rows` extents in the range, and the table `sealed` with its last row.
pub(super) fn erase_extents<D: Database>(
    database: &mut D,
    keys: Range<Key>,
    rows: u32,
    sealed: &mut bool,
) -> Result<(), LogError> {
    let both = if *sealed { BOTH } else { "extents" };
    let mut end = keys.end;
    if rows < u32::MAX {
        let sql = format!(
            "SELECT start FROM {both} WHERE start >= ? AND start < ? ORDER BY start LIMIT 1 \
             OFFSET ?"
        );
        let params = vec![int(keys.start.0), int(keys.end.0), int(u64::from(rows))];
        if let Some(row) = database.query(&sql, params)?.into_iter().next() {
            end = Key(Columns::new(row, "extents").int()?);
        }
    }
    let range = || vec![int(keys.start.0), int(end.0)];
    if *sealed {
        let others = "SELECT 1 FROM sealed WHERE start < ? OR start >= ? LIMIT 1";
        if database.query(others, range())?.is_empty() {
            database.execute("DROP TABLE sealed", vec![])?;
            *sealed = false;
        } else {
            database.execute("DELETE FROM sealed WHERE start >= ? AND start < ?", range())?;
        }
    }
    database.execute("DELETE FROM extents WHERE start >= ? AND start < ?", range())
}
