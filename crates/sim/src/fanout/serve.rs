//! What each kind of object does with a question: the glue that the deployed objects have as well.

use std::rc::Rc;

use engine::fanout::peers::Address;
use engine::fanout::shard_server::ServeError;
use protocol::fanout::{
    DeleteSession, DeliverNow, Ended, Join, Left, Message, Nudge, PutSession, Remove, ShowSession,
    Subscribe, SubscribeAll, SubscriptionEpoch, TouchSession, Unsubscribe,
};

use super::Bug;
use super::hub::Hub;
use super::net::{Answer, from_json, to_json};
use super::objects::{Instance, SimSession, SimShard};
use super::streams;

/// Serves one question.
pub(super) async fn serve(
    hub: &Rc<Hub>,
    (address, instance): (&Address, Instance),
    operation: &str,
    (body, bytes): (String, Vec<u8>),
) -> Answer {
    match instance {
        Instance::Stream(stream) => {
            streams::serve(hub, (address, &stream), operation, (&body, bytes))
        }
        Instance::Shard(shard) => Ok((serve_shard(hub, &shard, operation, &body).await?, vec![])),
        Instance::Session(session) => {
            Ok((serve_session(&session, operation, &body).await?, vec![]))
        }
    }
}

fn told<T: serde::Serialize, E: Into<ServeError>>(answer: Result<T, E>) -> Result<String, String> {
    match answer {
        Ok(answer) => Ok(to_json(&answer)),
        Err(error) => Err(error.into().to_string()),
    }
}

async fn serve_shard(
    hub: &Hub,
    shard: &SimShard,
    operation: &str,
    body: &str,
) -> Result<String, String> {
    match operation {
        Subscribe::OPERATION => told(shard.subscribe(&from_json(body)?).await),
        Join::OPERATION => {
            let Join(wish) = from_json(body)?;
            told(shard.join(&wish).await)
        }
        Remove::OPERATION => {
            let mut wish: Remove = from_json(body)?;
            if hub.bug == Bug::EpochIgnored {
                (wish.first, wish.last) = (SubscriptionEpoch(0), SubscriptionEpoch(u64::MAX));
            }
            told(shard.remove(&wish).await)
        }
        Left::OPERATION => told(shard.left(&from_json(body)?)),
        Nudge::OPERATION => told(shard.nudge(&from_json(body)?).await),
        DeliverNow::OPERATION => told(shard.deliver_now(&from_json(body)?).await),
        _ => Err(format!("a shard knows no {operation}")),
    }
}

async fn serve_session(
    session: &SimSession,
    operation: &str,
    body: &str,
) -> Result<String, String> {
    match operation {
        PutSession::OPERATION => told(session.put(&from_json(body)?).await),
        ShowSession::OPERATION => told(session.show(false).await),
        TouchSession::OPERATION => told(session.show(true).await),
        DeleteSession::OPERATION => told(session.delete().await),
        SubscribeAll::OPERATION => told(session.subscribe_all(&from_json(body)?).await),
        Unsubscribe::OPERATION => told(session.unsubscribe(&from_json(body)?).await),
        Ended::OPERATION => told(session.source_ended(&from_json(body)?).await),
        _ => Err(format!("a session knows no {operation}")),
    }
}
