//! Who is a subscriber, as each side has it: what operators compare. Nothing here changes anything.

use super::{Deserialize, Generation, Message, Serialize, ShardId, SubscriptionEpoch};

/// Which members does the shard have? In the order of their sessions' ids, then of the source's lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// Of these sessions only; empty: of all.
    pub sessions: Vec<String>,
    /// Behind this session and life of the source.
    pub after: Option<(String, Generation)>,
    /// At most so many.
    pub limit: u32,
}
message!(Roll, "roll", Vec<Member>);

/// A session that a shard delivers to, or has just delivered to for the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id of the session.
    pub session: String,
    /// Which life of the source.
    pub source: Generation,
    /// Generation of the session.
    pub generation: Generation,
    /// Which subscription.
    pub epoch: SubscriptionEpoch,
    /// Whether it is on its way out, alone or with its life of the source.
    pub is_leaving: bool,
}

/// Which sessions does the root know to be at other shards? In the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollDirectory {
    /// These sessions only; empty: all.
    pub sessions: Vec<String>,
    /// Behind this session.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}
message!(RollDirectory, "roll-directory", Directory);

/// The answer to [`RollDirectory`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The sessions.
    pub entries: Vec<Entry>,
    /// The highest shard that has ever had one; the root, if no other has.
    pub last: ShardId,
}

/// A session at another shard than the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Id of the session.
    pub session: String,
    /// Its newest subscription.
    pub epoch: SubscriptionEpoch,
    /// Where it is.
    pub shard: ShardId,
}

/// What does the session's object know of a subscription?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knows {
    /// Object name of the source.
    pub source: String,
    /// Generation of the session; `None`: any.
    pub generation: Option<Generation>,
    /// Which subscription.
    pub epoch: SubscriptionEpoch,
}
message!(Knows, "knows", Known);

/// The answer to [`Knows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Known {
    /// The session has it.
    Live,
    /// It is being made.
    Joining,
    /// It is being removed, or will be together with a newer one.
    Leaving,
    /// It is none of the session's.
    Unknown,
}
