//! Cold bytes: segments of the log that lie in the object store.
//!
//! The log of a life is a row of segments and then hot extents; `Current::cold` is where the one
//! ends and the other begins. The object never carries cold bytes: it says where they are, a
//! [`Locator`], and whoever answers the client fetches whole blocks, verifies and trims them.
//!
//! A segment begins and ends where appends do, and its row lists the ends in between, so the
//! object decides where a cold page ends without looking at its bytes.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use protocol::limits::SEGMENT_BLOCK_BYTES;
use protocol::offset::{OffsetParam, Position};
use protocol::time::UnixMillis;

use crate::load::KEY_END;
use crate::log::{Key, Log, LogError, SegmentRow};
use crate::read::ReadError;
use crate::stream::{Current, Missing, Stream};

/// Where bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<B> {
    /// Here.
    Hot(B),
    /// In the object store.
    Cold(Locator),
}

/// A range of an object in the store, and how to check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Name of the object.
    pub name: String,
    /// Bytes of the object.
    pub size: u64,
    /// The wanted bytes.
    pub range: Range<u64>,
    /// CRC-32C of each block that the range touches, see [`Locator::blocks`].
    pub sums: Vec<u32>,
}

impl Locator {
    /// The range in whole blocks: what has to be fetched so that it can be checked.
    #[must_use]
    pub fn blocks(&self) -> Range<u64> {
        let start = self.range.start - self.range.start % SEGMENT_BLOCK_BYTES;
        let end = self.range.end.div_ceil(SEGMENT_BLOCK_BYTES).saturating_mul(SEGMENT_BLOCK_BYTES);
        start..end.min(self.size)
    }

    /// A part of the range, as far as it lies within: `range` counts from the range's start.
    #[must_use]
    pub fn part(&self, range: Range<u64>) -> Self {
        let end = self.range.end.min(self.range.start.saturating_add(range.end));
        let start = self.range.start.saturating_add(range.start).min(end);
        let first = self.range.start / SEGMENT_BLOCK_BYTES;
        let block = |at: u64| usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX);
        let blocks = block(start / SEGMENT_BLOCK_BYTES)..block(end.div_ceil(SEGMENT_BLOCK_BYTES));
        Self {
            name: self.name.clone(),
            size: self.size,
            range: start..end,
            sums: self.sums.get(blocks).unwrap_or_default().to_vec(),
        }
    }
}

/// The segment whose row was read last: several questions of one request ask for the same.
pub(crate) type SegmentCache = RefCell<Option<Rc<SegmentRow>>>;

impl SegmentRow {
    /// The row without what lies at or after a key inside it: what a fork inherits of it.
    pub(crate) fn cut(mut self, end: Key) -> Self {
        let length = end.0.saturating_sub(self.key.0);
        if length < self.length {
            self.length = length;
            self.ends.retain(|end| *end < length);
            self.ends.push(length);
            let blocks = length.div_ceil(SEGMENT_BLOCK_BYTES);
            self.sums.truncate(usize::try_from(blocks).unwrap_or(usize::MAX));
        }
        self
    }

    fn locate(&self, keys: Range<Key>) -> Locator {
        let at = |key: Key| key.0.saturating_sub(self.key.0);
        let range = at(keys.start)..at(keys.end);
        let first = usize::try_from(range.start / SEGMENT_BLOCK_BYTES).unwrap_or(usize::MAX);
        let last = usize::try_from(range.end.div_ceil(SEGMENT_BLOCK_BYTES)).unwrap_or(usize::MAX);
        Locator {
            name: self.name.clone(),
            size: self.size,
            range,
            sums: self.sums.get(first..last).unwrap_or_default().to_vec(),
        }
    }
}

impl<L: Log> Stream<L> {
    /// The segment that holds the byte at a position of the current life.
    pub(crate) fn segment_at(
        &self,
        current: &Current,
        position: Position,
    ) -> Result<Rc<SegmentRow>, LogError> {
        let key = current.key(position);
        let holds = |row: &Rc<SegmentRow>| (row.key..row.end()).contains(&key);
        let known = self.segment.try_borrow().ok().and_then(|known| known.clone());
        if let Some(row) = known.filter(holds) {
            return Ok(row);
        }
        let keys = current.life.base..Key(key.0.saturating_add(1));
        let row = self.log.last_segment(keys)?.map(Rc::new).filter(holds);
        let row = row.ok_or_else(|| LogError::Corrupt(format!("no segment holds {}", key.0)))?;
        if let Ok(mut known) = self.segment.try_borrow_mut() {
            *known = Some(Rc::clone(&row));
        }
        Ok(row)
    }

    /// Whether an append ended at a position that is not past the cold bytes.
    pub(crate) fn is_cold_end(
        &self,
        current: &Current,
        position: Position,
    ) -> Result<bool, LogError> {
        let before = Position(position.0.saturating_sub(1));
        let row = self.segment_at(current, before)?;
        let end = current.key(position).0.saturating_sub(row.key.0);
        Ok(row.ends.binary_search(&end).is_ok())
    }

    /// The first end of an append past a cold position.
    pub(crate) fn next_cold_end(
        &self,
        current: &Current,
        position: Position,
    ) -> Result<Position, LogError> {
        let row = self.segment_at(current, position)?;
        let at = current.key(position).0.saturating_sub(row.key.0);
        let next = row.ends.partition_point(|end| *end <= at);
        let end = row.ends.get(next).copied().unwrap_or(row.length);
        Ok(current.life.position(Key(row.key.0.saturating_add(end))))
    }

    /// Where a page that begins at a cold position ends: in the same segment, at the last end of
    /// an append within the chunk, or, when there is none, at the first one after it. A page of a
    /// stream that is neither JSON nor text may end inside an append.
    pub(crate) fn cold_page_end(
        &self,
        current: &Current,
        from: Position,
        chunk: u64,
    ) -> Result<Position, LogError> {
        let row = self.segment_at(current, from)?;
        let position = |end: u64| current.life.position(Key(row.key.0.saturating_add(end)));
        let at = current.key(from).0.saturating_sub(row.key.0);
        let target = at.saturating_add(chunk);
        if target >= row.length {
            return Ok(position(row.length));
        }
        if !current.is_json() && !current.life.content_type.is_text() {
            let aligned = self.align_yjs(current, position(target))?;
            return Ok(if aligned > from { aligned } else { position(target.saturating_add(1)) });
        }
        let within = row.ends.partition_point(|end| *end <= target);
        let last = within.checked_sub(1).and_then(|last| row.ends.get(last)).copied();
        match last.filter(|last| *last > at) {
            Some(last) => Ok(position(last)),
            None => self.next_cold_end(current, from),
        }
    }

    /// Where the bytes of a range are that lies in one segment.
    pub(crate) fn locate_cold(
        &self,
        current: &Current,
        from: Position,
        to: Position,
    ) -> Result<Locator, LogError> {
        let row = self.segment_at(current, from)?;
        Ok(row.locate(current.key(from)..current.key(to)))
    }

    /// The pieces of a cold range of the current life, in order.
    ///
    /// # Errors
    /// [`Missing`] when there is no such life any more.
    pub fn pieces(&mut self, range: Range<Position>) -> Result<Vec<Locator>, Missing> {
        let Some(current) = &self.current else { return Err(Missing::NotFound) };
        let end = range.end.min(current.cold);
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < end {
            let row = self.segment_at(current, at)?;
            let to = current.life.position(row.end()).min(end);
            pieces.push(row.locate(current.key(at)..current.key(to)));
            at = to;
        }
        Ok(pieces)
    }

    /// Where the byte is that tells whether a cold offset of a JSON stream is one: it follows a
    /// line end. `None` when the answer is known without it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn boundary(
        &mut self,
        offset: OffsetParam,
        now: UnixMillis,
    ) -> Result<Option<Locator>, ReadError> {
        self.live(now)?;
        let Some(current) = &self.current else { return Err(Missing::NotFound.into()) };
        let OffsetParam::At(named) = offset else { return Ok(None) };
        if !current.is_json() || named.position.0 == 0 || named.position >= current.cold {
            return Ok(None);
        }
        let position = self.resolve(current, offset)?;
        if Some(position) == current.fork_point() || self.is_cold_end(current, position)? {
            return Ok(None);
        }
        let before = Position(position.0.saturating_sub(1));
        Ok(Some(self.locate_cold(current, before, position)?))
    }

    /// The segments of all lives, for whoever compares the store with the log. In pages; `after` is
    /// the key that the last page ended with.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn references(&self, after: Option<Key>, limit: u32) -> Result<Vec<SegmentRow>, LogError> {
        let from = after.map_or(Key(0), |key| Key(key.0.saturating_add(1)));
        self.log.segments(from..KEY_END, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A part is what the segment's row would have located.
        #[test]
        fn a_part_has_the_sums_of_its_blocks(
            size in 1..2_000_000_u64, cuts in prop::array::uniform4(0.0..1.0_f64),
        ) {
            let at = |within: &Range<u64>, cut: f64| {
                within.start + ((within.end - within.start) as f64 * cut) as u64
            };
            let ordered = |a: u64, b: u64| a.min(b)..a.max(b);
            let sums: Vec<u32> = (0..size.div_ceil(SEGMENT_BLOCK_BYTES)).map(|n| n as u32).collect();
            let located = |range: Range<u64>| {
                let last = range.end.div_ceil(SEGMENT_BLOCK_BYTES) as usize;
                let sums = sums[(range.start / SEGMENT_BLOCK_BYTES) as usize..last].to_vec();
                Locator { name: "s".into(), size, range, sums }
            };
            let [a, b, c, d] = cuts;
            let whole = ordered(at(&(0..size), a), at(&(0..size), b));
            let part = ordered(at(&whole, c), at(&whole, d));
            let relative = part.start - whole.start..part.end - whole.start;
            prop_assert_eq!(located(whole.clone()).part(relative), located(part));
            let beyond = located(whole.clone()).part(0..u64::MAX);
            prop_assert_eq!(beyond, located(whole));
        }
    }
}
