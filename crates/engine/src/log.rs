//! `Log`: the contract between the engine and the storage of one stream object.
//!
//! # The contract
//! - **Atomic**: [`Log::commit`] stores all of its writes or, when it returns an error, none.
//! - **Ordered**: what one commit stored is visible to every later read of the same log.
//! - **Durable before seen**: the platform holds outgoing messages until the commit is on disk;
//!   an implementation without that property must make `commit` wait for the disk.
//! - **Idempotent by key**: writing a row under an existing key replaces it; erasing what is not
//!   there is no error.
//! - **Bounded**: every read names its limit or a range of at most
//!   [`READ_RANGE_BYTES_MAX`] bytes.
//! - **Edge inputs**: an empty range reads as no bytes; a range that the extents do not cover is
//!   [`LogError::Corrupt`], never shorter bytes.
//!
//! The suite in [`suite`] states the contract as tests; it runs on every implementation.
//!
//! Keys are `base + position` of a life, below 2^53, so that they survive JavaScript numbers.

use std::ops::Range;

use protocol::fanout::{ShardId, SourceLife, SubscriptionEpoch};
use protocol::offset::{Generation, Position};
use protocol::producer::{Epoch, ProducerId, Seq};
use protocol::time::UnixMillis;

use crate::life::{Life, Tombstone};

pub mod memory;
pub mod sql;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

/// The most that one [`Log::read`] is asked for: a page, or one message of the largest body with
/// its rows' remainders.
pub const READ_RANGE_BYTES_MAX: u64 =
    protocol::limits::BODY_BYTES_MAX + 4 * protocol::limits::ROW_BYTES_MAX;

/// Key of a byte in the table of extents: the life's base plus the byte's position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// Bytes that the engine passes on and looks at only where it must: owned memory natively, a
/// handle to an `ArrayBuffer` inside a Durable Object.
pub trait Blob: Clone {
    /// Wraps owned bytes.
    fn from_vec(bytes: Vec<u8>) -> Self;
    /// Number of bytes.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes of `range`, without copying where the representation allows. A range past the
    /// end is cut at the end.
    fn slice(&self, range: Range<u64>) -> Self;
    /// One after the other.
    fn concat(parts: &[Self]) -> Self;
    /// A copy of the bytes for the engine to look at.
    fn to_vec(&self) -> Vec<u8>;
}

impl Blob for Vec<u8> {
    fn from_vec(bytes: Vec<u8>) -> Self {
        bytes
    }

    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn slice(&self, range: Range<u64>) -> Self {
        let clamp =
            |at: u64| usize::try_from(at).map_or(Vec::len(self), |at| at.min(Vec::len(self)));
        self.get(clamp(range.start)..clamp(range.end)).unwrap_or_default().to_owned()
    }

    fn concat(parts: &[Self]) -> Self {
        parts.concat()
    }

    fn to_vec(&self) -> Vec<u8> {
        self.clone()
    }
}

/// How [`Log::read`] dresses the bytes of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As stored.
    Raw,
    /// `[` + the range without its last two bytes + `]`: stored JSON messages end in `,\n`. The
    /// range must not be empty.
    JsonArray,
}

/// An extent without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentRow {
    /// Key of the first byte.
    pub key: Key,
    /// Number of bytes; zero only for a close without data.
    pub length: u64,
    /// The encoded [`crate::extent::Head`].
    pub head: Vec<u8>,
}

impl ExtentRow {
    /// Key after the last byte.
    #[must_use]
    pub fn end(&self) -> Key {
        Key(self.key.0.saturating_add(self.length))
    }
}

/// A segment: a sealed range of the log in the object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// Key of the first byte.
    pub key: Key,
    /// Bytes of the log that it holds, from the object's first byte on. A fork's last segment may
    /// hold fewer than the object has.
    pub length: u64,
    /// Name of the object.
    pub name: String,
    /// Whether the object was made by this life: then it is deleted with it.
    pub own: bool,
    /// Bytes of the object.
    pub size: u64,
    /// CRC-32C of each block of the object, see [`protocol::limits::SEGMENT_BLOCK_BYTES`].
    pub sums: Vec<u32>,
    /// Where appends end, counted from the segment's start, ascending; the last is `length`.
    pub ends: Vec<u64>,
}

impl SegmentRow {
    /// Key after the last byte.
    #[must_use]
    pub fn end(&self) -> Key {
        Key(self.key.0.saturating_add(self.length))
    }
}

/// A row of the table `rotations`: the upload that a life is making, or made last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRow {
    /// Generation of the life.
    pub generation: Generation,
    /// Uploads begun so far: part of their names, so that no name is used twice.
    pub attempt: u64,
    /// The intent, while there is one.
    pub intent: Option<Intent>,
}

/// An object that is being uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Name of the object.
    pub name: String,
    /// First position.
    pub from: Position,
    /// Position after the last byte.
    pub to: Position,
}

/// A row of the table `markers`: an object that nothing references any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker {
    /// When it may be deleted, or tried again.
    pub due: UnixMillis,
    /// Name of the object.
    pub name: String,
    /// Failed attempts so far, for the back-off.
    pub attempts: u32,
}

/// Last accepted tuple of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Current epoch.
    pub epoch: Epoch,
    /// Highest accepted sequence number of that epoch.
    pub seq: Seq,
}

/// A row of the table `links`: what a session's stream knows of one life of a source. The row of
/// generation 0 is the source's floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// The subscription; of a floor, the last one that has ended for ever.
    pub epoch: SubscriptionEpoch,
    /// The first position that is to be delivered; a floor has none.
    pub next: Option<Position>,
}

/// How many rows the tables have of one life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Extents.
    pub extents: u64,
    /// Segments, shared ones included.
    pub segments: u64,
    /// Producers as of the checkpoint.
    pub producers: u64,
    /// Forks that reference the life.
    pub forks: u64,
}

/// What the alarm has to see to. One alarm serves all kinds: it is set to the earliest due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Duty {
    /// The current life's lifetime may have run out.
    Expire,
    /// Rows of dead lives wait to be erased.
    Erase,
    /// A fork that is not finished may have lost its request.
    Fork,
    /// Sources wait to hear that a fork of theirs is gone.
    Release,
    /// An upload may have lost its instance, or is to be tried again.
    Rotate,
    /// Objects that nothing references wait to be deleted.
    Sweep,
    /// A shard may not have noted the tail, or how the life stands.
    Fanout,
}

impl Duty {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Expire,
        Self::Erase,
        Self::Fork,
        Self::Release,
        Self::Rotate,
        Self::Sweep,
        Self::Fanout,
    ];

    /// The number stored in the table.
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::Expire => 1,
            Self::Erase => 2,
            Self::Fork => 3,
            Self::Release => 4,
            Self::Rotate => 5,
            Self::Sweep => 6,
            Self::Fanout => 7,
        }
    }

    /// The kind of a stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|duty| duty.code() == code)
    }
}

/// Identity of a fork as its source knows it: unique for all time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForkId {
    /// Object name of the fork, `{project}/{path}`.
    pub child: String,
    /// Generation of the fork's life.
    pub generation: Generation,
}

/// A row of the table `forks`, kept at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkRow {
    /// The fork of the life `source` up to `at` exists or is being made.
    Referenced {
        /// Generation of the source's life.
        source: Generation,
        /// The fork point.
        at: Position,
    },
    /// The fork was given up before its reference arrived; a late reference is refused.
    Refused,
}

/// A row of the table `releases`, kept at the fork: a source that has not yet confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Generation of the fork's life that is gone.
    pub generation: Generation,
    /// Object name of the source.
    pub source: String,
    /// Failed attempts so far, for the back-off.
    pub attempts: u32,
}

/// One row to store or erase.
#[derive(Clone, Debug, PartialEq)]
pub enum Write<B> {
    /// Replaces the tombstone.
    Tombstone(Tombstone),
    /// Stores a life's row under its generation.
    Life(Life),
    /// Removes a life's row.
    DropLife(Generation),
    /// Stores an extent.
    Extent {
        /// Key of the first byte.
        key: Key,
        /// The encoded header.
        head: Vec<u8>,
        /// The bytes; at most [`protocol::limits::ROW_BYTES_MAX`].
        bytes: B,
    },
    /// Keeps the extents stored so far apart from those to come, so that erasing exactly them
    /// costs next to nothing. Changes nothing else, and nothing at all while earlier ones are
    /// still kept apart.
    Seal,
    /// Erases the first `rows` extents with keys in the range.
    EraseExtents {
        /// Keys to erase.
        keys: Range<Key>,
        /// At most so many rows.
        rows: u32,
    },
    /// Stores a producer's state as of a position.
    Producer {
        /// Life it belongs to.
        generation: Generation,
        /// Who.
        id: ProducerId,
        /// Last accepted tuple.
        state: ProducerState,
        /// Headers of extents from here on come on top.
        as_of: Position,
    },
    /// Erases up to `rows` producers of a life.
    EraseProducers {
        /// Life they belong to.
        generation: Generation,
        /// At most so many rows.
        rows: u32,
    },
    /// Stores a link, or a source's floor, as of a position.
    Link {
        /// Life of the session's stream.
        life: Generation,
        /// The source.
        link: SourceLife,
        /// What is known of it.
        state: LinkState,
        /// Headers of extents from here on come on top.
        as_of: Position,
    },
    /// Erases links of a source, floors apart.
    DropLinks {
        /// Life of the session's stream.
        life: Generation,
        /// Object name of the source.
        source: String,
        /// The source's life; `None`: every one.
        generation: Option<Generation>,
        /// Those of earlier epochs stay.
        from: SubscriptionEpoch,
        /// Those of later epochs stay.
        up_to: SubscriptionEpoch,
    },
    /// Erases up to `rows` links and floors of a life.
    EraseLinks {
        /// Life they belong to.
        life: Generation,
        /// At most so many rows.
        rows: u32,
    },
    /// Stores that a life has a shard.
    Shard {
        /// Generation of the life.
        generation: Generation,
        /// Which shard.
        shard: ShardId,
    },
    /// Forgets a shard of a life.
    DropShard {
        /// Generation of the life.
        generation: Generation,
        /// Which shard.
        shard: ShardId,
    },
    /// Stores a segment's row.
    Segment(SegmentRow),
    /// Erases the first `rows` segments with keys in the range.
    EraseSegments {
        /// Keys to erase.
        keys: Range<Key>,
        /// At most so many rows.
        rows: u32,
    },
    /// Stores a life's rotation.
    Rotation(RotationRow),
    /// Removes a life's rotation.
    DropRotation(Generation),
    /// Stores a deletion marker.
    Marker(Marker),
    /// Removes a deletion marker.
    DropMarker(Marker),
    /// Stores a fork's row at its source.
    Fork(ForkId, ForkRow),
    /// Removes a fork's row at its source.
    DropFork(ForkId),
    /// Stores a release.
    Release(Release),
    /// Removes a confirmed release by the fork's generation.
    DropRelease(Generation),
    /// Stores when a duty is due.
    Duty(Duty, UnixMillis),
    /// Removes a duty.
    DropDuty(Duty),
    /// Sets the object's alarm.
    Alarm(UnixMillis),
}

/// Why a log did not do what it was asked. Nothing of a failed commit is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The storage refused: full, too large, interrupted. With its own words.
    Failed(String),
    /// What is stored contradicts itself. Names the row.
    Corrupt(String),
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(cause) => write!(f, "storage failed: {cause}"),
            Self::Corrupt(what) => write!(f, "storage is damaged: {what}"),
        }
    }
}

impl std::error::Error for LogError {}

/// The storage of one stream object. See the module's documentation for the contract.
pub trait Log {
    /// Representation of bytes.
    type Bytes: Blob;

    /// Stores all writes, in order, or none.
    ///
    /// # Errors
    /// [`LogError::Failed`]; nothing was stored.
    fn commit(&mut self, writes: Vec<Write<Self::Bytes>>) -> Result<(), LogError>;

    /// The tombstone, if a life of this path has been deleted.
    ///
    /// # Errors
    /// As all reads: [`LogError`] when the storage fails or a row does not decode.
    fn tombstone(&self) -> Result<Option<Tombstone>, LogError>;

    /// The lives with the highest generations, descending, at most `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn lives(&self, limit: u32) -> Result<Vec<Life>, LogError>;

    /// The life of a generation.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn life(&self, generation: Generation) -> Result<Option<Life>, LogError>;

    /// Extents with keys in the range, ascending, at most `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn extents(&self, keys: Range<Key>, limit: u32) -> Result<Vec<ExtentRow>, LogError>;

    /// The extent with the highest key in the range.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn last_extent(&self, keys: Range<Key>) -> Result<Option<ExtentRow>, LogError>;

    /// The last of the extents that [`Write::Seal`] keeps apart, if some of them are left.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn last_sealed(&self) -> Result<Option<ExtentRow>, LogError>;

    /// The bytes of a range, which may begin and end inside extents.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when the extents do not cover the range.
    fn read(&self, keys: Range<Key>, framing: Framing) -> Result<Self::Bytes, LogError>;

    /// Segments with keys in the range, ascending, at most `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn segments(&self, keys: Range<Key>, limit: u32) -> Result<Vec<SegmentRow>, LogError>;

    /// The segment with the highest key in the range.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn last_segment(&self, keys: Range<Key>) -> Result<Option<SegmentRow>, LogError>;

    /// Names of the segments with keys in the range, ascending, at most `limit`, and whether they
    /// are the life's own.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn segment_names(&self, keys: Range<Key>, limit: u32) -> Result<Vec<(String, bool)>, LogError>;

    /// A life's rotation.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn rotation(&self, generation: Generation) -> Result<Option<RotationRow>, LogError>;

    /// Deletion markers, the earliest due first, at most `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn markers(&self, limit: u32) -> Result<Vec<Marker>, LogError>;

    /// A producer's state as of the checkpoint.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn producer(
        &self,
        generation: Generation,
        id: &ProducerId,
    ) -> Result<Option<ProducerState>, LogError>;

    /// Whether the table has producers of a life.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn has_producers(&self, generation: Generation) -> Result<bool, LogError>;

    /// A link, or a source's floor, as of the checkpoint.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn link(&self, life: Generation, link: &SourceLife) -> Result<Option<LinkState>, LogError>;

    /// Whether the table has links or floors of a life.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn has_links(&self, life: Generation) -> Result<bool, LogError>;

    /// Shards of all lives, ascending, at most `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn shards(&self, limit: u32) -> Result<Vec<(Generation, ShardId)>, LogError>;

    /// A fork's row at its source.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn fork(&self, id: &ForkId) -> Result<Option<ForkRow>, LogError>;

    /// How many forks reference the life, counted up to `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn forks_of(&self, source: Generation, limit: u32) -> Result<u32, LogError>;

    /// How many rows the life has, whose keys are in the range; each number counts up to `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn counts(&self, life: Generation, keys: Range<Key>, limit: u32) -> Result<Counts, LogError>;

    /// The highest fork point of the life.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn highest_fork(&self, source: Generation) -> Result<Option<Position>, LogError>;

    /// Releases to deliver, lowest generation first, at most `limit`.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn releases(&self, limit: u32) -> Result<Vec<Release>, LogError>;

    /// All duties.
    ///
    /// # Errors
    /// See [`Log::tombstone`].
    fn duties(&self) -> Result<Vec<(Duty, UnixMillis)>, LogError>;
}
