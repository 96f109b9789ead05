//! Header names, and the header values that have no module of their own.
//!
//! **Error semantics.** A `Stream-Closed` or `Stream-Public` value other than `true` counts as absent
//! and is no error (PROTOCOL.md §4.1); the other values are refused with an error that names the header.
//!
//! **What stays out.** Values with a module of their own: offsets, content types, producers,
//! lifetimes, entity tags, references to other streams.

use std::fmt;

use crate::decimal;
use crate::limits::{SAFE_INTEGER_MAX, STREAM_SEQ_BYTES_MAX};

/// Names of headers that we read or write, in lower case.
pub mod name {
    /// Offset to read from next (response).
    pub const STREAM_NEXT_OFFSET: &str = "stream-next-offset";
    /// Cursor to echo in the next live read (response).
    pub const STREAM_CURSOR: &str = "stream-cursor";
    /// How the edge came by the answer to a GET: `hit`, `coalesced`, `miss` or `bypass`.
    pub const STREAM_CACHE: &str = "stream-cache";
    /// `true` when the response reaches the tail.
    pub const STREAM_UP_TO_DATE: &str = "stream-up-to-date";
    /// `true` closes (request) or tells that the end was reached (response).
    pub const STREAM_CLOSED: &str = "stream-closed";
    /// `true`: readable without a token (request: from its creation on; response: it is so).
    pub const STREAM_PUBLIC: &str = "stream-public";
    /// The writer's own sequence, compared as bytes (request).
    pub const STREAM_SEQ: &str = "stream-seq";
    /// Sliding time to live in seconds.
    pub const STREAM_TTL: &str = "stream-ttl";
    /// Absolute expiry, RFC 3339.
    pub const STREAM_EXPIRES_AT: &str = "stream-expires-at";
    /// URL path of a fork's source (request).
    pub const STREAM_FORKED_FROM: &str = "stream-forked-from";
    /// Offset at which a fork leaves its source (request).
    pub const STREAM_FORK_OFFSET: &str = "stream-fork-offset";
    /// Messages or bytes past the fork offset (request).
    pub const STREAM_FORK_SUB_OFFSET: &str = "stream-fork-sub-offset";
    /// `base64` on SSE responses of binary streams.
    pub const STREAM_SSE_DATA_ENCODING: &str = "stream-sse-data-encoding";
    /// Subscribers at the time of a publish (response).
    pub const STREAM_FANOUT_COUNT: &str = "stream-fanout-count";
    /// Those that have what was published (response).
    pub const STREAM_FANOUT_SUCCESSES: &str = "stream-fanout-successes";
    /// Those to whom it could not be delivered yet (response).
    pub const STREAM_FANOUT_FAILURES: &str = "stream-fanout-failures";
    /// How the rest is delivered: `inline`, `queued` or `deferred` (response).
    pub const STREAM_FANOUT_MODE: &str = "stream-fanout-mode";
    /// `1` marks the request of a publish on its way to the stream's object (internal).
    pub const STREAM_PUBLISH: &str = "x-durable-streams-publish";
    /// Who writes.
    pub const PRODUCER_ID: &str = "producer-id";
    /// Which run of the producer; on 403 the current one.
    pub const PRODUCER_EPOCH: &str = "producer-epoch";
    /// Which request of the run; on success the highest accepted.
    pub const PRODUCER_SEQ: &str = "producer-seq";
    /// The sequence number that a gap left out (response, 409).
    pub const PRODUCER_EXPECTED_SEQ: &str = "producer-expected-seq";
    /// The sequence number that came instead (response, 409).
    pub const PRODUCER_RECEIVED_SEQ: &str = "producer-received-seq";

    /// RFC 9110 §8.8.3.
    pub const ETAG: &str = "etag";
    /// RFC 9110 §13.1.2.
    pub const IF_NONE_MATCH: &str = "if-none-match";
    /// RFC 9111 §5.2.
    pub const CACHE_CONTROL: &str = "cache-control";
    /// RFC 9110 §8.3.
    pub const CONTENT_TYPE: &str = "content-type";
    /// RFC 9110 §8.6.
    pub const CONTENT_LENGTH: &str = "content-length";
    /// RFC 9110 §10.2.2.
    pub const LOCATION: &str = "location";
    /// RFC 9110 §10.2.1, on 405.
    pub const ALLOW: &str = "allow";
    /// RFC 9110 §10.2.3, on 429 and 503.
    pub const RETRY_AFTER: &str = "retry-after";
    /// RFC 9110 §7.8.
    pub const UPGRADE: &str = "upgrade";
    /// Subprotocols that a WebSocket client offers, and the one that was chosen (RFC 6455 §11.3.4).
    pub const SEC_WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";
    /// RFC 9110 §11.6.1, on 401.
    pub const WWW_AUTHENTICATE: &str = "www-authenticate";
    /// W3C Trace Context.
    pub const TRACEPARENT: &str = "traceparent";
    /// `true` asks for `Server-Timing` (request).
    pub const STREAM_TIMING: &str = "stream-timing";
    /// W3C Server Timing.
    pub const SERVER_TIMING: &str = "server-timing";
    /// RFC 9110 §12.5.5.
    pub const VARY: &str = "vary";
    /// On the bytes of streams: no document of the service's origin (CSP Level 3).
    pub const CONTENT_SECURITY_POLICY: &str = "content-security-policy";
    /// `nosniff` on every response (PROTOCOL.md §12.7).
    pub const X_CONTENT_TYPE_OPTIONS: &str = "x-content-type-options";
    /// `cross-origin` on every response (PROTOCOL.md §12.7).
    pub const CROSS_ORIGIN_RESOURCE_POLICY: &str = "cross-origin-resource-policy";
    /// Fetch standard: the origin that asks (request).
    pub const ORIGIN: &str = "origin";
    /// Fetch standard: the origin that may read the response.
    pub const ACCESS_CONTROL_ALLOW_ORIGIN: &str = "access-control-allow-origin";
    /// Fetch standard: methods that a preflight allows.
    pub const ACCESS_CONTROL_ALLOW_METHODS: &str = "access-control-allow-methods";
    /// Fetch standard: request headers that a preflight allows.
    pub const ACCESS_CONTROL_ALLOW_HEADERS: &str = "access-control-allow-headers";
    /// Fetch standard: response headers that scripts may read.
    pub const ACCESS_CONTROL_EXPOSE_HEADERS: &str = "access-control-expose-headers";
    /// Fetch standard: seconds for which a preflight's answer holds.
    pub const ACCESS_CONTROL_MAX_AGE: &str = "access-control-max-age";
}

/// Whether a `Stream-Closed` header says closed: `true` in any case, and nothing else
/// (PROTOCOL.md §4.1).
#[must_use]
pub fn is_closed(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Whether a `Stream-Public` header says public: `true` in any case, and nothing else.
#[must_use]
pub fn is_public(value: Option<&str>) -> bool {
    is_closed(value)
}

/// A `Stream-Seq` value (PROTOCOL.md §5.2). Ordered byte by byte.
///
/// 1 to [`STREAM_SEQ_BYTES_MAX`] bytes of printable ASCII. Spaces are allowed inside, since HTTP
/// carries them unchanged, but not at the ends, where HTTP strips them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSeq(Box<str>);

impl StreamSeq {
    /// Reads a header value.
    ///
    /// # Errors
    /// [`InvalidStreamSeq`] for any other text.
    pub fn parse(text: &str) -> Result<StreamSeq, InvalidStreamSeq> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let valid = printable
            && (1..=STREAM_SEQ_BYTES_MAX).contains(&text.len())
            && !text.starts_with(' ')
            && !text.ends_with(' ');
        if valid { Ok(StreamSeq(text.into())) } else { Err(InvalidStreamSeq) }
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a `Stream-Fork-Sub-Offset` value (PROTOCOL.md §4.2): messages of a JSON stream, bytes of
/// any other. Decimal without sign or leading zeros, at most [`SAFE_INTEGER_MAX`].
///
/// # Errors
/// [`InvalidSubOffset`] for any other text.
pub fn parse_sub_offset(text: &str) -> Result<u64, InvalidSubOffset> {
    decimal::parse(text, SAFE_INTEGER_MAX).ok_or(InvalidSubOffset)
}

/// The text is no [`StreamSeq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidStreamSeq;

impl fmt::Display for InvalidStreamSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream-seq is not 1 to {STREAM_SEQ_BYTES_MAX} printable ASCII characters")
    }
}

impl std::error::Error for InvalidStreamSeq {}

/// The text is no sub-offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSubOffset;

impl fmt::Display for InvalidSubOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream-fork-sub-offset is not a decimal integer from 0 to 2^53-1")
    }
}

impl std::error::Error for InvalidSubOffset {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_true_closes() {
        assert!(is_closed(Some("true")) && is_closed(Some("TRUE")) && is_closed(Some("True")));
        for value in [None, Some(""), Some("false"), Some("yes"), Some("1"), Some(" true")] {
            assert!(!is_closed(value), "{value:?}");
        }
    }

    #[test]
    fn only_true_is_public() {
        assert!(is_public(Some("true")) && is_public(Some("TRUE")));
        for value in [None, Some(""), Some("false"), Some("public"), Some("1")] {
            assert!(!is_public(value), "{value:?}");
        }
    }

    #[test]
    fn sub_offsets() {
        assert_eq!(parse_sub_offset("0"), Ok(0));
        assert_eq!(parse_sub_offset("9007199254740991"), Ok(SAFE_INTEGER_MAX));
        for text in ["", "-1", "abc", "1.5", "05", "+1", " 1", "9007199254740992"] {
            assert_eq!(parse_sub_offset(text), Err(InvalidSubOffset), "{text:?}");
        }
    }

    #[test]
    fn stream_seq_syntax() {
        assert!(StreamSeq::parse("2026-01-01 00:00").is_ok());
        assert!(StreamSeq::parse(&"9".repeat(STREAM_SEQ_BYTES_MAX)).is_ok());
        let long = "9".repeat(STREAM_SEQ_BYTES_MAX + 1);
        for text in ["", " ", " a", "a ", "a\tb", "é", "a\nb", &long] {
            assert_eq!(StreamSeq::parse(text), Err(InvalidStreamSeq), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn stream_seq_sorts_as_bytes(a in "[!-~]{1,40}", b in "[!-~]{1,40}") {
            let (left, right) = (StreamSeq::parse(&a).unwrap(), StreamSeq::parse(&b).unwrap());
            prop_assert_eq!(left.cmp(&right), a.as_bytes().cmp(b.as_bytes()));
        }

        #[test]
        fn whatever_is_accepted_prints_the_same(text in "\\PC*|[ -~]{0,300}") {
            if let Ok(seq) = StreamSeq::parse(&text) {
                prop_assert_eq!(seq.as_str(), &text);
            }
            if let Ok(sub_offset) = parse_sub_offset(&text) {
                prop_assert_eq!(sub_offset.to_string(), text);
            }
        }
    }
}
