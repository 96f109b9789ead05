//! [`Stream`]: what is in memory of one stream path, and the steps that every verb shares.

use std::collections::BTreeMap;

use protocol::headers::StreamSeq;
use protocol::lifetime::Lifetime;
use protocol::limits;
use protocol::offset::{Generation, Offset, Position};
use protocol::time::UnixMillis;

use crate::cold::SegmentCache;
use crate::fanout::source::Shards;
use crate::life::{Closed, Life, Phase, Tombstone};
use crate::links::Links;
use crate::log::{Duty, Log, LogError, RotationRow, Write};
use crate::producers::Producers;
use crate::read::LastPage;

/// One stream path. Every verb is load → plan → commit: what it returns is stored.
///
/// A failed commit leaves the log as it was; the memory is loaded again before the next verb.
pub struct Stream<L: Log> {
    pub(crate) log: L,
    /// The life that clients see, or that is about to be seen.
    pub(crate) current: Option<Current>,
    pub(crate) tombstone: Tombstone,
    pub(crate) duties: BTreeMap<Duty, UnixMillis>,
    /// When the alarm goes off, as far as this instance set it.
    pub(crate) alarm: Option<UnixMillis>,
    /// Until when live readers are known to be attached: they defer a sliding lifetime.
    pub(crate) attached_until: UnixMillis,
    /// Bounds that the deployment sets.
    pub(crate) bounds: Bounds,
    /// The current life's upload, and how many were begun before.
    pub(crate) rotation: Option<RotationRow>,
    /// Uploads that have failed in a row, as far as this instance knows.
    pub(crate) upload_failures: u32,
    /// What is known of the shards of all lives.
    pub(crate) shards: Shards,
    /// Hot bytes of dead lives that are held or still to be erased.
    pub(crate) dead_bytes: u64,
    /// The segment that was looked at last.
    pub(crate) segment: SegmentCache,
    /// The hot page that was read last.
    pub(crate) last_page: Option<LastPage<L::Bytes>>,
    /// Memory does not match the log: a commit failed.
    pub(crate) stale: bool,
}

/// The current life with what its extents' headers add to it.
pub(crate) struct Current {
    pub(crate) life: Life,
    pub(crate) tail: Position,
    /// End of the last segment: bytes before it lie in the object store.
    pub(crate) cold: Position,
    /// Ends of appends in hot rows.
    pub(crate) hot_ends: u64,
    pub(crate) seq: Option<StreamSeq>,
    pub(crate) closed: Closed,
    pub(crate) producers: Producers,
    pub(crate) links: Links,
    /// Last access that is known, for sliding lifetimes.
    pub(crate) touched: UnixMillis,
    /// Last access that may have happened and was not written down before memory was lost.
    pub(crate) perhaps_touched: UnixMillis,
    /// Rows and header bytes since the checkpoint: what a wake-up has to read.
    pub(crate) rows: u64,
    pub(crate) head_bytes: u64,
}

/// What the deployment allows a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most hot bytes.
    pub bytes_max: u64,
    /// Hot bytes from which on a segment is made.
    pub segment_bytes: u64,
    /// Ends of appends in hot rows from which on a segment is made.
    pub segment_appends: u64,
    /// Hot bytes that a fork copies at most.
    pub fork_copy_bytes_max: u64,
    /// Cold bytes that the engine asks to see at a time.
    pub lend_bytes: u64,
    /// How long an object stays after nothing references it: longer than any read that was told
    /// of it before.
    pub grace_ms: u64,
    /// How long the bytes of an ended life are held for shards that lag behind.
    pub fanout_hold_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes_max: limits::STREAM_BYTES_MAX,
            segment_bytes: limits::SEGMENT_BYTES,
            segment_appends: limits::SEGMENT_APPENDS,
            fork_copy_bytes_max: limits::FORK_COPY_BYTES_MAX,
            lend_bytes: limits::ROW_BYTES_MAX,
            grace_ms: limits::SEGMENT_GRACE_MS,
            fanout_hold_ms: limits::FANOUT_HOLD_MAX_MS,
        }
    }
}

/// Why a verb found no stream to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No stream at this path.
    NotFound,
    /// Deleted or expired, held for its forks (PROTOCOL §4.2).
    Gone,
    /// The log failed.
    Log(LogError),
}

impl From<LogError> for Missing {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// What HEAD tells (PROTOCOL §5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Content type as given at creation.
    pub content_type: protocol::content_type::ContentType,
    /// The tail.
    pub next: Offset,
    /// The configured lifetime.
    pub lifetime: Lifetime,
    /// Whether the stream is closed.
    pub closed: bool,
    /// Whether everybody may read it.
    pub public: bool,
    /// Generation of this life.
    pub generation: Generation,
}

impl<L: Log> Stream<L> {
    /// Loads a stream from its log.
    ///
    /// # Errors
    /// [`LogError`] when the log does not answer or does not decode.
    pub fn open(log: L) -> Result<Self, LogError> {
        let mut stream = Self {
            log,
            current: None,
            tombstone: Tombstone::default(),
            duties: BTreeMap::new(),
            alarm: None,
            attached_until: UnixMillis::default(),
            bounds: Bounds::default(),
            rotation: None,
            upload_failures: 0,
            shards: Shards::default(),
            dead_bytes: 0,
            segment: SegmentCache::default(),
            last_page: None,
            stale: true,
        };
        stream.reload()?;
        Ok(stream)
    }

    /// The log below.
    pub fn log(&self) -> &L {
        &self.log
    }

    /// Gives the log back.
    pub fn into_log(self) -> L {
        self.log
    }

    /// Tells until when live readers are attached (default: none are). A sliding lifetime counts
    /// from there if that is later than the last access.
    pub fn set_attached_until(&mut self, until: UnixMillis) {
        self.attached_until = until;
    }

    /// A live reader has left, that was attached until now or, if that is earlier, `until`: this
    /// counts as an access. To be told before [`Stream::set_attached_until`] takes it back.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn reader_left(&mut self, until: UnixMillis, now: UnixMillis) -> Result<(), Missing> {
        let left = now.min(until);
        self.attached_until = self.attached_until.max(left);
        self.live(now)?;
        Ok(self.touch(left)?)
    }

    /// Whether the stream that clients see has no end of its own.
    pub fn lasts(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.life.lifetime == Lifetime::Unlimited)
    }

    /// When the earliest duty is due.
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.duties.values().min().copied()
    }

    /// Sets the bounds of the deployment.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Hot bytes that the object holds, those of dead lives included, and how many it may.
    pub fn quota(&self) -> (u64, u64) {
        let hot = self.current.as_ref().map_or(0, Current::hot_bytes);
        (hot.saturating_add(self.dead_bytes), self.bounds.bytes_max)
    }

    /// Hot bytes that the current life may hold.
    pub(crate) fn room(&self) -> u64 {
        self.bounds.bytes_max.saturating_sub(self.dead_bytes)
    }

    /// The content type of the stream that clients see, without touching anything.
    pub fn content_type(&self) -> Option<&protocol::content_type::ContentType> {
        let live = self.current.as_ref().filter(|current| current.life.phase == Phase::Live);
        live.map(|current| &current.life.content_type)
    }

    /// Whether everybody may read the stream that clients see, without touching anything.
    pub fn is_public(&self) -> bool {
        let live = self.current.as_ref().filter(|current| current.life.phase == Phase::Live);
        live.is_some_and(|current| current.life.public)
    }

    /// Generation of the life that clients see.
    pub fn generation(&self) -> Option<Generation> {
        let live = self.current.as_ref().filter(|current| current.life.phase == Phase::Live);
        live.map(|current| current.life.generation)
    }

    /// Tail of the current life, whatever its phase; 0 when there is none.
    pub fn tail_position(&self) -> Position {
        self.current.as_ref().map_or(Position(0), |current| current.tail)
    }

    /// Whether a fork is being made here that nobody sees yet.
    pub fn is_forking(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.life.phase == Phase::Forking)
    }

    /// Checks that there is a stream to act on, expiring it first if its time has come.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn check(&mut self, now: UnixMillis) -> Result<(), Missing> {
        self.live(now).map(|_| ())
    }

    /// HEAD: does not count as an access.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn head(&mut self, now: UnixMillis) -> Result<Metadata, Missing> {
        let current = self.live(now)?;
        Ok(Metadata {
            content_type: current.life.content_type.clone(),
            next: current.tail_offset(),
            lifetime: current.life.lifetime,
            closed: current.closed.is_closed(),
            public: current.life.public,
            generation: current.life.generation,
        })
    }

    /// The life that clients see.
    pub(crate) fn live(&mut self, now: UnixMillis) -> Result<&mut Current, Missing> {
        self.settle(now)?;
        match &mut self.current {
            Some(current) => match current.life.phase {
                Phase::Live => Ok(current),
                Phase::SoftDeleted => Err(Missing::Gone),
                Phase::Forking | Phase::Erasing | Phase::Held | Phase::Lapsed => {
                    Err(Missing::NotFound)
                }
            },
            None => Err(Missing::NotFound),
        }
    }

    /// Makes memory match the log, and the log match the time: loads what a failed commit made
    /// doubtful, and lets the current life expire when it is due.
    pub(crate) fn settle(&mut self, now: UnixMillis) -> Result<(), LogError> {
        if self.stale {
            self.reload()?;
        }
        let expires =
            self.current.as_ref().and_then(|current| current.expires(self.attached_until));
        let live = self.current.as_ref().is_some_and(|current| current.life.phase == Phase::Live);
        if live && expires.is_some_and(|expires| expires <= now) {
            self.remove(now)?;
        }
        Ok(())
    }

    /// Commits; on failure memory counts as stale.
    pub(crate) fn commit(&mut self, writes: Vec<Write<L::Bytes>>) -> Result<(), LogError> {
        if writes.is_empty() {
            return Ok(());
        }
        let outcome = self.log.commit(writes);
        self.stale |= outcome.is_err();
        outcome
    }

    /// Counts an access. A long sliding lifetime is written down lazily, and counted generously
    /// after a wake-up, so that it never ends early: see [`touch_slack_ms`].
    pub(crate) fn touch(&mut self, now: UnixMillis) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let Lifetime::Ttl { seconds } = current.life.lifetime else { return Ok(()) };
        current.accessed(now);
        let unwritten = now.saturating_since_ms(current.life.touched);
        if unwritten == 0 || unwritten < touch_slack_ms(seconds) {
            return Ok(());
        }
        current.life.touched = now;
        let life = current.life.clone();
        self.commit(vec![Write::Life(life)])
    }

    /// Plans a duty, and the alarm if it has to go off earlier than it would.
    pub(crate) fn plan_duty(
        &mut self,
        writes: &mut Vec<Write<L::Bytes>>,
        duty: Duty,
        due: UnixMillis,
    ) {
        self.duties.insert(duty, due);
        writes.push(Write::Duty(duty, due));
        // Never past another duty: this commit may be the last of an alarm's handler.
        let first = self.duties.values().min().copied().unwrap_or(due);
        if self.alarm.is_none_or(|alarm| first < alarm) {
            self.alarm = Some(first);
            writes.push(Write::Alarm(first));
        }
    }

    pub(crate) fn plan_no_duty(&mut self, writes: &mut Vec<Write<L::Bytes>>, duty: Duty) {
        if self.duties.remove(&duty).is_some() {
            writes.push(Write::DropDuty(duty));
        }
    }
}

impl Current {
    pub(crate) fn new(life: Life) -> Self {
        Self {
            tail: Position(0),
            cold: Position(0),
            hot_ends: life.hot_ends,
            seq: life.seq.clone(),
            closed: life.closed.clone(),
            producers: Producers::default(),
            links: Links::default(),
            touched: life.touched,
            perhaps_touched: UnixMillis::default(),
            rows: 0,
            head_bytes: 0,
            life,
        }
    }

    /// Bytes in hot rows.
    pub(crate) fn hot_bytes(&self) -> u64 {
        self.tail.0.saturating_sub(self.cold.0)
    }

    pub(crate) fn is_json(&self) -> bool {
        self.life.content_type.is_json()
    }

    /// Notes an access.
    pub(crate) fn accessed(&mut self, now: UnixMillis) {
        self.touched = self.touched.max(now);
        self.perhaps_touched = UnixMillis::default();
    }

    /// When the life ends, if nothing touches it until then.
    pub(crate) fn expires(&self, attached_until: UnixMillis) -> Option<UnixMillis> {
        match self.life.lifetime {
            Lifetime::Unlimited => None,
            Lifetime::ExpiresAt { at } => Some(at),
            Lifetime::Ttl { seconds } => {
                let from = self.touched.max(self.perhaps_touched).max(attached_until);
                Some(from.saturating_add_ms(seconds.saturating_mul(1_000)))
            }
        }
    }
}

/// How far the written last access of a sliding lifetime may lag behind the true one.
///
/// Under a minute every access is written at once; above, a tenth of the lifetime, at most an
/// hour. A stream that lost its memory counts the slack on top, so it may live that much longer,
/// never shorter.
#[must_use]
pub(crate) fn touch_slack_ms(ttl_seconds: u64) -> u64 {
    match ttl_seconds {
        0..60 => 0,
        _ => ttl_seconds.saturating_mul(100).min(3_600_000),
    }
}
