//! Calls between objects, and from the edge to an object that is no client's request: `fetch` with
//! internal paths, messages as JSON.

use engine::log::Blob;
use protocol::error::ErrorCode;
use protocol::headers::name;
use protocol::trace::TraceParent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use crate::body::{self, Bounds};
use crate::edge::{forward, unavailable};
use crate::object::{Call, INTERNAL, INTERNAL_METHOD};
use crate::respond::{Failure, internal};

/// An internal message: at most a megabyte, which is there at once.
const MESSAGE_BOUNDS: Bounds = Bounds { bytes_max: 1 << 20, timeout_ms: 10_000 };

/// Calls a stream's object, for the client's request of this trace if it has one. Any status but 200
/// is a failure.
pub(crate) async fn call(
    object: &str,
    operation: &str,
    body: Option<String>,
    trace: Option<TraceParent>,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let init = web_sys::RequestInit::new();
    if let Some(trace) = trace {
        let headers = web_sys::Headers::new().map_err(unavailable)?;
        headers.set(name::TRACEPARENT, &trace.to_string()).map_err(unavailable)?;
        init.set_headers(&headers);
    }
    if let Some(body) = body {
        init.set_method(INTERNAL_METHOD);
        init.set_body(&JsValue::from_str(&body));
    }
    let url = format!("http://object{INTERNAL}{operation}");
    let request = web_sys::Request::new_with_str_and_init(&url, &init).map_err(unavailable)?;
    let response = forward(&request, object, env).await?;
    match response.status() {
        200 => Ok(response),
        status => Err(unavailable(JsValue::from_str(&format!("status {status}")))),
    }
}

/// Calls a stream's object with a message, and reads its answer.
pub(crate) async fn ask<T: DeserializeOwned>(
    object: &str,
    operation: &str,
    message: &impl Serialize,
    env: &Env,
) -> Result<T, Failure> {
    let response = call(object, operation, Some(to_json(message)), None, env).await?;
    let text = text_of(&response).await?;
    serde_json::from_str(&text)
        .map_err(|error| internal("reading an answer", &JsValue::from_str(&error.to_string())))
}

pub(crate) fn to_json(message: &impl Serialize) -> String {
    // These types have string keys and finite numbers only: they always serialize.
    serde_json::to_string(message).unwrap_or_default()
}

pub(crate) async fn message_of<T: DeserializeOwned>(call: &Call) -> Result<T, Failure> {
    let bytes = body::read(&call.request, MESSAGE_BOUNDS).await?.to_vec();
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(ErrorCode::InvalidJson, error.to_string()))
}

pub(crate) async fn text_of(response: &web_sys::Response) -> Result<String, Failure> {
    let promise = response.text().map_err(|error| internal("reading an answer", &error))?;
    let text =
        JsFuture::from(promise).await.map_err(|error| internal("reading an answer", &error))?;
    Ok(text.as_string().unwrap_or_default())
}
