//! The source's side of a fork: references, what the fork inherits, releases.

use protocol::json::nth_message_end;
use protocol::limits::{FORK_DEPTH_MAX, FORK_SUB_OFFSET_BYTES_MAX, ROW_BYTES_MAX};
use protocol::offset::{Generation, OffsetParam, Position};
use protocol::time::UnixMillis;

use super::{Copied, CopyPage, CopyRequest, ForkError, ForkGrant, ForkRequest, Lent, Loan};
use crate::delete::Source;
use crate::life::{Inherited, Phase};
use crate::load::{KEY_END, decode};
use crate::log::{Blob, Duty, ForkId, ForkRow, Framing, Key, Log, LogError, SegmentRow, Write};
use crate::offsets::OffsetError;
use crate::stream::{Current, Missing, Stream};

impl<L: Log> Stream<L> {
    /// Stores a reference and says what the fork inherits. Asking twice is one reference.
    ///
    /// # Errors
    /// [`ForkError`]; no reference is stored.
    pub fn reference(
        &mut self,
        request: &ForkRequest,
        lent: Option<&Lent>,
        now: UnixMillis,
    ) -> Result<ForkGrant, ForkError> {
        self.live(now).map_err(ForkError::Missing)?;
        let Some(current) = &self.current else {
            return Err(ForkError::Missing(Missing::NotFound));
        };
        let known = self.log.fork(&request.child)?;
        let at = match known {
            Some(ForkRow::Refused) => return Err(ForkError::Refused),
            Some(ForkRow::Referenced { at, .. }) => at,
            None => self.fork_point_of(current, request, lent)?,
        };
        if known.is_none() && self.is_too_hot(current, at) {
            return Err(ForkError::TooHot);
        }
        let grant = current.grant(at);
        if grant.lineage.len() as u64 > FORK_DEPTH_MAX {
            return Err(ForkError::TooDeep);
        }
        if request.child.generation <= grant.source {
            let at_least = Generation(grant.source.0.saturating_add(1));
            return Err(ForkError::GenerationTooLow { at_least });
        }
        if known.is_none() {
            let row = ForkRow::Referenced { source: grant.source, at };
            self.commit(vec![Write::Fork(request.child.clone(), row)])?;
        }
        Ok(grant)
    }

    /// The next part of what a fork inherits; reads a soft-deleted source as well.
    ///
    /// # Errors
    /// [`Missing::NotFound`] when the life of that generation is gone.
    pub fn copy(&mut self, request: CopyRequest) -> Result<Copied<L::Bytes>, Missing> {
        if self.stale {
            self.reload()?;
        }
        let CopyRequest { source, cold, from, to } = request;
        // A held source has nothing behind its highest fork point.
        let has = |current: &&Current| current.life.generation == source && from < current.tail;
        let Some(current) = self.current.as_ref().filter(has) else {
            return Err(Missing::NotFound);
        };
        let to = to.min(current.tail);
        if from >= current.cold {
            return Ok(Copied::Page(self.copy_hot(current, from, to)?));
        }
        if from != cold {
            return Ok(Copied::Restart);
        }
        let end = current.key(to);
        let rows = self.log.segments(current.key(from)..end, COPY_SEGMENTS)?;
        let shared = |row: SegmentRow| {
            let row = row.cut(end);
            SegmentRow { key: Key(current.life.position(row.key).0), own: false, ..row }
        };
        Ok(Copied::Segments(rows.into_iter().map(shared).collect()))
    }

    fn copy_hot(
        &self,
        current: &Current,
        from: Position,
        to: Position,
    ) -> Result<CopyPage<L::Bytes>, LogError> {
        let wanted = to.min(current.tail);
        let to = wanted.min(Position(from.0.saturating_add(ROW_BYTES_MAX)));
        let start =
            self.row_at(current, current.key(from))?.map_or(current.key(from), |row| row.key);
        let mut ends = Vec::new();
        let mut end = from;
        for row in self.log.extents(start..current.key(to), COPY_ROWS)? {
            for relative in decode(&row)?.ends {
                let position = current.life.position(Key(row.key.0.saturating_add(relative)));
                if position > from && position <= to {
                    ends.push(position.0.saturating_sub(from.0));
                }
            }
            end = current.life.position(row.end()).min(to);
            if ends.len() >= COPY_ENDS {
                break;
            }
        }
        // Pages end where appends do, or reads of a JSON fork would find no place to stop.
        if let Some(last) = ends.last().filter(|_| end < wanted) {
            end = Position(from.0.saturating_add(*last));
        }
        let bytes = self.log.read(current.key(from)..current.key(end), Framing::Raw)?;
        Ok(CopyPage { from, bytes, ends })
    }

    /// Forgets a fork. The last one takes a soft-deleted source along. Doing it twice is once.
    ///
    /// # Errors
    /// [`LogError`]; the fork has to ask again.
    pub fn release(&mut self, child: &ForkId, now: UnixMillis) -> Result<(), LogError> {
        self.settle(now)?;
        let source = match self.log.fork(child)? {
            Some(ForkRow::Refused) => return Ok(()),
            None => return self.commit(vec![Write::Fork(child.clone(), ForkRow::Refused)]),
            Some(ForkRow::Referenced { source, .. }) => source,
        };
        let last = self.log.forks_of(source, 2)? <= 1;
        let held = self.current.as_ref().is_some_and(|current| {
            current.life.phase == Phase::SoftDeleted && current.life.generation == source
        });
        // The row stays, so that a late copy of the reference is refused.
        let mut writes = vec![Write::Fork(child.clone(), ForkRow::Refused)];
        if last && held && self.shards.has(source) {
            self.plan_held(&mut writes, now);
        } else if last && held {
            self.plan_burial(&mut writes, now, Source::Release)?;
        } else if held {
            // The highest fork point may be lower now.
            self.plan_duty(&mut writes, Duty::Erase, now);
        }
        self.stale |= held;
        self.commit(writes)
    }

    fn fork_point_of(
        &self,
        current: &Current,
        request: &ForkRequest,
        lent: Option<&Lent>,
    ) -> Result<Position, ForkError> {
        let expected = &current.life.content_type;
        if request.content_type.as_ref().is_some_and(|sent| !sent.same_media_type(expected)) {
            return Err(ForkError::ContentType { expected: expected.clone() });
        }
        let offset = request.offset.unwrap_or(OffsetParam::Now);
        let anchor = match self.resolve(current, offset) {
            Ok(anchor) => anchor,
            Err(OffsetError::Log(error)) => return Err(error.into()),
            Err(error) => return Err(ForkError::Offset(error)),
        };
        if request.sub_offset == 0 {
            return Ok(anchor);
        }
        let refined = match current.is_json() {
            true => self.messages_past(current, anchor, request.sub_offset, lent)?,
            false => self.bytes_past(current, anchor, request.sub_offset)?,
        };
        refined.ok_or(ForkError::SubOffset)
    }

    /// The end of the `count`-th message past the anchor, if the log holds so many within
    /// `FORK_SUB_OFFSET_BYTES_MAX`.
    fn messages_past(
        &self,
        current: &Current,
        anchor: Position,
        count: u64,
        lent: Option<&Lent>,
    ) -> Result<Option<Position>, ForkError> {
        let limit = anchor.0.saturating_add(FORK_SUB_OFFSET_BYTES_MAX).min(current.tail.0);
        let (mut from, mut missing) = (anchor.0, count);
        let generation = current.life.generation;
        if let Some(lent) = lent.filter(|lent| lent.generation == generation) {
            if let Some(end) = nth_message_end(&lent.bytes, lent.missing) {
                return Ok(Some(Position(lent.from.0.saturating_add(end as u64))));
            }
            let seen = lent.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            missing = lent.missing.saturating_sub(seen);
            from = lent.from.0.saturating_add(lent.bytes.len() as u64);
        }
        let cold = current.cold.0.min(limit);
        if from < cold {
            let to = from.saturating_add(self.bounds.lend_bytes).min(cold);
            return Err(ForkError::Lend(Loan { range: Position(from)..Position(to), missing }));
        }
        while from < limit {
            let to = from.saturating_add(ROW_BYTES_MAX).min(limit);
            let keys = current.key(Position(from))..current.key(Position(to));
            let bytes = self.log.read(keys, Framing::Raw)?.to_vec();
            if let Some(end) = nth_message_end(&bytes, missing) {
                return Ok(Some(Position(from.saturating_add(end as u64))));
            }
            let seen = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            missing = missing.saturating_sub(seen);
            from = to;
        }
        Ok(None)
    }

    /// `count` bytes past the anchor, if the append that holds the anchor's next byte is so long.
    fn bytes_past(
        &self,
        current: &Current,
        anchor: Position,
        count: u64,
    ) -> Result<Option<Position>, LogError> {
        let wanted = Position(anchor.0.saturating_add(count));
        if anchor < current.cold {
            let end = self.next_cold_end(current, anchor)?;
            return Ok((wanted <= end).then_some(wanted));
        }
        let mut row = self.row_at(current, current.key(anchor))?;
        while let Some(candidate) = row.filter(|_| wanted <= current.tail) {
            for relative in decode(&candidate)?.ends {
                let end = current.life.position(Key(candidate.key.0.saturating_add(relative)));
                if end > anchor {
                    return Ok((wanted <= end).then_some(wanted));
                }
            }
            let next = candidate.end()..KEY_END;
            row = self.log.extents(next, 1)?.into_iter().next();
        }
        Ok(None)
    }
}

/// Rows looked at for one page of a copy.
const COPY_ROWS: u32 = 1_024;

/// Segments handed out at a time.
const COPY_SEGMENTS: u32 = 32;

/// Append ends after which a page of a copy is full: they become the header of one row.
const COPY_ENDS: usize = 65_536;

impl Current {
    fn grant(&self, at: Position) -> ForkGrant {
        let mut lineage: Vec<Inherited> = Vec::new();
        let inherited = self.life.origin.iter().flat_map(|origin| origin.lineage.iter().copied());
        let own = Inherited { generation: self.life.generation, end: at };
        for stretch in inherited.chain([own]) {
            if lineage.last().is_none_or(|last| last.end < at) {
                lineage.push(Inherited { end: stretch.end.min(at), ..stretch });
            }
        }
        ForkGrant {
            source: self.life.generation,
            at,
            content_type: self.life.content_type.clone(),
            lifetime: self.life.lifetime,
            lineage,
        }
    }
}
