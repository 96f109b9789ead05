//! One WebSocket connection, from its first frame to its close code.
//!
//! Everything that can happen is an [`Event`] of one loop: the client speaks or leaves, a page or
//! answers come from the object, time passes. Between two events [`Connection::drive`] sends
//! whatever credit and send buffer allow. Catch-up and tail are the same pages of the same socket.
//!
//! # Invariants
//! - A strict client never gets a data frame more than it granted; nothing is added to a send buffer
//!   that is over its high-water mark but control frames and answers to what the client has sent.
//! - At most one page is held here; the object gets credit for more when it is sent.
//! - Answers are in the order of the appends.
//!
//! # Error semantics
//! [`Ending`] says with which code the client's socket is closed and what it is told before. Appends
//! that are unanswered then may or may not be stored.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use engine::bucket::TokenBucket;
use engine::credit::Credit;
use engine::follow::{Arrived, Follower};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use protocol::cursor::next_cursor;
use protocol::error::{ApiError, ErrorCode};
use protocol::limits::{Limits, SEND_BUFFER_BYTES_MAX, SEND_BUFFER_POLL_MS, WS_ATTACH_MS};
use protocol::live::CLOSE_TRY_LATER;
use protocol::live::calls::Answer;
use protocol::offset::{Offset, OffsetParam};
use protocol::time::UnixMillis;
use protocol::ws::{
    CLOSE_NORMAL, CLOSE_SLOW_READER, CLOSE_UNSUPPORTED, ClientFrame, close_code, server,
};
use worker::Delay;

use super::calls::Calls;
use super::client::{self, Client};
use super::page::Page;
use crate::edge::Target;
use crate::edge::socket::{Arrival, Attached, Socket, attach};
use crate::js;
use crate::metrics::{Level, event};
use crate::request::ReadQuery;

/// Reconnections in a row without a frame in between, before the client is asked to come again.
const RECONNECTS_MAX: u32 = 3;

/// What a connection is opened with.
pub(super) struct Opening {
    /// What is read; its URL without query.
    pub(super) target: Target,
    pub(super) query: ReadQuery,
    /// Why the client may not append, if it may not.
    pub(super) refusal: Option<ApiError>,
    /// When the client has to show again who it is.
    pub(super) judged_until: Option<UnixMillis>,
    pub(super) limits: Limits,
}

/// A reader that was attached for so long did not fail at once.
const STEADY_MS: u64 = 10_000;

/// When a reader is attached anew: by then the object takes its old place for free.
const REATTACH_MS: u64 = WS_ATTACH_MS + 1_000;

/// How long a reader that should be attached anew waits for the answers to its appends.
const REATTACH_PAUSE_MS: u64 = 1_000;

/// How long a batch waits for more appends of a client that sends ahead.
const LINGER_MS: u64 = 0;

/// One connection.
pub(super) struct Connection {
    opening: Opening,
    id: String,
    client: Client,
    reader: Box<Socket>,
    /// Since when the reader is attached, and when it is to be attached anew.
    reader_since: UnixMillis,
    reader_until: UnixMillis,
    /// The life that is read has ended; what was sent of it before is still delivered.
    is_detached: bool,
    reconnects: u32,
    follower: Follower,
    page: Option<Page>,
    /// The end of a closed stream was sent.
    is_finished: bool,
    credit: Credit,
    bucket: TokenBucket,
    calls: Calls,
    /// Since when the send buffer is full.
    full_since: Option<UnixMillis>,
    /// Wakes the loop: soon when the send buffer is full, else when the reader is overdue.
    timer: Option<Timer>,
    /// Wakes the loop when a batch has waited for more appends; then `has_lingered` is set.
    linger: Option<LocalBoxFuture<'static, ()>>,
    has_lingered: bool,
    tally: Tally,
}

struct Timer {
    is_soon: bool,
    delay: LocalBoxFuture<'static, ()>,
}

/// What is told when the connection ends.
#[derive(Default)]
struct Tally {
    data_frames: u64,
    data_bytes: u64,
    grants: u64,
    times_full: u64,
}

/// What can happen.
enum Event {
    Client(client::Event),
    Arrival(Arrival),
    Answers(Vec<Answer>),
    /// The internal socket has ended.
    Detached,
    Time,
}

/// How a connection ends.
pub(super) struct Ending {
    code: u16,
    reason: &'static str,
    error: Option<ApiError>,
}

impl Ending {
    fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, error: None }
    }

    /// The client broke a rule, or the service failed: the error says it.
    fn error(error: ApiError) -> Self {
        let (code, reason) = (close_code(error.code), error.code.as_str());
        Self { code, reason, error: Some(error) }
    }

    fn gone() -> Self {
        let message = "The stream was deleted or has expired.";
        Self::error(ApiError::new(ErrorCode::StreamNotFound, message))
    }

    fn expired() -> Self {
        let message = "Connect again: a token is checked anew at its end, and once an hour.";
        Self::error(ApiError::new(ErrorCode::Unauthorized, message))
    }

    fn failed() -> Self {
        let message = "The stream's connection broke; connect again at the last offset.";
        Self::error(ApiError::new(ErrorCode::Unavailable, message))
    }
}

impl Connection {
    /// The URL of a reader at an offset.
    pub(super) fn url(stream: &str, offset: OffsetParam, has_credit: bool) -> String {
        let credit = if has_credit { "" } else { "&credit=0" };
        format!("{stream}?offset={offset}&live=ws{credit}")
    }

    /// A connection whose reader is attached; tells the client where it stands.
    pub(super) fn open(opening: Opening, client: Client, reader: Box<Socket>) -> Self {
        let limits = &opening.limits;
        let connection = Self {
            id: format!("{:08x}{:08x}", js::random(), js::random()),
            reader_since: js::now(),
            reader_until: js::now().saturating_add_ms(REATTACH_MS),
            is_detached: false,
            reconnects: 0,
            follower: Follower::at(reader.start),
            page: None,
            is_finished: false,
            credit: Credit::open(opening.query.credit),
            bucket: TokenBucket::new(limits.ws_frames_per_minute),
            calls: Calls::new(reader.content_type.clone(), opening.refusal.clone(), limits),
            full_since: None,
            timer: None,
            linger: None,
            has_lingered: false,
            tally: Tally::default(),
            opening,
            client,
            reader,
        };
        connection.log("ws_open", 1, &[]);
        if let Some(left) = connection.credit.left() {
            connection.log("ws_credit", left, &[]);
        }
        if let Some(start) = connection.reader.start {
            let is_tail = connection.reader.tail == Some(start);
            connection.client.send(&connection.control(start, is_tail, false));
        }
        connection
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) {
        let ending = loop {
            let outcome = match self.drive() {
                Ok(()) => {
                    let event = poll_fn(|context| self.poll_event(context)).await;
                    self.handle(event).await
                }
                ended => ended,
            };
            if let Err(ending) = outcome {
                break ending;
            }
        };
        self.end(&ending);
    }

    /// Sends what may be sent: appends to the object, data to the client.
    fn drive(&mut self) -> Result<(), Ending> {
        self.look_at_buffer()?;
        self.send_calls()?;
        self.send_page();
        // What the client does not take now, it is not waited for.
        if self.is_detached && (self.page.is_some() || self.is_finished) {
            return Err(Ending::gone());
        }
        if self.is_finished && self.calls.is_idle() {
            return Err(Ending::new(CLOSE_NORMAL, "the stream is closed"));
        }
        Ok(())
    }

    /// Looks whether a full send buffer has room again.
    fn look_at_buffer(&mut self) -> Result<(), Ending> {
        let Some(since) = self.full_since else { return Ok(()) };
        if self.client.buffered() <= SEND_BUFFER_BYTES_MAX {
            self.full_since = None;
        } else if js::now().saturating_since_ms(since) > self.opening.limits.slow_reader_timeout_ms
        {
            return Err(Ending::new(CLOSE_SLOW_READER, "SLOW_READER"));
        }
        Ok(())
    }

    /// Whether the send buffer takes a frame now.
    fn has_buffer(&mut self) -> bool {
        let buffered = self.client.buffered();
        if buffered <= SEND_BUFFER_BYTES_MAX {
            return true;
        }
        if self.full_since.is_none() {
            self.full_since = Some(js::now());
            self.tally.times_full += 1;
            // A client that is always a little too slow is told of once.
            if self.tally.times_full == 1 {
                self.log("ws_backpressure", buffered, &[]);
            }
        }
        false
    }

    fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// A client that does not read its answers does not get its appends stored either.
    fn send_calls(&mut self) -> Result<(), Ending> {
        if self.calls.is_idle() || self.is_full() || !self.has_buffer() {
            return Ok(());
        }
        // Appends that are refused here make room for others at once.
        loop {
            while let Some(text) = self.calls.release() {
                self.add_append(&text)?;
            }
            let client = &self.client;
            self.calls.tell_refused(&mut |frame| client.send(frame));
            if !self.calls.has_released() {
                break;
            }
        }
        if self.calls.lingers() && !self.has_lingered {
            return Ok(());
        }
        self.has_lingered = false;
        while let Some(batch) = self.calls.next_batch() {
            if !self.reader.send_calls(&batch) {
                return Err(Ending::failed());
            }
        }
        Ok(())
    }

    /// Sends the page that is here, as far as credit and buffer allow, and behind it where it ends.
    fn send_page(&mut self) {
        let Some(mut page) = self.page.take() else { return };
        let (next, up_to_date, closed) = (page.next(), page.head.up_to_date, page.head.closed);
        if page.is_sent() {
            self.client.send(&self.control(next, up_to_date, closed));
        }
        while !page.is_sent() {
            if !self.has_buffer() || !self.credit.take() {
                self.page = Some(page);
                return;
            }
            let is_last = page.is_last();
            let control =
                if is_last { self.control(next, up_to_date, closed) } else { String::new() };
            self.tally.data_frames += 1;
            self.tally.data_bytes += page.send_next(&self.client, &control);
        }
        self.is_finished = closed;
        self.want_more();
    }

    fn control(&self, next: Offset, up_to_date: bool, closed: bool) -> String {
        let cursor = next_cursor(js::now(), self.opening.query.cursor.as_deref(), js::random());
        server::control(&next.to_string(), Some(&cursor), up_to_date, closed)
    }

    /// Gives the object credit if the client could take more.
    fn want_more(&mut self) {
        if self.page.is_none()
            && self.credit.left() != Some(0)
            && let Some(next) = self.follower.next()
        {
            self.reader.grant(next.position);
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        // Answers first: what a client has sent ahead is bounded by them.
        if !self.is_detached
            && let Poll::Ready(answers) = self.reader.poll_answers(context)
        {
            return Poll::Ready(answers.map_or(Event::Detached, Event::Answers));
        }
        if let Poll::Ready(event) = self.client.poll_event(context) {
            return Poll::Ready(Event::Client(event));
        }
        if self.page.is_none()
            && !self.is_finished
            && let Poll::Ready(arrival) = self.reader.poll_next(context)
        {
            return Poll::Ready(Event::Arrival(arrival));
        }
        if self.poll_linger(context).is_ready() {
            return Poll::Ready(Event::Time);
        }
        self.poll_timer(context).map(|()| Event::Time)
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.calls.lingers() || self.is_full() {
            self.linger = None;
            return Poll::Pending;
        }
        let begin = || Delay::from(Duration::from_millis(LINGER_MS)).boxed_local();
        let linger = self.linger.get_or_insert_with(begin);
        if linger.poll_unpin(context).is_pending() {
            return Poll::Pending;
        }
        self.linger = None;
        self.has_lingered = true;
        Poll::Ready(())
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_soon = self.is_full();
        let until =
            self.opening.judged_until.map_or(self.reader_until, |at| at.min(self.reader_until));
        let set = || {
            let left_ms = until.saturating_since_ms(js::now());
            let ms = if is_soon { SEND_BUFFER_POLL_MS } else { left_ms.max(SEND_BUFFER_POLL_MS) };
            Timer { is_soon, delay: Delay::from(Duration::from_millis(ms)).boxed_local() }
        };
        let mut timer =
            self.timer.take().filter(|timer| timer.is_soon == is_soon).unwrap_or_else(set);
        let outcome = timer.delay.poll_unpin(context);
        self.timer = Some(timer).filter(|_| outcome.is_pending());
        outcome
    }

    async fn handle(&mut self, event: Event) -> Result<(), Ending> {
        match event {
            Event::Client(event) => self.on_client(event),
            Event::Arrival(Arrival::Frame(head, bytes)) => match self.follower.take(&head) {
                Arrived::Fresh { repeated } => {
                    self.reconnects = 0;
                    if self.follower.next() != Some(head.next_offset()) {
                        // It lies before where the client stands: nothing to tell.
                        return Ok(());
                    }
                    let is_json = self.reader.content_type.is_json();
                    self.page = Some(Page::new(head, &bytes, repeated, is_json));
                    Ok(())
                }
                Arrived::Gap => self.reconnect().await,
            },
            Event::Arrival(Arrival::Gone) => Err(Ending::gone()),
            Event::Detached if self.reader.is_gone() => {
                self.is_detached = true;
                Ok(())
            }
            Event::Arrival(Arrival::Ended) if self.reader.is_gone() => Err(Ending::gone()),
            Event::Arrival(Arrival::Ended) | Event::Detached => self.reconnect().await,
            Event::Answers(answers) => {
                let client = &self.client;
                self.calls.answered(&answers, &mut |frame| client.send(frame));
                Ok(())
            }
            Event::Time if self.opening.judged_until.is_some_and(|at| at <= js::now()) => {
                Err(Ending::expired())
            }
            Event::Time if self.reader_until > js::now() => Ok(()),
            Event::Time if self.calls.has_unanswered() => {
                self.reader_until = js::now().saturating_add_ms(REATTACH_PAUSE_MS);
                Ok(())
            }
            Event::Time => self.reconnect().await,
        }
    }

    fn on_client(&mut self, event: client::Event) -> Result<(), Ending> {
        match event {
            client::Event::Text(text) => self.on_text(text),
            client::Event::Binary => {
                let message = "The frame is binary; clients send text.";
                let error = ApiError::new(ErrorCode::InvalidFrame, message);
                Err(Ending { code: CLOSE_UNSUPPORTED, ..Ending::error(error) })
            }
            client::Event::TooLarge => {
                let max = self.opening.limits.ws_message_bytes_max;
                let message = format!("The message is larger than {max} bytes.");
                Err(Ending::error(ApiError::new(ErrorCode::MessageTooLarge, message)))
            }
            client::Event::Closed => Err(Ending::new(CLOSE_NORMAL, "the client closed")),
            client::Event::Overflow => {
                let message = "More appends wait for their answers than can be kept.";
                Err(Ending::error(ApiError::new(ErrorCode::TooManyUnacked, message)))
            }
            client::Event::Broken => Err(Ending::new(CLOSE_NORMAL, "the connection broke")),
        }
    }

    fn on_text(&mut self, text: String) -> Result<(), Ending> {
        match ClientFrame::parse(&text).map_err(|refusal| Ending::error(refusal.error))? {
            ClientFrame::Credit(more) => self.on_credit(more),
            ClientFrame::Append(frame) if self.calls.has_room() && !self.is_full() => {
                let bytes = text.len() as u64;
                self.calls.add(*frame, bytes).map_err(Ending::error)
            }
            ClientFrame::Append(_) => self.calls.hold(text).map_err(Ending::error),
        }
    }

    /// An append that has waited; it was read before.
    fn add_append(&mut self, text: &str) -> Result<(), Ending> {
        match ClientFrame::parse(text).map_err(|refusal| Ending::error(refusal.error))? {
            ClientFrame::Append(frame) => {
                self.calls.add(*frame, text.len() as u64).map_err(Ending::error)
            }
            ClientFrame::Credit(_) => Ok(()),
        }
    }

    fn on_credit(&mut self, more: u64) -> Result<(), Ending> {
        if !self.bucket.take(js::now()) {
            let message = "The client sends more frames than it may in a minute.";
            return Err(Ending::error(ApiError::new(ErrorCode::RateLimited, message)));
        }
        let was_strict = self.credit.is_strict();
        self.credit.grant(more).map_err(|overflow| {
            let message = format!("The credit is too much: {overflow}.");
            Ending::error(ApiError::new(ErrorCode::InvalidCredit, message))
        })?;
        self.tally.grants += 1;
        if !was_strict {
            self.log("ws_credit", more, &[]);
        }
        self.want_more();
        Ok(())
    }

    /// Attaches the reader again where it stands.
    async fn reconnect(&mut self) -> Result<(), Ending> {
        if self.calls.has_unanswered() {
            return Err(Ending::failed());
        }
        let Some(next) = self.follower.next() else { return Err(Ending::failed()) };
        let failure = self.reader.failure().cloned();
        if js::now().saturating_since_ms(self.reader_since) > STEADY_MS {
            self.reconnects = 0;
        }
        self.reconnects += 1;
        if self.reconnects > RECONNECTS_MAX {
            return Err(failure.map_or_else(Ending::failed, Ending::error));
        }
        let has_credit = self.credit.left() != Some(0);
        let target = &self.opening.target;
        let url = Self::url(&target.url, OffsetParam::At(next), has_credit);
        let attached = attach(&target.at(url), has_credit).await;
        match attached.map_err(|failure| Ending::error(failure.error))? {
            Attached::Reader(reader) => {
                self.reader = reader;
                self.reader_since = js::now();
                self.reader_until = self.reader_since.saturating_add_ms(REATTACH_MS);
                Ok(())
            }
            // The path has no stream any more, or another one: the offset is not its own, or an
            // anonymous client may not know.
            Attached::Answer(response) => Err(match response.status() {
                400 | 401 | 404 | 410 => Ending::gone(),
                429 => Ending::new(CLOSE_TRY_LATER, "TOO_MANY_READERS"),
                _ => Ending::failed(),
            }),
        }
    }

    fn end(&self, ending: &Ending) {
        if let Some(error) = &ending.error {
            self.client.send(&server::error(error));
        }
        self.client.close(ending.code, ending.reason);
        self.reader.close();
        let code = ending.error.as_ref().map(|error| error.code);
        let is_limit = code.is_some_and(|code| {
            matches!(
                code,
                ErrorCode::InvalidFrame
                    | ErrorCode::InvalidCredit
                    | ErrorCode::RateLimited
                    | ErrorCode::TooManyUnacked
                    | ErrorCode::MessageTooLarge
            )
        });
        let reason = [("reason", ending.reason.into())];
        if is_limit {
            self.log("ws_limit", 1, &reason);
        }
        let Tally { data_frames, data_bytes, grants, times_full } = self.tally;
        let [reason] = reason;
        let details = [
            reason,
            ("code", ending.code.into()),
            ("frames", data_frames.into()),
            ("bytes", data_bytes.into()),
            ("grants", grants.into()),
            ("appends", self.calls.count.into()),
            ("full", times_full.into()),
        ];
        self.log("ws_close", 1, &details);
    }

    fn log(&self, what: &'static str, number: u64, details: &[(&'static str, serde_json::Value)]) {
        let mut all = vec![("connection", self.id.as_str().into())];
        all.extend_from_slice(details);
        let Target { object, trace, env, .. } = &self.opening.target;
        all.extend(trace.iter().map(|trace| ("traceId", trace.trace_id().into())));
        event(env, (Level::Info, what), object, number, &all);
    }
}
