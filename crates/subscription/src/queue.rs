//! The queue's consumer: wakes the shard that a message names.
//!
//! A message carries a position and no bytes. The shard has promised to deliver before the message was
//! sent, and its alarm sees to it if no message ever comes: so a message may be lost, repeated, or come
//! late, and one that cannot be read is acknowledged.

use durable_streams_core::call::ask_message;
use durable_streams_core::edge::SUBSCRIPTION_BINDING;
use durable_streams_core::metrics::{Level, event};
use futures::future::join_all;
use js_sys::{Array, Promise};
use protocol::fanout::{DeliverNow, QueueMessage};
use protocol::trace::TraceParent;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use worker::Env;

#[wasm_bindgen]
extern "C" {
    /// What the platform hands to the consumer.
    pub type Batch;

    #[wasm_bindgen(method, getter)]
    fn messages(this: &Batch) -> Array;

    #[wasm_bindgen(method, getter)]
    fn queue(this: &Batch) -> String;

    /// One message of it.
    type QueuedMessage;

    #[wasm_bindgen(method, getter)]
    fn body(this: &QueuedMessage) -> JsValue;

    #[wasm_bindgen(method)]
    fn ack(this: &QueuedMessage);

    #[wasm_bindgen(method)]
    fn retry(this: &QueuedMessage);
}

/// Serves a batch; each message by itself, so that one that fails repeats no other.
pub fn consume(batch: Batch, env: Env) -> Promise {
    future_to_promise(async move {
        let messages = batch.messages();
        let is_dead = batch.queue().ends_with("-dead");
        let served = messages.iter().map(|message| {
            let message: QueuedMessage = message.unchecked_into();
            let env = env.clone();
            async move { serve(&message, is_dead, &env).await }
        });
        join_all(served).await;
        Ok(JsValue::UNDEFINED)
    })
}

async fn serve(message: &QueuedMessage, is_dead: bool, env: &Env) {
    let text = message.body().as_string().unwrap_or_default();
    let Ok(parsed) = serde_json::from_str::<QueueMessage>(&text) else {
        let details = [("message", text.into())];
        event(env, (Level::Error, "queue_message_unreadable"), "", 1, &details);
        return message.ack();
    };
    let QueueMessage { source, generation, shard, up_to, traceparent } = parsed;
    let question = DeliverNow { generation, up_to };
    let trace = traceparent.as_deref().and_then(TraceParent::parse);
    let object = shard.object_name(&source);
    if is_dead {
        let trace = trace.map(|trace| trace.trace_id());
        let details = [("to", up_to.0.into()), ("traceId", trace.into())];
        event(env, (Level::Error, "queue_message_dead"), &object, 1, &details);
        return message.ack();
    }
    match ask_message(SUBSCRIPTION_BINDING, &object, &question, trace, env).await {
        Ok(()) => message.ack(),
        Err(_) => message.retry(),
    }
}
