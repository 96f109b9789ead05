//! The internal socket of a live reader, seen from the edge: frames and answers in, grants and
//! appends out.
//!
//! The object may send what has been granted and not been consumed: one megabyte past the last
//! position that the client has taken. So a slow client stops the reader at the object, and
//! fills no channel on the way.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use engine::cold::Locator;
use engine::follow::Window;
use engine::log::Blob;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use protocol::content_type::ContentType;
use protocol::error::ApiError;
use protocol::headers::name;
use protocol::live::calls::{Answer, Answers};
use protocol::live::{CLOSE_STREAM_GONE, FRAME_HEAD_BYTES, FrameHead, TAG_ANSWERS};
use protocol::offset::{Offset, Position};
use wasm_bindgen::JsValue;
use worker::{Env, Response, WebSocket};

use super::cold_frame::ColdFrame;
use super::listeners::{Listeners, close_code};
use super::{Target, forward};
use crate::cold::ColdRange;
use crate::js;
use crate::object::{JsBytes, READER_OFFSET, STREAM_LASTS};
use crate::respond::{Failure, internal};

/// What the object answers to a live read.
pub(crate) enum Attached {
    /// A socket that will bring frames.
    Reader(Box<Socket>),
    /// An answer that is complete: an error, or data that was there already.
    Answer(web_sys::Response),
}

/// What arrives for the reader.
pub(crate) enum Arrival {
    /// A range of the log; the bytes are the frame's payload.
    Frame(FrameHead, JsBytes),
    /// The stream was deleted or has expired.
    Gone,
    /// The connection ended: by design after the last frame, or broken.
    Ended,
}

/// A connected live reader.
pub(crate) struct Socket {
    socket: WebSocket,
    arrivals: UnboundedReceiver<Arrival>,
    answers: UnboundedReceiver<Vec<Answer>>,
    /// Whether the life that is read has ended.
    is_gone: Rc<Cell<bool>>,
    /// Why cold bytes could not be had, if that ended the arrivals.
    failure: Option<ApiError>,
    /// A frame that has arrived and whose bytes are being fetched.
    cold: Option<ColdFrame>,
    env: Env,
    _listeners: Listeners,
    /// Credit of the object: at first, one window past where the reader began.
    window: Window,
    /// The stream's content type.
    pub(crate) content_type: ContentType,
    /// Whether the stream is public.
    pub(crate) is_public: bool,
    /// Where the reader stood when it was attached.
    pub(crate) start: Option<Offset>,
    /// The tail at that time.
    pub(crate) tail: Option<Offset>,
    /// Whether nothing ended the life of the stream early, at that time.
    pub(crate) lasts: bool,
}

/// Asks the object for a live read of the target's URL. `has_credit`: whether the object may send
/// at once.
pub(crate) async fn attach(target: &Target, has_credit: bool) -> Result<Attached, Failure> {
    let Target { url, object, env, .. } = target;
    let broken = |error: JsValue| internal("attaching a reader", &error);
    let init = web_sys::RequestInit::new();
    let headers = web_sys::Headers::new().map_err(broken)?;
    headers.set(name::UPGRADE, "websocket").map_err(broken)?;
    target.mark(&headers).map_err(broken)?;
    init.set_headers(&headers);
    let request = web_sys::Request::new_with_str_and_init(url, &init).map_err(broken)?;
    let response = forward(&request, object, env).await?;
    if response.status() != 101 {
        return Ok(Attached::Answer(response));
    }
    let response = Response::from(response);
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let content_type = header(name::CONTENT_TYPE).and_then(|text| ContentType::parse(&text).ok());
    let offset = |name: &str| header(name).and_then(|text| text.parse::<Offset>().ok());
    let (start, tail) = (offset(READER_OFFSET), offset(name::STREAM_NEXT_OFFSET));
    let is_public = header(name::STREAM_PUBLIC).is_some();
    let lasts = header(STREAM_LASTS).is_some_and(|text| !text.is_empty());
    let from = start.map_or(Position(0), |start| start.position);
    let Some(socket) = response.websocket() else {
        return Err(broken("an upgrade without a socket".into()));
    };
    let is_gone = Rc::new(Cell::new(false));
    let (listeners, arrivals, answers) = listen(&socket, Rc::clone(&is_gone)).map_err(broken)?;
    let content_type = content_type.unwrap_or_default();
    Ok(Attached::Reader(Box::new(Socket {
        socket,
        arrivals,
        answers,
        is_gone,
        failure: None,
        cold: None,
        env: env.clone(),
        _listeners: listeners,
        window: Window::open(from, has_credit),
        content_type,
        is_public,
        start,
        tail,
        lasts,
    })))
}

type Channels = (Listeners, UnboundedReceiver<Arrival>, UnboundedReceiver<Vec<Answer>>);

/// Listens to a socket and accepts it, in this order, so that no frame is missed. The listeners
/// must be kept: dropping them ends the arrivals.
fn listen(socket: &WebSocket, is_gone: Rc<Cell<bool>>) -> Result<Channels, JsValue> {
    let (sender, arrivals) = unbounded();
    let (answer_sender, answers) = unbounded();
    // A receiver that is gone means that nobody reads any more.
    let on_message = {
        let sender = sender.clone();
        let answer_sender = answer_sender.clone();
        move |event: JsValue| deliver(&event, &sender, &answer_sender)
    };
    let on_close = move |event: JsValue| {
        let gone = close_code(&event) == Some(CLOSE_STREAM_GONE);
        is_gone.set(is_gone.get() || gone);
        let _ = sender.unbounded_send(if gone { Arrival::Gone } else { Arrival::Ended });
        answer_sender.close_channel();
    };
    let listeners = Listeners::accept(socket, on_message, on_close)?;
    Ok((listeners, arrivals, answers))
}

/// Puts a message into the channel that it belongs to.
fn deliver(
    event: &JsValue,
    arrivals: &UnboundedSender<Arrival>,
    answers: &UnboundedSender<Vec<Answer>>,
) {
    let unreadable = |error: String| {
        internal("reading a live frame", &JsValue::from_str(&error));
        let _ = arrivals.unbounded_send(Arrival::Ended);
        answers.close_channel();
    };
    let mut head = [0; FRAME_HEAD_BYTES];
    let Some(message) = js::take_message(event, &mut head) else {
        return unreadable("a text".into());
    };
    if head.first() == Some(&TAG_ANSWERS) {
        return match Answers::decode(&message.to_vec()) {
            Ok(list) => {
                let _ = answers.unbounded_send(list);
            }
            Err(error) => unreadable(error.to_string()),
        };
    }
    // The payload stays where it is; only its length is compared.
    let message = JsBytes::new(message);
    let length = message.len();
    match FrameHead::decode(&head, length) {
        Ok(head) => {
            let payload = message.slice(FRAME_HEAD_BYTES as u64..length);
            let _ = arrivals.unbounded_send(Arrival::Frame(head, payload));
        }
        Err(error) => unreadable(error.to_string()),
    }
}

impl Socket {
    /// The next arrival; after [`Arrival::Ended`] there is none. May be dropped and called again
    /// at any time: what is being fetched goes on.
    pub(crate) async fn next(&mut self) -> Arrival {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Socket::next`].
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        if self.cold.is_none() {
            let arrival = match self.arrivals.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(arrival) => arrival.unwrap_or(Arrival::Ended),
            };
            match arrival {
                Arrival::Frame(head, payload) if head.cold => {
                    if !self.fetch(head, &payload) {
                        return Poll::Ready(Arrival::Ended);
                    }
                }
                arrival => return Poll::Ready(arrival),
            }
        }
        let Some(cold) = &mut self.cold else { return Poll::Ready(Arrival::Ended) };
        let Poll::Ready(fetched) = cold.poll(context) else { return Poll::Pending };
        self.cold = None;
        Poll::Ready(match fetched {
            Ok((head, bytes, rest)) => {
                self.cold = rest;
                Arrival::Frame(head, bytes)
            }
            Err(error) => {
                // The reader connects again; if that does not help, this is what it is told.
                self.failure = Some(Failure::from(error).error);
                Arrival::Ended
            }
        })
    }

    /// Begins to fetch the bytes of a cold frame; `false` when it does not say where they are.
    fn fetch(&mut self, head: FrameHead, payload: &JsBytes) -> bool {
        match serde_json::from_slice::<ColdRange>(&payload.to_vec()) {
            Ok(range) => {
                let (locator, content_type) = (Locator::from(range), self.content_type.clone());
                self.cold = Some(ColdFrame::new(head, locator, content_type, self.env.clone()));
                true
            }
            Err(error) => {
                internal("reading a cold frame", &JsValue::from_str(&error.to_string()));
                false
            }
        }
    }

    /// Whether the life that is read has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.get()
    }

    /// Why cold bytes could not be had, if that ended the arrivals.
    pub(crate) fn failure(&self) -> Option<&ApiError> {
        self.failure.as_ref()
    }

    /// The answers to a batch of appends; `None` when the connection has ended.
    pub(crate) fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<Answer>>> {
        self.answers.poll_next_unpin(context)
    }

    /// Sends a batch of appends. `false`: the connection has ended.
    pub(crate) fn send_calls(&self, batch: &[u8]) -> bool {
        self.socket.send_with_bytes(batch).is_ok()
    }

    /// Tells the object that the client has taken everything before `consumed`.
    pub(crate) fn grant(&mut self, consumed: Position) {
        if let Some(grant) = self.window.consumed(consumed) {
            // A socket that has ended says so by itself.
            let _ = self.socket.send_with_bytes(grant.encode());
        }
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        // A socket that is closed already needs no closing.
        let _ = self.socket.close(Some(1000), Some("done"));
    }
}

impl Drop for Socket {
    /// The usual end of a reader whose client has left. Where the platform does not run it, the
    /// object notices at its next write.
    fn drop(&mut self) {
        self.close();
    }
}
