//! The edge: what runs where the client is.
//!
//! It finds the object of a path and passes the request on untouched: neither body nor headers
//! enter wasm here. A live read becomes an internal socket to the object, which [`sse`] and
//! [`long_poll`] turn into what the client understands.

mod long_poll;
mod socket;
mod sse;

use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use protocol::name::{NameError, StreamName};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use crate::config::Config;
use crate::request::{Mode, ReadQuery, split_url};
use crate::respond::{Body, Failure, Reply, internal};

/// Name of the Durable Object binding of streams.
pub const STREAM_BINDING: &str = "STREAM";

/// Methods of a stream, for `Allow` and preflights.
pub const STREAM_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

type Response = Result<web_sys::Response, JsValue>;

/// Any request to a stream.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub async fn stream(request: web_sys::Request, name: &StreamName, env: &Env) -> Response {
    match try_stream(request, name, env).await {
        Ok(response) => Ok(response),
        Err(failure) => failure.reply().into_response(),
    }
}

async fn try_stream(
    request: web_sys::Request,
    name: &StreamName,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let object = name.object_name();
    if request.method() == "GET" {
        let url = request.url();
        let (_, _, query) = split_url(&url);
        // A malformed query is the object's to refuse: first comes whether there is a stream.
        if let Ok(query) = ReadQuery::parse(query) {
            match query.mode {
                Mode::CatchUp => {}
                Mode::LongPoll => return long_poll::serve(&url, &query, &object, env).await,
                Mode::Sse => return sse::serve(&url, &query, &object, env).await,
            }
        }
    }
    forward(&request, &object, env).await
}

/// Passes a request on to a stream's object.
async fn forward(
    request: &web_sys::Request,
    object: &str,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let stub = env.durable_object(STREAM_BINDING).and_then(|namespace| namespace.get_by_name(object));
    let stub = stub.map_err(unavailable)?;
    let response = stub.fetch_with_request(Clone::clone(request).into()).await.map_err(unavailable)?;
    Ok(response.into())
}

fn unavailable(error: worker::Error) -> Failure {
    internal("calling the stream", &JsValue::from_str(&error.to_string()));
    Failure::new(ErrorCode::Unavailable, "The stream did not answer; ask again.")
        .header(name::RETRY_AFTER, "1")
}

/// `GET /health`: name and version.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn health(env: &Env) -> Response {
    if let Err(error) = Config::from_env(env) {
        return Failure::from(error).reply().into_response();
    }
    let body = serde_json::json!({"name": "durable-streams", "version": env!("CARGO_PKG_VERSION")});
    Reply::new(200)
        .header(name::CONTENT_TYPE, "application/json")
        .header(name::CACHE_CONTROL, "no-store")
        .body(Body::Text(body.to_string()))
        .into_response()
}

/// A CORS preflight, or any other OPTIONS.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn options(methods: &'static str) -> Response {
    const ALLOWED_HEADERS: &str = "content-type, authorization, if-none-match, stream-seq, \
        stream-ttl, stream-expires-at, stream-closed, stream-forked-from, stream-fork-offset, \
        stream-fork-sub-offset, producer-id, producer-epoch, producer-seq";
    Reply::new(204)
        .header(name::ALLOW, methods)
        .header(name::ACCESS_CONTROL_ALLOW_METHODS, methods)
        .header(name::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS)
        .header(name::ACCESS_CONTROL_MAX_AGE, "86400")
        .header(name::CACHE_CONTROL, "no-store")
        .into_response()
}

/// A method that the resource does not have.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn method_not_allowed(methods: &'static str) -> Response {
    let message = format!("This resource has the methods {methods}.");
    Failure::new(ErrorCode::MethodNotAllowed, message).header(name::ALLOW, methods).reply().into_response()
}

/// An error that the router found.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn error(error: ApiError) -> Response {
    Failure::from(error).reply().into_response()
}

/// A path that names nothing legal.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn bad_name(error: &NameError) -> Response {
    let code = match error {
        NameError::UrlTooLong => ErrorCode::UriTooLong,
        NameError::InvalidProject => ErrorCode::InvalidProject,
        _ => ErrorCode::InvalidPath,
    };
    self::error(ApiError::new(code, error.to_string()))
}

async fn settled(promise: js_sys::Promise, doing: &str) -> Result<JsValue, Failure> {
    JsFuture::from(promise).await.map_err(|error| internal(doing, &error))
}

/// The path of a URL, still percent-encoded.
#[must_use]
pub fn path_of(url: &str) -> &str {
    split_url(url).1
}
