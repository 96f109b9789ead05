//! Which request a line of a log belongs to: W3C trace context, and ids of requests.
//!
//! ```text
//! traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//!              │  └ trace                          └ span of the caller└ flags
//!              └ version
//! ```
//!
//! **Invariants.** No id is all zeros. What is printed has version 00, whatever was read, and of
//! the flags only the one that version 00 knows.
//!
//! **Error semantics.** `None`: a header that cannot be read is as good as none, and a request is
//! never refused for it.
//!
//! **What stays out.** Random ids, `tracestate`, and where spans are written.

use std::fmt;

use crate::limits::REQUEST_ID_BYTES_MAX;

/// Bytes of a `traceparent` of version 00, and of what each later version begins with.
const TRACEPARENT_BYTES: usize = 55;
/// The flag that the caller keeps this trace.
const SAMPLED: u8 = 1;

/// The header `traceparent`: a trace, and the span in it that calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    is_sampled: bool,
}

impl TraceParent {
    /// The first span of a trace, of two random numbers; `None` when one of them is 0.
    #[must_use]
    pub fn new(trace: u128, span: u64, is_sampled: bool) -> Option<TraceParent> {
        (trace != 0 && span != 0).then_some(TraceParent { trace, span, is_sampled })
    }

    /// Reads a header. A version above 00 may have more behind a further `-`, which is ignored.
    #[must_use]
    pub fn parse(header: &str) -> Option<TraceParent> {
        let (known, behind) = header.split_at_checked(TRACEPARENT_BYTES)?;
        let mut fields = known.split('-');
        let version = hex(fields.next()?, 2)?;
        let trace = hex(fields.next()?, 32)?;
        let span = hex(fields.next()?, 16)?;
        let flags = hex(fields.next()?, 2)?;
        let is_valid = match version {
            0x00 => behind.is_empty(),
            0xff => false,
            _ => behind.is_empty() || behind.starts_with('-'),
        };
        if !is_valid || fields.next().is_some() {
            return None;
        }
        let is_sampled = flags & u128::from(SAMPLED) != 0;
        TraceParent::new(trace, u64::try_from(span).ok()?, is_sampled)
    }

    /// The id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The id of the calling span: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// Whether the caller keeps this trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The same trace with `span`, a random number, as the one that calls. 0 is no span and stands
    /// for 1.
    #[must_use]
    pub fn child(&self, span: u64) -> TraceParent {
        TraceParent { span: span.max(1), ..*self }
    }
}

/// The header.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.is_sampled { SAMPLED } else { 0 };
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// What names a request in logs and answers: 1 to [`REQUEST_ID_BYTES_MAX`] ASCII letters, digits or
/// `-`, such as the platform's `cf-ray`. Nothing that could end a line or a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Reads an id; `None` when its length or a character is not allowed.
    #[must_use]
    pub fn parse(text: &str) -> Option<RequestId> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_valid =
            (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_legal);
        is_valid.then(|| RequestId(text.into()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Exactly `digits` lower-case hexadecimal digits, at most 32.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_legal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(is_legal) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_is_read_and_printed() {
        let parent = TraceParent::parse(HEADER).unwrap();
        assert_eq!(parent.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id(), "b7ad6b7169203331");
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), HEADER);
        let child = parent.child(0xff);
        assert_eq!(child.to_string(), "00-0af7651916cd43dd8448eb211c80319c-00000000000000ff-01");
        assert_eq!(parent.child(0), parent.child(1));
        let parent = TraceParent::parse(&HEADER.replace("-01", "-fe")).unwrap();
        assert_eq!(parent.to_string(), HEADER.replace("-01", "-00"));
    }

    #[test]
    fn later_versions_may_have_more() {
        for later in [HEADER.replacen("00", "01", 1), HEADER.replacen("00", "cc", 1)] {
            let parent = TraceParent::parse(HEADER);
            assert_eq!(TraceParent::parse(&later), parent);
            assert_eq!(TraceParent::parse(&format!("{later}-what-ever")), parent);
            assert_eq!(TraceParent::parse(&format!("{later}-")), parent);
            assert_eq!(TraceParent::parse(&format!("{later}.x")), None);
        }
    }

    #[test]
    fn what_is_no_header() {
        for bad in [
            String::new(),
            HEADER[..54].to_owned(),
            format!("{HEADER}-"),
            format!("{HEADER}0"),
            format!(" {HEADER}"),
            HEADER.replacen("00", "ff", 1),
            HEADER.replacen("00", "0x", 1),
            HEADER.to_uppercase(),
            HEADER.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            HEADER.replace("b7ad6b7169203331", &"0".repeat(16)),
            HEADER.replace('-', "_"),
            HEADER.replace("-b7ad", "b-7ad"),
            HEADER.replace("-01", "-+1"),
            "é".repeat(40),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
        assert_eq!(TraceParent::new(0, 1, true), None);
        assert_eq!(TraceParent::new(1, 0, true), None);
    }

    #[test]
    fn ids_of_requests() {
        for good in ["a", "230b030023ae2822-SJC", &"0".repeat(64)] {
            assert_eq!(RequestId::parse(good).map(|id| id.to_string()).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a\n", "a_b", "é", &"0".repeat(65)] {
            assert_eq!(RequestId::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(trace in 1..=u128::MAX, span in 1..=u64::MAX, sampled: bool) {
            let parent = TraceParent::new(trace, span, sampled).unwrap();
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String, hex in "[0-9a-f-]{50,60}") {
            for text in [text, hex] {
                if let Some(parent) = TraceParent::parse(&text) {
                    prop_assert_eq!(parent.to_string().len(), TRACEPARENT_BYTES);
                }
            }
        }
    }
}
