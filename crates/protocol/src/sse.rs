//! Server-sent events of live reads (PROTOCOL.md §5.8).
//!
//! Every encoder appends to a buffer of the caller, so that one write to the socket carries a
//! batch and its control event. Lines are written as `data:` without the optional space; a line
//! that begins with a space gets one more, because readers strip one.
//!
//! **Invariants.** No payload can end its event early: whatever readers take for a line break
//! becomes a `data:` line of its own. Line breaks of text reach readers as `\n`, which is how the
//! format is read; bytes that must survive belong in a stream that is not `text/*`.
//!
//! **Error semantics.** None. An empty payload writes nothing.
//!
//! **What stays out.** When events are written, and where batches are cut; [`utf8_cut`] helps with
//! that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Appends a data event with the messages in `wire`, a range of a JSON stream's log that ends
/// behind a message: a JSON array, a message per line.
///
/// ```text
/// event: data
/// data:[
/// data:{"k":"v"},
/// data:{"k":"w"}
/// data:]
/// ```
pub fn data_event_json(out: &mut Vec<u8>, wire: &[u8]) {
    if wire.is_empty() {
        return;
    }
    let messages = wire.strip_suffix(b",\n").unwrap_or(wire);
    out.reserve(wire.len() + wire.len() / 8 + 64);
    out.extend_from_slice(b"event: data\ndata:[\n");
    for message in messages.split(|byte| *byte == b'\n') {
        line(out, message);
    }
    out.extend_from_slice(b"data:]\n\n");
}

/// Appends a data event with `text`, a range of a `text/*` stream's log.
///
/// CR, LF and CRLF separate lines. What is not UTF-8 becomes U+FFFD, also a character cut in two
/// at either end: see [`utf8_cut`].
pub fn data_event_text(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(text);
    out.reserve(text.len() + text.len() / 8 + 64);
    out.extend_from_slice(b"event: data\n");
    let mut rest: &str = &text;
    while let Some((before, after)) = rest.split_once(['\r', '\n']) {
        line(out, before.as_bytes());
        let is_carriage_return = rest.as_bytes().get(before.len()) == Some(&b'\r');
        let pair = if is_carriage_return { after.strip_prefix('\n') } else { None };
        rest = pair.unwrap_or(after);
    }
    line(out, rest.as_bytes());
    out.push(b'\n');
}

/// Appends a data event with `bytes` as one line of standard base64 (RFC 4648 §4, padded).
pub fn data_event_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.extend_from_slice(b"event: data\ndata:");
    let begin = out.len();
    let length = base64::encoded_len(bytes.len(), true).unwrap_or_default();
    out.resize(begin + length, 0);
    let target = out.get_mut(begin..).unwrap_or_default();
    // The target has the length that the encoder needs, so there is no error to report.
    let written = STANDARD.encode_slice(bytes, target).unwrap_or_default();
    out.truncate(begin + written);
    out.extend_from_slice(b"\n\n");
}

/// Appends the control event that follows a batch.
///
/// `next` is the offset behind the batch. `cursor` is left out when `closed`, since nobody
/// connects again. `up_to_date` says that `next` is the tail; `closed` that it is the end, which
/// implies it.
///
/// ```text
/// event: control
/// data:{"streamNextOffset":"…","streamCursor":"…","upToDate":true,"streamClosed":true}
/// ```
pub fn control_event(
    out: &mut Vec<u8>,
    next: &str,
    cursor: Option<&str>,
    up_to_date: bool,
    closed: bool,
) {
    let members = control_members(next, cursor, up_to_date, closed);
    out.extend_from_slice(format!("event: control\ndata:{{{members}}}\n\n").as_bytes());
}

/// The members of a control object, without its braces.
pub(crate) fn control_members(
    next: &str,
    cursor: Option<&str>,
    up_to_date: bool,
    closed: bool,
) -> String {
    let mut members = format!("\"streamNextOffset\":{}", Value::from(next));
    if let Some(cursor) = cursor.filter(|_| !closed) {
        members.push_str(&format!(",\"streamCursor\":{}", Value::from(cursor)));
    }
    if up_to_date || closed {
        members.push_str(",\"upToDate\":true");
    }
    if closed {
        members.push_str(",\"streamClosed\":true");
    }
    members
}

/// Appends an empty comment: proof of life that readers ignore.
pub fn comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

/// Length of the longest prefix of `bytes` that does not end inside a character of UTF-8.
///
/// At most three bytes are left off. Bytes that no continuation could make valid are not waited
/// for: they count as whole. The rest belongs before the next bytes of the log; at the end of a
/// stream there are none, and it is written as it is.
#[must_use]
pub fn utf8_cut(bytes: &[u8]) -> usize {
    for kept_back in 1..=3 {
        let Some((whole, tail)) =
            bytes.len().checked_sub(kept_back).and_then(|cut| bytes.split_at_checked(cut))
        else {
            break;
        };
        match tail.first() {
            Some(0x80..=0xBF) => {}
            Some(0xC2..=0xF4) => {
                let unfinished =
                    std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
                return if unfinished { whole.len() } else { bytes.len() };
            }
            _ => break,
        }
    }
    bytes.len()
}

/// One `data:` line; `text` holds no line break.
fn line(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(if text.starts_with(b" ") { b"data: " } else { b"data:" });
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::frame_messages;
    use proptest::prelude::*;

    /// The events that a browser dispatches: (name, data).
    fn read_events(stream: &str) -> Vec<(String, String)> {
        let mut events = Vec::new();
        let (mut name, mut data) = (String::new(), None::<String>);
        for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    if let Some(data) = data.take() {
                        events.push((std::mem::take(&mut name), data));
                    }
                }
                "event" => name = value.to_owned(),
                "data" => {
                    let data = data.get_or_insert_default();
                    data.push_str(value);
                    data.push('\n');
                }
                _ => {}
            }
        }
        for (_, data) in &mut events {
            data.pop();
        }
        events
    }

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json() {
        let text = written(|out| data_event_json(out, b"{\"k\":\"v\"},\n[1, 2],\n"));
        assert_eq!(text, "event: data\ndata:[\ndata:{\"k\":\"v\"},\ndata:[1, 2]\ndata:]\n\n");
    }

    #[test]
    fn text() {
        let lines = |bytes: &[u8]| written(|out| data_event_text(out, bytes));
        assert_eq!(lines(b"one"), "event: data\ndata:one\n\n");
        assert_eq!(
            lines(b"a\nb\rc\r\nd\n\re\n"),
            "event: data\ndata:a\ndata:b\ndata:c\ndata:d\ndata:\ndata:e\ndata:\n\n"
        );
        assert_eq!(lines(b" a\n  b"), "event: data\ndata:  a\ndata:   b\n\n");
        assert_eq!(lines(b"a\xFFb"), "event: data\ndata:a\u{FFFD}b\n\n");
        assert_eq!(lines("\u{2028}é".as_bytes()), "event: data\ndata:\u{2028}é\n\n");
    }

    #[test]
    fn binary() {
        let text = written(|out| data_event_base64(out, &[1, 2, 3, 4, 5, 6, 255]));
        assert_eq!(text, "event: data\ndata:AQIDBAUG/w==\n\n");
    }

    #[test]
    fn control() {
        let event = |cursor, up_to_date, closed| {
            written(|out| control_event(out, "1_2", cursor, up_to_date, closed))
        };
        assert_eq!(
            event(Some("7"), false, false),
            "event: control\ndata:{\"streamNextOffset\":\"1_2\",\"streamCursor\":\"7\"}\n\n"
        );
        assert_eq!(
            event(Some("7"), true, false),
            "event: control\ndata:{\"streamNextOffset\":\"1_2\",\"streamCursor\":\"7\",\
             \"upToDate\":true}\n\n"
        );
        for up_to_date in [false, true] {
            assert_eq!(
                event(Some("7"), up_to_date, true),
                "event: control\ndata:{\"streamNextOffset\":\"1_2\",\"upToDate\":true,\
                 \"streamClosed\":true}\n\n"
            );
        }
    }

    #[test]
    fn nothing() {
        let text = written(|out| {
            data_event_json(out, b"");
            data_event_text(out, b"");
            data_event_base64(out, b"");
            comment(out);
        });
        assert_eq!(text, ":\n\n");
        assert_eq!(read_events(&text), []);
    }

    #[test]
    fn cuts() {
        for (bytes, cut) in [
            (&b""[..], 0),
            (b"ab", 2),
            ("é".as_bytes(), 2),
            (b"a\xC3", 1),
            (b"a\xE2\x82", 1),
            (b"\xE2\x82\xAC", 3),
            (b"a\xF0\x9F\x98", 1),
            (b"a\xF0\x9F", 1),
            (b"\xF0\x9F\x98\x80", 4),
            (b"a\x80\x80\x80\x80", 5),
            (b"\xFF", 1),
            (b"\xC0", 1),
            (b"\xE0\x80", 2),
            (b"\xED\xA0", 2),
            (b"\xF5", 1),
            (b"\xC3\xC3", 1),
        ] {
            assert_eq!(utf8_cut(bytes), cut, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn text_reaches_the_reader(text in "[ab:é \r\n\0\u{2028}]{1,40}") {
            let stream = written(|out| {
                data_event_text(out, text.as_bytes());
                control_event(out, "1_2", None, true, false);
            });
            let events = read_events(&stream);
            prop_assert_eq!(events.len(), 2);
            let normal = text.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(&events[0], &("data".to_owned(), normal));
            prop_assert_eq!(&events[1].0, "control");
        }

        #[test]
        fn arbitrary_bytes_stay_one_event(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            let events = read_events(&written(|out| data_event_text(out, &bytes)));
            prop_assert_eq!(events.len(), 1);
            let events = read_events(&written(|out| data_event_base64(out, &bytes)));
            prop_assert_eq!(STANDARD.decode(&events[0].1).ok(), Some(bytes));
        }

        #[test]
        fn messages_reach_the_reader(numbers in prop::collection::vec("\"[ -!#-Z]{0,9}\"", 1..9)) {
            let body = format!("[{}]", numbers.join(" , "));
            let wire = frame_messages(body.as_bytes()).unwrap().wire;
            let events = read_events(&written(|out| data_event_json(out, &wire)));
            prop_assert_eq!(events.len(), 1);
            let read: Value = serde_json::from_str(&events[0].1).unwrap();
            prop_assert_eq!(read, serde_json::from_str::<Value>(&body).unwrap());
        }

        #[test]
        fn control_strings_are_escaped(next: String, cursor: String) {
            let stream = written(|out| control_event(out, &next, Some(&cursor), false, false));
            let events = read_events(&stream);
            let read: Value = serde_json::from_str(&events[0].1).unwrap();
            prop_assert_eq!(&read["streamNextOffset"], next.as_str());
            prop_assert_eq!(&read["streamCursor"], cursor.as_str());
        }

        #[test]
        fn cut_text_loses_nothing(text: String, parts in prop::collection::vec(1..7_usize, 1..40)) {
            let (mut rest, mut carried, mut read) = (text.as_bytes(), Vec::new(), String::new());
            for part in parts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(part.min(rest.len()));
                carried.extend_from_slice(now);
                let whole: Vec<u8> = carried.drain(..utf8_cut(&carried)).collect();
                prop_assert!(carried.len() <= 3);
                read.push_str(std::str::from_utf8(&whole).unwrap());
                rest = later;
            }
            prop_assert_eq!(read, text);
        }

        #[test]
        fn a_cut_leaves_off_only_unfinished_characters(bytes: Vec<u8>) {
            let (whole, rest) = bytes.split_at(utf8_cut(&bytes));
            let pieces = String::from_utf8_lossy(whole) + String::from_utf8_lossy(rest);
            prop_assert_eq!(pieces, String::from_utf8_lossy(&bytes));
            prop_assert!(rest.is_empty() || std::str::from_utf8(rest).unwrap_err().error_len().is_none());
        }
    }
}
