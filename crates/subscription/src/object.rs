//! What both kinds of objects share: opening, questions in, answers out, the alarm.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use durable_streams_core::body;
use durable_streams_core::call::{read_message, to_json};
use durable_streams_core::js::{self, Storage};
use durable_streams_core::respond::{Body, Failure, Reply, internal};
use engine::fanout::shard_server::ServeError;
use engine::log::LogError;
use js_sys::Promise;
use protocol::error::ErrorCode;
use protocol::fanout::Message;
use protocol::headers::name;
use protocol::trace::TraceParent;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::future_to_promise;
use worker::{State, worker_sys};

/// How long until an alarm that failed is tried again: the platform's own retries end.
const ALARM_PAUSE_MS: u64 = 10_000;

/// The platform's part of an object, and what was loaded from its storage.
pub(crate) struct Loaded<S> {
    state: State,
    pub(crate) storage: Storage,
    server: RefCell<Option<Rc<S>>>,
}

impl<S> Loaded<S> {
    pub(crate) fn new(state: worker_sys::DurableObjectState) -> Self {
        let state = State::from(state);
        let storage: Storage = JsValue::from(state.storage().as_raw()).unchecked_into();
        Self { state, storage, server: RefCell::new(None) }
    }

    /// The object's own name.
    pub(crate) fn name(&self) -> Result<String, Failure> {
        self.state.id().name().ok_or_else(|| {
            Failure::new(ErrorCode::Internal, "The platform did not tell the object its name.")
        })
    }

    /// What serves the object, loaded by `open` if this instance has not done so yet.
    pub(crate) fn server(
        &self,
        open: impl FnOnce(String) -> Result<S, Failure>,
    ) -> Result<Rc<S>, Failure> {
        let known = self.server.try_borrow().ok().and_then(|server| server.clone());
        if let Some(server) = known {
            return Ok(server);
        }
        let server = Rc::new(open(self.name()?)?);
        if let Ok(mut slot) = self.server.try_borrow_mut() {
            *slot = Some(Rc::clone(&server));
        }
        Ok(server)
    }

    /// An alarm that failed must not be lost.
    pub(crate) fn retry_alarm(&self) {
        let at = js::now().saturating_add_ms(ALARM_PAUSE_MS);
        if let Err(error) = self.storage.set_alarm(at.0 as f64) {
            internal("setting an alarm", &error);
        }
    }
}

/// A question that has come in.
pub(crate) struct Question {
    request: web_sys::Request,
    /// Its name: see [`Message::OPERATION`].
    pub(crate) operation: String,
    pub(crate) trace: Option<TraceParent>,
}

impl Question {
    pub(crate) fn of(request: web_sys::Request) -> Self {
        let url = request.url();
        let operation = url.rsplit('/').next().unwrap_or_default().to_owned();
        let trace = request.headers().get(name::TRACEPARENT).ok().flatten();
        let trace = trace.as_deref().and_then(TraceParent::parse);
        Self { request, operation, trace }
    }

    /// Answers with what `answer` makes of the message.
    pub(crate) async fn answer<M: Message, E: Into<Unserved>>(
        &self,
        answer: impl AsyncFnOnce(M) -> Result<M::Answer, E>,
    ) -> Result<String, Failure> {
        let message: M = read_message(&self.request).await?;
        match answer(message).await {
            Ok(answer) => Ok(to_json(&answer)),
            Err(error) => Err(error.into().0),
        }
    }
}

/// A question that was not served, as a failure.
pub(crate) struct Unserved(Failure);

impl From<LogError> for Unserved {
    fn from(error: LogError) -> Self {
        Self(error.into())
    }
}

impl From<ServeError> for Unserved {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Log(error) => error.into(),
            ServeError::NoAnswer(no_answer) => {
                let message = format!("Somebody else did not answer: {}", no_answer.0);
                Self(Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1"))
            }
        }
    }
}

/// The promise of a question's answer.
pub(crate) fn answered(
    request: web_sys::Request,
    answer: impl Future<Output = Result<String, Failure>> + 'static,
) -> Promise {
    future_to_promise(async move {
        let reply = match answer.await {
            Ok(json) => Reply::new(200).body(Body::Text(json)),
            Err(failure) => {
                body::discard(&request).await;
                failure.reply()
            }
        };
        reply.into_response().map(JsValue::from)
    })
}

/// What nobody asks of such an object.
pub(crate) fn no_such_question() -> Failure {
    Failure::new(ErrorCode::RouteNotFound, "No such internal operation.")
}
