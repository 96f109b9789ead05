//! Durable Object SQLite as the engine's [`Database`], and its bytes as JavaScript handles.

use std::ops::Range;

use engine::log::sql::{Database, Row, Value};
use engine::log::{Blob, LogError};
use js_sys::{Array, Uint8Array};
use protocol::time::UnixMillis;
use wasm_bindgen::{JsCast, JsValue};

use crate::js::{Sql, Storage, message};

/// Bytes in JavaScript's memory. Slicing shares them; a body goes from the request to SQLite, and
/// from SQLite to the response, without entering wasm.
#[derive(Clone, Debug)]
pub struct JsBytes(Uint8Array);

impl JsBytes {
    /// Wraps an array without copying it.
    pub fn new(array: Uint8Array) -> Self {
        Self(array)
    }

    /// The array.
    pub fn array(&self) -> &Uint8Array {
        &self.0
    }
}

fn index(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Blob for JsBytes {
    fn from_vec(bytes: Vec<u8>) -> Self {
        Self(Uint8Array::from(bytes.as_slice()))
    }

    fn len(&self) -> u64 {
        u64::from(self.0.length())
    }

    fn slice(&self, range: Range<u64>) -> Self {
        Self(self.0.subarray(index(range.start), index(range.end)))
    }

    fn concat(parts: &[Self]) -> Self {
        let length = parts.iter().map(|part| part.0.length()).sum();
        let whole = Uint8Array::new_with_length(length);
        let mut at = 0;
        for part in parts {
            whole.set(&part.0, at);
            at += part.0.length();
        }
        Self(whole)
    }

    fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// The SQLite database of one object.
pub struct ObjectDatabase {
    storage: Storage,
    sql: Sql,
}

impl ObjectDatabase {
    /// The database behind `ctx.storage`.
    pub fn new(storage: Storage) -> Self {
        let sql = storage.sql();
        Self { storage, sql }
    }
}

fn failed(error: JsValue) -> LogError {
    LogError::Failed(message(&error))
}

fn array_of(params: Vec<Value<JsBytes>>) -> Array {
    let array = Array::new_with_length(index(params.len() as u64));
    for (at, param) in (0..).zip(params) {
        let value = match param {
            Value::Null => JsValue::NULL,
            Value::Integer(value) => JsValue::from_f64(value as f64),
            Value::Text(value) => JsValue::from_str(&value),
            Value::Blob(value) => value.0.into(),
        };
        array.set(at, value);
    }
    array
}

fn value_of(value: JsValue) -> Result<Value<JsBytes>, LogError> {
    if value.is_null() || value.is_undefined() {
        return Ok(Value::Null);
    }
    if let Some(number) = value.as_f64() {
        return Ok(Value::Integer(number as i64));
    }
    if let Some(text) = value.as_string() {
        return Ok(Value::Text(text));
    }
    match value.dyn_into::<js_sys::ArrayBuffer>() {
        Ok(buffer) => Ok(Value::Blob(JsBytes(Uint8Array::new(&buffer)))),
        Err(other) => Err(LogError::Corrupt(format!("an unexpected SQL value: {other:?}"))),
    }
}

impl Database for ObjectDatabase {
    type Bytes = JsBytes;

    fn execute(&mut self, sql: &str, params: Vec<Value<JsBytes>>) -> Result<(), LogError> {
        self.sql.exec(sql, &array_of(params)).map(|_| ()).map_err(failed)
    }

    fn query(&self, sql: &str, params: Vec<Value<JsBytes>>) -> Result<Vec<Row<JsBytes>>, LogError> {
        let cursor = self.sql.exec(sql, &array_of(params)).map_err(failed)?;
        let rows = cursor.raw().and_then(|rows| rows.to_array()).map_err(failed)?;
        rows.iter().map(|row| Array::from(&row).iter().map(value_of).collect()).collect()
    }

    fn transaction(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let storage = self.storage.clone();
        let mut body = Some(body);
        let mut outcome = Ok(());
        let committed = storage.transaction_sync(&mut || {
            outcome = body.take().map_or(Ok(()), |body| body(self));
            // A thrown error is what rolls the transaction back.
            match &outcome {
                Ok(()) => Ok(JsValue::UNDEFINED),
                Err(error) => Err(JsValue::from_str(&error.to_string())),
            }
        });
        outcome.and(committed.map(|_| ()).map_err(failed))
    }

    fn set_alarm(&mut self, at: UnixMillis) -> Result<(), LogError> {
        self.storage.set_alarm(at.0 as f64).map(|_| ()).map_err(failed)
    }
}
