//! Fan-out: what is appended to a source reaches every session that subscribed to it, each message
//! once, in order.
//!
//! It is replication: the source's log is the truth, a shard of its subscribers keeps a cursor into
//! it, and a session's stream remembers, in the row that holds the bytes, up to where it has each of
//! its sources. Whoever fails goes on from there. Nothing is copied when a message is published.
//!
//! # Core types
//! - `shard::Shard` decides what a subscription object delivers to whom; `directory` is what its
//!   root knows of the other shards. Rows lie in a [`roster::Roster`].
//! - `session::Session` decides what a session's object does; its rows lie in a [`ledger::Ledger`].
//! - [`audit`] compares what shards and sessions say of each other.
//! - `ShardServer` and `SessionServer` ask others and wait for them, through
//!   [`peers::Peers`]. The simulator runs the same code on a network of its own.
//! - `source` is the stream's part: which shards it has, and which of them have to be told.
//!   The other end, a session's stream, is `crate::links`.
//!
//! # Invariants
//! A session's stream holds, per subscription, a contiguous run of the source from the subscription's
//! start, each message once. Once faults stop, every subscription reaches its source's tail.
//!
//! # Error semantics
//! A [`crate::log::LogError`] means that nothing of a decision was stored. A call without an answer,
//! [`peers::NoAnswer`], may have been heard or not; everything that is sent may be sent again.
//!
//! # What does not belong here
//! How messages travel, and what is answered to clients.

pub mod audit;
pub mod breaker;
pub mod directory;
pub mod inline;
pub mod ledger;
pub mod peers;
pub mod publishers;
pub mod roster;
pub mod session;
pub mod session_server;
pub mod shard;
pub mod shard_server;
pub mod source;
pub mod turns;

/// First pause after a failure; it doubles with each further one.
const PAUSE_MS: u64 = 500;
/// Longest pause.
const PAUSE_MS_MAX: u64 = 60_000;

/// How long to wait before something is tried again that has failed `attempts` times.
#[must_use]
pub fn pause_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1);
    PAUSE_MS.saturating_mul(1u64.checked_shl(doublings).unwrap_or(u64::MAX)).min(PAUSE_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        assert_eq!([0, 1, 2, 3].map(pause_ms), [500, 500, 1_000, 2_000]);
        assert_eq!([11, 40, u32::MAX].map(pause_ms), [60_000; 3]);
    }
}
