//! What a session's stream is asked: its life, its links to sources, and the ranges that are delivered to
//! it. Ranges join the group commit like any append.

use std::rc::Rc;

use engine::append::{Append, AppendError};
use engine::log::Blob;
use js_sys::{Function, Promise, Uint8Array};
use protocol::error::ErrorCode;
use protocol::fanout::{
    AttachLink, CheckSession, CreateSession, Deliver, Delivered, DetachLink, EndSession, Message,
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use super::appends::{Room, Ticket, Waiting, nothing_stored};
use super::{Answer, Call, Inner, JsBytes};
use crate::call::{message_of, to_json};
use crate::edge::{STREAM_BINDING, namespace};
use crate::js;
use crate::respond::{Body, Failure, Reply, internal};

/// Sends a range to a session's stream.
///
/// # Errors
/// It is not known whether the session has it.
pub async fn send(
    stream: &str,
    message: &Deliver,
    bytes: &JsBytes,
    env: &Env,
) -> Result<Delivered, JsValue> {
    let streams = namespace(STREAM_BINDING, env)?;
    let sent = js::send_range(&streams, stream, &message.to_query(), bytes.array())?;
    match JsFuture::from(sent).await?.as_string() {
        None => Ok(Delivered::Done),
        Some(said) => serde_json::from_str(&said).map_err(|error| JsValue::from(error.to_string())),
    }
}

/// The right to answer one delivery, used exactly once. Dropped unused, it says that nothing was stored.
pub(crate) struct DeliveryTicket {
    resolve: Option<Function>,
    /// The room that the bytes take until they are stored.
    room: Option<Room>,
    inner: Rc<Inner>,
}

impl DeliveryTicket {
    /// The session has the range, now or since earlier.
    pub(crate) fn appended(mut self) {
        let Some(resolve) = self.resolve.take() else { return };
        if let Err(error) = js::answer_delivered(&resolve) {
            // Nothing was resolved: the response could not be built.
            self.resolve = Some(resolve);
            self.failed(internal("answering a delivery", &error));
        }
    }

    /// The engine has refused it.
    pub(crate) fn refused(mut self, error: AppendError) {
        let judged = match error {
            AppendError::LinkBehind { next } => Delivered::Behind { next },
            AppendError::LinkGone => Delivered::Gone,
            AppendError::Missing(engine::Missing::NotFound | engine::Missing::Gone) => {
                Delivered::Gone
            }
            error => return self.failed(error.into()),
        };
        self.settle(Reply::new(200).body(Body::Text(to_json(&judged))));
    }

    /// It was not stored.
    pub(crate) fn failed(mut self, failure: Failure) {
        self.inner.tell_failure(&failure, None);
        self.settle(failure.reply());
    }

    fn settle(&mut self, reply: Reply) {
        let Some(resolve) = self.resolve.take() else { return };
        self.room = None;
        let response = reply.into_response().map_or_else(|error| error, JsValue::from);
        // `resolve` is the platform's own function and does not throw.
        let _ = resolve.call1(&JsValue::UNDEFINED, &response);
    }
}

impl Drop for DeliveryTicket {
    fn drop(&mut self) {
        if self.resolve.is_some() {
            self.settle(Failure::from(nothing_stored()).reply());
        }
    }
}

impl Inner {
    /// What a session's object and its sources ask. `None`: no such question.
    pub(crate) async fn answer_session(
        self: &Rc<Self>,
        operation: &str,
        call: &Call,
    ) -> Result<Option<Answer>, Failure> {
        let answer = match operation {
            CreateSession::OPERATION => {
                let question: CreateSession = message_of(call).await?;
                let made =
                    self.with_stream(|stream| stream.create_session(&question, js::now()))?;
                to_json(&made?)
            }
            EndSession::OPERATION => {
                let EndSession { generation } = message_of(call).await?;
                self.with_stream(|stream| stream.end_session(generation, js::now()))??;
                to_json(&())
            }
            CheckSession::OPERATION => {
                let question: CheckSession = message_of(call).await?;
                let state =
                    self.with_stream(|stream| stream.check_session(&question, js::now()))?;
                to_json(&state?)
            }
            AttachLink::OPERATION => {
                let question: AttachLink = message_of(call).await?;
                let link = self.with_stream(|stream| stream.attach_link(&question, js::now()))?;
                to_json(&link?)
            }
            DetachLink::OPERATION => {
                let question: DetachLink = message_of(call).await?;
                self.with_stream(|stream| stream.detach_link(&question, js::now()))??;
                to_json(&())
            }
            _ => return Ok(None),
        };
        Ok(Some(Reply::new(200).body(Body::Text(answer)).into()))
    }

    /// A range for the session: 204 when it has it, otherwise 200 with what it says. Runs on the platform's
    /// own promises, like an append: there is one for each session that gets a message.
    pub(crate) fn receive_delivery(self: &Rc<Self>, request: &web_sys::Request) -> Promise {
        let inner = Rc::clone(self);
        let take = Closure::once_into_js(
            move |query: String, bytes: Option<Uint8Array>, resolve: Function| {
                let mut ticket = DeliveryTicket { resolve: Some(resolve), room: None, inner };
                match ticket.inner.delivered(&query, bytes) {
                    Ok((append, room)) => {
                        ticket.room = Some(room);
                        let inner = Rc::clone(&ticket.inner);
                        let ticket = Ticket::Delivery(ticket);
                        inner.enqueue_delivery(Waiting { append, ticket });
                        inner.take_up();
                    }
                    Err(failure) => ticket.failed(failure),
                }
            },
        );
        js::receive_delivery(request, take.unchecked_ref())
    }

    /// What was delivered, as an append.
    fn delivered(
        self: &Rc<Self>,
        query: &str,
        bytes: Option<Uint8Array>,
    ) -> Result<(Append<JsBytes>, Room), Failure> {
        self.config()?;
        let refused = |message| Failure::new(ErrorCode::InvalidQuery, message);
        let message = Deliver::from_query(query);
        let message = message.ok_or_else(|| refused("A delivery does not parse."))?;
        let bytes = bytes.ok_or_else(|| refused("The bytes of a delivery broke off."))?;
        let body = JsBytes::new(bytes);
        let room = Room::take(self, body.len())?;
        let append = Append {
            content_type: None,
            body,
            producer: None,
            seq: None,
            close: false,
            delivery: Some(Box::new(message)),
        };
        Ok((append, room))
    }
}
