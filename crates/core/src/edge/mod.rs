//! The edge: what runs where the client is.
//!
//! [`mod@serve`] is the way of every request. A stream's request is then passed on to the object of its
//! path, untouched where nothing has to be taken out of it: neither body nor headers enter wasm here.
//! A live read becomes an internal socket to the object, which [`sse`], [`long_poll`] and [`ws`] turn
//! into what the client understands. Reads that name a position share trips to the object: [`shared`],
//! [`flights`], [`pages`].

mod audience;
mod cold;
mod cold_frame;
mod cors;
mod exchange;
mod flights;
mod gate;
mod listeners;
mod long_poll;
mod objects;
mod pages;
mod pipe;
mod rate;
mod serve;
mod shared;
mod socket;
mod sse;
mod ws;

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Function, Promise};
use protocol::headers::name;
use protocol::health::Health;
use protocol::routes::Operation;
use protocol::trace::TraceParent;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use worker::Env;

use self::shared::Read;
use crate::call::to_json;
use crate::cold::COLD_STATUS;
use crate::js::{self, Thenable};
use crate::projects;
use crate::reconcile;
use crate::request::{Headers, Mode, ReadQuery, split_url};
use crate::respond::{Body, Reply};
pub use audience::Audience;
pub use exchange::{Exchange, Preamble};
pub use flights::note_append;
pub use gate::Caller;
pub(crate) use objects::no_answer;
pub use objects::{
    SESSION_BINDING, STREAM_BINDING, SUBSCRIPTION_BINDING, call_object, forward, forward_to,
    namespace,
};
pub use serve::{Admitted, Dispatch, serve};

/// Where an object tells its statistics.
const STATS_URL: &str = "http://object/internal/stats";

/// Any request to a stream, whose caller has been admitted. What neither follows the stream nor
/// names a position is passed on, and the object's promise of a response is handed to the platform
/// as it is. `context` is the request's.
///
/// # Errors
/// What the platform throws when the object cannot be called.
pub fn stream(admitted: &Admitted) -> Result<Promise, JsValue> {
    let Admitted { operation, exchange, caller, .. } = admitted;
    let (object, env) = (admitted.object()?, &exchange.env);
    if !matches!(operation, Operation::ReadStream | Operation::HeadStream) {
        let promise = call_object(STREAM_BINDING, &exchange.request, &object, env)?;
        let is_append = *operation == Operation::AppendStream;
        return Ok(flights::note_write(&promise, &object, is_append));
    }
    let request = read_request(exchange, caller.audience)?;
    if *operation == Operation::HeadStream {
        return call_object(STREAM_BINDING, &request, &object, env);
    }
    // A malformed query is the object's to refuse: first comes whether there is a stream.
    let query = ReadQuery::parse(exchange.preamble.query()).ok();
    // Who asks how long the object takes is not given what it told somebody else.
    let is_ours = |query: &ReadQuery| {
        let shares = shared::is_shareable(query.offset) && !exchange.preamble.wants_timing;
        query.mode != Mode::CatchUp || shares
    };
    let Some(query) = query.filter(is_ours) else {
        return Ok(completed(call_object(STREAM_BINDING, &request, &object, env)?, env.clone()));
    };
    // The gate's, or the client's own.
    let audience = Audience::of(&Headers(request.headers()));
    let (env, trace) = (env.clone(), exchange.preamble.trace);
    let target = Target { url: request.url(), object, audience, trace, env };
    Ok(read(request, query, target, caller.clone(), exchange.context.clone().unchecked_into()))
}

/// A read in which the edge takes part.
fn read(
    request: web_sys::Request,
    query: ReadQuery,
    target: Target,
    caller: Caller,
    context: js::Context,
) -> Promise {
    let may_share = shared::is_shareable(query.offset);
    let stays = may_share && matches!(query.mode, Mode::CatchUp | Mode::LongPoll);
    let for_read = context.clone();
    let served = future_to_promise(async move {
        let served = match query.mode {
            Mode::Sse => sse::serve(target, &query, caller.until).await,
            Mode::WebSocket => ws::serve(target, &request, &query, &caller).await,
            Mode::CatchUp | Mode::LongPoll => match Read::new(&request, query, target, for_read) {
                Ok(read) if may_share => shared::serve(Rc::new(read)).await,
                Ok(read) => shared::bypass(&read).await,
                Err(failure) => Err(failure),
            },
        };
        served.or_else(|failure| failure.reply().into_response()).map(JsValue::from)
    });
    if stays {
        // A waiter whose client has left ends like the others, and frees its memory.
        flights::keep_alive(&context, &served);
    }
    served
}

/// What a live read is attached to.
#[derive(Clone)]
pub(crate) struct Target {
    /// The client's URL, without a token.
    pub(crate) url: String,
    /// Name of the stream's object.
    pub(crate) object: String,
    /// For whom it reads.
    pub(crate) audience: Audience,
    /// The client's trace, for whatever the object does and tells because of it.
    pub(crate) trace: Option<TraceParent>,
    pub(crate) env: Env,
}

impl Target {
    /// The same read at another URL.
    pub(crate) fn at(&self, url: String) -> Self {
        Self { url, ..self.clone() }
    }

    /// A request of it that asks for no upgrade.
    fn request(&self) -> Result<web_sys::Request, JsValue> {
        let headers = web_sys::Headers::new()?;
        self.mark(&headers)?;
        let init = web_sys::RequestInit::new();
        init.set_headers(&headers);
        web_sys::Request::new_with_str_and_init(&self.url, &init)
    }

    /// Says for whom it reads, and in which trace.
    fn mark(&self, headers: &web_sys::Headers) -> Result<(), JsValue> {
        if let Some(trace) = &self.trace {
            headers.set(name::TRACEPARENT, &trace.to_string())?;
        }
        self.audience.mark(headers)
    }
}

/// A read as the object is to see it: without a token in its URL, and marked if nobody showed one.
/// Most need no change.
fn read_request(exchange: &Exchange, audience: Audience) -> Result<web_sys::Request, JsValue> {
    let (origin, path, query) = split_url(&exchange.preamble.url);
    let clean = gate::without_tokens(query);
    if clean.len() == query.len() && audience == Audience::Authorised {
        return Ok(Clone::clone(&exchange.request));
    }
    let separator = if clean.is_empty() { "" } else { "?" };
    let url = format!("{origin}{path}{separator}{clean}");
    let init = web_sys::RequestInit::new();
    init.set_method(&exchange.preamble.method);
    let headers = web_sys::Headers::new_with_headers(&exchange.request.headers())?;
    audience.mark(&headers)?;
    init.set_headers(&headers);
    web_sys::Request::new_with_str_and_init(&url, &init)
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

/// `GET /health`: name and version.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn health() -> Result<Promise, JsValue> {
    document(to_json(&Health::here()))
}

/// A JSON document that is the same for everybody.
///
/// # Errors
/// Only what the platform throws while a response is built.
pub fn document(json: String) -> Result<Promise, JsValue> {
    let reply = Reply::new(200)
        .header(name::CONTENT_TYPE, "application/json")
        .header(name::CACHE_CONTROL, "no-store")
        .body(Body::Text(json));
    Ok(Promise::resolve(&JsValue::from(reply.into_response()?)))
}

/// `GET /v1/{project}/reconcile`: see [`crate::reconcile`].
pub fn reconcile(admitted: &Admitted) -> Promise {
    let (env, url) = (admitted.exchange.env.clone(), admitted.exchange.preamble.url.clone());
    let project = admitted.route.project().cloned().unwrap_or_default();
    future_to_promise(async move {
        let report = reconcile::report(&project, split_url(&url).2, &env).await;
        report.or_else(|failure| failure.reply().into_response()).map(JsValue::from)
    })
}

/// `GET …?stats`: see [`protocol::stats::StreamStats`].
///
/// # Errors
/// What the platform throws when the object cannot be called.
pub fn stats(admitted: &Admitted) -> Result<Promise, JsValue> {
    let request = web_sys::Request::new_with_str(STATS_URL)?;
    call_object(STREAM_BINDING, &request, &admitted.object()?, &admitted.exchange.env)
}

/// The admin API: see [`crate::projects`].
pub fn project(admitted: &Admitted) -> Promise {
    let (env, request) = (admitted.exchange.env.clone(), Clone::clone(&admitted.exchange.request));
    let (operation, route) = (admitted.operation, admitted.route.clone());
    future_to_promise(async move {
        let reply = projects::serve(operation, &route, &request, &env).await;
        let response = match reply {
            Ok(reply) => reply.into_response(),
            Err(failure) => {
                crate::body::discard(&request).await;
                failure.reply().into_response()
            }
        };
        response.map(JsValue::from)
    })
}

/// The path of a URL, still percent-encoded.
fn path_of(url: &str) -> &str {
    split_url(url).1
}
