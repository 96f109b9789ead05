//! Seeded simulation of streams under faults, and the native implementations of the engine's
//! contracts that it runs on.
//!
//! One `u64` decides a whole run: what clients ask, what fails, who crashes, which message
//! arrives. The fault model, the oracle and how to replay a seed are described in
//! `docs/simulation.md`.
//!
//! # Core types
//! - [`world::World`]: objects, network, clock and scheduler of one run.
//! - [`model::ModelPath`]: what a stream path should be like, the slow and obvious way.
//! - [`object::Object`]: one real [`engine::Stream`] over a [`disk::Disk`] through the decorators
//!   [`decorators::Counting`], [`decorators::Faulty`] and [`decorators::Planted`].
//! - [`store::Store`]: the object store that they share.
//! - [`fanout`]: a world of its own, of sessions and the sources that they are subscribed to.
//! - [`violation::Violation`]: a broken invariant; the only way in which a run fails.
//!
//! # Invariants of the simulator itself
//! No wall clock, no other source of chance than [`rng::Rng`], no iteration over hash maps: the
//! same seed twice is the same trace, byte for byte.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "an oracle that trips over its own feet must fail the run, loudly"
)]

pub mod canary;
pub mod decorators;
pub mod disk;
pub mod fanout;
pub mod faults;
mod forks;
pub mod ledger;
mod live;
pub mod model;
mod model_offsets;
mod network;
pub mod object;
mod oracle;
mod questions;
pub mod rng;
mod run;
mod settle;
pub mod sqlite;
pub mod store;
mod store_audit;
pub mod trace;
mod uploads;
mod verbs;
pub mod violation;
pub mod workload;
pub mod world;

pub use run::{Failure, Outcome, SQLITE_EVERY, Summary, run, run_each, run_with, simulate};
