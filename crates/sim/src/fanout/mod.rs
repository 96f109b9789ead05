//! The world of fan-out: sources, subscription objects, sessions and the network between them.
//!
//! The real [`engine::fanout::shard_server::ShardServer`], [`engine::fanout::session_server::SessionServer`]
//! and [`engine::Stream`] run as tasks of an executor in which one number decides who goes on, what is
//! lost, late, repeated or down, whose memory is lost, and which commit fails.
//!
//! # Core types
//! - `hub::Hub`: clock, chance, network, objects. `world`: the scheduler. `profile`: a seed's temper.
//! - `net::SimPeers`: the others, as an object sees them.
//! - `model::Model`: what every stream has to hold. `clients`: who asks, and is promised what.
//! - `settle`: faults stop, promises come true, and nothing is left.
//!
//! # Invariants of the simulator itself
//! As in [`crate`]: the same seed twice is the same trace. The model takes bytes from sources and
//! verdicts from positions and epochs, never from what the engine says of itself.

mod clients;
mod hub;
mod model;
mod net;
mod objects;
mod profile;
mod serve;
mod settle;
mod storage;
mod streams;
mod tasks;
mod world;

use crate::run::{Failure, Outcome};
use hub::Hub;

/// Steps before faults stop, unless said otherwise.
pub const STEPS: u32 = 1_500;

/// Which bug is planted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    /// None.
    #[default]
    None,
    /// The cursor is stored as if everything that was promised had been delivered, and nobody learns who
    /// is behind.
    CursorTooFar,
    /// A member with a position of its own is stored as if it were in step, and nobody learns that it is
    /// behind.
    StepTooEarly,
    /// A session's stream takes a delivery that comes twice for a new one.
    DedupOffByOne,
    /// A removal takes every epoch along.
    EpochIgnored,
    /// A source's duty to tell its shards is not written down.
    ForgottenDuty,
}

/// What decides a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// Steps before faults stop.
    pub steps: u32,
    /// The planted bug.
    pub bug: Bug,
    /// Whether the trace goes to standard error.
    pub echo: bool,
}

/// Runs one seed.
#[must_use]
pub fn simulate(setup: Setup) -> Outcome {
    let hub = Hub::new(setup);
    let failure = hub.run(setup).err().map(|violation| Failure {
        seed: setup.seed,
        step: hub.step.get(),
        violation,
        trace: hub.trace.borrow().tail(),
        replay: " --world fanout",
    });
    hub.tear_down();
    let (hash, steps) = (hub.trace.borrow().hash(), hub.step.get());
    Outcome { hash, steps, failure }
}
