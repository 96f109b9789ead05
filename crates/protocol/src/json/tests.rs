//! Tests of the framing against examples, against serde_json, and of its speed.

use super::*;
use crate::limits::JSON_DEPTH_MAX;
use JsonErrorKind as Kind;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

fn wire(body: &str) -> String {
    String::from_utf8(frame_messages(body.as_bytes()).unwrap().wire).unwrap()
}

fn fault(body: &[u8]) -> (usize, Kind) {
    match frame_messages(body) {
        Err(JsonError::Invalid { position, kind }) => (position, kind),
        other => panic!("{other:?}"),
    }
}

/// A response body made of `wire`, as reads make it.
fn reassemble(wire: &[u8]) -> Vec<u8> {
    let messages = wire.strip_suffix(b",\n").unwrap_or(wire);
    [b"[", messages, b"]"].concat()
}

#[test]
fn flattens_one_level() {
    for (body, expected, messages) in [
        (r#"{"event":"created"}"#, "{\"event\":\"created\"},\n", 1),
        (r#"[{"event":"a"}, {"event":"b"}]"#, "{\"event\":\"a\"},\n{\"event\":\"b\"},\n", 2),
        ("[[1,2], [3,4]]", "[1,2],\n[3,4],\n", 2),
        ("[[[1,2,3]]]", "[[1,2,3]],\n", 1),
        ("[]", "", 0),
        (" [ \r\n ] ", "", 0),
        ("[[]]", "[],\n", 1),
        ("null", "null,\n", 1),
        (" \t\r\n-0.5e+10 ", "-0.5e+10,\n", 1),
        ("[true,false,null,\"\",0]", "true,\nfalse,\nnull,\n\"\",\n0,\n", 5),
    ] {
        let framed = frame_messages(body.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(framed.wire).unwrap(), expected, "{body}");
        assert_eq!(framed.messages, messages, "{body}");
    }
}

#[test]
fn line_breaks_become_spaces() {
    assert_eq!(wire("{\r\n\t\"a\" :\n1\r}\n"), "{  \t\"a\" : 1 },\n");
    assert_eq!(wire("[\n[\n1\n]\n,\n\"\\n\"\n]"), "[ 1 ],\n\"\\n\",\n");
}

#[test]
fn keeps_the_text() {
    let body = r#"{"b":1.50e0,"a":"\u00e9\/é","a":[ ]}"#;
    assert_eq!(wire(body), format!("{body},\n"));
}

#[test]
fn lone_surrogates_are_legal() {
    assert_eq!(wire(r#""\uD800""#), "\"\\uD800\",\n");
    assert_eq!(wire(r#"["\udc00x", {"\uD83D":0}]"#), "\"\\udc00x\",\n{\"\\uD83D\":0},\n");
}

#[test]
fn nothing_at_all() {
    for body in ["", " ", "\r\n\t "] {
        assert_eq!(frame_messages(body.as_bytes()), Err(JsonError::Empty));
    }
}

#[test]
fn faults() {
    for (body, position, kind) in [
        (&b"\xEF\xBB\xBF1"[..], 0, Kind::ByteOrderMark),
        (b"\"a\xFF\"", 2, Kind::NotUtf8),
        (b"\"\xED\xA0\x80\"", 1, Kind::NotUtf8),
        (b"[1", 2, Kind::UnexpectedEnd),
        (b"{\"a", 3, Kind::UnexpectedEnd),
        (b"\"\\", 2, Kind::UnexpectedEnd),
        (b"[1,]", 3, Kind::UnexpectedByte),
        (b"[,1]", 1, Kind::UnexpectedByte),
        (b"[1 2]", 3, Kind::UnexpectedByte),
        (b"{\"a\":1,}", 7, Kind::UnexpectedByte),
        (b"{\"a\" 1}", 5, Kind::UnexpectedByte),
        (b"{1:1}", 1, Kind::UnexpectedByte),
        (b"[{]}", 2, Kind::UnexpectedByte),
        (b"{\"a\":[1}", 7, Kind::UnexpectedByte),
        (b"]", 0, Kind::UnexpectedByte),
        (b"tru", 0, Kind::UnexpectedByte),
        (b"True", 0, Kind::UnexpectedByte),
        (b"NaN", 0, Kind::UnexpectedByte),
        (b"'a'", 0, Kind::UnexpectedByte),
        (b"\x0B1", 0, Kind::UnexpectedByte),
        (b"\xC2\xA01", 0, Kind::UnexpectedByte),
        (b"\"a\nb\"", 2, Kind::ControlCharacter),
        (b"\"a\x00\"", 2, Kind::ControlCharacter),
        (b"\"\\x\"", 1, Kind::InvalidEscape),
        (b"\"\\u12g4\"", 1, Kind::InvalidEscape),
        (b"\"\\u12", 1, Kind::InvalidEscape),
        (b"-", 1, Kind::InvalidNumber),
        (b"+1", 0, Kind::UnexpectedByte),
        (b"1.", 2, Kind::InvalidNumber),
        (b"1e+", 3, Kind::InvalidNumber),
        (b".5", 0, Kind::UnexpectedByte),
        (b"01", 1, Kind::TrailingData),
        (b"{} {}", 3, Kind::TrailingData),
        (b"1,2", 1, Kind::TrailingData),
        (b"[]]", 2, Kind::TrailingData),
        (b"nullx", 4, Kind::TrailingData),
    ] {
        assert_eq!(fault(body), (position, kind), "{:?}", String::from_utf8_lossy(body));
    }
}

#[test]
fn depth() {
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert_eq!(wire(&nested(JSON_DEPTH_MAX)), nested(JSON_DEPTH_MAX - 1) + ",\n");
    let too_deep = nested(JSON_DEPTH_MAX + 1);
    assert_eq!(fault(too_deep.as_bytes()), (JSON_DEPTH_MAX, Kind::TooDeep));
    assert_eq!(fault("[".repeat(1 << 20).as_bytes()), (JSON_DEPTH_MAX, Kind::TooDeep));
}

#[test]
fn kinds_of_containers_survive_nesting() {
    // Objects and arrays alternate irregularly across word borders of the bit stack.
    let object = |level: usize| level * level % 7 < 3;
    let open: String = (0..1000).map(|i| if object(i) { "{\"k\":" } else { "[" }).collect();
    let close: String = (0..1000).rev().map(|i| if object(i) { "}" } else { "]" }).collect();
    assert!(frame_messages(format!("{open}1{close}").as_bytes()).is_ok());
    for wrong in 0..1000 {
        let mut bytes = format!("{open}1{close}").into_bytes();
        let at = bytes.len() - 1 - wrong;
        bytes[at] = if bytes[at] == b']' { b'}' } else { b']' };
        assert_eq!(fault(&bytes), (at, Kind::UnexpectedByte));
    }
}

#[test]
fn every_truncation_is_refused() {
    let body = r#"[{"a":[1.5e-3,"\u00e9é\\"],"b":{}},true,[null,false]]"#.as_bytes();
    for length in 0..body.len() {
        assert!(frame_messages(&body[..length]).is_err(), "{length}");
    }
}

#[test]
fn boundaries() {
    let log = b"{},\n[1],\n\"x";
    assert_eq!(scan_boundary_back(log), Some(9));
    assert_eq!(scan_boundary_back(&log[..3]), None);
    assert_eq!(scan_boundary_back(b""), None);
    assert_eq!(nth_message_end(log, 0), Some(0));
    assert_eq!(nth_message_end(log, 1), Some(4));
    assert_eq!(nth_message_end(log, 2), Some(9));
    assert_eq!(nth_message_end(log, 3), None);
    assert_eq!(nth_message_end(log, u64::MAX), None);
}

/// JSON text with random white space, escapes and nesting.
fn document() -> impl Strategy<Value = String> {
    let space = "[ \t\r\n]{0,3}";
    let text = prop_oneof![
        "\"[^\"\\\\\\x00-\\x1f]{0,20}\"",
        r#""([ -!#-\[\]-~é]|\\["\\/bfnrt]|\\u00[0-9a-fA-F]{2}){0,12}""#,
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?",
        text.clone(),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let item = (space, inner.clone(), space).prop_map(|(a, b, c)| a + &b + &c);
        let member = (space, text.clone(), space, item.clone())
            .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
        prop_oneof![
            (space, prop::collection::vec(item, 0..6)).prop_map(|(space, items)| {
                if items.is_empty() {
                    format!("[{space}]")
                } else {
                    format!("[{}]", items.join(","))
                }
            }),
            prop::collection::vec(member, 0..6)
                .prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// A document with a few bytes replaced, inserted or removed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(b"[]{},:\"\\ \r\n0-+.eEtrufalsn1/".to_vec()),
        any::<u8>(),
    ];
    let edit = (any::<prop::sample::Index>(), byte, 0..3);
    (document(), prop::collection::vec(edit, 1..4)).prop_map(|(document, edits)| {
        let mut bytes = document.into_bytes();
        for (index, byte, action) in edits {
            let at = index.index(bytes.len() + 1);
            match action {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => {}
            }
        }
        bytes
    })
}

/// Whether serde_json takes `body`. Ignored values are not converted, so that neither lone
/// surrogates nor the range of numbers matter.
fn serde_accepts(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// The values that `body` holds as messages, when serde_json can convert them.
fn messages_of(body: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(messages) => Some(messages),
        message => Some(vec![message]),
    }
}

fn agrees_with_serde(body: &[u8]) {
    let framed = frame_messages(body);
    assert_eq!(framed.is_ok(), serde_accepts(body), "{:?}", String::from_utf8_lossy(body));
    let Ok(framed) = framed else { return };
    if let Some(messages) = messages_of(body) {
        assert_eq!(framed.messages, messages.len() as u64);
        let read: Vec<Value> = serde_json::from_slice(&reassemble(&framed.wire)).unwrap();
        assert_eq!(read, messages);
        let lines = framed.wire.split_inclusive(|byte| *byte == b'\n');
        for (line, message) in lines.zip(&messages) {
            let line = line.strip_suffix(b",\n").unwrap();
            assert_eq!(&serde_json::from_slice::<Value>(line).unwrap(), message);
            assert_eq!(line.trim_ascii(), line);
        }
    }
    assert!(!framed.wire.contains(&b'\r'));
    assert!(framed.wire.len() <= body.len() * 3 / 2 + 2);
    assert_eq!(frame_messages(&reassemble(&framed.wire)), Ok(framed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn documents_agree_with_serde(document in document()) {
        prop_assert!(frame_messages(document.as_bytes()).is_ok(), "{document}");
        agrees_with_serde(document.as_bytes());
    }

    #[test]
    fn mutated_documents_agree_with_serde(body in mutated()) {
        agrees_with_serde(&body);
    }

    #[test]
    fn token_soup_agrees_with_serde(body in r#"([\[\]{},:" \n]|"a"|1|-0|1e5|true|null|\\u){0,12}"#) {
        agrees_with_serde(body.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_agree_with_serde(body: Vec<u8>) {
        agrees_with_serde(&body);
    }

    #[test]
    fn boundaries_agree_with_each_other(log in "([0-9],\n){0,9}[0-9]{0,3}") {
        let last = scan_boundary_back(log.as_bytes());
        let ends = log.matches('\n').count() as u64;
        prop_assert_eq!(nth_message_end(log.as_bytes(), ends), Some(last.unwrap_or(0)));
        prop_assert_eq!(nth_message_end(log.as_bytes(), ends + 1), None);
    }
}

/// `cargo test -p protocol --release -- --ignored --nocapture throughput`
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let event = r#"{"type":"insert","key":"user:12345","value":{"id":12345,"name":"Ada Lovelace","email":"ada@example.com","active":true,"score":98.25,"tags":["a","bb"]},"headers":{"operation":"insert","txid":"7261"}}"#;
    let token = r#"{"t":"tok","i":1234,"d":" the"}"#;
    let long = format!(r#"{{"text":"{}"}}"#, "Lorem ipsum dolor sit amet, ".repeat(200));
    let cjk = format!(r#"{{"text":"{}"}}"#, "日本語のテキスト".repeat(200));
    let pretty = serde_json::from_str::<Value>(event)
        .map(|value| serde_json::to_string_pretty(&value).unwrap())
        .unwrap();
    for (label, message) in [
        ("events", event),
        ("tokens", token),
        ("long strings", &long),
        ("CJK strings", &cjk),
        ("pretty", &pretty),
        ("integers", "1"),
    ] {
        let body = format!("[{}]", vec![message; (4 << 20) / (message.len() + 1)].join(","));
        let mut best = f64::MAX;
        for _ in 0..20 {
            let begin = std::time::Instant::now();
            let framed = frame_messages(std::hint::black_box(body.as_bytes())).unwrap();
            best = best.min(begin.elapsed().as_secs_f64());
            drop(std::hint::black_box(framed));
        }
        println!("{label:>14} {:>8.0} MB/s", body.len() as f64 / best / 1e6);
    }
}
