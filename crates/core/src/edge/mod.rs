//! The edge: what runs where the client is.
//!
//! It finds the object of a path and passes the request on untouched: neither body nor headers
//! enter wasm here. A live read becomes an internal socket to the object, which [`sse`],
//! [`long_poll`] and [`ws`] turn into what the client understands. Reads that name a position share
//! trips to the object: [`shared`], [`flights`], [`pages`].

mod cold;
mod cold_frame;
mod flights;
mod listeners;
mod long_poll;
mod pages;
mod pipe;
mod shared;
mod socket;
mod sse;
mod ws;

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Function, Promise};
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use protocol::name::{NameError, Project, StreamName};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, future_to_promise};
use worker::Env;

use self::shared::Read;
use crate::body;
use crate::cold::COLD_STATUS;
use crate::config::Config;
use crate::js::{self, Namespace, Thenable};
use crate::reconcile;
use crate::request::{Mode, ReadQuery, split_url};
use crate::respond::{Body, Failure, Reply, internal, sentence};

/// Name of the Durable Object binding of streams.
pub const STREAM_BINDING: &str = "STREAM";

/// Methods of a stream, for `Allow` and preflights.
pub const STREAM_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// Methods of `/health`, and of reports.
pub const REPORT_METHODS: &str = "GET, HEAD, OPTIONS";

type Response = Result<web_sys::Response, JsValue>;

/// For whom answers are. It is part of every key under which answers are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Callers who were asked who they are, and may read.
    Authorised,
    /// Anybody.
    Anonymous,
}

impl Audience {
    const fn word(self) -> &'static str {
        match self {
            Self::Authorised => "authorised",
            Self::Anonymous => "anonymous",
        }
    }

    /// What a client of this audience is told, of what the object says. Every answer that caches may
    /// keep passes through here.
    const fn cache_control(self, of_object: &str) -> &str {
        of_object
    }
}

/// Any request to a stream, whose caller has been admitted. What neither follows the stream nor
/// names a position is passed on, and the object's promise of a response is handed to the platform
/// as it is. `context` is the request's.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn stream(
    request: web_sys::Request,
    name: &StreamName,
    env: Env,
    audience: Audience,
    context: JsValue,
) -> Result<Promise, JsValue> {
    let object = name.object_name();
    let method = request.method();
    if method == "GET" {
        // A malformed query is the object's to refuse: first comes whether there is a stream.
        let query = ReadQuery::parse(split_url(&request.url()).2);
        if let Some(query) = query.ok().filter(is_ours) {
            let context = context.unchecked_into();
            return Ok(read(request, query, object, audience, (env, context)));
        }
    }
    match (call_object(&request, &object, &env), method.as_str()) {
        (Ok(promise), "GET") => Ok(or_unavailable(completed(promise, env))),
        (Ok(promise), "HEAD") => Ok(or_unavailable(promise)),
        (Ok(promise), method) => {
            Ok(or_unavailable(flights::note_write(&promise, &object, method == "POST")))
        }
        (Err(error), _) => resolved(request, unavailable(error).reply().into_response()),
    }
}

/// Whether the edge takes part in a read.
fn is_ours(query: &ReadQuery) -> bool {
    query.mode != Mode::CatchUp || shared::is_shareable(query.offset)
}

fn read(
    request: web_sys::Request,
    query: ReadQuery,
    object: String,
    audience: Audience,
    (env, context): (Env, js::Context),
) -> Promise {
    let may_share = shared::is_shareable(query.offset);
    let stays = may_share && matches!(query.mode, Mode::CatchUp | Mode::LongPoll);
    let for_read = context.clone();
    let served = future_to_promise(async move {
        let url = request.url();
        let served = match query.mode {
            Mode::Sse => sse::serve(&url, &query, &object, &env).await,
            Mode::WebSocket => ws::serve(&request, &url, &query, &object, &env).await,
            Mode::CatchUp | Mode::LongPoll => {
                match Read::new(&request, query, object, audience, (env, for_read)) {
                    Ok(read) if may_share => shared::serve(Rc::new(read)).await,
                    Ok(read) => shared::bypass(&read).await,
                    Err(failure) => Err(failure),
                }
            }
        };
        served.or_else(|failure| failure.reply().into_response()).map(JsValue::from)
    });
    if stays {
        // A waiter whose client has left ends like the others, and frees its memory.
        flights::keep_alive(&context, &served);
    }
    served
}

/// A response that is there already, as the promise that the platform wants. A body that nobody
/// wants is read first, so that its client sees the response.
///
/// # Errors
/// Passes on what the platform threw.
pub fn resolved(request: web_sys::Request, response: Response) -> Result<Promise, JsValue> {
    let response = JsValue::from(response?);
    if matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS") {
        return Ok(Promise::resolve(&response));
    }
    Ok(future_to_promise(async move {
        body::discard(&request).await;
        Ok(response)
    }))
}

/// The same promise, with cold bytes put into the response.
fn completed(promise: Promise, env: Env) -> Promise {
    thread_local! {
        /// The bindings are the same for the whole life of the isolate.
        static COMPLETE: RefCell<Option<Function>> = const { RefCell::new(None) };
    }
    let make = || {
        let closure = Closure::<dyn Fn(web_sys::Response) -> JsValue>::new(
            move |response: web_sys::Response| {
                if response.status() != COLD_STATUS {
                    return response.into();
                }
                let env = env.clone();
                let completed = async move {
                    let completed = cold::complete(response, &env).await;
                    completed.or_else(|failure| failure.reply().into_response()).map(JsValue::from)
                };
                future_to_promise(completed).into()
            },
        );
        closure.into_js_value().unchecked_into::<Function>()
    };
    let promise: &Thenable = promise.unchecked_ref();
    let callback = COMPLETE.with(|known| match known.try_borrow_mut() {
        Ok(mut known) => known.get_or_insert_with(make).clone(),
        Err(_) => make(),
    });
    JsValue::from(promise.then(&callback)).unchecked_into()
}

/// The same promise, with a rejection turned into an error response.
fn or_unavailable(promise: Promise) -> Promise {
    thread_local! {
        static UNAVAILABLE: Function = Closure::<dyn Fn(JsValue) -> Result<JsValue, JsValue>>::new(
            |error| unavailable(error).reply().into_response().map(JsValue::from),
        )
        .into_js_value()
        .unchecked_into();
    }
    let promise: &Thenable = promise.unchecked_ref();
    JsValue::from(UNAVAILABLE.with(|callback| promise.catch(callback))).unchecked_into()
}

/// Starts a call of a stream's object.
fn call_object(request: &web_sys::Request, object: &str, env: &Env) -> Result<Promise, JsValue> {
    thread_local! {
        /// The binding: the same object for the whole life of the isolate.
        static NAMESPACE: RefCell<Option<Namespace>> = const { RefCell::new(None) };
    }
    let known =
        NAMESPACE.with(|namespace| namespace.try_borrow().ok().and_then(|known| known.clone()));
    let namespace = match known {
        Some(namespace) => namespace,
        None => {
            let namespace = env.durable_object(STREAM_BINDING)?;
            let namespace: Namespace = JsValue::from(namespace.as_ref()).unchecked_into();
            NAMESPACE.with(|known| known.replace(Some(namespace.clone())));
            namespace
        }
    };
    namespace.get_by_name(object)?.fetch(request)
}

/// Passes a request on to a stream's object, and its response back, as they are.
pub(crate) async fn forward(
    request: &web_sys::Request,
    object: &str,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let response = JsFuture::from(call_object(request, object, env).map_err(unavailable)?).await;
    response.map(JsCast::unchecked_into).map_err(unavailable)
}

/// The object of a stream did not answer.
pub(crate) fn unavailable(error: JsValue) -> Failure {
    internal("calling the stream", &error);
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

/// `GET /v1/{project}/reconcile`: see [`crate::reconcile`].
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn reconcile(url: String, project: Project, env: Env) -> Promise {
    future_to_promise(async move {
        let report = match Config::from_env(&env) {
            Ok(_) => reconcile::report(&project, split_url(&url).2, &env).await,
            Err(error) => Err(error.into()),
        };
        report.or_else(|failure| failure.reply().into_response()).map(JsValue::from)
    })
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
    Failure::new(ErrorCode::MethodNotAllowed, message)
        .header(name::ALLOW, methods)
        .reply()
        .into_response()
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
    self::error(ApiError::new(code, sentence(error)))
}

/// The path of a URL, still percent-encoded.
#[must_use]
pub fn path_of(url: &str) -> &str {
    split_url(url).1
}
