//! The internal socket of a live reader, seen from the edge: frames in, grants out.
//!
//! The object may send what has been granted and not been consumed: one megabyte past the last
//! position that the client has taken. So a slow client stops the reader at the object, and
//! fills no channel on the way.

use engine::cold::Locator;
use engine::log::Blob;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use protocol::content_type::ContentType;
use protocol::headers::name;
use protocol::limits::LIVE_CREDIT_BYTES;
use protocol::live::{CLOSE_STREAM_GONE, Frame, FrameHead, Grant};
use protocol::offset::{Offset, Position};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use worker::{Env, Response, WebSocket};

use super::forward;
use crate::cold::{self, ColdError, ColdRange};
use crate::js;
use crate::object::JsBytes;
use crate::respond::{Failure, internal};

/// What the object answers to a live read.
pub(crate) enum Attached {
    /// A socket that will bring frames.
    Reader(Box<Socket>),
    /// An answer that is complete: an error, or data that was there already.
    Answer(web_sys::Response),
}

/// What arrives on the socket.
pub(crate) enum Arrival {
    /// A range of the log; the bytes are the frame's payload.
    Frame(FrameHead, Vec<u8>),
    /// The stream was deleted or has expired.
    Gone,
    /// The connection ended: by design after the last frame, or broken.
    Ended,
}

/// A connected live reader.
pub(crate) struct Socket {
    socket: WebSocket,
    arrivals: UnboundedReceiver<Arrival>,
    /// A frame that has arrived and whose bytes are being fetched.
    cold: Option<(FrameHead, LocalBoxFuture<'static, Result<JsBytes, ColdError>>)>,
    env: Env,
    _listeners: Listeners,
    /// Up to where the object may send: at first, one window past where the reader began.
    granted: Option<Position>,
    /// The stream's content type.
    pub(crate) content_type: ContentType,
    /// The tail when the reader was attached.
    pub(crate) tail: Option<Offset>,
}

/// Asks the object for a live read of `url`.
pub(crate) async fn attach(url: &str, object: &str, env: &Env) -> Result<Attached, Failure> {
    let broken = |error: JsValue| internal("attaching a reader", &error);
    let init = web_sys::RequestInit::new();
    let headers = web_sys::Headers::new().map_err(broken)?;
    headers.set(name::UPGRADE, "websocket").map_err(broken)?;
    init.set_headers(&headers);
    let request = web_sys::Request::new_with_str_and_init(url, &init).map_err(broken)?;
    let response = forward(&request, object, env).await?;
    if response.status() != 101 {
        return Ok(Attached::Answer(response));
    }
    let response = Response::from(response);
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let content_type = header(name::CONTENT_TYPE).and_then(|text| ContentType::parse(&text).ok());
    let tail = header(name::STREAM_NEXT_OFFSET).and_then(|text| text.parse().ok());
    let Some(socket) = response.websocket() else {
        return Err(broken("an upgrade without a socket".into()));
    };
    let (listeners, arrivals) = listen(&socket).map_err(broken)?;
    let content_type = content_type.unwrap_or_default();
    Ok(Attached::Reader(Box::new(Socket {
        socket,
        arrivals,
        cold: None,
        env: env.clone(),
        _listeners: listeners,
        granted: None,
        content_type,
        tail,
    })))
}

/// Listens to a socket and accepts it, in this order, so that no frame is missed. The listeners
/// must be kept: dropping them ends the arrivals.
fn listen(socket: &WebSocket) -> Result<(Listeners, UnboundedReceiver<Arrival>), JsValue> {
    let (sender, receiver) = unbounded();
    // A receiver that is gone means that nobody reads any more.
    let on_message = {
        let sender = sender.clone();
        Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
            let _ = sender.unbounded_send(arrival_of(&event));
        })
    };
    let on_close = Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
        let code = js_sys::Reflect::get(&event, &"code".into()).ok().and_then(|code| code.as_f64());
        let gone = code == Some(f64::from(CLOSE_STREAM_GONE));
        let _ = sender.unbounded_send(if gone { Arrival::Gone } else { Arrival::Ended });
    });
    let target: js::EventTarget = JsValue::from(socket.as_ref().clone()).unchecked_into();
    target.add_event_listener("message", on_message.as_ref().unchecked_ref())?;
    for ending in ["close", "error"] {
        target.add_event_listener(ending, on_close.as_ref().unchecked_ref())?;
    }
    socket.accept().map_err(|error| JsValue::from_str(&error.to_string()))?;
    Ok((Listeners { target, on_message, on_close }, receiver))
}

fn arrival_of(event: &JsValue) -> Arrival {
    let data = js_sys::Reflect::get(event, &"data".into());
    match data.map(|data| data.dyn_into::<js_sys::ArrayBuffer>()) {
        Ok(Ok(buffer)) => frame_of(&js_sys::Uint8Array::new(&buffer).to_vec()),
        _ => Arrival::Ended,
    }
}

/// The closures that the platform calls.
struct Listeners {
    target: js::EventTarget,
    on_message: Closure<dyn FnMut(JsValue)>,
    on_close: Closure<dyn FnMut(JsValue)>,
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.target.remove_event_listener("message", self.on_message.as_ref().unchecked_ref());
        for ending in ["close", "error"] {
            self.target.remove_event_listener(ending, self.on_close.as_ref().unchecked_ref());
        }
    }
}

fn frame_of(bytes: &[u8]) -> Arrival {
    match Frame::decode(bytes) {
        Ok((head, payload)) => Arrival::Frame(head, payload.to_vec()),
        Err(error) => {
            internal("reading a live frame", &JsValue::from_str(&error.to_string()));
            Arrival::Ended
        }
    }
}

impl Socket {
    /// The next arrival; after [`Arrival::Ended`] there is none. May be dropped and called again
    /// at any time: what is being fetched goes on.
    pub(crate) async fn next(&mut self) -> Arrival {
        if self.cold.is_none() {
            let arrival = self.arrivals.next().await.unwrap_or(Arrival::Ended);
            let Arrival::Frame(head, payload) = arrival else { return arrival };
            if self.granted.is_none() {
                self.granted = Some(head.from.saturating_add_bytes(LIVE_CREDIT_BYTES));
            }
            if !head.cold {
                return Arrival::Frame(head, payload);
            }
            match serde_json::from_slice::<ColdRange>(&payload) {
                Ok(range) => {
                    let (locator, env) = (Locator::from(range), self.env.clone());
                    let fetch = async move { cold::fetch(&locator, &env).await };
                    self.cold = Some((head, fetch.boxed_local()));
                }
                Err(error) => {
                    internal("reading a cold frame", &JsValue::from_str(&error.to_string()));
                    return Arrival::Ended;
                }
            }
        }
        let Some((head, fetch)) = &mut self.cold else { return Arrival::Ended };
        let head = *head;
        let fetched = fetch.await;
        self.cold = None;
        match fetched {
            Ok(bytes) => Arrival::Frame(head, bytes.to_vec()),
            Err(error) => {
                // Logged on the way; the reader connects again and is told what there is to tell.
                let _ = Failure::from(error);
                Arrival::Ended
            }
        }
    }

    /// Tells the object that the client has taken everything before `consumed`.
    pub(crate) fn grant(&mut self, consumed: Position) {
        let up_to = consumed.saturating_add_bytes(LIVE_CREDIT_BYTES);
        let known = self.granted.unwrap_or(up_to);
        let due = up_to.saturating_since_bytes(known) > LIVE_CREDIT_BYTES / 2;
        if due && self.socket.send_with_bytes(Grant { up_to }.encode()).is_ok() {
            self.granted = Some(up_to);
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
