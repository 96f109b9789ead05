//! Live readers: hibernating sockets of edge requests, and the pump that feeds them.
//!
//! The object sleeps between writes while readers stay connected. What it needs to resume a
//! socket lies in the socket's attachment; an attachment changes only when a grant arrives or the
//! reader leaves or reaches the tail, never per broadcast.
//!
//! Catch-up and live tail are one loop ([`Inner::pump`]): send from the reader's position until
//! credit or tail stops it. A broadcast is that loop for every reader. Every frame names `from`
//! and `to`, so the edge can trim repeats and notice gaps.
//!
//! A waiting long-poll is a reader that gets one frame and is closed.

use std::collections::BTreeMap;

use engine::Missing;
use engine::append::Growth;
use engine::cold::Content;
use engine::log::Blob;
use engine::read::{Dress, Page, ReadError};
use protocol::content_type::ContentType;
use protocol::error::ErrorCode;
use protocol::headers::name;
use protocol::limits::LIVE_CREDIT_BYTES;
use protocol::live::{CLOSE_RECYCLED, CLOSE_STREAM_GONE, FrameHead, Grant};
use protocol::offset::Position;
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue};
use worker::{Response, State, WebSocket, WebSocketPair};

use super::{Answer, Call, Inner, JsBytes};
use crate::cold::ColdRange;
use crate::js;
use crate::request::ReadQuery;
use crate::respond::{Failure, headers_of};

/// How long past its end a reader's connection may still be reported as open.
const OVERDUE_MS: u64 = 5_000;

/// What a reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    /// One frame.
    LongPoll,
    /// Every frame until it is recycled.
    Sse,
}

/// What a socket's attachment holds. Positions are below 2^53, so they survive as numbers.
#[derive(Serialize, Deserialize)]
struct Attachment {
    id: u32,
    kind: Kind,
    /// Next position to send; absent at the tail.
    sent: Option<f64>,
    /// Absolute position up to which bytes may be sent.
    granted: f64,
    /// When the edge will have ended the connection by itself.
    until: f64,
}

/// A connected reader.
struct Reader {
    socket: WebSocket,
    kind: Kind,
    /// Next position to send.
    sent: Position,
    /// Absolute byte credit: nothing from here on may be sent.
    granted: Position,
    /// When the edge will have ended the connection by itself.
    until: UnixMillis,
    /// What the attachment says: the position, or nothing at the tail.
    noted: Option<Position>,
}

/// The readers of the stream, by the ids in their attachments.
#[derive(Default)]
pub(crate) struct Readers {
    by_id: BTreeMap<u32, Reader>,
    next_id: u32,
    /// How many of them are long-polls.
    waiting: u64,
    /// The latest `until` of any reader since there was none: never too early, and that is what
    /// counts for a lifetime that readers defer.
    attached_until: UnixMillis,
}

impl Readers {
    /// Finds the readers that outlived the object's memory. Returns until when one is attached.
    pub(crate) fn restore(&mut self, state: &State, tail: Position) -> UnixMillis {
        for socket in state.get_websockets() {
            let Ok(Some(attachment)) = socket.deserialize_attachment::<Attachment>() else {
                continue;
            };
            self.next_id = self.next_id.max(attachment.id.saturating_add(1));
            let reader = Reader {
                socket,
                kind: attachment.kind,
                sent: attachment.sent.map_or(tail, |sent| Position(sent as u64)),
                granted: Position(attachment.granted as u64),
                until: UnixMillis(attachment.until as u64),
                noted: attachment.sent.map(|sent| Position(sent as u64)),
            };
            self.insert(attachment.id, reader);
        }
        self.attached_until
    }

    fn insert(&mut self, id: u32, reader: Reader) {
        self.attached_until = self.attached_until.max(reader.until);
        self.waiting += u64::from(reader.kind == Kind::LongPoll);
        if let Some(replaced) = self.by_id.insert(id, reader) {
            self.forget(&replaced);
        }
    }

    fn remove(&mut self, id: u32) -> Option<Reader> {
        let removed = self.by_id.remove(&id)?;
        self.forget(&removed);
        Some(removed)
    }

    fn retain(&mut self, mut keep: impl FnMut(u32, &mut Reader) -> bool) {
        let mut waiting = 0;
        self.by_id.retain(|id, reader| {
            let kept = keep(*id, reader);
            waiting += u64::from(kept && reader.kind == Kind::LongPoll);
            kept
        });
        self.waiting = waiting;
        self.note_if_empty();
    }

    fn forget(&mut self, reader: &Reader) {
        self.waiting = self.waiting.saturating_sub(u64::from(reader.kind == Kind::LongPoll));
        self.note_if_empty();
    }

    fn note_if_empty(&mut self) {
        if self.by_id.is_empty() {
            self.attached_until = UnixMillis::default();
        }
    }

    /// Frees the places of readers whose edge connection has ended without a word.
    fn drop_overdue(&mut self, now: UnixMillis) {
        self.retain(|_, reader| {
            let overdue = reader.until.saturating_add_ms(OVERDUE_MS) < now;
            if overdue {
                reader.close(CLOSE_RECYCLED, "overdue");
            }
            !overdue
        });
    }
}

/// What the pump did to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pumped {
    /// It waits for more bytes or more credit.
    Waits,
    /// It is done or broken: forget it.
    Ended,
}

/// Frames of one broadcast, encoded once for all readers that start at the same position.
#[derive(Default)]
struct Frames {
    encoded: Option<(Position, Page<JsBytes>, JsBytes)>,
}

impl Reader {
    fn send(&self, frame: &JsBytes) -> bool {
        let socket: &web_sys::WebSocket = self.socket.as_ref();
        socket.send_with_js_u8_array(frame.array()).is_ok()
    }

    fn close(&self, code: u16, reason: &str) {
        // A socket that is gone already needs no closing.
        let _ = self.socket.close(Some(code), Some(reason));
    }

    fn note(&mut self, id: u32, noted: Option<Position>) {
        self.noted = noted;
        let attachment = Attachment {
            id,
            kind: self.kind,
            sent: noted.map(|sent| sent.0 as f64),
            granted: self.granted.0 as f64,
            until: self.until.0 as f64,
        };
        // A closed socket has no use for an attachment.
        let _ = self.socket.serialize_attachment(attachment);
    }
}

impl Inner {
    /// GET with `live=sse`: attaches a reader at the offset and sends what there is.
    pub(crate) fn attach_sse(&self, call: &Call, query: &ReadQuery) -> Result<Answer, Failure> {
        let now = js::now();
        let (from, tail, content_type) = self.with_stream(|stream| {
            let from = stream.locate(query.offset, now)?;
            let (tail, _, content_type) = stream.tail(now)?;
            let tail = stream.offset_of(tail).map(|offset| offset.to_string());
            Ok::<_, Failure>((from, tail.unwrap_or_default(), content_type))
        })??;
        let lifetime_ms = self.config()?.limits.sse_lifetime_ms;
        self.attach(
            call,
            Kind::Sse,
            from,
            (&tail, &content_type),
            now.saturating_add_ms(lifetime_ms),
        )
    }

    /// A long-poll at the tail of an open stream: attaches a reader that waits for one frame.
    pub(crate) fn attach_long_poll(
        &self,
        call: &Call,
        page: &Page<JsBytes>,
        content_type: &ContentType,
    ) -> Result<Answer, Failure> {
        let until = js::now().saturating_add_ms(self.config()?.limits.long_poll_timeout_ms);
        self.attach(call, Kind::LongPoll, page.from, (&page.next.to_string(), content_type), until)
    }

    fn attach(
        &self,
        call: &Call,
        kind: Kind,
        from: Position,
        (tail, content_type): (&str, &ContentType),
        until: UnixMillis,
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
        self.state.accept_web_socket(&server);
        let granted = from.saturating_add_bytes(LIVE_CREDIT_BYTES);
        let noted = Some(from);
        let mut reader = Reader { socket: server, kind, sent: from, granted, until, noted };
        let id = self.readers.try_borrow_mut().map_or(0, |mut readers| {
            readers.next_id = readers.next_id.saturating_add(1);
            readers.next_id
        });
        let greeted = kind == Kind::LongPoll;
        reader.note(id, noted.filter(|_| !greeted));
        if self.pump(id, &mut reader, &mut Frames::default(), greeted) == Pumped::Waits
            && let Ok(mut readers) = self.readers.try_borrow_mut()
        {
            readers.insert(id, reader);
        }
        self.note_attached()?;
        let headers = [
            (name::CONTENT_TYPE, content_type.as_str().to_owned().into()),
            (name::STREAM_NEXT_OFFSET, tail.to_owned().into()),
        ];
        let headers = headers_of(&headers)
            .map_err(|error| crate::respond::internal("attaching a reader", &error))?;
        let response = Response::from_websocket(client)
            .map_err(|_| Failure::new(ErrorCode::Internal, "No socket could be handed out."))?;
        Ok(Answer::Socket(response.with_headers(headers)))
    }

    fn check_capacity(&self, kind: Kind) -> Result<(), Failure> {
        let limits = &self.config()?.limits;
        let Ok(mut readers) = self.readers.try_borrow_mut() else { return Ok(()) };
        let full = |readers: &Readers| {
            readers.by_id.len() as u64 >= limits.readers_max
                || (kind == Kind::LongPoll && readers.waiting >= limits.waiters_max)
        };
        if full(&readers) {
            readers.drop_overdue(js::now());
        }
        if full(&readers) {
            let message = "The stream has as many live readers as it can serve.";
            return Err(
                Failure::new(ErrorCode::TooManyReaders, message).header(name::RETRY_AFTER, "1")
            );
        }
        Ok(())
    }

    /// Tells the engine until when readers are attached: they defer a sliding lifetime.
    fn note_attached(&self) -> Result<(), Failure> {
        let until = self.readers.try_borrow().map(|readers| readers.attached_until);
        self.with_stream(|stream| stream.set_attached_until(until.unwrap_or_default()))
    }

    /// Feeds every reader after the log has grown.
    pub(crate) fn broadcast(&self, _growth: Growth) {
        let Ok(mut readers) = self.readers.try_borrow_mut() else { return };
        if readers.by_id.is_empty() {
            return;
        }
        let mut frames = Frames::default();
        readers.retain(|id, reader| self.pump(id, reader, &mut frames, true) == Pumped::Waits);
    }

    /// Sends from the reader's position until credit or tail stops it. `greeted`: whether a
    /// reader at the tail knows that it is there; if not, it gets a frame without bytes.
    fn pump(&self, id: u32, reader: &mut Reader, frames: &mut Frames, greeted: bool) -> Pumped {
        let mut greeted = greeted;
        loop {
            if reader.sent >= reader.granted {
                if reader.noted != Some(reader.sent) {
                    reader.note(id, Some(reader.sent));
                }
                return Pumped::Waits;
            }
            let (page, frame) = match self.frame(reader.sent, frames) {
                Ok(framed) => framed,
                Err(code) => {
                    reader.close(code, "the stream cannot be read");
                    return Pumped::Ended;
                }
            };
            let news = page.to > page.from || page.closed;
            if (news || !greeted) && !reader.send(&frame) {
                return Pumped::Ended;
            }
            reader.sent = page.to;
            greeted = true;
            if page.closed || (news && reader.kind == Kind::LongPoll) {
                reader.close(1000, "done");
                return Pumped::Ended;
            }
            if page.up_to_date {
                if reader.noted.is_some() {
                    reader.note(id, None);
                }
                return Pumped::Waits;
            }
        }
    }

    /// The page at a position and its encoding, or the code that the reader is closed with: gone
    /// for good, or to come again.
    fn frame(&self, from: Position, frames: &mut Frames) -> Result<(Page<JsBytes>, JsBytes), u16> {
        if let Some((at, page, frame)) = &frames.encoded
            && *at == from
        {
            return Ok((page.clone(), frame.clone()));
        }
        let config = self.config().map_err(|_| CLOSE_RECYCLED)?;
        let chunk = config.limits.read_chunk_bytes.min(LIVE_CREDIT_BYTES);
        let page = self.with_stream(|stream| stream.page(from, chunk, Dress::Wire, js::now()));
        let page = page.map_err(|_| CLOSE_RECYCLED)?.map_err(|error| match error {
            ReadError::Missing(Missing::Log(_)) => CLOSE_RECYCLED,
            _ => CLOSE_STREAM_GONE,
        })?;
        let head = FrameHead {
            from: page.from,
            to: page.to,
            generation: page.next.generation,
            up_to_date: page.up_to_date,
            closed: page.closed,
            cold: matches!(page.content, Content::Cold(_)),
        };
        let payload = match &page.content {
            Content::Hot(bytes) => bytes.clone(),
            Content::Cold(locator) => {
                let range = ColdRange::from(locator.clone());
                JsBytes::from_vec(serde_json::to_vec(&range).unwrap_or_default())
            }
        };
        let frame = JsBytes::concat(&[JsBytes::from_vec(head.encode().to_vec()), payload]);
        frames.encoded = Some((from, page.clone(), frame.clone()));
        Ok((page, frame))
    }

    /// A grant of the edge.
    pub(crate) fn on_message(&self, socket: &WebSocket, message: &JsValue) {
        // Loads the stream, and with it the readers, if the object has slept.
        let _ = self.with_stream(|_| ());
        let Some(bytes) = message.dyn_ref::<js_sys::ArrayBuffer>() else { return };
        let Ok(grant) = Grant::decode(&js_sys::Uint8Array::new(bytes).to_vec()) else { return };
        let Ok(Some(attachment)) = socket.deserialize_attachment::<Attachment>() else { return };
        let Some(mut reader) = self.take_reader(attachment.id) else { return };
        reader.granted = reader.granted.max(grant.up_to);
        reader.note(attachment.id, reader.noted);
        let pumped = self.pump(attachment.id, &mut reader, &mut Frames::default(), true);
        if pumped == Pumped::Waits
            && let Ok(mut readers) = self.readers.try_borrow_mut()
        {
            readers.insert(attachment.id, reader);
        }
    }

    /// A reader's socket has closed.
    pub(crate) fn on_close(&self, socket: &WebSocket) {
        let _ = self.with_stream(|_| ());
        if let Ok(Some(attachment)) = socket.deserialize_attachment::<Attachment>() {
            self.take_reader(attachment.id);
            let until = UnixMillis(attachment.until as u64);
            // A stream that is gone has no lifetime to defer.
            let _ = self.with_stream(|stream| stream.reader_left(until, js::now()));
        }
        // Answers the closing handshake; a socket that is gone needs none.
        let _ = socket.close(Some(1000), Some("closed"));
        let _ = self.note_attached();
    }

    fn take_reader(&self, id: u32) -> Option<Reader> {
        self.readers.try_borrow_mut().ok()?.remove(id)
    }

    /// Sends every reader away: the life that they read has ended.
    pub(crate) fn dismiss_readers(&self) {
        let Ok(mut readers) = self.readers.try_borrow_mut() else { return };
        readers.retain(|_, reader| {
            reader.close(CLOSE_STREAM_GONE, "the stream is gone");
            false
        });
    }
}
