//! Reading a request's body: whole or not at all.
//!
//! The platform ends the body of an aborted upload as if it were complete, so a declared length
//! is compared before anything is appended. A body that grows past the limit is not read on.

use js_sys::Uint8Array;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::ReadableStreamDefaultReader;

use super::{Call, JsBytes};
use crate::respond::Failure;
use engine::log::Blob;

fn too_large(max: u64) -> Failure {
    let message = format!("The body is larger than {max} bytes.");
    ApiError::new(ErrorCode::BodyTooLarge, message).with("bytesMax", max).into()
}

fn incomplete(_: JsValue) -> Failure {
    Failure::new(ErrorCode::BodyIncomplete, "The body ended before its announced length.")
}

/// Reads the whole body, at most `max` bytes.
pub(crate) async fn read(call: &Call, max: u64) -> Result<JsBytes, Failure> {
    let declared = call.headers.get(name::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    if declared.is_some_and(|length: u64| length > max) {
        return Err(too_large(max));
    }
    let bytes = match (call.request.body(), declared) {
        (None, _) => JsBytes::from_vec(Vec::new()),
        (Some(_), Some(_)) => {
            let promise = call.request.array_buffer().map_err(incomplete)?;
            let buffer = JsFuture::from(promise).await.map_err(incomplete)?;
            JsBytes::new(Uint8Array::new(&buffer))
        }
        (Some(stream), None) => read_chunks(&stream, max).await?,
    };
    match declared {
        Some(length) if length != bytes.len() => Err(incomplete(JsValue::NULL)),
        _ => Ok(bytes),
    }
}

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
        if length > max {
            // Nobody waits for the cancellation: the reply says enough.
            let _ = reader.cancel();
            return Err(too_large(max));
        }
        parts.push(JsBytes::new(chunk));
    }
    Ok(match <[JsBytes; 1]>::try_from(parts) {
        Ok([only]) => only,
        Err(parts) => JsBytes::concat(&parts),
    })
}
