//! For whom a stream's object reads: a caller whose token the edge has checked, or anybody.
//!
//! The mark is an internal header. A client that sends it itself is treated as anonymous, which
//! takes rights away and gives none.

use wasm_bindgen::JsValue;

/// The header, on requests to an object.
pub(crate) const HEADER: &str = "x-durable-streams-audience";

/// Its only value.
const ANONYMOUS: &str = "anonymous";

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// The edge has found that the caller may.
    Authorised,
    /// Nobody has shown a token: only public streams may be read.
    Anonymous,
}

impl Audience {
    /// Marks a request to an object.
    pub(crate) fn mark(self, headers: &web_sys::Headers) -> Result<(), JsValue> {
        match self {
            Self::Authorised => Ok(()),
            Self::Anonymous => headers.set(HEADER, ANONYMOUS),
        }
    }
}
