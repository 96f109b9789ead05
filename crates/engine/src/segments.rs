//! `Segments`: the contract between the service and the object store.
//!
//! # The contract
//! - **Write-once**: a name is stored once. Storing the same object again is [`Outcome::Done`] and
//!   changes nothing; storing another under the same name is [`Outcome::Failed`].
//! - **Honest outcomes**: `Done` means stored, or deleted, and visible to everybody; `Failed`
//!   means that nothing happened and nothing will; whatever lies between is `Unknown`.
//! - **Strongly consistent**: what a `Done` has stored or deleted, every later call sees so.
//! - **Idempotent deletes**: deleting what is not there is `Done`.
//! - **Ranges**: a range past the object's end is cut at its end; the caller checks the bytes.
//!
//! The suite in [`suite`] states the contract as tests; it runs on every implementation.
//! Decorators: [`Retrying`] asks again, [`Faulty`] fails on command.

use std::future::Future;
use std::ops::Range;

use crate::log::Blob;

mod faulty;
mod memory;
mod retrying;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use faulty::{Fault, Faults, Faulty};
pub use memory::MemorySegments;
pub use retrying::{Pause, Retrying};

/// How a change of the store ended. With the store's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done,
    /// It did not happen and will not.
    Failed(String),
    /// It may have happened, or may happen yet.
    Unknown(String),
}

/// The store did not answer a question. With its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the object store did not answer: {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// What tells one object from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Number of bytes.
    pub size: u64,
    /// See [`crate::sums::sum_of`].
    pub sum: u32,
}

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Number of bytes.
    pub size: u64,
}

/// The object store. See the module's documentation for the contract.
pub trait Segments {
    /// Representation of bytes.
    type Bytes: Blob;

    /// Stores an object that consists of `parts`, one after the other.
    fn put(
        &self,
        name: &str,
        parts: Vec<Self::Bytes>,
        stored: Stored,
    ) -> impl Future<Output = Outcome>;

    /// What is stored under a name, if anything is.
    fn head(&self, name: &str) -> impl Future<Output = Result<Option<Stored>, Unavailable>>;

    /// Bytes of an object; `None` when there is no such object.
    fn get(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Option<Self::Bytes>, Unavailable>>;

    /// Deletes objects, at most [`DELETE_MAX`].
    fn delete(&self, names: &[String]) -> impl Future<Output = Outcome>;

    /// Objects whose names begin with `prefix` and come after `after`, in the order of their
    /// names, at most `limit`. Fewer do not mean that there are no more: none do.
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Listed>, Unavailable>>;
}

/// Objects that one call may delete: the platform's limit.
pub const DELETE_MAX: usize = 1_000;
