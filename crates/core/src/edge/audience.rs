//! Who asks: a caller whom the edge has let in, or anybody.
//!
//! The edge finds it out and tells the object by an internal header; what an anonymous caller may do,
//! the object decides, which knows whether its stream is public. Every request that the edge makes
//! on behalf of a client carries the client's audience: reconnections of live readers, and second
//! looks for cold bytes.
//!
//! Clients may send the header themselves. It takes rights away and grants none, so there is no need
//! to strip it: such a client is treated as one without a token.

use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;

use crate::request::Headers;

/// Internal header of a request by an anonymous caller. `append.js` has it, too.
pub(crate) const AUDIENCE_HEADER: &str = "x-durable-streams-audience";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Audience {
    /// A caller who may do what the request asks for.
    Authorised,
    /// Anybody: public streams may be read, and nothing else.
    Anonymous,
}

impl Audience {
    /// The audience of a request that has these headers.
    pub(crate) fn of(headers: &Headers) -> Self {
        Self::from_value(headers.get(AUDIENCE_HEADER).as_deref())
    }

    /// The audience that the header's value stands for. An unknown value grants nothing.
    pub(crate) fn from_value(value: Option<&str>) -> Self {
        if value.is_some() { Self::Anonymous } else { Self::Authorised }
    }

    /// The word in keys under which answers are shared.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Authorised => "authorised",
            Self::Anonymous => "anonymous",
        }
    }

    /// Marks a request to an object. The headers must not be those of a request that came in, which
    /// cannot be changed. A mark that the client has set stays.
    pub(crate) fn mark(self, headers: &web_sys::Headers) -> Result<(), JsValue> {
        match self {
            Self::Authorised => Ok(()),
            Self::Anonymous => headers.set(AUDIENCE_HEADER, "anonymous"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_takes_rights_away() {
        assert_eq!(Audience::from_value(None), Audience::Authorised);
        for value in ["anonymous", "", "authorised", "anonymous, authorised"] {
            assert_eq!(Audience::from_value(Some(value)), Audience::Anonymous, "{value}");
        }
    }
}
