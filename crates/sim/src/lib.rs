//! Seeded simulation of streams under faults, and the native implementations of the engine's
//! contracts that it runs on.

pub mod sqlite;
