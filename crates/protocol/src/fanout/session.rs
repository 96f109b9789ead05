//! What the edge asks a session's object, and what is answered.
//!
//! **Error semantics.** A refusal has changed nothing. [`SessionRefusal::Unavailable`]: it is not known
//! whether it has; the same question may be asked again.
//!
//! **What stays out.** The bodies of the public API: [`crate::sessions`].

use serde::{Deserialize, Serialize};

use super::{Message, SourceRefusal};
use crate::time::UnixMillis;

/// An answer that may be a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<T> {
    /// It was done.
    Done(T),
    /// It was not, and nothing was changed.
    Refused(SessionRefusal),
}

/// Why a session's object did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionRefusal {
    /// There is no such session, or it has ended.
    NotFound,
    /// A session with other properties exists.
    Exists {
        /// The first property that differs.
        differs: String,
    },
    /// The source refused.
    Source(SourceRefusal),
    /// The content types do not fit.
    ContentType {
        /// The session's.
        session: String,
        /// The source's.
        source: String,
    },
    /// The session has as many subscriptions as it may.
    TooManySubscriptions {
        /// How many it may.
        max: u64,
    },
    /// The source has as many subscribers as it may.
    SourceFull,
    /// Somebody who had to be asked did not answer; ask again.
    Unavailable,
}

/// Create the session, or confirm that it is there. What is `None` takes the default for a new
/// session, and fits any that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSession {
    /// Content type of its stream; `application/json` by default.
    pub content_type: Option<String>,
    /// Sliding lifetime in seconds.
    pub ttl_seconds: Option<u64>,
    /// Whether each message is wrapped with where it is from.
    pub envelope: Option<bool>,
}
message!(PutSession, "put-session", Outcome<SessionView>);

/// Show the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowSession;
message!(ShowSession, "show-session", Outcome<SessionView>);

/// Move the session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchSession;
message!(TouchSession, "touch-session", Outcome<SessionView>);

/// A session as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Whether the request made it.
    pub is_new: bool,
    /// Content type of its stream.
    pub content_type: String,
    /// Sliding lifetime in seconds.
    pub ttl_seconds: u64,
    /// Whether each message is wrapped with where it is from.
    pub envelope: bool,
    /// When it ends, if nobody reads it until then.
    pub expires_at: UnixMillis,
    /// Object names of the sources that it is subscribed to, sorted. Empty in the answer to
    /// [`TouchSession`].
    pub sources: Vec<String>,
}

/// Delete the session, its stream and every subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSession;
message!(DeleteSession, "delete-session", Outcome<()>);

/// Subscribe the session to sources; it is made if it is not there and at least one source takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeAll {
    /// Content type of a session that is yet to be made; that of the first source by default.
    pub content_type: Option<String>,
    /// What to subscribe to: different sources.
    pub wishes: Vec<Wish>,
}
message!(SubscribeAll, "subscribe-all", Outcome<SubscribedAll>);

/// One source that a session wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Object name of the source.
    pub source: String,
    /// An offset, `-1` or `now`.
    pub from: String,
}

/// The answer to [`SubscribeAll`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribedAll {
    /// Whether the session was made.
    pub is_new: bool,
    /// When the session ends, if nobody reads it until then.
    pub expires_at: UnixMillis,
    /// One outcome a wish, in their order.
    pub outcomes: Vec<Outcome<()>>,
}

/// End a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// Object name of the source.
    pub source: String,
}
message!(Unsubscribe, "unsubscribe", Outcome<bool>);
