//! Decorators over one [`Log`]: [`Faulty`] fails on command, [`Counting`] counts what is read, and
//! [`Planted`] carries the bugs that the canary tests expect to be found.
//!
//! All are the same forwarding [`Hooked`] log with another [`Hook`]; the hook is shared with the
//! world, which arms it before a verb and asks it afterwards.

use std::ops::Range;
use std::rc::Rc;

use engine::life::{Life, Tombstone};
use engine::log::{
    Counts, Duty, ExtentRow, ForkId, ForkRow, Framing, Key, LinkState, Log, LogError, Marker,
    ProducerState, Release, RotationRow, SegmentRow, Write,
};
use protocol::fanout::{ShardId, SourceLife};
use protocol::offset::{Generation, Position};
use protocol::producer::ProducerId;
use protocol::time::UnixMillis;

use crate::canary::Canary;
use crate::faults::{Counters, Faults};

/// What a decorator does around the calls of a log.
pub trait Hook {
    /// May refuse a read.
    ///
    /// # Errors
    /// The error that the read is to fail with.
    fn before_read(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Learns how many extent rows a read returned.
    fn saw_rows(&self, _rows: u64) {}

    /// Learns how many bytes a read asked for.
    fn saw_range(&self, _bytes: u64) {}

    /// May refuse a commit or change it.
    ///
    /// # Errors
    /// The error that the commit is to fail with.
    fn before_commit(&self, writes: Vec<Write<Vec<u8>>>) -> Result<Vec<Write<Vec<u8>>>, LogError> {
        Ok(writes)
    }
}

/// A log with a hook around every call.
pub struct Hooked<L, H> {
    inner: L,
    hook: Rc<H>,
}

/// Fails commits and reads on command.
pub type Faulty<L> = Hooked<L, Faults>;
/// Counts rows and bytes read.
pub type Counting<L> = Hooked<L, Counters>;
/// Breaks the contract on purpose.
pub type Planted<L> = Hooked<L, Canary>;

impl<L, H> Hooked<L, H> {
    /// Decorates `inner`.
    pub fn new(inner: L, hook: Rc<H>) -> Self {
        Self { inner, hook }
    }
}

impl<L: Log<Bytes = Vec<u8>>, H: Hook> Log for Hooked<L, H> {
    type Bytes = Vec<u8>;

    fn commit(&mut self, writes: Vec<Write<Vec<u8>>>) -> Result<(), LogError> {
        self.inner.commit(self.hook.before_commit(writes)?)
    }

    fn tombstone(&self) -> Result<Option<Tombstone>, LogError> {
        self.hook.before_read()?;
        self.inner.tombstone()
    }

    fn lives(&self, limit: u32) -> Result<Vec<Life>, LogError> {
        self.hook.before_read()?;
        self.inner.lives(limit)
    }

    fn life(&self, generation: Generation) -> Result<Option<Life>, LogError> {
        self.hook.before_read()?;
        self.inner.life(generation)
    }

    fn extents(&self, keys: Range<Key>, limit: u32) -> Result<Vec<ExtentRow>, LogError> {
        self.hook.before_read()?;
        let rows = self.inner.extents(keys, limit)?;
        self.hook.saw_rows(rows.len() as u64);
        Ok(rows)
    }

    fn last_extent(&self, keys: Range<Key>) -> Result<Option<ExtentRow>, LogError> {
        self.hook.before_read()?;
        let row = self.inner.last_extent(keys)?;
        self.hook.saw_rows(u64::from(row.is_some()));
        Ok(row)
    }

    fn last_sealed(&self) -> Result<Option<ExtentRow>, LogError> {
        self.hook.before_read()?;
        self.inner.last_sealed()
    }

    fn read(&self, keys: Range<Key>, framing: Framing) -> Result<Vec<u8>, LogError> {
        self.hook.before_read()?;
        self.hook.saw_range(keys.end.0.saturating_sub(keys.start.0));
        self.inner.read(keys, framing)
    }

    fn segments(&self, keys: Range<Key>, limit: u32) -> Result<Vec<SegmentRow>, LogError> {
        self.hook.before_read()?;
        self.inner.segments(keys, limit)
    }

    fn last_segment(&self, keys: Range<Key>) -> Result<Option<SegmentRow>, LogError> {
        self.hook.before_read()?;
        self.inner.last_segment(keys)
    }

    fn segment_names(&self, keys: Range<Key>, limit: u32) -> Result<Vec<(String, bool)>, LogError> {
        self.hook.before_read()?;
        self.inner.segment_names(keys, limit)
    }

    fn rotation(&self, generation: Generation) -> Result<Option<RotationRow>, LogError> {
        self.hook.before_read()?;
        self.inner.rotation(generation)
    }

    fn markers(&self, limit: u32) -> Result<Vec<Marker>, LogError> {
        self.hook.before_read()?;
        self.inner.markers(limit)
    }

    fn producer(
        &self,
        generation: Generation,
        id: &ProducerId,
    ) -> Result<Option<ProducerState>, LogError> {
        self.hook.before_read()?;
        self.inner.producer(generation, id)
    }

    fn has_producers(&self, generation: Generation) -> Result<bool, LogError> {
        self.hook.before_read()?;
        self.inner.has_producers(generation)
    }

    fn link(&self, life: Generation, link: &SourceLife) -> Result<Option<LinkState>, LogError> {
        self.hook.before_read()?;
        self.inner.link(life, link)
    }

    fn has_links(&self, life: Generation) -> Result<bool, LogError> {
        self.hook.before_read()?;
        self.inner.has_links(life)
    }

    fn shards(&self, limit: u32) -> Result<Vec<(Generation, ShardId)>, LogError> {
        self.hook.before_read()?;
        self.inner.shards(limit)
    }

    fn fork(&self, id: &ForkId) -> Result<Option<ForkRow>, LogError> {
        self.hook.before_read()?;
        self.inner.fork(id)
    }

    fn forks_of(&self, source: Generation, limit: u32) -> Result<u32, LogError> {
        self.hook.before_read()?;
        self.inner.forks_of(source, limit)
    }

    fn counts(&self, life: Generation, keys: Range<Key>, limit: u32) -> Result<Counts, LogError> {
        self.hook.before_read()?;
        self.inner.counts(life, keys, limit)
    }

    fn highest_fork(&self, source: Generation) -> Result<Option<Position>, LogError> {
        self.hook.before_read()?;
        self.inner.highest_fork(source)
    }

    fn releases(&self, limit: u32) -> Result<Vec<Release>, LogError> {
        self.hook.before_read()?;
        self.inner.releases(limit)
    }

    fn duties(&self) -> Result<Vec<(Duty, UnixMillis)>, LogError> {
        self.hook.before_read()?;
        self.inner.duties()
    }
}
