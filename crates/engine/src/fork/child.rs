//! The fork's side: from the intent to a visible stream, or to nothing.

use protocol::json::{JsonError, frame_messages};
use protocol::lifetime::Lifetime;
use protocol::limits::SEGMENT_BLOCK_BYTES;
use protocol::offset::{Generation, Offset, OffsetParam, Position};
use protocol::time::UnixMillis;

use super::{
    Begun, Copied, CopyPage, CopyRequest, FORK_PATIENCE_MS, ForkGrant, ForkRequest, ForkWish,
};
use crate::create::{Create, CreateError, Created, first_bytes};
use crate::delete::Source;
use crate::extent::Head;
use crate::life::{Closed, Life, Origin, Phase};
use crate::load::KEY_END;
use crate::log::{Blob, Duty, ForkId, Log, LogError, SegmentRow, Write};
use crate::stream::{Current, Stream};

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
            public: request.public,
            session: None,
            touched: now,
            checkpoint: Position(0),
            hot_ends: 0,
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

    /// What is still to be had from the source.
    pub fn fork_missing(&self) -> Option<CopyRequest> {
        let current =
            self.current.as_ref().filter(|current| current.life.phase == Phase::Forking)?;
        let origin = current.life.origin.as_ref()?;
        let source = origin.source_generation;
        let (cold, from, to) = (current.cold, current.tail, origin.at);
        (from < to).then_some(CopyRequest { source, cold, from, to })
    }

    /// Takes a part of what the source hands out.
    ///
    /// # Errors
    /// [`LogError`]; give the fork up.
    pub fn fork_received(&mut self, copied: Copied<L::Bytes>) -> Result<(), LogError> {
        match copied {
            Copied::Segments(rows) => self.fork_shared(rows),
            Copied::Page(page) => self.fork_copied(page),
            Copied::Restart => self.fork_restart(),
        }
    }

    /// Stores rows of shared segments.
    fn fork_shared(&mut self, rows: Vec<SegmentRow>) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let at = current.life.origin.as_ref().map_or(Position(0), |origin| origin.at);
        if rows.is_empty() {
            return Err(LogError::Corrupt("the source shares nothing".into()));
        }
        let mut writes = Vec::new();
        for row in rows {
            let next = Position(current.tail.0.saturating_add(row.length));
            let fits = row.key.0 == current.tail.0
                && current.cold == current.tail
                && row.length > 0
                && next <= at
                && row.length <= row.size
                && row.ends.last() == Some(&row.length)
                && row.sums.len() as u64 >= row.length.div_ceil(SEGMENT_BLOCK_BYTES);
            if !fits {
                return Err(LogError::Corrupt("a shared segment does not fit the fork".into()));
            }
            let key = current.key(current.tail);
            writes.push(Write::Segment(SegmentRow { key, own: false, ..row }));
            current.tail = next;
            current.cold = next;
        }
        self.commit(writes)
    }

    /// Forgets the copied hot bytes: the source has made a segment of them.
    fn fork_restart(&mut self) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let keys = current.key(current.cold)..KEY_END;
        current.tail = current.cold;
        current.hot_ends = 0;
        self.commit(vec![Write::EraseExtents { keys, rows: u32::MAX }])
    }

    /// Stores a page of inherited bytes.
    fn fork_copied(&mut self, page: CopyPage<L::Bytes>) -> Result<(), LogError> {
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
        current.hot_ends += ends.len() as u64;
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
        let complete = |current: &Current| {
            let origin = current.life.origin.as_ref();
            let granted = origin.filter(|origin| origin.source_generation > Generation(0));
            granted.is_some_and(|origin| origin.at == current.tail)
        };
        if !self.current.as_ref().is_some_and(complete) {
            // Memory was loaded again meanwhile, and what was granted was only there.
            return Err(LogError::Failed("the grant of the fork is lost".into()).into());
        }
        let Some(mut current) = self.current.take() else { return Err(CreateError::Busy) };
        current.life.phase = Phase::Live;
        current.life.touched = now;
        // Inherited rows carry no state: nothing before this point needs to be replayed.
        current.life.checkpoint = current.tail;
        current.life.hot_ends = current.hot_ends;
        let mut writes = vec![Write::Life(current.life.clone())];
        match first_bytes(&mut current, request, self.room(), now) {
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
