//! SSE (PROTOCOL §5.8): frames of the internal socket as events, until the connection is
//! recycled.
//!
//! The next frame is encoded when the client has taken the one before, and only then does the
//! object get credit for more. A comment every few seconds comes from a timer here, so that a
//! departed client is noticed while the object sleeps. When the internal socket breaks, the reader
//! connects again at its position; frames that repeat are trimmed. A client that takes nothing is
//! let go when its connection would have been recycled.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use engine::follow::{Arrived, Follower};
use engine::log::Blob;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, select_biased};
use protocol::content_type::{ContentType, SseEncoding};
use protocol::cursor::next_cursor;
use protocol::headers::name;
use protocol::limits::SSE_COMMENT_INTERVAL_MS;
use protocol::live::FrameHead;
use protocol::offset::{Offset, Position};
use protocol::sse;
use protocol::time::UnixMillis;
use wasm_bindgen_futures::spawn_local;
use worker::Delay;

use super::Target;
use super::pipe::{Sink, pipe};
use super::socket::{Arrival, Attached, Socket, attach};
use crate::config::Config;
use crate::js;
use crate::request::{ReadQuery, split_url};
use crate::respond::{Body, Failure, Reply, internal};

/// Reconnections in a row without a frame in between, before the client is asked to come again.
const RECONNECTS_MAX: u32 = 3;

/// How long what was written last may take, past the end of a response.
const FAREWELL_MS: u64 = 30_000;

/// One SSE connection.
struct Reader {
    socket: Box<Socket>,
    content_type: ContentType,
    /// Where to connect again, its URL without query, and the client's cursor.
    target: Target,
    cursor: Option<String>,
    /// Where the client stands.
    follower: Follower,
    /// Whether the last control event said that it was up to date.
    up_to_date: bool,
    /// Bytes of a character that the last frame cut off; they precede the next one.
    cut: Vec<u8>,
    until: UnixMillis,
    /// When the next comment is due, or the connection is recycled.
    timer: Option<LocalBoxFuture<'static, ()>>,
    reconnects: u32,
    ended: bool,
}

/// Serves one SSE connection.
pub(crate) async fn serve(
    target: Target,
    query: &ReadQuery,
    judged_until: Option<UnixMillis>,
) -> Result<web_sys::Response, Failure> {
    let lifetime_ms = Config::of(&target.env)?.limits.sse_lifetime_ms;
    let until = js::now().saturating_add_ms(lifetime_ms);
    // A client whose token has ended comes again with another one.
    let until = judged_until.map_or(until, |judged| judged.min(until));
    let socket = match attach(&target, true).await? {
        Attached::Answer(response) => return Ok(response),
        Attached::Reader(socket) => socket,
    };
    let (origin, path, _) = split_url(&target.url);
    let content_type = socket.content_type.clone();
    let is_public = socket.is_public;
    let is_base64 = content_type.sse_encoding() == SseEncoding::Base64;
    let reader = Reader {
        follower: Follower::at(socket.start),
        socket,
        content_type,
        target: target.at(format!("{origin}{path}")),
        cursor: query.cursor.clone(),
        up_to_date: false,
        cut: Vec::new(),
        until,
        timer: None,
        reconnects: 0,
        ended: false,
    };
    let failed = |error| internal("opening an event stream", &error);
    let (sink, body) = pipe().map_err(failed)?;
    spawn_local(reader.run(sink));
    Reply::new(200)
        .header(name::CONTENT_TYPE, "text/event-stream")
        .header(name::CACHE_CONTROL, "no-cache")
        .header_if(is_public, name::STREAM_PUBLIC, "true")
        .header(name::STREAM_CACHE, "bypass")
        .header_if(is_base64, name::STREAM_SSE_DATA_ENCODING, "base64")
        .body(Body::Stream(body))
        .into_response()
        .map_err(failed)
}

impl Reader {
    /// Writes events until the response ends or its client has left.
    async fn run(mut self, sink: Sink) {
        let lifetime_ms = self.until.saturating_since_ms(js::now());
        let after = |ms| Delay::from(Duration::from_millis(ms)).fuse();
        let (mut lifetime, mut patience) = (after(lifetime_ms), after(lifetime_ms + FAREWELL_MS));
        while let Some(chunk) = self.next_chunk().await {
            let mut written = sink.write(chunk).boxed_local().fuse();
            let is_taken = loop {
                select_biased! {
                    is_taken = written => break is_taken,
                    // The client is slow; its place at the stream is free from now on.
                    () = lifetime => self.socket.close(),
                    () = patience => break false,
                }
            };
            // The client has left, or takes nothing.
            if !is_taken {
                self.socket.close();
                return sink.abort();
            }
            if let Some(next) = self.follower.next() {
                // The client has taken what was sent.
                self.socket.grant(next.position);
            }
        }
        self.socket.close();
        sink.close();
    }

    /// The next bytes of the response; `None` ends it.
    async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.ended {
                return None;
            }
            if self.until <= js::now() {
                return self.farewell();
            }
            match poll_fn(|context| self.poll_event(context)).await {
                None if self.until <= js::now() => {}
                None => {
                    let mut comment = Vec::new();
                    sse::comment(&mut comment);
                    return Some(comment);
                }
                Some(Arrival::Frame(head, payload)) => match self.events(head, &payload.to_vec()) {
                    Some(chunk) => return Some(chunk),
                    None => self.reconnect().await?,
                },
                Some(Arrival::Gone) => return None,
                Some(Arrival::Ended) => self.reconnect().await?,
            }
        }
    }

    /// What arrives, or `None` when the timer is due.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Arrival>> {
        if let Poll::Ready(arrival) = self.socket.poll_next(context) {
            return Poll::Ready(Some(arrival));
        }
        let until = self.until;
        let timer = self.timer.get_or_insert_with(|| {
            let left_ms = until.saturating_since_ms(js::now());
            let pause = Duration::from_millis(left_ms.min(SSE_COMMENT_INTERVAL_MS));
            Delay::from(pause).boxed_local()
        });
        if timer.poll_unpin(context).is_pending() {
            return Poll::Pending;
        }
        self.timer = None;
        Poll::Ready(None)
    }

    /// Encodes a frame; `None` when bytes are missing before it.
    fn events(&mut self, head: FrameHead, payload: &[u8]) -> Option<Vec<u8>> {
        let Arrived::Fresh { repeated } = self.follower.take(&head) else { return None };
        let fresh = payload.get(usize::try_from(repeated).ok()?..).unwrap_or_default();
        self.reconnects = 0;
        let mut chunk = Vec::with_capacity(fresh.len() + fresh.len() / 2 + 256);
        let cut = std::mem::take(&mut self.cut);
        let bytes = match cut.is_empty() {
            true => Cow::Borrowed(fresh),
            false => Cow::Owned([cut.as_slice(), fresh].concat()),
        };
        if !bytes.is_empty() {
            self.data_event(&mut chunk, &bytes, &head);
        }
        self.up_to_date = head.up_to_date;
        self.ended = head.closed;
        self.control_event(&mut chunk)?;
        Some(chunk)
    }

    /// Says where the client goes on: before the bytes of a character that were held back.
    fn control_event(&self, chunk: &mut Vec<u8>) -> Option<()> {
        let Offset { generation, position } = self.follower.next()?;
        let position = Position(position.0.saturating_sub(self.cut.len() as u64));
        let next = Offset { generation, position }.to_string();
        let cursor = next_cursor(js::now(), self.cursor.as_deref(), js::random());
        sse::control_event(chunk, &next, Some(&cursor), self.up_to_date, self.ended);
        Some(())
    }

    /// The last event of a response that is recycled: where to go on.
    fn farewell(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        self.control_event(&mut chunk)?;
        self.ended = true;
        Some(chunk)
    }

    fn data_event(&mut self, chunk: &mut Vec<u8>, bytes: &[u8], head: &FrameHead) {
        match self.content_type.sse_encoding() {
            SseEncoding::Json => sse::data_event_json(chunk, bytes),
            SseEncoding::Base64 => sse::data_event_base64(chunk, bytes),
            SseEncoding::Text => {
                // A character that two appends share is sent with the second one.
                let whole = if head.closed { bytes.len() } else { sse::utf8_cut(bytes) };
                let (whole, cut) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
                self.cut = cut.to_vec();
                sse::data_event_text(chunk, whole);
            }
        }
    }

    /// Connects again at the reader's position; `None` when the response has to end.
    async fn reconnect(&mut self) -> Option<()> {
        let next = self.follower.next()?;
        self.reconnects += 1;
        if self.reconnects > RECONNECTS_MAX {
            return None;
        }
        let url = format!("{}?offset={next}&live=sse", self.target.url);
        match attach(&self.target.at(url), true).await {
            Ok(Attached::Reader(socket)) => {
                self.socket = socket;
                Some(())
            }
            Ok(Attached::Answer(_)) | Err(_) => None,
        }
    }
}
