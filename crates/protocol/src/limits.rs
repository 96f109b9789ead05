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

mod vars;

pub use vars::{InvalidVariable, Limits};

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

/// Bytes of a whole URL: the longest path, a token in the query, and the parameters of a read.
pub const URL_BYTES_MAX: u64 = 12 * KIB;

/// Bytes of all request headers: the longest of ours together, a token, and what browsers and
/// proxies add.
pub const REQUEST_HEADERS_BYTES_MAX: u64 = 32 * KIB;

/// Bytes of a body of the admin API.
pub const CONFIG_BODY_BYTES_MAX: u64 = 64 * KIB;

/// Bytes of a `Content-Type`; registered names are far shorter, and it is stored per stream.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// Bytes of a `Producer-Id`; stored per producer and repeated in row headers.
pub const PRODUCER_ID_BYTES_MAX: usize = 256;

/// Bytes of a `Stream-Seq`; stored per stream and in row headers.
pub const STREAM_SEQ_BYTES_MAX: usize = 256;

// Tokens and projects.

/// Bytes of a token. Ours have some 200; requests carry them in a header, and the platform cuts
/// those at 32 KiB together.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far the clocks of whoever signs tokens and ours may be apart.
pub const TOKEN_LEEWAY_MS: u64 = 60_000;

/// Bytes of the pattern of streams in a token: the longest path must have one.
pub const STREAM_PATTERN_BYTES_MAX: usize = STREAM_PATH_BYTES_MAX;

/// Characters of a signing secret. Fewer than 32 bytes are weaker than the signature that they
/// make (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Most characters of a signing secret.
pub const SECRET_BYTES_MAX: usize = 256;

/// Signing secrets of a project. Each is tried on every request; a rotation needs two.
pub const SECRETS_MAX: usize = 8;

/// CORS origins of a project: they are compared one by one.
pub const CORS_ORIGINS_MAX: usize = 64;

/// Bytes of a CORS origin: the longest DNS name with scheme and port.
pub const CORS_ORIGIN_BYTES_MAX: usize = 8 + 253 + 6;

/// Bytes of the id of a session: a UUID with prefixes, or a client's own name.
pub const SESSION_ID_BYTES_MAX: usize = 128;

const _: () = assert!(
    "session/".len() + SESSION_ID_BYTES_MAX <= STREAM_PATH_BYTES_MAX,
    "every session must have a stream"
);

/// Characters of the id of a request.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

// Bodies.

/// Largest body of a create or an append. A body is held in memory several times over while it is
/// framed and stored, and an isolate has 128 MB.
pub const BODY_BYTES_MAX: u64 = 8 * MIB;

/// Largest body that an operator may allow.
pub const BODY_BYTES_CEILING: u64 = 16 * MIB;

/// Time for a request body, beside the time that its bytes take at 16 KB a second: whoever sends
/// nothing for so long has gone, or wants to hold the stream's object awake.
pub const BODY_TIMEOUT_MS: u64 = 30_000;

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

// Fan-out.

/// How long a source that has grown leaves it to whoever made it grow to tell its shards, before its
/// alarm does.
pub const FANOUT_PATIENCE_MS: u64 = 1_000;

/// Longest pause before a shard is told again that did not answer.
pub const FANOUT_PAUSE_MS_MAX: u64 = 60_000;

/// Bytes of a range that is delivered at a time, about: JSON ranges end where messages do. A session with
/// envelopes makes up to a kilobyte more of each message, however small, and does so in memory.
pub const FANOUT_RANGE_BYTES: u64 = 64 * KIB;

/// Ranges that a shard holds for members with a position of their own. One may be a message of the largest
/// body.
pub const FANOUT_RANGES_MAX: usize = 4;

/// Bytes of one range that are on their way to members at a time, each counted.
pub const FANOUT_FLYING_BYTES_MAX: u64 = 16 * MIB;

/// Calls to other objects in one run of a shard. The platform allows an invocation 10,000.
pub const FANOUT_CALLS_MAX: u64 = 8_000;

/// Ended lives of one path whose bytes are held; the oldest gives way.
pub const HELD_LIVES_MAX: usize = 16;

// Shared reads at the edge.

/// Seconds for which the edge keeps pages that cannot change: what a browser is told as well. A
/// deleted stream's own pages can be read at their offsets for that long.
pub const EDGE_CACHE_SECONDS: u64 = 60;

/// Longest time that an operator may ask for.
pub const EDGE_CACHE_SECONDS_CEILING: u64 = 86_400;

/// How long an answer stays in the isolate's memory after it has landed: for readers that were on
/// their way, and not for more.
pub const FLIGHT_LINGER_MS: u64 = 200;

/// How long readers make trips of their own after an answer has turned out to be for its reader only.
pub const FLIGHT_APART_MS: u64 = 200;

/// Trips under way that can be joined, landed answers that linger, and reads that turned out to be
/// shared by nobody, of one isolate; each. Of more trips, the one that the fewest readers share can be joined no more.
pub const FLIGHTS_MAX: usize = 1024;

/// Trips under way in one isolate that somebody may share, also those that can be joined no more.
/// Readers beyond them make trips of their own.
pub const FLIGHTS_UNDER_WAY_MAX: usize = 16_384;

/// Readers that wait for one trip. Each costs a promise and a timer.
pub const FLIGHT_WAITERS_MAX: usize = 16_384;

/// Bytes of landed answers that linger in one isolate, of its 128 MB.
pub const FLIGHT_BYTES_MAX: u64 = 16 * MIB;

const _: () = assert!(
    FLIGHT_BYTES_MAX >= 2 * READ_CHUNK_BYTES_CEILING,
    "the largest page that an operator may ask for must be able to linger"
);

/// Bytes of answers that one isolate reads into memory for those who wait for them, of its 128 MB.
/// Beyond it an answer passes through to the reader that began the trip, and the others make their
/// own.
pub const FLIGHT_READING_BYTES_MAX: u64 = 32 * MIB;

/// Larger answers are read into memory only if somebody else waits for them.
pub const FLIGHT_ALONE_BYTES_MAX: u64 = 2 * MIB;

const _: () = assert!(
    FLIGHT_READING_BYTES_MAX >= 2 * READ_CHUNK_BYTES_CEILING,
    "the largest page that an operator may ask for must be able to be shared"
);

/// Longest trip. The platform lets a trip go on for 30 s after the client that began it has left;
/// a longer one would end without a word.
pub const FLIGHT_MS_MAX: u64 = 25_000;

/// How long after its time a trip counts as lost, and those who wait for it begin another one.
pub const FLIGHT_GRACE_MS: u64 = 2_000;

const _: () = assert!(
    FLIGHT_MS_MAX + FLIGHT_GRACE_MS < 30_000 && LONG_POLL_TIMEOUT_MS <= FLIGHT_MS_MAX,
    "a trip must end by itself before the platform ends it; by default, a wait is one trip"
);

/// Failed trips that a reader sits out before it is told of the failure.
pub const FLIGHT_FAILURES_MAX: u32 = 2;

/// Streams whose last write through this isolate is remembered.
pub const FLIGHT_WRITES_MAX: usize = 8192;

// WebSockets.

/// Bytes of a message that a WebSocket client sends. It is held as text and as the append that it
/// becomes; a larger one closes its socket without being parsed.
pub const WS_MESSAGE_BYTES_MAX: u64 = MIB;

/// Largest message that an operator may allow. The platform itself stops at 32 MiB.
pub const WS_MESSAGE_BYTES_CEILING: u64 = 16 * MIB;

const _: () = assert!(
    WS_MESSAGE_BYTES_MAX <= BODY_BYTES_MAX && WS_MESSAGE_BYTES_CEILING <= BODY_BYTES_CEILING,
    "what a frame appends must never be more than what a POST may append"
);

/// Appends that a client may send ahead of their answers. Further ones wait at the edge.
pub const WS_UNACKED_MAX: u64 = 1024;

/// Most unanswered appends that an operator may allow.
pub const WS_UNACKED_CEILING: u64 = 65_536;

const _: () = assert!(
    WS_UNACKED_MAX <= GROUP_APPENDS_MAX,
    "what one client has sent ahead must fit one group, so that one ack can answer all of it"
);

/// Bytes of unanswered appends of one client, the waiting ones included. The platform cannot stop
/// reading a socket, so this is what bounds its memory.
pub const WS_UNACKED_BYTES_MAX: u64 = 8 * MIB;

const _: () = assert!(
    WS_UNACKED_BYTES_MAX >= 2 * WS_MESSAGE_BYTES_MAX,
    "while one largest message is stored, the next one may arrive"
);
const _: () = assert!(
    WS_UNACKED_BYTES_MAX <= BODIES_IN_FLIGHT_BYTES_MAX / 2,
    "one client alone must not fill the object's memory for bodies"
);

/// Frames other than appends that a client may send in a minute. Each costs parsing and nothing
/// else does the client any good in such numbers.
pub const WS_FRAMES_PER_MINUTE: u64 = 1000;

/// Most such frames that an operator may allow.
pub const WS_FRAMES_PER_MINUTE_CEILING: u64 = 1_000_000;

/// Payload of one data frame. A JSON message that is larger is one frame all the same.
pub const WS_SLICE_BYTES: u64 = MIB;

const _: () = assert!(
    WS_SLICE_BYTES >= READ_CHUNK_BYTES,
    "by default, one read of the log must be one frame"
);

/// Bytes in the send buffer of a client's socket above which nothing is added: what a slow client
/// costs at the edge, beside [`LIVE_CREDIT_BYTES`].
pub const SEND_BUFFER_BYTES_MAX: u64 = MIB;

const _: () = assert!(
    SEND_BUFFER_BYTES_MAX >= WS_SLICE_BYTES,
    "one full frame must not fill the buffer for more than the time that it takes to send it"
);

/// How often a full send buffer is looked at: the platform has no event for it.
pub const SEND_BUFFER_POLL_MS: u64 = 50;

/// How long a client may leave its send buffer full before its socket is closed.
pub const SLOW_READER_TIMEOUT_MS: u64 = 30_000;

const _: () = assert!(
    SEND_BUFFER_POLL_MS * 100 <= SLOW_READER_TIMEOUT_MS,
    "a buffer must be looked at many times before its reader counts as slow"
);

/// How long the internal socket of a WebSocket reader lives before the edge connects again. A
/// reader whose end was not noticed holds its place for that long at most.
pub const WS_ATTACH_MS: u64 = 3_600_000;

const _: () = assert!(
    WS_ATTACH_MS >= SSE_LIFETIME_MS,
    "a WebSocket must not cost its object more connections than an SSE reader does"
);

/// Readers that a broadcast serves before other work of the object gets a turn.
pub const BROADCAST_BATCH: u64 = 256;

/// Bytes that a broadcast sends before other work of the object gets a turn, and before what it has
/// sent so far begins to leave the isolate.
pub const BROADCAST_BYTES: u64 = 8 * MIB;

const _: () = assert!(
    READERS_CEILING / BROADCAST_BATCH < 128,
    "a broadcast to the most readers must not wait for more than some hundred turns"
);

// Sessions and fan-out.

/// Seconds without a reader after which a session ends.
pub const SESSION_TTL_SECONDS: u64 = 86_400;

/// Longest such time that a client or an operator may ask for: a session that nobody reads costs a
/// delivery an append until it ends.
pub const SESSION_TTL_SECONDS_CEILING: u64 = 31_536_000;

const _: () = assert!(
    SESSION_TTL_SECONDS <= SESSION_TTL_SECONDS_CEILING
        && SESSION_TTL_SECONDS_CEILING <= TTL_SECONDS_MAX,
    "a session's lifetime is its stream's"
);

/// Sources that one session is subscribed to. Deleting it asks each of them.
pub const SESSION_SUBSCRIPTIONS_MAX: u64 = 1_000;

/// Most of them that an operator may allow.
pub const SESSION_SUBSCRIPTIONS_CEILING: u64 = 10_000;

/// Subscriptions of one request. Each is a conversation of its own, and the platform lets a request
/// hold a thousand.
pub const SUBSCRIBE_BATCH_MAX: usize = 1_000;

const _: () = assert!(
    SUBSCRIBE_BATCH_MAX as u64 <= SESSION_SUBSCRIPTIONS_MAX,
    "by default, a session must be able to take the largest batch"
);

/// Bytes of the body that asks for them.
pub const SUBSCRIBE_BATCH_BYTES_MAX: u64 = MIB;

const _: () = assert!(
    (SUBSCRIBE_BATCH_MAX * (STREAM_PATH_BYTES_MAX + 128)) as u64 <= SUBSCRIBE_BATCH_BYTES_MAX,
    "the largest batch must fit its body, with the longest paths, when nothing is escaped"
);

/// Subscribers to whom a publish delivers before it is answered. With more, the rest follows after the
/// answer.
pub const FANOUT_INLINE_MAX: u64 = 200;

/// Most of them that an operator may ask for.
pub const FANOUT_INLINE_CEILING: u64 = 1_000;

/// Deliveries that a shard has under way at once: each holds its range in memory until it is answered.
pub const FANOUT_CONCURRENCY: u64 = 50;

/// Most of them that an operator may ask for.
pub const FANOUT_CONCURRENCY_CEILING: u64 = 1_000;

/// Milliseconds that one delivery may take before it counts as failed, and is tried again later.
pub const FANOUT_DEADLINE_MS: u64 = 5_000;

/// Longest that an operator may ask for.
pub const FANOUT_DEADLINE_MS_CEILING: u64 = 60_000;

/// Subscribers of one shard of a source: what one object delivers to.
pub const SHARD_MEMBERS_MAX: u64 = 1_000;

/// Most of them that an operator may allow.
pub const SHARD_MEMBERS_CEILING: u64 = 10_000;

const _: () = assert!(
    FANOUT_CONCURRENCY <= FANOUT_INLINE_MAX && FANOUT_INLINE_MAX <= SHARD_MEMBERS_MAX,
    "by default, the root alone must be able to have what is delivered at once, and several rounds of it"
);

/// Shards of one source. The source nudges each of them, and the platform lets a request hold a
/// thousand calls.
pub const SHARDS_MAX: u64 = 500;

/// Most of them that an operator may allow.
pub const SHARDS_CEILING: u64 = 1_000;

const _: () = assert!(SHARDS_MAX <= SHARDS_CEILING, "the default must be one that may be set");

/// How long the bytes of a source that was deleted or has expired are kept for subscribers that lag
/// behind. After that they are told of a gap.
pub const FANOUT_HOLD_MAX_MS: u64 = 86_400_000;

/// Longest that an operator may ask for.
pub const FANOUT_HOLD_MAX_MS_CEILING: u64 = 2_592_000_000;

const _: () = assert!(
    FANOUT_HOLD_MAX_MS > 1_000 * FANOUT_DEADLINE_MS,
    "a failing delivery must have been tried many times before its bytes are given up"
);
