//! The limits that an operator may change, and the variables that they are read from.

use std::fmt;

use super::{
    BODY_BYTES_CEILING, BODY_BYTES_MAX, BODY_TIMEOUT_MS, EDGE_CACHE_SECONDS,
    EDGE_CACHE_SECONDS_CEILING, FANOUT_CONCURRENCY, FANOUT_CONCURRENCY_CEILING, FANOUT_DEADLINE_MS,
    FANOUT_DEADLINE_MS_CEILING, FANOUT_HOLD_MAX_MS, FANOUT_HOLD_MAX_MS_CEILING,
    FANOUT_INLINE_CEILING, FANOUT_INLINE_MAX, LONG_POLL_TIMEOUT_MS, READ_CHUNK_BYTES,
    READ_CHUNK_BYTES_CEILING, READERS_CEILING, READERS_MAX, SEGMENT_APPENDS,
    SEGMENT_APPENDS_CEILING, SEGMENT_BYTES, SEGMENT_BYTES_CEILING, SEGMENT_GRACE_MS,
    SESSION_SUBSCRIPTIONS_CEILING, SESSION_SUBSCRIPTIONS_MAX, SESSION_TTL_SECONDS,
    SESSION_TTL_SECONDS_CEILING, SHARD_MEMBERS_CEILING, SHARD_MEMBERS_MAX, SHARDS_CEILING,
    SHARDS_MAX, SLOW_READER_TIMEOUT_MS, SSE_LIFETIME_MS, STREAM_BYTES_CEILING, STREAM_BYTES_MAX,
    WAITERS_MAX, WS_FRAMES_PER_MINUTE, WS_FRAMES_PER_MINUTE_CEILING, WS_MESSAGE_BYTES_CEILING,
    WS_MESSAGE_BYTES_MAX, WS_UNACKED_CEILING, WS_UNACKED_MAX,
};
use crate::decimal;

/// Declares [`Limits`]: one entry per field with its default, which has the name of its variable,
/// and the range of the variable.
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $field:ident = $default:ident in $min:literal..=$max:expr;)*) => {
        /// The limits that an operator may change. Each field is read from the variable of the same name
        /// in upper case.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])* pub $field: u64,)*
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($field: $default,)* }
            }
        }

        impl Limits {
            /// Reads the limits from the deployment's variables; one that is not set keeps its
            /// default.
            ///
            /// The ranges reach far down, so that tests can run into every limit.
            ///
            /// # Errors
            /// [`InvalidVariable`] for the first variable that is no decimal integer in its range.
            /// An empty variable is set, and so an error.
            pub fn from_vars(
                get: impl Fn(&str) -> Option<String>,
            ) -> Result<Limits, InvalidVariable> {
                Ok(Limits {
                    $($field: read_variable(&get, stringify!($default), $default, $min, $max)?,)*
                })
            }
        }

        /// The variables in the order of the fields.
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($default)),*];

        /// The fields of `limits` in their order.
        #[cfg(test)]
        fn values(limits: &Limits) -> Vec<u64> {
            vec![$(limits.$field),*]
        }
    };
}

limits! {
    /// Milliseconds that a long-poll waits: see [`LONG_POLL_TIMEOUT_MS`].
    long_poll_timeout_ms = LONG_POLL_TIMEOUT_MS in 1..=90_000;
    /// Milliseconds that an SSE response lives: see [`SSE_LIFETIME_MS`].
    sse_lifetime_ms = SSE_LIFETIME_MS in 1..=3_600_000;
    /// Waiting long-polls of a stream: see [`WAITERS_MAX`].
    waiters_max = WAITERS_MAX in 1..=READERS_CEILING;
    /// Live readers of a stream: see [`READERS_MAX`].
    readers_max = READERS_MAX in 1..=READERS_CEILING;
    /// Bytes of a request body: see [`BODY_BYTES_MAX`].
    body_bytes_max = BODY_BYTES_MAX in 1..=BODY_BYTES_CEILING;
    /// Milliseconds that a body may take to begin, and to go on: see [`BODY_TIMEOUT_MS`].
    body_timeout_ms = BODY_TIMEOUT_MS in 1..=600_000;
    /// Bytes of a catch-up page: see [`READ_CHUNK_BYTES`].
    read_chunk_bytes = READ_CHUNK_BYTES in 1..=READ_CHUNK_BYTES_CEILING;
    /// Hot bytes of a stream: see [`STREAM_BYTES_MAX`].
    stream_bytes_max = STREAM_BYTES_MAX in 1..=STREAM_BYTES_CEILING;
    /// Bytes of a segment: see [`SEGMENT_BYTES`].
    segment_bytes = SEGMENT_BYTES in 1..=SEGMENT_BYTES_CEILING;
    /// Appends of a segment: see [`SEGMENT_APPENDS`].
    segment_appends = SEGMENT_APPENDS in 1..=SEGMENT_APPENDS_CEILING;
    /// Milliseconds that an unreferenced segment stays: see [`SEGMENT_GRACE_MS`].
    segment_grace_ms = SEGMENT_GRACE_MS in 1..=86_400_000;
    /// Seconds for which the edge keeps pages, 0 for not at all: see [`EDGE_CACHE_SECONDS`].
    edge_cache_seconds = EDGE_CACHE_SECONDS in 0..=EDGE_CACHE_SECONDS_CEILING;
    /// Bytes of a client's WebSocket message: see [`WS_MESSAGE_BYTES_MAX`].
    ws_message_bytes_max = WS_MESSAGE_BYTES_MAX in 1..=WS_MESSAGE_BYTES_CEILING;
    /// Unanswered appends of a WebSocket: see [`WS_UNACKED_MAX`].
    ws_unacked_max = WS_UNACKED_MAX in 1..=WS_UNACKED_CEILING;
    /// Other frames of a WebSocket client in a minute, 0 for no limit: see
    /// [`WS_FRAMES_PER_MINUTE`].
    ws_frames_per_minute = WS_FRAMES_PER_MINUTE in 0..=WS_FRAMES_PER_MINUTE_CEILING;
    /// Milliseconds that a WebSocket client may leave its buffer full: see
    /// [`SLOW_READER_TIMEOUT_MS`].
    slow_reader_timeout_ms = SLOW_READER_TIMEOUT_MS in 1..=3_600_000;
    /// Seconds without a reader after which a session ends: see [`SESSION_TTL_SECONDS`].
    session_ttl_seconds = SESSION_TTL_SECONDS in 1..=SESSION_TTL_SECONDS_CEILING;
    /// Subscriptions of a session: see [`SESSION_SUBSCRIPTIONS_MAX`].
    session_subscriptions_max = SESSION_SUBSCRIPTIONS_MAX in 1..=SESSION_SUBSCRIPTIONS_CEILING;
    /// Subscribers that a publish waits for: see [`FANOUT_INLINE_MAX`].
    fanout_inline_max = FANOUT_INLINE_MAX in 1..=FANOUT_INLINE_CEILING;
    /// Deliveries of a shard at once: see [`FANOUT_CONCURRENCY`].
    fanout_concurrency = FANOUT_CONCURRENCY in 1..=FANOUT_CONCURRENCY_CEILING;
    /// Milliseconds of one delivery: see [`FANOUT_DEADLINE_MS`].
    fanout_deadline_ms = FANOUT_DEADLINE_MS in 10..=FANOUT_DEADLINE_MS_CEILING;
    /// Subscribers of a shard: see [`SHARD_MEMBERS_MAX`].
    shard_members_max = SHARD_MEMBERS_MAX in 1..=SHARD_MEMBERS_CEILING;
    /// Shards of a source: see [`SHARDS_MAX`].
    shards_max = SHARDS_MAX in 1..=SHARDS_CEILING;
    /// Milliseconds that the bytes of an ended source are kept for its subscribers: see
    /// [`FANOUT_HOLD_MAX_MS`].
    fanout_hold_max_ms = FANOUT_HOLD_MAX_MS in 1..=FANOUT_HOLD_MAX_MS_CEILING;
}

/// A variable whose value is no decimal integer in its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidVariable {
    /// Name of the variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Smallest value allowed.
    pub min: u64,
    /// Largest value allowed.
    pub max: u64,
}

impl fmt::Display for InvalidVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InvalidVariable { name, value, min, max } = self;
        write!(f, "{name} is {value:?}, which is not a decimal integer from {min} to {max}")
    }
}

impl std::error::Error for InvalidVariable {}

fn read_variable(
    get: impl Fn(&str) -> Option<String>,
    name: &'static str,
    default: u64,
    min: u64,
    max: u64,
) -> Result<u64, InvalidVariable> {
    let Some(value) = get(name) else {
        return Ok(default);
    };
    match decimal::parse(&value, max).filter(|number| *number >= min) {
        Some(number) => Ok(number),
        None => Err(InvalidVariable { name, value, min, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(set_name: &str, value: &str) -> Result<Limits, InvalidVariable> {
        Limits::from_vars(|name| (name == set_name).then(|| value.to_owned()))
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(Limits::from_vars(|_| None), Ok(Limits::default()));
    }

    #[test]
    fn defaults_are_in_range() {
        let default = Limits::default();
        for (name, value) in NAMES.iter().zip(values(&default)) {
            assert_eq!(with(name, &value.to_string()), Ok(default), "{name}");
        }
    }

    #[test]
    fn each_variable_sets_its_field() {
        // One of the ranges begins at 10.
        let index = |name: &str| Some((NAMES.iter().position(|n| *n == name)? + 10).to_string());
        let expected = Limits {
            long_poll_timeout_ms: 10,
            sse_lifetime_ms: 11,
            waiters_max: 12,
            readers_max: 13,
            body_bytes_max: 14,
            body_timeout_ms: 15,
            read_chunk_bytes: 16,
            stream_bytes_max: 17,
            segment_bytes: 18,
            segment_appends: 19,
            segment_grace_ms: 20,
            edge_cache_seconds: 21,
            ws_message_bytes_max: 22,
            ws_unacked_max: 23,
            ws_frames_per_minute: 24,
            slow_reader_timeout_ms: 25,
            session_ttl_seconds: 26,
            session_subscriptions_max: 27,
            fanout_inline_max: 28,
            fanout_concurrency: 29,
            fanout_deadline_ms: 30,
            shard_members_max: 31,
            shards_max: 32,
            fanout_hold_max_ms: 33,
        };
        assert_eq!(Limits::from_vars(index), Ok(expected));
    }

    #[test]
    fn a_bad_value_is_named() {
        for name in NAMES {
            for value in ["", "-1", "1.5", "10s", " 5", "99999999999999999999"] {
                let error = with(name, value).unwrap_err();
                assert_eq!((error.name, error.value.as_str()), (*name, value));
            }
            // 0 means no limit, or not at all, where it is allowed.
            let zero = ["WS_FRAMES_PER_MINUTE", "EDGE_CACHE_SECONDS"].contains(name);
            assert_eq!(with(name, "0").is_ok(), zero, "{name}");
        }
        assert_eq!(
            with("READERS_MAX", "40000").unwrap_err().to_string(),
            "READERS_MAX is \"40000\", which is not a decimal integer from 1 to 32500"
        );
    }

    proptest! {
        #[test]
        fn never_panics(index in 0..NAMES.len(), value in "\\PC*|[0-9]{1,20}") {
            if let Err(error) = with(NAMES[index], &value) {
                prop_assert_eq!(error.value, value);
            }
        }
    }
}
