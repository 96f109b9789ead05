//! Cursors of live responses, by which shared caches collapse readers (PROTOCOL.md §10.1).
//!
//! A cursor is the number of 20-second intervals since 2024-10-09T00:00:00Z. Readers that poll in
//! the same interval send the same URL; a reader that would send the same URL twice gets a cursor
//! ahead of time.
//!
//! **Invariants.** A cursor never lies before the current interval, and always after the one that
//! the client sent.
//!
//! **Error semantics.** None. What a client sends is a cache key, not a position: a cursor that
//! cannot be read, or that leaves no room below 2^53 for a later one, counts as absent.
//!
//! **What stays out.** Which responses carry a cursor.

use crate::limits::SAFE_INTEGER_MAX;
use crate::time::UnixMillis;

/// Length of an interval.
const INTERVAL_SECONDS: u64 = 20;
/// 2024-10-09T00:00:00Z.
const EPOCH: UnixMillis = UnixMillis(1_728_432_000_000);
/// Largest jitter.
const JITTER_SECONDS_MAX: u64 = 3600;
/// Largest jitter in intervals.
const JITTER_INTERVALS_MAX: u64 = JITTER_SECONDS_MAX / INTERVAL_SECONDS;

/// The cursor of a response at `now` to a client that sent `client`.
///
/// `jitter` is any random number; it is reduced to 1–3600 seconds and rounded up to whole
/// intervals. It moves a client that is not behind the current interval to a later one, so that
/// many such clients do not meet again.
#[must_use]
pub fn next_cursor(now: UnixMillis, client: Option<&str>, jitter: u64) -> String {
    let current = now.saturating_since_ms(EPOCH) / (INTERVAL_SECONDS * 1000);
    let cursor = match client.and_then(parse_cursor) {
        Some(client) if client >= current => {
            let jitter_seconds = 1 + jitter % JITTER_SECONDS_MAX;
            client.saturating_add(jitter_seconds.div_ceil(INTERVAL_SECONDS))
        }
        _ => current,
    };
    cursor.to_string()
}

/// Decimal digits, leading zeros allowed, that leave room for the largest jitter.
fn parse_cursor(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let cursor: u64 = if digits {
        text.parse().ok()?
    } else {
        return None;
    };
    (cursor <= SAFE_INTEGER_MAX - JITTER_INTERVALS_MAX).then_some(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;
    use proptest::prelude::*;

    const DAY: UnixMillis = UnixMillis(EPOCH.0 + 86_400_000);

    #[test]
    fn epoch() {
        assert_eq!(parse_rfc3339("2024-10-09T00:00:00Z"), Some(EPOCH));
    }

    #[test]
    fn intervals() {
        assert_eq!(next_cursor(EPOCH, None, 0), "0");
        assert_eq!(next_cursor(UnixMillis(EPOCH.0 + 19_999), None, 0), "0");
        assert_eq!(next_cursor(UnixMillis(EPOCH.0 + 20_000), None, 0), "1");
        assert_eq!(next_cursor(DAY, None, 0), "4320");
        assert_eq!(next_cursor(UnixMillis(0), None, 0), "0");
    }

    #[test]
    fn a_client_behind_gets_the_current_interval() {
        assert_eq!(next_cursor(DAY, Some("4319"), 999), "4320");
        assert_eq!(next_cursor(DAY, Some("0"), 999), "4320");
    }

    #[test]
    fn a_client_not_behind_moves_on() {
        for (client, jitter, next) in [
            ("4320", 0, "4321"),
            ("4320", 19, "4321"),
            ("4320", 20, "4322"),
            ("4320", 3599, "4500"),
            ("4320", 3600, "4321"),
            ("4320", u64::MAX, "4321"),
            ("9999", 0, "10000"),
            ("04320", 0, "4321"),
        ] {
            assert_eq!(next_cursor(DAY, Some(client), jitter), next, "{client} {jitter}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_absent() {
        for client in [
            "",
            "abc",
            "-1",
            "+4320",
            "4320.5",
            " 4320",
            "9007199254740991",
            "18446744073709551616",
            "99999999999999999999999999",
        ] {
            assert_eq!(next_cursor(DAY, Some(client), 0), "4320", "{client}");
        }
    }

    proptest! {
        #[test]
        fn always_ahead(ms in 0..1_u64 << 45, client in 0..=SAFE_INTEGER_MAX, jitter: u64) {
            let now = UnixMillis(ms);
            let current: u64 = next_cursor(now, None, jitter).parse().unwrap();
            let next: u64 = next_cursor(now, Some(&client.to_string()), jitter).parse().unwrap();
            prop_assert!(next >= current);
            prop_assert!(next <= SAFE_INTEGER_MAX);
            if client <= SAFE_INTEGER_MAX - JITTER_INTERVALS_MAX {
                prop_assert!(next > client);
                prop_assert!(next == current || next - client <= JITTER_INTERVALS_MAX);
            }
        }

        #[test]
        fn never_panics(ms: u64, client in "\\PC*|[0-9]{0,24}", jitter: u64) {
            let cursor = next_cursor(UnixMillis(ms), Some(&client), jitter);
            prop_assert!(cursor.bytes().all(|byte| byte.is_ascii_digit()));
        }
    }
}
