//! The one deployable: what each operation of the route table leads to, and the classes that the
//! platform looks for.

use durable_streams_core::edge::{self, Admitted, Exchange};
use durable_streams_subscription::edge as sessions;
use durable_streams_subscription::queue::{Batch, consume};
use durable_streams_subscription::reconcile::reconcile;
use js_sys::Promise;
use protocol::routes::Operation;
use wasm_bindgen::prelude::*;
use worker::Env;

pub use durable_streams_core::StreamObject;
pub use durable_streams_subscription::{SessionObject, SubscriptionObject};

/// The description of the service, made by `cargo xtask docs`.
const OPENAPI: &str = include_str!("openapi.json");

/// Every request of a client. Exported by hand, so that a promise of the platform can be passed
/// on as it is.
#[wasm_bindgen]
pub fn fetch(request: web_sys::Request, env: Env, context: JsValue) -> Promise {
    edge::serve(Exchange::begin(request, env, context), dispatch)
}

/// A batch of messages of the queue.
#[wasm_bindgen]
pub fn queue(batch: Batch, env: Env) -> Promise {
    consume(batch, env)
}

fn dispatch(admitted: &Admitted) -> Result<Promise, JsValue> {
    match admitted.operation {
        Operation::CreateStream
        | Operation::AppendStream
        | Operation::ReadStream
        | Operation::HeadStream
        | Operation::DeleteStream => edge::stream(admitted),
        Operation::StreamStats => edge::stats(admitted),
        Operation::CreateSession
        | Operation::ShowSession
        | Operation::TouchSession
        | Operation::DeleteSession => sessions::session(admitted),
        Operation::Subscribe | Operation::SubscribeBatch => Ok(sessions::subscribe(admitted)),
        Operation::Unsubscribe => Ok(sessions::unsubscribe(admitted)),
        Operation::Publish => sessions::publish(admitted),
        Operation::ReadConfig
        | Operation::CreateProject
        | Operation::ChangeConfig
        | Operation::AddSecret
        | Operation::RemoveSecret => Ok(edge::project(admitted)),
        Operation::Reconcile => Ok(reconcile(admitted)),
        Operation::Health => edge::health(),
        Operation::OpenApi => edge::document(OPENAPI.to_owned()),
    }
}
