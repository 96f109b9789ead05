//! Reads whose answers are for their readers only: those of the tail.
//!
//! A trip for others looks into the cache first, and its readers wait for each other. When its answer
//! is good for nobody else, both were in vain; for a moment, readers need not try that again.
//!
//! # Errors
//! None: what is forgotten is tried again.
//!
//! # What does not belong here
//! Which answers are for everybody.

use std::collections::BTreeMap;

use protocol::limits::{FLIGHT_APART_MS, FLIGHTS_MAX};
use protocol::offset::OffsetParam;
use protocol::time::UnixMillis;

use super::{Key, Reach};

/// The reads of the last moment that nobody could share.
#[derive(Debug, Default)]
pub(super) struct Apart {
    until: BTreeMap<Key, UnixMillis>,
}

impl Apart {
    pub(super) fn note(&mut self, key: &Key, now: UnixMillis) {
        if self.until.len() >= FLIGHTS_MAX {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() < FLIGHTS_MAX {
            self.until.insert(key.clone(), now.saturating_add_ms(FLIGHT_APART_MS));
        }
    }

    pub(super) fn holds(&mut self, key: &Key, now: UnixMillis) -> bool {
        let Some(until) = self.until.get(key) else { return false };
        if now < *until {
            return true;
        }
        self.until.remove(key);
        false
    }
}

/// Whether the cache may have an answer for a reader that knows of a write: at the end, or past it,
/// there is nothing that could have been kept.
#[must_use]
pub fn may_be_cached(asked: OffsetParam, written: Option<Reach>) -> bool {
    match (asked, written) {
        (OffsetParam::At(offset), Some(Reach { next, .. })) => {
            offset.generation != next.generation || offset < next
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::offset::{Generation, Offset, Position};

    #[test]
    fn reads_are_remembered_for_a_moment_and_up_to_a_bound() {
        let key = |read: usize| Key { stream: "p/a".into(), read: read.to_string() };
        let (mut apart, end) = (Apart::default(), UnixMillis(FLIGHT_APART_MS));
        for read in 0..=FLIGHTS_MAX {
            apart.note(&key(read), UnixMillis(0));
        }
        assert!(apart.holds(&key(0), UnixMillis(0)) && !apart.holds(&key(0), end));
        assert!(!apart.holds(&key(FLIGHTS_MAX), UnixMillis(0)));
        assert!(apart.until.len() < FLIGHTS_MAX);
        apart.note(&key(FLIGHTS_MAX), end);
        assert!(apart.holds(&key(FLIGHTS_MAX), end));
    }

    #[test]
    fn nothing_was_kept_behind_the_end() {
        let offset = |generation, position| Offset {
            generation: Generation(generation),
            position: Position(position),
        };
        let written = Some(Reach { next: offset(7, 10), closed: false });
        let asked = |generation, position| OffsetParam::At(offset(generation, position));
        assert!(!may_be_cached(asked(7, 10), written) && !may_be_cached(asked(7, 11), written));
        assert!(may_be_cached(asked(7, 9), written) && may_be_cached(asked(7, 10), None));
        // Of another life, or inherited: what is known says nothing of it.
        assert!(may_be_cached(asked(8, 1), written) && may_be_cached(asked(5, 30), written));
    }
}
