//! [`Log`] over SQLite: one schema and one set of statements, run by the stream object on Durable
//! Object SQLite and by native tests on the real library.
//!
//! The difference between the two is behind [`Database`], which knows how to run a statement and
//! nothing about streams. The tables are drawn in `docs/data-layout.md`.
//!
//! - The schema is created by the first commit, so a request for a stream that does not exist
//!   writes nothing.
//! - `head` stands before `bytes`: reading headers does not touch the pages of large values.
//! - A range is glued together inside SQLite and leaves it as one value.
//! - A commit of one statement needs no transaction around it.

use std::cell::Cell;
use std::ops::Range;

use protocol::content_type::ContentType;
use protocol::headers::StreamSeq;
use protocol::lifetime::Lifetime;
use protocol::limits::ROW_BYTES_MAX;
use protocol::offset::{Generation, Position};
use protocol::producer::{Epoch, ProducerId, Seq};
use protocol::time::UnixMillis;

use super::{
    Blob, Duty, ExtentRow, ForkId, ForkRow, Framing, Key, Log, LogError, ProducerState, Release,
    Write,
};
use crate::life::{Closed, Life, Origin, Phase, Tombstone};

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

const SCHEMA: [&str; 8] = [
    "CREATE TABLE tombstone (id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, \
     next_base INTEGER NOT NULL)",
    "CREATE TABLE lives (generation INTEGER PRIMARY KEY, base INTEGER NOT NULL, \
     phase INTEGER NOT NULL, content_type TEXT NOT NULL, ttl_s INTEGER, expires_at INTEGER, \
     touched INTEGER NOT NULL, checkpoint INTEGER NOT NULL, seq TEXT, closed BLOB NOT NULL, \
     origin BLOB)",
    "CREATE TABLE extents (start INTEGER PRIMARY KEY, head BLOB NOT NULL, bytes BLOB NOT NULL)",
    "CREATE TABLE producers (generation INTEGER NOT NULL, id TEXT NOT NULL, \
     epoch INTEGER NOT NULL, seq INTEGER NOT NULL, as_of INTEGER NOT NULL, \
     PRIMARY KEY (generation, id)) WITHOUT ROWID",
    "CREATE TABLE forks (child TEXT NOT NULL, generation INTEGER NOT NULL, source INTEGER, \
     at INTEGER, PRIMARY KEY (child, generation)) WITHOUT ROWID",
    "CREATE INDEX forks_by_source ON forks (source) WHERE source IS NOT NULL",
    "CREATE TABLE releases (generation INTEGER PRIMARY KEY, source TEXT NOT NULL, \
     attempts INTEGER NOT NULL)",
    "CREATE TABLE duties (kind INTEGER PRIMARY KEY, due INTEGER NOT NULL)",
];

/// The part of each extent that lies in `[?1, ?2)`, in order.
const PARTS: &str = "SELECT CASE WHEN start < ?1 OR start + length(bytes) > ?2 \
     THEN substr(bytes, max(?1 - start, 0) + 1, min(start + length(bytes), ?2) - max(start, ?1)) \
     ELSE bytes END AS part FROM extents WHERE start < ?2 AND start >= \
     coalesce((SELECT max(start) FROM extents WHERE start <= ?1), ?1) ORDER BY start";

const READ_RAW: &str = "SELECT CAST(group_concat(part, '') AS BLOB) FROM (";
const READ_JSON: &str = "SELECT CAST('[' || CAST(substr(whole, 1, length(whole) - 2) AS TEXT) \
     || ']' AS BLOB) FROM (SELECT CAST(group_concat(part, '') AS BLOB) AS whole FROM (";

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
    read_raw: String,
    read_json: String,
}

impl<D: Database> SqlLog<D> {
    /// Opens the log; reads nothing but the list of tables.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the database does not answer.
    pub fn open(database: D) -> Result<Self, LogError> {
        let tables = database.query(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'duties'",
            vec![],
        )?;
        Ok(Self {
            database,
            ready: Cell::new(!tables.is_empty()),
            read_raw: format!("{READ_RAW}{PARTS})"),
            read_json: format!("{READ_JSON}{PARTS}))"),
        })
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

fn int<B>(value: u64) -> Value<B> {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn text<B>(value: &str) -> Value<B> {
    Value::Text(value.to_owned())
}

fn blob<B: Blob>(bytes: Vec<u8>) -> Value<B> {
    Value::Blob(B::from_vec(bytes))
}

/// Stores one write. Each arm is one statement, but for the tables that a row is spread over.
fn store<D: Database>(database: &mut D, write: Write<D::Bytes>) -> Result<(), LogError> {
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
        Write::EraseExtents { keys, rows } => database.execute(
            "DELETE FROM extents WHERE start IN (SELECT start FROM extents WHERE start >= ? \
             AND start < ? ORDER BY start LIMIT ?)",
            vec![int(keys.start.0), int(keys.end.0), int(u64::from(rows))],
        ),
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
        Write::Fork(..) | Write::DropFork(..) | Write::Release(..) | Write::DropRelease(..) => {
            store_relation(database, write)
        }
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
         touched, checkpoint, seq, closed, origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        vec![
            int(life.generation.0),
            int(life.base.0),
            Value::Integer(life.phase.code()),
            text(life.content_type.as_str()),
            ttl_s,
            expires_at,
            int(life.touched.0),
            int(life.checkpoint.0),
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

/// Takes the columns of a row from the left.
struct Columns<B> {
    values: std::vec::IntoIter<Value<B>>,
    table: &'static str,
}

impl<B: Blob> Columns<B> {
    fn new(row: Row<B>, table: &'static str) -> Self {
        Self { values: row.into_iter(), table }
    }

    fn damaged(&self) -> LogError {
        LogError::Corrupt(format!("a row of table {} does not decode", self.table))
    }

    fn optional_int(&mut self) -> Result<Option<u64>, LogError> {
        match self.values.next() {
            Some(Value::Integer(value)) => {
                u64::try_from(value).map(Some).map_err(|_| self.damaged())
            }
            Some(Value::Null) => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    fn int(&mut self) -> Result<u64, LogError> {
        self.optional_int()?.ok_or_else(|| self.damaged())
    }

    fn optional_text(&mut self) -> Result<Option<String>, LogError> {
        match self.values.next() {
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    fn text(&mut self) -> Result<String, LogError> {
        self.optional_text()?.ok_or_else(|| self.damaged())
    }

    fn optional_blob(&mut self) -> Result<Option<B>, LogError> {
        match self.values.next() {
            Some(Value::Blob(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    fn blob(&mut self) -> Result<B, LogError> {
        self.optional_blob()?.ok_or_else(|| self.damaged())
    }
}

fn life_of<B: Blob>(row: Row<B>) -> Result<Life, LogError> {
    let mut columns = Columns::new(row, "lives");
    let generation = Generation(columns.int()?);
    let base = Key(columns.int()?);
    let phase = i64::try_from(columns.int()?).ok().and_then(Phase::from_code);
    let content_type = ContentType::parse(&columns.text()?).ok();
    let lifetime = match (columns.optional_int()?, columns.optional_int()?) {
        (Some(seconds), _) => Lifetime::Ttl { seconds },
        (None, Some(at)) => Lifetime::ExpiresAt { at: UnixMillis(at) },
        (None, None) => Lifetime::Unlimited,
    };
    let touched = UnixMillis(columns.int()?);
    let checkpoint = Position(columns.int()?);
    let seq = columns.optional_text()?.map(|seq| StreamSeq::parse(&seq)).transpose();
    let closed = Closed::decode(&columns.blob()?.to_vec());
    let origin = match columns.optional_blob()? {
        None => None,
        Some(bytes) => Some(Origin::decode(&bytes.to_vec()).ok_or_else(|| columns.damaged())?),
    };
    let (Some(phase), Some(content_type), Ok(seq), Some(closed)) =
        (phase, content_type, seq, closed)
    else {
        return Err(columns.damaged());
    };
    Ok(Life {
        generation,
        base,
        phase,
        content_type,
        lifetime,
        touched,
        checkpoint,
        seq,
        closed,
        origin,
    })
}

fn extent_of<B: Blob>(row: Row<B>) -> Result<ExtentRow, LogError> {
    let mut columns = Columns::new(row, "extents");
    let key = Key(columns.int()?);
    let length = columns.int()?;
    Ok(ExtentRow { key, length, head: columns.blob()?.to_vec() })
}

impl<D: Database> Log for SqlLog<D> {
    type Bytes = D::Bytes;

    fn commit(&mut self, writes: Vec<Write<D::Bytes>>) -> Result<(), LogError> {
        let ready = self.ready.get();
        if ready && writes.len() == 1 {
            return writes.into_iter().try_for_each(|write| store(&mut self.database, write));
        }
        self.database.transaction(|database| {
            if !ready {
                SCHEMA.iter().try_for_each(|sql| database.execute(sql, vec![]))?;
            }
            writes.into_iter().try_for_each(|write| store(database, write))
        })?;
        self.ready.set(true);
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
        let sql = "SELECT generation, base, phase, content_type, ttl_s, expires_at, touched, \
                   checkpoint, seq, closed, origin FROM lives ORDER BY generation DESC LIMIT ?";
        self.rows(sql, vec![int(u64::from(limit))])?.into_iter().map(life_of).collect()
    }

    fn extents(&self, keys: Range<Key>, limit: u32) -> Result<Vec<ExtentRow>, LogError> {
        let sql = "SELECT start, length(bytes), head FROM extents WHERE start >= ? AND start < ? \
                   ORDER BY start LIMIT ?";
        let params = vec![int(keys.start.0), int(keys.end.0), int(u64::from(limit))];
        self.rows(sql, params)?.into_iter().map(extent_of).collect()
    }

    fn last_extent(&self, keys: Range<Key>) -> Result<Option<ExtentRow>, LogError> {
        let sql = "SELECT start, length(bytes), head FROM extents WHERE start >= ? AND start < ? \
                   ORDER BY start DESC LIMIT 1";
        let rows = self.rows(sql, vec![int(keys.start.0), int(keys.end.0)])?;
        rows.into_iter().next().map(extent_of).transpose()
    }

    fn read(&self, keys: Range<Key>, framing: Framing) -> Result<D::Bytes, LogError> {
        let wanted = keys.end.0.saturating_sub(keys.start.0);
        if wanted == 0 {
            return Ok(D::Bytes::from_vec(Vec::new()));
        }
        let params = vec![int(keys.start.0), int(keys.end.0)];
        if framing == Framing::Raw && wanted >= WHOLE_ROW_BYTES_MIN {
            let sql = "SELECT bytes FROM extents WHERE start = ? AND length(bytes) = ?";
            let params = vec![int(keys.start.0), int(wanted)];
            if let Some(row) = self.rows(sql, params)?.into_iter().next() {
                return Columns::new(row, "extents").blob();
            }
        }
        let bytes = if wanted > GLUE_BYTES_MAX {
            let rows = self.rows(PARTS, params)?;
            glue(rows, wanted, framing)?
        } else {
            let sql = match framing {
                Framing::Raw => &self.read_raw,
                Framing::JsonArray => &self.read_json,
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
