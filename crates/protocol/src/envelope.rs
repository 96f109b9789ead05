//! Messages of a session's stream that name where they are from.
//!
//! ```text
//! {"stream":"<path>","offset":"<offset after it>","data":<message>}                   envelope
//! {"stream":"<path>","offset":"<offset after it>","gap":{"from":"<…>","to":"<…>"}}    envelope, lost
//! {"gap":{"stream":"<path>","from":"<offset>","to":"<offset>"}}                       plain, lost
//! ```
//!
//! **Invariants.** What goes in and comes out is the wire form of JSON streams: every message is its
//! own text followed by `,\n`. The text of `data` is not changed.
//!
//! **Error semantics.** None: bytes without a line end are wrapped as one message.
//!
//! **What stays out.** Who is subscribed to what, and which bytes are to be wrapped.

use crate::offset::{Generation, Offset, Position};

/// Wraps each message of `wire`. `path` is the source's path without its project, `start` the
/// position of the first byte in the source, `offsets` the generation that offsets there carry.
#[must_use]
pub fn wrap_messages(wire: &[u8], path: &str, offsets: Generation, start: Position) -> Vec<u8> {
    let head = format!(r#"{{"stream":{},"offset":""#, quoted(path));
    let mut wrapped = Vec::new();
    let mut position = start;
    for message in wire.split_inclusive(|byte| *byte == b'\n') {
        position = position.saturating_add_bytes(message.len() as u64);
        let data = message.strip_suffix(b",\n").unwrap_or(message);
        let offset = Offset { generation: offsets, position }.to_string();
        for part in [head.as_bytes(), offset.as_bytes(), br#"","data":"#, data, b"},\n"] {
            wrapped.extend_from_slice(part);
        }
    }
    wrapped
}

/// The message that tells of lost ones: everything of the source `path` from `from` to `to`.
#[must_use]
pub fn gap_message(path: &str, from: Offset, to: Offset, is_enveloped: bool) -> Vec<u8> {
    let stream = quoted(path);
    let message = if is_enveloped {
        format!(r#"{{"stream":{stream},"offset":"{to}","gap":{{"from":"{from}","to":"{to}"}}}}"#)
    } else {
        format!(r#"{{"gap":{{"stream":{stream},"from":"{from}","to":"{to}"}}}}"#)
    };
    let mut wire = message.into_bytes();
    wire.extend_from_slice(b",\n");
    wire
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::frame_messages;

    const GENERATION: Generation = Generation(7);

    fn at(position: u64) -> Offset {
        Offset { generation: GENERATION, position: Position(position) }
    }

    #[test]
    fn each_message_is_wrapped_with_the_offset_after_it() {
        let wire = wrap_messages(b"1,\n{\"a\":[2, 3]},\n", "a/\"b\"", GENERATION, Position(10));
        let expected = format!(
            "{{\"stream\":\"a/\\\"b\\\"\",\"offset\":\"{}\",\"data\":1}},\n\
             {{\"stream\":\"a/\\\"b\\\"\",\"offset\":\"{}\",\"data\":{{\"a\":[2, 3]}}}},\n",
            at(13),
            at(27),
        );
        assert_eq!(String::from_utf8(wire).unwrap(), expected);
        assert!(wrap_messages(b"", "a", GENERATION, Position(0)).is_empty());
    }

    #[test]
    fn wrapped_messages_are_framed_already() {
        let messages = wrap_messages(b"null,\n\"x\",\n", "p\u{2028}", GENERATION, Position(0));
        let gaps = [true, false].map(|is| gap_message("p", at(3), at(9), is));
        for wire in [messages, gaps.concat()] {
            let body = [b"[", wire.strip_suffix(b",\n").unwrap(), b"]"].concat();
            let framed = frame_messages(&body).unwrap();
            assert_eq!((framed.wire, framed.messages), (wire, 2));
        }
    }
}
