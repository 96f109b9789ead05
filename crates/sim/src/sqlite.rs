//! The engine's [`Database`] on the real SQLite library, in memory or in a file.
//!
//! It runs the very statements that the stream object runs on Durable Object SQLite.

use std::cell::Cell;
use std::rc::Rc;

use engine::log::LogError;
use engine::log::sql::{Database, Row, SqlLog, Value};
use protocol::time::UnixMillis;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

/// A connection and the alarm that the platform would keep beside it. Clones share both: they
/// are what successive instances of one object see.
#[derive(Clone)]
pub struct NativeDatabase {
    connection: Rc<Connection>,
    alarm: Rc<Cell<Option<UnixMillis>>>,
}

impl NativeDatabase {
    /// A fresh database in memory.
    ///
    /// # Errors
    /// [`LogError::Failed`] with SQLite's words.
    pub fn in_memory() -> Result<Self, LogError> {
        let connection = Connection::open_in_memory().map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection: Rc::new(connection), alarm: Rc::default() })
    }

    /// When the alarm goes off.
    #[must_use]
    pub fn alarm(&self) -> Option<UnixMillis> {
        self.alarm.get()
    }

    /// Takes the alarm, as the platform does before it calls the handler.
    pub fn take_alarm(&self) -> Option<UnixMillis> {
        self.alarm.take()
    }
}

/// A fresh log on a fresh database in memory.
///
/// # Errors
/// [`LogError::Failed`] with SQLite's words.
pub fn log_in_memory() -> Result<SqlLog<NativeDatabase>, LogError> {
    SqlLog::open(NativeDatabase::in_memory()?)
}

fn failed(error: rusqlite::Error) -> LogError {
    LogError::Failed(error.to_string())
}

struct Param(Value<Vec<u8>>);

impl ToSql for Param {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.0 {
            Value::Null => ValueRef::Null,
            // The platform binds JavaScript numbers, which arrive as REAL.
            Value::Integer(value) => ValueRef::Real(*value as f64),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
            Value::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

fn value_of(value: ValueRef<'_>) -> Result<Value<Vec<u8>>, LogError> {
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(value) => Ok(Value::Integer(value)),
        ValueRef::Real(value) => Ok(Value::Integer(value as i64)),
        ValueRef::Text(value) => match std::str::from_utf8(value) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(_) => Err(LogError::Corrupt("text that is not UTF-8".into())),
        },
        ValueRef::Blob(value) => Ok(Value::Blob(value.to_vec())),
    }
}

impl Database for NativeDatabase {
    type Bytes = Vec<u8>;

    fn execute(&mut self, sql: &str, params: Vec<Value<Vec<u8>>>) -> Result<(), LogError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let params = params_from_iter(params.into_iter().map(Param));
        statement.execute(params).map(|_| ()).map_err(failed)
    }

    fn query(&self, sql: &str, params: Vec<Value<Vec<u8>>>) -> Result<Vec<Row<Vec<u8>>>, LogError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let columns = statement.column_count();
        let params = params_from_iter(params.into_iter().map(Param));
        let mut rows = statement.query(params).map_err(failed)?;
        let mut result = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let values = (0..columns).map(|at| value_of(row.get_ref(at).map_err(failed)?));
            result.push(values.collect::<Result<_, _>>()?);
        }
        Ok(result)
    }

    fn transaction(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let alarm = self.alarm.get();
        self.connection.execute_batch("BEGIN").map_err(failed)?;
        match body(self) {
            Ok(()) => self.connection.execute_batch("COMMIT").map_err(failed),
            Err(error) => {
                // The platform's alarm belongs to the transaction.
                self.alarm.set(alarm);
                self.connection.execute_batch("ROLLBACK").map_err(failed)?;
                Err(error)
            }
        }
    }

    fn set_alarm(&mut self, at: UnixMillis) -> Result<(), LogError> {
        self.alarm.set(Some(at));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_keeps_the_contract() {
        engine::log::suite::run(|| log_in_memory().unwrap());
    }

    /// The rows are spelled out: what is on disk has to be read as long as there is such a disk.
    #[test]
    fn lives_are_read_as_they_were_and_are_written() {
        use engine::log::{Log, Write};
        use protocol::offset::Generation;
        let mut log = log_in_memory().unwrap();
        log.commit(vec![Write::DropLife(Generation(1))]).unwrap();
        let row = |generation: u64, phase: u64| {
            format!(
                "INSERT INTO lives (generation, base, phase, content_type, ttl_s, expires_at, \
                 touched, checkpoint, hot_ends, seq, closed, origin) VALUES ({generation}, 0, \
                 {phase}, 'text/plain', NULL, NULL, 5, 7, 3, '0042', x'01', NULL)"
            )
        };
        let connection = Rc::clone(&log.database().connection);
        // Before there were public streams, and since.
        connection.execute_batch(&row(1, 1)).unwrap();
        connection.execute_batch(&row(2, 17)).unwrap();
        let lives = log.lives(9).unwrap();
        let found: Vec<_> = lives.iter().map(|life| (life.generation.0, life.public)).collect();
        assert_eq!(found, [(2, true), (1, false)]);
        let all =
            "SELECT phase, content_type, touched, checkpoint, hot_ends, seq, closed FROM lives";
        let before = log.database().query(all, vec![]).unwrap();
        log.commit(lives.into_iter().map(Write::Life).collect()).unwrap();
        assert_eq!(log.database().query(all, vec![]).unwrap(), before);
    }
}
