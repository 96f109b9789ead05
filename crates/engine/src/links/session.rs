//! The life of a session's stream, and its links between deliveries.

use protocol::content_type::ContentType;
use protocol::fanout::{
    AttachLink, CheckSession, CreateSession, DetachLink, LinkAttached, SessionCreated, SessionState,
};
use protocol::lifetime::Lifetime;
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::{floor_of, plan_link, plan_no_links};
use crate::create::{Create, CreateError};
use crate::life::{Phase, SessionKind};
use crate::log::{Blob, LinkState, Log, LogError};
use crate::stream::{Current, Stream};

impl<L: Log> Stream<L> {
    /// Makes a session's stream, or confirms that it is there, which counts as an access.
    ///
    /// # Errors
    /// [`LogError`]; nothing is left behind. A content type that does not parse is the caller's
    /// mistake, and so are forks at the path; both are [`LogError::Failed`].
    pub fn create_session(
        &mut self,
        request: &CreateSession,
        now: UnixMillis,
    ) -> Result<SessionCreated, LogError> {
        let Ok(content_type) = ContentType::parse(&request.content_type) else {
            return Err(LogError::Failed("a session's content type does not parse".into()));
        };
        self.settle(now)?;
        let last = self.tombstone.generation;
        if self.current.is_none() && last > request.after {
            return Ok(SessionCreated::Ended { generation: last });
        }
        let kind = if request.envelope { SessionKind::Envelope } else { SessionKind::Plain };
        let create = Create {
            content_type: Some(content_type),
            lifetime: Lifetime::Ttl { seconds: request.ttl_seconds },
            closed: false,
            public: false,
            session: Some(kind),
            body: L::Bytes::from_vec(Vec::new()),
            fork: None,
        };
        let is_new = match self.create(&create, now) {
            Ok(created) => created.new,
            Err(CreateError::Exists { differs }) => {
                return Ok(SessionCreated::Exists { differs: differs.to_owned() });
            }
            Err(CreateError::Log(error)) => return Err(error),
            Err(_) => return Err(LogError::Failed("the path of a session is taken".into())),
        };
        self.touch(now)?;
        let Some(current) = &self.current else {
            return Err(LogError::Failed("a session has ended while it was made".into()));
        };
        let generation = current.life.generation;
        Ok(SessionCreated::Alive { generation, expires_at: self.session_end(now), is_new })
    }

    /// Deletes a session's stream, if it is that life; any other is left alone.
    ///
    /// # Errors
    /// [`LogError`]; it is still there.
    pub fn end_session(&mut self, session: Generation, now: UnixMillis) -> Result<(), LogError> {
        if self.has_session(session, now)? {
            self.remove(now)?;
        }
        Ok(())
    }

    /// Whether a session's stream is there.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn check_session(
        &mut self,
        request: &CheckSession,
        now: UnixMillis,
    ) -> Result<SessionState, LogError> {
        if !self.has_session(request.generation, now)? {
            return Ok(SessionState::Gone);
        }
        if request.touches {
            self.touch(now)?;
        }
        Ok(SessionState::Alive { expires_at: self.session_end(now) })
    }

    /// Takes deliveries of a subscription from now on. The same epoch once more changes nothing; a newer
    /// attempt at the same subscription goes on where that one is; an older one is superseded. Counts as
    /// an access.
    ///
    /// # Errors
    /// [`LogError`]; it was not attached.
    pub fn attach_link(
        &mut self,
        request: &AttachLink,
        now: UnixMillis,
    ) -> Result<LinkAttached, LogError> {
        if !self.has_session(request.session, now)? {
            return Ok(LinkAttached::Gone);
        }
        let Some(current) = &mut self.current else { return Ok(LinkAttached::Gone) };
        let session = &current.life.content_type;
        let sent = ContentType::parse(&request.content_type);
        if !sent.is_ok_and(|sent| sent.same_media_type(session)) {
            return Ok(LinkAttached::ContentType { session: session.as_str().to_owned() });
        }
        let (log, life) = (&self.log, current.life.generation);
        let floor = floor_of(&request.link.source);
        let floor = current.links.last(&floor, || log.link(life, &floor))?;
        let known = current.links.last(&request.link, || log.link(life, &request.link))?;
        let is_over = floor.is_some_and(|floor| request.epoch <= floor.epoch);
        if is_over || known.is_some_and(|known| request.epoch < known.epoch) {
            return Ok(LinkAttached::Superseded);
        }
        let same = known.filter(|known| known.epoch >= request.first);
        let next = same.and_then(|same| same.next).unwrap_or(request.start);
        // Before it is attached: who hears of a failure is to find nothing changed.
        self.touch(now)?;
        if known.is_none_or(|known| known.epoch != request.epoch)
            && let Some(current) = &mut self.current
        {
            let state = LinkState { epoch: request.epoch, next: Some(next) };
            let mut writes = Vec::new();
            plan_link(current, &mut writes, request.link.clone(), state);
            self.commit(writes)?;
        }
        Ok(LinkAttached::Attached { next, expires_at: self.session_end(now) })
    }

    /// Takes no deliveries of a source of some epochs any more, of one of its lives or of every one, and
    /// attaches nothing up to the last of them: a question may come once more when its answer is long over.
    ///
    /// # Errors
    /// [`LogError`]; it may have been detached, so ask again.
    pub fn detach_link(&mut self, request: &DetachLink, now: UnixMillis) -> Result<(), LogError> {
        if !self.has_session(request.session, now)? {
            return Ok(());
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        let DetachLink { source, generation, first, epoch, .. } = request;
        let mut writes = Vec::new();
        let (log, life, floor) = (&self.log, current.life.generation, floor_of(source));
        let known = current.links.last(&floor, || log.link(life, &floor))?;
        if known.is_none_or(|known| known.epoch < *epoch) {
            plan_link(current, &mut writes, floor, LinkState { epoch: *epoch, next: None });
        }
        plan_no_links(current, &mut writes, source, *generation, *first..=*epoch);
        self.commit(writes)
    }

    /// Whether that life of the session is there.
    fn has_session(&mut self, session: Generation, now: UnixMillis) -> Result<bool, LogError> {
        self.settle(now)?;
        let is = |current: &Current| {
            let life = &current.life;
            life.phase == Phase::Live && life.session.is_some() && life.generation == session
        };
        Ok(self.current.as_ref().is_some_and(is))
    }

    /// When the session ends, if nobody reads it until then.
    fn session_end(&self, now: UnixMillis) -> UnixMillis {
        let current = self.current.as_ref();
        current.and_then(|current| current.expires(self.attached_until)).unwrap_or(now)
    }
}
