//! Live readers as hibernating sockets.
//!
//! The object sleeps between writes while readers stay connected. What it needs to resume a reader
//! lies in the socket's attachment, as the engine's [`Note`]. Who is fed when is the engine's
//! [`Readers`]; here are the sockets, the frames, and the turns: a broadcast to many readers is cut
//! into turns, between which appends are committed.
//!
//! A waiting long-poll is a reader that gets one frame and is closed. A WebSocket client's socket
//! also brings its appends: see [`super::calls`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use engine::Missing;
use engine::append::Growth;
use engine::cold::Content;
use engine::follow::granted;
use engine::log::Blob;
use engine::read::{Dress, ReadError};
use engine::readers::{Attach, Budget, Ending, Framed, Kind, Note, Outlet, Room, Turn};
use protocol::content_type::ContentType;
use protocol::error::ErrorCode;
use protocol::headers::name;
use protocol::limits::{BROADCAST_BATCH, BROADCAST_BYTES, LIVE_CREDIT_BYTES, WS_ATTACH_MS};
use protocol::live::{
    CLOSE_RECYCLED, CLOSE_STREAM_GONE, FRAME_HEAD_BYTES, FrameHead, Grant, TAG_CALLS,
};
use protocol::offset::{Offset, Position};
use protocol::stats::ReaderStats;
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue};
use worker::{Delay, Response, WebSocket, WebSocketPair};

use super::verbs::ReadPage;
use super::{Answer, Call, Inner, JsBytes};
use crate::cold::ColdRange;
use crate::js;
use crate::request::{Mode, ReadQuery};
use crate::respond::{Failure, headers_of, internal};

/// Internal header of an attached reader: the offset at which it stands.
pub(crate) const READER_OFFSET: &str = "x-reader-offset";

/// Internal header of a live read. Of an answer: present if it may be given to those who ask later,
/// see [`engine::flights::stays_true`], and nothing ends the life of the stream early. Of an attached
/// reader: present if nothing does.
pub(crate) const STREAM_LASTS: &str = "x-stream-lasts";

/// Ids of a new instance's readers begin this far apart for each millisecond, so that they lie above
/// those of every earlier instance.
const IDS_PER_MS: u64 = 1_024;

/// A reader's socket.
pub(crate) struct Socket(pub(crate) WebSocket);

/// The readers of one stream, and whether somebody serves them.
pub(crate) struct Readers {
    pub(crate) map: RefCell<engine::readers::Readers<Socket>>,
    serving: Cell<bool>,
    /// The life of the readers ended while they were being served.
    is_over: Cell<bool>,
}

/// [`Note`] in an attachment. Positions are below 2^53, so they survive as numbers.
#[derive(Serialize, Deserialize)]
struct Attachment {
    id: f64,
    kind: u8,
    sent: Option<f64>,
    granted: f64,
    until: f64,
}

impl From<&Note> for Attachment {
    fn from(note: &Note) -> Self {
        Self {
            id: note.id as f64,
            kind: note.kind as u8,
            sent: note.sent.map(|sent| sent.0 as f64),
            granted: note.granted.0 as f64,
            until: note.until.0 as f64,
        }
    }
}

impl From<Attachment> for Note {
    fn from(attachment: Attachment) -> Self {
        let kinds = [Kind::LongPoll, Kind::Sse, Kind::WebSocket];
        let kind = kinds.into_iter().find(|kind| *kind as u8 == attachment.kind);
        Self {
            id: attachment.id as u64,
            kind: kind.unwrap_or(Kind::Sse),
            sent: attachment.sent.map(|sent| Position(sent as u64)),
            granted: Position(attachment.granted as u64),
            until: UnixMillis(attachment.until as u64),
        }
    }
}

/// The note in a socket's attachment.
fn note_of(socket: &WebSocket) -> Option<Note> {
    socket.deserialize_attachment::<Attachment>().ok().flatten().map(Note::from)
}

impl Outlet for Socket {
    type Frame = JsBytes;

    fn send(&self, frame: &JsBytes) -> bool {
        let socket: &web_sys::WebSocket = self.0.as_ref();
        socket.send_with_js_u8_array(frame.array()).is_ok()
    }

    fn note(&self, note: &Note) {
        // A closed socket has no use for an attachment.
        let _ = self.0.serialize_attachment(Attachment::from(note));
    }

    fn close(self, why: Ending) {
        let (code, reason) = match why {
            Ending::Done => (1000, "done"),
            Ending::Gone => (CLOSE_STREAM_GONE, "the stream is gone"),
            Ending::Again => (CLOSE_RECYCLED, "connect again"),
        };
        // A socket that is gone already needs no closing.
        let _ = self.0.close(Some(code), Some(reason));
    }
}

impl Readers {
    /// Nobody is attached to a new instance, until it looks for those that outlived an earlier one.
    pub(crate) fn new() -> Self {
        let map = engine::readers::Readers::new(js::now().0.saturating_mul(IDS_PER_MS));
        Self { map: map.into(), serving: Cell::new(false), is_over: Cell::new(false) }
    }

    /// Finds the readers that outlived the object's memory. Returns until when one is attached.
    pub(crate) fn restore(&self, state: &worker::State, tail: Position) -> UnixMillis {
        let Ok(mut map) = self.map.try_borrow_mut() else { return UnixMillis::default() };
        for socket in state.get_websockets() {
            if let Some(note) = note_of(&socket) {
                map.restore(Socket(socket), note, tail);
            }
        }
        map.attached_until()
    }

    /// Sends every reader away: the life that they read has ended.
    pub(crate) fn dismiss(&self) {
        match self.map.try_borrow_mut() {
            Ok(mut map) => map.dismiss(Ending::Gone),
            Err(_) => self.is_over.set(true),
        }
    }

    /// How many there are, by what they wait for.
    pub(crate) fn stats(&self) -> ReaderStats {
        let count = |kind| self.map.try_borrow().map_or(0, |map| map.count(kind));
        ReaderStats {
            long_poll: count(Kind::LongPoll),
            sse: count(Kind::Sse),
            web_socket: count(Kind::WebSocket),
        }
    }

    fn attached_until(&self) -> UnixMillis {
        self.map.try_borrow().map_or_else(|_| UnixMillis::default(), |map| map.attached_until())
    }
}

/// Where a reader is to stand.
struct Place {
    from: Position,
    offset: Option<Offset>,
    tail: Option<Offset>,
    content_type: ContentType,
    is_public: bool,
}

impl Inner {
    /// GET with `live=sse` or `live=ws`: attaches a reader at the offset and sends what there is.
    pub(crate) fn attach_follower(
        self: &Rc<Self>,
        call: &Call,
        query: &ReadQuery,
    ) -> Result<Answer, Failure> {
        let now = js::now();
        let place = self.with_stream(|stream| {
            let from = stream.locate(query.offset, now)?;
            let (tail, _, content_type) = stream.tail(now)?;
            let (offset, tail) = (stream.offset_of(from), stream.offset_of(tail));
            let is_public = stream.is_public();
            Ok::<_, Failure>(Place { from, offset, tail, content_type, is_public })
        })??;
        let (kind, lifetime_ms) = match query.mode {
            Mode::WebSocket => (Kind::WebSocket, WS_ATTACH_MS),
            _ => (Kind::Sse, self.config()?.limits.sse_lifetime_ms),
        };
        let until = now.saturating_add_ms(lifetime_ms);
        // A WebSocket client is told at the edge where it stands, and may have granted nothing yet.
        let greeted = kind == Kind::WebSocket;
        let granted = if query.credit == Some(0) { place.from } else { granted(place.from) };
        self.attach(call, &place, (kind, granted, until, greeted))
    }

    /// A long-poll at the tail of an open stream: attaches a reader that waits for one frame.
    pub(crate) fn attach_long_poll(
        self: &Rc<Self>,
        call: &Call,
        ReadPage { page, content_type, is_public }: ReadPage,
    ) -> Result<Answer, Failure> {
        let until = js::now().saturating_add_ms(self.config()?.limits.long_poll_timeout_ms);
        let (from, next) = (page.from, Some(page.next));
        let place = Place { from, offset: next, tail: next, content_type, is_public };
        self.attach(call, &place, (Kind::LongPoll, granted(from), until, true))
    }

    fn attach(
        self: &Rc<Self>,
        call: &Call,
        place: &Place,
        (kind, granted, until, greeted): (Kind, Position, UnixMillis, bool),
    ) -> Result<Answer, Failure> {
        if call.headers.get(name::UPGRADE).is_none() {
            return Err(Failure::new(
                ErrorCode::Internal,
                "A live read reached the object without a socket.",
            ));
        }
        self.check_capacity(kind)?;
        let WebSocketPair { client, server } = WebSocketPair::new()
            .map_err(|_| Failure::new(ErrorCode::Internal, "No socket could be made."))?;
        // Sockets that are closing count with the platform and not with us.
        self.raw_state.accept_web_socket(server.as_ref()).map_err(|_| too_many())?;
        if let Ok(mut map) = self.readers.map.try_borrow_mut() {
            let (outlet, from) = (Socket(server), place.from);
            map.attach(Attach { outlet, kind, from, granted, until, greeted });
        }
        self.serve_readers();
        self.note_attached()?;
        let lasts = if self.with_stream(|stream| stream.lasts())? { "true" } else { "" };
        let text = |offset: Option<Offset>| offset.map(|o| o.to_string()).unwrap_or_default();
        let mut headers = vec![
            (name::CONTENT_TYPE, place.content_type.as_str().to_owned().into()),
            (name::STREAM_NEXT_OFFSET, text(place.tail).into()),
            (READER_OFFSET, text(place.offset).into()),
            (STREAM_LASTS, lasts.into()),
        ];
        if place.is_public {
            headers.push((name::STREAM_PUBLIC, "true".into()));
        }
        let headers =
            headers_of(&headers).map_err(|error| internal("attaching a reader", &error))?;
        let response = Response::from_websocket(client)
            .map_err(|_| Failure::new(ErrorCode::Internal, "No socket could be handed out."))?;
        Ok(Answer::Socket(response.with_headers(headers)))
    }

    fn check_capacity(&self, kind: Kind) -> Result<(), Failure> {
        let limits = &self.config()?.limits;
        let Ok(mut map) = self.readers.map.try_borrow_mut() else { return Ok(()) };
        match map.room(kind, limits.readers_max, limits.waiters_max, js::now()) {
            Room::Free => Ok(()),
            Room::Full => Err(too_many()),
        }
    }

    /// Tells the engine until when readers are attached: they defer a sliding lifetime.
    fn note_attached(&self) -> Result<(), Failure> {
        let until = self.readers.attached_until();
        self.with_stream(|stream| stream.set_attached_until(until))
    }

    /// The log has grown: readers that have everything so far are served.
    pub(crate) fn announce(self: &Rc<Self>, growth: Growth) {
        if let Ok(mut map) = self.readers.map.try_borrow_mut() {
            map.grew(growth.closed);
        }
        self.serve_readers();
    }

    /// Serves the readers that wait for a turn: the first turn at once, and while more wait, one
    /// after the other with a pause in which appends are committed.
    pub(crate) fn serve_readers(self: &Rc<Self>) {
        if self.readers.serving.get() || self.serve_turn() == Turn::Idle {
            return;
        }
        self.readers.serving.set(true);
        let inner = Rc::clone(self);
        self.state.wait_until(async move {
            loop {
                Delay::from(Duration::ZERO).await;
                if inner.serve_turn() == Turn::Idle {
                    break;
                }
            }
            inner.readers.serving.set(false);
        });
    }

    fn serve_turn(&self) -> Turn {
        const BUDGET: Budget = Budget { readers: BROADCAST_BATCH, bytes: BROADCAST_BYTES };
        let Ok(mut map) = self.readers.map.try_borrow_mut() else { return Turn::Idle };
        let until = map.attached_until();
        let turn = map.serve(BUDGET, |from| self.frame(from));
        if self.readers.is_over.take() {
            map.dismiss(Ending::Gone);
            return Turn::Idle;
        }
        let is_last = map.is_empty() && until > UnixMillis::default();
        drop(map);
        if is_last {
            // The last one was answered, or its socket found broken.
            let _ = self.with_stream(|stream| stream.reader_left(until, js::now()));
            let _ = self.note_attached();
        }
        turn
    }

    /// The page at a position as a frame, or how its reader is ended.
    fn frame(&self, from: Position) -> Result<Framed<JsBytes>, Ending> {
        let config = self.config().map_err(|_| Ending::Again)?;
        let chunk = config.limits.read_chunk_bytes.min(LIVE_CREDIT_BYTES);
        let page = self.with_stream(|stream| stream.page(from, chunk, Dress::Wire, js::now()));
        let page = page.map_err(|_| Ending::Again)?.map_err(|error| match error {
            ReadError::Missing(Missing::Log(_)) => Ending::Again,
            _ => Ending::Gone,
        })?;
        let head = FrameHead {
            from: page.from,
            to: page.to,
            generation: page.next.generation,
            up_to_date: page.up_to_date,
            closed: page.closed,
            cold: matches!(page.content, Content::Cold(_)),
        };
        let payload = match page.content {
            Content::Hot(bytes) => bytes,
            Content::Cold(locator) => {
                let range = ColdRange::from(locator);
                JsBytes::from_vec(serde_json::to_vec(&range).unwrap_or_default())
            }
        };
        let size = FRAME_HEAD_BYTES as u64 + payload.len();
        let frame = JsBytes::concat(&[JsBytes::from_vec(head.encode().to_vec()), payload]);
        Ok(Framed { head, size, frame })
    }

    /// A message of the edge: a grant, or the appends of a WebSocket client.
    pub(crate) fn on_message(self: &Rc<Self>, socket: WebSocket, message: &JsValue) {
        // Loads the stream, and with it the readers, if the object has slept.
        if self.with_stream(|_| ()).is_err() {
            // What the message asks for would be lost: the edge has to come again.
            return Socket(socket).close(Ending::Again);
        }
        let Some(buffer) = message.dyn_ref::<js_sys::ArrayBuffer>() else { return };
        let message = JsBytes::new(js_sys::Uint8Array::new(buffer));
        let Some(note) = note_of(&socket) else { return };
        let bytes = message.to_vec();
        if bytes.first() == Some(&TAG_CALLS) {
            return self.on_calls(socket, note.id, &bytes, &message);
        }
        let Ok(grant) = Grant::decode(&bytes) else { return };
        if let Ok(mut map) = self.readers.map.try_borrow_mut() {
            map.grant(note.id, grant.up_to);
        }
        self.serve_readers();
    }

    /// Whether a reader is still attached.
    pub(crate) fn is_attached(&self, id: u64) -> bool {
        self.readers.map.try_borrow().is_ok_and(|map| map.contains(id))
    }

    /// A reader's socket has closed.
    pub(crate) fn on_close(&self, socket: &WebSocket) {
        let _ = self.with_stream(|_| ());
        if let Some(note) = note_of(socket) {
            if let Ok(mut map) = self.readers.map.try_borrow_mut() {
                map.leave(note.id);
            }
            // A stream that is gone has no lifetime to defer.
            let _ = self.with_stream(|stream| stream.reader_left(note.until, js::now()));
        }
        // Answers the closing handshake; a socket that is gone needs none.
        let _ = socket.close(Some(1000), Some("closed"));
        let _ = self.note_attached();
    }
}

fn too_many() -> Failure {
    let message = "The stream has as many live readers as it can serve.";
    Failure::new(ErrorCode::TooManyReaders, message).header(name::RETRY_AFTER, "1")
}
