//! [`Ledger`] over SQLite: run by the session's object on Durable Object SQLite and by native tests on
//! the real library. The tables are drawn in `docs/data-layout.md`.
//!
//! - The schema is created by the first commit, so being asked about a session that does not exist
//!   writes nothing.
//! - Each write is one statement and one row.
//!
//! **Error semantics.** Those of [`Database`]; a row that does not decode is [`LogError::Corrupt`].
//!
//! **What stays out.** What a step means, and who takes it.

use protocol::fanout::SubscriptionEpoch;
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::{Begun, Ledger, LedgerWrite, Phase, SessionRow, Step, SubscriptionRow};
use crate::fanout::roster::sql::tables::{Fields, Schema, Tables, int, optional_int, small, text};
use crate::log::LogError;
use crate::log::sql::{Database, Value};

static SCHEMA: Schema = Schema {
    create: &[
        "CREATE TABLE session (id INTEGER PRIMARY KEY, phase INTEGER NOT NULL, \
         generation INTEGER NOT NULL, content_type TEXT NOT NULL, ttl_s INTEGER NOT NULL, \
         envelope INTEGER NOT NULL, epoch INTEGER NOT NULL, due INTEGER, \
         attempts INTEGER NOT NULL)",
        "CREATE TABLE subscriptions (generation INTEGER NOT NULL, source TEXT NOT NULL, \
         live INTEGER, step INTEGER NOT NULL, epoch INTEGER, since INTEGER, \
         first INTEGER, start TEXT, attempts INTEGER NOT NULL, due INTEGER, PRIMARY KEY (generation, source)) WITHOUT ROWID",
    ],
    last: "subscriptions",
};

/// A [`Ledger`] on a [`Database`].
pub struct SqlLedger<D> {
    tables: Tables<D>,
}

impl<D: Database> SqlLedger<D> {
    /// Opens the ledger; reads nothing but whether its tables exist.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the database does not answer.
    pub fn open(database: D) -> Result<Self, LogError> {
        Ok(Self { tables: Tables::open(database, &SCHEMA)? })
    }

    /// The database below, for what is not the ledger's business (its size, for one).
    pub fn database(&self) -> &D {
        self.tables.database()
    }
}

impl<D: Database> Ledger for SqlLedger<D> {
    fn commit(&mut self, writes: Vec<LedgerWrite>) -> Result<(), LogError> {
        self.tables.commit(writes, store)
    }

    fn session(&self) -> Result<Option<SessionRow>, LogError> {
        let sql = "SELECT phase, generation, content_type, ttl_s, envelope, epoch, due, attempts \
                   FROM session WHERE id = 1";
        Ok(self.tables.rows("session", sql, vec![], session_of)?.pop())
    }

    fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, LogError> {
        let sql = "SELECT generation, source, live, step, epoch, since, first, start, \
                   attempts, due FROM subscriptions ORDER BY generation, source";
        self.tables.rows("subscriptions", sql, vec![], subscription_of)
    }
}

/// Stores one write: one statement.
fn store<D: Database>(database: &mut D, write: LedgerWrite) -> Result<(), LogError> {
    match write {
        LedgerWrite::Session(row) => database.execute(
            "INSERT OR REPLACE INTO session (id, phase, generation, content_type, ttl_s, \
             envelope, epoch, due, attempts) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            vec![
                Value::Integer(row.phase.code()),
                int(row.generation.0),
                text(&row.content_type),
                int(row.ttl_seconds),
                int(u64::from(row.envelope)),
                int(row.epoch.0),
                optional_int(row.due.map(|due| due.0)),
                small(row.attempts),
            ],
        ),
        LedgerWrite::Subscription(row) => {
            let (step, epoch) = match row.step {
                Step::Settled => (SETTLED, Value::Null),
                Step::Joining(epoch) => (JOINING, int(epoch.0)),
                Step::Leaving(epoch) => (LEAVING, int(epoch.0)),
                Step::Undoing(epoch) => (UNDOING, int(epoch.0)),
            };
            let begun = row.begun.as_ref();
            database.execute(
                "INSERT OR REPLACE INTO subscriptions (generation, source, live, step, epoch, \
                 since, first, start, attempts, due) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                vec![
                    int(row.generation.0),
                    text(&row.source),
                    optional_int(row.live.map(|epoch| epoch.0)),
                    int(step),
                    epoch,
                    optional_int(begun.map(|begun| begun.since.0)),
                    optional_int(begun.map(|begun| begun.first.0)),
                    begun.map_or(Value::Null, |begun| text(&begun.from)),
                    small(row.attempts),
                    optional_int(row.due.map(|due| due.0)),
                ],
            )
        }
        LedgerWrite::DropSubscription { generation, source } => database.execute(
            "DELETE FROM subscriptions WHERE generation = ? AND source = ?",
            vec![int(generation.0), text(&source)],
        ),
        LedgerWrite::Alarm(at) => database.set_alarm(at),
    }
}

const SETTLED: u64 = 0;
const JOINING: u64 = 1;
const LEAVING: u64 = 2;
const UNDOING: u64 = 3;

fn session_of<B>(fields: &mut Fields<B>) -> Option<SessionRow> {
    Some(SessionRow {
        phase: i64::try_from(fields.int()?).ok().and_then(Phase::from_code)?,
        generation: Generation(fields.int()?),
        content_type: fields.text()?,
        ttl_seconds: fields.int()?,
        envelope: fields.flag()?,
        epoch: SubscriptionEpoch(fields.int()?),
        due: fields.optional_int()?.map(UnixMillis),
        attempts: fields.small()?,
    })
}

fn subscription_of<B>(fields: &mut Fields<B>) -> Option<SubscriptionRow> {
    Some(SubscriptionRow {
        generation: Generation(fields.int()?),
        source: fields.text()?,
        live: fields.optional_int()?.map(SubscriptionEpoch),
        step: match (fields.int()?, fields.optional_int()?.map(SubscriptionEpoch)) {
            (SETTLED, None) => Step::Settled,
            (JOINING, Some(epoch)) => Step::Joining(epoch),
            (LEAVING, Some(epoch)) => Step::Leaving(epoch),
            (UNDOING, Some(epoch)) => Step::Undoing(epoch),
            _ => return None,
        },
        begun: begun_of(fields)?,
        attempts: fields.small()?,
        due: fields.optional_int()?.map(UnixMillis),
    })
}

fn begun_of<B>(fields: &mut Fields<B>) -> Option<Option<Begun>> {
    let (since, first) = (fields.optional_int()?, fields.optional_int()?);
    match (since.map(SubscriptionEpoch), first.map(SubscriptionEpoch), fields.optional_text()?) {
        (Some(since), Some(first), Some(from)) => Some(Some(Begun { since, first, from })),
        (None, None, None) => Some(None),
        _ => None,
    }
}
