//! The engine's contract suites on the platform's storage. Only of the crate `contract`, which is
//! never deployed: a case that fails panics.

use engine::fanout::ledger::sql::SqlLedger;
use engine::fanout::roster::sql::SqlRoster;
use engine::fanout::{ledger, roster};
use engine::log::LogError;
use engine::log::sql::{Database, SqlLog, Value};
use wasm_bindgen::{JsCast, JsValue};
use worker::{Env, State};

use crate::js::Storage;
use crate::object::ObjectDatabase;
use crate::store::store;

/// Runs the suite of `Log` on the object's SQLite, which it wipes before every case.
pub fn log(state: &State) {
    engine::log::suite::run(|| has(wiped(state).and_then(SqlLog::open)));
}

/// Runs the suite of `Roster` on the object's SQLite, which it wipes before every case.
pub fn rosters(state: &State) {
    let fresh = || has(wiped(state).and_then(SqlRoster::open));
    roster::suite::run(fresh);
    roster::suite::failed_commits_store_nothing(fresh(), |is_broken| {
        obstruct(state, "rooms", is_broken)
    });
}

/// Runs the suite of `Ledger` on the object's SQLite, which it wipes before every case.
pub fn ledgers(state: &State) {
    let fresh = || has(wiped(state).and_then(SqlLedger::open));
    ledger::suite::run(fresh);
    ledger::suite::failed_commits_store_nothing(fresh(), |is_broken| {
        obstruct(state, "subscriptions", is_broken);
    });
}

fn database(state: &State) -> ObjectDatabase {
    let storage: Storage = JsValue::from(state.storage().as_raw()).unchecked_into();
    ObjectDatabase::new(storage)
}

/// The object's database without a table.
fn wiped(state: &State) -> Result<ObjectDatabase, LogError> {
    let mut database = database(state);
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' \
                  ESCAPE '\\'";
    for row in database.query(tables, vec![])? {
        if let Some(Value::Text(name)) = row.into_iter().next() {
            database.execute(&format!("DROP TABLE \"{name}\""), vec![])?;
        }
    }
    Ok(database)
}

/// A table that is in the way of the schema, or is so no longer.
fn obstruct(state: &State, table: &str, is_there: bool) {
    let sql =
        if is_there { format!("CREATE TABLE {table} (x)") } else { format!("DROP TABLE {table}") };
    has(database(state).execute(&sql, vec![]));
}

#[allow(clippy::panic, reason = "a contract suite fails by panicking")]
fn has<T>(result: Result<T, LogError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs the suite of `Segments` on the deployment's bucket, which has to be empty.
#[allow(clippy::panic, reason = "a contract suite fails by panicking")]
pub async fn segments(env: &Env) {
    let store = store(env).unwrap_or_else(|error| panic!("{error}"));
    engine::segments::suite::run(&store, "contract").await;
}
