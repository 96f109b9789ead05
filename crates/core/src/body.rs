//! Reading a request's body: whole or not at all.
//!
//! The platform ends the body of an aborted upload as if it were complete, so a declared length
//! is compared before anything is appended. A body that is refused, for its size or for any other
//! reason, is thrown away as it comes, up to [`DISCARD_BYTES_MAX`], before the refusal is told:
//! the platform cuts the connection of a client that is still sending, and the client would never
//! see it.
//!
//! A body has [`Bounds`]: bytes, and a time that grows with what has come. The time is not kept for
//! bodies of up to [`UNTIMED_BYTES`] whose length is announced: their timers would cost every small
//! append more than a slow one ever costs, which is a request that waits.

use std::time::Duration;

use engine::log::Blob;
use futures::future::{Either, select};
use js_sys::{ArrayBuffer, Function, Promise, Uint8Array};
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use protocol::limits::Limits;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::ReadableStreamDefaultReader;
use worker::Delay;

use crate::js;
use crate::object::JsBytes;
use crate::request::content_length;
use crate::respond::Failure;

/// Most bytes of a body that are read only to be refused.
const DISCARD_BYTES_MAX: u64 = 64 << 20;

/// How long a body is read only to be refused.
const DISCARD_MS: u64 = 10_000;

/// Longest body of announced length that is waited for without end.
const UNTIMED_BYTES: u64 = 64 << 10;

/// How much of a body may take a millisecond of its time: 16 KB a second.
const BYTES_PER_MS: u64 = 16;

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes.
    pub bytes_max: u64,
    /// Milliseconds for the first byte; every byte that comes gives more.
    pub timeout_ms: u64,
}

impl Bounds {
    /// Those of a client's body.
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { bytes_max: limits.body_bytes_max, timeout_ms: limits.body_timeout_ms }
    }

    /// Milliseconds that a body of so many bytes may take.
    fn time_ms(&self, bytes: u64) -> u64 {
        self.timeout_ms.saturating_add(bytes / BYTES_PER_MS)
    }
}

/// How a body is going to arrive.
pub(crate) enum Body {
    /// There is none.
    Empty,
    /// In one piece.
    Whole {
        /// Resolves to an `ArrayBuffer`.
        promise: Promise,
        /// The declared length.
        length: u64,
    },
    /// In one piece, which may take a while.
    Large {
        /// Resolves to an `ArrayBuffer`.
        promise: Promise,
        /// The declared length.
        length: u64,
        bounds: Bounds,
    },
    /// In pieces, announced to be larger than allowed.
    Oversized {
        /// The pieces.
        stream: web_sys::ReadableStream,
        bounds: Bounds,
    },
    /// In pieces of unknown number.
    Chunked {
        /// The pieces.
        stream: web_sys::ReadableStream,
        bounds: Bounds,
    },
}

fn too_large(max: u64) -> Failure {
    let message = format!("The body is larger than {max} bytes.");
    ApiError::new(ErrorCode::BodyTooLarge, message).with("bytesMax", max).into()
}

fn incomplete<E>(_: E) -> Failure {
    Failure::new(ErrorCode::BodyIncomplete, "The body ended before its announced length.")
}

fn too_slow() -> Failure {
    Failure::new(ErrorCode::RequestTimeout, "The body took too long to arrive.")
}

/// Starts to read a body.
pub(crate) fn begin(
    request: &web_sys::Request,
    declared: Option<u64>,
    bounds: Bounds,
) -> Result<Body, Failure> {
    let whole = || request.array_buffer().map_err(incomplete);
    match declared {
        Some(0) => Ok(Body::Empty),
        Some(length) if length <= bounds.bytes_max.min(UNTIMED_BYTES) => {
            Ok(Body::Whole { promise: whole()?, length })
        }
        Some(length) if length <= bounds.bytes_max => {
            Ok(Body::Large { promise: whole()?, length, bounds })
        }
        // A length past the limit: nothing of it is kept, however much of it comes.
        Some(_) => match request.body() {
            Some(stream) => Ok(Body::Oversized { stream, bounds }),
            None => Err(too_large(bounds.bytes_max)),
        },
        None => Ok(match request.body() {
            Some(stream) => Body::Chunked { stream, bounds },
            None => Body::Empty,
        }),
    }
}

/// The bytes of a body that arrived in one piece.
pub(crate) fn whole(buffer: &JsValue, length: u64) -> Result<JsBytes, Failure> {
    let buffer = buffer.dyn_ref::<ArrayBuffer>().ok_or(()).map_err(incomplete)?;
    let bytes = JsBytes::new(Uint8Array::new(buffer));
    if bytes.len() == length { Ok(bytes) } else { Err(incomplete(())) }
}

/// Calls `callback` with what `promise` resolves to, or with nothing when it is rejected.
pub(crate) fn then(promise: &Promise, callback: &Function) {
    thread_local! {
        static NOTHING: Function = Closure::<dyn Fn(JsValue) -> JsValue>::new(|_| JsValue::NULL)
            .into_js_value()
            .unchecked_into();
    }
    let promise: &js::Thenable = promise.unchecked_ref();
    NOTHING.with(|nothing| promise.catch(nothing).then(callback));
}

/// Reads the whole body; one without a body is empty.
///
/// # Errors
/// `BODY_TOO_LARGE`, `BODY_INCOMPLETE`, `REQUEST_TIMEOUT`.
pub async fn read(request: &web_sys::Request, bounds: Bounds) -> Result<JsBytes, Failure> {
    let declared = request.headers().get(name::CONTENT_LENGTH).ok().flatten();
    finish(begin(request, content_length(declared.as_deref()), bounds)?).await
}

/// Reads a body that nobody wants, so that its client sees the refusal.
pub async fn discard(request: &web_sys::Request) {
    if request.body_used() {
        return;
    }
    if let Some(stream) = request.body() {
        let bounds = Bounds { bytes_max: 0, timeout_ms: DISCARD_MS };
        let read = Box::pin(read_chunks(&stream, bounds));
        // Whatever comes of it: the refusal is what is told.
        let _ = in_time(read, DISCARD_MS).await;
    }
}

/// Reads a body to its end.
pub(crate) async fn finish(body: Body) -> Result<JsBytes, Failure> {
    match body {
        Body::Empty => Ok(JsBytes::from_vec(Vec::new())),
        Body::Whole { promise, length } => {
            whole(&JsFuture::from(promise).await.map_err(incomplete)?, length)
        }
        Body::Large { promise, length, bounds } => {
            let arrival = in_time(JsFuture::from(promise), bounds.time_ms(length)).await;
            whole(&arrival.ok_or_else(too_slow)?.map_err(incomplete)?, length)
        }
        Body::Chunked { stream, bounds } => read_chunks(&stream, bounds).await,
        Body::Oversized { stream, bounds } => {
            // Whatever comes of it: the refusal is what is told.
            let _ = read_chunks(&stream, Bounds { bytes_max: 0, ..bounds }).await;
            Err(too_large(bounds.bytes_max))
        }
    }
}

/// What a future resolves to, if it does so in time.
async fn in_time<T>(future: impl Future<Output = T> + Unpin, ms: u64) -> Option<T> {
    match select(future, Delay::from(Duration::from_millis(ms))).await {
        Either::Left((outcome, _)) => Some(outcome),
        Either::Right(_) => None,
    }
}

/// Reads a body of unknown length, keeping at most `bytes_max` bytes of it.
async fn read_chunks(stream: &web_sys::ReadableStream, bounds: Bounds) -> Result<JsBytes, Failure> {
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let mut parts: Vec<JsBytes> = Vec::new();
    let (max, started) = (bounds.bytes_max, js::now());
    let mut length = 0;
    loop {
        let due = started.saturating_add_ms(bounds.time_ms(length));
        let left_ms = due.saturating_since_ms(js::now());
        let Some(step) = in_time(JsFuture::from(reader.read()), left_ms).await else {
            // Nobody waits for the cancellation: the reply says enough.
            js::ignore(&reader.cancel());
            return Err(too_slow());
        };
        let step = step.map_err(incomplete)?;
        let field = |name: &str| js_sys::Reflect::get(&step, &JsValue::from_str(name));
        if field("done").map_err(incomplete)?.is_truthy() {
            break;
        }
        let chunk: Uint8Array = field("value").map_err(incomplete)?.unchecked_into();
        length += u64::from(chunk.length());
        if length > DISCARD_BYTES_MAX {
            // Nobody waits for the cancellation: the reply says enough.
            let _ = reader.cancel();
            break;
        }
        if length > max {
            parts.clear();
        } else {
            parts.push(JsBytes::new(chunk));
        }
    }
    if length > max {
        return Err(too_large(max));
    }
    Ok(match <[JsBytes; 1]>::try_from(parts) {
        Ok([only]) => only,
        Err(parts) => JsBytes::concat(&parts),
    })
}
