//! A response body that is written bit by bit. The platform takes the bytes from the other end
//! without calling JavaScript, and a write is done when they were taken.

use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// The platform's own transform: what is written is read.
    type IdentityTransformStream;

    #[wasm_bindgen(constructor, catch)]
    fn new() -> Result<IdentityTransformStream, JsValue>;

    #[wasm_bindgen(method, getter)]
    fn readable(this: &IdentityTransformStream) -> web_sys::ReadableStream;

    #[wasm_bindgen(method, getter)]
    fn writable(this: &IdentityTransformStream) -> Writable;

    type Writable;

    #[wasm_bindgen(method, catch, js_name = getWriter)]
    fn get_writer(this: &Writable) -> Result<Writer, JsValue>;

    type Writer;

    #[wasm_bindgen(method, catch)]
    fn write(this: &Writer, chunk: &Uint8Array) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn close(this: &Writer) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn abort(this: &Writer) -> Result<Promise, JsValue>;
}

/// The end that is written.
pub(crate) struct Sink(Writer);

/// Both ends.
pub(crate) fn pipe() -> Result<(Sink, web_sys::ReadableStream), JsValue> {
    let stream = IdentityTransformStream::new()?;
    Ok((Sink(stream.writable().get_writer()?), stream.readable()))
}

impl Sink {
    /// Writes; `true` when the bytes were taken, `false` when nobody takes them any more.
    pub(crate) async fn write(&self, bytes: &[u8]) -> bool {
        match self.0.write(&Uint8Array::from(bytes)) {
            Ok(promise) => JsFuture::from(promise).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Ends the body after what was written.
    pub(crate) fn close(&self) {
        if let Ok(promise) = self.0.close() {
            // A body that nobody reads cannot be ended, and need not be.
            crate::js::ignore(&promise);
        }
    }

    /// Breaks the body off.
    pub(crate) fn abort(&self) {
        if let Ok(promise) = self.0.abort() {
            // As above.
            crate::js::ignore(&promise);
        }
    }
}
