//! Sessions and subscriptions on Workers: one stream that carries the messages of many others.
//!
//! - [`edge`] is what the service's clients ask for: it reads bodies, looks at what the caller may do
//!   with the streams that they name, and asks the session's object.
//!
//! - [`respond`] turns refusals into HTTP.
//! - [`SessionObject`] and [`SubscriptionObject`] are the Durable Objects around
//!   [`engine::fanout::session_server`] and [`engine::fanout::shard_server`]; [`peers`] is how they reach
//!   others.
//! - [`queue`] is the consumer of the queue.
//! - [`reconcile`] is what operators compare.
//!
//! What objects say to each other is in [`protocol::fanout`]; what clients say, in the bodies of the
//! public API.
//!
//! # Invariants
//! Nothing here panics: a trap resets every request of the isolate. No `RefCell` is borrowed across an
//! await. Who may do what is decided at the edge; objects trust what it asks.
//!
//! # Error semantics
//! A refusal of an object is data until the edge turns it into HTTP, in one exhaustive match.
//!
//! **What stays out.** Streams and their log, which are the core's and the engine's.

pub mod edge;
mod object;
pub mod peers;
pub mod queue;
pub mod reconcile;
pub mod respond;
pub mod session_object;
pub mod subscription_object;

pub use session_object::SessionObject;
pub use subscription_object::SubscriptionObject;
