//! Every limit of the service, with its reason, and the ones that an operator may change.
//!
//! Names end in their unit (`…_BYTES_MAX`, `…_MS`). Lengths of text that is compared with `len()`
//! are `usize`; every other quantity is `u64`. Relations between limits are asserted at compile
//! time, beside the reason.
//!
//! **Error semantics.** [`Limits::from_vars`] refuses the first variable that is no decimal
//! integer in its range; the error names the variable, the value and the range.
//!
//! **What stays out.** What happens when a limit is reached.

use std::fmt;

use crate::decimal;
use crate::time::UnixMillis;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

// Numbers.

/// 2^53 - 1, the largest integer that JavaScript numbers, and so storage keys, hold exactly.
pub const SAFE_INTEGER_MAX: u64 = 9_007_199_254_740_991;

/// Longest `Stream-TTL`, about 3,170 years: longer than anybody needs, and short enough that
/// every deadline has a four-digit year.
pub const TTL_SECONDS_MAX: u64 = 100_000_000_000;

const _: () = assert!(
    TTL_SECONDS_MAX * 1000 < UnixMillis::RFC3339_MAX.0 / 2,
    "an access before the year 5000 plus the longest TTL must be printable"
);

// Text in URLs and headers.

/// Bytes of a stream's path after percent-decoding: with the project it must fit an object name.
pub const STREAM_PATH_BYTES_MAX: usize = 512;

/// Characters of a project's name.
pub const PROJECT_BYTES_MAX: usize = 64;

/// Bytes of the percent-encoded path of a URL, and of a `Stream-Forked-From` value. Longer ones
/// are refused before they are decoded.
pub const URL_PATH_BYTES_MAX: usize = 2048;

const _: () = assert!(
    URL_PATH_BYTES_MAX >= "/v1//stream/".len() + PROJECT_BYTES_MAX + 3 * STREAM_PATH_BYTES_MAX,
    "the longest stream path must fit when each of its bytes is percent-encoded"
);

/// Bytes of a `Content-Type`; registered names are far shorter, and it is stored per stream.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// Bytes of a `Producer-Id`; stored per producer and repeated in row headers.
pub const PRODUCER_ID_BYTES_MAX: usize = 256;

/// Bytes of a `Stream-Seq`; stored per stream and in row headers.
pub const STREAM_SEQ_BYTES_MAX: usize = 256;

// Bodies.

/// Largest body of a create or an append. A body is held in memory several times over while it is
/// framed and stored, and an isolate has 128 MB.
pub const BODY_BYTES_MAX: u64 = 8 * MIB;

/// Largest body that an operator may allow.
pub const BODY_BYTES_CEILING: u64 = 16 * MIB;

/// Containers of a JSON body that may be open at once, the top-level array included. Deep enough
/// for any document made by people; a reader's recursive parser may have less stack than we do.
pub const JSON_DEPTH_MAX: usize = 1024;

const _: () = assert!(
    JSON_DEPTH_MAX.is_multiple_of(64),
    "the scanner keeps one bit per open container in whole words"
);

/// Largest value of one SQL row. The platform documents 2 MB per value; half of it leaves room
/// for the row's header and keeps a row within one read chunk.
pub const ROW_BYTES_MAX: u64 = MIB;

const _: () =
    assert!(ROW_BYTES_MAX * 3 / 2 < 2_000_000, "a row and its header must fit a SQL value");

/// Largest append that shares a row with other appends of its group. Copying a small body into a
/// common row is cheaper than a row of its own (one row written is the bill); a larger one passes
/// to storage uncopied.
pub const MERGE_BYTES_MAX: u64 = 64 * KIB;

const _: () = assert!(
    MERGE_BYTES_MAX * 2 <= ROW_BYTES_MAX,
    "at least two of the largest mergeable appends must fit one row"
);

/// Appends committed in one transaction. Bounds the time that the first of them waits and the work
/// that is repeated one by one after a failure.
pub const GROUP_APPENDS_MAX: u64 = 1024;

/// Rows between two checkpoints of producer and sequence state: waking an object reads at most
/// this many row headers.
pub const CHECKPOINT_ROWS: u64 = 2048;

const _: () = assert!(
    CHECKPOINT_ROWS > GROUP_APPENDS_MAX,
    "one group must not be due for more than one checkpoint"
);

// Streams.

/// Hot bytes of one stream, of the 10 GB that the platform gives an object: the rest is for the
/// tables beside the log, and for the life of a deleted predecessor.
pub const STREAM_BYTES_MAX: u64 = 8 * GIB;

/// Most hot bytes that an operator may allow.
pub const STREAM_BYTES_CEILING: u64 = 9_000_000_000;

const _: () = assert!(
    STREAM_BYTES_MAX <= STREAM_BYTES_CEILING && STREAM_BYTES_CEILING < 10_000_000_000,
    "the log must leave room in its object"
);

// Segments.

/// Hot bytes from which on they are moved to a segment: large enough that an upload costs next to
/// nothing per append, small enough to be held in memory while it is uploaded.
pub const SEGMENT_BYTES: u64 = 8 * MIB;

/// Largest segment that an operator may ask for. While it is uploaded, up to twice as much is held
/// in memory: what was appended since the last one comes along.
pub const SEGMENT_BYTES_CEILING: u64 = 16 * MIB;

/// Hot appends from which on they are moved to a segment. Bounds the rows that one transaction
/// deletes, and the list of append ends in a segment's row.
pub const SEGMENT_APPENDS: u64 = 8 * 1024;

/// Most appends of a segment that an operator may ask for: their ends, at most three bytes each
/// in the largest segment, must fit one SQL value.
pub const SEGMENT_APPENDS_CEILING: u64 = 64 * 1024;

const _: () = assert!(
    SEGMENT_APPENDS_CEILING * 5 < ROW_BYTES_MAX,
    "the list of append ends must fit one SQL value, generously"
);

/// How long a segment stays after nothing references it: longer than any read that was told of it
/// before. Ten times as long for one whose upload may still be under way.
pub const SEGMENT_GRACE_MS: u64 = 60_000;

/// A segment is checked, and read, in blocks of this size: each has a checksum of its own.
pub const SEGMENT_BLOCK_BYTES: u64 = 64 * KIB;

/// Hot bytes that a fork copies. A source with more is rotated first, so that what is left to
/// copy is bounded and the rest is shared.
pub const FORK_COPY_BYTES_MAX: u64 = 16 * MIB;

/// Forks above a fork. A chain is walked once, when a fork is made.
pub const FORK_DEPTH_MAX: u64 = 1024;

/// Bytes of request bodies that wait for their group in one object, and so the most that a group
/// holds. A further append is refused until some are answered: the isolate, with all of its
/// objects, has 128 MB.
pub const BODIES_IN_FLIGHT_BYTES_MAX: u64 = 32 * MIB;

const _: () = assert!(
    BODIES_IN_FLIGHT_BYTES_MAX >= 2 * BODY_BYTES_CEILING,
    "while one largest body is committed, the next one may arrive"
);

/// How far past its anchor a `Stream-Fork-Sub-Offset` may reach in a JSON stream. Counting
/// messages reads their bytes, so the count has an end: twice the largest body.
pub const FORK_SUB_OFFSET_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX;

// Reads.

/// Target size of a catch-up page: large enough that throughput does not depend on round trips,
/// small enough to be cached and held per connection. A single larger message still is one page.
pub const READ_CHUNK_BYTES: u64 = MIB;

/// Largest page that an operator may ask for.
pub const READ_CHUNK_BYTES_CEILING: u64 = 8 * MIB;

/// How long a long-poll waits without data. Proxies commonly cut silent requests after 30 s.
pub const LONG_POLL_TIMEOUT_MS: u64 = 20_000;

/// How long an SSE response lives before the client is made to reconnect, so that new readers can
/// share a cached catch-up (PROTOCOL.md §10.2).
pub const SSE_LIFETIME_MS: u64 = 60_000;

/// How often a silent SSE response gets a comment. Proxies see life, and a departed client is
/// noticed at the next write at the latest.
pub const SSE_COMMENT_INTERVAL_MS: u64 = 5_000;

const _: () = assert!(
    SSE_COMMENT_INTERVAL_MS * 2 <= SSE_LIFETIME_MS,
    "a departed SSE client must be noticed well before its response ends by itself"
);

/// Bytes that a live reader may have been granted and not yet consumed: what a slow client costs
/// on each hop.
pub const LIVE_CREDIT_BYTES: u64 = MIB;

const _: () = assert!(
    LIVE_CREDIT_BYTES >= ROW_BYTES_MAX,
    "a whole row must fit the credit of a reader that is up to date"
);

/// Sockets that the platform gives one object; accepting one more panics.
pub const OBJECT_SOCKETS_MAX: u64 = 32_768;

/// Live readers of one stream, in all modes.
pub const READERS_MAX: u64 = 32_000;

/// Most live readers that an operator may allow.
pub const READERS_CEILING: u64 = 32_500;

/// Long-polls waiting at one stream. Each of them is also one of [`READERS_MAX`].
pub const WAITERS_MAX: u64 = 10_000;

const _: () = assert!(
    WAITERS_MAX <= READERS_MAX && READERS_MAX <= READERS_CEILING,
    "a waiter is a reader, so a larger bound would never be reached"
);
const _: () = assert!(
    READERS_CEILING + 256 <= OBJECT_SOCKETS_MAX,
    "sockets that are closing still count with the platform"
);

/// The limits that an operator may change. Each field is read from the variable of the same name
/// in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds that a long-poll waits: see [`LONG_POLL_TIMEOUT_MS`].
    pub long_poll_timeout_ms: u64,
    /// Milliseconds that an SSE response lives: see [`SSE_LIFETIME_MS`].
    pub sse_lifetime_ms: u64,
    /// Waiting long-polls of a stream: see [`WAITERS_MAX`].
    pub waiters_max: u64,
    /// Live readers of a stream: see [`READERS_MAX`].
    pub readers_max: u64,
    /// Bytes of a request body: see [`BODY_BYTES_MAX`].
    pub body_bytes_max: u64,
    /// Bytes of a catch-up page: see [`READ_CHUNK_BYTES`].
    pub read_chunk_bytes: u64,
    /// Hot bytes of a stream: see [`STREAM_BYTES_MAX`].
    pub stream_bytes_max: u64,
    /// Bytes of a segment: see [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// Appends of a segment: see [`SEGMENT_APPENDS`].
    pub segment_appends: u64,
    /// Milliseconds that an unreferenced segment stays: see [`SEGMENT_GRACE_MS`].
    pub segment_grace_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            long_poll_timeout_ms: LONG_POLL_TIMEOUT_MS,
            sse_lifetime_ms: SSE_LIFETIME_MS,
            waiters_max: WAITERS_MAX,
            readers_max: READERS_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            read_chunk_bytes: READ_CHUNK_BYTES,
            stream_bytes_max: STREAM_BYTES_MAX,
            segment_bytes: SEGMENT_BYTES,
            segment_appends: SEGMENT_APPENDS,
            segment_grace_ms: SEGMENT_GRACE_MS,
        }
    }
}

impl Limits {
    /// Reads the limits from the deployment's variables; one that is not set keeps its default.
    ///
    /// The ranges reach far down, so that tests can run into every limit.
    ///
    /// # Errors
    /// [`InvalidVariable`] for the first variable that is no decimal integer in its range. An
    /// empty variable is set, and so an error.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Limits, InvalidVariable> {
        let default = Limits::default();
        let read = |name, default, min, max| read_variable(&get, name, default, min, max);
        Ok(Limits {
            long_poll_timeout_ms: read(
                "LONG_POLL_TIMEOUT_MS",
                default.long_poll_timeout_ms,
                1,
                90_000,
            )?,
            sse_lifetime_ms: read("SSE_LIFETIME_MS", default.sse_lifetime_ms, 1, 3_600_000)?,
            waiters_max: read("WAITERS_MAX", default.waiters_max, 1, READERS_CEILING)?,
            readers_max: read("READERS_MAX", default.readers_max, 1, READERS_CEILING)?,
            body_bytes_max: read("BODY_BYTES_MAX", default.body_bytes_max, 1, BODY_BYTES_CEILING)?,
            read_chunk_bytes: read(
                "READ_CHUNK_BYTES",
                default.read_chunk_bytes,
                1,
                READ_CHUNK_BYTES_CEILING,
            )?,
            stream_bytes_max: read(
                "STREAM_BYTES_MAX",
                default.stream_bytes_max,
                1,
                STREAM_BYTES_CEILING,
            )?,
            segment_bytes: read("SEGMENT_BYTES", default.segment_bytes, 1, SEGMENT_BYTES_CEILING)?,
            segment_appends: read(
                "SEGMENT_APPENDS",
                default.segment_appends,
                1,
                SEGMENT_APPENDS_CEILING,
            )?,
            segment_grace_ms: read("SEGMENT_GRACE_MS", default.segment_grace_ms, 1, 86_400_000)?,
        })
    }
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

    const NAMES: [&str; 10] = [
        "LONG_POLL_TIMEOUT_MS",
        "SSE_LIFETIME_MS",
        "WAITERS_MAX",
        "READERS_MAX",
        "BODY_BYTES_MAX",
        "READ_CHUNK_BYTES",
        "STREAM_BYTES_MAX",
        "SEGMENT_BYTES",
        "SEGMENT_APPENDS",
        "SEGMENT_GRACE_MS",
    ];

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
        let values = [
            default.long_poll_timeout_ms,
            default.sse_lifetime_ms,
            default.waiters_max,
            default.readers_max,
            default.body_bytes_max,
            default.read_chunk_bytes,
            default.stream_bytes_max,
            default.segment_bytes,
            default.segment_appends,
            default.segment_grace_ms,
        ];
        for (name, value) in NAMES.into_iter().zip(values) {
            assert_eq!(with(name, &value.to_string()), Ok(default), "{name}");
        }
    }

    #[test]
    fn each_variable_sets_its_field() {
        let index = |name: &str| Some((NAMES.iter().position(|n| *n == name)? + 1).to_string());
        let expected = Limits {
            long_poll_timeout_ms: 1,
            sse_lifetime_ms: 2,
            waiters_max: 3,
            readers_max: 4,
            body_bytes_max: 5,
            read_chunk_bytes: 6,
            stream_bytes_max: 7,
            segment_bytes: 8,
            segment_appends: 9,
            segment_grace_ms: 10,
        };
        assert_eq!(Limits::from_vars(index), Ok(expected));
    }

    #[test]
    fn a_bad_value_is_named() {
        for name in NAMES {
            for value in ["", "0", "-1", "1.5", "10s", " 5", "99999999999999999999"] {
                let error = with(name, value).unwrap_err();
                assert_eq!((error.name, error.value.as_str()), (name, value));
            }
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
