//! The naive model of a stream path: bytes in one `Vec`, ends of appends in a set, everything
//! else spelled out. It judges a request the slow and obvious way; the oracle compares.
//!
//! The model knows neither rows nor keys nor commits. It is told what was stored (a verb that
//! answered anything but a failure of the log) and never has to guess.

use std::collections::{BTreeMap, BTreeSet};

use engine::append::{Append, AppendError, Appended};
use engine::create::{Create, CreateError};
use engine::fork::ForkWish;
use engine::life::{Inherited, Phase};
use engine::log::{ForkId, ForkRow};
use engine::{Bounds, Missing};
use protocol::content_type::ContentType;
use protocol::headers::StreamSeq;
use protocol::json::JsonError;
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, Offset, Position};
use protocol::producer::{Epoch, ProducerId, Seq};
use protocol::time::UnixMillis;

/// A body with what it must become on the wire of a JSON stream; `None` when it is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// As sent.
    pub sent: Vec<u8>,
    /// Each message followed by `,\n`.
    pub wire: Option<Vec<u8>>,
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self { sent: Vec::new(), wire: None }
    }
}

/// Last and latest accesses, for sliding lifetimes.
#[derive(Clone, Debug, Default)]
pub struct Accesses {
    /// Clock at the last access that was answered.
    pub last: u64,
    /// Latest clock at which an access may have counted.
    pub latest: u64,
    /// Until when live readers are attached, as the engine was told last; memory only.
    pub attached: u64,
    /// Memory was lost since creation: the engine may count generously.
    pub lossy: bool,
}

/// Whether a lifetime has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The stream must be there.
    No,
    /// Within the slack that the engine is allowed: both are right.
    Perhaps,
    /// The stream must be gone.
    Yes,
}

/// A fork's memory of where it came from.
#[derive(Clone, Debug)]
pub struct ModelOrigin {
    /// What the request asked for.
    pub wish: ForkWish,
    /// Bytes and append ends of the source when the reference was granted; filled in then.
    pub inherited: Vec<u8>,
    /// Ends of appends among them.
    pub ends: BTreeSet<u64>,
    /// When the intent was stored.
    pub intent_at: u64,
}

/// One life of a path.
#[derive(Clone, Debug)]
pub struct ModelLife {
    /// Its generation.
    pub generation: Generation,
    /// Its base, as found on disk when it began.
    pub base: u64,
    /// Forking, live or soft-deleted.
    pub phase: Phase,
    /// As given at creation.
    pub content_type: ContentType,
    /// As given at creation.
    pub lifetime: Lifetime,
    /// As given at creation.
    pub public: bool,
    /// Every byte.
    pub bytes: Vec<u8>,
    /// Where appends ended; for a fork also its fork point.
    pub ends: BTreeSet<u64>,
    /// Generations of inherited offsets.
    pub stretches: Vec<Inherited>,
    /// Last inherited position of a fork.
    pub fork_point: Option<u64>,
    /// Where a fork came from.
    pub origin: Option<ModelOrigin>,
    /// Whether it is closed.
    pub closed: bool,
    /// Last `Stream-Seq`.
    pub seq: Option<StreamSeq>,
    /// Last tuple of every producer.
    pub producers: BTreeMap<ProducerId, (Epoch, Seq)>,
    /// For sliding lifetimes.
    pub accesses: Accesses,
    /// Bytes before this position lie in the object store.
    pub cold: u64,
    /// How many hot bytes a stream may hold.
    pub bytes_max: u64,
    /// How many of them are left for this life by dead ones.
    pub room: u64,
    /// Hot bytes that a fork may copy.
    pub copy_max: u64,
}

/// A path with its current life and what is left of earlier ones.
#[derive(Clone, Debug, Default)]
pub struct ModelPath {
    /// The life that is or is about to be visible.
    pub current: Option<ModelLife>,
    /// Lives that are gone.
    pub dead: Vec<Generation>,
    /// What they were like.
    pub past: BTreeMap<Generation, ModelLife>,
    /// First key that no life has used.
    pub keys_end: u64,
    /// Forks of this path's lives.
    pub forks: BTreeMap<ForkId, ForkRow>,
    /// Lives of forks at this path whose source has not confirmed, with the source's name.
    pub releases: BTreeMap<Generation, String>,
}

impl ModelLife {
    /// A life without bytes.
    #[must_use]
    pub fn new(generation: Generation, content_type: ContentType, now: UnixMillis) -> Self {
        Self {
            generation,
            base: 0,
            phase: Phase::Live,
            content_type,
            lifetime: Lifetime::Unlimited,
            public: false,
            bytes: Vec::new(),
            ends: BTreeSet::new(),
            stretches: Vec::new(),
            fork_point: None,
            origin: None,
            closed: false,
            seq: None,
            producers: BTreeMap::new(),
            accesses: Accesses { last: now.0, latest: now.0, ..Accesses::default() },
            cold: 0,
            bytes_max: protocol::limits::STREAM_BYTES_MAX,
            room: protocol::limits::STREAM_BYTES_MAX,
            copy_max: protocol::limits::FORK_COPY_BYTES_MAX,
        }
    }

    /// The tail.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes that are not in the object store.
    #[must_use]
    pub fn hot(&self) -> u64 {
        self.tail() - self.cold
    }

    /// Takes over what the deployment allows.
    pub fn bound(&mut self, bounds: &Bounds) {
        self.bytes_max = bounds.bytes_max;
        self.room = bounds.bytes_max;
        self.copy_max = bounds.fork_copy_bytes_max;
    }

    /// The offset of a position: of the life that wrote the byte before it.
    #[must_use]
    pub fn offset(&self, position: u64) -> Offset {
        let mut generation = self.generation;
        for stretch in self.stretches.iter().rev() {
            if position <= stretch.end.0 {
                generation = stretch.generation;
            }
        }
        Offset { generation, position: Position(position) }
    }

    /// Adds the bytes of one append.
    pub fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            self.ends.insert(self.tail());
        }
    }

    /// Counts an access.
    pub fn accessed(&mut self, now: UnixMillis) {
        self.accesses.last = now.0;
        self.accesses.latest = self.accesses.latest.max(now.0);
    }

    /// Whether the lifetime has run out.
    #[must_use]
    pub fn due(&self, now: UnixMillis) -> Due {
        let due = |from: u64, ms: u64| now.0 >= from.saturating_add(ms);
        match self.lifetime {
            Lifetime::Unlimited => Due::No,
            Lifetime::ExpiresAt { at } if now >= at => Due::Yes,
            Lifetime::ExpiresAt { .. } => Due::No,
            Lifetime::Ttl { seconds } => {
                let Accesses { last, latest, attached, lossy } = self.accesses;
                let ms = seconds.saturating_mul(1_000);
                let slack = if lossy && seconds >= 60 { (ms / 10).min(3_600_000) } else { 0 };
                match (due(last.max(attached), ms), due(latest.max(attached), ms + slack)) {
                    (false, _) => Due::No,
                    (true, false) => Due::Perhaps,
                    (true, true) => Due::Yes,
                }
            }
        }
    }

    /// Judges an append and, if it is admitted, does it.
    ///
    /// # Errors
    /// The refusal that the protocol asks for.
    pub fn append(
        &mut self,
        request: &Append<Vec<u8>>,
        wire: Option<&[u8]>,
    ) -> Result<Appended, AppendError> {
        let bytes = self.wire_of(request, wire)?;
        let mut tuple = None;
        if let Some(producer) = &request.producer {
            let last = self.producers.get(&producer.id).copied();
            tuple = Some((producer.epoch, producer.seq));
            if let Some((epoch, seq)) = last {
                if producer.epoch < epoch {
                    return Err(AppendError::StaleEpoch { current: epoch });
                }
                if producer.epoch == epoch && producer.seq <= seq {
                    return Ok(self.appended(Some((epoch, seq)), true));
                }
            }
        }
        if self.closed {
            let repeated = request.close && request.body.is_empty() && tuple.is_none();
            let next = self.offset(self.tail());
            return if repeated {
                Ok(self.appended(None, true))
            } else {
                Err(AppendError::Closed { next })
            };
        }
        self.check_order(request)?;
        if !bytes.is_empty() && self.hot() + bytes.len() as u64 > self.room {
            return Err(AppendError::Full { bytes_max: self.bytes_max });
        }
        self.push(&bytes);
        if let Some(seq) = &request.seq {
            self.seq = Some(seq.clone());
        }
        if let Some(producer) = &request.producer {
            self.producers.insert(producer.id.clone(), (producer.epoch, producer.seq));
        }
        self.closed |= request.close;
        Ok(self.appended(tuple, false))
    }

    fn appended(&self, producer: Option<(Epoch, Seq)>, duplicate: bool) -> Appended {
        Appended { next: self.offset(self.tail()), producer, duplicate, closed: self.closed }
    }

    fn wire_of(
        &self,
        request: &Append<Vec<u8>>,
        wire: Option<&[u8]>,
    ) -> Result<Vec<u8>, AppendError> {
        let Some(sent_as) = request.content_type.as_ref().filter(|_| !request.body.is_empty())
        else {
            return match (request.body.is_empty(), request.close) {
                (true, true) => Ok(Vec::new()),
                (true, false) => Err(AppendError::EmptyBody),
                (false, _) => Err(AppendError::ContentTypeMissing),
            };
        };
        if !self.content_type.is_json() || !sent_as.is_json() {
            return Ok(request.body.clone());
        }
        match wire {
            None => Err(AppendError::Json(JsonError::Empty)),
            Some([]) => Err(AppendError::EmptyArray),
            Some(wire) => Ok(wire.to_vec()),
        }
    }

    /// Content type, then producer order, then `Stream-Seq`.
    fn check_order(&self, request: &Append<Vec<u8>>) -> Result<(), AppendError> {
        if let Some(sent_as) = request.content_type.as_ref().filter(|_| !request.body.is_empty())
            && sent_as.essence() != self.content_type.essence()
        {
            return Err(AppendError::ContentTypeMismatch { expected: self.content_type.clone() });
        }
        if let Some(producer) = &request.producer {
            let last = self.producers.get(&producer.id).copied();
            let expected = match last {
                Some((epoch, _)) if producer.epoch > epoch && producer.seq != Seq(0) => {
                    return Err(AppendError::EpochStart);
                }
                Some((epoch, seq)) if producer.epoch == epoch => Seq(seq.0 + 1),
                _ => Seq(0),
            };
            if producer.seq != expected {
                return Err(AppendError::ProducerGap { expected, received: producer.seq });
            }
        }
        match (&request.seq, &self.seq) {
            (Some(seq), Some(last)) if seq.as_str() <= last.as_str() => {
                Err(AppendError::SeqConflict { last: last.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Whether a repeated PUT describes this stream.
    #[must_use]
    pub fn matches(&self, request: &Create<Vec<u8>>) -> bool {
        let octets = ContentType::default();
        let asked = match (&request.content_type, &request.fork) {
            (Some(content_type), _) => Some(content_type),
            (None, None) => Some(&octets),
            (None, Some(_)) => None,
        };
        let inherits = request.fork.is_some() && request.lifetime == Lifetime::Unlimited;
        let same_origin = match (&request.fork, &self.origin) {
            (None, None) => true,
            (Some(wish), Some(origin)) => self.same_wish(wish, &origin.wish),
            _ => false,
        };
        asked.is_none_or(|asked| asked.essence() == self.content_type.essence())
            && (inherits || request.lifetime == self.lifetime)
            && request.closed == self.closed
            && request.public == self.public
            && same_origin
    }

    fn same_wish(&self, wish: &ForkWish, made: &ForkWish) -> bool {
        use protocol::offset::OffsetParam::{At, Now, Start};
        let named = |wish: &ForkWish| match wish.offset {
            Some(At(offset)) => Some(offset),
            Some(Start) => Some(Offset::ZERO),
            Some(Now) | None => None,
        };
        let offset = match (wish.offset, named(made)) {
            (None, _) | (Some(Start), None) => true,
            (Some(At(offset)), None) => Some(offset.position.0) == self.fork_point,
            (Some(Now), known) => known.is_none(),
            (Some(At(_) | Start), known) => named(wish) == known,
        };
        wish.source == made.source && wish.sub_offset == made.sub_offset && offset
    }
}

impl ModelPath {
    /// The life that clients see.
    ///
    /// # Errors
    /// How the path is missing.
    pub fn live(&mut self) -> Result<&mut ModelLife, Missing> {
        let Some(life) = &mut self.current else { return Err(Missing::NotFound) };
        match life.phase {
            Phase::Live => Ok(life),
            Phase::SoftDeleted => Err(Missing::Gone),
            Phase::Forking | Phase::Erasing | Phase::Held | Phase::Lapsed => Err(Missing::NotFound),
        }
    }

    /// What a PUT finds: the stream as asked for, nothing, or a reason to refuse.
    ///
    /// # Errors
    /// The refusal that the protocol asks for; [`CreateError::Exists`] names no property.
    pub fn existing(&self, request: &Create<Vec<u8>>) -> Result<Option<&ModelLife>, CreateError> {
        match &self.current {
            None => Ok(None),
            Some(life) => match life.phase {
                Phase::Forking => Err(CreateError::Busy),
                Phase::SoftDeleted => Err(CreateError::Held),
                Phase::Live if life.matches(request) => Ok(Some(life)),
                Phase::Live => Err(CreateError::Exists { differs: "" }),
                Phase::Erasing | Phase::Held | Phase::Lapsed => Ok(None),
            },
        }
    }

    /// Forks that reference a life.
    #[must_use]
    pub fn references(&self, generation: Generation) -> usize {
        let of = |row: &&ForkRow| matches!(row, ForkRow::Referenced { source, .. } if *source == generation);
        self.forks.values().filter(of).count()
    }

    /// The current life is deleted or expires; `true` when it is held for its forks.
    pub fn end(&mut self) -> bool {
        let Some(life) = &self.current else { return false };
        if self.references(life.generation) == 0 {
            self.bury(true);
            return false;
        }
        if let Some(life) = &mut self.current {
            life.phase = Phase::SoftDeleted;
        }
        true
    }

    /// How much of the current life is kept: all of it, or what its forks have inherited.
    #[must_use]
    pub fn kept(&self) -> u64 {
        let Some(life) = &self.current else { return 0 };
        if life.phase != Phase::SoftDeleted {
            return life.tail();
        }
        let point = |row: &ForkRow| match row {
            ForkRow::Referenced { source, at } if *source == life.generation => Some(at.0),
            _ => None,
        };
        self.forks.values().filter_map(point).max().unwrap_or(0)
    }

    /// The current life is gone for everybody; `release`: its source, if any, has to be told.
    pub fn bury(&mut self, release: bool) {
        let Some(life) = self.current.take() else { return };
        self.dead.push(life.generation);
        self.keys_end = self.keys_end.max(life.base + life.tail() + 1);
        if let Some(origin) = life.origin.as_ref().filter(|_| release) {
            self.releases.insert(life.generation, origin.wish.source.clone());
        }
        self.past.insert(life.generation, life);
    }

    /// A life of this path, also one that is gone.
    #[must_use]
    pub fn life(&self, generation: Generation) -> Option<&ModelLife> {
        let current = self.current.as_ref().filter(|life| life.generation == generation);
        current.or_else(|| self.past.get(&generation))
    }
}
