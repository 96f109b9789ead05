//! The few platform calls that the `worker` crate does not bind, and shorthands for JavaScript.

use protocol::time::UnixMillis;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `ctx.storage`, with the calls that have to run in the middle of a decision.
    #[derive(Clone)]
    pub type Storage;

    /// The object's SQLite.
    #[wasm_bindgen(method, getter)]
    pub fn sql(this: &Storage) -> Sql;

    /// Runs `body` as one transaction: what it throws rolls it back, and is thrown on.
    #[wasm_bindgen(method, catch, js_name = transactionSync)]
    pub fn transaction_sync(
        this: &Storage,
        body: &mut dyn FnMut() -> Result<JsValue, JsValue>,
    ) -> Result<JsValue, JsValue>;

    /// Sets the one alarm, in milliseconds since 1970; what was set before is replaced.
    #[wasm_bindgen(method, catch, js_name = setAlarm)]
    pub fn set_alarm(this: &Storage, at_ms: f64) -> Result<js_sys::Promise, JsValue>;

    /// Resolves when everything written so far is on disk.
    #[wasm_bindgen(method, catch)]
    pub fn sync(this: &Storage) -> Result<js_sys::Promise, JsValue>;

    /// The `ctx` of an object.
    pub type ObjectState;

    /// Throws when the object has as many sockets as the platform allows.
    #[wasm_bindgen(method, catch, js_name = acceptWebSocket)]
    pub fn accept_web_socket(
        this: &ObjectState,
        socket: &web_sys::WebSocket,
    ) -> Result<(), JsValue>;

    /// `ctx.storage.sql`.
    #[derive(Clone)]
    pub type Sql;

    /// Runs a statement.
    #[wasm_bindgen(method, catch, variadic)]
    pub fn exec(this: &Sql, query: &str, params: &js_sys::Array) -> Result<SqlCursor, JsValue>;

    /// Result of a statement.
    pub type SqlCursor;

    /// Its rows, without the names of the columns.
    #[wasm_bindgen(method, catch)]
    pub fn raw(this: &SqlCursor) -> Result<SqlRows, JsValue>;

    /// Iterator over rows as arrays of columns.
    pub type SqlRows;

    /// All that are left.
    #[wasm_bindgen(method, catch, js_name = toArray)]
    pub fn to_array(this: &SqlRows) -> Result<js_sys::Array, JsValue>;

    /// A Durable Object namespace.
    #[derive(Clone)]
    pub type Namespace;

    /// The object of that name; it is not called yet.
    #[wasm_bindgen(method, catch, js_name = getByName)]
    pub fn get_by_name(this: &Namespace, name: &str) -> Result<Stub, JsValue>;

    /// A Durable Object's stub.
    pub type Stub;

    /// Sends a request to the object; the promise is one of a response.
    #[wasm_bindgen(method, catch)]
    pub fn fetch(this: &Stub, request: &web_sys::Request) -> Result<js_sys::Promise, JsValue>;

    /// The `ctx` of a request.
    #[derive(Clone)]
    pub type Context;

    /// Keeps the invocation alive until `work` is settled.
    #[wasm_bindgen(method, catch, js_name = waitUntil)]
    pub fn wait_until(this: &Context, work: &js_sys::Promise) -> Result<(), JsValue>;

    /// A promise that is passed on, with callbacks of ours.
    pub type Thenable;

    /// `promise.catch`.
    #[wasm_bindgen(method)]
    pub fn catch(this: &Thenable, callback: &js_sys::Function) -> Thenable;

    /// `promise.then`.
    #[wasm_bindgen(method)]
    pub fn then(this: &Thenable, callback: &js_sys::Function) -> Thenable;

    /// The event of a message.
    pub type MessageEvent;

    /// Text or bytes.
    #[wasm_bindgen(method, getter)]
    pub fn data(this: &MessageEvent) -> JsValue;

    /// What events can be listened to at.
    #[derive(Clone)]
    pub type EventTarget;

    /// `target.addEventListener`.
    #[wasm_bindgen(method, catch, js_name = addEventListener)]
    pub fn add_event_listener(
        this: &EventTarget,
        kind: &str,
        listener: &js_sys::Function,
    ) -> Result<(), JsValue>;

    /// `target.removeEventListener`.
    #[wasm_bindgen(method, js_name = removeEventListener)]
    pub fn remove_event_listener(this: &EventTarget, kind: &str, listener: &js_sys::Function);
}

#[wasm_bindgen(module = "/src/object/append.js")]
extern "C" {
    /// What a request to an object is: [`APPEND`], [`DELIVERY`], or anything else.
    #[wasm_bindgen(js_name = kindOf)]
    pub(crate) fn kind_of(request: &web_sys::Request) -> u8;

    /// Reads a delivery; `take` gets its message, its bytes and the way to answer it, once.
    #[wasm_bindgen(js_name = receiveDelivery)]
    pub(crate) fn receive_delivery(
        request: &web_sys::Request,
        take: &js_sys::Function,
    ) -> js_sys::Promise;

    /// Sends a delivery; the promise is one of a text, or of nothing when the session has the range.
    #[wasm_bindgen(catch, js_name = sendRange)]
    pub(crate) fn send_range(
        streams: &Namespace,
        object: &str,
        message: &str,
        bytes: &js_sys::Uint8Array,
    ) -> Result<js_sys::Promise, JsValue>;

    /// Answers a delivery that the session has.
    #[wasm_bindgen(catch, js_name = answerDelivered)]
    pub(crate) fn answer_delivered(resolve: &js_sys::Function) -> Result<(), JsValue>;

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

/// Of [`kind_of`]: a client's append.
pub(crate) const APPEND: u8 = 1;
/// Of [`kind_of`]: a range for a session.
pub(crate) const DELIVERY: u8 = 2;

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
pub fn ignore(promise: &js_sys::Promise) {
    thread_local! {
        static NOTHING: js_sys::Function = Closure::<dyn Fn(JsValue)>::new(|_| ())
            .into_js_value()
            .unchecked_into();
    }
    let promise: &Thenable = promise.unchecked_ref();
    NOTHING.with(|nothing| promise.catch(nothing));
}

/// The platform's clock. It stands still between I/O in production.
pub fn now() -> UnixMillis {
    UnixMillis(js_sys::Date::now() as u64)
}

/// A random number below 2^32.
pub fn random() -> u64 {
    (js_sys::Math::random() * 4_294_967_296.0) as u64
}

/// What a JavaScript error says.
pub fn message(error: &JsValue) -> String {
    let message = js_sys::Reflect::get(error, &JsValue::from_str("message")).ok();
    message.and_then(|text| text.as_string()).unwrap_or_else(|| format!("{error:?}"))
}
