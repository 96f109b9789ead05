//! Forks (PROTOCOL §4.2): a new stream that begins with the bytes of another.
//!
//! ```text
//! fork                                   source
//! begin_fork: intent row ──────────────► reference: row (child, generation)
//! fork_granted ◄──────────────────────── fork point, type, lifetime, lineage
//! fork_copied (×n) ◄──────────────────── copy: pages of bytes and append ends
//! finish_fork: visible
//! ```
//!
//! Every step is a commit of its own and may be the last: the intent's duty gives the fork up and
//! releases the source. The reference is idempotent by the fork's generation; a release that comes
//! before its reference leaves a row that refuses the latecomer. A fork takes bytes and append
//! ends, never producers, `Stream-Seq` or the close state, and then reads touch no other object.

use protocol::content_type::ContentType;
use protocol::json::{JsonError, frame_messages, nth_message_end};
use protocol::lifetime::Lifetime;
use protocol::limits::{FORK_DEPTH_MAX, FORK_SUB_OFFSET_BYTES_MAX, ROW_BYTES_MAX};
use protocol::offset::{Generation, Offset, OffsetParam, Position};
use protocol::time::UnixMillis;

use crate::create::{Create, CreateError, Created, first_bytes};
use crate::delete::Source;
use crate::extent::Head;
use crate::life::{Closed, Inherited, Life, Origin, Phase};
use crate::load::decode;
use crate::log::{Blob, Duty, ForkId, ForkRow, Framing, Key, Log, LogError, Write};
use crate::offsets::OffsetError;
use crate::stream::{Current, Missing, Stream};

/// How long a fork may take before its duty looks whether somebody is still making it.
pub const FORK_PATIENCE_MS: u64 = 60_000;

/// What a request wants to fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkWish {
    /// Object name of the source, `{project}/{path}`.
    pub source: String,
    /// Anchor; absent means the source's tail.
    pub offset: Option<OffsetParam>,
    /// Messages (JSON) or bytes past the anchor.
    pub sub_offset: u64,
}

impl ForkWish {
    /// What a repeated request asks for that the fork is not. An absent offset matches any.
    pub(crate) fn difference(&self, origin: &Origin) -> Option<&'static str> {
        let requested = |offset| match (offset, origin.requested) {
            (None, _) => true,
            (Some(OffsetParam::At(offset)), Some(known)) => offset == known,
            (Some(OffsetParam::At(offset)), None) => offset.position == origin.at,
            (Some(OffsetParam::Start), known) => known.is_none_or(|known| known == Offset::ZERO),
            (Some(OffsetParam::Now), known) => known.is_none(),
        };
        if self.source != origin.source {
            return Some("fork source");
        }
        if !requested(self.offset) {
            return Some("fork offset");
        }
        (self.sub_offset != origin.sub_offset).then_some("fork sub-offset")
    }
}

/// A fork's question to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkRequest {
    /// Who asks.
    pub child: ForkId,
    /// Anchor; absent means the tail.
    pub offset: Option<OffsetParam>,
    /// Messages (JSON) or bytes past the anchor.
    pub sub_offset: u64,
    /// Content type that the request named.
    pub content_type: Option<ContentType>,
}

/// A source's answer: the reference is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkGrant {
    /// Generation of the source's life.
    pub source: Generation,
    /// The fork point.
    pub at: Position,
    /// The source's content type.
    pub content_type: ContentType,
    /// The source's lifetime.
    pub lifetime: Lifetime,
    /// Generations of the inherited offsets.
    pub lineage: Vec<Inherited>,
}

/// Why a source refuses a fork. No reference is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkError {
    /// No such source, or it is held for other forks only, or its log failed.
    Missing(Missing),
    /// The anchor is no offset of the source.
    Offset(OffsetError),
    /// The sub-offset names a position past the next boundary.
    SubOffset,
    /// The content types differ.
    ContentType {
        /// The source's.
        expected: ContentType,
    },
    /// The chain of forks is too long.
    TooDeep,
    /// The fork's generation is not above the source's: ask again with at least this one.
    GenerationTooLow {
        /// Lowest generation that will do.
        at_least: Generation,
    },
    /// This fork was given up before.
    Refused,
}

impl From<LogError> for ForkError {
    fn from(error: LogError) -> Self {
        Self::Missing(Missing::Log(error))
    }
}

/// Inherited bytes on their way to a fork.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyPage<B> {
    /// First position.
    pub from: Position,
    /// The bytes; at most one row's worth.
    pub bytes: B,
    /// Ends of appends in the page, relative to `from`, ascending.
    pub ends: Vec<u64>,
}

/// How a fork begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It exists already.
    Exists(Created),
    /// Its intent is stored: ask the source.
    Intent(ForkRequest),
}

/// The source's side.
impl<L: Log> Stream<L> {
    /// Stores a reference and says what the fork inherits. Asking twice is one reference.
    ///
    /// # Errors
    /// [`ForkError`]; no reference is stored.
    pub fn reference(
        &mut self,
        request: &ForkRequest,
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
            None => self.fork_point_of(current, request)?,
        };
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

    /// A page of the bytes that a fork inherits; reads a soft-deleted source as well.
    ///
    /// # Errors
    /// [`Missing::NotFound`] when the life of that generation is gone.
    pub fn copy(
        &mut self,
        source: Generation,
        from: Position,
        to: Position,
    ) -> Result<CopyPage<L::Bytes>, Missing> {
        if self.stale {
            self.reload()?;
        }
        let held = self.current.as_ref().filter(|current| current.life.generation == source);
        let Some(current) = held else { return Err(Missing::NotFound) };
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
        if last && held {
            self.plan_burial(&mut writes, now, Source::Release)?;
        }
        self.commit(writes)
    }

    fn fork_point_of(
        &self,
        current: &Current,
        request: &ForkRequest,
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
            true => self.messages_past(current, anchor, request.sub_offset)?,
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
    ) -> Result<Option<Position>, LogError> {
        let limit = anchor.0.saturating_add(FORK_SUB_OFFSET_BYTES_MAX).min(current.tail.0);
        let (mut from, mut missing) = (anchor.0, count);
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
        let mut row = self.row_at(current, current.key(anchor))?;
        while let Some(candidate) = row.filter(|_| wanted <= current.tail) {
            for relative in decode(&candidate)?.ends {
                let end = current.life.position(Key(candidate.key.0.saturating_add(relative)));
                if end > anchor {
                    return Ok((wanted <= end).then_some(wanted));
                }
            }
            let next = candidate.end()..crate::load::KEY_END;
            row = self.log.extents(next, 1)?.into_iter().next();
        }
        Ok(None)
    }
}

/// Rows looked at for one page of a copy.
const COPY_ROWS: u32 = 1_024;

/// Append ends after which a page of a copy is full: they become the header of one row.
const COPY_ENDS: usize = 65_536;

/// The fork's side.
impl<L: Log> Stream<L> {
    /// Stores the intent of a fork; `child` is this stream's own object name.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left behind.
    pub fn begin_fork(
        &mut self,
        request: &Create<L::Bytes>,
        wish: &ForkWish,
        child: &str,
        now: UnixMillis,
    ) -> Result<Begun, CreateError> {
        if let Some(created) = self.existing(request, now)? {
            return Ok(Begun::Exists(created));
        }
        self.intend(request, wish, child, self.next_life(now).generation, now)
    }

    /// Replaces the intent by one of a generation above the source's.
    ///
    /// # Errors
    /// [`CreateError::Log`].
    pub fn raise_fork(
        &mut self,
        request: &Create<L::Bytes>,
        wish: &ForkWish,
        child: &str,
        at_least: Generation,
        now: UnixMillis,
    ) -> Result<Begun, CreateError> {
        if self.stale {
            self.reload()?;
        }
        let generation = self.next_life(now).generation.max(at_least);
        self.intend(request, wish, child, generation, now)
    }

    fn intend(
        &mut self,
        request: &Create<L::Bytes>,
        wish: &ForkWish,
        child: &str,
        generation: Generation,
        now: UnixMillis,
    ) -> Result<Begun, CreateError> {
        let mut writes = Vec::new();
        if let Some(replaced) = &self.current {
            writes.push(Write::DropLife(replaced.life.generation));
        }
        let requested = match wish.offset {
            Some(OffsetParam::At(offset)) => Some(offset),
            Some(OffsetParam::Start) => Some(Offset::ZERO),
            Some(OffsetParam::Now) | None => None,
        };
        let life = Life {
            generation,
            base: self.next_life(now).next_base,
            phase: Phase::Forking,
            content_type: request.content_type.clone().unwrap_or_default(),
            lifetime: request.lifetime,
            touched: now,
            checkpoint: Position(0),
            seq: None,
            closed: Closed::No,
            origin: Some(Origin {
                source: wish.source.clone(),
                source_generation: Generation(0),
                at: Position(0),
                requested,
                sub_offset: wish.sub_offset,
                lineage: Vec::new(),
            }),
        };
        writes.push(Write::Life(life.clone()));
        self.current = Some(Current::new(life));
        self.plan_duty(&mut writes, Duty::Fork, now.saturating_add_ms(FORK_PATIENCE_MS));
        self.commit(writes)?;
        Ok(Begun::Intent(ForkRequest {
            child: ForkId { child: child.to_owned(), generation },
            offset: wish.offset,
            sub_offset: wish.sub_offset,
            content_type: request.content_type.clone(),
        }))
    }

    /// Takes what the source granted, and checks the fork's own first bytes before the copy.
    ///
    /// # Errors
    /// [`CreateError::Json`] when the request's body does not fit; give the fork up then.
    pub fn fork_granted(
        &mut self,
        request: &Create<L::Bytes>,
        grant: &ForkGrant,
    ) -> Result<(), CreateError> {
        let Some(current) = &mut self.current else { return Err(CreateError::Busy) };
        let Some(origin) = &mut current.life.origin else { return Err(CreateError::Busy) };
        origin.source_generation = grant.source;
        origin.at = grant.at;
        origin.lineage.clone_from(&grant.lineage);
        current.life.content_type =
            request.content_type.clone().unwrap_or_else(|| grant.content_type.clone());
        if request.lifetime == Lifetime::Unlimited {
            current.life.lifetime = grant.lifetime;
        }
        if current.is_json() && !request.body.is_empty() {
            frame_messages(&request.body.to_vec())
                .map_err(|error: JsonError| CreateError::Json(error))?;
        }
        Ok(())
    }

    /// What is still to be copied: `(generation of the source, from, to)`.
    pub fn fork_missing(&self) -> Option<(Generation, Position, Position)> {
        let current =
            self.current.as_ref().filter(|current| current.life.phase == Phase::Forking)?;
        let origin = current.life.origin.as_ref()?;
        (current.tail < origin.at).then_some((origin.source_generation, current.tail, origin.at))
    }

    /// Stores a page of inherited bytes.
    ///
    /// # Errors
    /// [`LogError`]; give the fork up.
    pub fn fork_copied(&mut self, page: CopyPage<L::Bytes>) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let length = page.bytes.len();
        let at = current.life.origin.as_ref().map_or(Position(0), |origin| origin.at);
        if page.from != current.tail || length == 0 || page.from.0.saturating_add(length) > at.0 {
            return Err(LogError::Corrupt("a copied page does not fit the fork".into()));
        }
        let key = current.key(current.tail);
        current.tail = Position(page.from.0.saturating_add(length));
        let mut ends = page.ends;
        if current.is_json() {
            ends.retain(|end| *end == length);
        }
        if current.tail == at && ends.last() != Some(&length) {
            ends.push(length);
        }
        let head = Head { ends, ..Head::default() }.encode();
        self.commit(vec![Write::Extent { key, head, bytes: page.bytes }])
    }

    /// Makes the fork visible, with the request's own first bytes after the inherited ones.
    ///
    /// # Errors
    /// [`CreateError`]; give the fork up.
    pub fn finish_fork(
        &mut self,
        request: &Create<L::Bytes>,
        now: UnixMillis,
    ) -> Result<Created, CreateError> {
        if self.stale {
            // What was granted is only in memory, and that no longer matches the log.
            return Err(LogError::Failed("a commit failed while the fork was made".into()).into());
        }
        let Some(mut current) = self.current.take() else { return Err(CreateError::Busy) };
        current.life.phase = Phase::Live;
        current.life.touched = now;
        // Inherited rows carry no state: nothing before this point needs to be replayed.
        current.life.checkpoint = current.tail;
        let mut writes = vec![Write::Life(current.life.clone())];
        match first_bytes(&mut current, request, self.bytes_max, now) {
            Ok(rows) => writes.extend(rows),
            Err(error) => {
                self.stale = true;
                return Err(error);
            }
        }
        self.plan_no_duty(&mut writes, Duty::Fork);
        self.begin(current, writes, now)
    }

    /// Gives an unfinished fork up. `referenced`: whether the source holds, or may hold, a
    /// reference that has to be released.
    ///
    /// # Errors
    /// [`LogError`]; the duty tries again.
    pub fn abandon_fork(&mut self, referenced: bool, now: UnixMillis) -> Result<(), LogError> {
        if self.stale {
            self.reload()?;
        }
        if !self.is_forking() {
            return Ok(());
        }
        let mut writes = Vec::new();
        let source = if referenced { Source::Release } else { Source::Unaware };
        self.plan_burial(&mut writes, now, source)?;
        self.commit(writes)
    }
}

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
