//! POST: from the request's body to the group commit.
//!
//! Appends that arrive while the previous group is on its way to the disk are planned together
//! and committed as one transaction.
//!
//! ```text
//! body ─► queue ─► [commit group] ─► answers (held by the output gate)
//!                       │
//!                   sync() … meanwhile the queue fills … ─► [commit group] …
//! ```
//!
//! A lone append waits for nobody. While the bodies of other appends are still arriving, a
//! zero-delay timer precedes the group so that they can join it. Each append is judged and
//! answered on its own, in arrival order.
//!
//! This is the hot path: it runs on the platform's own promises. A request costs one callback
//! when its body is there, and its [`Ticket`] resolves the promise that the platform waits for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use engine::append::{Append, AppendError, Appended};
use engine::log::Blob;
use js_sys::{Function, Promise};
use protocol::error::ErrorCode;
use protocol::headers::name;
use protocol::limits::GROUP_APPENDS_MAX;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use worker::Delay;

use super::body::{self, Body};
use super::{Call, Inner, JsBytes};
use crate::js;
use crate::request::AppendHeaders;
use crate::respond::{Failure, Reply, internal};

/// An append that waits for its group.
struct Waiting {
    append: Append<JsBytes>,
    ticket: Ticket,
}

/// The queue in front of the log.
#[derive(Default)]
pub(crate) struct Appends {
    queue: RefCell<Vec<Waiting>>,
    /// Whether somebody commits groups.
    committing: Cell<bool>,
    /// Appends whose bodies are still being read.
    arriving: Cell<u32>,
}

/// The right to answer one request, used exactly once. A ticket that is dropped unused answers
/// that nothing was stored.
struct Ticket {
    resolve: Option<Function>,
    /// Whether a browser asks, which wants CORS headers.
    cors: bool,
}

impl Ticket {
    fn answer(mut self, outcome: Result<Reply, Failure>) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Result<Reply, Failure>) {
        let Some(resolve) = self.resolve.take() else { return };
        let reply = outcome.unwrap_or_else(Failure::reply).cors(self.cors);
        let response = reply.into_response().map_or_else(|error| error, JsValue::from);
        // `resolve` is the platform's own function and does not throw.
        let _ = resolve.call1(&JsValue::UNDEFINED, &response);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let message = "The stream's storage failed; nothing was changed.";
        if self.resolve.is_some() {
            self.settle(Err(Failure::new(ErrorCode::StorageFailed, message)));
        }
    }
}

/// Counts an append from its first byte until it is queued or refused.
struct Arriving(Rc<Inner>);

impl Arriving {
    fn new(inner: &Rc<Inner>) -> Self {
        let arriving = &inner.appends.arriving;
        arriving.set(arriving.get().saturating_add(1));
        Self(Rc::clone(inner))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let arriving = &self.0.appends.arriving;
        arriving.set(arriving.get().saturating_sub(1));
    }
}

impl Appends {
    /// The next group, in arrival order.
    fn take_group(&self) -> Vec<Waiting> {
        let Ok(mut queue) = self.queue.try_borrow_mut() else { return Vec::new() };
        let group = usize::try_from(GROUP_APPENDS_MAX).unwrap_or(usize::MAX).min(queue.len());
        queue.drain(..group).collect()
    }

    fn is_empty(&self) -> bool {
        self.queue.try_borrow().is_ok_and(|queue| queue.is_empty())
    }
}

impl Inner {
    /// POST: append, close, or both.
    pub(crate) fn post(self: &Rc<Self>, call: &Call) -> Promise {
        Promise::new(&mut |resolve, _reject| {
            let cors = call.headers.get(name::ORIGIN).is_some();
            let ticket = Ticket { resolve: Some(resolve), cors };
            if let Err((ticket, failure)) = self.receive(call, ticket) {
                ticket.answer(Err(failure));
            }
        })
    }

    /// Checks what can be checked before the body, and has it read.
    fn receive(self: &Rc<Self>, call: &Call, ticket: Ticket) -> Result<(), (Ticket, Failure)> {
        let arriving = Arriving::new(self);
        let prepared = self.prepare(call);
        let (headers, body) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return Err((ticket, failure)),
        };
        let append = Append {
            content_type: headers.content_type,
            body: JsBytes::from_vec(Vec::new()),
            producer: headers.producer,
            seq: headers.seq,
            close: headers.close,
        };
        let inner = Rc::clone(self);
        match body {
            Body::Empty => {
                drop(arriving);
                self.enqueue(append, ticket);
            }
            Body::Whole { promise, length } => {
                let on_body = Closure::once_into_js(move |buffer: JsValue| {
                    drop(arriving);
                    match body::whole(&buffer, length) {
                        Ok(body) => inner.enqueue(Append { body, ..append }, ticket),
                        Err(failure) => ticket.answer(Err(failure)),
                    }
                });
                body::then(&promise, on_body.unchecked_ref());
            }
            pieces => spawn_local(async move {
                let body = body::finish(pieces).await;
                drop(arriving);
                match body {
                    Ok(body) => inner.enqueue(Append { body, ..append }, ticket),
                    Err(failure) => ticket.answer(Err(failure)),
                }
            }),
        }
        Ok(())
    }

    fn prepare(&self, call: &Call) -> Result<(AppendHeaders, Body), Failure> {
        let max = self.config()?.limits.body_bytes_max;
        self.with_stream(|stream| stream.check(js::now()))??;
        Ok((AppendHeaders::parse(&call.headers)?, body::begin(call, max)?))
    }

    /// Puts an append into the next group.
    fn enqueue(self: &Rc<Self>, append: Append<JsBytes>, ticket: Ticket) {
        if let Ok(mut queue) = self.appends.queue.try_borrow_mut() {
            queue.push(Waiting { append, ticket });
        }
        if !self.appends.committing.replace(true) {
            self.start_committing();
        }
    }

    fn start_committing(self: &Rc<Self>) {
        let alone = self.appends.arriving.get() == 0;
        if alone {
            self.commit_group();
        }
        let inner = Rc::clone(self);
        self.state.wait_until(async move {
            if alone {
                inner.synced().await;
            }
            while !inner.appends.is_empty() {
                if inner.appends.arriving.get() > 0 {
                    Delay::from(Duration::ZERO).await;
                }
                inner.commit_group();
                inner.synced().await;
            }
            inner.appends.committing.set(false);
        });
    }

    fn commit_group(&self) {
        let group = self.appends.take_group();
        let (appends, tickets): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|Waiting { append, ticket }| {
                let has_body = !append.body.is_empty();
                (append, (ticket, has_body))
            })
            .unzip();
        let outcome = self.with_stream(|stream| stream.append_group(appends, js::now()));
        // A load that failed drops the tickets, and each says so.
        let Ok(outcome) = outcome else { return };
        for ((ticket, has_body), reply) in tickets.into_iter().zip(outcome.replies) {
            ticket.answer(appended_reply(reply, has_body));
        }
        if let Some(growth) = outcome.growth {
            self.broadcast(growth);
        }
    }

    /// Waits until what was committed is on disk.
    async fn synced(&self) {
        let outcome = match self.storage.sync() {
            Ok(promise) => JsFuture::from(promise).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            internal("waiting for the disk", &error);
        }
    }
}

/// 200 for data of a producer that is new, 204 for everything else (PROTOCOL §5.2, §5.2.1).
fn appended_reply(
    outcome: Result<Appended, AppendError>,
    has_body: bool,
) -> Result<Reply, Failure> {
    let appended = outcome?;
    let accepted = appended.producer.is_some() && !appended.duplicate && has_body;
    let mut reply = Reply::new(if accepted { 200 } else { 204 })
        .header(name::STREAM_NEXT_OFFSET, appended.next.to_string())
        .header(name::CACHE_CONTROL, "no-store")
        .header_if(appended.closed, name::STREAM_CLOSED, "true");
    if let Some((epoch, seq)) = appended.producer {
        reply = reply
            .header(name::PRODUCER_EPOCH, epoch.0.to_string())
            .header(name::PRODUCER_SEQ, seq.0.to_string());
    }
    Ok(reply)
}
