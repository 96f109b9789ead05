//! Delete and expiry (PROTOCOL §5.4), and the erasing of what is left of dead lives.
//!
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
        let mut writes = Vec::new();
        if self.log.forks_of(current.life.generation, 1)? > 0 {
            self.plan_hold(&mut writes, now);
            self.commit(writes)?;
            self.stale = true;
            return Ok(Deleted::Held);
        }
        self.plan_burial(&mut writes, now, Source::Release)?;
        self.commit(writes)?;
        Ok(Deleted::Buried)
    }

    /// Plans the end of the current life for everybody but its forks.
    fn plan_hold(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        self.plan_no_rotation(writes, now);
        let Some(current) = &mut self.current else { return };
        current.life.phase = Phase::SoftDeleted;
        writes.push(Write::Life(current.life.clone()));
        // The tail will be cut off, and with it the memory of the keys that were used.
        self.tombstone = self.tombstone.past(current);
        writes.push(Write::Tombstone(self.tombstone));
        self.plan_no_duty(writes, Duty::Expire);
        self.plan_duty(writes, Duty::Erase, now);
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
        if let (Source::Release, Some(origin)) = (source, &life.origin) {
            let release =
                Release { generation: life.generation, source: origin.source.clone(), attempts: 0 };
            writes.push(Write::Release(release));
            self.plan_duty(writes, Duty::Release, now);
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
        let Some(current) = held else { return Ok(false) };
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
        let mut more =
            trims || lives.iter().filter(|life| life.phase == Phase::Erasing).count() > 1;
        let mut end = KEY_END;
        for life in &lives {
            if life.phase == Phase::Erasing {
                more |= !self.erase_life_step(life, end, now)?;
                break;
            }
            end = life.base;
        }
        // The rows are gone: without the count, memory does not match the log.
        self.dead_bytes = self.count_dead_bytes().inspect_err(|_| self.stale = true)?;
        Ok(more)
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
        if few && !state {
            writes.push(Write::DropLife(life.generation));
        }
        self.commit(writes)?;
        Ok(few && !state)
    }
}

impl Tombstone {
    /// What is to be remembered of a life that ends.
    fn past(self, current: &Current) -> Self {
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
