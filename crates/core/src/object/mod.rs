//! `StreamObject`: the Durable Object of one stream path.
//!
//! Every verb is load → plan → commit → announce. The engine plans and commits without an await
//! in between; replies and frames to readers are held by the platform's output gate until the
//! commit is on disk. What arrives here has passed the edge: the path is legal and not reserved.
//!
//! - [`appends`]: reading bodies, and the group commit.
//! - [`verbs`]: one function a method.
//! - [`readers`]: hibernating sockets of live readers, and the pump that feeds them.
//! - [`forks`]: the conversation between a fork and its source.

mod appends;
mod body;
mod forks;
mod readers;
mod sql;
mod verbs;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::Stream;
use engine::log::LogError;
use engine::log::sql::SqlLog;
use protocol::error::{ApiError, ErrorCode};
use wasm_bindgen::JsCast;
use worker::{
    DurableObject, Env, Request, Response, State, WebSocket, WebSocketIncomingMessage,
    console_error, durable_object,
};

use crate::config::Config;
use crate::js;
use crate::request::{Headers, split_url};
use crate::respond::{Failure, Reply, internal};
use appends::Appends;
use readers::Readers;
pub use sql::JsBytes;
use sql::ObjectDatabase;

type ObjectStream = Stream<SqlLog<ObjectDatabase>>;

/// Prefix of the paths by which objects talk to each other. The edge passes on paths under `/v1/`
/// only, so no client reaches them.
pub(crate) const INTERNAL: &str = "/internal/";

/// The Durable Object of one stream path.
#[durable_object]
pub struct StreamObject {
    inner: Rc<Inner>,
}

/// What the object's concurrent requests share.
pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) env: Env,
    pub(crate) storage: js::Storage,
    pub(crate) config: Result<Config, ApiError>,
    stream: RefCell<Option<ObjectStream>>,
    pub(crate) appends: Appends,
    pub(crate) readers: RefCell<Readers>,
    /// Whether a request of this instance is making a fork.
    pub(crate) making_fork: Cell<bool>,
}

/// What a request asks for, taken apart once.
pub(crate) struct Call {
    pub(crate) request: web_sys::Request,
    pub(crate) url: String,
    pub(crate) headers: Headers,
}

impl DurableObject for StreamObject {
    fn new(state: State, env: Env) -> Self {
        let storage: js::Storage =
            wasm_bindgen::JsValue::from(state.storage().as_raw()).unchecked_into();
        let config = Config::from_env(&env);
        Self {
            inner: Rc::new(Inner {
                state,
                env,
                storage,
                config,
                stream: RefCell::new(None),
                appends: Appends::default(),
                readers: RefCell::default(),
                making_fork: Cell::new(false),
            }),
        }
    }

    async fn fetch(&self, request: Request) -> worker::Result<Response> {
        let request = Clone::clone(request.inner());
        let call = Call { url: request.url(), headers: Headers(request.headers()), request };
        let answer = self.inner.clone().answer(call).await;
        match answer {
            Ok(Answer::Reply(reply)) => Ok(reply.into_response()?.into()),
            Ok(Answer::Socket(response)) => Ok(response),
            Err(failure) => Ok(failure.reply().into_response()?.into()),
        }
    }

    async fn alarm(&self) -> worker::Result<Response> {
        self.inner.on_alarm().await;
        Response::empty()
    }

    async fn websocket_message(
        &self,
        socket: WebSocket,
        message: WebSocketIncomingMessage,
    ) -> worker::Result<()> {
        self.inner.on_message(&socket, &message);
        Ok(())
    }

    async fn websocket_close(
        &self,
        socket: WebSocket,
        _code: usize,
        _reason: String,
        _was_clean: bool,
    ) -> worker::Result<()> {
        self.inner.on_close(&socket);
        Ok(())
    }

    async fn websocket_error(&self, socket: WebSocket, _error: worker::Error) -> worker::Result<()> {
        self.inner.on_close(&socket);
        Ok(())
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
    async fn answer(self: Rc<Self>, call: Call) -> Result<Answer, Failure> {
        self.config()?;
        let (_, path, query) = split_url(&call.url);
        if let Some(operation) = path.strip_prefix(INTERNAL) {
            return self.answer_object(operation, query, &call).await;
        }
        match call.request.method().as_str() {
            "POST" => self.post(&call).await,
            "GET" => self.get(&call, query),
            "PUT" => self.put(&call, path).await,
            "HEAD" => self.head(),
            "DELETE" => self.delete(),
            _ => Err(Failure::new(ErrorCode::MethodNotAllowed, "A stream has no such method.")),
        }
    }

    /// The deployment's variables.
    pub(crate) fn config(&self) -> Result<&Config, Failure> {
        self.config.as_ref().map_err(|error| error.clone().into())
    }

    /// Runs `body` on the stream, loading it first if this instance has not yet. Readers of a
    /// life that ended meanwhile are sent away.
    pub(crate) fn with_stream<T>(
        &self,
        body: impl FnOnce(&mut ObjectStream) -> T,
    ) -> Result<T, Failure> {
        let Ok(mut slot) = self.stream.try_borrow_mut() else {
            return Err(Failure::new(ErrorCode::Internal, "The stream is in use by its own request."));
        };
        let stream = match &mut *slot {
            Some(stream) => stream,
            empty => {
                let stream = self.open().map_err(|error| {
                    console_error!("{}", serde_json::json!({"event": "load_failed", "cause": error.to_string()}));
                    Failure::from(error)
                })?;
                empty.insert(stream)
            }
        };
        let before = stream.generation();
        let outcome = body(stream);
        let ended = before.is_some() && stream.generation() != before;
        drop(slot);
        if ended {
            self.dismiss_readers();
        }
        Ok(outcome)
    }

    fn open(&self) -> Result<ObjectStream, LogError> {
        let mut stream = Stream::open(SqlLog::open(ObjectDatabase::new(self.storage.clone()))?)?;
        if let Ok(mut readers) = self.readers.try_borrow_mut() {
            let tail = stream.tail_position();
            let until = readers.restore(&self.state, tail);
            stream.set_attached_until(until);
        }
        Ok(stream)
    }

    /// The object's own name, `{project}/{path}`.
    pub(crate) fn name(&self) -> Result<String, Failure> {
        self.state.id().name().ok_or_else(|| {
            Failure::new(ErrorCode::Internal, "The platform did not tell the object its name.")
        })
    }

    async fn on_alarm(self: &Rc<Self>) {
        let making = self.making_fork.get();
        let due = self.with_stream(|stream| stream.on_alarm(making, js::now()));
        match due {
            Ok(Ok(releases)) => self.deliver(releases).await,
            Ok(Err(error)) => {
                console_error!("{}", serde_json::json!({"event": "alarm_failed", "cause": error.to_string()}));
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
