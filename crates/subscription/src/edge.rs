//! The edge of sessions: what clients ask for, turned into questions to the session's object.
//!
//! ```text
//! admitted ─► body ─► may the caller? ─► ask the object ─► answer
//! ```
//!
//! # Invariants
//! Every stream that a body names is looked at before anybody is asked: [`Caller::permits`]. One that the
//! caller's token does not cover refuses the whole request.
//!
//! **Error semantics.** A refusal has changed nothing. `UNAVAILABLE`: it is not known whether it has; the
//! same request may be sent again.
//!
//! **What stays out.** Which sessions there are, and what becomes of their subscriptions.

use durable_streams_core::body::{self, Bounds};
use durable_streams_core::call::{ask_message, to_json};
use durable_streams_core::config::Config;
use durable_streams_core::edge::{
    Admitted, Caller, Exchange, SESSION_BINDING, STREAM_BINDING, call_object, note_append,
};
use durable_streams_core::respond::{Body, Failure, Reply, internal};
use engine::log::Blob;
use js_sys::Promise;
use protocol::content_type::ContentType;
use protocol::error::{ApiError, ErrorCode};
use protocol::fanout::{
    DeleteSession, Message, Outcome, SessionView, ShowSession, SubscribeAll, SubscribedAll,
    TouchSession, Unsubscribe,
};
use protocol::headers::name;
use protocol::limits::{CONFIG_BODY_BYTES_MAX, SUBSCRIBE_BATCH_BYTES_MAX};
use protocol::name::{Project, Route, SessionId, StreamName};
use protocol::routes::Operation;
use protocol::sessions::{
    BatchBody, ItemBody, SessionBody, SubscribedBody, Subscribing, TouchedBody, UnsubscribedBody,
    parse_batch, parse_session, parse_subscribe, parse_unsubscribe,
};
use protocol::trace::TraceParent;
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use worker::Env;

use crate::respond::refused;

/// A request, and of whom it asks.
struct Asking {
    operation: Operation,
    request: web_sys::Request,
    /// Its URL without the query, which may hold a token.
    url: String,
    project: Project,
    caller: Caller,
    trace: Option<TraceParent>,
    env: Env,
}

/// Requests that name a session in their URL: create, show, touch, delete.
///
/// # Errors
/// What the platform throws, for an operation that has no session in its route.
pub fn session(admitted: &Admitted) -> Result<Promise, JsValue> {
    let (Route::Session { session, .. } | Route::SessionTouch { session, .. }) = &admitted.route
    else {
        return Err(JsValue::from_str("an operation on a session names none"));
    };
    let (asking, session) = (Asking::of(admitted), session.clone());
    Ok(answered(asking, async move |asking| match asking.operation {
        Operation::CreateSession => asking.create(&session).await,
        Operation::DeleteSession => {
            asking.ask(&session, &DeleteSession).await?;
            Ok(Reply::new(204).header(name::CACHE_CONTROL, "no-store"))
        }
        Operation::TouchSession => {
            let view = asking.ask(&session, &TouchSession).await?;
            Ok(json(200, &TouchedBody::of(&session, view.expires_at)))
        }
        _ => {
            let view = asking.ask(&session, &ShowSession).await?;
            Ok(json(200, &SessionBody::of(&asking.project, &session, view)))
        }
    }))
}

/// Requests that subscribe a session to one stream, or to many.
pub fn subscribe(admitted: &Admitted) -> Promise {
    answered(Asking::of(admitted), async |asking| match asking.operation {
        Operation::SubscribeBatch => {
            asking
                .subscribe_many(parse_batch(&asking.body(SUBSCRIBE_BATCH_BYTES_MAX).await?)?)
                .await
        }
        _ => {
            asking.subscribe_one(parse_subscribe(&asking.body(CONFIG_BODY_BYTES_MAX).await?)?).await
        }
    })
}

/// Requests that end a session's subscription.
pub fn unsubscribe(admitted: &Admitted) -> Promise {
    answered(Asking::of(admitted), async |asking| {
        let body = asking.body(CONFIG_BODY_BYTES_MAX).await?;
        let (session, path) = parse_unsubscribe(&body)?;
        asking.caller.permits(&session.stream_path())?;
        asking.caller.permits(&path)?;
        let name = StreamName { project: asking.project.clone(), path };
        let question = Unsubscribe { source: name.object_name() };
        let unsubscribed = asking.ask(&session, &question).await?;
        Ok(json(200, &UnsubscribedBody::of(&session, &name.path, unsubscribed)))
    })
}

/// Appends that are answered when their subscribers have them, or are on their way to them: passed on to
/// the stream's object, body and all.
///
/// # Errors
/// What the platform throws when the object cannot be called.
pub fn publish(admitted: &Admitted) -> Result<Promise, JsValue> {
    let Route::Publish { name: stream, .. } = &admitted.route else {
        return Err(JsValue::from_str("an operation on a stream names none"));
    };
    let Exchange { request, env, .. } = &admitted.exchange;
    let headers = web_sys::Headers::new_with_headers(&request.headers())?;
    headers.set(name::STREAM_PUBLISH, "1")?;
    let init = web_sys::RequestInit::new();
    init.set_headers(&headers);
    let marked = web_sys::Request::new_with_request_and_init(request, &init)?;
    let object = stream.object_name();
    let promise = call_object(STREAM_BINDING, &marked, &object, env)?;
    Ok(note_append(&promise, &object))
}

/// The promise of what `answer` makes of a request. A body that nobody has read is thrown away before the
/// answer, so that its client sees it.
fn answered<F>(asking: Asking, answer: F) -> Promise
where
    F: AsyncFnOnce(&Asking) -> Result<Reply, Failure> + 'static,
{
    future_to_promise(async move {
        let answer = answer(&asking).await;
        // What nobody has read.
        body::discard(&asking.request).await;
        answer.unwrap_or_else(Failure::reply).into_response().map(JsValue::from)
    })
}

impl Asking {
    fn of(admitted: &Admitted) -> Self {
        let Admitted { operation, route, exchange, caller, .. } = admitted;
        let url = exchange.preamble.url.split(['?', '#']).next().unwrap_or_default();
        Self {
            operation: *operation,
            request: Clone::clone(&exchange.request),
            url: url.to_owned(),
            project: route.project().cloned().unwrap_or_default(),
            caller: caller.clone(),
            trace: exchange.preamble.trace,
            env: exchange.env.clone(),
        }
    }

    async fn create(&self, session: &SessionId) -> Result<Reply, Failure> {
        let wanted = parse_session(&self.body(CONFIG_BODY_BYTES_MAX).await?)?;
        let view: SessionView = self.ask(session, &wanted).await?;
        let is_new = view.is_new;
        let reply =
            json(if is_new { 201 } else { 200 }, &SessionBody::of(&self.project, session, view));
        Ok(if is_new { reply.header(name::LOCATION, self.url.clone()) } else { reply })
    }

    async fn subscribe_one(&self, wanted: Subscribing) -> Result<Reply, Failure> {
        let told = self.subscribe(&wanted).await?;
        // One stream was asked for, and so there is one outcome.
        let [source] = wanted.sources.as_slice() else { return Err(unexpected("streams")) };
        match told.outcomes.first() {
            Some(Outcome::Done(())) => {}
            Some(Outcome::Refused(refusal)) => return Err(refused(refusal.clone())),
            None => return Err(unexpected("outcomes")),
        }
        let body = SubscribedBody::of(&self.project, &wanted.session, &source.path, &told);
        Ok(json(200, &body))
    }

    async fn subscribe_many(&self, wanted: Subscribing) -> Result<Reply, Failure> {
        let told = self.subscribe(&wanted).await?;
        if told.outcomes.len() != wanted.sources.len() {
            return Err(unexpected("outcomes"));
        }
        Ok(json(200, &batch_body(&self.project, &wanted, told)))
    }

    /// Asks the session's object, if the caller may have all of that.
    async fn subscribe(&self, wanted: &Subscribing) -> Result<SubscribedAll, Failure> {
        self.caller.permits(&wanted.session.stream_path())?;
        for source in &wanted.sources {
            self.caller.permits(&source.path)?;
        }
        let question = SubscribeAll {
            content_type: wanted.content_type.as_ref().map(|text| text.as_str().to_owned()),
            wishes: wanted.sources.iter().map(|source| source.wish(&self.project)).collect(),
        };
        self.ask(&wanted.session, &question).await
    }

    async fn ask<M, T>(&self, session: &SessionId, question: &M) -> Result<T, Failure>
    where
        M: Message<Answer = Outcome<T>>,
    {
        let object = session.object_name(&self.project);
        match ask_message(SESSION_BINDING, &object, question, self.trace, &self.env).await? {
            Outcome::Done(answer) => Ok(answer),
            Outcome::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// The body of the request.
    async fn body(&self, bytes_max: u64) -> Result<Vec<u8>, Failure> {
        let content_type = self.request.headers().get(name::CONTENT_TYPE).ok().flatten();
        check_content_type(content_type.as_deref())?;
        let timeout_ms = Config::of(&self.env)?.limits.body_timeout_ms;
        let bounds = Bounds { bytes_max, timeout_ms };
        Ok(body::read(&self.request, bounds).await?.to_vec())
    }
}

/// Bodies are JSON, and a client need not say so.
fn check_content_type(content_type: Option<&str>) -> Result<(), ApiError> {
    let Some(text) = content_type.filter(|text| !text.is_empty()) else { return Ok(()) };
    if ContentType::parse(text).is_ok_and(|content_type| content_type.is_json()) {
        return Ok(());
    }
    let message = "The body of this request is `application/json`.";
    Err(ApiError::new(ErrorCode::InvalidContentType, message))
}

fn batch_body(project: &Project, wanted: &Subscribing, told: SubscribedAll) -> BatchBody {
    let results = wanted.sources.iter().zip(told.outcomes).map(|(source, outcome)| {
        let outcome = match outcome {
            Outcome::Done(()) => Ok(()),
            Outcome::Refused(refusal) => Err(refused(refusal).error),
        };
        ItemBody::of(&source.path, outcome)
    });
    BatchBody::of(project, &wanted.session, (told.is_new, told.expires_at), results.collect())
}

fn unexpected(what: &str) -> Failure {
    internal("reading an answer", &JsValue::from_str(&format!("an unexpected number of {what}")))
}

/// A body that is JSON and changes at any time.
pub(crate) fn json(status: u16, body: &impl Serialize) -> Reply {
    Reply::new(status)
        .header(name::CONTENT_TYPE, "application/json")
        .header(name::CACHE_CONTROL, "no-store")
        .body(Body::Text(to_json(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fanout::SessionRefusal;
    use protocol::time::UnixMillis;

    #[test]
    fn bodies_are_json_or_say_nothing() {
        for good in [None, Some(""), Some("application/json"), Some("Application/JSON; charset=x")]
        {
            assert_eq!(check_content_type(good), Ok(()), "{good:?}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "json", "application/a+json"]
        {
            let code = check_content_type(Some(bad)).map_err(|error| error.code);
            assert_eq!(code, Err(ErrorCode::InvalidContentType), "{bad}");
        }
    }

    #[test]
    fn a_batch_tells_of_each_stream_in_its_order() {
        let text = br#"{"sessionId":"s","subscriptions":[{"streamId":"b"},{"streamId":"a"}]}"#;
        let wanted = parse_batch(text).unwrap();
        let told = SubscribedAll {
            is_new: false,
            expires_at: UnixMillis(0),
            outcomes: vec![Outcome::Refused(SessionRefusal::SourceFull), Outcome::Done(())],
        };
        let body = to_json(&batch_body(&Project::default(), &wanted, told));
        let expected = concat!(
            r#"{"sessionId":"s","sessionStreamPath":"/v1/_default/stream/session/s","#,
            r#""expiresAt":"1970-01-01T00:00:00.000Z","isNewSession":false,"results":["#,
            r#"{"streamId":"b","subscribed":false,"error":{"code":"TOO_MANY_SUBSCRIBERS","#,
            r#""message":"The stream has as many subscribers as it may."}},"#,
            r#"{"streamId":"a","subscribed":true}]}"#,
        );
        assert_eq!(body, expected);
    }
}
