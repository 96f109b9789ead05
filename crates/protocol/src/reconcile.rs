//! The object store compared with the logs, as operators get it: the JSON of
//! `GET /v1/{project}/reconcile`.
//!
//! **What stays out.** How anything is compared.

use serde::{Deserialize, Serialize};

/// What a log says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ObjectState {
    /// A segment of the stream.
    Referenced,
    /// An upload is under way.
    Intended,
    /// It waits to be deleted.
    Marked,
    /// Nothing knows of it.
    Orphaned,
}

/// An object of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoredObject {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// What the log of its stream says of it.
    pub state: ObjectState,
}

/// One page of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReconcileReport {
    /// The page's objects.
    pub objects: Vec<StoredObject>,
    /// Names that a stream references and the store has not.
    pub missing: Vec<String>,
    /// The `after` of the next page; `null` behind the last one.
    pub next: Option<String>,
}
