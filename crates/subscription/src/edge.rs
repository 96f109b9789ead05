//! The edge of sessions: what clients ask for, turned into questions to objects.
