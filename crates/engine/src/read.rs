//! Reads (PROTOCOL §5.6): a page of contiguous bytes from a position.
//!
//! A page holds at most about `chunk` bytes and comes from one source. In JSON mode it ends at a
//! message boundary: at the last row within the chunk that completes its append; when there is
//! none, at the last message of that append within the chunk; else at the first append's end after
//! it. Other content types may be cut anywhere. Of cold bytes the
//! page says where they are ([`crate::cold`]).

use std::ops::Range;

use protocol::content_type::ContentType;
use protocol::offset::{Generation, Offset, OffsetParam, Position};
use protocol::sse::utf8_cut;
use protocol::time::UnixMillis;

use crate::cold::Content;
use crate::load::{KEY_END, decode};
use crate::log::{Blob, ExtentRow, Framing, Key, Log, LogError};
use crate::offsets::OffsetError;
use crate::stream::{Current, Missing, Stream};

/// Longest encoding of a character.
const UTF8_BYTES_MAX: u64 = 4;

/// A contiguous range of a stream.
#[derive(Clone, Debug)]
pub struct Page<B> {
    /// First position.
    pub from: Position,
    /// Position after the last byte.
    pub to: Position,
    /// The bytes: framed as asked for when they are here, as stored when they are not.
    pub content: Content<B>,
    /// Offset to read from next.
    pub next: Offset,
    /// Generation of the stream's life: with `from`, `to` and `closed` it names the bytes for ever.
    pub generation: Generation,
    /// Whether the page begins at an offset of this very life and ends before the tail: then it
    /// never changes.
    pub immutable: bool,
    /// Whether the page reaches the tail.
    pub up_to_date: bool,
    /// Whether the page reaches the tail of a closed stream.
    pub closed: bool,
}

/// The hot page that was read last. Many readers ask for the same: the first page, or the one that
/// was just appended.
pub(crate) struct LastPage<B> {
    key: PageKey,
    page: Page<B>,
}

/// What a page depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PageKey {
    generation: Generation,
    from: Position,
    chunk: u64,
    dress: Dress,
    cold: Position,
    tail: Position,
    closed: bool,
}

impl PageKey {
    fn new(current: &Current, from: Position, chunk: u64, dress: Dress) -> Self {
        Self {
            generation: current.life.generation,
            from,
            chunk,
            dress,
            cold: current.cold,
            tail: current.tail,
            closed: current.closed.is_closed(),
        }
    }
}

/// Larger pages are not kept: an isolate has many objects and 128 MB.
const KEPT_BYTES_MAX: u64 = 64 << 10;

/// What a page is dressed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dress {
    /// The body of an HTTP response: a JSON array in JSON mode.
    Response,
    /// As stored, for live readers.
    Wire,
}

/// Why a read was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No stream to read, or the log failed.
    Missing(Missing),
    /// The offset names no position.
    Offset(OffsetError),
}

impl From<LogError> for ReadError {
    fn from(error: LogError) -> Self {
        Self::Missing(Missing::Log(error))
    }
}

impl From<Missing> for ReadError {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

impl From<OffsetError> for ReadError {
    fn from(error: OffsetError) -> Self {
        match error {
            OffsetError::Log(error) => error.into(),
            other => Self::Offset(other),
        }
    }
}

impl<L: Log> Stream<L> {
    /// Finds the position of an offset and counts the access.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn locate(&mut self, offset: OffsetParam, now: UnixMillis) -> Result<Position, ReadError> {
        self.live(now)?;
        let Some(current) = &self.current else { return Err(Missing::NotFound.into()) };
        let position = self.resolve(current, offset)?;
        self.touch(now)?;
        Ok(position)
    }

    /// The page that starts at a position which [`Stream::locate`] or an earlier page gave.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn page(
        &mut self,
        from: Position,
        chunk: u64,
        dress: Dress,
        now: UnixMillis,
    ) -> Result<Page<L::Bytes>, ReadError> {
        self.live(now)?;
        let Some(current) = &self.current else { return Err(Missing::NotFound.into()) };
        let from = from.min(current.tail);
        let key = PageKey::new(current, from, chunk, dress);
        if let Some(last) = self.last_page.as_ref().filter(|last| last.key == key) {
            return Ok(last.page.clone());
        }
        let page = self.read_page(current, key)?;
        if matches!(&page.content, Content::Hot(bytes) if bytes.len() <= KEPT_BYTES_MAX) {
            self.last_page = Some(LastPage { key, page: page.clone() });
        }
        Ok(page)
    }

    fn read_page(&self, current: &Current, key: PageKey) -> Result<Page<L::Bytes>, LogError> {
        let PageKey { from, chunk, dress, .. } = key;
        let (to, content) = if from < current.cold {
            let to = self.cold_page_end(current, from, chunk.max(1))?;
            let to = current.within_generation(from, to, dress);
            (to, Content::Cold(self.locate_cold(current, from, to)?))
        } else {
            let to = self.page_end(current, from, chunk.max(1))?;
            let to = current.within_generation(from, to, dress);
            (to, Content::Hot(self.hot_bytes(current, from..to, dress)?))
        };
        let up_to_date = to == current.tail;
        let generation = current.life.generation;
        Ok(Page {
            from,
            to,
            content,
            next: current.offset(to),
            generation,
            immutable: !up_to_date && current.offset(from).generation == generation,
            up_to_date,
            closed: up_to_date && current.closed.is_closed(),
        })
    }

    /// A page for whoever replicates the stream.
    pub(crate) fn wire_page(
        &self,
        current: &Current,
        from: Position,
        chunk: u64,
    ) -> Result<Page<L::Bytes>, LogError> {
        let from = from.min(current.tail);
        self.read_page(current, PageKey::new(current, from, chunk, Dress::Wire))
    }

    /// The tail position and whether the stream is closed there, with its content type: what a
    /// live reader has to know before it waits.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn tail(&mut self, now: UnixMillis) -> Result<(Position, bool, ContentType), Missing> {
        let current = self.live(now)?;
        Ok((current.tail, current.closed.is_closed(), current.life.content_type.clone()))
    }

    /// The offset of a position of the current life.
    pub fn offset_of(&self, position: Position) -> Option<Offset> {
        self.current.as_ref().map(|current| current.offset(position))
    }

    fn hot_bytes(
        &self,
        current: &Current,
        range: Range<Position>,
        dress: Dress,
    ) -> Result<L::Bytes, LogError> {
        let keys = current.key(range.start)..current.key(range.end);
        match dress {
            Dress::Response if current.is_json() && range.is_empty() => {
                Ok(L::Bytes::from_vec(b"[]".to_vec()))
            }
            Dress::Response if current.is_json() => self.log.read(keys, Framing::JsonArray),
            Dress::Response | Dress::Wire => self.log.read(keys, Framing::Raw),
        }
    }

    fn page_end(
        &self,
        current: &Current,
        from: Position,
        chunk: u64,
    ) -> Result<Position, LogError> {
        let target = Position(from.0.saturating_add(chunk));
        if target >= current.tail {
            return Ok(current.tail);
        }
        if !current.is_json() {
            return self.byte_page_end(current, from, target);
        }
        // The row that holds the target byte is cut off; look back for one that completes.
        let mut cut = self.row_at(current, current.key(target))?;
        while let Some(row) = cut.filter(|row| row.key > current.key(from)) {
            let before = self.log.last_extent(current.life.base..row.key)?;
            match before {
                Some(before) if completes(&before)? => return Ok(current.life.position(row.key)),
                before => cut = before,
            }
        }
        match self.last_message_end(current, from, target)? {
            Some(end) => Ok(end),
            None => self.first_boundary(current, from),
        }
    }

    /// Where the last message ends that one append, larger than a page, has before `target`.
    fn last_message_end(
        &self,
        current: &Current,
        from: Position,
        target: Position,
    ) -> Result<Option<Position>, LogError> {
        let bytes = self.log.read(current.key(from)..current.key(target), Framing::Raw)?.to_vec();
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        Ok(end.map(|at| Position(from.0.saturating_add(at as u64 + 1))))
    }

    /// Where a page of a stream that is not JSON ends: at the target, or a little before it, so
    /// that text is not cut inside a character, and never one past an append's end, which would
    /// be read as that end.
    fn byte_page_end(
        &self,
        current: &Current,
        from: Position,
        target: Position,
    ) -> Result<Position, LogError> {
        let mut end = target;
        let window = Position(target.0.saturating_sub(UTF8_BYTES_MAX)).max(from);
        if current.life.content_type.is_text() && window > from {
            let keys = current.key(window)..current.key(target);
            let whole = utf8_cut(&self.log.read(keys, Framing::Raw)?.to_vec());
            end = Position(window.0.saturating_add(whole as u64));
        }
        let aligned = self.align_yjs(current, end)?;
        // When that leaves nothing, the next byte comes along: the position after it is no end's
        // neighbour.
        Ok(if aligned > from { aligned } else { Position(end.0.saturating_add(1)) })
    }

    /// End of the first row past `from` that completes its append.
    fn first_boundary(&self, current: &Current, from: Position) -> Result<Position, LogError> {
        let mut row = self.row_at(current, current.key(from))?;
        while let Some(candidate) = row {
            let end = candidate.end();
            if completes(&candidate)? && end > current.key(from) {
                return Ok(current.life.position(end));
            }
            let next = Key(candidate.key.0.saturating_add(1))..KEY_END;
            row = self.log.extents(next, 1)?.into_iter().next();
        }
        Ok(current.tail)
    }
}

impl Current {
    /// The end of a page for live readers: not past the point up to which its offsets have one
    /// generation, so that every position within it has a known offset. Fork points are boundaries.
    fn within_generation(&self, from: Position, to: Position, dress: Dress) -> Position {
        let lineage = self.life.origin.iter().flat_map(|origin| &origin.lineage);
        let next = lineage.map(|stretch| stretch.end).filter(|end| *end > from).min();
        match (dress, next) {
            (Dress::Wire, Some(next)) => to.min(next),
            _ => to,
        }
    }
}

fn completes(row: &ExtentRow) -> Result<bool, LogError> {
    Ok(decode(row)?.completes(row.length))
}
