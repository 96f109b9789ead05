//! Reading a request's body: whole or not at all.
//!
//! The platform ends the body of an aborted upload as if it were complete, so a declared length
//! is compared before anything is appended. A body that is refused, for its size or for any other
//! reason, is thrown away as it comes, up to [`DISCARD_BYTES_MAX`], before the refusal is told:
//! the platform cuts the connection of a client that is still sending, and the client would never
//! see it.

use engine::log::Blob;
use js_sys::{ArrayBuffer, Function, Promise, Uint8Array};
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::ReadableStreamDefaultReader;

use crate::js;
use crate::object::JsBytes;
use crate::request::content_length;
use crate::respond::Failure;

/// Most bytes of a body that are read only to be refused.
const DISCARD_BYTES_MAX: u64 = 64 << 20;

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
    /// In pieces, announced to be larger than allowed.
    Oversized {
        /// The pieces.
        stream: web_sys::ReadableStream,
        /// Most bytes to take.
        max: u64,
    },
    /// In pieces of unknown number.
    Chunked {
        /// The pieces.
        stream: web_sys::ReadableStream,
        /// Most bytes to take.
        max: u64,
    },
}

fn too_large(max: u64) -> Failure {
    let message = format!("The body is larger than {max} bytes.");
    ApiError::new(ErrorCode::BodyTooLarge, message).with("bytesMax", max).into()
}

fn incomplete<E>(_: E) -> Failure {
    Failure::new(ErrorCode::BodyIncomplete, "The body ended before its announced length.")
}

/// Starts to read a body of at most `max` bytes.
pub(crate) fn begin(
    request: &web_sys::Request,
    declared: Option<u64>,
    max: u64,
) -> Result<Body, Failure> {
    match declared {
        Some(0) => Ok(Body::Empty),
        Some(length) if length <= max => {
            Ok(Body::Whole { promise: request.array_buffer().map_err(incomplete)?, length })
        }
        // A length past the limit: nothing of it is kept, however much of it comes.
        Some(_) => match request.body() {
            Some(stream) => Ok(Body::Oversized { stream, max }),
            None => Err(too_large(max)),
        },
        None => Ok(match request.body() {
            Some(stream) => Body::Chunked { stream, max },
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

/// Reads the whole body, at most `max` bytes.
pub(crate) async fn read(request: &web_sys::Request, max: u64) -> Result<JsBytes, Failure> {
    let declared = request.headers().get(name::CONTENT_LENGTH).ok().flatten();
    finish(begin(request, content_length(declared.as_deref()), max)?).await
}

/// Reads a body that nobody wants, so that its client sees the refusal.
pub(crate) async fn discard(request: &web_sys::Request) {
    if request.body_used() {
        return;
    }
    if let Some(stream) = request.body() {
        // Whatever comes of it: the refusal is what is told.
        let _ = read_chunks(&stream, 0).await;
    }
}

/// Reads a body to its end.
pub(crate) async fn finish(body: Body) -> Result<JsBytes, Failure> {
    match body {
        Body::Empty => Ok(JsBytes::from_vec(Vec::new())),
        Body::Whole { promise, length } => {
            whole(&JsFuture::from(promise).await.map_err(incomplete)?, length)
        }
        Body::Chunked { stream, max } => read_chunks(&stream, max).await,
        Body::Oversized { stream, max } => {
            // Whatever comes of it: the refusal is what is told.
            let _ = read_chunks(&stream, 0).await;
            Err(too_large(max))
        }
    }
}

/// Reads a body of unknown length, keeping at most `max` bytes of it.
async fn read_chunks(stream: &web_sys::ReadableStream, max: u64) -> Result<JsBytes, Failure> {
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let mut parts: Vec<JsBytes> = Vec::new();
    let mut length = 0;
    loop {
        let step = JsFuture::from(reader.read()).await.map_err(incomplete)?;
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
