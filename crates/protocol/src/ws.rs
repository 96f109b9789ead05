//! The frames of a WebSocket between a client and the service, as docs/live.md lists them.
//!
//! [`ClientFrame`] is what a client sends, parsed; [`server`] prints what it gets; [`mod@slices`] cuts
//! a read of the log into the payloads of data frames.
//!
//! **Invariants.** The payload of an append stays the text that the client sent: it is never built
//! into a tree, and its nesting costs no stack. A token that a client hides among its subprotocols
//! is never printed.
//!
//! **Error semantics.** A [`Refusal`] ends the socket: the frame cannot be answered. An append that
//! has an `id` but is wrong otherwise can be, so its error stands in [`AppendFrame::request`].
//! Messages quote nothing that a client sent.
//!
//! **What stays out.** Sizes of messages, rates and credit (crate `engine`), and the socket itself.

mod append;
mod client;
#[cfg(test)]
mod client_tests;
pub mod server;
pub mod slices;

pub use append::{AppendBody, AppendFrame, AppendId, AppendRequest};
pub use client::{ClientFrame, Refusal, parse_credit};
pub use slices::{slices, split_messages};

use crate::error::{ApiError, ErrorCode};
use crate::live::CLOSE_STREAM_GONE;

/// The one subprotocol.
pub const SUBPROTOCOL: &str = "durable-streams.v1";

/// Close code: all of a closed stream was delivered, or the client closed.
pub const CLOSE_NORMAL: u16 = 1000;
/// Close code: the client sent a binary message.
pub const CLOSE_UNSUPPORTED: u16 = 1003;
/// Close code: the client sent a text that is none of its frames.
pub const CLOSE_INVALID_DATA: u16 = 1007;
/// Close code: the client broke a rule of credit, rate or appends.
pub const CLOSE_POLICY: u16 = 1008;
/// Close code: the client sent a message that is too large.
pub const CLOSE_TOO_LARGE: u16 = 1009;
/// Close code: the service failed.
pub const CLOSE_INTERNAL: u16 = 1011;
/// Close code: the client did not read.
pub const CLOSE_SLOW_READER: u16 = crate::live::CLOSE_TRY_LATER;

/// Begins a token that a browser sends as a subprotocol, since it cannot set headers.
const TOKEN_PREFIX: &str = "bearer.";

/// The subprotocol of the answer to a client that offered `offered`, the value of
/// `Sec-WebSocket-Protocol`. `None` when it offered none; tokens do not count.
///
/// # Errors
/// `INVALID_SUBPROTOCOL` when it offered only others.
pub fn choose_subprotocol(offered: Option<&str>) -> Result<Option<&'static str>, ApiError> {
    let names = offered.unwrap_or_default().split(',').map(|name| name.trim_matches([' ', '\t']));
    let mut names = names.filter(|name| !name.is_empty() && !is_token(name)).peekable();
    if names.peek().is_none() {
        return Ok(None);
    }
    if names.any(|name| name == SUBPROTOCOL) {
        return Ok(Some(SUBPROTOCOL));
    }
    let message = format!("None of the offered subprotocols is `{SUBPROTOCOL}`.");
    Err(ApiError::new(ErrorCode::InvalidSubprotocol, message))
}

/// The first token among the subprotocols that a client offers. It may be empty.
#[must_use]
pub fn offered_token(offered: &str) -> Option<&str> {
    let names = offered.split(',').map(|name| name.trim_matches([' ', '\t']));
    names.filter(|name| is_token(name)).find_map(|name| name.get(TOKEN_PREFIX.len()..))
}

/// Whether an entry is a token, in any case of its prefix.
fn is_token(name: &str) -> bool {
    name.get(..TOKEN_PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(TOKEN_PREFIX))
}

/// The close code that goes with an error that ends a socket. A binary message closes with
/// [`CLOSE_UNSUPPORTED`] instead.
#[must_use]
pub const fn close_code(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::InvalidFrame => CLOSE_INVALID_DATA,
        ErrorCode::InvalidCredit
        | ErrorCode::RateLimited
        | ErrorCode::TooManyUnacked
        | ErrorCode::Unauthorized => CLOSE_POLICY,
        ErrorCode::MessageTooLarge => CLOSE_TOO_LARGE,
        ErrorCode::StreamNotFound | ErrorCode::StreamGone => CLOSE_STREAM_GONE,
        _ => CLOSE_INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subprotocols() {
        for (offered, chosen) in [
            (None, None),
            (Some(""), None),
            (Some(" , "), None),
            (Some("bearer.secret"), None),
            (Some("durable-streams.v1"), Some(SUBPROTOCOL)),
            (Some("other, durable-streams.v1"), Some(SUBPROTOCOL)),
            (Some("Bearer.secret,\tdurable-streams.v1 ,x"), Some(SUBPROTOCOL)),
        ] {
            assert_eq!(choose_subprotocol(offered), Ok(chosen), "{offered:?}");
        }
        for offered in ["other", "durable-streams.v2", "Durable-Streams.v1", "bearer.secret, x"] {
            let error = choose_subprotocol(Some(offered)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidSubprotocol);
            assert!(!error.body().contains("secret"));
        }
    }

    #[test]
    fn the_documentation_has_every_close_code() {
        let live = include_str!("../../../docs/live.md");
        for (code, close) in [
            (ErrorCode::InvalidFrame, 1007),
            (ErrorCode::InvalidCredit, 1008),
            (ErrorCode::RateLimited, 1008),
            (ErrorCode::TooManyUnacked, 1008),
            (ErrorCode::MessageTooLarge, 1009),
            (ErrorCode::StreamNotFound, 4404),
        ] {
            assert_eq!(close_code(code), close, "{code}");
            let row = live.lines().find(|line| line.starts_with(&format!("| {close} |")));
            assert!(row.is_some_and(|row| row.contains(&format!("`{code}`"))), "{code}");
        }
        for close in [CLOSE_NORMAL, CLOSE_UNSUPPORTED, CLOSE_INTERNAL, CLOSE_SLOW_READER] {
            assert!(live.contains(&format!("\n| {close} |")), "{close}");
        }
        assert_eq!(close_code(ErrorCode::Unavailable), CLOSE_INTERNAL);
    }
}
