//! JSON mode: from a request body to the bytes of the log (PROTOCOL.md §9.1).
//!
//! A body is one JSON value, or an array whose elements are messages of their own. In the log
//! every message is its own text without surrounding white space, followed by `,\n`:
//!
//! ```text
//! body   [ {"a": 1},\r\n [2, 3] ]
//! log    {"a": 1},\n[2, 3],\n
//! ```
//!
//! A raw `\n` therefore ends a message and stands nowhere else: inside a message, raw CR and LF
//! are legal only as white space, and become spaces. Any range of the log that ends behind a `\n`
//! is a JSON array once it loses its last two bytes and gains brackets.
//!
//! **Invariants.** The text of a message is not changed in any other way: numbers keep their
//! digits, strings their escapes, objects their order and their repeated keys. Framing what was
//! read from the log gives the same bytes.
//!
//! **Error semantics.** A body is framed as a whole or refused with the position of the first
//! fault; a body that is not UTF-8 is refused for that before anything else.
//!
//! **What stays out.** Values: there is no tree, and nothing asks what a message says. Whether an
//! empty array is allowed (PROTOCOL.md §9.1.3) is the caller's to decide.

mod scanner;
#[cfg(test)]
mod tests;

use std::fmt;

use scanner::Scanner;

/// The messages of one body as they stand in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// Each message followed by `,\n`. At most one and a half times as long as the body, plus two
    /// bytes.
    pub wire: Vec<u8>,
    /// How many messages; 0 for an empty array.
    pub messages: u64,
}

/// Validates `body` as RFC 8259 JSON and frames its messages.
///
/// One top-level array level is flattened. The body is UTF-8 without a byte order mark; escapes of
/// lone surrogates are legal JSON and kept. Time is linear in the body, the stack does not grow
/// with its nesting.
///
/// # Errors
/// [`JsonError`], see its variants.
pub fn frame_messages(body: &[u8]) -> Result<Framed, JsonError> {
    if let Err(error) = std::str::from_utf8(body) {
        return Err(JsonError::Invalid {
            position: error.valid_up_to(),
            kind: JsonErrorKind::NotUtf8,
        });
    }
    Scanner::new(body).frame()
}

/// The position behind the last message that ends in `bytes`; `None` when none does. `bytes` is a
/// part of the log of a JSON stream.
#[must_use]
pub fn scan_boundary_back(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1)
}

/// The position behind the `n`-th message that ends in `bytes`, counted from 1; 0 for `n` = 0,
/// `None` when fewer end there. `bytes` is a part of the log of a JSON stream.
#[must_use]
pub fn nth_message_end(bytes: &[u8], n: u64) -> Option<usize> {
    let Some(others) = n.checked_sub(1) else {
        return Some(0);
    };
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.nth(usize::try_from(others).ok()?).map(|(last, _)| last + 1)
}

/// Why a body cannot be framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// The body is empty or only white space.
    Empty,
    /// The body is no JSON text, or nested too deeply.
    Invalid {
        /// Bytes of the body before the fault.
        position: usize,
        /// What is wrong there.
        kind: JsonErrorKind,
    },
}

/// What is wrong at a position of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonErrorKind {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The body begins with a byte order mark.
    ByteOrderMark,
    /// The body ends inside a value.
    UnexpectedEnd,
    /// A value, key, separator or closing bracket should stand here.
    UnexpectedByte,
    /// A raw control character inside a string.
    ControlCharacter,
    /// A backslash without a valid escape behind it.
    InvalidEscape,
    /// A number without a digit where one is due.
    InvalidNumber,
    /// More than [`crate::limits::JSON_DEPTH_MAX`] open containers.
    TooDeep,
    /// Something follows the value.
    TrailingData,
}

impl JsonErrorKind {
    /// The fault in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotUtf8 => "invalid UTF-8",
            Self::ByteOrderMark => "a byte order mark",
            Self::UnexpectedEnd => "an unexpected end",
            Self::UnexpectedByte => "an unexpected character",
            Self::ControlCharacter => "a control character inside a string",
            Self::InvalidEscape => "an invalid escape",
            Self::InvalidNumber => "an invalid number",
            Self::TooDeep => "too many nested arrays and objects",
            Self::TrailingData => "data after the end of the value",
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the body holds no JSON value"),
            Self::Invalid { position, kind } => {
                write!(f, "the body is not valid JSON: {} at byte {position}", kind.as_str())
            }
        }
    }
}

impl std::error::Error for JsonError {}
