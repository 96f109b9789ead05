//! What clients are answered.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{ApiError, Detail, ErrorCode};
use crate::fanout::{SessionView, SubscribedAll};
use crate::name::{Project, SessionId, StreamPath};
use crate::time::{UnixMillis, format_rfc3339};

/// A session, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Session"))]
#[serde(rename_all = "camelCase")]
pub struct SessionBody {
    /// Its id.
    pub session_id: String,
    /// URL path of its stream.
    pub session_stream_path: String,
    /// Content type of its stream.
    pub content_type: String,
    /// Seconds without a reader after which it ends.
    pub ttl_seconds: u64,
    /// Whether each message is wrapped with where it is from.
    pub envelope: bool,
    /// When it ends, if nobody reads it until then: RFC 3339.
    pub expires_at: String,
    /// What it is subscribed to, sorted.
    pub subscriptions: Vec<SubscriptionBody>,
}

/// A subscription, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionBody {
    /// Path of the stream, not percent-encoded.
    pub stream_id: String,
}

impl SessionBody {
    /// What a session's object tells of it.
    #[must_use]
    pub fn of(project: &Project, session: &SessionId, view: SessionView) -> SessionBody {
        let path_of = |source: String| match source.split_once('/') {
            Some((_, path)) => path.to_owned(),
            None => source,
        };
        let subscriptions = view.sources.into_iter().map(path_of);
        SessionBody {
            session_id: session.as_str().to_owned(),
            session_stream_path: session.stream(project).url_path(),
            content_type: view.content_type,
            ttl_seconds: view.ttl_seconds,
            envelope: view.envelope,
            expires_at: format_rfc3339(view.expires_at),
            subscriptions: subscriptions.map(|stream_id| SubscriptionBody { stream_id }).collect(),
        }
    }
}

/// The answer to a request that moves a session's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "TouchedSession"))]
#[serde(rename_all = "camelCase")]
pub struct TouchedBody {
    /// Its id.
    pub session_id: String,
    /// When it ends, if nobody reads it until then: RFC 3339.
    pub expires_at: String,
}

impl TouchedBody {
    /// The answer for `session`, which now ends at `expires_at`.
    #[must_use]
    pub fn of(session: &SessionId, expires_at: UnixMillis) -> TouchedBody {
        TouchedBody {
            session_id: session.as_str().to_owned(),
            expires_at: format_rfc3339(expires_at),
        }
    }
}

/// The answer to a request that has subscribed a session to one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Subscribed"))]
#[serde(rename_all = "camelCase")]
pub struct SubscribedBody {
    /// The session.
    pub session_id: String,
    /// Path of the stream, not percent-encoded.
    pub stream_id: String,
    /// URL path of the session's stream.
    pub session_stream_path: String,
    /// When the session ends, if nobody reads it until then: RFC 3339.
    pub expires_at: String,
    /// Whether the request made the session.
    pub is_new_session: bool,
}

impl SubscribedBody {
    /// The answer for `session`, of which its object has told `told`.
    #[must_use]
    pub fn of(
        project: &Project,
        session: &SessionId,
        path: &StreamPath,
        told: &SubscribedAll,
    ) -> SubscribedBody {
        SubscribedBody {
            session_id: session.as_str().to_owned(),
            stream_id: path.as_str().to_owned(),
            session_stream_path: session.stream(project).url_path(),
            expires_at: format_rfc3339(told.expires_at),
            is_new_session: told.is_new,
        }
    }
}

/// The answer to a request that has subscribed a session to many streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "SubscribedBatch"))]
#[serde(rename_all = "camelCase")]
pub struct BatchBody {
    /// The session.
    pub session_id: String,
    /// URL path of the session's stream.
    pub session_stream_path: String,
    /// When the session ends, if nobody reads it until then: RFC 3339.
    pub expires_at: String,
    /// Whether the request made the session.
    pub is_new_session: bool,
    /// What became of each stream, in the order of the request.
    pub results: Vec<ItemBody>,
}

impl BatchBody {
    /// The answer for `session`: whether it was made, when it ends, and what became of each stream.
    #[must_use]
    pub fn of(
        project: &Project,
        session: &SessionId,
        (is_new_session, expires_at): (bool, UnixMillis),
        results: Vec<ItemBody>,
    ) -> BatchBody {
        BatchBody {
            session_id: session.as_str().to_owned(),
            session_stream_path: session.stream(project).url_path(),
            expires_at: format_rfc3339(expires_at),
            is_new_session,
            results,
        }
    }
}

/// What became of one stream of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
#[serde(rename_all = "camelCase")]
pub struct ItemBody {
    /// Path of the stream, not percent-encoded.
    pub stream_id: String,
    /// Whether the session is subscribed to it.
    pub subscribed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
}

/// Why a session was not subscribed to one stream of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
pub struct ItemError {
    /// What kind; programs decide by it.
    pub code: ErrorCode,
    /// One sentence about this stream.
    pub message: String,
    /// Values for programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Detail>,
}

impl From<ApiError> for ItemError {
    fn from(error: ApiError) -> ItemError {
        let ApiError { code, message, details } = error;
        let details = details.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        ItemError { code, message, details }
    }
}

impl ItemBody {
    /// What became of `path`.
    #[must_use]
    pub fn of(path: &StreamPath, outcome: Result<(), ApiError>) -> ItemBody {
        ItemBody {
            stream_id: path.as_str().to_owned(),
            subscribed: outcome.is_ok(),
            error: outcome.err().map(ItemError::from),
        }
    }
}

/// The answer to a request that ends a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Unsubscribed"))]
#[serde(rename_all = "camelCase")]
pub struct UnsubscribedBody {
    /// The session.
    pub session_id: String,
    /// Path of the stream, not percent-encoded.
    pub stream_id: String,
    /// Whether there was a subscription.
    pub unsubscribed: bool,
}

impl UnsubscribedBody {
    /// The answer for `session` and `path`.
    #[must_use]
    pub fn of(session: &SessionId, path: &StreamPath, unsubscribed: bool) -> UnsubscribedBody {
        UnsubscribedBody {
            session_id: session.as_str().to_owned(),
            stream_id: path.as_str().to_owned(),
            unsubscribed,
        }
    }
}
