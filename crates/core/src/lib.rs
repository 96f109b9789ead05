//! Streams on Workers: the stream's Durable Object and the edge in front of it.
//!
//! - [`object`] is [`StreamObject`]: it loads a stream, asks the engine, commits, and only then
//!   answers and wakes readers.
//! - [`edge`] runs where the client is: it finds the object of a path, passes requests on
//!   untouched, and turns the internal socket of a live reader into SSE or long-poll answers.
//! - `request` parses headers into the engine's types; [`respond`] is the one way back.
//! - [`body`], [`call`], [`cold`], [`js`], [`metrics`]: what objects of other kinds need as well.
//!
//! # Invariants
//! Nothing here decides what happens to a stream: that is the engine. Nothing here panics: a trap
//! resets every request of the isolate. No `RefCell` is borrowed across an await.

pub mod body;
pub mod call;
pub mod cold;
pub mod config;
pub mod edge;
pub mod js;
pub mod metrics;
pub mod object;
mod projects;
mod reconcile;
mod registry;
mod request;
pub mod respond;
mod store;
#[cfg(feature = "suite")]
pub mod suite;

pub use object::StreamObject;
