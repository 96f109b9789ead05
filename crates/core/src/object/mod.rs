//! `StreamObject`: the Durable Object of one stream path.
//!
//! Every verb is load → plan → commit → announce. The engine plans and commits without an await
//! in between; replies and frames to readers are held by the platform's output gate until the
//! commit is on disk. What arrives here has passed the edge: the path is legal and not reserved.
//!
//! - [`appends`]: reading bodies, and the group commit.
//! - [`verbs`]: one function a method.
//! - [`readers`]: hibernating sockets of live readers, and the turns in which they are fed.
//! - [`calls`]: appends of WebSocket clients.
//! - [`fanout`]: telling shards of subscribers what there is, and publishers what became of it.
//! - [`deliveries`]: what a session's stream is sent.
//! - [`forks`]: the conversation between a fork and its source.
//! - [`stats`]: what the stream holds, for operators.
//! - [`timing`]: what a request waited for here.
//! - [`rotation`]: uploads of segments, and the sweeping of unreferenced ones.

mod appends;
mod calls;
pub mod deliveries;
pub mod fanout;
mod forks;
mod readers;
mod rotation;
mod sql;
mod stats;
mod timing;
mod verbs;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::duties::{Busy, Due};
use engine::log::LogError;
use engine::log::sql::SqlLog;
use engine::{Bounds, Missing, Stream};
use js_sys::Promise;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use protocol::limits::{FORK_COPY_BYTES_MAX, Limits, ROW_BYTES_MAX};
use protocol::time::UnixMillis;
use protocol::trace::TraceParent;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use worker::{Env, Response, State, console_error, worker_sys};

use crate::body;
use crate::config::Config;
use crate::edge::Audience;
use crate::js;
use crate::metrics::{Level, event};
use crate::request::{Headers, split_url};
use crate::respond::{Failure, Reply, internal, unauthorized};
use appends::Appends;
use fanout::Fanouts;
use forks::ForkInProgress;
use readers::Readers;
pub(crate) use readers::{READER_OFFSET, STREAM_LASTS};
use rotation::Uploading;
pub use sql::{JsBytes, ObjectDatabase};
use timing::Timing;

type ObjectStream = Stream<SqlLog<ObjectDatabase>>;

/// Prefix of the paths by which objects talk to each other. The edge passes on paths under `/v1/`
/// only, so no client reaches them.
pub const INTERNAL: &str = "/internal/";

/// Method of internal calls with a body. No client's request with it reaches an object, so that a
/// POST is always an append.
pub const INTERNAL_METHOD: &str = "PATCH";

/// How long a duty may be overdue before a fresh instance doubts that the alarm is set.
const OVERDUE_MS: u64 = 60_000;

/// The Durable Object of one stream path.
#[wasm_bindgen]
pub struct StreamObject {
    inner: Rc<Inner>,
}

/// What the object's concurrent requests share.
pub(crate) struct Inner {
    pub(crate) state: State,
    /// The same, for what `State` lets panic.
    pub(crate) raw_state: js::ObjectState,
    pub(crate) env: Env,
    pub(crate) storage: js::Storage,
    pub(crate) config: Result<Rc<Config>, ApiError>,
    stream: RefCell<Option<ObjectStream>>,
    pub(crate) appends: Appends,
    pub(crate) readers: Readers,
    pub(crate) fanouts: Fanouts,
    /// The fork that a request of this instance is making, if one is.
    pub(crate) fork_in_progress: ForkInProgress,
    pub(crate) uploading: Uploading,
    /// Whether the stream was loaded and nobody has looked yet for what was left undone.
    pub(crate) is_fresh: Cell<bool>,
    /// Whether the operator knows that the stream holds nearly as much as it may.
    pub(crate) is_nearly_full: Cell<bool>,
    /// How long loading the stream took, until somebody who wants to know is told.
    load_ms: Cell<Option<u64>>,
    /// Requests since this instance woke.
    pub(crate) requests: Cell<u64>,
    /// When this instance made a segment of the current life last.
    pub(crate) rotated_at: Cell<Option<UnixMillis>>,
}

/// What a request asks for, taken apart once.
pub(crate) struct Call {
    pub(crate) request: web_sys::Request,
    pub(crate) url: String,
    pub(crate) headers: Headers,
    pub(crate) audience: Audience,
}

/// The handlers that the platform calls. They are exported by hand: a response goes back as the
/// platform's own object, which the `durable_object` macro would take apart and build again.
#[wasm_bindgen]
impl StreamObject {
    /// A fresh instance; it loads nothing yet.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: worker_sys::DurableObjectState, env: Env) -> Self {
        let raw_state = JsValue::from(state.clone()).unchecked_into();
        let state = State::from(state);
        let storage: js::Storage = JsValue::from(state.storage().as_raw()).unchecked_into();
        let config = Config::of(&env);
        Self {
            inner: Rc::new(Inner {
                state,
                raw_state,
                env,
                storage,
                config,
                stream: RefCell::new(None),
                appends: Appends::default(),
                readers: Readers::new(),
                fanouts: Fanouts::default(),
                fork_in_progress: ForkInProgress::default(),
                uploading: Uploading::default(),
                is_fresh: Cell::new(false),
                is_nearly_full: Cell::new(false),
                load_ms: Cell::new(None),
                requests: Cell::new(0),
                rotated_at: Cell::new(None),
            }),
        }
    }

    /// A request that the edge passed on, or a call of another stream's object.
    pub fn fetch(&self, request: web_sys::Request) -> Promise {
        let inner = Rc::clone(&self.inner);
        inner.requests.set(inner.requests.get().saturating_add(1));
        match js::kind_of(&request) {
            js::APPEND => return inner.post(&request),
            js::DELIVERY => return inner.receive_delivery(&request),
            _ => {}
        }
        let headers = Headers(request.headers());
        let audience = Audience::of(&headers);
        let call = Call { url: request.url(), headers, audience, request };
        future_to_promise(async move {
            let timing = inner.begin_timing(call.headers.get(name::STREAM_TIMING).as_deref());
            let answer = inner.answer(&call).await;
            inner.take_up();
            if call.request.method() == "PUT" {
                // A stream may be large, or closed, from the start.
                inner.rotate_if_due();
            }
            let reply = match answer {
                Ok(Answer::Socket(response)) => {
                    return Ok(web_sys::Response::from(response).into());
                }
                Ok(Answer::Reply(reply)) => reply,
                Err(failure) => {
                    body::discard(&call.request).await;
                    inner.tell_failure(&failure, call.headers.get(name::TRACEPARENT));
                    failure.reply()
                }
            };
            Ok(inner.timed(reply, timing).into_response()?.into())
        })
    }

    /// The alarm: duties that are due.
    pub fn alarm(&self) -> Promise {
        let inner = Rc::clone(&self.inner);
        future_to_promise(async move {
            inner.on_alarm().await;
            Ok(JsValue::UNDEFINED)
        })
    }

    /// A message on a reader's socket.
    #[wasm_bindgen(js_name = webSocketMessage)]
    pub fn web_socket_message(&self, socket: web_sys::WebSocket, message: &JsValue) {
        self.inner.on_message(socket.into(), message);
    }

    /// A reader's socket has closed.
    #[wasm_bindgen(js_name = webSocketClose)]
    pub fn web_socket_close(&self, socket: web_sys::WebSocket) {
        self.inner.on_close(&socket.into());
    }

    /// A reader's socket has broken.
    #[wasm_bindgen(js_name = webSocketError)]
    pub fn web_socket_error(&self, socket: web_sys::WebSocket) {
        self.inner.on_close(&socket.into());
    }
}

/// What a call is answered with.
pub(crate) enum Answer {
    Reply(Reply),
    /// 101 with the client's end of a socket.
    Socket(Response),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl Inner {
    async fn answer(self: &Rc<Self>, call: &Call) -> Result<Answer, Failure> {
        self.config()?;
        let (_, path, query) = split_url(&call.url);
        if let Some(operation) = path.strip_prefix(INTERNAL) {
            return self.answer_internal(operation, query, call).await;
        }
        let method = call.request.method();
        self.admit(call.audience, &method)?;
        match method.as_str() {
            "GET" => self.get(call, query).await,
            "PUT" => self.put(call, path).await,
            "HEAD" => self.head(),
            "DELETE" => self.delete(),
            _ => Err(Failure::new(ErrorCode::MethodNotAllowed, "A stream has no such method.")),
        }
    }

    /// Questions of other objects, and of the edge.
    async fn answer_internal(
        self: &Rc<Self>,
        operation: &str,
        query: &str,
        call: &Call,
    ) -> Result<Answer, Failure> {
        if let Some(answer) = self.answer_session(operation, call).await? {
            return Ok(answer);
        }
        match self.answer_subscribers(operation, query, call).await? {
            Some(answer) => Ok(answer),
            None => self.answer_object(operation, query, call).await,
        }
    }

    /// Refuses an anonymous caller whatever is not reading a public stream. Whether there is another
    /// stream, or none, it does not learn.
    pub(crate) fn admit(&self, audience: Audience, method: &str) -> Result<(), Failure> {
        if audience == Audience::Authorised {
            return Ok(());
        }
        if !matches!(method, "GET" | "HEAD") {
            return Err(unauthorized());
        }
        let found = self.with_stream(|stream| {
            stream.check(js::now())?;
            Ok(stream.is_public())
        })?;
        match found {
            Ok(true) => Ok(()),
            Err(Missing::Log(error)) => Err(error.into()),
            Ok(false) | Err(Missing::NotFound | Missing::Gone) => Err(unauthorized()),
        }
    }

    /// The deployment's variables.
    pub(crate) fn config(&self) -> Result<&Config, Failure> {
        self.config.as_deref().map_err(|error| error.clone().into())
    }

    /// Runs `body` on the stream, loading it first if this instance has not yet. Readers of a
    /// life that ended meanwhile are sent away.
    pub(crate) fn with_stream<T>(
        &self,
        body: impl FnOnce(&mut ObjectStream) -> T,
    ) -> Result<T, Failure> {
        let Ok(mut slot) = self.stream.try_borrow_mut() else {
            return Err(Failure::new(
                ErrorCode::Internal,
                "The stream is in use by its own request.",
            ));
        };
        let stream = match &mut *slot {
            Some(stream) => stream,
            empty => {
                let began = js::now();
                let stream = self.open().map_err(|error| {
                    console_error!(
                        "{}",
                        serde_json::json!({"event": "load_failed", "cause": error.to_string()})
                    );
                    Failure::from(error)
                })?;
                self.is_fresh.set(true);
                self.load_ms.set(Some(js::now().saturating_since_ms(began)));
                empty.insert(stream)
            }
        };
        let before = stream.generation();
        let outcome = body(stream);
        let ended = before.is_some() && stream.generation() != before;
        drop(slot);
        if ended {
            self.rotated_at.set(None);
            self.readers.dismiss();
        }
        Ok(outcome)
    }

    fn open(&self) -> Result<ObjectStream, LogError> {
        let mut stream = Stream::open(SqlLog::open(ObjectDatabase::new(self.storage.clone()))?)?;
        if let Ok(config) = self.config() {
            stream.set_bounds(bounds_of(&config.limits));
        }
        if stream.next_due().is_some_and(|due| due.saturating_add_ms(OVERDUE_MS) < js::now()) {
            // The platform gives an alarm up after some failures; the duties are still there.
            self.retry_alarm();
        }
        let tail = stream.tail_position();
        stream.set_attached_until(self.readers.restore(&self.state, tail));
        Ok(stream)
    }

    /// Begins to measure a request, if it asks for that. What was loaded before is not its affair.
    pub(crate) fn begin_timing(&self, wanted: Option<&str>) -> Option<Timing> {
        let timing = Timing::begin(wanted);
        if timing.is_some() {
            self.load_ms.take();
        }
        timing
    }

    /// A reply with the times that its request asked for.
    pub(crate) fn timed(&self, reply: Reply, timing: Option<Timing>) -> Reply {
        let Some(mut timing) = timing else { return reply };
        if let Some(ms) = self.load_ms.take() {
            timing.add("load", ms);
        }
        reply.header(name::SERVER_TIMING, timing.header())
    }

    /// Tells the operator that a request failed here, and which trace it belongs to.
    pub(crate) fn tell_failure(&self, failure: &Failure, traceparent: Option<String>) {
        let code = failure.error.code;
        if code.status() < 500 {
            return;
        }
        let trace = traceparent.as_deref().and_then(TraceParent::parse);
        let trace = trace.map(|trace| trace.trace_id());
        let stream = self.name().unwrap_or_default();
        let details = [("code", code.as_str().into()), ("traceId", trace.into())];
        event(&self.env, (Level::Error, "request_failed"), &stream, 1, &details);
    }

    /// The object's own name, `{project}/{path}`.
    pub(crate) fn name(&self) -> Result<String, Failure> {
        self.state.id().name().ok_or_else(|| {
            Failure::new(ErrorCode::Internal, "The platform did not tell the object its name.")
        })
    }

    async fn on_alarm(self: &Rc<Self>) {
        let busy = Busy {
            making_fork: self.fork_in_progress.is_going_on(),
            rotating: self.uploading.is_going_on(),
        };
        let due = self.with_stream(|stream| stream.on_alarm(busy, js::now()));
        match due {
            Ok(Ok(Due { releases, markers, upload, nudge })) => {
                if nudge {
                    self.nudge_shards();
                }
                self.sweep(markers).await;
                if let Some(rotation) = upload {
                    self.resume_upload(rotation).await;
                }
                self.take_up();
                self.rotate_if_due();
                self.deliver(releases).await;
            }
            Ok(Err(error)) => {
                console_error!(
                    "{}",
                    serde_json::json!({"event": "alarm_failed", "cause": error.to_string()})
                );
                self.retry_alarm();
            }
            Err(_) => self.retry_alarm(),
        }
    }

    /// An alarm that failed must not be lost: the platform's own retries end.
    fn retry_alarm(&self) {
        const PAUSE_MS: u64 = 10_000;
        let at = js::now().saturating_add_ms(PAUSE_MS);
        if let Err(error) = self.storage.set_alarm(at.0 as f64) {
            internal("setting an alarm", &error);
        }
    }
}

fn bounds_of(limits: &Limits) -> Bounds {
    Bounds {
        bytes_max: limits.stream_bytes_max,
        segment_bytes: limits.segment_bytes,
        segment_appends: limits.segment_appends,
        fork_copy_bytes_max: FORK_COPY_BYTES_MAX,
        lend_bytes: ROW_BYTES_MAX,
        grace_ms: limits.segment_grace_ms,
        fanout_hold_ms: limits.fanout_hold_max_ms,
    }
}
