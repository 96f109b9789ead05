//! Listening to a standard socket.

use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use worker::WebSocket;

use crate::js;

/// The closures that the platform calls. Dropping them ends the listening.
pub(crate) struct Listeners {
    target: js::EventTarget,
    on_message: Closure<dyn FnMut(JsValue)>,
    on_end: Closure<dyn FnMut(JsValue)>,
}

/// Events that end a socket.
const ENDS: [&str; 2] = ["close", "error"];

impl Listeners {
    /// Listens to a socket and accepts it, in this order, so that nothing is missed. `on_end` is
    /// called for the close event and for an error.
    pub(crate) fn accept(
        socket: &WebSocket,
        on_message: impl FnMut(JsValue) + 'static,
        on_end: impl FnMut(JsValue) + 'static,
    ) -> Result<Self, JsValue> {
        let target: js::EventTarget = JsValue::from(socket.as_ref().clone()).unchecked_into();
        let (on_message, on_end) = (Closure::new(on_message), Closure::new(on_end));
        let listeners = Self { target, on_message, on_end };
        let Self { target, on_message, on_end } = &listeners;
        target.add_event_listener("message", on_message.as_ref().unchecked_ref())?;
        for end in ENDS {
            target.add_event_listener(end, on_end.as_ref().unchecked_ref())?;
        }
        socket.accept().map_err(|error| JsValue::from_str(&error.to_string()))?;
        Ok(listeners)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.target.remove_event_listener("message", self.on_message.as_ref().unchecked_ref());
        for end in ENDS {
            self.target.remove_event_listener(end, self.on_end.as_ref().unchecked_ref());
        }
    }
}

/// The code of a close event; `None` of an error.
pub(crate) fn close_code(event: &JsValue) -> Option<u16> {
    let code = js_sys::Reflect::get(event, &"code".into()).ok().and_then(|code| code.as_f64());
    code.map(|code| code as u16)
}
