//! The tables of one object: made by the first commit, changed in transactions, read row by row.
//!
//! Subscription objects and session objects share this; each has its own schema and statements.
//!
//! **Invariants.** Opening and reading write nothing. A commit of one statement needs no transaction
//! around it; a commit without writes is none.
//!
//! **Error semantics.** Those of [`Database`]; a row that does not decode is [`LogError::Corrupt`] and
//! names its table.
//!
//! **What stays out.** What the rows mean.

use crate::log::LogError;
use crate::log::sql::{Database, Row, Value};

/// The tables that an object has.
pub(crate) struct Schema {
    /// One statement for each.
    pub(crate) create: &'static [&'static str],
    /// The last one's name: when it exists, all do.
    pub(crate) last: &'static str,
}

/// Tables on a database of which nobody else writes them.
pub(crate) struct Tables<D> {
    database: D,
    schema: &'static Schema,
    /// Whether the tables exist.
    ready: bool,
}

impl<D: Database> Tables<D> {
    /// Opens the tables; reads nothing but whether they exist.
    pub(crate) fn open(database: D, schema: &'static Schema) -> Result<Self, LogError> {
        let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?";
        let ready = !database.query(sql, vec![text(schema.last)])?.is_empty();
        Ok(Self { database, schema, ready })
    }

    pub(crate) fn database(&self) -> &D {
        &self.database
    }

    /// Stores all writes, in order, or none.
    pub(crate) fn commit<W>(
        &mut self,
        writes: Vec<W>,
        store: impl Fn(&mut D, W) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        if writes.is_empty() {
            return Ok(());
        }
        let ready = self.ready;
        if ready && writes.len() == 1 {
            return writes.into_iter().try_for_each(|write| store(&mut self.database, write));
        }
        let schema = self.schema;
        self.database.transaction(|database| {
            if !ready {
                schema.create.iter().try_for_each(|sql| database.execute(sql, vec![]))?;
            }
            writes.into_iter().try_for_each(|write| store(database, write))
        })?;
        self.ready = true;
        Ok(())
    }

    /// Rows of `table` that a query returns, decoded by `row_of`; `None` from it: damaged.
    pub(crate) fn rows<T>(
        &self,
        table: &'static str,
        sql: &str,
        params: Vec<Value<D::Bytes>>,
        row_of: impl Fn(&mut Fields<D::Bytes>) -> Option<T>,
    ) -> Result<Vec<T>, LogError> {
        if !self.ready {
            return Ok(Vec::new());
        }
        let rows = self.database.query(sql, params)?.into_iter();
        rows.map(|row| {
            let damaged = || LogError::Corrupt(format!("a row of table {table} does not decode"));
            row_of(&mut Fields(row.into_iter())).ok_or_else(damaged)
        })
        .collect()
    }
}

/// Takes the columns of a row from the left. Each method returns `None` when the next column is of
/// another type.
pub(crate) struct Fields<B>(<Row<B> as IntoIterator>::IntoIter);

impl<B> Fields<B> {
    /// A number that may be NULL.
    pub(crate) fn optional_int(&mut self) -> Option<Option<u64>> {
        match self.0.next()? {
            Value::Integer(value) => u64::try_from(value).ok().map(Some),
            Value::Null => Some(None),
            Value::Text(_) | Value::Blob(_) => None,
        }
    }

    pub(crate) fn int(&mut self) -> Option<u64> {
        self.optional_int()?
    }

    /// A number of at most 32 bits that may be NULL.
    pub(crate) fn optional_small(&mut self) -> Option<Option<u32>> {
        self.optional_int()?.map(u32::try_from).transpose().ok()
    }

    /// A number of at most 32 bits.
    pub(crate) fn small(&mut self) -> Option<u32> {
        self.optional_small()?
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.int()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn optional_text(&mut self) -> Option<Option<String>> {
        match self.0.next()? {
            Value::Text(value) => Some(Some(value)),
            Value::Null => Some(None),
            Value::Integer(_) | Value::Blob(_) => None,
        }
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        self.optional_text()?
    }
}

/// A number, exact to 2^53.
pub(crate) fn int<B>(value: u64) -> Value<B> {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

pub(crate) fn optional_int<B>(value: Option<u64>) -> Value<B> {
    value.map_or(Value::Null, int)
}

/// A number of at most 32 bits.
pub(crate) fn small<B>(value: u32) -> Value<B> {
    int(u64::from(value))
}

pub(crate) fn text<B>(value: &str) -> Value<B> {
    Value::Text(value.to_owned())
}
