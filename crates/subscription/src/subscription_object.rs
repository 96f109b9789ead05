//! `SubscriptionObject`: the Durable Object of a part of a source's subscribers.
//!
//! What it does is [`ShardServer`]'s; here are the platform's handlers and the match from questions to
//! its methods.

use std::rc::Rc;

use durable_streams_core::config::Config;
use durable_streams_core::js;
use durable_streams_core::object::ObjectDatabase;
use durable_streams_core::respond::Failure;
use engine::fanout::roster::sql::SqlRoster;
use engine::fanout::shard::{Shard, ShardBounds};
use engine::fanout::shard_server::{Names, ShardServer};
use engine::log::LogError;
use js_sys::Promise;
use protocol::error::ErrorCode;
use protocol::fanout::{
    DeliverNow, Join, Left, Message, Nudge, Remove, Roll, RollDirectory, Subscribe,
};
use protocol::limits::{FANOUT_RANGE_BYTES, Limits};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use worker::{Env, console_error, worker_sys};

use crate::object::{Loaded, Question, answered, no_such_question};
use crate::peers::WorkersPeers;

type Server = ShardServer<SqlRoster<ObjectDatabase>, WorkersPeers>;

/// The Durable Object of a shard of a source's subscribers.
#[wasm_bindgen]
pub struct SubscriptionObject {
    inner: Rc<Inner>,
}

struct Inner {
    loaded: Loaded<Server>,
    env: Env,
}

#[wasm_bindgen]
impl SubscriptionObject {
    /// A fresh instance; it loads nothing yet.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: worker_sys::DurableObjectState, env: Env) -> Self {
        Self { inner: Rc::new(Inner { loaded: Loaded::new(state), env }) }
    }

    /// A question of a source, a session, the queue or another shard.
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
            Nudge::OPERATION => question.answer(async |nudge| server.nudge(&nudge).await).await,
            Subscribe::OPERATION => {
                question.answer(async |wish| server.subscribe(&wish).await).await
            }
            Join::OPERATION => question.answer(async |Join(wish)| server.join(&wish).await).await,
            Remove::OPERATION => question.answer(async |wish| server.remove(&wish).await).await,
            Left::OPERATION => question.answer(async |message: Left| server.left(&message)).await,
            DeliverNow::OPERATION => {
                question.answer(async |message| server.deliver_now(&message).await).await
            }
            Roll::OPERATION => {
                question.answer(async |asked: Roll| server.with(|shard| shard.roll(&asked))?).await
            }
            RollDirectory::OPERATION => {
                question
                    .answer(async |asked: RollDirectory| {
                        server.with(|root| root.roll_directory(&asked))?
                    })
                    .await
            }
            _ => Err(no_such_question()),
        }
    }

    fn server(&self) -> Result<Rc<Server>, Failure> {
        self.loaded.server(|name| {
            let config = Config::of(&self.env)?;
            let Some(names) = Names::of(&name) else {
                let message = "This is no name of a subscription object.";
                return Err(Failure::new(ErrorCode::Internal, message));
            };
            let shard = self.open(&names, &config.limits)?;
            Ok(ShardServer::new(shard, names, WorkersPeers::new(self.env.clone(), name)))
        })
    }

    fn open(
        &self,
        names: &Names,
        limits: &Limits,
    ) -> Result<Shard<SqlRoster<ObjectDatabase>>, LogError> {
        let roster = SqlRoster::open(ObjectDatabase::new(self.loaded.storage.clone()))?;
        Shard::open(roster, names.shard, bounds_of(limits), js::now())
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

fn bounds_of(limits: &Limits) -> ShardBounds {
    ShardBounds {
        members_max: limits.shard_members_max,
        shards_max: limits.shards_max,
        inline_max: limits.fanout_inline_max,
        concurrency: limits.fanout_concurrency,
        deadline_ms: limits.fanout_deadline_ms,
        range_bytes: FANOUT_RANGE_BYTES,
    }
}
