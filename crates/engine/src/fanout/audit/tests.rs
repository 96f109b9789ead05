//! The comparison, on objects in memory.
