//! The few platform calls that the `worker` crate does not bind, and shorthands for JavaScript.

use protocol::time::UnixMillis;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `ctx.storage`, with the calls that have to run in the middle of a decision.
    #[derive(Clone)]
    pub(crate) type Storage;

    #[wasm_bindgen(method, getter)]
    pub(crate) fn sql(this: &Storage) -> Sql;

    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    pub(crate) fn transaction_sync(
        this: &Storage,
        body: &mut dyn FnMut() -> Result<JsValue, JsValue>,
    ) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch, js_name = setAlarm)]
    pub(crate) fn set_alarm(this: &Storage, at_ms: f64) -> Result<js_sys::Promise, JsValue>;

    #[wasm_bindgen(method, catch)]
    pub(crate) fn sync(this: &Storage) -> Result<js_sys::Promise, JsValue>;

    /// The `ctx` of an object.
    pub(crate) type ObjectState;

    /// Throws when the object has as many sockets as the platform allows.
    #[wasm_bindgen(method, catch, js_name = acceptWebSocket)]
    pub(crate) fn accept_web_socket(
        this: &ObjectState,
        socket: &web_sys::WebSocket,
    ) -> Result<(), JsValue>;

    /// `ctx.storage.sql`.
    #[derive(Clone)]
    pub(crate) type Sql;

    #[wasm_bindgen(method, catch, variadic)]
    pub(crate) fn exec(
        this: &Sql,
        query: &str,
        params: &js_sys::Array,
    ) -> Result<SqlCursor, JsValue>;

    /// Result of a statement.
    pub(crate) type SqlCursor;

    #[wasm_bindgen(method, catch)]
    pub(crate) fn raw(this: &SqlCursor) -> Result<SqlRows, JsValue>;

    /// Iterator over rows as arrays of columns.
    pub(crate) type SqlRows;

    #[wasm_bindgen(method, catch, js_name = toArray)]
    pub(crate) fn to_array(this: &SqlRows) -> Result<js_sys::Array, JsValue>;

    /// A Durable Object namespace.
    #[derive(Clone)]
    pub(crate) type Namespace;

    #[wasm_bindgen(method, catch, js_name = getByName)]
    pub(crate) fn get_by_name(this: &Namespace, name: &str) -> Result<Stub, JsValue>;

    /// A Durable Object's stub.
    pub(crate) type Stub;

    #[wasm_bindgen(method, catch)]
    pub(crate) fn fetch(
        this: &Stub,
        request: &web_sys::Request,
    ) -> Result<js_sys::Promise, JsValue>;

    /// The `ctx` of a request.
    #[derive(Clone)]
    pub(crate) type Context;

    #[wasm_bindgen(method, catch, js_name = waitUntil)]
    pub(crate) fn wait_until(this: &Context, work: &js_sys::Promise) -> Result<(), JsValue>;

    /// A promise that is passed on, with callbacks of ours.
    pub(crate) type Thenable;

    #[wasm_bindgen(method)]
    pub(crate) fn catch(this: &Thenable, callback: &js_sys::Function) -> Thenable;

    #[wasm_bindgen(method)]
    pub(crate) fn then(this: &Thenable, callback: &js_sys::Function) -> Thenable;

    /// The event of a message.
    pub(crate) type MessageEvent;

    #[wasm_bindgen(method, getter)]
    pub(crate) fn data(this: &MessageEvent) -> JsValue;

    /// What events can be listened to at.
    #[derive(Clone)]
    pub(crate) type EventTarget;

    #[wasm_bindgen(method, catch, js_name = addEventListener)]
    pub(crate) fn add_event_listener(
        this: &EventTarget,
        kind: &str,
        listener: &js_sys::Function,
    ) -> Result<(), JsValue>;

    #[wasm_bindgen(method, js_name = removeEventListener)]
    pub(crate) fn remove_event_listener(
        this: &EventTarget,
        kind: &str,
        listener: &js_sys::Function,
    );
}

#[wasm_bindgen(module = "/src/object/append.js")]
extern "C" {
    /// Whether a request to an object is a client's append.
    #[wasm_bindgen(js_name = isAppend)]
    pub(crate) fn is_append(request: &web_sys::Request) -> bool;

    /// The headers of an append: see [`crate::request::AppendHeaderText`].
    #[wasm_bindgen(js_name = appendHeaders)]
    pub(crate) fn append_headers(request: &web_sys::Request) -> String;

    /// Resolves an append's promise; a negative epoch stands for none.
    #[wasm_bindgen(catch, js_name = answerAppend)]
    pub(crate) fn answer_append(
        resolve: &js_sys::Function,
        status: u16,
        next: &str,
        closed: bool,
        epoch: f64,
        seq: f64,
    ) -> Result<(), JsValue>;
}

#[wasm_bindgen(module = "/src/edge/frames.js")]
extern "C" {
    /// All bytes of a message; the first of them are put into `head` as well. `None` for a text.
    #[wasm_bindgen(js_name = takeMessage)]
    pub(crate) fn take_message(event: &JsValue, head: &mut [u8]) -> Option<js_sys::Uint8Array>;

    /// Sends a text frame of head, bytes and tail, and a control frame if there is one: `texts` is
    /// head, tail and control, all ASCII.
    #[wasm_bindgen(catch, js_name = sendText)]
    pub(crate) fn send_text(
        socket: &web_sys::WebSocket,
        texts: &str,
        head_length: u32,
        tail_length: u32,
        bytes: &js_sys::Uint8Array,
    ) -> Result<(), JsValue>;

    /// Sends a binary frame, and a control frame unless that is empty.
    #[wasm_bindgen(catch, js_name = sendBytes)]
    pub(crate) fn send_bytes(
        socket: &web_sys::WebSocket,
        bytes: &js_sys::Uint8Array,
        control: &str,
    ) -> Result<(), JsValue>;
}

/// Lets a promise be rejected without anybody hearing of it.
pub(crate) fn ignore(promise: &js_sys::Promise) {
    thread_local! {
        static NOTHING: js_sys::Function = Closure::<dyn Fn(JsValue)>::new(|_| ())
            .into_js_value()
            .unchecked_into();
    }
    let promise: &Thenable = promise.unchecked_ref();
    NOTHING.with(|nothing| promise.catch(nothing));
}

/// The platform's clock. It stands still between I/O in production.
pub(crate) fn now() -> UnixMillis {
    UnixMillis(js_sys::Date::now() as u64)
}

/// A random number below 2^32.
pub(crate) fn random() -> u64 {
    (js_sys::Math::random() * 4_294_967_296.0) as u64
}

/// What a JavaScript error says.
pub(crate) fn message(error: &JsValue) -> String {
    let message = js_sys::Reflect::get(error, &JsValue::from_str("message")).ok();
    message.and_then(|text| text.as_string()).unwrap_or_else(|| format!("{error:?}"))
}
