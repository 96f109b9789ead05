//! `SessionObject`: the Durable Object of one session.
//!
//! What it does is [`SessionServer`]'s; here are the platform's handlers and the match from questions to
//! its methods.

use std::rc::Rc;

use durable_streams_core::config::Config;
use durable_streams_core::js;
use durable_streams_core::object::ObjectDatabase;
use durable_streams_core::respond::Failure;
use engine::fanout::ledger::sql::SqlLedger;
use engine::fanout::session::{Session, SessionBounds};
use engine::fanout::session_server::SessionServer;
use js_sys::Promise;
use protocol::fanout::{
    DeleteSession, Ended, Knows, Message, PutSession, ShowSession, SubscribeAll, TouchSession,
    Unsubscribe,
};
use protocol::limits::Limits;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use worker::{Env, console_error, worker_sys};

use crate::object::{Loaded, Question, answered, no_such_question};
use crate::peers::WorkersPeers;

type Server = SessionServer<SqlLedger<ObjectDatabase>, WorkersPeers>;

/// The Durable Object of one session.
#[wasm_bindgen]
pub struct SessionObject {
    inner: Rc<Inner>,
}

struct Inner {
    loaded: Loaded<Server>,
    env: Env,
}

#[wasm_bindgen]
impl SessionObject {
    /// A fresh instance; it loads nothing yet.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: worker_sys::DurableObjectState, env: Env) -> Self {
        Self { inner: Rc::new(Inner { loaded: Loaded::new(state), env }) }
    }

    /// A question of the edge, or of a subscription object.
    pub fn fetch(&self, request: web_sys::Request) -> Promise {
        let inner = Rc::clone(&self.inner);
        let question = Question::of(Clone::clone(&request));
        answered(request, async move { inner.answer(question).await })
    }

    /// The alarm: what is due.
    pub fn alarm(&self) -> Promise {
        let inner = Rc::clone(&self.inner);
        future_to_promise(async move {
            inner.on_alarm().await;
            Ok(JsValue::UNDEFINED)
        })
    }
}

impl Inner {
    async fn answer(&self, question: Question) -> Result<String, Failure> {
        let server = self.server()?;
        server.peers().set_trace(question.trace);
        let server = &server;
        match question.operation.as_str() {
            PutSession::OPERATION => question.answer(async |wish| server.put(&wish).await).await,
            ShowSession::OPERATION => {
                question.answer(async |_: ShowSession| server.show(false).await).await
            }
            TouchSession::OPERATION => {
                question.answer(async |_: TouchSession| server.show(true).await).await
            }
            DeleteSession::OPERATION => {
                question.answer(async |_: DeleteSession| server.delete().await).await
            }
            SubscribeAll::OPERATION => {
                question.answer(async |wish| server.subscribe_all(&wish).await).await
            }
            Unsubscribe::OPERATION => {
                question.answer(async |wish| server.unsubscribe(&wish).await).await
            }
            Ended::OPERATION => {
                question.answer(async |message| server.source_ended(&message).await).await
            }
            Knows::OPERATION => {
                question
                    .answer(async |asked: Knows| server.with(|session| session.knows(&asked))?)
                    .await
            }
            _ => Err(no_such_question()),
        }
    }

    fn server(&self) -> Result<Rc<Server>, Failure> {
        self.loaded.server(|name| {
            let config = Config::of(&self.env)?;
            let ledger = SqlLedger::open(ObjectDatabase::new(self.loaded.storage.clone()))?;
            let session = Session::open(ledger, bounds_of(&config.limits), js::now())?;
            let peers = WorkersPeers::new(self.env.clone(), name.clone());
            Ok(SessionServer::new(session, name, peers))
        })
    }

    async fn on_alarm(&self) {
        let outcome = match self.server() {
            Ok(server) => {
                server.peers().set_trace(None);
                server.alarm().await.map_err(Failure::from)
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = outcome {
            console_error!(
                "{}",
                serde_json::json!({"event": "alarm_failed", "cause": failure.error.message})
            );
            self.loaded.retry_alarm();
        }
    }
}

fn bounds_of(limits: &Limits) -> SessionBounds {
    SessionBounds {
        ttl_seconds: limits.session_ttl_seconds,
        subscriptions_max: limits.session_subscriptions_max,
        concurrency: limits.fanout_concurrency,
        deadline_ms: limits.fanout_deadline_ms.saturating_mul(2),
    }
}
