//! What sessions, sources and subscription objects say to each other.
//!
//! ```text
//!  SessionObject ──Subscribe, Remove──► SubscriptionObject (root) ──Join, Remove──► (shard n)
//!     ▲  │                                   │ ▲                                       │
//!     │  │ CreateSession, DetachLink …       │ └──────────────── Left ─────────────────┤
//!   Ended│                                   │ AttachShard, Replicate ──► source stream │
//!     │  ▼                                   │ ◄────────────────────── Nudge            │
//!     │ session stream ◄── AttachLink, Deliver ────────────────────────────────────────┘
//!     └────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Core types
//! - [`Message`]: a question with its answer; both are JSON on the way between objects.
//! - [`SubscriptionEpoch`]: which subscription of one session to one source.
//! - [`SourceLife`]: a source and which life of it. Sessions have lives as well: their generation is
//!   that of their stream.
//! - [`Deliver`]: the one message that carries bytes.
//!
//! # Invariants
//! Every message names the lives that it is for, and is without effect on others. Every message that
//! attaches, detaches or drops names an epoch, and is without effect on a newer one. So each may be
//! lost, repeated, or come late.
//!
//! **Error semantics.** What the other side decides is part of the answer. That there is no answer
//! means nothing: the question may have been answered, or not.
//!
//! **What stays out.** How a message travels, and what anybody does because of it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::offset::{Generation, Position};
use crate::time::UnixMillis;

mod query;

/// A question between objects.
pub trait Message: Serialize + DeserializeOwned {
    /// Its name: the last segment of the internal URL.
    const OPERATION: &'static str;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned;
}

macro_rules! message {
    ($message:ident, $operation:literal, $answer:ty) => {
        impl Message for $message {
            const OPERATION: &'static str = $operation;
            type Answer = $answer;
        }
    };
}

mod roll;
mod session;

pub use roll::{Directory, Entry, Known, Knows, Member, Roll, RollDirectory};
pub use session::{
    DeleteSession, Outcome, PutSession, SessionRefusal, SessionView, ShowSession, SubscribeAll,
    SubscribedAll, TouchSession, Unsubscribe, Wish,
};

/// Which subscription of one session to one source: minted by the session's object, larger than every
/// earlier one of that session.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SubscriptionEpoch(pub u64);

/// Which part of a source's subscribers; 0 is the root.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The root: the shard that knows the others.
    pub const ROOT: ShardId = ShardId(0);

    /// Name of the subscription object of a source, `{project}/{path}`. Paths have no empty segments,
    /// so it is nobody else's.
    #[must_use]
    pub fn object_name(self, source: &str) -> String {
        match self {
            Self::ROOT => source.to_owned(),
            Self(shard) => format!("{source}//{shard}"),
        }
    }

    /// Source and shard of a subscription object's name.
    #[must_use]
    pub fn parse_object_name(name: &str) -> Option<(&str, ShardId)> {
        match name.split_once("//") {
            None => Some((name, Self::ROOT)),
            Some((source, shard)) => Some((source, Self(shard.parse().ok().filter(|at| *at > 0)?))),
        }
    }
}

/// One life of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceLife {
    /// Object name of the source, `{project}/{path}`.
    pub source: String,
    /// Which life.
    pub generation: Generation,
}

// ── to the source's stream ──────────────────────────────────────────────────────────────────────

/// A shard wants to be told of appends from now on, and where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachShard {
    /// Which shard.
    pub shard: ShardId,
    /// An offset, `-1` or `now`.
    pub from: String,
}

/// The answer to [`AttachShard`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardAttached {
    /// Every append past `tail` will be told.
    Attached {
        /// Which life.
        generation: Generation,
        /// Position that `from` names.
        start: Position,
        /// Position of the tail.
        tail: Position,
        /// The source's content type.
        content_type: String,
    },
    /// There is nothing to subscribe to.
    Refused(SourceRefusal),
}
message!(AttachShard, "attach-shard", ShardAttached);

/// What a source is, for a session that is yet to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeSource;

/// The answer to [`DescribeSource`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceDescription {
    /// A stream.
    Found {
        /// Its content type.
        content_type: String,
    },
    /// None.
    Refused(SourceRefusal),
}
message!(DescribeSource, "describe-source", SourceDescription);

/// Why a source cannot be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceRefusal {
    /// No stream at the path.
    NotFound,
    /// Deleted, held for its forks.
    Gone,
    /// The offset is of an earlier life.
    StaleOffset,
    /// The offset is none of the stream's.
    InvalidOffset,
    /// The offset lies past the tail.
    OffsetBeyondTail,
}

// ── to the session's stream ─────────────────────────────────────────────────────────────────────

/// Make the session's stream, or confirm that it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSession {
    /// Content type of the stream.
    pub content_type: String,
    /// Sliding lifetime in seconds.
    pub ttl_seconds: u64,
    /// Whether each message is wrapped with where it is from.
    pub envelope: bool,
    /// The last generation that the session's object knows of: if there was a later one that is over,
    /// this question comes too late.
    pub after: Generation,
}

/// The answer to [`CreateSession`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionCreated {
    /// The stream is there.
    Alive {
        /// Its generation: the session's.
        generation: Generation,
        /// When it ends, if nobody reads it until then.
        expires_at: UnixMillis,
        /// Whether this request made it.
        is_new: bool,
    },
    /// A stream with other properties is there.
    Exists {
        /// The first property that differs.
        differs: String,
    },
    /// There was one since, and it is over.
    Ended {
        /// Its generation, or a later one.
        generation: Generation,
    },
}
message!(CreateSession, "create-session", SessionCreated);

/// Delete the session's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSession {
    /// Which life of it.
    pub generation: Generation,
}
message!(EndSession, "end-session", ());

/// Whether the session's stream is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSession {
    /// Which life of it.
    pub generation: Generation,
    /// Whether the question counts as an access, which moves its end.
    pub touches: bool,
}

/// The answer to [`CheckSession`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// It is there.
    Alive {
        /// When it ends, if nobody reads it until then.
        expires_at: UnixMillis,
    },
    /// That life is over.
    Gone,
}
message!(CheckSession, "check-session", SessionState);

/// A subscription begins at the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachLink {
    /// Generation of the session.
    pub session: Generation,
    /// What is subscribed to.
    pub link: SourceLife,
    /// Which subscription.
    pub epoch: SubscriptionEpoch,
    /// Epochs from this one on are attempts at the same subscription: it goes on where they are.
    pub first: SubscriptionEpoch,
    /// The first position that is to be delivered.
    pub start: Position,
    /// The source's content type: the session's has to be the same media type.
    pub content_type: String,
}

/// The answer to [`AttachLink`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkAttached {
    /// Deliveries of this epoch are taken. Counts as an access to the session.
    Attached {
        /// The first position that it lacks: another one than asked for when the question, or an
        /// earlier attempt, has come before.
        next: Position,
        /// When the session ends, if nobody reads it until then.
        expires_at: UnixMillis,
    },
    /// That life of the session is over.
    Gone,
    /// The session has seen a newer epoch, or the end of this one.
    Superseded,
    /// The content types do not fit.
    ContentType {
        /// The session's.
        session: String,
    },
}
message!(AttachLink, "attach-link", LinkAttached);

/// Subscriptions end at the session: deliveries of epochs from `first` to `epoch` are refused from now on,
/// and attaching any up to `epoch` as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachLink {
    /// Generation of the session.
    pub session: Generation,
    /// Object name of the source.
    pub source: String,
    /// The life of the source whose link ends; `None`: of every life.
    pub generation: Option<Generation>,
    /// The first epoch that ends; above `epoch` when none does.
    pub first: SubscriptionEpoch,
    /// The last epoch that ends.
    pub epoch: SubscriptionEpoch,
}
message!(DetachLink, "detach-link", ());

/// A range of a source for a session; the bytes travel beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliver {
    /// Generation of the session.
    pub session: Generation,
    /// Where the bytes are from.
    pub link: SourceLife,
    /// Which subscription.
    pub epoch: SubscriptionEpoch,
    /// First position.
    pub from: Position,
    /// Position after the last byte.
    pub to: Position,
    /// Generation that the offsets of the range carry: that of the source, or of an ancestor for what a
    /// fork has inherited.
    pub offsets: Generation,
    /// Whether the range is lost: then there are no bytes, and the session is told so.
    pub is_gap: bool,
}

/// The answer to [`Deliver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// The session has the range, now or since earlier.
    Done,
    /// The session has everything before `next` only: begin there.
    Behind {
        /// Where to begin.
        next: Position,
    },
    /// The session takes nothing of this epoch: it is over, or was superseded.
    Gone,
}

// ── to subscription objects ─────────────────────────────────────────────────────────────────────

/// A session wants a source's messages. Sent to the root, and on to the shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Id of the session.
    pub session: String,
    /// Generation of the session.
    pub generation: Generation,
    /// Which subscription, if it is a new one.
    pub epoch: SubscriptionEpoch,
    /// The first attempt at it: nobody knows what came of those from this one on.
    pub first: SubscriptionEpoch,
    /// The subscription that the session believes to have.
    pub known: Option<SubscriptionEpoch>,
    /// An offset, `-1` or `now`.
    pub from: String,
}
message!(Subscribe, "subscribe", Subscribed);

/// The same, from the root to a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join(pub Subscribe);
message!(Join, "join", Subscribed);

/// The answer to [`Subscribe`] and [`Join`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subscribed {
    /// Messages will be delivered.
    Live {
        /// The subscription's epoch: the one asked for, or `known`, which is live already.
        epoch: SubscriptionEpoch,
        /// Generation of the source.
        source: Generation,
        /// When the session ends; `None` when nobody had to ask.
        expires_at: Option<UnixMillis>,
    },
    /// The source refused.
    Source(SourceRefusal),
    /// The session's life is over.
    SessionGone,
    /// A newer subscription was asked for, or this one is of another life of the source.
    Superseded,
    /// The content types do not fit.
    ContentType {
        /// The session's.
        session: String,
        /// The source's.
        source: String,
    },
    /// There are as many subscribers as there may be.
    Full,
}

/// Subscriptions of a session end: those with epochs from `first` to `last`. Sent to the root, and on to
/// the shard. Of none, if `last` is before `first`: it asks what the shard has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// Id of the session.
    pub session: String,
    /// First epoch that ends.
    pub first: SubscriptionEpoch,
    /// Last epoch that ends.
    pub last: SubscriptionEpoch,
}
message!(Remove, "remove", Removed);

/// The answer to [`Remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The highest epoch of the session that the shard still delivers to, or is about to.
    pub remaining: Option<SubscriptionEpoch>,
}

/// A shard has dropped a session's subscriptions up to `epoch`: told to the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Which shard.
    pub shard: ShardId,
    /// Id of the session.
    pub session: String,
    /// The last epoch that has ended.
    pub epoch: SubscriptionEpoch,
    /// The epoch that the shard still has, for another life of the source.
    pub remaining: Option<SubscriptionEpoch>,
}
message!(Left, "left", ());

/// A source tells a shard where its tail is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    /// Which life of the source.
    pub generation: Generation,
    /// Its tail.
    pub tail: Position,
    /// How the life stands.
    pub state: LifeState,
    /// How many shards the source has.
    pub shards: u32,
    /// Trace of the request that made the source grow last, for the logs.
    pub traceparent: Option<String>,
}
message!(Nudge, "nudge", Nudged);

/// How a source's life stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifeState {
    /// It may grow.
    Live,
    /// It was deleted or has expired; its bytes are kept for subscribers that lag behind.
    Held,
    /// Its bytes are gone.
    Lapsed,
}

/// The answer to [`Nudge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nudged {
    /// The shard will see to it that its subscribers get everything up to the tail: this is durable.
    Noted(Fanout),
    /// The shard has no subscribers of that life: it need not be told any more.
    Drop,
}

/// What became of a fan-out so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fanout {
    /// Subscribers.
    pub count: u64,
    /// Those that have everything.
    pub successes: u64,
    /// Those that were tried and have not.
    pub failures: u64,
    /// How the rest is delivered.
    pub mode: FanoutMode,
}

/// How a message is delivered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum FanoutMode {
    /// Before the publish was answered.
    #[default]
    Inline,
    /// Through the queue.
    Queued,
    /// Later, by the alarm of the subscription object.
    Deferred,
}

impl FanoutMode {
    /// As it stands in `Stream-Fanout-Mode`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Queued => "queued",
            Self::Deferred => "deferred",
        }
    }
}

impl Fanout {
    /// Both together: numbers add up, and the slower mode counts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            successes: self.successes.saturating_add(other.successes),
            failures: self.failures.saturating_add(other.failures),
            mode: self.mode.max(other.mode),
        }
    }
}

/// A message of the queue: a shard has something to deliver. It carries a position and no bytes, so it
/// may be lost, repeated, and come late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueMessage {
    /// Object name of the source.
    pub source: String,
    /// Which life of it.
    pub generation: Generation,
    /// Which shard.
    pub shard: ShardId,
    /// Everything up to here.
    pub up_to: Position,
    /// Trace of the request that made the source grow.
    pub traceparent: Option<String>,
}

/// The queue's message has come: deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverNow {
    /// Which life of the source.
    pub generation: Generation,
    /// Everything up to here.
    pub up_to: Position,
}
message!(DeliverNow, "deliver-now", ());

// ── to the session's object ─────────────────────────────────────────────────────────────────────

/// A subscription has ended with its source: everything was delivered, or told as a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What it was for.
    pub link: SourceLife,
    /// Generation of the session.
    pub session: Generation,
    /// Which subscription.
    pub epoch: SubscriptionEpoch,
}
message!(Ended, "ended", ());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_have_names_of_their_own() {
        assert_eq!(ShardId::ROOT.object_name("p/a/b"), "p/a/b");
        assert_eq!(ShardId(7).object_name("p/a/b"), "p/a/b//7");
        for shard in [ShardId(0), ShardId(1), ShardId(499)] {
            let name = shard.object_name("p/a");
            assert_eq!(ShardId::parse_object_name(&name), Some(("p/a", shard)));
        }
        assert_eq!(ShardId::parse_object_name("p/a//0"), None);
        assert_eq!(ShardId::parse_object_name("p/a//x"), None);
    }

    #[test]
    fn fanouts_add_up_to_the_slower_mode() {
        let inline = Fanout { count: 3, successes: 2, failures: 1, mode: FanoutMode::Inline };
        let queued = Fanout { count: 2, mode: FanoutMode::Queued, ..Fanout::default() };
        let both = inline.and(queued);
        assert_eq!(both, Fanout { count: 5, successes: 2, failures: 1, mode: FanoutMode::Queued });
        assert_eq!(both.mode.as_str(), "queued");
    }
}
