//! Delete and expiry (PROTOCOL §5.4), and the erasing of what is left of dead lives.
//!
//! A life that shards still read is held for them: see [`crate::fanout::source`].
//! A life that forks still reference becomes soft-deleted, and what lies behind the highest fork
//! point is erased: nobody can read it any more. Any other is buried: one commit makes
//! it invisible, writes the tombstone, and either erases its few rows or leaves them to the duty
//! `Erase`, which works in bounded steps while the path may already live again. The life's own
//! objects in the store get a deletion marker in the commit that takes their segment away.

use std::ops::Range;

use protocol::offset::Generation;
use protocol::time::UnixMillis;

use crate::life::{Life, Phase, Tombstone};
use crate::load::{KEY_END, LIVES_MAX};
use crate::log::{Duty, Key, Log, LogError, Release, Write};
use crate::stream::{Current, Missing, Stream};

/// Rows erased in one step.
const ERASE_ROWS: u32 = 256;

/// What became of a deleted stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Gone; the path is free.
    Buried,
    /// 410 until its last fork is gone.
    Held,
}

impl<L: Log> Stream<L> {
    /// Deletes the stream.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn delete(&mut self, now: UnixMillis) -> Result<Deleted, Missing> {
        self.live(now)?;
        Ok(self.remove(now)?)
    }

    /// Ends the current life: held for its forks, or buried.
    pub(crate) fn remove(&mut self, now: UnixMillis) -> Result<Deleted, LogError> {
        let Some(current) = &self.current else { return Ok(Deleted::Buried) };
        let has_shards = self.shards.has(current.life.generation);
        let mut writes = Vec::new();
        if self.log.forks_of(current.life.generation, 1)? > 0 {
            self.plan_hold(&mut writes, now);
            self.commit(writes)?;
            self.stale = true;
            return Ok(Deleted::Held);
        }
        if has_shards {
            self.plan_held(&mut writes, now);
        } else {
            self.plan_burial(&mut writes, now, Source::Release)?;
        }
        self.commit(writes)?;
        Ok(Deleted::Buried)
    }

    /// Plans the end of the current life for everybody but its forks.
    fn plan_hold(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        self.plan_no_rotation(writes, now);
        let Some(current) = &mut self.current else { return };
        let has_shards = self.shards.has(current.life.generation);
        current.life.phase = Phase::SoftDeleted;
        if has_shards {
            // Its shards need the bytes behind the fork point for a while.
            current.life.touched = now.max(UnixMillis(1));
            current.life.checkpoint = current.tail;
        }
        writes.push(Write::Life(current.life.clone()));
        // The tail will be cut off, and with it the memory of the keys that were used.
        self.tombstone = self.tombstone.past(current);
        writes.push(Write::Tombstone(self.tombstone));
        self.plan_no_duty(writes, Duty::Expire);
        self.plan_duty(writes, Duty::Erase, now);
        if has_shards {
            self.plan_told_soon(writes, now);
        }
    }

    /// Plans the end of the current life for everybody.
    pub(crate) fn plan_burial(
        &mut self,
        writes: &mut Vec<Write<L::Bytes>>,
        now: UnixMillis,
        source: Source,
    ) -> Result<(), LogError> {
        let Some(current) = &self.current else { return Ok(()) };
        let (mut life, hot) = (current.life.clone(), current.hot_bytes());
        let tombstone = self.tombstone.past(current);
        let keys = life.base..tombstone.next_base;
        let segments = self.log.segment_names(keys.clone(), ERASE_ROWS + 1)?;
        let few = self.log.extents(keys.clone(), ERASE_ROWS + 1)?.len() <= ERASE_ROWS as usize
            && segments.len() <= ERASE_ROWS as usize
            && !self.has_state(life.generation)?;
        // Memory moves on only after the last read, which may fail.
        self.plan_no_rotation(writes, now);
        if source == Source::Release {
            self.plan_release(writes, &life, now);
        }
        writes.push(Write::Tombstone(tombstone));
        if few {
            writes.push(Write::EraseExtents { keys: keys.clone(), rows: ERASE_ROWS });
            self.plan_garbage(writes, keys, segments, now);
            writes.push(Write::DropLife(life.generation));
        } else {
            self.dead_bytes = self.dead_bytes.saturating_add(hot);
            life.phase = Phase::Erasing;
            writes.push(Write::Life(life));
            self.plan_duty(writes, Duty::Erase, now);
        }
        self.plan_no_duty(writes, Duty::Expire);
        self.plan_no_duty(writes, Duty::Fork);
        self.tombstone = tombstone;
        self.current = None;
        Ok(())
    }

    /// Plans that a fork's source is told that it is gone.
    pub(crate) fn plan_release(
        &mut self,
        writes: &mut Vec<Write<L::Bytes>>,
        life: &Life,
        now: UnixMillis,
    ) {
        let Some(origin) = &life.origin else { return };
        let (generation, source) = (life.generation, origin.source.clone());
        writes.push(Write::Release(Release { generation, source, attempts: 0 }));
        self.plan_duty(writes, Duty::Release, now);
    }

    /// Plans the end of the first segments of a dead life: its own objects get a marker each.
    fn plan_garbage(
        &mut self,
        writes: &mut Vec<Write<L::Bytes>>,
        keys: Range<Key>,
        segments: Vec<(String, bool)>,
        now: UnixMillis,
    ) {
        if segments.is_empty() {
            return;
        }
        writes.push(Write::EraseSegments { keys, rows: ERASE_ROWS });
        let due = now.saturating_add_ms(self.bounds.grace_ms);
        for (name, own) in segments.into_iter().take(ERASE_ROWS as usize) {
            if own {
                self.mark(writes, name, due);
            }
        }
    }

    /// Whether the tables of producers and links have rows of a life.
    fn has_state(&self, life: Generation) -> Result<bool, LogError> {
        Ok(self.log.has_producers(life)? || self.log.has_links(life)?)
    }

    /// One bounded step of erasing what lies behind the highest fork point of a soft-deleted life.
    /// `true` when there is more to do.
    fn trim_step(&mut self, now: UnixMillis) -> Result<bool, LogError> {
        let held = self.current.as_ref().filter(|life| life.life.phase == Phase::SoftDeleted);
        let Some(current) = held.filter(|held| !self.is_kept_for_shards(&held.life)) else {
            return Ok(false);
        };
        let generation = current.life.generation;
        let kept = self.log.highest_fork(generation)?.unwrap_or_default();
        let keys = current.key(kept)..KEY_END;
        let segments = self.log.segment_names(keys.clone(), ERASE_ROWS + 1)?;
        let extents = self.log.extents(keys.clone(), ERASE_ROWS + 1)?.len();
        let state = self.has_state(generation)?;
        if segments.is_empty() && extents == 0 && !state {
            return Ok(false);
        }
        let most = segments.len().max(extents);
        let mut writes = vec![
            Write::EraseExtents { keys: keys.clone(), rows: ERASE_ROWS },
            Write::EraseProducers { generation, rows: ERASE_ROWS },
            Write::EraseLinks { life: generation, rows: ERASE_ROWS },
        ];
        self.plan_garbage(&mut writes, keys, segments, now);
        self.commit(writes)?;
        Ok(most > ERASE_ROWS as usize || self.has_state(generation)?)
    }

    /// One bounded step of erasing dead lives. `true` when there is more to do.
    pub(crate) fn erase_step(&mut self, now: UnixMillis) -> Result<bool, LogError> {
        let trims = self.trim_step(now)?;
        let lives = self.log.lives(LIVES_MAX)?;
        let mut doomed = Vec::new();
        let mut end = KEY_END;
        for life in lives {
            let base = life.base;
            let has_rows = life.phase == Phase::Lapsed && self.has_rows(&life, end)?;
            if life.phase == Phase::Erasing || has_rows {
                doomed.push((life, end));
            }
            end = base;
        }
        let mut more = trims || doomed.len() > 1;
        if let Some((life, end)) = doomed.first() {
            more |= !self.erase_life_step(life, *end, now)?;
        }
        // The rows are gone: without the count, memory does not match the log.
        self.dead_bytes = self.count_dead_bytes().inspect_err(|_| self.stale = true)?;
        Ok(more)
    }

    /// Whether there is anything left of a life but its own row.
    fn has_rows(&self, life: &Life, end: Key) -> Result<bool, LogError> {
        let keys = life.base..end;
        Ok(!self.log.extents(keys.clone(), 1)?.is_empty()
            || !self.log.segment_names(keys, 1)?.is_empty()
            || self.has_state(life.generation)?)
    }

    /// Erases up to [`ERASE_ROWS`] rows of each table of a dead life; `true` when it was the rest.
    fn erase_life_step(
        &mut self,
        life: &Life,
        end: Key,
        now: UnixMillis,
    ) -> Result<bool, LogError> {
        let keys = life.base..end;
        let segments = self.log.segment_names(keys.clone(), ERASE_ROWS + 1)?;
        let few = self.log.extents(keys.clone(), ERASE_ROWS + 1)?.len() <= ERASE_ROWS as usize
            && segments.len() <= ERASE_ROWS as usize;
        let state = self.has_state(life.generation)?;
        let mut writes = vec![
            Write::EraseExtents { keys: keys.clone(), rows: ERASE_ROWS },
            Write::EraseProducers { generation: life.generation, rows: ERASE_ROWS },
            Write::EraseLinks { life: life.generation, rows: ERASE_ROWS },
        ];
        self.plan_garbage(&mut writes, keys, segments, now);
        if few && !state && life.phase == Phase::Erasing {
            writes.push(Write::DropLife(life.generation));
        }
        self.commit(writes)?;
        Ok(few && !state)
    }
}

impl Tombstone {
    /// What is to be remembered of a life that ends.
    pub(crate) fn past(self, current: &Current) -> Self {
        // A close without bytes uses the tail's key.
        let next = Key(current.key(current.tail).0.saturating_add(1));
        Self {
            generation: current.life.generation.max(self.generation),
            next_base: next.max(self.next_base),
        }
    }
}

/// Whether a buried fork's source is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It holds, or may hold, a reference.
    Release,
    /// It has refused the reference.
    Unaware,
}
