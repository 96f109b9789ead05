//! Calls between objects, and from the edge to an object that is no client's request: `fetch` with
//! internal paths, messages as JSON.
//!
//! **Error semantics.** That there is no answer, or none that can be read, is a failure of the call
//! and says nothing about whether the other side has done what it was asked.

use engine::log::Blob;
use protocol::error::ErrorCode;
use protocol::fanout::Message;
use protocol::headers::name;
use protocol::limits::SUBSCRIBE_BATCH_BYTES_MAX;
use protocol::trace::TraceParent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use crate::body::{self, Bounds};
use crate::edge::{STREAM_BINDING, forward_to, no_answer};
use crate::object::{Call, INTERNAL, INTERNAL_METHOD};
use crate::respond::{Failure, internal};

/// An internal message, which is there at once. The largest is a batch of subscriptions: what the client
/// has sent, with the project before each name.
const MESSAGE_BOUNDS: Bounds =
    Bounds { bytes_max: 2 * SUBSCRIBE_BATCH_BYTES_MAX, timeout_ms: 10_000 };

/// Calls a stream's object, for the client's request of this trace if it has one.
///
/// # Errors
/// `UNAVAILABLE`: no answer, or one with any status but 200.
pub async fn call(
    object: &str,
    operation: &str,
    body: Option<String>,
    trace: Option<TraceParent>,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    call_at(STREAM_BINDING, object, operation, body, trace, env).await
}

/// Calls a stream's object with a message, and reads its answer.
///
/// # Errors
/// `UNAVAILABLE`: no answer; `INTERNAL`: one that cannot be read.
pub async fn ask<T: DeserializeOwned>(
    object: &str,
    operation: &str,
    message: &impl Serialize,
    env: &Env,
) -> Result<T, Failure> {
    read_answer(&call(object, operation, Some(to_json(message)), None, env).await?).await
}

/// Asks an object of any kind, for the client's request of this trace if it has one.
///
/// # Errors
/// `UNAVAILABLE`: no answer; `INTERNAL`: one that cannot be read.
pub async fn ask_message<M: Message>(
    binding: &'static str,
    object: &str,
    message: &M,
    trace: Option<TraceParent>,
    env: &Env,
) -> Result<M::Answer, Failure> {
    let body = Some(to_json(message));
    read_answer(&call_at(binding, object, M::OPERATION, body, trace, env).await?).await
}

async fn call_at(
    binding: &'static str,
    object: &str,
    operation: &str,
    body: Option<String>,
    trace: Option<TraceParent>,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let failed = |error: JsValue| no_answer(binding, &error);
    let init = web_sys::RequestInit::new();
    if let Some(trace) = trace {
        let headers = web_sys::Headers::new().map_err(failed)?;
        headers.set(name::TRACEPARENT, &trace.to_string()).map_err(failed)?;
        init.set_headers(&headers);
    }
    if let Some(body) = body {
        init.set_method(INTERNAL_METHOD);
        init.set_body(&JsValue::from_str(&body));
    }
    let url = format!("http://object{INTERNAL}{operation}");
    let request = web_sys::Request::new_with_str_and_init(&url, &init).map_err(failed)?;
    let response = forward_to(binding, &request, object, env).await?;
    match response.status() {
        200 => Ok(response),
        status => Err(failed(JsValue::from_str(&format!("status {status}")))),
    }
}

async fn read_answer<T: DeserializeOwned>(response: &web_sys::Response) -> Result<T, Failure> {
    let text = text_of(response).await?;
    serde_json::from_str(&text)
        .map_err(|error| internal("reading an answer", &JsValue::from_str(&error.to_string())))
}

/// A message as JSON.
pub fn to_json(message: &impl Serialize) -> String {
    // These types have string keys and finite numbers only: they always serialize.
    serde_json::to_string(message).unwrap_or_default()
}

pub(crate) async fn message_of<T: DeserializeOwned>(call: &Call) -> Result<T, Failure> {
    read_message(&call.request).await
}

/// The message that an internal request carries.
///
/// # Errors
/// `INVALID_JSON` for any other message, and what [`body::read`] answers.
pub async fn read_message<T: DeserializeOwned>(request: &web_sys::Request) -> Result<T, Failure> {
    let bytes = body::read(request, MESSAGE_BOUNDS).await?.to_vec();
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(ErrorCode::InvalidJson, error.to_string()))
}

/// The whole body of a response.
///
/// # Errors
/// `INTERNAL`: it broke off.
pub async fn text_of(response: &web_sys::Response) -> Result<String, Failure> {
    let promise = response.text().map_err(|error| internal("reading an answer", &error))?;
    let text =
        JsFuture::from(promise).await.map_err(|error| internal("reading an answer", &error))?;
    Ok(text.as_string().unwrap_or_default())
}
