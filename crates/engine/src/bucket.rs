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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_769_853_600_000);

    /// How many tokens can be taken at `now`.
    fn drain(bucket: &mut TokenBucket, now: UnixMillis) -> u64 {
        (0..10_000).take_while(|_| bucket.take(now)).count() as u64
    }

    #[test]
    fn starts_full_and_fills_up_continuously() {
        let mut bucket = TokenBucket::new(1000);
        assert_eq!(drain(&mut bucket, NOW), 1000);
        assert_eq!(drain(&mut bucket, NOW), 0);
        assert_eq!(drain(&mut bucket, NOW.saturating_add_ms(59)), 0);
        assert_eq!(drain(&mut bucket, NOW.saturating_add_ms(60)), 1);
        assert_eq!(drain(&mut bucket, NOW.saturating_add_ms(30_060)), 500);
        assert_eq!(drain(&mut bucket, NOW.saturating_add_ms(10_000_000)), 1000);
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(drain(&mut TokenBucket::new(0), NOW), 10_000);
    }

    #[test]
    fn a_clock_set_back_refills_nothing_and_starves_nobody() {
        let mut bucket = TokenBucket::new(60);
        assert_eq!(drain(&mut bucket, NOW), 60);
        let earlier = UnixMillis(NOW.0 - 86_400_000);
        assert_eq!(drain(&mut bucket, earlier), 0);
        assert_eq!(drain(&mut bucket, earlier.saturating_add_ms(1000)), 1);
    }

    #[test]
    fn extremes() {
        let mut bucket = TokenBucket::new(u64::MAX);
        for now in [0, u64::MAX, 0, 1] {
            assert!(bucket.take(UnixMillis(now)));
        }
    }

    proptest! {
        /// Against the naive model: a list of takes, and a refill computed from its begin.
        #[test]
        fn no_span_sees_more_than_its_share(
            per_minute in 1..50_u64, steps in prop::collection::vec((0..5_000_u64, any::<bool>()), 1..300),
        ) {
            let mut bucket = TokenBucket::new(per_minute);
            let mut now = NOW;
            let mut takes: Vec<u64> = Vec::new();
            for (ms, hurry) in steps {
                now = now.saturating_add_ms(if hurry { 0 } else { ms });
                if bucket.take(now) {
                    takes.push(now.0);
                    continue;
                }
                // Refused only when some span that ends here has used all of its share.
                let exhausted = takes.iter().enumerate().any(|(index, begin)| {
                    let used = (takes.len() - index) as u64;
                    (used + 1) * MINUTE_MS > per_minute * (MINUTE_MS + now.0 - begin)
                });
                prop_assert!(exhausted);
            }
            for (index, begin) in takes.iter().enumerate() {
                for (count, end) in (1..).zip(&takes[index..]) {
                    prop_assert!(count * MINUTE_MS <= per_minute * (MINUTE_MS + end - begin));
                }
            }
        }
    }
}
