//! `Roster`: the contract between a subscription object and its storage, and the rows that it holds.
//!
//! # The contract
//! - **Atomic**: [`Roster::commit`] stores all of its writes or, when it returns an error, none.
//! - **Ordered**: what one commit stored is visible to every later read.
//! - **Durable before seen**: the platform holds outgoing messages until the commit is on disk.
//! - **Idempotent by key**: writing a row under an existing key replaces it; dropping what is not
//!   there is no error.
//! - **Bounded**: a read names its limit, or is of a table that the object bounds.

pub use protocol::fanout::Entry;
use protocol::fanout::{LifeState, ShardId, SubscriptionEpoch};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::breaker::Open;
use crate::log::LogError;

pub mod memory;
pub mod sql;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

/// A life of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifeRow {
    /// Which life.
    pub generation: Generation,
    /// Members in step have everything before.
    pub cursor: Position,
    /// The highest tail that the shard has promised to deliver.
    pub up_to: Position,
    /// How the life stands.
    pub state: LifeState,
    /// When the alarm sees to it that `cursor` reaches `up_to`.
    pub due: Option<UnixMillis>,
    /// Failed attempts to read the source, in a row.
    pub attempts: u32,
}

/// A session that one shard delivers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Id of the session.
    pub session: String,
    /// Generation of the source's life. One session may be a member for several lives.
    pub source: Generation,
    /// Generation of the session.
    pub generation: Generation,
    /// Which subscription.
    pub epoch: SubscriptionEpoch,
    /// What is to be done for it.
    pub place: Place,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has everything before the life's cursor, perhaps more.
    InStep,
    /// It has everything before a position of its own, perhaps more.
    Own {
        /// That position.
        next: Position,
        /// Failed deliveries in a row.
        attempts: u32,
        /// When the next one is tried.
        due: UnixMillis,
    },
    /// It gets nothing any more; others are still to be told.
    Leaving {
        /// Whether the session's object is to be told: the source's life is over.
        has_ended: bool,
        /// Failed attempts to tell them.
        attempts: u32,
        /// When the next one is made.
        due: UnixMillis,
    },
}

/// One row to store or drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterWrite {
    /// Stores a life.
    Life(LifeRow),
    /// Drops a life.
    DropLife(Generation),
    /// Stores a member.
    Member(MemberRow),
    /// Drops a member.
    DropMember {
        /// Life of the source.
        source: Generation,
        /// Id of the session.
        session: String,
    },
    /// Stores the breaker; `None`: it is closed.
    Breaker(Option<Open>),
    /// Stores an entry of the directory.
    Entry(Entry),
    /// Drops an entry of the directory.
    DropEntry {
        /// Id of the session.
        session: String,
    },
    /// Stores how many sessions a shard has.
    Room {
        /// Which shard.
        shard: ShardId,
        /// Entries that name it.
        members: u64,
    },
    /// Sets the object's alarm.
    Alarm(UnixMillis),
}

/// The storage of one subscription object. See the module's documentation for the contract.
pub trait Roster {
    /// Stores all writes, in order, or none.
    ///
    /// # Errors
    /// [`LogError::Failed`]; nothing was stored.
    fn commit(&mut self, writes: Vec<RosterWrite>) -> Result<(), LogError>;

    /// Every life, ascending.
    ///
    /// # Errors
    /// As all reads: [`LogError`] when the storage fails or a row does not decode.
    fn lives(&self) -> Result<Vec<LifeRow>, LogError>;

    /// Every member, by life and session.
    ///
    /// # Errors
    /// See [`Roster::lives`].
    fn members(&self) -> Result<Vec<MemberRow>, LogError>;

    /// The breaker, if it is open.
    ///
    /// # Errors
    /// See [`Roster::lives`].
    fn breaker(&self) -> Result<Option<Open>, LogError>;

    /// What the directory knows of a session.
    ///
    /// # Errors
    /// See [`Roster::lives`].
    fn entry(&self, session: &str) -> Result<Option<Entry>, LogError>;

    /// Entries behind a session's id, in the order of their ids, at most `limit`.
    ///
    /// # Errors
    /// See [`Roster::lives`].
    fn entries(&self, after: &str, limit: u32) -> Result<Vec<Entry>, LogError>;

    /// How many sessions each shard has, ascending.
    ///
    /// # Errors
    /// See [`Roster::lives`].
    fn rooms(&self) -> Result<Vec<(ShardId, u64)>, LogError>;
}
