//! The group commit, and POST: from the request's body to it.
//!
//! Appends that arrive while the previous group is on its way to the disk are planned together
//! and committed as one transaction. Those of WebSocket clients ([`super::calls`]) join the same
//! groups.
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
use protocol::error::{ApiError, ErrorCode};
use protocol::fanout::Fanout;
use protocol::headers::name;
use protocol::limits::{BODIES_IN_FLIGHT_BYTES_MAX, GROUP_APPENDS_MAX};
use protocol::offset::Generation;
use protocol::time::UnixMillis;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use worker::Delay;

use super::calls::CallTicket;
use super::deliveries::DeliveryTicket;
use super::fanout::Published;
use super::timing::Timing;
use super::{Inner, JsBytes};
use crate::body::{self, Body, Bounds};
use crate::edge::Audience;
use crate::js;
use crate::request::{AppendHeaderText, AppendHeaders, content_length};
use crate::respond::{Failure, Reply, internal, unauthorized};

/// How long after another a range for a session counts as alone.
const ALONE_MS: u64 = 3;

/// An append that waits for its group.
pub(crate) struct Waiting {
    pub(crate) append: Append<JsBytes>,
    pub(crate) ticket: Ticket,
}

/// The right to answer one append, used exactly once. A ticket that is dropped unused answers that
/// nothing was stored.
pub(crate) enum Ticket {
    /// A POST.
    Request(RequestTicket),
    /// An append of a WebSocket client.
    Call(CallTicket),
    /// A range for a session.
    Delivery(DeliveryTicket),
}

impl Ticket {
    /// Answers an append that was stored, or stored before.
    fn appended(self, appended: &Appended, has_body: bool) {
        match self {
            Self::Request(ticket) => ticket.appended(appended, has_body),
            Self::Call(ticket) => ticket.appended(appended),
            Self::Delivery(ticket) => ticket.appended(),
        }
    }

    /// Answers an append that was refused.
    fn refused(self, failure: Failure) {
        match self {
            Self::Request(ticket) => ticket.refused(failure),
            Self::Call(ticket) => ticket.refused(failure.error),
            Self::Delivery(ticket) => ticket.failed(failure),
        }
    }

    /// Answers an append that the engine has refused.
    fn judged(self, error: AppendError) {
        match self {
            Self::Delivery(ticket) => ticket.refused(error),
            other => other.refused(error.into()),
        }
    }

    /// The trace of the request, as it came.
    fn traceparent(&self) -> Option<&str> {
        match self {
            Self::Request(ticket) => ticket.traceparent.as_deref(),
            Self::Call(_) | Self::Delivery(_) => None,
        }
    }

    /// The life that the append is for; `None` for whichever there is.
    fn life(&self) -> Option<Generation> {
        match self {
            Self::Request(_) | Self::Delivery(_) => None,
            Self::Call(ticket) => Some(ticket.life()),
        }
    }
}

/// The queue in front of the log.
#[derive(Default)]
pub(crate) struct Appends {
    queue: RefCell<Vec<Waiting>>,
    /// Whether somebody commits groups.
    committing: Cell<bool>,
    /// Appends whose bodies are still being read.
    arriving: Cell<u32>,
    /// Bytes of the bodies that wait for their group.
    in_flight_bytes: Cell<u64>,
    /// When a range for a session came last.
    delivered_at: Cell<UnixMillis>,
}

/// The right to answer one request.
pub(crate) struct RequestTicket {
    resolve: Option<Function>,
    /// Whether a browser asks, which wants CORS headers.
    cors: bool,
    /// The room that the body takes from its arrival until the answer.
    room: Option<Room>,
    /// What the request waited for, if it asked.
    timing: Option<Timing>,
    traceparent: Option<String>,
    /// Whether it is answered only when the subscribers have it, or are on their way to it.
    is_publish: bool,
    inner: Rc<Inner>,
}

impl RequestTicket {
    /// Answers an append that was stored, or stored before.
    fn appended(mut self, appended: &Appended, has_body: bool) {
        if self.cors || self.timing.is_some() {
            return self.settle(appended_reply(appended, has_body));
        }
        let Some(resolve) = self.resolve.take() else { return };
        let next = appended.next.to_string();
        let producer = appended.producer.map(|(epoch, seq)| (epoch.0 as f64, seq.0 as f64));
        let (epoch, seq) = producer.unwrap_or((-1.0, -1.0));
        let status = status_of(appended, has_body);
        if let Err(error) = js::answer_append(&resolve, status, &next, appended.closed, epoch, seq)
        {
            // Nothing was resolved: the response could not be built.
            self.resolve = Some(resolve);
            self.settle(internal("answering an append", &error).reply());
        }
    }

    /// Answers an append that was refused.
    fn refused(mut self, failure: Failure) {
        self.inner.tell_failure(&failure, self.traceparent.take());
        self.settle(failure.reply());
    }

    /// Answers a publish: an append of which it is known what became of it.
    pub(crate) fn published(mut self, appended: &Appended, has_body: bool, fanout: Fanout) {
        self.settle(fanout_reply(appended_reply(appended, has_body), fanout));
    }

    /// The body is stored: what waits for more than that holds no room.
    pub(crate) fn release_room(&mut self) {
        self.room = None;
    }

    fn settle(&mut self, reply: Reply) {
        let Some(resolve) = self.resolve.take() else { return };
        let mut timing = self.timing.take();
        if let Some(timing) = &mut timing {
            timing.end_phase("queue");
        }
        let reply = self.inner.timed(reply, timing);
        let response = reply.cors(self.cors).into_response();
        let response = response.map_or_else(|error| error, JsValue::from);
        // `resolve` is the platform's own function and does not throw.
        let _ = resolve.call1(&JsValue::UNDEFINED, &response);
    }
}

impl Drop for RequestTicket {
    fn drop(&mut self) {
        if self.resolve.is_some() {
            self.settle(Failure::from(nothing_stored()).reply());
        }
    }
}

/// What a ticket says that was dropped unused.
pub(crate) fn nothing_stored() -> ApiError {
    let message = "The stream's storage failed; nothing was changed.";
    ApiError::new(ErrorCode::StorageFailed, message)
}

/// Room for bodies, given back when it is dropped.
pub(crate) struct Room {
    inner: Rc<Inner>,
    bytes: u64,
}

impl Room {
    /// Takes room for bodies. An object without other bodies takes any.
    pub(crate) fn take(inner: &Rc<Inner>, bytes: u64) -> Result<Self, Failure> {
        let taken = inner.appends.in_flight_bytes.get();
        let wanted = taken.saturating_add(bytes);
        if taken > 0 && wanted > BODIES_IN_FLIGHT_BYTES_MAX {
            let message = "The stream is busy with large appends; nothing was appended.";
            let failure = Failure::new(ErrorCode::Unavailable, message);
            return Err(failure.header(name::RETRY_AFTER, "1"));
        }
        inner.appends.in_flight_bytes.set(wanted);
        Ok(Self { inner: Rc::clone(inner), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let in_flight = &self.inner.appends.in_flight_bytes;
        in_flight.set(in_flight.get().saturating_sub(self.bytes));
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
    pub(crate) fn post(self: &Rc<Self>, request: &web_sys::Request) -> Promise {
        Promise::new(&mut |resolve, _reject| {
            let lines = js::append_headers(request);
            let text = AppendHeaderText::split(&lines);
            let cors = text.origin.is_some();
            let ticket = RequestTicket {
                resolve: Some(resolve),
                cors,
                room: None,
                timing: self.begin_timing(text.timing),
                traceparent: text.traceparent.map(str::to_owned),
                is_publish: text.publish.is_some(),
                inner: Rc::clone(self),
            };
            let arriving = Arriving::new(self);
            match self.prepare(request, &text) {
                Ok((append, body)) => self.receive(append, body, ticket, arriving),
                Err(failure) => {
                    let request = Clone::clone(request);
                    spawn_local(async move {
                        body::discard(&request).await;
                        ticket.refused(failure);
                    });
                }
            }
        })
    }

    /// Checks what can be checked before the body, and starts to read that.
    fn prepare(
        &self,
        request: &web_sys::Request,
        text: &AppendHeaderText<'_>,
    ) -> Result<(Append<JsBytes>, Body), Failure> {
        let bounds = Bounds::of(&self.config()?.limits);
        if Audience::from_value(text.audience) == Audience::Anonymous {
            return Err(unauthorized());
        }
        self.with_stream(|stream| stream.check(js::now()))??;
        let headers = AppendHeaders::parse(text)?;
        let body = body::begin(request, content_length(text.content_length), bounds)?;
        let append = Append {
            content_type: headers.content_type,
            body: JsBytes::from_vec(Vec::new()),
            producer: headers.producer,
            seq: headers.seq,
            close: headers.close,
            delivery: None,
        };
        Ok((append, body))
    }

    /// Queues the append when its body is there.
    fn receive(
        self: &Rc<Self>,
        append: Append<JsBytes>,
        body: Body,
        mut ticket: RequestTicket,
        arriving: Arriving,
    ) {
        let inner = Rc::clone(self);
        let arrived = move |body: Result<JsBytes, Failure>| {
            drop(arriving);
            if let Some(timing) = &mut ticket.timing {
                timing.end_phase("body");
            }
            // An upload costs what has arrived of it: idle ones hold up nobody.
            match body.and_then(|body| Ok((Room::take(&inner, body.len())?, body))) {
                Ok((room, body)) => {
                    ticket.room = Some(room);
                    let append = Append { body, ..append };
                    inner.enqueue([Waiting { append, ticket: Ticket::Request(ticket) }]);
                }
                Err(failure) => ticket.refused(failure),
            }
        };
        match body {
            Body::Empty => arrived(Ok(JsBytes::from_vec(Vec::new()))),
            Body::Whole { promise, length } => {
                let on_body = Closure::once_into_js(move |buffer: JsValue| {
                    arrived(body::whole(&buffer, length));
                });
                body::then(&promise, on_body.unchecked_ref());
            }
            pieces => spawn_local(async move { arrived(body::finish(pieces).await) }),
        }
    }

    /// Puts appends into the next group.
    pub(crate) fn enqueue(self: &Rc<Self>, waiting: impl IntoIterator<Item = Waiting>) {
        if let Ok(mut queue) = self.appends.queue.try_borrow_mut() {
            queue.extend(waiting);
        }
        if !self.appends.committing.replace(true) {
            self.start_committing();
        }
    }

    /// Commits a range for a session. Mostly it is the only one for a while: then nobody waits for the disk only
    /// to find that nothing has come meanwhile. One that follows another at once takes the way of all
    /// appends, on which those behind it share a commit.
    pub(crate) fn enqueue_delivery(self: &Rc<Self>, waiting: Waiting) {
        let now = js::now();
        let last = self.appends.delivered_at.replace(now);
        let is_alone = now.saturating_since_ms(last) >= ALONE_MS
            && self.appends.arriving.get() == 0
            && !self.appends.committing.get();
        if !is_alone {
            return self.enqueue([waiting]);
        }
        if let Ok(mut queue) = self.appends.queue.try_borrow_mut() {
            queue.push(waiting);
        }
        self.commit_group();
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

    fn commit_group(self: &Rc<Self>) {
        let group = self.appends.take_group();
        let Ok(life) = self.with_stream(|stream| stream.generation()) else { return };
        let is_late = |waiting: &Waiting| {
            let wanted = waiting.ticket.life();
            wanted.is_some() && wanted != life
        };
        let (late, group): (Vec<_>, Vec<_>) = group.into_iter().partition(is_late);
        for Waiting { ticket, .. } in late {
            ticket.refused(engine::Missing::NotFound.into());
        }
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
        if outcome.growth.is_some() {
            self.note_trace(tickets.last().and_then(|(ticket, _)| ticket.traceparent()));
        }
        for ((ticket, has_body), reply) in tickets.into_iter().zip(outcome.replies) {
            match (reply, ticket) {
                (Ok(appended), Ticket::Request(ticket)) if ticket.is_publish => {
                    self.await_fanout(Published { ticket, appended, has_body });
                }
                (Ok(appended), ticket) => ticket.appended(&appended, has_body),
                (Err(error), ticket) => ticket.judged(error),
            }
        }
        if let Some(growth) = outcome.growth {
            self.announce(growth);
            self.nudge_shards();
            self.take_up();
            self.rotate_if_due();
            self.watch_quota();
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
fn status_of(appended: &Appended, has_body: bool) -> u16 {
    if appended.producer.is_some() && !appended.duplicate && has_body { 200 } else { 204 }
}

/// The answer to a browser; `append.js` has the same without CORS headers.
fn appended_reply(appended: &Appended, has_body: bool) -> Reply {
    let reply = Reply::new(status_of(appended, has_body))
        .header(name::STREAM_NEXT_OFFSET, appended.next.to_string())
        .header(name::CACHE_CONTROL, "no-store")
        .header_if(appended.closed, name::STREAM_CLOSED, "true");
    match appended.producer {
        None => reply,
        Some((epoch, seq)) => reply
            .header(name::PRODUCER_EPOCH, epoch.0.to_string())
            .header(name::PRODUCER_SEQ, seq.0.to_string()),
    }
}

/// The answer to a publish.
fn fanout_reply(reply: Reply, fanout: Fanout) -> Reply {
    reply
        .header(name::STREAM_FANOUT_COUNT, fanout.count.to_string())
        .header(name::STREAM_FANOUT_SUCCESSES, fanout.successes.to_string())
        .header(name::STREAM_FANOUT_FAILURES, fanout.failures.to_string())
        .header(name::STREAM_FANOUT_MODE, fanout.mode.as_str())
}
