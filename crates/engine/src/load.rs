//! Loading: the rows of the current life, then the headers since its checkpoint on top.
//!
//! Reads at most the headers of the rows since the last checkpoint, however long the stream is.

use protocol::lifetime::Lifetime;
use protocol::limits::CHECKPOINT_ROWS;
use protocol::offset::Position;
use protocol::time::UnixMillis;

use crate::cold::SegmentCache;
use crate::extent::Head;
use crate::life::{Life, Phase, Tombstone};
use crate::log::{ExtentRow, Key, LinkState, Log, LogError};
use crate::stream::{Current, Stream, touch_slack_ms};

/// Lives looked at: the current one, those that are held, and those still being erased. Older ones
/// wait their turn.
pub(crate) const LIVES_MAX: u32 = 64;

/// Past every key.
pub(crate) const KEY_END: Key = Key(1 << 53);

impl<L: Log> Stream<L> {
    /// Loads everything from the log anew.
    pub(crate) fn reload(&mut self) -> Result<(), LogError> {
        self.stale = true;
        self.tombstone = self.log.tombstone()?.unwrap_or_default();
        self.duties = self.log.duties()?.into_iter().collect();
        // The alarm was set with the duties, in one commit.
        self.alarm = self.duties.values().min().copied();
        self.load_shards()?;
        let newest = self.log.lives(1)?.into_iter().next();
        self.current = match newest {
            Some(life) if life.phase != Phase::Erasing && !life.is_held() => {
                Some(self.load_life(life)?)
            }
            _ => None,
        };
        self.load_held()?;
        self.rotation = match &self.current {
            Some(current) => self.log.rotation(current.life.generation)?,
            None => None,
        };
        self.segment = SegmentCache::default();
        self.last_page = None;
        self.dead_bytes = self.count_dead_bytes()?;
        self.stale = false;
        Ok(())
    }

    /// Hot bytes of the lives that are held or being erased.
    pub(crate) fn count_dead_bytes(&self) -> Result<u64, LogError> {
        let mut bytes = 0u64;
        let mut end = KEY_END;
        for life in self.log.lives(LIVES_MAX)? {
            if life.phase == Phase::Erasing || life.is_held() {
                let keys = life.base..end;
                let first = self.log.extents(keys.clone(), 1)?.first().map(|row| row.key);
                let last = self.log.last_extent(keys)?.map(|row| row.end());
                let length = |first: Key| last.map_or(0, |last| last.0.saturating_sub(first.0));
                bytes = bytes.saturating_add(first.map_or(0, length));
            }
            end = life.base;
        }
        Ok(bytes)
    }

    fn load_life(&self, life: Life) -> Result<Current, LogError> {
        let base = life.base;
        let slack = match life.lifetime {
            Lifetime::Ttl { seconds } => touch_slack_ms(seconds),
            _ => 0,
        };
        let mut current = Current::new(life);
        current.perhaps_touched = current.touched.saturating_add_ms(slack);
        if let Some(last) = self.log.last_segment(base..KEY_END)? {
            current.cold = current.life.position(last.end());
            current.tail = current.cold;
        }
        if let Some(last) = self.log.last_extent(base..KEY_END)? {
            current.tail = current.life.position(last.end());
        }
        if current.life.phase == Phase::SoftDeleted {
            if self.is_kept_for_shards(&current.life) {
                return Ok(current);
            }
            // What lies behind is being erased.
            let kept = self.log.highest_fork(current.life.generation)?.unwrap_or_default();
            current.tail = current.tail.min(kept);
            current.cold = current.cold.min(kept);
            return Ok(current);
        }
        let page = u32::try_from(CHECKPOINT_ROWS).unwrap_or(u32::MAX);
        let mut from = current.life.key(current.life.checkpoint);
        loop {
            let rows = self.log.extents(from..KEY_END, page)?;
            for row in &rows {
                current.replay(row)?;
                from = Key(row.key.0.saturating_add(1));
            }
            if rows.len() < page as usize {
                return Ok(current);
            }
        }
    }

    /// What the next life of this path starts from.
    pub(crate) fn next_life(&self, now: UnixMillis) -> Tombstone {
        let generation = now.0.max(self.tombstone.generation.0.saturating_add(1));
        Tombstone {
            generation: protocol::offset::Generation(generation),
            next_base: self.tombstone.next_base,
        }
    }
}

impl Current {
    /// Applies the header of a row that starts at or after the checkpoint.
    fn replay(&mut self, row: &ExtentRow) -> Result<(), LogError> {
        let head = decode(row)?;
        self.rows += 1;
        self.head_bytes += row.head.len() as u64;
        self.hot_ends += head.ends.len() as u64;
        for producer in &head.producers {
            self.producers.accept(producer);
        }
        for reached in head.links {
            let state = LinkState { epoch: reached.epoch, next: Some(reached.next) };
            self.links.advance(reached.link, state);
        }
        if head.seq.is_some() {
            self.seq = head.seq;
        }
        if head.closes {
            self.closed = crate::life::Closed::By(head.closer);
        }
        if let Some(time) = head.time {
            self.touched = self.touched.max(time);
        }
        Ok(())
    }

    /// Key of a position.
    pub(crate) fn key(&self, position: Position) -> Key {
        self.life.key(position)
    }
}

/// Decodes the header of a row.
pub(crate) fn decode(row: &ExtentRow) -> Result<Head, LogError> {
    Head::decode(&row.head)
        .ok_or_else(|| LogError::Corrupt(format!("the header of extent {}", row.key.0)))
}
