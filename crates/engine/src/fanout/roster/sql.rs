//! [`Roster`] over SQLite: run by the subscription object on Durable Object SQLite and by native tests
//! on the real library. The tables are drawn in `docs/data-layout.md`.
//!
//! - The schema is created by the first commit, so being asked about a source without subscribers
//!   writes nothing.
//! - Each write is one statement and one row: no table has a second index, and a table whose key is no
//!   integer is its key's tree.
//!
//! **Error semantics.** Those of [`Database`]; a row that does not decode is [`LogError::Corrupt`].
//!
//! **What stays out.** What a member's place means, and who decides it.

use protocol::fanout::{LifeState, ShardId, SubscriptionEpoch};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::{Entry, LifeRow, MemberRow, Place, Roster, RosterWrite};
use crate::fanout::breaker::Open;
use crate::log::LogError;
use crate::log::sql::{Database, Value};

pub(crate) mod tables;

use tables::{Fields, Schema, Tables, int, optional_int, small, text};

static SCHEMA: Schema = Schema {
    create: &[
        "CREATE TABLE source_lives (generation INTEGER PRIMARY KEY, cursor INTEGER NOT NULL, \
         up_to INTEGER NOT NULL, state INTEGER NOT NULL, due INTEGER, attempts INTEGER NOT NULL)",
        "CREATE TABLE members (source INTEGER NOT NULL, session TEXT NOT NULL, \
         generation INTEGER NOT NULL, epoch INTEGER NOT NULL, place INTEGER NOT NULL, \
         next INTEGER, attempts INTEGER, due INTEGER, PRIMARY KEY (source, session)) WITHOUT ROWID",
        "CREATE TABLE breaker (id INTEGER PRIMARY KEY, until INTEGER NOT NULL, \
         pause_ms INTEGER NOT NULL)",
        "CREATE TABLE directory (session TEXT PRIMARY KEY NOT NULL, epoch INTEGER NOT NULL, \
         shard INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE rooms (shard INTEGER PRIMARY KEY, members INTEGER NOT NULL)",
    ],
    last: "rooms",
};

/// A [`Roster`] on a [`Database`].
pub struct SqlRoster<D> {
    tables: Tables<D>,
}

impl<D: Database> SqlRoster<D> {
    /// Opens the roster; reads nothing but whether its tables exist.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the database does not answer.
    pub fn open(database: D) -> Result<Self, LogError> {
        Ok(Self { tables: Tables::open(database, &SCHEMA)? })
    }

    /// The database below, for what is not the roster's business (its size, for one).
    pub fn database(&self) -> &D {
        self.tables.database()
    }
}

impl<D: Database> Roster for SqlRoster<D> {
    fn commit(&mut self, writes: Vec<RosterWrite>) -> Result<(), LogError> {
        self.tables.commit(writes, store)
    }

    fn lives(&self) -> Result<Vec<LifeRow>, LogError> {
        let sql = "SELECT generation, cursor, up_to, state, due, attempts FROM source_lives \
                   ORDER BY generation";
        self.tables.rows("source_lives", sql, vec![], life_of)
    }

    fn members(&self) -> Result<Vec<MemberRow>, LogError> {
        let sql = "SELECT source, session, generation, epoch, place, next, attempts, due \
                   FROM members ORDER BY source, session";
        self.tables.rows("members", sql, vec![], member_of)
    }

    fn breaker(&self) -> Result<Option<Open>, LogError> {
        let sql = "SELECT until, pause_ms FROM breaker WHERE id = 1";
        let open_of = |fields: &mut Fields<_>| {
            Some(Open { until: UnixMillis(fields.int()?), pause_ms: fields.int()? })
        };
        Ok(self.tables.rows("breaker", sql, vec![], open_of)?.pop())
    }

    fn entry(&self, session: &str) -> Result<Option<Entry>, LogError> {
        let sql = "SELECT session, epoch, shard FROM directory WHERE session = ?";
        Ok(self.tables.rows("directory", sql, vec![text(session)], entry_of)?.pop())
    }

    fn entries(&self, after: &str, limit: u32) -> Result<Vec<Entry>, LogError> {
        let sql = "SELECT session, epoch, shard FROM directory WHERE session > ? \
                   ORDER BY session LIMIT ?";
        self.tables.rows("directory", sql, vec![text(after), small(limit)], entry_of)
    }

    fn rooms(&self) -> Result<Vec<(ShardId, u64)>, LogError> {
        let sql = "SELECT shard, members FROM rooms ORDER BY shard";
        let room_of = |fields: &mut Fields<_>| Some((ShardId(fields.small()?), fields.int()?));
        self.tables.rows("rooms", sql, vec![], room_of)
    }
}

/// Stores one write: one statement.
fn store<D: Database>(database: &mut D, write: RosterWrite) -> Result<(), LogError> {
    match write {
        RosterWrite::Life(row) => database.execute(
            "INSERT OR REPLACE INTO source_lives (generation, cursor, up_to, state, due, attempts) \
             VALUES (?, ?, ?, ?, ?, ?)",
            vec![
                int(row.generation.0),
                int(row.cursor.0),
                int(row.up_to.0),
                int(code_of_state(row.state)),
                optional_int(row.due.map(|due| due.0)),
                small(row.attempts),
            ],
        ),
        RosterWrite::DropLife(generation) => database
            .execute("DELETE FROM source_lives WHERE generation = ?", vec![int(generation.0)]),
        RosterWrite::Member(row) => store_member(database, &row),
        RosterWrite::DropMember { source, session } => database.execute(
            "DELETE FROM members WHERE source = ? AND session = ?",
            vec![int(source.0), text(&session)],
        ),
        RosterWrite::Breaker(Some(open)) => database.execute(
            "INSERT OR REPLACE INTO breaker (id, until, pause_ms) VALUES (1, ?, ?)",
            vec![int(open.until.0), int(open.pause_ms)],
        ),
        RosterWrite::Breaker(None) => database.execute("DELETE FROM breaker WHERE id = 1", vec![]),
        RosterWrite::Entry(entry) => database.execute(
            "INSERT OR REPLACE INTO directory (session, epoch, shard) VALUES (?, ?, ?)",
            vec![text(&entry.session), int(entry.epoch.0), small(entry.shard.0)],
        ),
        RosterWrite::DropEntry { session } => {
            database.execute("DELETE FROM directory WHERE session = ?", vec![text(&session)])
        }
        RosterWrite::Room { shard, members } => database.execute(
            "INSERT OR REPLACE INTO rooms (shard, members) VALUES (?, ?)",
            vec![small(shard.0), int(members)],
        ),
        RosterWrite::Alarm(at) => database.set_alarm(at),
    }
}

const IN_STEP: u64 = 0;
const OWN: u64 = 1;
const LEAVING: u64 = 2;
const LEAVING_ENDED: u64 = 3;

fn store_member<D: Database>(database: &mut D, row: &MemberRow) -> Result<(), LogError> {
    let (place, next, attempts, due) = match row.place {
        Place::InStep => (IN_STEP, Value::Null, Value::Null, Value::Null),
        Place::Own { next, attempts, due } => (OWN, int(next.0), small(attempts), int(due.0)),
        Place::Leaving { has_ended, attempts, due } => {
            let place = if has_ended { LEAVING_ENDED } else { LEAVING };
            (place, Value::Null, small(attempts), int(due.0))
        }
    };
    database.execute(
        "INSERT OR REPLACE INTO members (source, session, generation, epoch, place, next, \
         attempts, due) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        vec![
            int(row.source.0),
            text(&row.session),
            int(row.generation.0),
            int(row.epoch.0),
            int(place),
            next,
            attempts,
            due,
        ],
    )
}

fn life_of<B>(fields: &mut Fields<B>) -> Option<LifeRow> {
    Some(LifeRow {
        generation: Generation(fields.int()?),
        cursor: Position(fields.int()?),
        up_to: Position(fields.int()?),
        state: state_of_code(fields.int()?)?,
        due: fields.optional_int()?.map(UnixMillis),
        attempts: fields.small()?,
    })
}

fn member_of<B>(fields: &mut Fields<B>) -> Option<MemberRow> {
    Some(MemberRow {
        source: Generation(fields.int()?),
        session: fields.text()?,
        generation: Generation(fields.int()?),
        epoch: SubscriptionEpoch(fields.int()?),
        place: place_of(fields)?,
    })
}

fn place_of<B>(fields: &mut Fields<B>) -> Option<Place> {
    let place = fields.int()?;
    let next = fields.optional_int()?.map(Position);
    let attempts = fields.optional_small()?;
    let due = fields.optional_int()?.map(UnixMillis);
    match (place, next, attempts, due) {
        (IN_STEP, None, None, None) => Some(Place::InStep),
        (OWN, Some(next), Some(attempts), Some(due)) => Some(Place::Own { next, attempts, due }),
        (LEAVING | LEAVING_ENDED, None, Some(attempts), Some(due)) => {
            Some(Place::Leaving { has_ended: place == LEAVING_ENDED, attempts, due })
        }
        _ => None,
    }
}

fn entry_of<B>(fields: &mut Fields<B>) -> Option<Entry> {
    Some(Entry {
        session: fields.text()?,
        epoch: SubscriptionEpoch(fields.int()?),
        shard: ShardId(fields.small()?),
    })
}

fn code_of_state(state: LifeState) -> u64 {
    match state {
        LifeState::Live => 0,
        LifeState::Held => 1,
        LifeState::Lapsed => 2,
    }
}

fn state_of_code(code: u64) -> Option<LifeState> {
    let states = [LifeState::Live, LifeState::Held, LifeState::Lapsed];
    states.into_iter().find(|state| code_of_state(*state) == code)
}
