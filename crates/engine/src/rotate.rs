//! Rotation: hot extents become a segment in the object store.
//!
//! ```text
//! collect            many rows are kept apart; then, step by step, their bytes, ends and sums
//! begin_rotation     intent: name, range                                         commit 1
//! (put the object)   done, failed, or unknown
//! publish            segment row, checkpoint, no hot rows, no intent             commit 2
//! ```
//!
//! Appends go on meanwhile: they only add rows behind the ones that are collected. Every upload
//! has a name of its own, so a late one can never stand for another. An upload whose outcome is
//! unknown is looked for by the duty `Rotate`: an object that is there as intended is published,
//! any other gets a deletion marker, due when no upload can be under way any more.

use std::collections::BTreeSet;

use protocol::limits::ROW_BYTES_MAX;
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use crate::append::checkpoint;
use crate::life::Phase;
use crate::load::{KEY_END, decode};
use crate::log::{
    Blob, Duty, Framing, Intent, Key, Log, LogError, Marker, RotationRow, SegmentRow, Write,
};
use crate::segments::Stored;
use crate::stream::{Bounds, Current, Stream};
use crate::sums::{BlockSums, sum_of};

/// How long an upload may take before its duty looks whether somebody is still making it.
pub const UPLOAD_PATIENCE_MS: u64 = 60_000;

/// Pause after a failed upload; it doubles up to five minutes.
const UPLOAD_PAUSE_MS: u64 = 1_000;
const UPLOAD_PAUSE_MS_MAX: u64 = 300_000;

/// Deletion waits so many times longer for an object whose upload may still be under way.
const UPLOAD_GRACE_FACTOR: u64 = 10;

/// Appends from which on hot rows are kept apart before they are collected: that writes four rows.
const SEALED_ENDS_MIN: u64 = 16;

/// Rows read in one step of collecting.
const STEP_ROWS: u32 = 1_024;

/// The oldest hot bytes of a life, on their way into a segment.
pub struct Collected<B> {
    generation: Generation,
    from: Position,
    /// How far the bytes have been collected.
    to: Position,
    /// Where to stop; without it the bounds decide.
    until: Option<Position>,
    parts: Vec<B>,
    ends: Vec<u64>,
    sums: BlockSums,
    complete: bool,
}

/// A segment that is ready to be uploaded.
pub struct Sealed<B> {
    generation: Generation,
    from: Position,
    to: Position,
    /// The bytes, in parts.
    pub parts: Vec<B>,
    ends: Vec<u64>,
    sums: Vec<u32>,
}

impl<B> Collected<B> {
    /// Whether there is nothing left to collect.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// What was collected, ready to be uploaded.
    pub fn seal(self) -> Sealed<B> {
        Sealed {
            generation: self.generation,
            from: self.from,
            to: self.to,
            parts: self.parts,
            ends: self.ends,
            sums: self.sums.finish(),
        }
    }
}

impl<B> Sealed<B> {
    /// Size and sum of the object.
    pub fn stored(&self) -> Stored {
        Stored { size: self.to.0.saturating_sub(self.from.0), sum: sum_of(&self.sums) }
    }
}

/// An upload in progress: its intent is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Generation of the life.
    pub generation: Generation,
    /// Name of the object.
    pub name: String,
    /// First position.
    pub from: Position,
    /// Position after the last byte.
    pub to: Position,
}

/// How an upload ended without a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// Nothing was stored, for certain.
    Failed,
    /// Something may be stored, now or later.
    Unknown,
}

/// Name of an object in the store: `{project}/{path}//{generation}/{position}.{attempt}`. Paths
/// have no empty segments, so the name tells whose it is.
#[must_use]
pub fn segment_name(stream: &str, generation: Generation, from: Position, attempt: u64) -> String {
    format!("{stream}//{:016}/{:016}.{attempt}", generation.0, from.0)
}

/// The stream that an object belongs to, as its name tells.
#[must_use]
pub fn stream_of(name: &str) -> Option<&str> {
    name.rsplit_once("//").map(|(stream, _)| stream)
}

impl<L: Log> Stream<L> {
    /// Whether enough is hot for a segment, or the stream is closed, and no upload is under way.
    pub fn rotation_due(&self, now: UnixMillis) -> bool {
        let Some(current) = self.current.as_ref().filter(|_| !self.stale) else { return false };
        let hot = current.hot_bytes();
        let enough = hot >= self.bounds.segment_bytes
            || current.hot_ends >= self.bounds.segment_appends
            || (current.closed.is_closed() && hot > 0);
        let waits = self.duties.get(&Duty::Rotate).is_some_and(|due| *due > now);
        let under_way = self.rotation.as_ref().is_some_and(|row| row.intent.is_some());
        enough && current.life.phase == Phase::Live && !waits && !under_way
    }

    /// Begins to collect the oldest hot bytes; `None` when there are none. Many rows are kept
    /// apart first, so that it costs little to delete them when they have become a segment.
    ///
    /// # Errors
    /// [`LogError`]; nothing is collected.
    pub fn collect(&mut self) -> Result<Option<Collected<L::Bytes>>, LogError> {
        if self.stale {
            self.reload()?;
        }
        let Some(current) = &self.current else { return Ok(None) };
        if current.life.phase != Phase::Live || current.hot_bytes() == 0 {
            return Ok(None);
        }
        let (generation, from, tail) = (current.life.generation, current.cold, current.tail);
        // What an upload that failed has left apart comes first.
        let apart = self.log.last_sealed()?.map(|row| row.end());
        let apart = apart.filter(|end| *end > current.key(from));
        let until = match apart.map(|end| current.life.position(end)) {
            None if self.is_worth_sealing(current) => {
                self.commit(vec![Write::Seal])?;
                Some(tail)
            }
            until => until,
        };
        Ok(Some(Collected::new(generation, from, until)))
    }

    /// Whether the hot rows are many, and not more than one segment should hold.
    fn is_worth_sealing(&self, current: &Current) -> bool {
        let within = |hot: u64, bound: u64| hot <= bound.saturating_mul(2);
        current.hot_ends >= SEALED_ENDS_MIN
            && within(current.hot_ends, self.bounds.segment_appends)
            && within(current.hot_bytes(), self.bounds.segment_bytes)
    }

    /// Begins to collect the very range of an upload.
    pub fn collect_again(&self, rotation: &Rotation) -> Collected<L::Bytes> {
        Collected::new(rotation.generation, rotation.from, Some(rotation.to))
    }

    /// One bounded step of collecting: at most about a megabyte. `false`: the bytes are no longer
    /// hot bytes of the current life; forget what was collected.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn collect_step(&self, collected: &mut Collected<L::Bytes>) -> Result<bool, LogError> {
        let Some(current) = self.current_of(collected.generation) else { return Ok(false) };
        let live = current.life.phase == Phase::Live;
        if self.stale || !live || current.cold != collected.from {
            return Ok(false);
        }
        let from = collected.to;
        let mut length = 0;
        for row in self.log.extents(current.key(from)..KEY_END, STEP_ROWS)? {
            let at = current.life.position(row.key).0.saturating_sub(collected.from.0);
            let head = decode(&row)?;
            let completes = head.completes(row.length);
            collected.ends.extend(head.ends.iter().map(|end| at.saturating_add(*end)));
            length += row.length;
            collected.to = current.life.position(row.end());
            collected.complete = match collected.until {
                Some(until) => collected.to >= until,
                None => completes && collected.is_enough(&self.bounds),
            };
            if collected.complete || length >= ROW_BYTES_MAX {
                break;
            }
        }
        if collected.to == from {
            return Err(LogError::Corrupt(format!("no row holds {}", current.key(from).0)));
        }
        collected.complete |= collected.to >= current.tail;
        let bytes = self.log.read(current.key(from)..current.key(collected.to), Framing::Raw)?;
        collected.sums.update(&bytes.to_vec());
        collected.parts.push(bytes);
        Ok(true)
    }

    /// Stores the intent of an upload; `object` is this stream's own object name. `None` when the
    /// bytes are no longer the oldest hot bytes.
    ///
    /// # Errors
    /// [`LogError`]; nothing is stored.
    pub fn begin_rotation(
        &mut self,
        object: &str,
        sealed: &Sealed<L::Bytes>,
        now: UnixMillis,
    ) -> Result<Option<Rotation>, LogError> {
        self.settle(now)?;
        let live = self
            .current_of(sealed.generation)
            .filter(|current| current.life.phase == Phase::Live && current.cold == sealed.from);
        let under_way = self.rotation.as_ref().is_some_and(|row| row.intent.is_some());
        if live.is_none() || under_way || sealed.to <= sealed.from {
            return Ok(None);
        }
        let (generation, from, to) = (sealed.generation, sealed.from, sealed.to);
        let attempt = self.rotation.as_ref().map_or(0, |row| row.attempt).saturating_add(1);
        let name = segment_name(object, generation, from, attempt);
        let intent = Some(Intent { name: name.clone(), from, to });
        let row = RotationRow { generation, attempt, intent };
        let mut writes = vec![Write::Rotation(row.clone())];
        self.plan_duty(&mut writes, Duty::Rotate, now.saturating_add_ms(UPLOAD_PATIENCE_MS));
        self.rotation = Some(row);
        self.commit(writes)?;
        Ok(Some(Rotation { generation, name, from, to }))
    }

    /// Makes an uploaded object a segment of the log, in the place of its hot rows. `false` when
    /// the upload was given up meanwhile: then its object gets a deletion marker.
    ///
    /// # Errors
    /// [`LogError`]; the duty looks after the upload.
    pub fn publish(
        &mut self,
        rotation: &Rotation,
        sealed: Sealed<L::Bytes>,
        now: UnixMillis,
    ) -> Result<bool, LogError> {
        self.settle(now)?;
        if !self.is_under_way(rotation) || (sealed.from, sealed.to) != (rotation.from, rotation.to)
        {
            return self.mark_stray(rotation, now).map(|()| false);
        }
        let Some(current) = &mut self.current else { return Ok(false) };
        let mut end = current.key(rotation.to);
        if rotation.to == current.tail {
            // A close without bytes has its row at the tail.
            end = Key(end.0.saturating_add(1));
        }
        let keys = current.key(rotation.from)..end;
        let mut writes = vec![Write::Segment(SegmentRow {
            key: current.key(rotation.from),
            length: rotation.to.0.saturating_sub(rotation.from.0),
            name: rotation.name.clone(),
            own: true,
            size: rotation.to.0.saturating_sub(rotation.from.0),
            sums: sealed.sums,
            ends: sealed.ends.clone(),
        })];
        current.cold = rotation.to;
        current.hot_ends = current.hot_ends.saturating_sub(sealed.ends.len() as u64);
        checkpoint(current, &mut writes);
        writes.push(Write::EraseExtents { keys, rows: u32::MAX });
        self.settle_intent(&mut writes);
        self.plan_no_duty(&mut writes, Duty::Rotate);
        self.upload_failures = 0;
        self.commit(writes)?;
        Ok(true)
    }

    /// An object that was stored after its upload was given up, perhaps after its marker was worked
    /// off: it gets another one.
    fn mark_stray(&mut self, rotation: &Rotation, now: UnixMillis) -> Result<(), LogError> {
        if let Some(current) = self.current_of(rotation.generation) {
            let at =
                current.key(rotation.from)..Key(current.key(rotation.from).0.saturating_add(1));
            let names = self.log.segment_names(at, 1)?;
            if names.iter().any(|(name, _)| *name == rotation.name) {
                return Ok(());
            }
        }
        let mut writes = Vec::new();
        self.mark(&mut writes, rotation.name.clone(), now.saturating_add_ms(self.bounds.grace_ms));
        self.commit(writes)
    }

    /// Gives an upload up; the next one is made after a pause.
    ///
    /// # Errors
    /// [`LogError`]; the duty looks after the upload.
    pub fn rotation_failed(
        &mut self,
        rotation: &Rotation,
        upload: Upload,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle(now)?;
        if !self.is_under_way(rotation) {
            return Ok(());
        }
        let mut writes = Vec::new();
        if upload == Upload::Unknown {
            self.mark(&mut writes, rotation.name.clone(), self.upload_grace(now));
        }
        self.settle_intent(&mut writes);
        let pause = UPLOAD_PAUSE_MS
            .saturating_mul(1 << self.upload_failures.min(16))
            .min(UPLOAD_PAUSE_MS_MAX);
        self.upload_failures = self.upload_failures.saturating_add(1);
        self.plan_duty(&mut writes, Duty::Rotate, now.saturating_add_ms(pause));
        self.commit(writes)
    }

    /// The upload whose intent is stored, if one is.
    pub fn interrupted(&self) -> Option<Rotation> {
        let row = self.rotation.as_ref()?;
        let intent = row.intent.as_ref()?;
        Some(Rotation {
            generation: row.generation,
            name: intent.name.clone(),
            from: intent.from,
            to: intent.to,
        })
    }

    /// Plans the end of the current life's rotation; an open upload gets a marker.
    pub(crate) fn plan_no_rotation(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        let Some(row) = self.rotation.take() else { return };
        writes.push(Write::DropRotation(row.generation));
        if let Some(intent) = row.intent {
            self.mark(writes, intent.name, self.upload_grace(now));
        }
        self.plan_no_duty(writes, Duty::Rotate);
    }

    fn upload_grace(&self, now: UnixMillis) -> UnixMillis {
        now.saturating_add_ms(self.bounds.grace_ms.saturating_mul(UPLOAD_GRACE_FACTOR))
    }

    /// Plans a deletion marker.
    pub(crate) fn mark(
        &mut self,
        writes: &mut Vec<Write<L::Bytes>>,
        name: String,
        due: UnixMillis,
    ) {
        writes.push(Write::Marker(Marker { due, name, attempts: 0 }));
        if self.duties.get(&Duty::Sweep).is_none_or(|known| due < *known) {
            self.plan_duty(writes, Duty::Sweep, due);
        }
    }

    fn settle_intent(&mut self, writes: &mut Vec<Write<L::Bytes>>) {
        if let Some(row) = &mut self.rotation {
            row.intent = None;
            writes.push(Write::Rotation(row.clone()));
        }
    }

    fn is_under_way(&self, rotation: &Rotation) -> bool {
        let intent = self.rotation.as_ref().and_then(|row| row.intent.as_ref());
        intent.is_some_and(|intent| intent.name == rotation.name)
            && self.current_of(rotation.generation).is_some()
    }

    fn current_of(&self, generation: Generation) -> Option<&Current> {
        self.current.as_ref().filter(|current| current.life.generation == generation)
    }

    /// Whether a fork up to here would have to copy more hot bytes than it may.
    pub(crate) fn is_too_hot(&self, current: &Current, at: Position) -> bool {
        at.0.saturating_sub(current.cold.0) > self.bounds.fork_copy_bytes_max
    }

    /// Drops the markers of objects that were deleted, or plans the next attempt.
    ///
    /// # Errors
    /// [`LogError`]; they are handed out again.
    pub fn swept(
        &mut self,
        markers: &[Marker],
        deleted: bool,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        if self.stale {
            self.reload()?;
        }
        // One more than are taken away: the first of the others is due next.
        let limit = u32::try_from(markers.len()).unwrap_or(u32::MAX).saturating_add(1);
        let known = self.log.markers(limit)?;
        let taken = |known: &&Marker| {
            markers.iter().any(|marker| (marker.due, &marker.name) == (known.due, &known.name))
        };
        let mut next = known.iter().find(|known| !taken(known)).map(|known| known.due);
        let mut writes = Vec::new();
        for marker in markers {
            writes.push(Write::DropMarker(marker.clone()));
            if !deleted {
                let attempts = marker.attempts.saturating_add(1);
                let pause =
                    UPLOAD_PAUSE_MS.saturating_mul(1 << attempts.min(16)).min(UPLOAD_PAUSE_MS_MAX);
                let due = now.saturating_add_ms(pause);
                writes.push(Write::Marker(Marker { due, attempts, name: marker.name.clone() }));
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        match next {
            Some(next) => self.plan_duty(&mut writes, Duty::Sweep, next),
            None => self.plan_no_duty(&mut writes, Duty::Sweep),
        }
        self.commit(writes)
    }

    /// Names of the objects that wait to be deleted, at most `limit`.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn marked(&self, limit: u32) -> Result<BTreeSet<String>, LogError> {
        Ok(self.log.markers(limit)?.into_iter().map(|marker| marker.name).collect())
    }

    /// Whether an upload of this name is under way.
    pub fn is_intended(&self, name: &str) -> bool {
        let intent = self.rotation.as_ref().and_then(|row| row.intent.as_ref());
        intent.is_some_and(|intent| intent.name == name)
    }
}

impl<B> Collected<B> {
    fn new(generation: Generation, from: Position, until: Option<Position>) -> Self {
        Self {
            generation,
            from,
            to: from,
            until,
            parts: Vec::new(),
            ends: Vec::new(),
            sums: BlockSums::default(),
            complete: false,
        }
    }

    fn is_enough(&self, bounds: &Bounds) -> bool {
        let bytes = self.to.0.saturating_sub(self.from.0);
        bytes >= bounds.segment_bytes || self.ends.len() as u64 >= bounds.segment_appends
    }
}
