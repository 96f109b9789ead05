//! Audits: what must be true of an object's disk after every step.
//!
//! An audit reads the disk directly and compares it with the model: the lives, the tiling of the
//! log, its bytes and the ends of appends, what is left of dead lives, relations, duties and the
//! alarm.

use engine::extent::Head;
use engine::life::{Life, Phase};
use engine::log::{Duty, ForkRow, Framing, Key, Log, LogError};
use engine::segments::Stored;
use engine::sums::sum_of;
use protocol::lifetime::Lifetime;
use protocol::limits::SEGMENT_BLOCK_BYTES;

use crate::model::ModelLife;
use crate::object::Object;
use crate::verbs::same_state;
use crate::violation::{Check, Invariant, Violation, ensure};
use crate::world::World;

/// Past every key.
pub(crate) const KEY_END: Key = Key(1 << 53);

/// The disk answers the oracle, or the simulator is broken.
pub(crate) fn sound<T>(outcome: Result<T, LogError>) -> Check<T> {
    outcome.map_err(|error| Violation {
        invariant: Invariant::Tiling,
        detail: format!("the oracle cannot read: {error}"),
    })
}

impl World {
    /// Checks an object's disk, if anything was committed since the last time.
    pub(crate) fn audit(&mut self, at: usize) -> Check {
        let object = &mut self.objects[at];
        let commits = Some(object.counters.commits());
        if object.audited_at == commits {
            return Ok(());
        }
        object.audited_at = commits;
        object.audit().map_err(|violation| Violation {
            detail: format!("{}: {}", object.name, violation.detail),
            ..violation
        })
    }
}

impl Object {
    fn audit(&self) -> Check {
        let lives = sound(self.disk.lives(1_000))?;
        let (current, dead) = match (&self.model.current, lives.split_first()) {
            (Some(life), Some((newest, dead))) if newest.generation == life.generation => {
                ensure!(same_state(newest, life), Answer, "{newest:?} is not the model's");
                if life.phase == Phase::SoftDeleted {
                    self.audit_held(life)?;
                } else {
                    self.audit_log(newest, life)?;
                }
                (Some(newest), dead)
            }
            (Some(life), _) => {
                ensure!(false, AckedReadable, "life {:?} is gone", life.generation);
                return Ok(());
            }
            (None, _) => (None, lives.as_slice()),
        };
        for life in dead {
            let erasing = life.phase == Phase::Erasing;
            ensure!(erasing, Residue, "{:?} {:?} is not dead", life.generation, life.phase);
        }
        self.audit_remains(current, dead)?;
        self.audit_relations()?;
        self.audit_duties(current, dead)
    }

    /// The bytes of a life as they are stored.
    pub(crate) fn stored(&self, life: &ModelLife) -> Check<Vec<u8>> {
        let mut bytes = Vec::new();
        for row in sound(self.disk.segments(Key(life.base)..KEY_END, u32::MAX))? {
            let part = self.store.prefix(&row.name, row.length).unwrap_or_default();
            ensure!(part.len() as u64 == row.length, Shared, "{} is not whole", row.name);
            bytes.extend(part);
        }
        let keys = Key(life.base + bytes.len() as u64)..Key(life.base + life.tail());
        bytes.extend(sound(self.disk.read(keys, Framing::Raw))?);
        Ok(bytes)
    }

    /// What forks have inherited of a held life is there; the rest is gone or waits for its duty.
    fn audit_held(&self, life: &ModelLife) -> Check {
        let kept = self.model.kept();
        let mut bytes = Vec::new();
        let inherited = Key(life.base)..Key(life.base + kept);
        for row in sound(self.disk.segments(inherited.clone(), u32::MAX))? {
            let at = life.base + bytes.len() as u64;
            ensure!(row.key.0 == at, Tiling, "a segment at {} after {at}", row.key.0);
            let part = self.store.prefix(&row.name, row.length).unwrap_or_default();
            ensure!(part.len() as u64 == row.length, Shared, "{} is not whole", row.name);
            bytes.extend(part);
        }
        bytes.truncate(kept as usize);
        let hot = Key(life.base + bytes.len() as u64)..inherited.end;
        bytes.extend(sound(self.disk.read(hot, Framing::Raw))?);
        ensure!(bytes == life.bytes[..kept as usize], OffsetsStable, "inherited bytes changed");
        let erases = sound(self.disk.duties())?.iter().any(|(duty, _)| *duty == Duty::Erase);
        let behind = inherited.end..KEY_END;
        let left = !sound(self.disk.extents(behind.clone(), 1))?.is_empty()
            || !sound(self.disk.segments(behind, 1))?.is_empty();
        ensure!(erases || !left, Duty, "nobody will erase what lies behind {kept}");
        Ok(())
    }

    /// Segments tile the cold bytes; where appends end in them.
    fn audit_segments(&self, life: &ModelLife) -> Check<Vec<u64>> {
        let mut at = 0;
        let mut ends = Vec::new();
        for row in sound(self.disk.segments(Key(life.base)..KEY_END, u32::MAX))? {
            let tiles = row.key.0 == life.base + at && row.length > 0;
            ensure!(tiles, Tiling, "a segment at {} after {at}", row.key.0 - life.base);
            let ascending = row.ends.is_sorted_by(|a, b| a < b);
            let ended = row.ends.first() > Some(&0) && row.ends.last() == Some(&row.length);
            ensure!(ascending && ended, Tiling, "ends {:?} of {}", row.ends, row.length);
            let stored = self.store.head(&row.name);
            let sums = row.sums.len() as u64 == row.length.div_ceil(SEGMENT_BLOCK_BYTES);
            let whole = row.length == row.size;
            let same = stored == Some(Stored { size: row.size, sum: sum_of(&row.sums) });
            ensure!(sums && (same || !whole), Tiling, "{row:?} is {stored:?}");
            ensure!(whole || !row.own, Tiling, "{row:?} is not whole");
            ends.extend(row.ends.iter().map(|end| at + end));
            at += row.length;
        }
        ensure!(at == life.cold, Tiling, "segments up to {at}, not {}", life.cold);
        Ok(ends)
    }

    /// Extents tile the log, and hold the model's bytes and ends.
    fn audit_log(&self, found: &Life, life: &ModelLife) -> Check {
        let rows = sound(self.disk.extents(Key(life.base)..KEY_END, u32::MAX))?;
        let mut ends = self.audit_segments(life)?;
        let mut at = life.base + life.cold;
        let mut hot_ends = 0;
        for row in &rows {
            ensure!(row.key.0 == at, Tiling, "a row at {} after {at}", row.key.0);
            let head = Head::decode(&row.head);
            ensure!(head.is_some(), Tiling, "the header at {at} does not decode");
            let head = head.unwrap_or_default();
            ensure!(row.length > 0 || head.closes, Tiling, "an empty row at {at}");
            if row.key.0 < found.key(found.checkpoint).0 {
                hot_ends += head.ends.len() as u64;
            }
            ends.extend(head.ends.iter().map(|end| at + end - life.base));
            at += row.length;
        }
        let counted = life.phase == Phase::Forking || hot_ends == found.hot_ends;
        ensure!(counted, Tiling, "{hot_ends} hot ends, not {}", found.hot_ends);
        let tail = at - life.base;
        ensure!(tail == life.tail(), Tail, "tail {tail}, not {}", life.tail());
        let last_completes =
            life.phase == Phase::Forking || tail == 0 || ends.last() == Some(&tail);
        ensure!(last_completes, Tiling, "the last append does not end at the tail");
        let stored = self.stored(life)?;
        ensure!(stored == life.bytes, OffsetsStable, "stored bytes changed");
        if !life.content_type.is_json() && life.phase != Phase::Forking {
            let same = ends.iter().eq(life.ends.iter());
            ensure!(same, Tiling, "ends {ends:?}, not {:?}", life.ends);
        }
        Ok(())
    }

    /// Nothing of a dead life is left but what a duty is erasing, and the tombstone knows it.
    fn audit_remains(&self, current: Option<&Life>, dead: &[Life]) -> Check {
        if dead.is_empty() {
            let end = current.map_or(KEY_END, |life| life.base);
            let left = sound(self.disk.extents(Key(0)..end, 1))?;
            ensure!(left.is_empty(), Residue, "rows of a dead life: {left:?}");
            let left = sound(self.disk.segments(Key(0)..end, 1))?;
            ensure!(left.is_empty(), Residue, "segments of a dead life: {left:?}");
            for generation in self.model.dead.iter().rev().take(4) {
                let left = sound(self.disk.rotation(*generation))?;
                ensure!(left.is_none(), Residue, "a rotation of a dead life: {left:?}");
                let left = sound(self.disk.has_producers(*generation))?;
                ensure!(!left, Residue, "producers of the dead life {generation:?}");
            }
        }
        let tombstone = sound(self.disk.tombstone())?.unwrap_or_default();
        let highest = self.model.dead.iter().max().copied().unwrap_or_default();
        let knows = tombstone.generation >= highest && tombstone.next_base.0 >= self.model.keys_end;
        ensure!(knows, OffsetsStable, "{tombstone:?} forgets {highest:?}");
        Ok(())
    }

    fn audit_relations(&self) -> Check {
        for (id, row) in &self.model.forks {
            let found = sound(self.disk.fork(id))?;
            let same = match row {
                ForkRow::Referenced { .. } => found.as_ref() == Some(row),
                ForkRow::Refused => !matches!(found, Some(ForkRow::Referenced { .. })),
            };
            ensure!(same, Fork, "{id:?} is {found:?}, not {row:?}");
        }
        let stored = sound(self.disk.releases(1_000))?;
        let pairs = stored.iter().map(|release| (&release.generation, &release.source));
        let same = pairs.eq(self.model.releases.iter());
        ensure!(same, Fork, "releases {stored:?}, not {:?}", self.model.releases);
        Ok(())
    }

    /// Whatever waits has a duty, and the alarm does not come later than the first duty.
    fn audit_duties(&self, current: Option<&Life>, dead: &[Life]) -> Check {
        let duties = sound(self.disk.duties())?;
        let has = |wanted: Duty| duties.iter().any(|(duty, _)| *duty == wanted);
        let phase = current.map(|life| life.phase);
        let ends = current.is_some_and(|life| life.lifetime != Lifetime::Unlimited);
        let expires = phase == Some(Phase::Live) && ends;
        ensure!(!expires || has(Duty::Expire), Duty, "nobody will let the stream expire");
        let erases = !dead.is_empty();
        ensure!(!erases || has(Duty::Erase), Duty, "nobody will erase {}", dead.len());
        let forks = phase == Some(Phase::Forking);
        ensure!(!forks || has(Duty::Fork), Duty, "nobody will look after the fork");
        let releases = !self.model.releases.is_empty();
        ensure!(!releases || has(Duty::Release), Duty, "nobody will tell the source");
        let marked = !sound(self.disk.markers(1))?.is_empty();
        ensure!(!marked || has(Duty::Sweep), Duty, "nobody will delete what is marked");
        let rotation = current.map(|life| self.disk.rotation(life.generation));
        let rotation = rotation.map_or(Ok(None), sound)?;
        let intends = rotation.is_some_and(|rotation| rotation.intent.is_some());
        ensure!(!intends || has(Duty::Rotate), Duty, "nobody will look after the upload");
        if let Some(due) = duties.iter().map(|(_, due)| *due).min() {
            let alarm = self.disk.alarm();
            let retried = alarm.is_some() && alarm == self.retry_at;
            let in_time = retried || alarm.is_some_and(|alarm| alarm <= due);
            ensure!(in_time, Duty, "the alarm is at {alarm:?}, a duty at {due}: {duties:?}");
        }
        Ok(())
    }
}
