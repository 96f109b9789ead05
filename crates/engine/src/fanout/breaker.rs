//! The circuit breaker of a subscription object: when most deliveries fail, it is not the sessions
//! that are broken, and hammering on helps nobody.
//!
//! ```text
//! Closed ──most of a batch fails──► Open(until) ──until──► one probe ──fails──► Open, twice as long
//!    ▲                                                        │
//!    └──────────────────────── succeeds ──────────────────────┘
//! ```
//!
//! While it is open nothing is lost: cursors stay where they are. A single session that fails does
//! not open it; such a session gets a position of its own and its own pauses.

use protocol::time::UnixMillis;

/// Deliveries that have to fail in one go, or one after the other, before the breaker opens.
pub const FAILURES_MIN: u64 = 5;
/// How long it stays open first; twice as long after each probe that fails.
const OPEN_MS: u64 = 2_000;
/// Longest time that it stays open.
const OPEN_MS_MAX: u64 = 120_000;

/// Whether deliveries are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// While it is open: until when, and for how long it was opened.
    open: Option<Open>,
    /// Deliveries that failed since the last that did not.
    failures: u64,
}

/// An open breaker: what is stored of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// When one delivery is tried.
    pub until: UnixMillis,
    /// For how long it was opened.
    pub pause_ms: u64,
}

impl Breaker {
    /// The breaker that was stored.
    #[must_use]
    pub fn stored(open: Option<Open>) -> Self {
        Self { open, failures: 0 }
    }

    /// What there is to store: nothing when it is closed.
    #[must_use]
    pub fn open(&self) -> Option<Open> {
        self.open
    }

    /// Whether deliveries may be tried.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Whether one delivery may be tried.
    #[must_use]
    pub fn is_to_be_probed(&self, now: UnixMillis) -> bool {
        self.open.is_some_and(|open| open.until <= now)
    }

    /// Whether what has been tried so far would open it.
    #[must_use]
    pub fn would_open(&self, successes: u64, failures: u64) -> bool {
        let in_a_row = if successes == 0 { self.failures } else { 0 };
        failures > successes && failures.saturating_add(in_a_row) >= FAILURES_MIN
    }

    /// Notes what became of a batch. `true` when that opened the breaker.
    pub fn record(&mut self, successes: u64, failures: u64, now: UnixMillis) -> bool {
        let opens = self.open.is_none() && self.would_open(successes, failures);
        self.failures = if successes == 0 { self.failures.saturating_add(failures) } else { 0 };
        if opens {
            self.open = Some(Open { until: now.saturating_add_ms(OPEN_MS), pause_ms: OPEN_MS });
        }
        opens
    }

    /// Notes what became of the probe.
    pub fn probed(&mut self, succeeded: bool, now: UnixMillis) {
        let Some(open) = self.open else { return };
        self.failures = 0;
        self.open = (!succeeded).then(|| {
            let pause_ms = open.pause_ms.saturating_mul(2).min(OPEN_MS_MAX);
            Open { until: now.saturating_add_ms(pause_ms), pause_ms }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_a_batch_opens_it_and_a_probe_closes_it() {
        let mut breaker = Breaker::default();
        assert!(!breaker.record(10, 9, UnixMillis(0)));
        assert!(breaker.record(4, 5, UnixMillis(0)));
        assert!(!breaker.is_to_be_probed(UnixMillis(1_999)));
        assert!(breaker.is_to_be_probed(UnixMillis(2_000)));
        breaker.probed(false, UnixMillis(2_000));
        assert_eq!(breaker.open(), Some(Open { until: UnixMillis(6_000), pause_ms: 4_000 }));
        breaker.probed(true, UnixMillis(6_000));
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_few_failures_open_it_only_in_a_row() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert!(!breaker.record(0, 1, UnixMillis(0)));
        }
        assert!(!breaker.record(1, 0, UnixMillis(0)));
        for _ in 0..4 {
            assert!(!breaker.record(0, 1, UnixMillis(0)));
        }
        assert!(breaker.record(0, 1, UnixMillis(0)));
    }

    #[test]
    fn pauses_are_bounded() {
        let mut breaker = Breaker::default();
        breaker.record(0, 9, UnixMillis(0));
        for _ in 0..40 {
            breaker.probed(false, UnixMillis(0));
        }
        assert_eq!(breaker.open().unwrap().pause_ms, OPEN_MS_MAX);
    }
}
