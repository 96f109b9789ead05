//! The closed list of error codes, and the body of an error response.
//!
//! ```json
//! {"error":{"code":"STALE_OFFSET","message":"one sentence","details":{"offset":"…"}}}
//! ```
//!
//! A code stands for one status, one cause and one cure; the message of an [`ApiError`] says what
//! happened this time. Clients may rely on the code and on nothing else. `docs/errors.md` is what
//! [`documentation`] makes of [`ErrorCode::ALL`]; `cargo xtask docs` writes it.
//!
//! **What stays out.** Which error of which operation gets which code: one exhaustive match at
//! the edge.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Declares [`ErrorCode`]: one entry per code with status, cause, cure and the body of an example.
macro_rules! error_codes {
    ($($variant:ident $code:literal $status:literal $cause:literal $cure:literal
        $example:literal)*) => {
        /// What went wrong, as clients see it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $code, "`, ", $status, ": ", $cause)] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the docs.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code as it stands in a body: `SCREAMING_SNAKE`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $code,)* }
            }

            /// The code with this text; `None` for any other text.
            #[must_use]
            pub fn parse(text: &str) -> Option<ErrorCode> {
                match text { $($code => Some(ErrorCode::$variant),)* _ => None }
            }

            /// The HTTP status that goes with the code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(ErrorCode::$variant => $status,)* }
            }

            /// One sentence for the docs: when this happens.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(ErrorCode::$variant => $cause,)* }
            }

            /// One sentence for the docs: what the caller can do.
            #[must_use]
            pub const fn cure(self) -> &'static str {
                match self { $(ErrorCode::$variant => $cure,)* }
            }

            /// A body for the docs, as a client gets it.
            #[must_use]
            pub const fn example(self) -> &'static str {
                match self { $(ErrorCode::$variant => $example,)* }
            }
        }
    };
}

error_codes! {
    InvalidPath "INVALID_PATH" 400
        "The stream's path is empty, too long or not allowed."
        "Use 1 to 512 bytes of UTF-8 without control characters, backslashes, encoded slashes, or empty, `.` and `..` segments."
        r#"{"error":{"code":"INVALID_PATH","message":"The stream's path has an empty segment."}}"#
    InvalidProject "INVALID_PROJECT" 400
        "The project's name is not allowed."
        "Use 1 to 64 letters, digits, `_` or `-`; the name `stream` is taken."
        r#"{"error":{"code":"INVALID_PROJECT","message":"The project is not 1 to 64 letters, digits, `_` or `-`, or it is `stream`."}}"#
    RouteNotFound "ROUTE_NOT_FOUND" 404
        "No resource has this URL."
        "Streams live at `/v1/{project}/stream/{path}` and `/v1/stream/{path}`."
        r#"{"error":{"code":"ROUTE_NOT_FOUND","message":"There is no such resource."}}"#
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405
        "The resource does not know this method."
        "Use one of the methods in the `Allow` header."
        r#"{"error":{"code":"METHOD_NOT_ALLOWED","message":"This resource has the methods GET, HEAD, POST, PUT, DELETE, OPTIONS."}}"#
    Unauthorized "UNAUTHORIZED" 401
        "The token is missing, malformed, expired or forged, or the project is unknown."
        "Send `Authorization: Bearer` with a token that a secret of the project signed."
        r#"{"error":{"code":"UNAUTHORIZED","message":"The token has expired."}}"#
    Forbidden "FORBIDDEN" 403
        "The token is for another project, has too small a scope, or does not cover the stream."
        "Ask whoever signs your tokens for one that allows the request."
        r#"{"error":{"code":"FORBIDDEN","message":"The token lacks the scope `write`."}}"#
    InvalidBody "INVALID_BODY" 400
        "The body is not JSON, or a field is unknown, repeated, missing or not allowed."
        "Compare `details.field` with the API documentation."
        r#"{"error":{"code":"INVALID_BODY","message":"The field `isPublic` has the wrong type.","details":{"field":"isPublic"}}}"#
    ProjectNotFound "PROJECT_NOT_FOUND" 404
        "No project has this name."
        "Create the project, or look at its name."
        r#"{"error":{"code":"PROJECT_NOT_FOUND","message":"There is no such project."}}"#
    ProjectExists "PROJECT_EXISTS" 409
        "A project has this name already."
        "Change the project that there is, or use another name."
        r#"{"error":{"code":"PROJECT_EXISTS","message":"The project exists already."}}"#
    SecretNotFound "SECRET_NOT_FOUND" 404
        "The project has no secret with this id."
        "Take the id from the project's list of secrets."
        r#"{"error":{"code":"SECRET_NOT_FOUND","message":"The project has no secret with this id."}}"#
    LastSecret "LAST_SECRET" 409
        "The secret is the only one of the project: without it nobody could sign a token."
        "Add another secret first."
        r#"{"error":{"code":"LAST_SECRET","message":"The secret is the last one of the project."}}"#
    TooManySecrets "TOO_MANY_SECRETS" 409
        "The project has as many secrets as are allowed."
        "Remove a secret that signs no tokens any more."
        r#"{"error":{"code":"TOO_MANY_SECRETS","message":"The project has 8 secrets, and no more are allowed."}}"#
    HeadersTooLarge "HEADERS_TOO_LARGE" 431
        "A request header, or all of them together, are larger than the service takes."
        "Send fewer or shorter headers."
        r#"{"error":{"code":"HEADERS_TOO_LARGE","message":"The request headers are larger than 16384 bytes.","details":{"bytesMax":16384}}}"#
    RequestTimeout "REQUEST_TIMEOUT" 408
        "The body did not arrive in time; nothing was appended."
        "Send the request again, in smaller parts over a slow connection."
        r#"{"error":{"code":"REQUEST_TIMEOUT","message":"The body did not arrive within 60000 ms."}}"#
    Reserved "RESERVED" 403
        "The first segment of the path is reserved, and clients may not write there."
        "Choose a path that does not begin with `__ds` or `session`."
        r#"{"error":{"code":"RESERVED","message":"This path is reserved for the service."}}"#
    StreamNotFound "STREAM_NOT_FOUND" 404
        "No stream has this path, or it has expired."
        "Create the stream with PUT."
        r#"{"error":{"code":"STREAM_NOT_FOUND","message":"There is no stream at this path."}}"#
    StreamGone "STREAM_GONE" 410
        "The stream was deleted, and forks still hold its data."
        "Use another path, or delete the forks first."
        r#"{"error":{"code":"STREAM_GONE","message":"The stream was deleted and is held only for its forks."}}"#
    StreamExists "STREAM_EXISTS" 409
        "A stream with another configuration has this path."
        "Send the configuration of the existing stream, or use another path."
        r#"{"error":{"code":"STREAM_EXISTS","message":"A stream with another content type exists at this path.","details":{"differs":"content type"}}}"#
    InvalidOffset "INVALID_OFFSET" 400
        "The offset is malformed or names no message boundary."
        "Use `-1`, `now` or an offset that the server returned for this stream."
        r#"{"error":{"code":"INVALID_OFFSET","message":"The offset is neither `-1`, `now` nor two groups of 16 digits joined by `_`."}}"#
    StaleOffset "STALE_OFFSET" 400
        "The offset belongs to an earlier stream of the same path."
        "Read again from the start with `-1`."
        r#"{"error":{"code":"STALE_OFFSET","message":"The offset belongs to an earlier life of this path."}}"#
    OffsetBeyondTail "OFFSET_BEYOND_TAIL" 400
        "The offset lies past the end of the stream."
        "Use an offset that the server returned for this stream."
        r#"{"error":{"code":"OFFSET_BEYOND_TAIL","message":"The offset lies past the end of the stream.","details":{"tail":"0001795258346428_0000000000000009"}}}"#
    InvalidQuery "INVALID_QUERY" 400
        "A query parameter is unknown to its mode, repeated, missing or malformed."
        "Compare the request with the API documentation."
        r#"{"error":{"code":"INVALID_QUERY","message":"A live read names its `offset`."}}"#
    InvalidHeader "INVALID_HEADER" 400
        "A request header is malformed or stands without the header that it belongs to."
        "Compare the request with the API documentation."
        r#"{"error":{"code":"INVALID_HEADER","message":"Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From."}}"#
    InvalidContentType "INVALID_CONTENT_TYPE" 400
        "The content type is no media type."
        "Send `type/subtype` with optional parameters, at most 256 bytes."
        r#"{"error":{"code":"INVALID_CONTENT_TYPE","message":"The content type is not `type/subtype` with optional `; name=value` parameters in at most 256 bytes."}}"#
    ContentTypeMissing "CONTENT_TYPE_MISSING" 400
        "An append with a body has no content type."
        "Send the stream's content type."
        r#"{"error":{"code":"CONTENT_TYPE_MISSING","message":"The body has no Content-Type."}}"#
    ContentTypeMismatch "CONTENT_TYPE_MISMATCH" 409
        "The content type of the append, or of the session that is subscribed, is not the stream's."
        "Send the stream's content type, which HEAD tells, or use a session of that type."
        r#"{"error":{"code":"CONTENT_TYPE_MISMATCH","message":"The body's content type is not the stream's.","details":{"expected":"application/json"}}}"#
    InvalidLifetime "INVALID_LIFETIME" 400
        "`Stream-TTL` or `Stream-Expires-At` is malformed, or both are present."
        "Send one of them: whole seconds, or an RFC 3339 date-time."
        r#"{"error":{"code":"INVALID_LIFETIME","message":"Stream-ttl is not a decimal integer from 0 to 100000000000."}}"#
    InvalidProducer "INVALID_PRODUCER" 400
        "The producer headers are incomplete or malformed."
        "Send `Producer-Id`, `Producer-Epoch` and `Producer-Seq` together, or none."
        r#"{"error":{"code":"INVALID_PRODUCER","message":"The producer headers come together, and producer-epoch is missing."}}"#
    StaleEpoch "STALE_EPOCH" 403
        "A later run of the same producer has taken over."
        "Stop, or begin a higher epoch than the one in `Producer-Epoch`."
        r#"{"error":{"code":"STALE_EPOCH","message":"A newer epoch of this producer has appended.","details":{"currentEpoch":5}}}"#
    EpochStart "EPOCH_START" 400
        "A new epoch did not begin at sequence 0."
        "Begin each epoch with `Producer-Seq: 0`."
        r#"{"error":{"code":"EPOCH_START","message":"A new producer epoch has to start at sequence number 0."}}"#
    ProducerGap "PRODUCER_GAP" 409
        "Requests of this producer are missing before this one."
        "Send again from the number in `Producer-Expected-Seq`."
        r#"{"error":{"code":"PRODUCER_GAP","message":"Appends of this producer are missing before this one.","details":{"expectedSeq":1,"receivedSeq":2}}}"#
    StreamSeqConflict "STREAM_SEQ_CONFLICT" 409
        "`Stream-Seq` is not above the last one of the stream."
        "Read what was written meanwhile and send a higher value."
        r#"{"error":{"code":"STREAM_SEQ_CONFLICT","message":"Stream-Seq is not above the last one of this stream.","details":{"last":"0042"}}}"#
    StreamClosed "STREAM_CLOSED" 409
        "The stream is closed and takes no more data."
        "Write to another stream."
        r#"{"error":{"code":"STREAM_CLOSED","message":"The stream is closed."}}"#
    EmptyBody "EMPTY_BODY" 400
        "An append has no body and does not close the stream."
        "Send a body, or `Stream-Closed: true`."
        r#"{"error":{"code":"EMPTY_BODY","message":"The body is empty, and the request does not close the stream."}}"#
    EmptyArray "EMPTY_ARRAY" 400
        "An append to a JSON stream is an array without elements."
        "Send at least one message."
        r#"{"error":{"code":"EMPTY_ARRAY","message":"The JSON array has no elements to append."}}"#
    InvalidJson "INVALID_JSON" 400
        "The body of a JSON stream is not valid JSON, or nested too deeply."
        "Send one JSON value, or an array of messages, in UTF-8."
        r#"{"error":{"code":"INVALID_JSON","message":"The body is not valid JSON: an unexpected character at byte 6."}}"#
    BodyTooLarge "BODY_TOO_LARGE" 413
        "The body is larger than the deployment allows."
        "Split it into several appends."
        r#"{"error":{"code":"BODY_TOO_LARGE","message":"The body is larger than 8388608 bytes.","details":{"bytesMax":8388608}}}"#
    BodyIncomplete "BODY_INCOMPLETE" 400
        "The body ended before it was complete; nothing was appended."
        "Send the request again."
        r#"{"error":{"code":"BODY_INCOMPLETE","message":"The body ended before its announced length."}}"#
    UriTooLong "URI_TOO_LONG" 414
        "The URL is longer than any valid one."
        "Use a shorter path."
        r#"{"error":{"code":"URI_TOO_LONG","message":"The URL path is longer than 2048 bytes."}}"#
    ForkSourceNotFound "FORK_SOURCE_NOT_FOUND" 404
        "The stream to fork does not exist, or belongs to another project."
        "Name an existing stream of the same project by its URL path."
        r#"{"error":{"code":"FORK_SOURCE_NOT_FOUND","message":"There is no stream to fork."}}"#
    ForkSourceGone "FORK_SOURCE_GONE" 409
        "The stream to fork was deleted, and forks still hold its data."
        "Fork one of its forks."
        r#"{"error":{"code":"FORK_SOURCE_GONE","message":"The stream to fork was deleted."}}"#
    ForkBeyondTail "FORK_BEYOND_TAIL" 400
        "The fork offset lies past the end of the source."
        "Use an offset that the server returned for the source."
        r#"{"error":{"code":"FORK_BEYOND_TAIL","message":"The fork offset lies past the end of the source.","details":{"tail":"0001795258346428_0000000000000009"}}}"#
    ForkSubOffset "FORK_SUB_OFFSET" 400
        "The sub-offset is malformed or reaches past the next boundary of the source."
        "Count messages (JSON) or bytes of the one append that follows the fork offset."
        r#"{"error":{"code":"FORK_SUB_OFFSET","message":"The sub-offset names a position past the next boundary of the source."}}"#
    ForkContentType "FORK_CONTENT_TYPE" 409
        "The content type of the fork is not its source's."
        "Leave `Content-Type` out, or send the source's."
        r#"{"error":{"code":"FORK_CONTENT_TYPE","message":"The fork's content type is not the source's.","details":{"expected":"text/plain"}}}"#
    ForkTooDeep "FORK_TOO_DEEP" 400
        "The source is a fork of a fork, and so on, too many times."
        "Fork a stream nearer to the root."
        r#"{"error":{"code":"FORK_TOO_DEEP","message":"The chain of forks is too long."}}"#
    InvalidSession "INVALID_SESSION" 400
        "The session's id is not allowed."
        "Use 1 to 128 letters, digits, `_`, `-`, `:` or `.`; not `.` or `..`."
        r#"{"error":{"code":"INVALID_SESSION","message":"The session is not 1 to 128 letters, digits, `_`, `-`, `:` or `.`, or it is `.` or `..`."}}"#
    SessionNotFound "SESSION_NOT_FOUND" 404
        "No session has this id, or nobody has read it for its lifetime."
        "Create the session with PUT, or subscribe it, which creates it as well."
        r#"{"error":{"code":"SESSION_NOT_FOUND","message":"There is no such session."}}"#
    SessionExists "SESSION_EXISTS" 409
        "A session with another configuration has this id."
        "Send the configuration of the existing session, or use another id."
        r#"{"error":{"code":"SESSION_EXISTS","message":"A session with another lifetime exists.","details":{"differs":"lifetime"}}}"#
    SourceIsSession "SOURCE_IS_SESSION" 409
        "The stream is a session's own, which takes only what it is subscribed to."
        "Name a stream whose path does not begin with `session`."
        r#"{"error":{"code":"SOURCE_IS_SESSION","message":"The stream of a session is no source."}}"#
    TooManySubscriptions "TOO_MANY_SUBSCRIPTIONS" 409
        "The session has as many subscriptions as the deployment allows."
        "Unsubscribe it from another stream, or use another session."
        r#"{"error":{"code":"TOO_MANY_SUBSCRIPTIONS","message":"The session has as many subscriptions as it may.","details":{"max":1000}}}"#
    TooManySubscribers "TOO_MANY_SUBSCRIBERS" 409
        "The stream has as many subscribers as the deployment allows."
        "Read the stream itself, or subscribe to a fork of it."
        r#"{"error":{"code":"TOO_MANY_SUBSCRIBERS","message":"The stream has as many subscribers as it may."}}"#
    TooManyReaders "TOO_MANY_READERS" 429
        "The stream has as many live readers as the deployment allows."
        "Try again after the seconds in `Retry-After`, or read without `live`."
        r#"{"error":{"code":"TOO_MANY_READERS","message":"The stream has as many live readers as it can serve."}}"#
    UpgradeRequired "UPGRADE_REQUIRED" 426
        "A read with `live=ws` did not ask for a WebSocket."
        "Send `Upgrade: websocket`, or read with another `live`."
        r#"{"error":{"code":"UPGRADE_REQUIRED","message":"A read with `live=ws` needs `Upgrade: websocket`."}}"#
    InvalidSubprotocol "INVALID_SUBPROTOCOL" 400
        "None of the offered WebSocket subprotocols is known."
        "Offer `durable-streams.v1`, or none."
        r#"{"error":{"code":"INVALID_SUBPROTOCOL","message":"None of the offered subprotocols is `durable-streams.v1`."}}"#
    InvalidFrame "INVALID_FRAME" 400
        "A WebSocket message is none of the frames that a client may send."
        "Send text: a JSON object with `credit` or `append`, and nothing else."
        r#"{"error":{"code":"INVALID_FRAME","message":"The frame is not valid JSON: see line 1, column 6."}}"#
    InvalidCredit "INVALID_CREDIT" 400
        "Credit is no integer from 0 to 2^53 - 1, or the sum passes that."
        "Grant what you are ready to receive."
        r#"{"error":{"code":"INVALID_CREDIT","message":"Credit is not an integer from 0 to 2^53-1."}}"#
    InvalidAppend "INVALID_APPEND" 400
        "The `append` of a WebSocket message has unknown, repeated, missing or malformed fields."
        "Compare the frame with the documentation of live readers."
        r#"{"error":{"code":"INVALID_APPEND","message":"An append has either `payload` or `base64`, not both."}}"#
    MessageTooLarge "MESSAGE_TOO_LARGE" 413
        "A WebSocket message is larger than the deployment allows."
        "Split it into several appends, or append with POST."
        r#"{"error":{"code":"MESSAGE_TOO_LARGE","message":"The message is larger than 1048576 bytes.","details":{"bytesMax":1048576}}}"#
    RateLimited "RATE_LIMITED" 429
        "A client sent more requests, or more WebSocket frames, than the deployment allows in a given time."
        "Wait for the seconds in `Retry-After`; with a WebSocket, connect again and grant larger credit."
        r#"{"error":{"code":"RATE_LIMITED","message":"More than 1000 frames in a minute.","details":{"framesPerMinute":1000}}}"#
    TooManyUnacked "TOO_MANY_UNACKED" 429
        "A WebSocket client sent too many bytes ahead of the answers to its appends."
        "Connect again, and wait for acks before you send more."
        r#"{"error":{"code":"TOO_MANY_UNACKED","message":"More than 8388608 bytes of appends wait for their answers.","details":{"bytesMax":8388608}}}"#
    StreamFull "STREAM_FULL" 507
        "The stream has as many bytes as the deployment allows."
        "Continue in another stream, or delete this one."
        r#"{"error":{"code":"STREAM_FULL","message":"The stream holds as many bytes as it may.","details":{"bytesMax":8589934592}}}"#
    Unavailable "UNAVAILABLE" 503
        "A part of the service cannot be reached; whether a write took effect is unknown."
        "Try again after the seconds in `Retry-After`; producer headers make that safe."
        r#"{"error":{"code":"UNAVAILABLE","message":"The stream did not answer; ask again."}}"#
    Misconfigured "MISCONFIGURED" 500
        "The deployment lacks a binding, a variable has a bad value, or the registry's record of the project cannot be read."
        "The operator finds its name in the log."
        r#"{"error":{"code":"MISCONFIGURED","message":"LONG_POLL_TIMEOUT_MS is \"x\", which is not a decimal integer from 1 to 90000."}}"#
    StorageFailed "STORAGE_FAILED" 500
        "Storage refused a read or a write; nothing was changed."
        "Try again; the operator finds the cause in the log."
        r#"{"error":{"code":"STORAGE_FAILED","message":"The stream's storage failed; nothing was changed."}}"#
    SegmentCorrupt "SEGMENT_CORRUPT" 500
        "The object store lost or damaged the segment that holds the range; nothing was deleted."
        "Read other ranges; the operator finds the segment's name in the log."
        r#"{"error":{"code":"SEGMENT_CORRUPT","message":"A segment of the stream is damaged; other ranges can be read.","details":{"segment":"_default/a//0001769828898548/0000000000000000.1"}}}"#
    Internal "INTERNAL" 500
        "The service met a state that it does not expect."
        "Report it with the request id."
        r#"{"error":{"code":"INTERNAL","message":"The service failed while calling the stream."}}"#
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
        let text = String::deserialize(deserializer)?;
        ErrorCode::parse(&text).ok_or_else(|| serde::de::Error::custom("an unknown error code"))
    }
}

/// What stands in `docs/errors.md`: every code with its status, cause, cure and an example.
#[must_use]
pub fn documentation() -> String {
    let mut page = String::from(
        "<!-- Made by `cargo xtask docs` from crates/protocol/src/error.rs. -->\n\n\
         # Errors\n\n\
         An error has the status of its code, `Content-Type: application/json`, `Cache-Control: no-store`, and this body;\n\
         `details` may be absent. Programs decide by `code`, people read `message`. The list is closed.\n",
    );
    for code in ErrorCode::ALL {
        let (status, cause, cure, example) =
            (code.status(), code.cause(), code.cure(), code.example());
        page.push_str(&format!(
            "\n## `{code}` · {status}\n\n{cause} {cure}\n\n```json\n{example}\n```\n"
        ));
    }
    page
}

/// One value of an error's `details`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Detail {
    /// A JSON string.
    Text(String),
    /// A JSON number. Readers in JavaScript lose precision above 2^53 - 1.
    Number(u64),
    /// A JSON boolean.
    Flag(bool),
}

impl From<&str> for Detail {
    fn from(text: &str) -> Detail {
        Detail::Text(text.to_owned())
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Detail {
        Detail::Text(text)
    }
}

impl From<u64> for Detail {
    fn from(number: u64) -> Detail {
        Detail::Number(number)
    }
}

impl From<bool> for Detail {
    fn from(flag: bool) -> Detail {
        Detail::Flag(flag)
    }
}

/// An error as a client gets it. The serde form, with `details` as a list of pairs, is for our own
/// frames; clients get [`ApiError::body`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Which kind.
    pub code: ErrorCode,
    /// One sentence about this request. Never a secret, never another stream's data.
    pub message: String,
    /// Names and values for programs; names in camelCase, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(Cow<'static, str>, Detail)>,
}

impl ApiError {
    /// An error without details.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), details: Vec::new() }
    }

    /// The same error with one more detail.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Detail>) -> ApiError {
        self.details.push((Cow::Borrowed(name), value.into()));
        self
    }

    /// The JSON body: `{"error":{"code":…,"message":…,"details":{…}}}`, without `details` when
    /// there are none. Details keep their order.
    #[must_use]
    pub fn body(&self) -> String {
        format!(r#"{{"error":{}}}"#, self.object())
    }

    /// The object that stands for the error in [`ApiError::body`].
    pub(crate) fn object(&self) -> String {
        let message = Value::from(self.message.as_str());
        let mut object = format!(r#"{{"code":"{}","message":{message}"#, self.code);
        let mut separator = r#","details":{"#;
        for (name, detail) in &self.details {
            let value = match detail {
                Detail::Text(text) => Value::from(text.as_str()),
                Detail::Number(number) => Value::from(*number),
                Detail::Flag(flag) => Value::from(*flag),
            };
            object.push_str(separator);
            object.push_str(&format!("{}:{value}", Value::from(name.as_ref())));
            separator = ",";
        }
        object.push_str(if self.details.is_empty() { "}" } else { "}}" });
        object
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn the_page_in_the_docs_is_the_one_that_is_made() {
        let page = include_str!("../../../docs/errors.md");
        assert!(page == documentation(), "run `cargo xtask docs`");
    }

    #[test]
    fn examples_are_bodies() {
        for code in ErrorCode::ALL {
            let body: Value = serde_json::from_str(code.example()).unwrap();
            let mut error = ApiError::new(*code, body["error"]["message"].as_str().unwrap());
            let details: Option<BTreeMap<String, Detail>> =
                serde_json::from_value(body["error"]["details"].clone()).unwrap();
            error.details.extend(details.into_iter().flatten().map(|(k, v)| (k.into(), v)));
            let printed: Value = serde_json::from_str(&error.body()).unwrap();
            assert_eq!(printed, body, "{code}");
            assert!(error.message.ends_with('.'), "{code}");
        }
    }

    #[test]
    fn the_list_is_closed_and_complete() {
        let names: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let name = code.as_str();
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert!((400..600).contains(&code.status()), "{name}");
            assert_eq!(ErrorCode::parse(name), Some(*code));
            assert_eq!(ErrorCode::parse(&name.to_lowercase()), None);
            for sentence in [code.cause(), code.cure()] {
                assert!(sentence.ends_with('.') && sentence.len() < 160, "{name}: {sentence}");
            }
        }
    }

    #[test]
    fn body_without_details() {
        let error = ApiError::new(ErrorCode::InvalidPath, "bad \"path\"\n");
        assert_eq!(error.body(), r#"{"error":{"code":"INVALID_PATH","message":"bad \"path\"\n"}}"#);
    }

    #[test]
    fn body_with_details() {
        let error = ApiError::new(ErrorCode::ProducerGap, "gap")
            .with("expectedSeq", 3)
            .with("id", "p")
            .with("closed", false);
        assert_eq!(
            error.body(),
            r#"{"error":{"code":"PRODUCER_GAP","message":"gap","details":{"expectedSeq":3,"id":"p","closed":false}}}"#
        );
    }

    proptest! {
        #[test]
        fn body_is_json_whatever_the_text(message: String, text: String, number: u64) {
            let error = ApiError::new(ErrorCode::Internal, message.clone())
                .with("text", text.clone())
                .with("number", number);
            let body: Value = serde_json::from_str(&error.body()).unwrap();
            prop_assert_eq!(&body["error"]["code"], "INTERNAL");
            prop_assert_eq!(&body["error"]["message"], message.as_str());
            prop_assert_eq!(&body["error"]["details"]["text"], text.as_str());
            prop_assert_eq!(&body["error"]["details"]["number"], number);
        }
    }
}
