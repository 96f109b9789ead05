//! The closed list of error codes, and the body of an error response.
//!
//! ```json
//! {"error":{"code":"STALE_OFFSET","message":"one sentence","details":{"offset":"…"}}}
//! ```
//!
//! A code stands for one status, one cause and one cure; the message of an [`ApiError`] says what
//! happened this time. Clients may rely on the code and on nothing else. The list in the docs is
//! made from [`ErrorCode::ALL`].
//!
//! **What stays out.** Which error of which operation gets which code: one exhaustive match at
//! the edge.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Declares [`ErrorCode`]: one entry per code with status, cause and cure.
macro_rules! error_codes {
    ($($variant:ident $code:literal $status:literal $cause:literal $cure:literal)*) => {
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
        }
    };
}

error_codes! {
    InvalidPath "INVALID_PATH" 400
        "The stream's path is empty, too long or not allowed."
        "Use 1 to 512 bytes of UTF-8 without control characters, backslashes, encoded slashes, or empty, `.` and `..` segments."
    InvalidProject "INVALID_PROJECT" 400
        "The project's name is not allowed."
        "Use 1 to 64 letters, digits, `_` or `-`; the name `stream` is taken."
    RouteNotFound "ROUTE_NOT_FOUND" 404
        "No resource has this URL."
        "Streams live at `/v1/{project}/stream/{path}` and `/v1/stream/{path}`."
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405
        "The resource does not know this method."
        "Use one of the methods in the `Allow` header."
    Unauthorized "UNAUTHORIZED" 401
        "The token is missing, malformed, expired or forged, or the project is unknown."
        "Send `Authorization: Bearer` with a token that a secret of the project signed."
    Forbidden "FORBIDDEN" 403
        "The token is for another project, has too small a scope, or does not cover the stream."
        "Ask whoever signs your tokens for one that allows the request."
    InvalidBody "INVALID_BODY" 400
        "The body is not JSON, or a field is unknown, repeated, missing or not allowed."
        "Compare `details.field` with the API documentation."
    ProjectNotFound "PROJECT_NOT_FOUND" 404
        "No project has this name."
        "Create the project, or look at its name."
    ProjectExists "PROJECT_EXISTS" 409
        "A project has this name already."
        "Change the project that there is, or use another name."
    SecretNotFound "SECRET_NOT_FOUND" 404
        "The project has no secret with this id."
        "Take the id from the project's list of secrets."
    LastSecret "LAST_SECRET" 409
        "The secret is the only one of the project: without it nobody could sign a token."
        "Add another secret first."
    TooManySecrets "TOO_MANY_SECRETS" 409
        "The project has as many secrets as are allowed."
        "Remove a secret that signs no tokens any more."
    HeadersTooLarge "HEADERS_TOO_LARGE" 431
        "A request header, or all of them together, are larger than the service takes."
        "Send fewer or shorter headers."
    RequestTimeout "REQUEST_TIMEOUT" 408
        "The body did not arrive in time; nothing was appended."
        "Send the request again, in smaller parts over a slow connection."
    Reserved "RESERVED" 403
        "The first segment of the path is reserved, and clients may not write there."
        "Choose a path that does not begin with `__ds` or `session`."
    StreamNotFound "STREAM_NOT_FOUND" 404
        "No stream has this path, or it has expired."
        "Create the stream with PUT."
    StreamGone "STREAM_GONE" 410
        "The stream was deleted, and forks still hold its data."
        "Use another path, or delete the forks first."
    StreamExists "STREAM_EXISTS" 409
        "A stream with another configuration has this path."
        "Send the configuration of the existing stream, or use another path."
    InvalidOffset "INVALID_OFFSET" 400
        "The offset is malformed or names no message boundary."
        "Use `-1`, `now` or an offset that the server returned for this stream."
    StaleOffset "STALE_OFFSET" 400
        "The offset belongs to an earlier stream of the same path."
        "Read again from the start with `-1`."
    OffsetBeyondTail "OFFSET_BEYOND_TAIL" 400
        "The offset lies past the end of the stream."
        "Use an offset that the server returned for this stream."
    InvalidQuery "INVALID_QUERY" 400
        "A query parameter is unknown to its mode, repeated, missing or malformed."
        "Compare the request with the API documentation."
    InvalidHeader "INVALID_HEADER" 400
        "A request header is malformed or stands without the header that it belongs to."
        "Compare the request with the API documentation."
    InvalidContentType "INVALID_CONTENT_TYPE" 400
        "The content type is no media type."
        "Send `type/subtype` with optional parameters, at most 256 bytes."
    ContentTypeMissing "CONTENT_TYPE_MISSING" 400
        "An append with a body has no content type."
        "Send the stream's content type."
    ContentTypeMismatch "CONTENT_TYPE_MISMATCH" 409
        "The content type of the append is not the stream's."
        "Send the stream's content type; HEAD tells it."
    InvalidLifetime "INVALID_LIFETIME" 400
        "`Stream-TTL` or `Stream-Expires-At` is malformed, or both are present."
        "Send one of them: whole seconds, or an RFC 3339 date-time."
    InvalidProducer "INVALID_PRODUCER" 400
        "The producer headers are incomplete or malformed."
        "Send `Producer-Id`, `Producer-Epoch` and `Producer-Seq` together, or none."
    StaleEpoch "STALE_EPOCH" 403
        "A later run of the same producer has taken over."
        "Stop, or begin a higher epoch than the one in `Producer-Epoch`."
    EpochStart "EPOCH_START" 400
        "A new epoch did not begin at sequence 0."
        "Begin each epoch with `Producer-Seq: 0`."
    ProducerGap "PRODUCER_GAP" 409
        "Requests of this producer are missing before this one."
        "Send again from the number in `Producer-Expected-Seq`."
    StreamSeqConflict "STREAM_SEQ_CONFLICT" 409
        "`Stream-Seq` is not above the last one of the stream."
        "Read what was written meanwhile and send a higher value."
    StreamClosed "STREAM_CLOSED" 409
        "The stream is closed and takes no more data."
        "Write to another stream."
    EmptyBody "EMPTY_BODY" 400
        "An append has no body and does not close the stream."
        "Send a body, or `Stream-Closed: true`."
    EmptyArray "EMPTY_ARRAY" 400
        "An append to a JSON stream is an array without elements."
        "Send at least one message."
    InvalidJson "INVALID_JSON" 400
        "The body of a JSON stream is not valid JSON, or nested too deeply."
        "Send one JSON value, or an array of messages, in UTF-8."
    BodyTooLarge "BODY_TOO_LARGE" 413
        "The body is larger than the deployment allows."
        "Split it into several appends."
    BodyIncomplete "BODY_INCOMPLETE" 400
        "The body ended before it was complete; nothing was appended."
        "Send the request again."
    UriTooLong "URI_TOO_LONG" 414
        "The URL is longer than any valid one."
        "Use a shorter path."
    ForkSourceNotFound "FORK_SOURCE_NOT_FOUND" 404
        "The stream to fork does not exist, or belongs to another project."
        "Name an existing stream of the same project by its URL path."
    ForkSourceGone "FORK_SOURCE_GONE" 409
        "The stream to fork was deleted, and forks still hold its data."
        "Fork one of its forks."
    ForkBeyondTail "FORK_BEYOND_TAIL" 400
        "The fork offset lies past the end of the source."
        "Use an offset that the server returned for the source."
    ForkSubOffset "FORK_SUB_OFFSET" 400
        "The sub-offset is malformed or reaches past the next boundary of the source."
        "Count messages (JSON) or bytes of the one append that follows the fork offset."
    ForkContentType "FORK_CONTENT_TYPE" 409
        "The content type of the fork is not its source's."
        "Leave `Content-Type` out, or send the source's."
    ForkTooDeep "FORK_TOO_DEEP" 400
        "The source is a fork of a fork, and so on, too many times."
        "Fork a stream nearer to the root."
    TooManyReaders "TOO_MANY_READERS" 429
        "The stream has as many live readers as the deployment allows."
        "Try again after the seconds in `Retry-After`, or read without `live`."
    UpgradeRequired "UPGRADE_REQUIRED" 426
        "A read with `live=ws` did not ask for a WebSocket."
        "Send `Upgrade: websocket`, or read with another `live`."
    InvalidSubprotocol "INVALID_SUBPROTOCOL" 400
        "None of the offered WebSocket subprotocols is known."
        "Offer `durable-streams.v1`, or none."
    InvalidFrame "INVALID_FRAME" 400
        "A WebSocket message is none of the frames that a client may send."
        "Send text: a JSON object with `credit` or `append`, and nothing else."
    InvalidCredit "INVALID_CREDIT" 400
        "Credit is no integer from 0 to 2^53 - 1, or the sum passes that."
        "Grant what you are ready to receive."
    InvalidAppend "INVALID_APPEND" 400
        "The `append` of a WebSocket message has unknown, repeated, missing or malformed fields."
        "Compare the frame with the documentation of live readers."
    MessageTooLarge "MESSAGE_TOO_LARGE" 413
        "A WebSocket message is larger than the deployment allows."
        "Split it into several appends, or append with POST."
    RateLimited "RATE_LIMITED" 429
        "A client sent more requests, or a WebSocket more frames, than the deployment allows in a time."
        "Wait for the seconds in `Retry-After`; with a WebSocket, connect again and grant larger credit."
    TooManyUnacked "TOO_MANY_UNACKED" 429
        "A WebSocket client sent too many bytes ahead of the answers to its appends."
        "Connect again, and wait for acks before you send more."
    StreamFull "STREAM_FULL" 507
        "The stream has as many bytes as the deployment allows."
        "Continue in another stream, or delete this one."
    Unavailable "UNAVAILABLE" 503
        "A part of the service cannot be reached; whether a write took effect is unknown."
        "Try again after the seconds in `Retry-After`; producer headers make that safe."
    Misconfigured "MISCONFIGURED" 500
        "The deployment lacks a binding, or a variable has a bad value."
        "The operator finds its name in the log."
    StorageFailed "STORAGE_FAILED" 500
        "Storage refused a read or a write; nothing was changed."
        "Try again; the operator finds the cause in the log."
    SegmentCorrupt "SEGMENT_CORRUPT" 500
        "The object store lost or damaged the segment that holds the range; nothing was deleted."
        "Read other ranges; the operator finds the segment's name in the log."
    Internal "INTERNAL" 500
        "The service met a state that it does not expect."
        "Report it with the request id."
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

/// One value of an error's `details`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    use std::collections::BTreeSet;

    #[test]
    fn the_documentation_has_every_code_with_its_status_and_an_example() {
        let api = include_str!("../../../docs/api.md");
        for code in ErrorCode::ALL {
            let heading = format!("### `{code}` · {}\n", code.status());
            let example = format!(r#"{{"error":{{"code":"{code}","message":"#);
            assert!(api.contains(&heading), "no heading for {code}");
            assert!(api.contains(&example), "no example for {code}");
            assert!(api.contains(code.cause()) && api.contains(code.cure()), "{code}");
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
