//! `Server-Timing` of an object: what a request waited for here (W3C Server Timing).
//!
//! | phase | what it measures |
//! |---|---|
//! | `body` | from the request's arrival until its body was there |
//! | `queue` | from then until its group was committed |
//! | `load` | reading the stream's state, where this request woke the object |
//! | `object` | all of it |
//!
//! Milliseconds of the platform's clock, which in production stands still between I/O: what only
//! computes takes 0. An append's answer is made before its commit is on disk, and held until then by
//! the platform: the wait for the disk is in the edge's number and in none of these.

use crate::js;
use protocol::time::UnixMillis;

/// The phases of one request that asked for them.
#[derive(Debug)]
pub(crate) struct Timing {
    started: UnixMillis,
    phase_began: UnixMillis,
    told: String,
}

impl Timing {
    /// Begins to measure, if the request's `Stream-Timing` asks for it.
    pub(crate) fn begin(wanted: Option<&str>) -> Option<Self> {
        let is_wanted = wanted.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let now = js::now();
        is_wanted.then(|| Self { started: now, phase_began: now, told: String::new() })
    }

    /// A phase has ended; the next one begins.
    pub(crate) fn end_phase(&mut self, name: &'static str) {
        let now = js::now();
        self.add(name, now.saturating_since_ms(self.phase_began));
        self.phase_began = now;
    }

    /// Adds a phase that was measured elsewhere.
    pub(crate) fn add(&mut self, name: &'static str, ms: u64) {
        self.told.push_str(&format!("{name};dur={ms}, "));
    }

    /// The header's value.
    pub(crate) fn header(self) -> String {
        let ms = js::now().saturating_since_ms(self.started);
        format!("{}object;dur={ms}", self.told)
    }
}
