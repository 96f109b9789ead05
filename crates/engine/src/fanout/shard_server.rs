//! [`ShardServer`]: a subscription object at work. It asks sources, sessions and other shards, and tells
//! the [`Shard`] what became of it.
//!
//! Several questions are served at a time; each step between two waits is one decision of the shard.
//! One batch of a life is under way at a time; whoever finds one waits for its end, and what has piled up
//! until then goes out as the next.

mod deliveries;

use std::cell::RefCell;

use futures::channel::oneshot;
use futures::future::{Either, select};
use std::pin::pin;

use protocol::fanout::{
    AttachLink, AttachShard, DetachLink, Join, Left, LinkAttached, Remove, Removed, ShardAttached,
    ShardId, SourceLife, SourceRefusal, Subscribe, Subscribed, SubscriptionEpoch,
};

use super::directory::Placed;
use super::peers::{Address, NoAnswer, Peers};
use super::roster::Roster;
use super::shard::Shard;
use super::shard::members::{Joined, Start};
use crate::log::LogError;

/// Why a subscription object could not do what it was asked. Whoever asked asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServeError {
    /// Its storage failed.
    Log(LogError),
    /// Somebody whom it had to ask did not answer.
    NoAnswer(NoAnswer),
}

impl From<LogError> for ServeError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<NoAnswer> for ServeError {
    fn from(error: NoAnswer) -> Self {
        Self::NoAnswer(error)
    }
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::NoAnswer(NoAnswer(cause)) => f.write_str(cause),
        }
    }
}

/// Names of the others, as an object knows them by its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Object name of the source, `{project}/{path}`.
    pub source: String,
    /// Which shard this is.
    pub shard: ShardId,
}

impl Names {
    /// Those of the object of this name.
    #[must_use]
    pub fn of(object: &str) -> Option<Self> {
        let (source, shard) = ShardId::parse_object_name(object)?;
        Some(Self { source: source.to_owned(), shard })
    }

    fn project(&self) -> &str {
        self.source.split('/').next().unwrap_or_default()
    }

    /// Name of a session's stream.
    fn stream_of(&self, session: &str) -> String {
        format!("{}/session/{session}", self.project())
    }

    /// Name of a session's object.
    pub(super) fn session(&self, session: &str) -> Address {
        Address::Session(format!("{}/{session}", self.project()))
    }

    pub(super) fn shard(&self, shard: ShardId) -> Address {
        Address::Subscription(shard.object_name(&self.source))
    }
}

/// Runs when it is dropped, unless it has been disarmed: work whose future is dropped half way is given
/// back.
struct Undo<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Undo<F> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

/// A subscription object at work. See the module's documentation.
pub struct ShardServer<R, P> {
    shard: RefCell<Shard<R>>,
    names: Names,
    peers: P,
    /// Who waits for a batch or a join to end.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
}

impl<R: Roster, P: Peers> ShardServer<R, P> {
    /// Serves a shard.
    pub fn new(shard: Shard<R>, names: Names, peers: P) -> Self {
        Self { shard: RefCell::new(shard), names, peers, waiting: RefCell::new(Vec::new()) }
    }

    /// Looks at the shard, or has it take a step. Nobody waits in between.
    pub fn with<T>(&self, step: impl FnOnce(&mut Shard<R>) -> T) -> Result<T, LogError> {
        match self.shard.try_borrow_mut() {
            Ok(mut shard) => Ok(step(&mut shard)),
            Err(_) => Err(LogError::Failed("the shard is in use by its own step".into())),
        }
    }

    /// The others.
    pub fn peers(&self) -> &P {
        &self.peers
    }

    // ── subscribers ──────────────────────────────────────────────────────────────────────────────

    /// The root is asked for a subscription.
    ///
    /// # Errors
    /// [`ServeError`]: whether the subscription was made is not known.
    pub async fn subscribe(&self, wish: &Subscribe) -> Result<Subscribed, ServeError> {
        let now = self.peers.now();
        let placed = self.with(|shard| shard.place(&wish.session, wish.epoch, now))??;
        let shard = match placed {
            Placed::Here => return self.join(wish).await,
            Placed::Superseded => return Ok(Subscribed::Superseded),
            Placed::Full => return Ok(Subscribed::Full),
            Placed::Shard(shard) => shard,
        };
        let answer = self.peers.ask(&self.names.shard(shard), &Join(wish.clone())).await?;
        let is_taken = matches!(&answer, Subscribed::Live { epoch, .. } if *epoch == wish.epoch);
        if !is_taken {
            // Only the shard knows what it has of the session now. Nothing is removed: the same question
            // may have been asked twice, and taken once.
            let Subscribe { session, epoch, .. } = wish.clone();
            let first = SubscriptionEpoch(epoch.0.saturating_add(1));
            self.remove_at(shard, &Remove { session, first, last: epoch }).await?;
        } else {
            // Another copy of the question may have been refused meanwhile, and its place given back.
            let now = self.peers.now();
            self.with(|root| root.keep(shard, &wish.session, wish.epoch, now))??;
        }
        Ok(answer)
    }

    /// Subscriptions end at another shard, and the directory learns what is left there.
    async fn remove_at(&self, shard: ShardId, wish: &Remove) -> Result<Removed, ServeError> {
        let there = self.ask(&self.names.shard(shard), wish).await?;
        let now = self.peers.now();
        let from = (shard, wish.session.as_str());
        self.with(|root| root.left(from, wish.last, there.remaining, now))??;
        Ok(there)
    }

    /// A shard is asked for a subscription.
    ///
    /// # Errors
    /// [`ServeError`]: whether the subscription was made is not known.
    pub async fn join(&self, wish: &Subscribe) -> Result<Subscribed, ServeError> {
        self.with(|shard| shard.begin_join(&wish.session, wish.epoch))?;
        // However this ends: a join that is never over would keep every source waiting.
        let _end = Undo(Some(|| {
            let _ = self.with(|shard| shard.end_join(&wish.session, wish.epoch));
            self.wake();
        }));
        self.attach_both_ends(wish).await
    }

    async fn attach_both_ends(&self, wish: &Subscribe) -> Result<Subscribed, ServeError> {
        let question = AttachShard { shard: self.names.shard, from: wish.from.clone() };
        let source = Address::Stream(self.names.source.clone());
        let (at, content_type) = match self.ask(&source, &question).await? {
            ShardAttached::Attached { generation, start, tail, content_type } => {
                (Start { source: generation, start, tail }, content_type)
            }
            ShardAttached::Refused(refusal) => return Ok(Subscribed::Source(refusal)),
        };
        if self.with(|shard| shard.is_over(at.source))?? {
            // The answer was long under way. Who has everything is not to begin anew.
            return Ok(Subscribed::Source(SourceRefusal::NotFound));
        }
        let member = self.with(|shard| shard.membership(&wish.session, at.source))??;
        match member {
            Some(epoch) if Some(epoch) == wish.known || epoch == wish.epoch => {
                return Ok(Subscribed::Live { epoch, source: at.source, expires_at: None });
            }
            Some(epoch) if epoch > wish.epoch => return Ok(Subscribed::Superseded),
            _ => {}
        }
        if self.with(|shard| shard.is_of_another_life(&wish.session, wish.epoch, at.source))?? {
            return Ok(Subscribed::Superseded);
        }
        let link = SourceLife { source: self.names.source.clone(), generation: at.source };
        let question = AttachLink {
            session: wish.generation,
            link,
            epoch: wish.epoch,
            first: wish.first,
            start: at.start,
            content_type: content_type.clone(),
        };
        let stream = Address::Stream(self.names.stream_of(&wish.session));
        let (start, expires_at) = match self.ask(&stream, &question).await? {
            LinkAttached::Attached { next, expires_at } => (next, Some(expires_at)),
            LinkAttached::Gone => return Ok(Subscribed::SessionGone),
            LinkAttached::Superseded => return Ok(Subscribed::Superseded),
            LinkAttached::ContentType { session } => {
                return Ok(Subscribed::ContentType { session, source: content_type });
            }
        };
        let (now, at) = (self.peers.now(), Start { start, ..at });
        match self.with(|shard| shard.join(wish, at, now))?? {
            Joined::Member => {
                Ok(Subscribed::Live { epoch: wish.epoch, source: at.source, expires_at })
            }
            Joined::Removed => {
                // Nobody delivers to the link that was just attached.
                let (session, first) = (wish.generation, wish.epoch);
                let (source, generation) = (self.names.source.clone(), Some(at.source));
                let question = DetachLink { session, source, generation, first, epoch: first };
                self.ask(&stream, &question).await?;
                Ok(Subscribed::Superseded)
            }
        }
    }

    /// Subscriptions of a session end.
    ///
    /// # Errors
    /// [`ServeError`]: whether they have ended is not known.
    pub async fn remove(&self, wish: &Remove) -> Result<Removed, ServeError> {
        let now = self.peers.now();
        let Remove { session, first, last } = wish;
        let here = self.with(|shard| shard.remove(session, (*first, *last), now))??;
        if self.names.shard != ShardId::ROOT {
            return Ok(here);
        }
        let Some(entry) = self.with(|shard| shard.entry(session))?? else { return Ok(here) };
        let there = self.remove_at(entry.shard, wish).await?;
        Ok(Removed { remaining: here.remaining.max(there.remaining) })
    }

    /// A shard tells the root that a session has left it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn left(&self, message: &Left) -> Result<(), LogError> {
        let now = self.peers.now();
        let Left { shard, session, epoch, remaining } = message;
        self.with(|root| root.left((*shard, session), *epoch, *remaining, now))?
    }

    // ── waiting ──────────────────────────────────────────────────────────────────────────────────

    async fn ask<M: protocol::fanout::Message>(
        &self,
        to: &Address,
        message: &M,
    ) -> Result<M::Answer, NoAnswer> {
        self.in_time(self.peers.ask(to, message)).await
    }

    /// What a question is answered, if that is in time.
    async fn in_time<T>(
        &self,
        question: impl Future<Output = Result<T, NoAnswer>>,
    ) -> Result<T, NoAnswer> {
        let ms = self.with(|shard| shard.bounds().deadline_ms).map_err(no_answer)?;
        match select(pin!(question), pin!(self.peers.sleep(ms))).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(NoAnswer(format!("no answer within {ms} ms"))),
        }
    }

    /// Waits until a batch or a join has ended.
    async fn changed(&self) {
        let (sender, receiver) = oneshot::channel();
        match self.waiting.try_borrow_mut() {
            Ok(mut waiting) => waiting.push(sender),
            Err(_) => return,
        }
        // A sender that was dropped is a change as well.
        let _ = receiver.await;
    }

    fn wake(&self) {
        let Ok(mut waiting) = self.waiting.try_borrow_mut() else { return };
        for sender in std::mem::take(&mut *waiting) {
            // Who no longer waits needs no telling.
            let _ = sender.send(());
        }
    }
}

fn no_answer(error: LogError) -> NoAnswer {
    NoAnswer(error.to_string())
}
