//! Bodies of the operations on sessions and subscriptions: what clients send, and what they get.
//!
//! ```json
//! {"sessionId":"tab-1","streamId":"chat/42","from":"now"}
//! ```
//!
//! # Core types
//! - [`parse_session`], [`parse_subscribe`], [`parse_batch`], [`parse_unsubscribe`]: a body, as what is
//!   asked of the session's object.
//! - [`Subscribing`]: which session wants which streams.
//! - [`SessionBody`], [`TouchedBody`], [`SubscribedBody`], [`BatchBody`], [`UnsubscribedBody`]: answers.
//!
//! # Invariants
//! What was parsed names streams that may be sources: no session's own and none that is reserved, each
//! once. Offsets have one of the forms of offsets; whether a stream knows them, it says.
//!
//! **Error semantics.** `INVALID_BODY` names the field. A stream that can be no source is
//! `SOURCE_IS_SESSION` or `RESERVED`. One bad element refuses the whole body.
//!
//! **What stays out.** Whether the caller may do anything with the session and the streams, and what
//! becomes of it.

mod answers;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use garde::Validate;
use serde::Deserialize;

use crate::body::{at_field, parse_body};
use crate::content_type::ContentType;
use crate::error::{ApiError, ErrorCode};
use crate::fanout::{PutSession, Wish};
use crate::limits::{SESSION_TTL_SECONDS_CEILING, SUBSCRIBE_BATCH_MAX};
use crate::name::{Project, Reserved, SessionId, StreamName, StreamPath};
use crate::offset::OffsetParam;

pub use answers::{
    BatchBody, ItemBody, ItemError, SessionBody, SubscribedBody, SubscriptionBody, TouchedBody,
    UnsubscribedBody,
};

/// Where a subscription begins when nobody says where: what is appended from now on.
pub const DEFAULT_FROM: &str = "now";

/// A session that wants streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribing {
    /// The session.
    pub session: SessionId,
    /// Content type of a session that is yet to be made.
    pub content_type: Option<ContentType>,
    /// Different streams, in the order of the body.
    pub sources: Vec<Source>,
}

/// A stream that a session wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path.
    pub path: StreamPath,
    /// An offset, `-1` or `now`.
    pub from: String,
}

impl Source {
    /// The same, for the session's object.
    #[must_use]
    pub fn wish(&self, project: &Project) -> Wish {
        let name = StreamName { project: project.clone(), path: self.path.clone() };
        Wish { source: name.object_name(), from: self.from.clone() }
    }
}

/// Reads the body of a request that creates a session. An empty one asks for the defaults.
///
/// # Errors
/// `INVALID_BODY`.
pub fn parse_session(bytes: &[u8]) -> Result<PutSession, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(PutSession::default());
    }
    let CreateSessionBody { content_type, ttl_seconds, envelope } = parse_body(bytes)?;
    Ok(PutSession { content_type, ttl_seconds, envelope })
}

/// Reads the body of a request that subscribes a session to one stream.
///
/// # Errors
/// `INVALID_BODY`, `SOURCE_IS_SESSION`, `RESERVED`.
pub fn parse_subscribe(bytes: &[u8]) -> Result<Subscribing, ApiError> {
    let SubscribeBody { session_id, stream_id, content_type, from } = parse_body(bytes)?;
    let wanted = SourceBody { stream_id, from };
    subscribing(&session_id, content_type.as_deref(), vec![wanted])
}

/// Reads the body of a request that subscribes a session to many streams.
///
/// # Errors
/// `INVALID_BODY`, `SOURCE_IS_SESSION`, `RESERVED`.
pub fn parse_batch(bytes: &[u8]) -> Result<Subscribing, ApiError> {
    let SubscribeBatchBody { session_id, content_type, subscriptions } = parse_body(bytes)?;
    subscribing(&session_id, content_type.as_deref(), subscriptions)
}

/// Reads the body of a request that ends a subscription: the session and the stream.
///
/// # Errors
/// `INVALID_BODY`, `SOURCE_IS_SESSION`, `RESERVED`.
pub fn parse_unsubscribe(bytes: &[u8]) -> Result<(SessionId, StreamPath), ApiError> {
    let UnsubscribeBody { session_id, stream_id } = parse_body(bytes)?;
    Ok((session(&session_id)?, source(&stream_id)?))
}

fn subscribing(
    session_id: &str,
    content_type: Option<&str>,
    wanted: Vec<SourceBody>,
) -> Result<Subscribing, ApiError> {
    let content_type = content_type.map(ContentType::parse).transpose();
    let sources = wanted.into_iter().map(|SourceBody { stream_id, from }| {
        let from = from.unwrap_or_else(|| DEFAULT_FROM.to_owned());
        Ok(Source { path: source(&stream_id)?, from })
    });
    Ok(Subscribing {
        session: session(session_id)?,
        content_type: content_type.map_err(|error| not_allowed("contentType", &error))?,
        sources: sources.collect::<Result<_, ApiError>>()?,
    })
}

fn session(id: &str) -> Result<SessionId, ApiError> {
    SessionId::parse(id).map_err(|error| not_allowed("sessionId", &error))
}

/// A stream that may be a source.
fn source(path: &str) -> Result<StreamPath, ApiError> {
    let path = StreamPath::from_decoded(path).map_err(|error| not_allowed("streamId", &error))?;
    match path.reserved() {
        None => Ok(path),
        Some(Reserved::Session) => {
            Err(ApiError::new(ErrorCode::SourceIsSession, "The stream of a session is no source."))
        }
        Some(Reserved::Subscriptions) => {
            Err(ApiError::new(ErrorCode::Reserved, "This path is reserved for the service."))
        }
    }
}

fn not_allowed(field: &str, problem: &impl ToString) -> ApiError {
    let problem = problem.to_string();
    at_field(field, |field| format!("The field `{field}` is not allowed: {problem}."))
}

/// Body of a request that creates a session.
#[derive(Clone, Debug, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "CreateSession"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateSessionBody {
    /// Content type of its stream; `application/json` by default.
    #[garde(inner(custom(check_content_type)))]
    content_type: Option<String>,
    /// Seconds without a reader after which it ends.
    #[garde(inner(range(min = 1, max = SESSION_TTL_SECONDS_CEILING)))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = SESSION_TTL_SECONDS_CEILING)))]
    ttl_seconds: Option<u64>,
    /// Whether each message is wrapped with where it is from; takes `application/json`.
    #[garde(inner(custom(check_envelope(self.content_type.as_deref()))))]
    envelope: Option<bool>,
}

/// Body of a request that subscribes a session to one stream.
#[derive(Clone, Debug, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Subscribe"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubscribeBody {
    /// The session; it is made if it is not there.
    #[garde(custom(check_session))]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[a-zA-Z0-9_\\-:.]{1,128}$")))]
    session_id: String,
    /// Path of the stream, not percent-encoded.
    #[garde(custom(check_stream))]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    stream_id: String,
    /// Content type of a session that is yet to be made; the stream's by default.
    #[garde(inner(custom(check_content_type)))]
    content_type: Option<String>,
    /// An offset, `-1` or `now`, the default.
    #[garde(inner(custom(check_offset)))]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^(-1|now|[0-9]{16}_[0-9]{16})$")))]
    from: Option<String>,
}

/// Body of a request that subscribes a session to many streams.
#[derive(Clone, Debug, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "SubscribeBatch"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SubscribeBatchBody {
    /// The session; it is made if it is not there.
    #[garde(custom(check_session))]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[a-zA-Z0-9_\\-:.]{1,128}$")))]
    session_id: String,
    /// Content type of a session that is yet to be made; the first stream's by default.
    #[garde(inner(custom(check_content_type)))]
    content_type: Option<String>,
    /// The streams, each once.
    #[garde(length(min = 1, max = SUBSCRIBE_BATCH_MAX), custom(check_distinct), dive)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = SUBSCRIBE_BATCH_MAX)))]
    subscriptions: Vec<SourceBody>,
}

/// One stream of a batch.
#[derive(Clone, Debug, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SourceBody {
    /// Path of the stream, not percent-encoded.
    #[garde(custom(check_stream))]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    stream_id: String,
    /// An offset, `-1` or `now`, the default.
    #[garde(inner(custom(check_offset)))]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^(-1|now|[0-9]{16}_[0-9]{16})$")))]
    from: Option<String>,
}

/// Body of a request that ends a subscription.
#[derive(Clone, Debug, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Unsubscribe"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UnsubscribeBody {
    /// The session.
    #[garde(custom(check_session))]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[a-zA-Z0-9_\\-:.]{1,128}$")))]
    session_id: String,
    /// Path of the stream, not percent-encoded.
    #[garde(custom(check_stream))]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    stream_id: String,
}

fn check<T>(result: Result<T, impl ToString>) -> garde::Result {
    result.map(drop).map_err(|error| garde::Error::new(error.to_string()))
}

fn check_session(id: &str, (): &()) -> garde::Result {
    check(SessionId::parse(id))
}

fn check_stream(path: &str, (): &()) -> garde::Result {
    check(StreamPath::from_decoded(path))
}

fn check_offset(from: &str, (): &()) -> garde::Result {
    check(OffsetParam::parse(from))
}

fn check_content_type(text: &str, (): &()) -> garde::Result {
    check(ContentType::parse(text))
}

/// Only in JSON there is something to wrap a message with. A session's type is JSON by default.
fn check_envelope(content_type: Option<&str>) -> impl FnOnce(&bool, &()) -> garde::Result {
    let is_json = content_type.is_none_or(|text| {
        ContentType::parse(text).is_ok_and(|content_type| content_type.is_json())
    });
    move |wraps, ()| {
        if is_json || !wraps {
            return Ok(());
        }
        Err(garde::Error::new("the content type is not application/json"))
    }
}

fn check_distinct(wanted: &[SourceBody], (): &()) -> garde::Result {
    let distinct: BTreeSet<&str> = wanted.iter().map(|source| source.stream_id.as_str()).collect();
    let problem = "a stream stands there twice";
    if distinct.len() == wanted.len() { Ok(()) } else { Err(garde::Error::new(problem)) }
}
