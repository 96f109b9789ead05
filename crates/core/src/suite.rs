//! The engine's contract suites on the platform's storage. Only of the crate `contract`, which is
//! never deployed: a case that fails panics.

use engine::log::sql::{Database, SqlLog, Value};
use wasm_bindgen::{JsCast, JsValue};
use worker::{Env, State};

use crate::js::Storage;
use crate::object::ObjectDatabase;
use crate::store::store;

/// Runs the suite of `Log` on the object's SQLite, which it wipes before every case.
#[allow(clippy::panic, reason = "a contract suite fails by panicking")]
pub fn log(state: &State) {
    let storage: Storage = JsValue::from(state.storage().as_raw()).unchecked_into();
    engine::log::suite::run(|| {
        let mut database = ObjectDatabase::new(storage.clone());
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' \
                      ESCAPE '\\'";
        let tables = database.query(tables, vec![]).unwrap_or_else(|error| panic!("{error}"));
        for row in tables {
            if let Some(Value::Text(name)) = row.into_iter().next() {
                let dropped = database.execute(&format!("DROP TABLE \"{name}\""), vec![]);
                dropped.unwrap_or_else(|error| panic!("{error}"));
            }
        }
        SqlLog::open(database).unwrap_or_else(|error| panic!("{error}"))
    });
}

/// Runs the suite of `Segments` on the deployment's bucket, which has to be empty.
#[allow(clippy::panic, reason = "a contract suite fails by panicking")]
pub async fn segments(env: &Env) {
    let store = store(env).unwrap_or_else(|error| panic!("{error}"));
    engine::segments::suite::run(&store, "contract").await;
}
