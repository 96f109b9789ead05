//! The stream state machine: what happens to a stream, and nothing else.
//!
//! Time, randomness and requests come in as values; replies and the rows to commit go out. The
//! engine never sees Workers: the same code runs in unit tests, under the seeded simulator that
//! crashes it between any two steps, and in wasm inside the stream's Durable Object.
//!
//! # Core types
//! - [`Stream`] is one stream path: its current life, earlier lives still being erased, its
//!   duties. Verbs are methods, one file each: `create`, `append`, `read`, `fork`, `delete`,
//!   `duties`.
//! - [`log::Log`] is the contract to the storage below. Commits are atomic.
//! - [`bucket::TokenBucket`] and [`credit::Credit`] are what one WebSocket client may do and get.
//! - [`extent::Head`] is what an append leaves behind besides its bytes.
//!
//! # Invariants
//! 1. Acknowledged bytes are readable at their offset until the stream is deleted or expires.
//! 2. Bytes at an offset never change.
//! 3. The tail never goes back.
//! 4. The extents of a life tile `[0, tail)`: no gap, no overlap.
//! 5. A producer's `(epoch, seq)` is appended at most once.
//! 6. A closed stream's tail is final.
//!
//! # Errors
//! Each verb has an enum of causes with their data; the edge maps them to HTTP in one match. A
//! [`log::LogError`] means that nothing of the decision was stored.
//!
//! # What does not belong here
//! HTTP, JavaScript, clocks, random numbers, sockets, retries against other objects.

pub mod append;
pub mod bucket;
mod codec;
pub mod cold;
pub mod create;
pub mod credit;
pub mod delete;
pub mod duties;
pub mod extent;
pub mod fanout;
pub mod flights;
pub mod follow;
pub mod fork;
pub mod life;
pub mod links;
mod load;
pub mod log;
pub mod offsets;
pub mod producers;
pub mod read;
pub mod readers;
pub mod rotate;
pub mod segments;
pub mod stats;
mod stream;
pub mod sums;

pub use stream::{Bounds, Missing, Stream};
