//! Offsets to positions and back, in one offset space with the streams a fork came from.
//!
//! Positions up to a fork point carry the generations of the streams they were written to, the
//! fork's own carry its own: strictly increasing, and every offset names one position.

use protocol::offset::{Generation, Offset, OffsetParam, Position};

use crate::load::decode;
use crate::log::{Blob, Framing, Key, Log, LogError};
use crate::stream::{Current, Stream};

/// Why an offset names no position of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetError {
    /// Of an earlier life of the path, or of a source past the fork point.
    Stale,
    /// Past the tail.
    BeyondTail {
        /// The tail.
        tail: Offset,
    },
    /// Not at a message boundary of a JSON stream, or never handed out.
    Invalid,
    /// The log failed.
    Log(LogError),
}

impl From<LogError> for OffsetError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl Current {
    /// The offset that clients see for a position.
    pub(crate) fn offset(&self, position: Position) -> Offset {
        let inherited = self
            .life
            .origin
            .as_ref()
            .and_then(|origin| origin.lineage.iter().find(|stretch| position <= stretch.end));
        let generation = inherited.map_or(self.life.generation, |stretch| stretch.generation);
        Offset { generation, position }
    }

    pub(crate) fn tail_offset(&self) -> Offset {
        self.offset(self.tail)
    }

    /// Last inherited position; `None` for a stream that is no fork.
    pub(crate) fn fork_point(&self) -> Option<Position> {
        self.life.origin.as_ref().map(|origin| origin.at)
    }
}

impl<L: Log> Stream<L> {
    /// The position that a request's offset names.
    pub(crate) fn resolve(
        &self,
        current: &Current,
        param: OffsetParam,
    ) -> Result<Position, OffsetError> {
        let offset = match param {
            OffsetParam::Start | OffsetParam::At(Offset::ZERO) => return Ok(Position(0)),
            OffsetParam::Now => return Ok(current.tail),
            OffsetParam::At(offset) => offset,
        };
        let position = offset.position;
        if position > current.tail {
            return self.resolve_past_tail(current, offset);
        }
        if current.offset(position) != offset {
            return self.resolve_mislabelled(current, offset);
        }
        self.align(current, position)
    }

    /// An offset past the tail. In streams that are not JSON, one past the tail reads as the
    /// tail: a published server of the Yjs protocol computes such offsets.
    fn resolve_past_tail(
        &self,
        current: &Current,
        offset: Offset,
    ) -> Result<Position, OffsetError> {
        let tail = current.tail_offset();
        let one_past = offset.position.0 == current.tail.0.saturating_add(1);
        if !current.is_json() && one_past && offset.generation == tail.generation {
            return Ok(current.tail);
        }
        let known = current.offset(offset.position).generation == offset.generation
            || offset.generation == tail.generation;
        if known {
            Err(OffsetError::BeyondTail { tail })
        } else {
            Err(stale(current, offset.generation))
        }
    }

    /// An offset whose generation is not that of its position: a stranger's, or one past a fork
    /// point that is the end of the inherited bytes (the same rule as past the tail).
    fn resolve_mislabelled(
        &self,
        current: &Current,
        offset: Offset,
    ) -> Result<Position, OffsetError> {
        let before = Position(offset.position.0.saturating_sub(1));
        let one_past_fork = current.fork_point() == Some(before)
            && current.offset(before).generation == offset.generation;
        if one_past_fork && !current.is_json() {
            return Ok(before);
        }
        Err(stale(current, offset.generation))
    }

    /// Checks a position inside the log against the rules of the content type.
    fn align(&self, current: &Current, position: Position) -> Result<Position, OffsetError> {
        let certain = position == Position(0)
            || position == current.tail
            || Some(position) == current.fork_point();
        if certain {
            return Ok(position);
        }
        if !current.is_json() {
            return Ok(self.align_yjs(current, position)?);
        }
        if position <= current.cold {
            // `Stream::boundary` has looked, or tells where to look.
            return Ok(position);
        }
        let before = current.key(Position(position.0.saturating_sub(1)));
        let byte = self.log.read(before..current.key(position), Framing::Raw)?;
        match byte.to_vec().first() {
            Some(b'\n') => Ok(position),
            _ => Err(OffsetError::Invalid),
        }
    }

    /// A position one past an append's end that is not itself an end reads as that end.
    pub(crate) fn align_yjs(
        &self,
        current: &Current,
        position: Position,
    ) -> Result<Position, LogError> {
        let before = Position(position.0.saturating_sub(1));
        let ends = |wanted: Position| self.is_end(current, wanted);
        if !ends(position)? && ends(before)? { Ok(before) } else { Ok(position) }
    }

    /// Whether an append ended at the position.
    pub(crate) fn is_end(&self, current: &Current, position: Position) -> Result<bool, LogError> {
        if position <= current.cold {
            return if position.0 == 0 { Ok(false) } else { self.is_cold_end(current, position) };
        }
        // The row that holds the byte before the position.
        let keys = current.life.base..current.key(position);
        let Some(row) = self.log.last_extent(keys)? else { return Ok(false) };
        let relative = current.key(position).0.saturating_sub(row.key.0);
        Ok(decode(&row)?.ends.contains(&relative))
    }

    /// The row that holds the byte at a key of the current life.
    pub(crate) fn row_at(
        &self,
        current: &Current,
        key: Key,
    ) -> Result<Option<crate::log::ExtentRow>, LogError> {
        self.log.last_extent(current.life.base..Key(key.0.saturating_add(1)))
    }
}

fn stale(current: &Current, generation: Generation) -> OffsetError {
    if generation > current.life.generation { OffsetError::Invalid } else { OffsetError::Stale }
}
