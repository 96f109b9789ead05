//! How many frames a client may send in a minute.

use protocol::time::UnixMillis;

const MINUTE_MS: u64 = 60_000;

/// A bucket of tokens that starts full and fills up continuously.
///
/// Any span of time in which the clock does not go back sees at most `per_minute` takes, and
/// `per_minute` more for each minute that it is long. A clock that is set back refills nothing in
/// that step and goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Tokens that fit, and that come back in a minute; 0 for no limit.
    per_minute: u64,
    /// What is there, in parts of a token: as many as a minute has milliseconds, so that each
    /// millisecond brings back `per_minute` of them, and nothing is rounded.
    parts: u64,
    /// When the bucket was last looked at.
    at: UnixMillis,
}

impl TokenBucket {
    /// A full bucket of `per_minute` tokens; 0 for no limit.
    #[must_use]
    pub const fn new(per_minute: u64) -> TokenBucket {
        let parts = per_minute.saturating_mul(MINUTE_MS);
        TokenBucket { per_minute, parts, at: UnixMillis(0) }
    }

    /// Takes a token; `false` when there is none.
    pub fn take(&mut self, now: UnixMillis) -> bool {
        if self.per_minute == 0 {
            return true;
        }
        let refill = now.saturating_since_ms(self.at).saturating_mul(self.per_minute);
        let full = self.per_minute.saturating_mul(MINUTE_MS);
        self.parts = self.parts.saturating_add(refill).min(full);
        self.at = now;
        match self.parts.checked_sub(MINUTE_MS) {
            Some(rest) => {
                self.parts = rest;
                true
            }
            None => false,
        }
    }
}
