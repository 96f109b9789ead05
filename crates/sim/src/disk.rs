//! What survives a crash of an object: its committed rows and its alarm.
//!
//! A [`Disk`] is a handle; clones are the same disk. It is a [`Log`] itself, so the oracle reads
//! it without passing through the faults of the object's own handle.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use engine::life::{Life, Tombstone};
use engine::log::memory::MemoryLog;
use engine::log::sql::SqlLog;
use engine::log::{
    Counts, Duty, ExtentRow, ForkId, ForkRow, Framing, Key, LinkState, Log, LogError, Marker,
    ProducerState, Release, RotationRow, SegmentRow, Write,
};
use protocol::fanout::{ShardId, SourceLife};
use protocol::offset::{Generation, Position};
use protocol::producer::ProducerId;
use protocol::time::UnixMillis;

use crate::sqlite::NativeDatabase;

/// The storage of one object on one of the two implementations.
#[derive(Clone)]
pub enum Disk {
    /// Rows in ordered maps.
    Memory(Rc<RefCell<MemoryLog>>),
    /// Real SQLite, in memory.
    Sqlite(Rc<RefCell<SqlLog<NativeDatabase>>>, NativeDatabase),
}

impl Disk {
    /// An empty disk in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(Rc::default())
    }

    /// An empty disk on SQLite.
    ///
    /// # Errors
    /// [`LogError::Failed`] with SQLite's words.
    pub fn sqlite() -> Result<Self, LogError> {
        Self::on(NativeDatabase::in_memory()?)
    }

    fn on(database: NativeDatabase) -> Result<Self, LogError> {
        let log = SqlLog::open(database.clone())?;
        Ok(Self::Sqlite(Rc::new(RefCell::new(log)), database))
    }

    /// The disk as the next instance of the object finds it.
    ///
    /// # Errors
    /// [`LogError::Failed`] with SQLite's words.
    pub fn reopen(&self) -> Result<Self, LogError> {
        match self {
            Self::Memory(_) => Ok(self.clone()),
            Self::Sqlite(_, database) => Self::on(database.clone()),
        }
    }

    /// When the alarm goes off.
    #[must_use]
    pub fn alarm(&self) -> Option<UnixMillis> {
        match self {
            Self::Memory(log) => log.borrow().alarm(),
            Self::Sqlite(_, database) => database.alarm(),
        }
    }

    /// Takes the alarm, as the platform does before it calls the handler.
    pub fn take_alarm(&self) -> Option<UnixMillis> {
        match self {
            Self::Memory(log) => log.borrow_mut().take_alarm(),
            Self::Sqlite(_, database) => database.take_alarm(),
        }
    }
}

macro_rules! on_either {
    ($disk:expr, $log:ident => $call:expr) => {
        match $disk {
            Disk::Memory(log) => {
                let $log = log.borrow();
                $call
            }
            Disk::Sqlite(log, _) => {
                let $log = log.borrow();
                $call
            }
        }
    };
}

impl Log for Disk {
    type Bytes = Vec<u8>;

    fn commit(&mut self, writes: Vec<Write<Vec<u8>>>) -> Result<(), LogError> {
        match self {
            Self::Memory(log) => log.borrow_mut().commit(writes),
            Self::Sqlite(log, _) => log.borrow_mut().commit(writes),
        }
    }

    fn tombstone(&self) -> Result<Option<Tombstone>, LogError> {
        on_either!(self, log => log.tombstone())
    }

    fn lives(&self, limit: u32) -> Result<Vec<Life>, LogError> {
        on_either!(self, log => log.lives(limit))
    }

    fn life(&self, generation: Generation) -> Result<Option<Life>, LogError> {
        on_either!(self, log => log.life(generation))
    }

    fn extents(&self, keys: Range<Key>, limit: u32) -> Result<Vec<ExtentRow>, LogError> {
        on_either!(self, log => log.extents(keys, limit))
    }

    fn last_extent(&self, keys: Range<Key>) -> Result<Option<ExtentRow>, LogError> {
        on_either!(self, log => log.last_extent(keys))
    }

    fn last_sealed(&self) -> Result<Option<ExtentRow>, LogError> {
        on_either!(self, log => log.last_sealed())
    }

    fn read(&self, keys: Range<Key>, framing: Framing) -> Result<Vec<u8>, LogError> {
        on_either!(self, log => log.read(keys, framing))
    }

    fn segments(&self, keys: Range<Key>, limit: u32) -> Result<Vec<SegmentRow>, LogError> {
        on_either!(self, log => log.segments(keys, limit))
    }

    fn last_segment(&self, keys: Range<Key>) -> Result<Option<SegmentRow>, LogError> {
        on_either!(self, log => log.last_segment(keys))
    }

    fn segment_names(&self, keys: Range<Key>, limit: u32) -> Result<Vec<(String, bool)>, LogError> {
        on_either!(self, log => log.segment_names(keys, limit))
    }

    fn rotation(&self, generation: Generation) -> Result<Option<RotationRow>, LogError> {
        on_either!(self, log => log.rotation(generation))
    }

    fn markers(&self, limit: u32) -> Result<Vec<Marker>, LogError> {
        on_either!(self, log => log.markers(limit))
    }

    fn producer(
        &self,
        generation: Generation,
        id: &ProducerId,
    ) -> Result<Option<ProducerState>, LogError> {
        on_either!(self, log => log.producer(generation, id))
    }

    fn has_producers(&self, generation: Generation) -> Result<bool, LogError> {
        on_either!(self, log => log.has_producers(generation))
    }

    fn link(&self, life: Generation, link: &SourceLife) -> Result<Option<LinkState>, LogError> {
        on_either!(self, log => log.link(life, link))
    }

    fn has_links(&self, life: Generation) -> Result<bool, LogError> {
        on_either!(self, log => log.has_links(life))
    }

    fn shards(&self, limit: u32) -> Result<Vec<(Generation, ShardId)>, LogError> {
        on_either!(self, log => log.shards(limit))
    }

    fn fork(&self, id: &ForkId) -> Result<Option<ForkRow>, LogError> {
        on_either!(self, log => log.fork(id))
    }

    fn forks_of(&self, source: Generation, limit: u32) -> Result<u32, LogError> {
        on_either!(self, log => log.forks_of(source, limit))
    }

    fn counts(&self, life: Generation, keys: Range<Key>, limit: u32) -> Result<Counts, LogError> {
        on_either!(self, log => log.counts(life, keys, limit))
    }

    fn highest_fork(&self, source: Generation) -> Result<Option<Position>, LogError> {
        on_either!(self, log => log.highest_fork(source))
    }

    fn releases(&self, limit: u32) -> Result<Vec<Release>, LogError> {
        on_either!(self, log => log.releases(limit))
    }

    fn duties(&self) -> Result<Vec<(Duty, UnixMillis)>, LogError> {
        on_either!(self, log => log.duties())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_keep_the_contract() {
        engine::log::suite::run(Disk::memory);
        engine::log::suite::run(|| Disk::sqlite().unwrap());
    }
}
