//! The words of the wire: everything that is written in a URL, a header, a body, an event stream
//! or an internal frame, as types with a parser and a printer.
//!
//! The crate is pure. It reads no clock, draws no random number and does no I/O: time, jitter and
//! configuration come in as values. It compiles natively and for wasm32.
//!
//! **Error semantics.** Input from outside never panics. Each parser has an error type of its own
//! that says what was wrong; which HTTP status it becomes is decided once, at the edge, with
//! [`error::ErrorCode`].
//!
//! **What stays out.** What happens to a stream (crate `engine`), and how requests and sockets of
//! the platform are read and answered (crate `durable-streams-core`).

pub mod body;
pub mod content_type;
pub mod cursor;
pub mod envelope;
pub mod error;
pub mod etag;
pub mod fanout;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod headers;
pub mod health;
pub mod json;
pub mod lifetime;
pub mod limits;
pub mod live;
pub mod name;
pub mod offset;
#[cfg(feature = "schema")]
pub mod openapi;
pub mod percent;
pub mod producer;
pub mod reconcile;
pub mod registry;
pub mod routes;
pub mod sessions;
pub mod sse;
pub mod stats;
pub mod time;
pub mod token;
pub mod trace;
pub mod ws;

mod decimal;
