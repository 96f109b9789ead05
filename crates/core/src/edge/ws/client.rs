//! The socket of a client: messages in, frames out, and how full its send buffer is.

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use protocol::limits::WS_UNACKED_BYTES_MAX;
use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use wasm_bindgen::prelude::*;
use worker::WebSocket;

use crate::edge::listeners::{Listeners, close_code};
use crate::js::{self, MessageEvent};
use crate::object::JsBytes;

#[wasm_bindgen]
extern "C" {
    /// What `web_sys` does not bind.
    type Buffered;

    /// Bytes that wait to be sent; absent on runtimes before workerd 1.20261117.1.
    #[wasm_bindgen(method, getter, js_name = bufferedAmount)]
    fn buffered_amount(this: &Buffered) -> Option<f64>;
}

/// What a client does.
pub(super) enum Event {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary,
    /// A message of more bytes than allowed; it was not looked at.
    TooLarge,
    /// It closed the socket.
    Closed,
    /// It has sent more than is kept while nobody could look at it.
    Overflow,
    /// The connection broke.
    Broken,
}

/// Bytes of messages that nobody has looked at yet.
type Backlog = Rc<Cell<u64>>;

impl Event {
    /// What it counts for in the backlog: small messages cost more than their text.
    fn bytes(&self) -> u64 {
        const LEAST: u64 = 64;
        match self {
            Self::Text(text) => LEAST.saturating_add(text.len() as u64),
            Self::Binary | Self::TooLarge => LEAST,
            Self::Closed | Self::Overflow | Self::Broken => 0,
        }
    }
}

/// A connected client.
pub(super) struct Client {
    socket: WebSocket,
    events: UnboundedReceiver<Event>,
    backlog: Backlog,
    _listeners: Listeners,
}

impl Client {
    /// Accepts the server's end of a socket.
    pub(super) fn accept(socket: WebSocket, message_bytes_max: u64) -> Result<Self, JsValue> {
        let (sender, events) = unbounded();
        let backlog = Backlog::default();
        let backlog_max = WS_UNACKED_BYTES_MAX.saturating_add(message_bytes_max);
        let on_message = {
            let (sender, backlog) = (sender.clone(), Rc::clone(&backlog));
            move |event: JsValue| {
                if backlog.get() > backlog_max {
                    return;
                }
                let event = event_of(&event, message_bytes_max);
                backlog.set(backlog.get().saturating_add(event.bytes()));
                let is_over = backlog.get() > backlog_max;
                // A receiver that is gone means that nobody reads any more.
                let _ = sender.unbounded_send(if is_over { Event::Overflow } else { event });
            }
        };
        let on_end = move |event: JsValue| {
            let _ = sender.unbounded_send(match close_code(&event) {
                // The platform's word for an end without a closing handshake (RFC 6455 §7.1.5).
                None | Some(1006) => Event::Broken,
                Some(_) => Event::Closed,
            });
        };
        let listeners = Listeners::accept(&socket, on_message, on_end)?;
        Ok(Self { socket, events, backlog, _listeners: listeners })
    }

    /// The next thing that the client does.
    pub(super) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        self.events.poll_next_unpin(context).map(|event| {
            let event = event.unwrap_or(Event::Broken);
            self.backlog.set(self.backlog.get().saturating_sub(event.bytes()));
            event
        })
    }

    /// Whether the runtime tells how full the send buffer is.
    pub(super) fn has_buffered(&self) -> bool {
        self.buffered_amount().is_some()
    }

    /// Bytes in the send buffer.
    pub(super) fn buffered(&self) -> u64 {
        self.buffered_amount().unwrap_or_default() as u64
    }

    fn buffered_amount(&self) -> Option<f64> {
        let socket: &web_sys::WebSocket = self.socket.as_ref();
        socket.unchecked_ref::<Buffered>().buffered_amount()
    }

    /// Sends a text frame. A socket that is broken says so by an event.
    pub(super) fn send(&self, frame: &str) {
        let _ = self.socket.send_with_str(frame);
    }

    /// Sends bytes as a binary frame, then `control` unless it is empty.
    pub(super) fn send_binary(&self, bytes: &JsBytes, control: &str) {
        let _ = js::send_bytes(self.socket.as_ref(), bytes.array(), control);
    }

    /// Sends UTF-8 bytes between two texts as a text frame, then `control` unless it is empty. The
    /// bytes do not enter wasm.
    pub(super) fn send_between(&self, (head, tail): (&str, &str), bytes: &JsBytes, control: &str) {
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let texts = [head, tail, control].concat();
        let (head, tail) = (length(head), length(tail));
        let _ = js::send_text(self.socket.as_ref(), &texts, head, tail, bytes.array());
    }

    /// Closes the socket after what was sent.
    pub(super) fn close(&self, code: u16, reason: &str) {
        // A socket that is closed already needs no closing.
        let _ = self.socket.close(Some(code), Some(reason));
    }
}

fn event_of(event: &JsValue, message_bytes_max: u64) -> Event {
    let data = event.unchecked_ref::<MessageEvent>().data();
    let Some(text) = data.dyn_ref::<js_sys::JsString>() else {
        let bytes = data.dyn_ref::<js_sys::ArrayBuffer>().map_or(0, |data| data.byte_length());
        let is_large = u64::from(bytes) > message_bytes_max;
        return if is_large { Event::TooLarge } else { Event::Binary };
    };
    // Never more bytes than that: what is too large is not copied.
    if u64::from(text.length()) > message_bytes_max {
        return Event::TooLarge;
    }
    let text = String::from(text);
    if text.len() as u64 > message_bytes_max { Event::TooLarge } else { Event::Text(text) }
}
