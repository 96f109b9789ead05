//! [`SessionServer`]: a session's object at work. It asks its stream and the subscription objects of its
//! sources, and tells the [`Session`] what became of it.
//!
//! The life of the session is changed by one request at a time. Subscriptions to different sources come and
//! go side by side; who subscribes to a source that somebody is subscribing to waits, and finds it done. What
//! an instance has begun and not ended may still be on its way: the epochs keep it apart.

mod joins;

use std::cell::RefCell;
use std::pin::pin;

use futures::future::{Either, join_all, select};
use futures::lock::Mutex;

use protocol::content_type::ContentType;
use protocol::fanout::{
    CheckSession, CreateSession, DescribeSource, DetachLink, EndSession, Ended, Message, Outcome,
    PutSession, Remove, SessionCreated, SessionRefusal, SessionState, SessionView,
    SourceDescription, SubscribeAll, SubscribedAll, SubscriptionEpoch, Unsubscribe, Wish,
};
use protocol::time::UnixMillis;

use super::ledger::{Ledger, Phase, SessionRow};
use super::peers::{Address, Event, NoAnswer, Peers};
use super::session::{Leaving, Session};
use super::shard_server::ServeError;
use super::turns::Turns;
use crate::log::LogError;

/// How long one run of the alarm goes on before the next one takes over.
const RUN_MS: u64 = 20_000;
/// Content type of a session whose creator named none.
const CONTENT_TYPE: &str = "application/json";

type Served<T> = Result<Outcome<T>, ServeError>;

/// A session's object at work. See the module's documentation.
pub struct SessionServer<L, P> {
    session: RefCell<Session<L>>,
    /// Object name, `{project}/{session}`.
    name: String,
    peers: P,
    /// Held by whoever changes the life of the session.
    life: Mutex<()>,
    /// Held by whoever subscribes, for the sources.
    joins: Turns,
}

impl<L: Ledger, P: Peers> SessionServer<L, P> {
    /// Serves a session.
    pub fn new(session: Session<L>, name: String, peers: P) -> Self {
        Self {
            session: RefCell::new(session),
            name,
            peers,
            life: Mutex::new(()),
            joins: Turns::default(),
        }
    }

    /// Looks at the session, or has it take a step. Nobody waits in between.
    pub fn with<T>(&self, step: impl FnOnce(&mut Session<L>) -> T) -> Result<T, LogError> {
        match self.session.try_borrow_mut() {
            Ok(mut session) => Ok(step(&mut session)),
            Err(_) => Err(LogError::Failed("the session is in use by its own step".into())),
        }
    }

    /// The others.
    pub fn peers(&self) -> &P {
        &self.peers
    }

    // ── the session itself ───────────────────────────────────────────────────────────────────────

    /// Creates the session, or confirms that it is there.
    ///
    /// # Errors
    /// [`ServeError`]: ask again.
    pub async fn put(&self, wish: &PutSession) -> Served<SessionView> {
        let _life = self.life.lock().await;
        if let Some((row, expires_at)) = self.alive(true).await? {
            return Ok(match difference(&row, wish) {
                None => Outcome::Done(self.view(&row, expires_at, false)?),
                Some(differs) => {
                    Outcome::Refused(SessionRefusal::Exists { differs: differs.to_owned() })
                }
            });
        }
        let content_type = wish.content_type.clone().unwrap_or_else(|| CONTENT_TYPE.to_owned());
        let (row, expires_at) = self.create(wish, content_type).await?;
        Ok(Outcome::Done(self.view(&row, expires_at, true)?))
    }

    /// Shows the session, or moves its end.
    ///
    /// # Errors
    /// [`ServeError`]: ask again.
    pub async fn show(&self, touches: bool) -> Served<SessionView> {
        let _life = self.life.lock().await;
        match self.alive(touches).await? {
            None => Ok(Outcome::Refused(SessionRefusal::NotFound)),
            Some((row, expires_at)) => Ok(Outcome::Done(self.view(&row, expires_at, false)?)),
        }
    }

    /// Deletes the session.
    ///
    /// # Errors
    /// [`ServeError`]: ask again; it is deleted in any case.
    pub async fn delete(&self) -> Served<()> {
        let _life = self.life.lock().await;
        let Some((row, _)) = self.alive(false).await? else {
            return Ok(Outcome::Refused(SessionRefusal::NotFound));
        };
        let now = self.peers.now();
        self.with(|session| session.begin_ending(now))??;
        self.end(&row).await?;
        Ok(Outcome::Done(()))
    }

    /// Deletes the stream of a session that is to end, and leaves its subscriptions to the alarm.
    async fn end(&self, row: &SessionRow) -> Result<(), ServeError> {
        self.ask(&self.stream(), &EndSession { generation: row.generation }).await?;
        let now = self.peers.now();
        Ok(self.with(|session| session.ended(now))??)
    }

    /// The session if it is there, and when it ends. What an earlier request has left half done is finished
    /// first.
    async fn alive(&self, touches: bool) -> Result<Option<(SessionRow, UnixMillis)>, ServeError> {
        let Some(row) = self.with(Session::row)?? else { return Ok(None) };
        match row.phase {
            Phase::None => Ok(None),
            Phase::Creating => self.finish_creation(&row).await.map(Some),
            Phase::Ending => self.end(&row).await.map(|()| None),
            Phase::Live => {
                let question = CheckSession { generation: row.generation, touches };
                let state = self.ask(&self.stream(), &question).await?;
                let now = self.peers.now();
                match state {
                    SessionState::Alive { expires_at } => Ok(Some((row, expires_at))),
                    SessionState::Gone => {
                        self.with(|session| session.ended(now))??;
                        Ok(None)
                    }
                }
            }
        }
    }

    async fn create(
        &self,
        wish: &PutSession,
        content_type: String,
    ) -> Result<(SessionRow, UnixMillis), ServeError> {
        let now = self.peers.now();
        let row = self.with(|session| session.begin_creation(wish, content_type, now))??;
        self.finish_creation(&row).await
    }

    async fn finish_creation(
        &self,
        row: &SessionRow,
    ) -> Result<(SessionRow, UnixMillis), ServeError> {
        let SessionRow { content_type, ttl_seconds, envelope, .. } = row;
        let (ttl_seconds, envelope) = (*ttl_seconds, *envelope);
        let (content_type, after) = (content_type.clone(), row.generation);
        let question = CreateSession { content_type, ttl_seconds, envelope, after };
        let created = self.ask(&self.stream(), &question).await?;
        let now = self.peers.now();
        match created {
            SessionCreated::Alive { generation, expires_at, .. } => {
                self.with(|session| session.created(generation, expires_at, now))??;
                Ok((SessionRow { generation, phase: Phase::Live, ..row.clone() }, expires_at))
            }
            SessionCreated::Ended { generation } => {
                self.with(|session| session.created_in_vain(generation, now))??;
                Err(NoAnswer("the session has ended since it was made".into()).into())
            }
            SessionCreated::Exists { differs } => {
                self.with(|session| session.creation_failed(now))??;
                let cause = format!("the session's stream has another {differs}");
                Err(NoAnswer(cause).into())
            }
        }
    }

    fn view(
        &self,
        row: &SessionRow,
        expires_at: UnixMillis,
        is_new: bool,
    ) -> Result<SessionView, LogError> {
        Ok(SessionView {
            is_new,
            content_type: row.content_type.clone(),
            ttl_seconds: row.ttl_seconds,
            envelope: row.envelope,
            expires_at,
            sources: self.with(|session| session.sources(row.generation))?,
        })
    }

    // ── subscriptions ────────────────────────────────────────────────────────────────────────────

    /// Subscribes to sources. A session that is not there is made first, if a source takes it.
    ///
    /// # Errors
    /// [`ServeError`]: ask again.
    pub async fn subscribe_all(&self, wish: &SubscribeAll) -> Served<SubscribedAll> {
        let sources = wish.wishes.iter().map(|wish| wish.source.clone()).collect();
        let ms = self.with(|session| session.bounds().deadline_ms)?;
        let (turn, patience) = (pin!(self.joins.take(sources)), pin!(self.peers.sleep(ms)));
        let Either::Left((_turn, _)) = select(turn, patience).await else {
            return Ok(Outcome::Refused(SessionRefusal::Unavailable));
        };
        // A session may turn out to be over only when it is attached to a source: then there is a new one.
        for _ in 0..2 {
            let (row, is_new, expires_at) = match self.ensure(wish).await? {
                Outcome::Done(ensured) => ensured,
                Outcome::Refused(refusal) => return Ok(Outcome::Refused(refusal)),
            };
            let joined = self.join_all(&row, &wish.wishes).await?;
            let is_gone = |outcome: &Outcome<()>| {
                matches!(outcome, Outcome::Refused(SessionRefusal::NotFound))
            };
            if joined.outcomes.iter().any(is_gone) && !is_new {
                let _life = self.life.lock().await;
                if self.alive(false).await?.is_none() {
                    continue;
                }
            }
            let refusal = joined.outcomes.iter().find_map(|outcome| match outcome {
                Outcome::Refused(refusal) => Some(refusal.clone()),
                Outcome::Done(()) => None,
            });
            if let Some(refusal) = refusal.filter(|_| is_new)
                && self.give_up(&row).await?
            {
                return Ok(Outcome::Refused(refusal));
            }
            let expires_at = match joined.expires_at.or(expires_at) {
                Some(expires_at) => expires_at,
                None => match self.touch(&row).await? {
                    Some(expires_at) => expires_at,
                    None => continue,
                },
            };
            let outcomes = joined.outcomes;
            return Ok(Outcome::Done(SubscribedAll { is_new, expires_at, outcomes }));
        }
        Ok(Outcome::Refused(SessionRefusal::Unavailable))
    }

    /// Nobody is to find a session that the request which made it did not get. `false`: somebody else
    /// has subscribed it.
    async fn give_up(&self, row: &SessionRow) -> Result<bool, ServeError> {
        let _life = self.life.lock().await;
        let known = self.with(Session::row)??;
        let is_same =
            |known: &SessionRow| known.phase == Phase::Live && known.generation == row.generation;
        if !known.as_ref().is_some_and(is_same) {
            return Ok(true);
        }
        if !self.with(|session| session.has_no_subscription())? {
            return Ok(false);
        }
        let now = self.peers.now();
        self.with(|session| session.begin_ending(now))??;
        self.end(row).await?;
        Ok(true)
    }

    /// When the session ends, if nobody reads it from now on.
    async fn touch(&self, row: &SessionRow) -> Result<Option<UnixMillis>, ServeError> {
        let question = CheckSession { generation: row.generation, touches: true };
        Ok(match self.ask(&self.stream(), &question).await? {
            SessionState::Alive { expires_at } => Some(expires_at),
            SessionState::Gone => None,
        })
    }

    /// The session as far as it is known here, or a new one.
    async fn ensure(
        &self,
        wish: &SubscribeAll,
    ) -> Result<Outcome<(SessionRow, bool, Option<UnixMillis>)>, ServeError> {
        let _life = self.life.lock().await;
        let known = self.with(Session::row)??;
        if let Some(row) = known.filter(|row| row.phase == Phase::Live) {
            return Ok(Outcome::Done((row, false, None)));
        }
        if let Some((row, expires_at)) = self.alive(true).await? {
            return Ok(Outcome::Done((row, false, Some(expires_at))));
        }
        let content_type = match self.fitting(wish).await? {
            Ok(content_type) => content_type,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        let (row, expires_at) = self.create(&PutSession::default(), content_type).await?;
        Ok(Outcome::Done((row, true, Some(expires_at))))
    }

    /// The content type of a session that is yet to be made, if there is a source for it.
    async fn fitting(
        &self,
        wish: &SubscribeAll,
    ) -> Result<Result<String, SessionRefusal>, ServeError> {
        let mut first = None;
        for Wish { source, .. } in &wish.wishes {
            let source = Address::Stream(source.clone());
            let refusal = match self.ask(&source, &DescribeSource).await? {
                SourceDescription::Refused(refusal) => SessionRefusal::Source(refusal),
                SourceDescription::Found { content_type } => match &wish.content_type {
                    Some(session) if !is_same_media_type(session, &content_type) => {
                        SessionRefusal::ContentType {
                            session: session.clone(),
                            source: content_type,
                        }
                    }
                    Some(session) => return Ok(Ok(session.clone())),
                    None => return Ok(Ok(content_type)),
                },
            };
            first.get_or_insert(refusal);
        }
        Ok(Err(first.unwrap_or(SessionRefusal::Unavailable)))
    }

    /// Ends a subscription. `false`: there was none.
    ///
    /// # Errors
    /// [`ServeError`]: ask again; it ends in any case.
    pub async fn unsubscribe(&self, wish: &Unsubscribe) -> Served<bool> {
        let _life = self.life.lock().await;
        let Some((row, _)) = self.alive(true).await? else {
            return Ok(Outcome::Refused(SessionRefusal::NotFound));
        };
        let now = self.peers.now();
        let leaving = self.with(|session| session.begin_leaving(&wish.source, now))??;
        let Some(leaving) = leaving else {
            // An earlier life of the source may still be delivering what it had.
            let last = self.with(|session| session.mint(now))??;
            let (generation, source) = (row.generation, wish.source.clone());
            let first = SubscriptionEpoch(0);
            self.detach(&Leaving { generation, source, first, last, has_stream: true }).await?;
            return Ok(Outcome::Done(false));
        };
        self.detach(&leaving).await?;
        // Nothing comes any more; that the row at the other end is gone as well need not be waited for.
        let removed = self.remove(&leaving).await;
        let now = self.peers.now();
        self.with(|session| session.end_leaving(&leaving, removed.is_ok(), now))??;
        Ok(Outcome::Done(true))
    }

    /// A source has ended.
    ///
    /// # Errors
    /// [`ServeError`]: ask again.
    pub async fn source_ended(&self, message: &Ended) -> Result<(), ServeError> {
        let Ended { link, session: generation, epoch } = message;
        let row = self.with(Session::row)??;
        let is_live =
            row.is_some_and(|row| row.phase == Phase::Live && row.generation == *generation);
        if is_live {
            let question = DetachLink {
                session: *generation,
                source: link.source.clone(),
                generation: Some(link.generation),
                first: SubscriptionEpoch(0),
                epoch: *epoch,
            };
            self.ask(&self.stream(), &question).await?;
        }
        let now = self.peers.now();
        Ok(self.with(|session| session.has_ended(*generation, &link.source, *epoch, now))??)
    }

    async fn detach(&self, leaving: &Leaving) -> Result<(), NoAnswer> {
        if !leaving.has_stream {
            return Ok(());
        }
        let question = DetachLink {
            session: leaving.generation,
            source: leaving.source.clone(),
            generation: None,
            first: leaving.first,
            epoch: leaving.last,
        };
        self.ask(&self.stream(), &question).await
    }

    async fn remove(&self, leaving: &Leaving) -> Result<(), NoAnswer> {
        let question =
            Remove { session: self.id().to_owned(), first: leaving.first, last: leaving.last };
        let source = Address::Subscription(leaving.source.clone());
        self.ask(&source, &question).await.map(|_| ())
    }

    // ── the alarm ────────────────────────────────────────────────────────────────────────────────

    /// The alarm: does what is due, and sets itself for what is not.
    ///
    /// # Errors
    /// [`LogError`]: the alarm may not be set.
    pub async fn alarm(&self) -> Result<(), LogError> {
        self.with(Session::begin_alarm)??;
        let until = self.peers.now().saturating_add_ms(RUN_MS);
        loop {
            let did = self.work().await;
            if let Err(error) = &did {
                self.peers.tell(Event::StorageFailed { cause: error.to_string() });
            }
            if !did.unwrap_or(false) || self.peers.now() >= until {
                break;
            }
        }
        let now = self.peers.now();
        self.with(|session| session.end_alarm(now))?
    }

    /// One round of what is due. `false`: there was nothing.
    async fn work(&self) -> Result<bool, LogError> {
        let now = self.peers.now();
        let at_a_time = self.with(|session| session.bounds().concurrency)?;
        let at_a_time = usize::try_from(at_a_time).unwrap_or(1).max(1);
        let duties = self.with(|session| session.begin_duties(at_a_time, now))??;
        let mut did = !duties.leaving.is_empty();
        if duties.session.is_some() {
            self.look_after().await?;
            did = true;
        }
        let left = join_all(duties.leaving.iter().map(|leaving| self.leave(leaving))).await;
        left.into_iter().collect::<Result<Vec<()>, LogError>>()?;
        Ok(did)
    }

    /// Finishes what the session's phase is about, or asks whether its time has come.
    async fn look_after(&self) -> Result<(), LogError> {
        let _life = self.life.lock().await;
        let looked = self.alive(false).await;
        let now = self.peers.now();
        match looked {
            Ok(Some((_, expires_at))) => {
                let expires_at = expires_at.max(now);
                self.with(|session| session.lives_on(expires_at, now))?
            }
            Ok(None) => Ok(()),
            Err(ServeError::Log(error)) => Err(error),
            Err(ServeError::NoAnswer(_)) => self.with(|session| session.postpone(now))?,
        }
    }

    async fn leave(&self, leaving: &Leaving) -> Result<(), LogError> {
        let removed = match self.detach(leaving).await {
            Ok(()) => self.remove(leaving).await,
            Err(no_answer) => Err(no_answer),
        };
        let now = self.peers.now();
        self.with(|session| session.end_leaving(leaving, removed.is_ok(), now))?
    }

    // ── names, waiting ───────────────────────────────────────────────────────────────────────────

    /// Id of the session.
    fn id(&self) -> &str {
        self.name.split_once('/').map_or("", |(_, id)| id)
    }

    fn stream(&self) -> Address {
        let (project, id) = self.name.split_once('/').unwrap_or_default();
        Address::Stream(format!("{project}/session/{id}"))
    }

    async fn ask<M: Message>(&self, to: &Address, message: &M) -> Result<M::Answer, NoAnswer> {
        let ms = self.with(|session| session.bounds().deadline_ms);
        let ms = ms.map_err(|error| NoAnswer(error.to_string()))?;
        match select(pin!(self.peers.ask(to, message)), pin!(self.peers.sleep(ms))).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(NoAnswer(format!("no answer within {ms} ms"))),
        }
    }
}

/// What a repeated PUT asks for that the session is not.
fn difference(row: &SessionRow, wish: &PutSession) -> Option<&'static str> {
    let content_type = wish.content_type.as_deref();
    if content_type.is_some_and(|wanted| !is_same_media_type(wanted, &row.content_type)) {
        return Some("contentType");
    }
    if wish.ttl_seconds.is_some_and(|wanted| wanted != row.ttl_seconds) {
        return Some("ttlSeconds");
    }
    wish.envelope.is_some_and(|wanted| wanted != row.envelope).then_some("envelope")
}

fn is_same_media_type(one: &str, other: &str) -> bool {
    match (ContentType::parse(one), ContentType::parse(other)) {
        (Ok(one), Ok(other)) => one.same_media_type(&other),
        _ => false,
    }
}
