//! Create (PROTOCOL §5.1): a new life of the path, idempotent against the one that exists.

use protocol::content_type::ContentType;
use protocol::json::{JsonError, frame_messages};
use protocol::lifetime::Lifetime;
use protocol::offset::{Offset, Position};
use protocol::time::UnixMillis;

use crate::append::{Rows, plan_checkpoint};
use crate::fork::ForkWish;
use crate::life::{Closed, Life, Phase, SessionKind};
use crate::log::{Blob, Duty, Log, LogError, Write};
use crate::stream::{Current, Stream};

/// A request to create a stream.
#[derive(Clone, Debug)]
pub struct Create<B> {
    /// Content type; absent means `application/octet-stream`, or the source's for a fork.
    pub content_type: Option<ContentType>,
    /// Lifetime; unlimited means the source's for a fork.
    pub lifetime: Lifetime,
    /// Whether the stream is closed from the start.
    pub closed: bool,
    /// Whether everybody may read it; a fork does not inherit that.
    pub public: bool,
    /// Which session's stream it is to be, if any: clients never ask for one.
    pub session: Option<SessionKind>,
    /// First bytes; may be empty.
    pub body: B,
    /// What to fork, for a fork.
    pub fork: Option<ForkWish>,
}

/// A stream that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Whether this request made it.
    pub new: bool,
    /// The tail.
    pub next: Offset,
    /// Its content type.
    pub content_type: ContentType,
    /// Whether it is closed.
    pub closed: bool,
}

/// Why a stream was not created. Nothing is left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// A stream with another configuration exists; names what differs.
    Exists {
        /// The first property that differs.
        differs: &'static str,
    },
    /// The path is held by a deleted stream that forks still need.
    Held,
    /// A fork is being made at this path by another request: ask again when it is done.
    Busy,
    /// The first bytes are not JSON, on a JSON stream.
    Json(JsonError),
    /// The stream would hold more bytes than it may.
    Full {
        /// How many it may.
        bytes_max: u64,
    },
    /// The log failed.
    Log(LogError),
}

impl From<LogError> for CreateError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl<L: Log> Stream<L> {
    /// Creates a stream that is no fork.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left behind.
    pub fn create(
        &mut self,
        request: &Create<L::Bytes>,
        now: UnixMillis,
    ) -> Result<Created, CreateError> {
        if let Some(created) = self.existing(request, now)? {
            return Ok(created);
        }
        let content_type = request.content_type.clone().unwrap_or_default();
        let next = self.next_life(now);
        let mut current = Current::new(Life {
            generation: next.generation,
            base: next.next_base,
            phase: Phase::Live,
            content_type,
            lifetime: request.lifetime,
            public: request.public,
            session: request.session,
            touched: now,
            checkpoint: Position(0),
            hot_ends: 0,
            seq: None,
            closed: Closed::No,
            origin: None,
        });
        let mut writes = vec![Write::Life(current.life.clone())];
        writes.extend(first_bytes(&mut current, request, self.room(), now)?);
        self.begin(current, writes, now)
    }

    /// Makes a life the current one, with the duty that its lifetime asks for.
    pub(crate) fn begin(
        &mut self,
        mut current: Current,
        mut writes: Vec<Write<L::Bytes>>,
        now: UnixMillis,
    ) -> Result<Created, CreateError> {
        plan_checkpoint(&mut current, &mut writes);
        current.touched = now;
        let created = current.created(true);
        self.attached_until = UnixMillis::default();
        if self.rotation.as_ref().is_some_and(|row| row.generation != current.life.generation) {
            self.rotation = None;
        }
        match current.expires(UnixMillis::default()) {
            Some(due) => self.plan_duty(&mut writes, Duty::Expire, due),
            None => self.plan_no_duty(&mut writes, Duty::Expire),
        }
        self.current = Some(current);
        self.commit(writes)?;
        Ok(created)
    }

    /// The stream that is already there, if the request describes it; an error if it is another.
    pub(crate) fn existing(
        &mut self,
        request: &Create<L::Bytes>,
        now: UnixMillis,
    ) -> Result<Option<Created>, CreateError> {
        self.settle(now)?;
        let Some(current) = &self.current else { return Ok(None) };
        match current.life.phase {
            Phase::Erasing | Phase::Held | Phase::Lapsed => return Ok(None),
            Phase::Forking => return Err(CreateError::Busy),
            Phase::SoftDeleted => return Err(CreateError::Held),
            Phase::Live => {}
        }
        match current.difference(request) {
            None => Ok(Some(current.created(false))),
            Some(differs) => Err(CreateError::Exists { differs }),
        }
    }
}

/// The rows of a request's first bytes and of its close.
pub(crate) fn first_bytes<B: Blob>(
    current: &mut Current,
    request: &Create<B>,
    bytes_max: u64,
    now: UnixMillis,
) -> Result<Vec<Write<B>>, CreateError> {
    let mut rows = Rows::new(current, now);
    if !request.body.is_empty() {
        let body = match current.is_json() {
            false => request.body.clone(),
            true => {
                let framed = frame_messages(&request.body.to_vec()).map_err(CreateError::Json)?;
                B::from_vec(framed.wire)
            }
        };
        if current.hot_bytes().saturating_add(body.len()) > bytes_max {
            return Err(CreateError::Full { bytes_max });
        }
        if !body.is_empty() {
            rows.add_bytes(current, body);
        }
    }
    if request.closed {
        rows.close(current, None);
    }
    Ok(rows.finish(current))
}

impl Current {
    pub(crate) fn created(&self, new: bool) -> Created {
        Created {
            new,
            next: self.tail_offset(),
            content_type: self.life.content_type.clone(),
            closed: self.closed.is_closed(),
        }
    }

    /// What a repeated PUT asks for that this stream is not.
    fn difference<B>(&self, request: &Create<B>) -> Option<&'static str> {
        let forked = request.fork.is_some();
        let content_type = match (&request.content_type, forked) {
            (Some(content_type), _) => content_type.same_media_type(&self.life.content_type),
            (None, true) => true,
            (None, false) => ContentType::default().same_media_type(&self.life.content_type),
        };
        let inherits = forked && request.lifetime == Lifetime::Unlimited;
        if !content_type {
            return Some("content type");
        }
        if !inherits && request.lifetime != self.life.lifetime {
            return Some("lifetime");
        }
        if request.closed != self.closed.is_closed() {
            return Some("closed state");
        }
        if request.public != self.life.public {
            return Some("Stream-Public");
        }
        if request.session != self.life.session {
            return Some("session");
        }
        match (&request.fork, &self.life.origin) {
            (None, None) => None,
            (Some(wish), Some(origin)) => wish.difference(origin),
            _ => Some("fork source"),
        }
    }
}
