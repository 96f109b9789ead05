//! A [`Log`] in memory: the naive implementation that the others are compared with.
//!
//! Cloning it is a snapshot, which is how the simulator takes a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use protocol::fanout::{ShardId, SourceLife};
use protocol::offset::{Generation, Position};
use protocol::producer::ProducerId;
use protocol::time::UnixMillis;

use super::{
    Blob, Counts, Duty, ExtentRow, ForkId, ForkRow, Framing, Key, LinkState, Log, LogError, Marker,
    ProducerState, Release, RotationRow, SegmentRow, Write,
};
use crate::life::{Life, Tombstone};

/// Rows by their keys, as the tables of `docs/data-layout.md`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryLog {
    tombstone: Option<Tombstone>,
    lives: BTreeMap<Generation, Life>,
    extents: BTreeMap<Key, (Vec<u8>, Vec<u8>)>,
    /// Key of the last extent that is kept apart.
    sealed: Option<Key>,
    segments: BTreeMap<Key, SegmentRow>,
    rotations: BTreeMap<Generation, RotationRow>,
    markers: BTreeSet<Marker>,
    producers: BTreeMap<(Generation, String), (ProducerState, Position)>,
    links: BTreeMap<(Generation, SourceLife), (LinkState, Position)>,
    shards: BTreeSet<(Generation, ShardId)>,
    forks: BTreeMap<ForkId, ForkRow>,
    releases: BTreeMap<Generation, Release>,
    duties: BTreeMap<Duty, UnixMillis>,
    alarm: Option<UnixMillis>,
}

impl MemoryLog {
    /// When the alarm goes off, if it is set.
    #[must_use]
    pub fn alarm(&self) -> Option<UnixMillis> {
        self.alarm
    }

    /// Takes the alarm, as the platform does before it calls the handler.
    pub fn take_alarm(&mut self) -> Option<UnixMillis> {
        self.alarm.take()
    }

    /// Number of rows in all tables.
    #[must_use]
    pub fn rows(&self) -> usize {
        usize::from(self.tombstone.is_some())
            + self.lives.len()
            + self.extents.len()
            + self.segments.len()
            + self.rotations.len()
            + self.markers.len()
            + self.producers.len()
            + self.links.len()
            + self.shards.len()
            + self.forks.len()
            + self.releases.len()
            + self.duties.len()
    }

    fn store(&mut self, write: Write<Vec<u8>>) {
        match write {
            Write::Tombstone(tombstone) => self.tombstone = Some(tombstone),
            Write::Life(life) => {
                self.lives.insert(life.generation, life);
            }
            Write::DropLife(generation) => {
                self.lives.remove(&generation);
            }
            Write::Extent { key, head, bytes } => {
                self.extents.insert(key, (head, bytes));
            }
            Write::Seal => {
                self.sealed = self.sealed.or(self.extents.keys().next_back().copied());
            }
            Write::EraseExtents { keys, rows } => {
                erase(&mut self.extents, keys, rows);
                let first = self.extents.keys().next().copied();
                self.sealed = self.sealed.filter(|last| first.is_some_and(|key| key <= *last));
            }
            Write::Segment(segment) => {
                self.segments.insert(segment.key, segment);
            }
            Write::EraseSegments { keys, rows } => erase(&mut self.segments, keys, rows),
            Write::Rotation(rotation) => {
                self.rotations.insert(rotation.generation, rotation);
            }
            Write::DropRotation(generation) => {
                self.rotations.remove(&generation);
            }
            Write::Marker(marker) => {
                self.store(Write::DropMarker(marker.clone()));
                self.markers.insert(marker);
            }
            Write::DropMarker(marker) => {
                self.markers.retain(|m| (m.due, &m.name) != (marker.due, &marker.name));
            }
            Write::Producer { generation, id, state, as_of } => {
                self.producers.insert((generation, id.as_str().to_owned()), (state, as_of));
            }
            Write::EraseProducers { generation, rows } => self.erase_producers(generation, rows),
            Write::Link { .. }
            | Write::DropLinks { .. }
            | Write::EraseLinks { .. }
            | Write::Shard { .. }
            | Write::DropShard { .. } => self.store_fanout(write),
            Write::Fork(id, row) => {
                self.forks.insert(id, row);
            }
            Write::DropFork(id) => {
                self.forks.remove(&id);
            }
            Write::Release(release) => {
                self.releases.insert(release.generation, release);
            }
            Write::DropRelease(generation) => {
                self.releases.remove(&generation);
            }
            Write::Duty(duty, due) => {
                self.duties.insert(duty, due);
            }
            Write::DropDuty(duty) => {
                self.duties.remove(&duty);
            }
            Write::Alarm(at) => self.alarm = Some(at),
        }
    }

    fn erase_producers(&mut self, generation: Generation, rows: u32) {
        let of_life = self.producers.keys().filter(|(life, _)| *life == generation);
        let doomed: Vec<_> = of_life.take(rows as usize).cloned().collect();
        for key in doomed {
            self.producers.remove(&key);
        }
    }

    fn store_fanout(&mut self, write: Write<Vec<u8>>) {
        match write {
            Write::Link { life, link, state, as_of } => {
                self.links.insert((life, link), (state, as_of));
            }
            Write::DropLinks { life, source, generation, from, up_to } => {
                self.links.retain(|(of, link), (state, _)| {
                    let named = generation.is_none_or(|wanted| wanted == link.generation);
                    let is_link = state.next.is_some() && link.source == source && named;
                    *of != life || !is_link || !(from..=up_to).contains(&state.epoch)
                });
            }
            Write::EraseLinks { life, rows } => {
                let of_life = self.links.keys().filter(|(of, _)| *of == life);
                let doomed: Vec<_> = of_life.take(rows as usize).cloned().collect();
                for key in doomed {
                    self.links.remove(&key);
                }
            }
            Write::Shard { generation, shard } => {
                self.shards.insert((generation, shard));
            }
            Write::DropShard { generation, shard } => {
                self.shards.remove(&(generation, shard));
            }
            _ => {}
        }
    }
}

/// Erases the first rows of a range.
fn erase<T>(table: &mut BTreeMap<Key, T>, keys: Range<Key>, rows: u32) {
    let doomed: Vec<Key> = table.range(keys).map(|(key, _)| *key).take(rows as usize).collect();
    for key in doomed {
        table.remove(&key);
    }
}

fn row(key: Key, head: &[u8], bytes: &[u8]) -> ExtentRow {
    ExtentRow { key, length: bytes.len() as u64, head: head.to_vec() }
}

impl Log for MemoryLog {
    type Bytes = Vec<u8>;

    fn commit(&mut self, writes: Vec<Write<Vec<u8>>>) -> Result<(), LogError> {
        for write in writes {
            self.store(write);
        }
        Ok(())
    }

    fn tombstone(&self) -> Result<Option<Tombstone>, LogError> {
        Ok(self.tombstone)
    }

    fn lives(&self, limit: u32) -> Result<Vec<Life>, LogError> {
        Ok(self.lives.values().rev().take(limit as usize).cloned().collect())
    }

    fn life(&self, generation: Generation) -> Result<Option<Life>, LogError> {
        Ok(self.lives.get(&generation).cloned())
    }

    fn extents(&self, keys: Range<Key>, limit: u32) -> Result<Vec<ExtentRow>, LogError> {
        if keys.start >= keys.end {
            return Ok(Vec::new());
        }
        let rows = self.extents.range(keys).take(limit as usize);
        Ok(rows.map(|(key, (head, bytes))| row(*key, head, bytes)).collect())
    }

    fn last_extent(&self, keys: Range<Key>) -> Result<Option<ExtentRow>, LogError> {
        if keys.start >= keys.end {
            return Ok(None);
        }
        let last = self.extents.range(keys).next_back();
        Ok(last.map(|(key, (head, bytes))| row(*key, head, bytes)))
    }

    fn last_sealed(&self) -> Result<Option<ExtentRow>, LogError> {
        let Some(last) = self.sealed else { return Ok(None) };
        self.last_extent(Key(0)..Key(last.0.saturating_add(1)))
    }

    fn read(&self, keys: Range<Key>, framing: Framing) -> Result<Vec<u8>, LogError> {
        let mut range = Vec::new();
        let first =
            self.extents.range(..=keys.start).next_back().map_or(keys.start, |(key, _)| *key);
        for (key, (_, bytes)) in self.extents.range(first..keys.end.max(first)) {
            let from = keys.start.0.saturating_sub(key.0);
            let to = keys.end.0.saturating_sub(key.0);
            if from < to {
                range.extend(Blob::slice(bytes, from..to));
            }
        }
        if range.len() as u64 != keys.end.0.saturating_sub(keys.start.0) {
            let what = format!("extents {}..{} are not covered", keys.start.0, keys.end.0);
            return Err(LogError::Corrupt(what));
        }
        if framing == Framing::JsonArray && range.len() >= 2 {
            range.truncate(range.len() - 2);
            range.insert(0, b'[');
            range.push(b']');
        }
        Ok(range)
    }

    fn segments(&self, keys: Range<Key>, limit: u32) -> Result<Vec<SegmentRow>, LogError> {
        if keys.start >= keys.end {
            return Ok(Vec::new());
        }
        Ok(self.segments.range(keys).take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    fn last_segment(&self, keys: Range<Key>) -> Result<Option<SegmentRow>, LogError> {
        if keys.start >= keys.end {
            return Ok(None);
        }
        Ok(self.segments.range(keys).next_back().map(|(_, row)| row.clone()))
    }

    fn segment_names(&self, keys: Range<Key>, limit: u32) -> Result<Vec<(String, bool)>, LogError> {
        let rows = self.segments(keys, limit)?;
        Ok(rows.into_iter().map(|row| (row.name, row.own)).collect())
    }

    fn rotation(&self, generation: Generation) -> Result<Option<RotationRow>, LogError> {
        Ok(self.rotations.get(&generation).cloned())
    }

    fn markers(&self, limit: u32) -> Result<Vec<Marker>, LogError> {
        Ok(self.markers.iter().take(limit as usize).cloned().collect())
    }

    fn producer(
        &self,
        generation: Generation,
        id: &ProducerId,
    ) -> Result<Option<ProducerState>, LogError> {
        let row = self.producers.get(&(generation, id.as_str().to_owned()));
        Ok(row.map(|(state, _)| *state))
    }

    fn has_producers(&self, generation: Generation) -> Result<bool, LogError> {
        Ok(self.producers.keys().any(|(life, _)| *life == generation))
    }

    fn link(&self, life: Generation, link: &SourceLife) -> Result<Option<LinkState>, LogError> {
        Ok(self.links.get(&(life, link.clone())).map(|(state, _)| *state))
    }

    fn has_links(&self, life: Generation) -> Result<bool, LogError> {
        Ok(self.links.keys().any(|(of, _)| *of == life))
    }

    fn shards(&self, limit: u32) -> Result<Vec<(Generation, ShardId)>, LogError> {
        Ok(self.shards.iter().take(limit as usize).copied().collect())
    }

    fn fork(&self, id: &ForkId) -> Result<Option<ForkRow>, LogError> {
        Ok(self.forks.get(id).cloned())
    }

    fn forks_of(&self, source: Generation, limit: u32) -> Result<u32, LogError> {
        let references = |row: &&ForkRow| matches!(row, ForkRow::Referenced { source: life, .. } if *life == source);
        let count = self.forks.values().filter(references).take(limit as usize).count();
        Ok(u32::try_from(count).unwrap_or(limit))
    }

    fn counts(&self, life: Generation, keys: Range<Key>, limit: u32) -> Result<Counts, LogError> {
        let producers = self.producers.keys().filter(|(of, _)| *of == life).count() as u64;
        Ok(Counts {
            extents: self.extents(keys.clone(), limit)?.len() as u64,
            segments: self.segments(keys, limit)?.len() as u64,
            producers: producers.min(u64::from(limit)),
            forks: u64::from(self.forks_of(life, limit)?),
        })
    }

    fn highest_fork(&self, source: Generation) -> Result<Option<Position>, LogError> {
        let point = |row: &ForkRow| match row {
            ForkRow::Referenced { source: life, at } if *life == source => Some(*at),
            _ => None,
        };
        Ok(self.forks.values().filter_map(point).max())
    }

    fn releases(&self, limit: u32) -> Result<Vec<Release>, LogError> {
        Ok(self.releases.values().take(limit as usize).cloned().collect())
    }

    fn duties(&self) -> Result<Vec<(Duty, UnixMillis)>, LogError> {
        Ok(self.duties.iter().map(|(duty, due)| (*duty, *due)).collect())
    }
}
