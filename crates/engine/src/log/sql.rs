//! [`Log`] over SQLite: one schema and one set of statements, run by the stream object on Durable
//! Object SQLite and by native tests on the real library.
//!
//! The difference between the two is behind [`Database`], which knows how to run a statement and
//! nothing about streams. The tables are drawn in `docs/data-layout.md`.
//!
//! - The schema is created by the first commit, so a request for a stream that does not exist
//!   writes nothing.
//! - `head` stands before `bytes`: reading headers does not touch the pages of large values.
//! - Extents that are about to become a segment are kept apart in a table of their own, `sealed`:
//!   deleting thousands of rows costs one row written each, dropping a table costs none.
//! - A range is glued together inside SQLite and leaves it as one value.
//! - A commit of one statement needs no transaction around it.

use std::cell::Cell;
use std::ops::Range;

use protocol::fanout::{ShardId, SourceLife, SubscriptionEpoch};
use protocol::limits::ROW_BYTES_MAX;
use protocol::offset::{Generation, Position};
use protocol::producer::{Epoch, ProducerId, Seq};
use protocol::time::UnixMillis;

use super::{
    Blob, Counts, Duty, ExtentRow, ForkId, ForkRow, Framing, Key, LinkState, Log, LogError, Marker,
    ProducerState, Release, RotationRow, SegmentRow, Write,
};
use crate::life::{Life, Tombstone};

mod rows;
mod store;

use rows::{Columns, LIFE_COLUMNS, SEGMENT_COLUMNS, extent_of, life_of, rotation_of, segment_of};
use store::{erase_extents, int, seal, store, text};

/// A value that goes into or comes out of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<B> {
    /// SQL NULL.
    Null,
    /// An integer; exact to 2^53.
    Integer(i64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(B),
}

/// A row of a result.
pub type Row<B> = Vec<Value<B>>;

/// An SQLite database that belongs to one stream object.
pub trait Database: Sized {
    /// Representation of BLOBs.
    type Bytes: Blob;

    /// Runs a statement that returns no rows.
    ///
    /// # Errors
    /// [`LogError::Failed`] with the database's words.
    fn execute(&mut self, sql: &str, params: Vec<Value<Self::Bytes>>) -> Result<(), LogError>;

    /// Runs a query and returns all of its rows.
    ///
    /// # Errors
    /// [`LogError::Failed`] with the database's words.
    fn query(
        &self,
        sql: &str,
        params: Vec<Value<Self::Bytes>>,
    ) -> Result<Vec<Row<Self::Bytes>>, LogError>;

    /// Runs `body` in a transaction that is rolled back when `body` fails.
    ///
    /// # Errors
    /// The error of `body`, or of the commit.
    fn transaction(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), LogError>,
    ) -> Result<(), LogError>;

    /// Sets the object's alarm.
    ///
    /// # Errors
    /// [`LogError::Failed`] with the platform's words.
    fn set_alarm(&mut self, at: UnixMillis) -> Result<(), LogError>;
}

/// The hot rows.
const EXTENTS: &str =
    "CREATE TABLE extents (start INTEGER PRIMARY KEY, head BLOB NOT NULL, bytes BLOB NOT NULL)";

const SCHEMA: [&str; 13] = [
    "CREATE TABLE tombstone (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, \
     next_base INTEGER NOT NULL)",
    "CREATE TABLE lives (generation INTEGER PRIMARY KEY, base INTEGER NOT NULL, \
     phase INTEGER NOT NULL, content_type TEXT NOT NULL, ttl_s INTEGER, expires_at INTEGER, \
     touched INTEGER NOT NULL, checkpoint INTEGER NOT NULL, hot_ends INTEGER NOT NULL, seq TEXT, closed BLOB NOT NULL, \
     origin BLOB)",
    EXTENTS,
    "CREATE TABLE segments (start INTEGER PRIMARY KEY, length INTEGER NOT NULL, \
     own INTEGER NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, sums BLOB NOT NULL, \
     ends BLOB NOT NULL)",
    "CREATE TABLE rotations (generation INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, \
     name TEXT, start INTEGER, until INTEGER)",
    "CREATE TABLE markers (due INTEGER NOT NULL, name TEXT NOT NULL, attempts INTEGER NOT NULL, \
     PRIMARY KEY (due, name)) WITHOUT ROWID",
    "CREATE TABLE producers (generation INTEGER NOT NULL, id TEXT NOT NULL, \
     epoch INTEGER NOT NULL, seq INTEGER NOT NULL, as_of INTEGER NOT NULL, \
     PRIMARY KEY (generation, id)) WITHOUT ROWID",
    "CREATE TABLE links (life INTEGER NOT NULL, source TEXT NOT NULL, generation INTEGER NOT NULL, \
     epoch INTEGER NOT NULL, next INTEGER, as_of INTEGER NOT NULL, \
     PRIMARY KEY (life, source, generation)) WITHOUT ROWID",
    "CREATE TABLE shards (generation INTEGER NOT NULL, shard INTEGER NOT NULL, \
     PRIMARY KEY (generation, shard)) WITHOUT ROWID",
    "CREATE TABLE forks (child TEXT NOT NULL, generation INTEGER NOT NULL, source INTEGER, \
     at INTEGER, PRIMARY KEY (child, generation)) WITHOUT ROWID",
    "CREATE INDEX forks_by_source ON forks (source, at) WHERE source IS NOT NULL",
    "CREATE TABLE releases (generation INTEGER PRIMARY KEY, source TEXT NOT NULL, \
     attempts INTEGER NOT NULL)",
    "CREATE TABLE duties (kind INTEGER PRIMARY KEY, due INTEGER NOT NULL)",
];

/// What extents are read from while some are kept apart in the table `sealed`: their keys come
/// before all others. Stands where a statement names the table.
const BOTH: &str = "(SELECT start, head, bytes FROM sealed UNION ALL \
     SELECT start, head, bytes FROM extents)";

/// The part of each extent that lies in `[?1, ?2)`, in order.
const PARTS: &str = "SELECT CASE WHEN start < ?1 OR start + length(bytes) > ?2 \
     THEN substr(bytes, max(?1 - start, 0) + 1, min(start + length(bytes), ?2) - max(start, ?1)) \
     ELSE bytes END AS part FROM {rows} ORDER BY start";

/// The rows of `extents` that a range touches.
const ROWS: &str = "extents WHERE start < ?2 AND start >= \
     coalesce((SELECT max(start) FROM extents WHERE start <= ?1), ?1)";

/// The same of both tables. The bounds stand in each arm: SQLite does not push them into a
/// compound, and would read every row before the range.
const ROWS_OF_BOTH: &str = "(SELECT start, bytes FROM sealed WHERE start < ?2 AND start >= {low} \
     UNION ALL SELECT start, bytes FROM extents WHERE start < ?2 AND start >= {low})";
const LOW_OF_BOTH: &str = "coalesce((SELECT max(start) FROM extents WHERE start <= ?1), \
     (SELECT max(start) FROM sealed WHERE start <= ?1), ?1)";

const READ_RAW: &str = "SELECT CAST(group_concat(part, '') AS BLOB) FROM (";
const READ_JSON: &str = "SELECT CAST('[' || CAST(substr(whole, 1, length(whole) - 2) AS TEXT) \
     || ']' AS BLOB) FROM (SELECT CAST(group_concat(part, '') AS BLOB) AS whole FROM (";

/// Rows of a life with keys in `[?1, ?2)` and generation `?3`, each number counted up to `?4`. Only
/// the keys of the rows are read. `{sealed}` is the number of extents that are kept apart.
const COUNTS: &str = "SELECT min(?4, {sealed} + (SELECT count(*) FROM \
     (SELECT 1 FROM extents WHERE start >= ?1 AND start < ?2 LIMIT ?4))), \
     (SELECT count(*) FROM (SELECT 1 FROM segments WHERE start >= ?1 AND start < ?2 LIMIT ?4)), \
     (SELECT count(*) FROM (SELECT 1 FROM producers WHERE generation = ?3 LIMIT ?4)), \
     (SELECT count(*) FROM (SELECT 1 FROM forks WHERE source = ?3 LIMIT ?4))";
const COUNT_OF_SEALED: &str =
    "(SELECT count(*) FROM (SELECT 1 FROM sealed WHERE start >= ?1 AND start < ?2 LIMIT ?4))";

/// Ranges above this are glued together outside SQLite, which bounds the size of a value.
const GLUE_BYTES_MAX: u64 = 2 * ROW_BYTES_MAX;

/// From this size on it pays to ask first whether the range is exactly one row: that needs no
/// glue.
const WHOLE_ROW_BYTES_MIN: u64 = ROW_BYTES_MAX / 4;

/// A [`Log`] on a [`Database`].
pub struct SqlLog<D> {
    database: D,
    /// Whether the tables exist.
    ready: Cell<bool>,
    /// Whether the table `sealed` exists.
    sealed: Cell<bool>,
    /// Without and with the table `sealed`.
    statements: [Statements; 2],
}

/// The statements that read extents.
struct Statements {
    extents: String,
    last_extent: String,
    whole: String,
    parts: String,
    read_raw: String,
    read_json: String,
}

impl Statements {
    /// Statements on `table`, of which `rows` are those that a range touches.
    fn on(table: &str, rows: &str) -> Self {
        let parts = PARTS.replace("{rows}", rows);
        let columns = "SELECT start, length(bytes), head FROM";
        Self {
            extents: format!(
                "{columns} {table} WHERE start >= ? AND start < ? ORDER BY start LIMIT ?"
            ),
            last_extent: format!(
                "{columns} {table} WHERE start >= ? AND start < ? ORDER BY start DESC LIMIT 1"
            ),
            whole: format!("SELECT bytes FROM {table} WHERE start = ? AND length(bytes) = ?"),
            read_raw: format!("{READ_RAW}{parts})"),
            read_json: format!("{READ_JSON}{parts}))"),
            parts,
        }
    }
}

impl<D: Database> SqlLog<D> {
    /// Opens the log; reads nothing but the list of tables.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the database does not answer.
    pub fn open(database: D) -> Result<Self, LogError> {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' \
                   AND name IN ('duties', 'sealed')";
        let tables: Vec<_> = database.query(sql, vec![])?.into_iter().flatten().collect();
        let is = |value: &Value<D::Bytes>, name| matches!(value, Value::Text(text) if text == name);
        let has = |name| Cell::new(tables.iter().any(|value| is(value, name)));
        Ok(Self {
            ready: has("duties"),
            sealed: has("sealed"),
            statements: [
                Statements::on("extents", ROWS),
                Statements::on(BOTH, &ROWS_OF_BOTH.replace("{low}", LOW_OF_BOTH)),
            ],
            database,
        })
    }

    fn statements(&self) -> &Statements {
        let [extents, both] = &self.statements;
        if self.sealed.get() { both } else { extents }
    }

    /// The database below, for what is not the engine's business (its size, for one).
    pub fn database(&self) -> &D {
        &self.database
    }

    fn rows(
        &self,
        sql: &str,
        params: Vec<Value<D::Bytes>>,
    ) -> Result<Vec<Row<D::Bytes>>, LogError> {
        if !self.ready.get() {
            return Ok(Vec::new());
        }
        self.database.query(sql, params)
    }
}

impl<D: Database> Log for SqlLog<D> {
    type Bytes = D::Bytes;

    fn commit(&mut self, writes: Vec<Write<D::Bytes>>) -> Result<(), LogError> {
        let (ready, mut sealed) = (self.ready.get(), self.sealed.get());
        let is_plain =
            |write: &Write<_>| !matches!(write, Write::Seal | Write::EraseExtents { .. });
        if ready && writes.len() == 1 && writes.iter().all(is_plain) {
            return writes.into_iter().try_for_each(|write| store(&mut self.database, write));
        }
        self.database.transaction(|database| {
            if !ready {
                SCHEMA.iter().try_for_each(|sql| database.execute(sql, vec![]))?;
            }
            writes.into_iter().try_for_each(|write| match write {
                Write::Seal => seal(database, &mut sealed),
                Write::EraseExtents { keys, rows } => {
                    erase_extents(database, keys, rows, &mut sealed)
                }
                write => store(database, write),
            })
        })?;
        self.ready.set(true);
        self.sealed.set(sealed);
        Ok(())
    }

    fn tombstone(&self) -> Result<Option<Tombstone>, LogError> {
        let rows = self.rows("SELECT generation, next_base FROM tombstone WHERE id = 1", vec![])?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let mut columns = Columns::new(row, "tombstone");
        let generation = Generation(columns.int()?);
        Ok(Some(Tombstone { generation, next_base: Key(columns.int()?) }))
    }

    fn lives(&self, limit: u32) -> Result<Vec<Life>, LogError> {
        let sql = format!("{LIFE_COLUMNS} ORDER BY generation DESC LIMIT ?");
        self.rows(&sql, vec![int(u64::from(limit))])?.into_iter().map(life_of).collect()
    }

    fn life(&self, generation: Generation) -> Result<Option<Life>, LogError> {
        let sql = format!("{LIFE_COLUMNS} WHERE generation = ?");
        self.rows(&sql, vec![int(generation.0)])?.into_iter().next().map(life_of).transpose()
    }

    fn extents(&self, keys: Range<Key>, limit: u32) -> Result<Vec<ExtentRow>, LogError> {
        let params = vec![int(keys.start.0), int(keys.end.0), int(u64::from(limit))];
        self.rows(&self.statements().extents, params)?.into_iter().map(extent_of).collect()
    }

    fn last_extent(&self, keys: Range<Key>) -> Result<Option<ExtentRow>, LogError> {
        let params = vec![int(keys.start.0), int(keys.end.0)];
        let rows = self.rows(&self.statements().last_extent, params)?;
        rows.into_iter().next().map(extent_of).transpose()
    }

    fn last_sealed(&self) -> Result<Option<ExtentRow>, LogError> {
        if !self.sealed.get() {
            return Ok(None);
        }
        let sql = "SELECT start, length(bytes), head FROM sealed ORDER BY start DESC LIMIT 1";
        self.rows(sql, vec![])?.into_iter().next().map(extent_of).transpose()
    }

    fn read(&self, keys: Range<Key>, framing: Framing) -> Result<D::Bytes, LogError> {
        let wanted = keys.end.0.saturating_sub(keys.start.0);
        if wanted == 0 {
            return Ok(D::Bytes::from_vec(Vec::new()));
        }
        let params = vec![int(keys.start.0), int(keys.end.0)];
        if framing == Framing::Raw && wanted >= WHOLE_ROW_BYTES_MIN {
            let params = vec![int(keys.start.0), int(wanted)];
            if let Some(row) = self.rows(&self.statements().whole, params)?.into_iter().next() {
                return Columns::new(row, "extents").blob();
            }
        }
        let bytes = if wanted > GLUE_BYTES_MAX {
            let rows = self.rows(&self.statements().parts, params)?;
            glue(rows, wanted, framing)?
        } else {
            let sql = match framing {
                Framing::Raw => &self.statements().read_raw,
                Framing::JsonArray => &self.statements().read_json,
            };
            let row = self.rows(sql, params)?.into_iter().next().unwrap_or_default();
            Columns::new(row, "extents").blob()?
        };
        if bytes.len() == wanted {
            return Ok(bytes);
        }
        let what = format!("extents {}..{} hold {} bytes", keys.start.0, keys.end.0, bytes.len());
        Err(LogError::Corrupt(what))
    }

    fn segments(&self, keys: Range<Key>, limit: u32) -> Result<Vec<SegmentRow>, LogError> {
        let sql = format!("{SEGMENT_COLUMNS} LIMIT ?");
        let params = vec![int(keys.start.0), int(keys.end.0), int(u64::from(limit))];
        self.rows(&sql, params)?.into_iter().map(segment_of).collect()
    }

    fn last_segment(&self, keys: Range<Key>) -> Result<Option<SegmentRow>, LogError> {
        let sql = format!("{SEGMENT_COLUMNS} DESC LIMIT 1");
        let rows = self.rows(&sql, vec![int(keys.start.0), int(keys.end.0)])?;
        rows.into_iter().next().map(segment_of).transpose()
    }

    fn segment_names(&self, keys: Range<Key>, limit: u32) -> Result<Vec<(String, bool)>, LogError> {
        let sql = "SELECT name, own FROM segments WHERE start >= ? AND start < ? \
                   ORDER BY start LIMIT ?";
        let params = vec![int(keys.start.0), int(keys.end.0), int(u64::from(limit))];
        let name_of = |row| {
            let mut columns = Columns::new(row, "segments");
            Ok((columns.text()?, columns.int()? != 0))
        };
        self.rows(sql, params)?.into_iter().map(name_of).collect()
    }

    fn rotation(&self, generation: Generation) -> Result<Option<RotationRow>, LogError> {
        let sql = "SELECT generation, attempt, name, start, until FROM rotations \
                   WHERE generation = ?";
        let rows = self.rows(sql, vec![int(generation.0)])?;
        rows.into_iter().next().map(rotation_of).transpose()
    }

    fn markers(&self, limit: u32) -> Result<Vec<Marker>, LogError> {
        let sql = "SELECT due, name, attempts FROM markers ORDER BY due, name LIMIT ?";
        let marker_of = |row| {
            let mut columns = Columns::new(row, "markers");
            let due = UnixMillis(columns.int()?);
            let name = columns.text()?;
            let attempts = u32::try_from(columns.int()?).unwrap_or(u32::MAX);
            Ok(Marker { due, name, attempts })
        };
        self.rows(sql, vec![int(u64::from(limit))])?.into_iter().map(marker_of).collect()
    }

    fn producer(
        &self,
        generation: Generation,
        id: &ProducerId,
    ) -> Result<Option<ProducerState>, LogError> {
        let sql = "SELECT epoch, seq FROM producers WHERE generation = ? AND id = ?";
        let rows = self.rows(sql, vec![int(generation.0), text(id.as_str())])?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let mut columns = Columns::new(row, "producers");
        let epoch = Epoch(columns.int()?);
        Ok(Some(ProducerState { epoch, seq: Seq(columns.int()?) }))
    }

    fn has_producers(&self, generation: Generation) -> Result<bool, LogError> {
        let sql = "SELECT 1 FROM producers WHERE generation = ? LIMIT 1";
        Ok(!self.rows(sql, vec![int(generation.0)])?.is_empty())
    }

    fn link(&self, life: Generation, link: &SourceLife) -> Result<Option<LinkState>, LogError> {
        let sql = "SELECT epoch, next FROM links WHERE life = ? AND source = ? AND generation = ?";
        let params = vec![int(life.0), text(&link.source), int(link.generation.0)];
        let Some(row) = self.rows(sql, params)?.into_iter().next() else { return Ok(None) };
        let mut columns = Columns::new(row, "links");
        let epoch = SubscriptionEpoch(columns.int()?);
        Ok(Some(LinkState { epoch, next: columns.optional_int()?.map(Position) }))
    }

    fn has_links(&self, life: Generation) -> Result<bool, LogError> {
        let sql = "SELECT 1 FROM links WHERE life = ? LIMIT 1";
        Ok(!self.rows(sql, vec![int(life.0)])?.is_empty())
    }

    fn shards(&self, limit: u32) -> Result<Vec<(Generation, ShardId)>, LogError> {
        let sql = "SELECT generation, shard FROM shards ORDER BY generation, shard LIMIT ?";
        let rows = self.rows(sql, vec![int(u64::from(limit))])?;
        rows.into_iter()
            .map(|row| {
                let mut columns = Columns::new(row, "shards");
                let generation = Generation(columns.int()?);
                let shard = u32::try_from(columns.int()?).map_err(|_| columns.damaged())?;
                Ok((generation, ShardId(shard)))
            })
            .collect()
    }

    fn fork(&self, id: &ForkId) -> Result<Option<ForkRow>, LogError> {
        let sql = "SELECT source, at FROM forks WHERE child = ? AND generation = ?";
        let rows = self.rows(sql, vec![text(&id.child), int(id.generation.0)])?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let mut columns = Columns::new(row, "forks");
        Ok(Some(match (columns.optional_int()?, columns.optional_int()?) {
            (Some(source), Some(at)) => {
                ForkRow::Referenced { source: Generation(source), at: Position(at) }
            }
            _ => ForkRow::Refused,
        }))
    }

    fn forks_of(&self, source: Generation, limit: u32) -> Result<u32, LogError> {
        let sql = "SELECT 1 FROM forks WHERE source = ? LIMIT ?";
        let rows = self.rows(sql, vec![int(source.0), int(u64::from(limit))])?;
        Ok(u32::try_from(rows.len()).unwrap_or(limit))
    }

    fn counts(&self, life: Generation, keys: Range<Key>, limit: u32) -> Result<Counts, LogError> {
        let sealed = if self.sealed.get() { COUNT_OF_SEALED } else { "0" };
        let sql = COUNTS.replace("{sealed}", sealed);
        let params = vec![int(keys.start.0), int(keys.end.0), int(life.0), int(u64::from(limit))];
        let Some(row) = self.rows(&sql, params)?.into_iter().next() else {
            return Ok(Counts::default());
        };
        let mut columns = Columns::new(row, "extents");
        Ok(Counts {
            extents: columns.int()?,
            segments: columns.int()?,
            producers: columns.int()?,
            forks: columns.int()?,
        })
    }

    fn highest_fork(&self, source: Generation) -> Result<Option<Position>, LogError> {
        let sql = "SELECT max(at) FROM forks WHERE source = ?";
        let Some(row) = self.rows(sql, vec![int(source.0)])?.into_iter().next() else {
            return Ok(None);
        };
        Ok(Columns::new(row, "forks").optional_int()?.map(Position))
    }

    fn releases(&self, limit: u32) -> Result<Vec<Release>, LogError> {
        let sql = "SELECT generation, source, attempts FROM releases ORDER BY generation LIMIT ?";
        let rows = self.rows(sql, vec![int(u64::from(limit))])?;
        rows.into_iter()
            .map(|row| {
                let mut columns = Columns::new(row, "releases");
                let generation = Generation(columns.int()?);
                let source = columns.text()?;
                let attempts = u32::try_from(columns.int()?).unwrap_or(u32::MAX);
                Ok(Release { generation, source, attempts })
            })
            .collect()
    }

    fn duties(&self) -> Result<Vec<(Duty, UnixMillis)>, LogError> {
        let rows = self.rows("SELECT kind, due FROM duties ORDER BY kind", vec![])?;
        rows.into_iter()
            .map(|row| {
                let mut columns = Columns::new(row, "duties");
                let kind = i64::try_from(columns.int()?).ok().and_then(Duty::from_code);
                let due = UnixMillis(columns.int()?);
                kind.map(|kind| (kind, due)).ok_or_else(|| columns.damaged())
            })
            .collect()
    }
}

fn glue<B: Blob>(rows: Vec<Row<B>>, wanted: u64, framing: Framing) -> Result<B, LogError> {
    let parts: Result<Vec<B>, LogError> =
        rows.into_iter().map(|row| Columns::new(row, "extents").blob()).collect();
    let whole = B::concat(&parts?);
    if framing == Framing::Raw || whole.len() != wanted {
        return Ok(whole);
    }
    let messages = whole.slice(0..wanted.saturating_sub(2));
    Ok(B::concat(&[B::from_vec(b"[".to_vec()), messages, B::from_vec(b"]".to_vec())]))
}
