//! The naive model's rules for offsets, fork points and references.

use engine::fork::{ForkError, ForkGrant, ForkRequest};
use engine::life::{Inherited, Phase};
use engine::log::{ForkId, ForkRow};
use engine::offsets::OffsetError;
use protocol::limits::{FORK_DEPTH_MAX, FORK_SUB_OFFSET_BYTES_MAX};
use protocol::offset::{Generation, Offset, OffsetParam, Position};

use crate::model::{ModelLife, ModelPath};

impl ModelLife {
    fn is_end(&self, position: u64) -> bool {
        self.ends.contains(&position)
    }

    /// The position that an offset names.
    ///
    /// # Errors
    /// The refusal that the design asks for.
    pub fn resolve(&self, param: OffsetParam) -> Result<u64, OffsetError> {
        let tail = self.tail();
        let offset = match param {
            OffsetParam::Start | OffsetParam::At(Offset::ZERO) => return Ok(0),
            OffsetParam::Now => return Ok(tail),
            OffsetParam::At(offset) => offset,
        };
        let position = offset.position.0;
        let json = self.content_type.is_json();
        let before = position.saturating_sub(1);
        let own_label = self.offset(position) == offset;
        // One past the last byte of a stretch of offsets, of the same generation.
        let same_label = position > 0 && self.offset(before).generation == offset.generation;
        if !json
            && same_label
            && (before == tail || (!own_label && self.fork_point == Some(before)))
        {
            return Ok(before);
        }
        if position > tail && (own_label || self.offset(tail).generation == offset.generation) {
            return Err(OffsetError::BeyondTail { tail: self.offset(tail) });
        }
        if !own_label {
            let foreign = offset.generation > self.generation;
            return Err(if foreign { OffsetError::Invalid } else { OffsetError::Stale });
        }
        if position == 0 || position == tail || self.fork_point == Some(position) {
            return Ok(position);
        }
        match json {
            true if self.bytes[before as usize] == b'\n' => Ok(position),
            true => Err(OffsetError::Invalid),
            false if !self.is_end(position) && self.is_end(before) => Ok(before),
            false => Ok(position),
        }
    }

    /// `count` messages or bytes past an anchor.
    fn past(&self, anchor: u64, count: u64) -> Option<u64> {
        if count == 0 {
            return Some(anchor);
        }
        if !self.content_type.is_json() {
            let wanted = anchor + count;
            let end = self.ends.range(anchor + 1..).next().copied()?;
            return (wanted <= end).then_some(wanted);
        }
        let reach = self.tail().min(anchor + FORK_SUB_OFFSET_BYTES_MAX) as usize;
        let ends = (anchor as usize..reach).filter(|at| self.bytes[*at] == b'\n');
        ends.map(|at| at as u64 + 1).nth(count as usize - 1)
    }

    fn grant(&self, at: u64) -> ForkGrant {
        let mut lineage = Vec::new();
        for stretch in &self.stretches {
            let covered = lineage.last().is_some_and(|last: &Inherited| last.end.0 >= at);
            if !covered {
                lineage.push(Inherited { end: stretch.end.min(Position(at)), ..*stretch });
            }
        }
        if lineage.last().is_none_or(|last| last.end.0 < at) {
            lineage.push(Inherited { generation: self.generation, end: Position(at) });
        }
        ForkGrant {
            source: self.generation,
            at: Position(at),
            content_type: self.content_type.clone(),
            lifetime: self.lifetime,
            lineage,
        }
    }
}

impl ModelPath {
    /// Judges a fork's question and, if it is granted, stores the reference.
    ///
    /// # Errors
    /// The refusal that the design asks for.
    pub fn reference(&mut self, request: &ForkRequest) -> Result<ForkGrant, ForkError> {
        let known = self.forks.get(&request.child).cloned();
        let life = self.live().map_err(ForkError::Missing)?;
        let at = match known {
            Some(ForkRow::Refused) => return Err(ForkError::Refused),
            Some(ForkRow::Referenced { at, .. }) => at.0,
            None => {
                let expected = life.content_type.clone();
                let sent = request.content_type.as_ref();
                if sent.is_some_and(|sent| sent.essence() != expected.essence()) {
                    return Err(ForkError::ContentType { expected });
                }
                let anchor = life.resolve(request.offset.unwrap_or(OffsetParam::Now));
                let anchor = anchor.map_err(ForkError::Offset)?;
                life.past(anchor, request.sub_offset).ok_or(ForkError::SubOffset)?
            }
        };
        if known.is_none() && at.saturating_sub(life.cold) > life.copy_max {
            return Err(ForkError::TooHot);
        }
        let grant = life.grant(at);
        if grant.lineage.len() as u64 > FORK_DEPTH_MAX {
            return Err(ForkError::TooDeep);
        }
        if request.child.generation <= grant.source {
            return Err(ForkError::GenerationTooLow { at_least: Generation(grant.source.0 + 1) });
        }
        let row = ForkRow::Referenced { source: grant.source, at: Position(at) };
        self.forks.insert(request.child.clone(), row);
        Ok(grant)
    }
}

impl ModelPath {
    /// A fork is gone, or was given up: it is refused from now on, and the last one takes a
    /// soft-deleted source along.
    pub fn release(&mut self, child: &ForkId) {
        let before = self.forks.insert(child.clone(), ForkRow::Refused);
        let Some(ForkRow::Referenced { source, .. }) = before else { return };
        let held = self
            .current
            .as_ref()
            .is_some_and(|life| life.phase == Phase::SoftDeleted && life.generation == source);
        if held && self.references(source) == 0 {
            self.bury(true);
        }
    }
}
