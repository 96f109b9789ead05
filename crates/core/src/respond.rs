//! The one way back: replies with the headers that every response carries, and the match from
//! the engine's causes to HTTP.

use std::borrow::Cow;

use engine::Missing;
use engine::append::AppendError;
use engine::create::CreateError;
use engine::fork::ForkError;
use engine::log::LogError;
use engine::offsets::OffsetError;
use engine::read::ReadError;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use wasm_bindgen::{JsCast, JsValue};
use worker::console_error;

use crate::config::is_cors_open;
use crate::object::JsBytes;

/// Headers that every response carries, as the inside of a JSON object (PROTOCOL §12.7).
const COMMON_HEADERS: &str =
    r#""x-content-type-options":"nosniff","cross-origin-resource-policy":"cross-origin""#;

/// The list as a literal, for both of its uses.
macro_rules! exposed_headers {
    () => {
        "stream-next-offset, stream-cursor, stream-up-to-date, stream-closed, stream-ttl, \
         stream-expires-at, stream-public, stream-sse-data-encoding, stream-cache, stream-fanout-count, \
         stream-fanout-successes, stream-fanout-failures, stream-fanout-mode, producer-epoch, \
         producer-seq, producer-expected-seq, producer-received-seq, etag, location, retry-after, \
         server-timing, x-request-id"
    };
}

/// Response headers that scripts of other origins may read.
pub(crate) const EXPOSED_HEADERS: &str = exposed_headers!();

/// What every response carries beside where every origin may read it.
const OPEN_CORS_HEADERS: &str = concat!(
    r#","access-control-allow-origin":"*","access-control-expose-headers":""#,
    exposed_headers!(),
    "\""
);

/// What a browser may do with a stream's bytes when it is led to show them: nothing. Their type is
/// the writer's choice, and the origin is the service's.
pub(crate) const CONTENT_POLICY: &str = "sandbox; default-src 'none'";

/// The body of a reply.
pub enum Body {
    /// None.
    Empty,
    /// UTF-8 text.
    Text(String),
    /// Bytes in JavaScript's memory.
    Bytes(JsBytes),
    /// Bytes that are still to come.
    Stream(web_sys::ReadableStream),
}

/// A response under construction.
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Body,
    cors: bool,
}

impl Reply {
    /// A reply without body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::with_capacity(8), body: Body::Empty, cors: true }
    }

    /// Changes the status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a header if `condition` holds.
    pub fn header_if(self, condition: bool, name: &'static str, value: &'static str) -> Self {
        if condition { self.header(name, value) } else { self }
    }

    /// Leaves the CORS headers out when no browser asks. Only for responses that no cache keeps:
    /// a browser might be given what was made for somebody else.
    pub fn cors(mut self, cors: bool) -> Self {
        self.cors = cors;
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The reply as a platform response.
    ///
    /// # Errors
    /// What the platform throws, for a status or a header that it does not take.
    pub fn into_response(self) -> Result<web_sys::Response, JsValue> {
        let init = web_sys::ResponseInit::new();
        init.set_status(self.status);
        init.set_headers(&headers_object(&self.headers, self.cors)?);
        match self.body {
            Body::Empty => web_sys::Response::new_with_opt_str_and_init(None, &init),
            Body::Text(text) => web_sys::Response::new_with_opt_str_and_init(Some(&text), &init),
            Body::Stream(stream) => {
                web_sys::Response::new_with_opt_readable_stream_and_init(Some(&stream), &init)
            }
            Body::Bytes(bytes) => {
                web_sys::Response::new_with_opt_buffer_source_and_init(Some(bytes.array()), &init)
            }
        }
    }
}

/// All headers as one JavaScript object: one crossing instead of two a header.
fn headers_object(
    headers: &[(&'static str, Cow<'static, str>)],
    cors: bool,
) -> Result<JsValue, JsValue> {
    let mut json = String::with_capacity(1024);
    json.push('{');
    json.push_str(COMMON_HEADERS);
    // Where every origin may read every answer, each says so by itself; elsewhere the edge says it.
    if cors && is_cors_open() {
        json.push_str(OPEN_CORS_HEADERS);
    }
    for (name, value) in headers {
        json.push_str(",\"");
        json.push_str(name);
        json.push_str("\":");
        json.push_str(&serde_json::Value::from(value.as_ref()).to_string());
    }
    json.push('}');
    js_sys::JSON::parse(&json)
}

/// All headers as the platform's own type.
pub(crate) fn headers_of(
    headers: &[(&'static str, Cow<'static, str>)],
) -> Result<worker::Headers, JsValue> {
    let object = headers_object(headers, true)?.unchecked_into();
    web_sys::Headers::new_with_record_from_str_to_str(&object).map(worker::Headers)
}

/// An error with the headers that belong to it.
#[derive(Debug)]
pub struct Failure {
    /// Code, message and details.
    pub error: ApiError,
    headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Failure {
    /// A failure without headers of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError::new(code, message).into()
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The reply that tells it.
    pub fn reply(self) -> Reply {
        let mut reply = Reply::new(self.error.code.status())
            .header(name::CONTENT_TYPE, "application/json")
            .header(name::CACHE_CONTROL, "no-store")
            .body(Body::Text(self.error.body()));
        reply.headers.extend(self.headers);
        reply
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { error, headers: Vec::new() }
    }
}

/// A parser's words as a sentence.
pub fn sentence(error: impl std::fmt::Display) -> String {
    let words = error.to_string();
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => words,
    }
}

/// What failed in the storage is logged, and told without its inner words.
impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        console_error!(
            "{}",
            serde_json::json!({"event": "storage_failed", "cause": error.to_string()})
        );
        Self::new(ErrorCode::StorageFailed, "The stream's storage failed; nothing was changed.")
    }
}

impl From<Missing> for Failure {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::NotFound => {
                Self::new(ErrorCode::StreamNotFound, "There is no stream at this path.")
            }
            Missing::Gone => Self::new(
                ErrorCode::StreamGone,
                "The stream was deleted and is held only for its forks.",
            ),
            Missing::Log(error) => error.into(),
        }
    }
}

impl From<OffsetError> for Failure {
    fn from(error: OffsetError) -> Self {
        match error {
            OffsetError::Stale => Self::new(
                ErrorCode::StaleOffset,
                "The offset belongs to an earlier life of this path.",
            ),
            OffsetError::BeyondTail { tail } => ApiError::new(
                ErrorCode::OffsetBeyondTail,
                "The offset lies past the end of the stream.",
            )
            .with("tail", tail.to_string())
            .into(),
            OffsetError::Invalid => Self::new(
                ErrorCode::InvalidOffset,
                "The offset is not one that this stream has handed out.",
            ),
            OffsetError::Log(error) => error.into(),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing(missing) => missing.into(),
            ReadError::Offset(error) => error.into(),
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Missing(missing) => missing.into(),
            AppendError::EmptyBody => Self::new(
                ErrorCode::EmptyBody,
                "The body is empty, and the request does not close the stream.",
            ),
            AppendError::EmptyArray => {
                Self::new(ErrorCode::EmptyArray, "The JSON array has no elements to append.")
            }
            AppendError::Json(error) => Self::new(ErrorCode::InvalidJson, sentence(error)),
            AppendError::ContentTypeMissing => {
                Self::new(ErrorCode::ContentTypeMissing, "The body has no Content-Type.")
            }
            AppendError::ContentTypeMismatch { expected } => ApiError::new(
                ErrorCode::ContentTypeMismatch,
                "The body's content type is not the stream's.",
            )
            .with("expected", expected.as_str())
            .into(),
            AppendError::StaleEpoch { current } => {
                ApiError::new(ErrorCode::StaleEpoch, "A newer epoch of this producer has appended.")
                    .with("currentEpoch", current.0)
                    .into_failure()
                    .header(name::PRODUCER_EPOCH, current.0.to_string())
            }
            AppendError::EpochStart => Self::new(
                ErrorCode::EpochStart,
                "A new producer epoch has to start at sequence number 0.",
            ),
            AppendError::ProducerGap { expected, received } => ApiError::new(
                ErrorCode::ProducerGap,
                "Appends of this producer are missing before this one.",
            )
            .with("expectedSeq", expected.0)
            .with("receivedSeq", received.0)
            .into_failure()
            .header(name::PRODUCER_EXPECTED_SEQ, expected.0.to_string())
            .header(name::PRODUCER_RECEIVED_SEQ, received.0.to_string()),
            AppendError::SeqConflict { last } => ApiError::new(
                ErrorCode::StreamSeqConflict,
                "Stream-Seq is not above the last one of this stream.",
            )
            .with("last", last.as_str())
            .into(),
            AppendError::Full { bytes_max } => full(bytes_max),
            // Only deliveries are refused for these, and nobody answers those over HTTP.
            AppendError::LinkGone | AppendError::LinkBehind { .. } => {
                Self::new(ErrorCode::Internal, "A delivery was answered as an append.")
            }
            AppendError::Closed { next } => {
                Self::new(ErrorCode::StreamClosed, "The stream is closed.")
                    .header(name::STREAM_CLOSED, "true")
                    .header(name::STREAM_NEXT_OFFSET, next.to_string())
            }
        }
    }
}

/// An anonymous caller asks for what is not public.
pub(crate) fn unauthorized() -> Failure {
    Failure::new(ErrorCode::Unauthorized, "This stream needs a token.")
        .header(name::WWW_AUTHENTICATE, "Bearer")
}

fn full(bytes_max: u64) -> Failure {
    ApiError::new(ErrorCode::StreamFull, "The stream holds as many bytes as it may.")
        .with("bytesMax", bytes_max)
        .into()
}

trait IntoFailure {
    fn into_failure(self) -> Failure;
}

impl IntoFailure for ApiError {
    fn into_failure(self) -> Failure {
        self.into()
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Exists { differs } => ApiError::new(
                ErrorCode::StreamExists,
                format!("A stream with another {differs} exists at this path."),
            )
            .with("differs", differs)
            .into(),
            CreateError::Held => Self::new(
                ErrorCode::StreamExists,
                "The path is held by a deleted stream until its last fork is deleted.",
            ),
            CreateError::Busy => Self::new(
                ErrorCode::Unavailable,
                "A fork is being made at this path; ask again in a moment.",
            )
            .header(name::RETRY_AFTER, "1"),
            CreateError::Full { bytes_max } => full(bytes_max),
            CreateError::Json(error) => Self::new(ErrorCode::InvalidJson, sentence(error)),
            CreateError::Log(error) => error.into(),
        }
    }
}

impl From<ForkError> for Failure {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::Missing(Missing::NotFound) => {
                Self::new(ErrorCode::ForkSourceNotFound, "There is no stream to fork.")
            }
            ForkError::Missing(Missing::Gone) => {
                Self::new(ErrorCode::ForkSourceGone, "The stream to fork was deleted.")
            }
            ForkError::Missing(Missing::Log(error)) => error.into(),
            ForkError::Offset(OffsetError::BeyondTail { tail }) => ApiError::new(
                ErrorCode::ForkBeyondTail,
                "The fork offset lies past the end of the source.",
            )
            .with("tail", tail.to_string())
            .into(),
            ForkError::Offset(error) => error.into(),
            ForkError::SubOffset => Self::new(
                ErrorCode::ForkSubOffset,
                "The sub-offset names a position past the next boundary of the source.",
            ),
            ForkError::ContentType { expected } => ApiError::new(
                ErrorCode::ForkContentType,
                "The fork's content type is not the source's.",
            )
            .with("expected", expected.as_str())
            .into(),
            ForkError::TooDeep => {
                Self::new(ErrorCode::ForkTooDeep, "The chain of forks is too long.")
            }
            ForkError::GenerationTooLow { .. }
            | ForkError::Refused
            | ForkError::TooHot
            | ForkError::Lend(_) => {
                Self::new(ErrorCode::Unavailable, "The fork could not be made just now; ask again.")
                    .header(name::RETRY_AFTER, "1")
            }
        }
    }
}

/// A platform call that failed is logged, and told without its inner words.
pub fn internal(doing: &str, error: &JsValue) -> Failure {
    let cause = crate::js::message(error);
    console_error!("{}", serde_json::json!({"event": "internal", "doing": doing, "cause": cause}));
    Failure::new(ErrorCode::Internal, format!("The service failed while {doing}."))
}
