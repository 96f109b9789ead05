//! Frames of clients: what is taken, what is answered with a nack, what ends the socket.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{AppendBody, AppendFrame, AppendId, AppendRequest, ClientFrame, parse_credit};
use crate::content_type::ContentType;
use crate::error::{ApiError, ErrorCode};
use crate::json::frame_messages;
use crate::limits::{JSON_DEPTH_MAX, SAFE_INTEGER_MAX};

fn refused(text: &str) -> ErrorCode {
    ClientFrame::parse(text).expect_err(text).error.code
}

fn append(text: &str) -> AppendFrame<'_> {
    match ClientFrame::parse(text) {
        Ok(ClientFrame::Append(frame)) => *frame,
        other => panic!("{text}: {other:?}"),
    }
}

/// The request of an append with the id 1 and these members.
fn request(members: &str) -> Result<AppendRequest<'static>, ApiError> {
    append(Box::leak(format!(r#"{{"append":{{"id":1,{members}}}}}"#).into_boxed_str())).request
}

fn nacked(members: &str) -> ErrorCode {
    request(members).expect_err(members).code
}

fn content_type(text: &str) -> ContentType {
    ContentType::parse(text).unwrap()
}

#[test]
fn credit() {
    for (text, credit) in [
        (r#"{"credit":0}"#, 0),
        (" { \"credit\" :\n7\t} ", 7),
        (r#"{"\u0063redit":9007199254740991}"#, SAFE_INTEGER_MAX),
    ] {
        assert_eq!(ClientFrame::parse(text), Ok(ClientFrame::Credit(credit)), "{text}");
    }
    let numbers = ["-1", "-0", "0.5", "1.0", "1e3", "1E400", "1e400", "9007199254740992"];
    for number in numbers.into_iter().chain(["\"1\"", "null", "true", "[1]", "{}"]) {
        assert_eq!(refused(&format!(r#"{{"credit":{number}}}"#)), ErrorCode::InvalidCredit);
    }
    for text in ["", "-1", "01", "1.0", "1e3", "9007199254740992"] {
        assert_eq!(parse_credit(text).unwrap_err().code, ErrorCode::InvalidCredit);
    }
}

#[test]
fn what_is_no_frame() {
    for text in [
        "",
        " ",
        "x",
        "{",
        "{}",
        "[]",
        "null",
        "7",
        "\"credit\"",
        r#"[1]"#,
        r#"["credit",1]"#,
        r#"{"credit":1}{"credit":1}"#,
        r#"{"credit":1} x"#,
        r#"{"credit":1,}"#,
        "{\"credit\":1}\u{feff}",
        "\u{feff}{\"credit\":1}",
        r#"{'credit':1}"#,
        r#"{"credit":NaN}"#,
        r#"{"credit":Infinity}"#,
        r#"{"credit":+1}"#,
        r#"{"credit":01}"#,
        r#"{"credit":1.}"#,
        r#"{"credit":-}"#,
        r#"{"credit":1,"credit":1}"#,
        r#"{"credit":1,"x":1}"#,
        r#"{"x":1,"credit":1}"#,
        r#"{"Credit":1}"#,
        r#"{"credit ":1}"#,
        r#"{"":1}"#,
        r#"{"credit":1,"append":{"id":1}}"#,
        r#"{"append":{"id":1},"append":{"id":1}}"#,
        r#"{"append":null}"#,
        r#"{"append":"x"}"#,
        r#"{"append":[1,"x"]}"#,
        r#"{"append":[]}"#,
        r#"{"append":{"id":1,"payload":}}"#,
        r#"{"append":{"id":1,"payload":[1,]}}"#,
        "{\"append\":{\"id\":1,\"payload\":\"\n\"}}",
    ] {
        assert_eq!(refused(text), ErrorCode::InvalidFrame, "{text}");
        assert_eq!(ClientFrame::parse(text).unwrap_err().close_code(), 1007);
    }
}

#[test]
fn ids_come_back() {
    let longest = format!("\"{}\"", "é".repeat(64));
    for id in ["0", "9007199254740991", r#""a""#, r#""a\"\\ \n\u0000""#, &longest] {
        let text = format!(r#"{{"append":{{"payload":1,"id":{id}}}}}"#);
        assert_eq!(append(&text).id.to_string(), id);
    }
    let text = r#"{"append":{"id":"\u0061\/\ud83d\ude00"}}"#;
    assert_eq!(append(text).id, AppendId::Text("a/😀".into()));
    // A number that looks like a text is still another id.
    assert_ne!(append(r#"{"append":{"id":"1"}}"#).id, append(r#"{"append":{"id":1}}"#).id);
}

#[test]
fn ids_that_cannot_be_answered() {
    let too_long = format!("\"{}\"", "é".repeat(65));
    for id in [
        "\"\"",
        &too_long,
        "-1",
        "-0",
        "1.0",
        "1e3",
        "9007199254740992",
        "1e400",
        "null",
        "true",
        "[]",
        "{}",
        r#""\ud800""#,
        r#"1,"id":1"#,
        r#"1,"id":"#,
    ] {
        let text = format!(r#"{{"append":{{"id":{id},"payload":1}}}}"#);
        assert_eq!(refused(&text), ErrorCode::InvalidFrame, "{text}");
    }
    assert_eq!(refused(r#"{"append":{}}"#), ErrorCode::InvalidFrame);
    assert_eq!(refused(r#"{"append":{"payload":1}}"#), ErrorCode::InvalidFrame);
}

#[test]
fn bodies() {
    let json = |text| AppendBody::Json(text);
    for (members, body) in [
        (r#""close":false"#, AppendBody::None),
        (r#""payload": [ 1,{"a" :2} ] "#, json(r#"[ 1,{"a" :2} ]"#)),
        (r#""payload":null"#, json("null")),
        (r#""payload":"\ud800""#, json(r#""\ud800""#)),
        (r#""payload":1e400"#, json("1e400")),
        (r#""payload":{"a":1,"a":2}"#, json(r#"{"a":1,"a":2}"#)),
        (r#""base64":"AQID/w==""#, AppendBody::Base64(vec![1, 2, 3, 255])),
        (r#""base64":"AQID\/w==""#, AppendBody::Base64(vec![1, 2, 3, 255])),
        (r#""base64":"""#, AppendBody::Base64(vec![])),
    ] {
        let request = request(members).unwrap();
        assert_eq!((request.body, request.close), (body, false), "{members}");
    }
    assert!(request(r#""close":true"#).unwrap().close);
}

#[test]
fn appends_that_are_none() {
    for members in [
        r#""payload":1,"payload":1"#,
        r#""payload":1,"base64":"""#,
        r#""payload":1,"x":1"#,
        r#""payload":1,"Close":true"#,
        r#""payload":1,"close":1"#,
        r#""payload":1,"close":"true""#,
        r#""payload":1,"close":null"#,
        r#""close":true,"close":true"#,
        r#""base64":1"#,
        r#""base64":null"#,
        r#""base64":"AQ""#,
        r#""base64":"AQ=""#,
        r#""base64":"AR==""#,
        r#""base64":"A Q==""#,
        r#""base64":"-_==""#,
        r#""base64":"\ud800""#,
    ] {
        assert_eq!(nacked(members), ErrorCode::InvalidAppend, "{members}");
    }
}

#[test]
fn producers() {
    let whole = request(r#""payload":1,"producer":{"seq":7,"id":"p","epoch":0}"#).unwrap();
    let producer = whole.producer.unwrap();
    assert_eq!((producer.id.as_str(), producer.epoch.0, producer.seq.0), ("p", 0, 7));
    for producer in [
        "null",
        "[]",
        r#"["p",0,0]"#,
        "\"p\"",
        "{}",
        r#"{"id":"p","epoch":0}"#,
        r#"{"id":"p","epoch":0,"seq":0,"x":0}"#,
        r#"{"id":"p","epoch":0,"seq":0,"seq":0}"#,
        r#"{"id":"","epoch":0,"seq":0}"#,
        r#"{"id":"a b","epoch":0,"seq":0}"#,
        r#"{"id":"é","epoch":0,"seq":0}"#,
        r#"{"id":1,"epoch":0,"seq":0}"#,
        r#"{"id":"p","epoch":"0","seq":0}"#,
        r#"{"id":"p","epoch":-1,"seq":0}"#,
        r#"{"id":"p","epoch":0,"seq":1.0}"#,
        r#"{"id":"p","epoch":0,"seq":9007199254740992}"#,
        r#"{"id":"p","epoch":0,"seq":null}"#,
    ] {
        let members = format!(r#""payload":1,"producer":{producer}"#);
        assert_eq!(nacked(&members), ErrorCode::InvalidProducer, "{members}");
    }
}

#[test]
fn stream_seqs() {
    let seq = request(r#""payload":1,"seq":"2026 \u0041""#).unwrap().seq.unwrap();
    assert_eq!(seq.as_str(), "2026 A");
    for seq in ["null", "1", r#""""#, r#"" a""#, r#""é""#, r#""a\n""#, r#""\ud800""#] {
        let members = format!(r#""payload":1,"seq":{seq}"#);
        assert_eq!(nacked(&members), ErrorCode::InvalidHeader, "{members}");
    }
}

#[test]
fn bytes_for_the_stream() {
    let json = || AppendBody::Json(r#""a\u0062\n""#);
    let application_json = content_type("application/json; charset=utf-8");
    let bytes = json().into_bytes(&application_json).unwrap();
    assert!(matches!(bytes, Cow::Borrowed(br#""a\u0062\n""#)));
    let text = content_type("text/plain");
    assert_eq!(json().into_bytes(&text).unwrap(), &b"ab\n"[..]);
    let plain = AppendBody::Json(r#""é""#).into_bytes(&text).unwrap();
    assert!(matches!(plain, Cow::Borrowed(bytes) if bytes == "é".as_bytes()));
    for payload in ["1", "null", "[\"a\"]", r#""\ud800""#] {
        let error = AppendBody::Json(payload).into_bytes(&text).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidAppend, "{payload}");
    }
    let binary = content_type("application/octet-stream");
    let error = json().into_bytes(&binary).unwrap_err();
    assert!(error.code == ErrorCode::InvalidAppend && error.message.contains("`base64`"));
    for content_type in [application_json, text, binary] {
        let decoded = AppendBody::Base64(vec![0xFF]).into_bytes(&content_type);
        assert_eq!(decoded.unwrap(), &[0xFF][..]);
        assert_eq!(AppendBody::None.into_bytes(&content_type).unwrap(), &b""[..]);
    }
}

#[test]
fn nesting_is_not_ours_to_judge() {
    for depth in [128, JSON_DEPTH_MAX, 1_000_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let payload = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let text = format!(r#"{{"append":{{"id":1,"payload":{payload}}}}}"#);
            let body = append(&text).request.unwrap().body;
            assert!(body == AppendBody::Json(&payload), "{depth}");
            assert_eq!(frame_messages(payload.as_bytes()).is_ok(), depth <= JSON_DEPTH_MAX);
            for place in ["id", "producer", "seq", "close", "base64", "x"] {
                let text = format!(r#"{{"append":{{"{place}":{payload}}}}}"#);
                assert_eq!(refused(&text), ErrorCode::InvalidFrame);
            }
            assert_eq!(nacked(&format!(r#""producer":{payload}"#)), ErrorCode::InvalidProducer);
            let producer = format!(r#""producer":{{"id":{payload},"epoch":0,"seq":0}}"#);
            assert_eq!(nacked(&producer), ErrorCode::InvalidProducer);
            assert_eq!(refused(&payload), ErrorCode::InvalidFrame);
            assert_eq!(refused(&format!(r#"{{"credit":{payload}}}"#)), ErrorCode::InvalidCredit);
        }
        assert_eq!(refused(&"[".repeat(depth)), ErrorCode::InvalidFrame);
        assert_eq!(refused(&"{\"append\":".repeat(depth)), ErrorCode::InvalidFrame);
    }
}

#[test]
fn messages_quote_nothing() {
    for text in [
        r#"{"secret":1}"#,
        r#"{"credit":"secret"}"#,
        r#"{"append":"secret"}"#,
        r#"{"append":{"id":["secret"]}}"#,
        r#"{"append":{"id":1,"secret":1}}"#,
        r#"{"append":{"id":1,"seq":" secret"}}"#,
        r#"{"append":{"id":1,"base64":"secret"}}"#,
        r#"{"append":{"id":1,"producer":{"secret":1}}}"#,
        r#"{"append":{"id":1,"producer":{"id":"secret secret","epoch":0,"seq":0}}}"#,
        r#"secret"#,
    ] {
        let error = match ClientFrame::parse(text) {
            Ok(ClientFrame::Append(frame)) => frame.request.expect_err(text),
            Ok(ClientFrame::Credit(_)) => panic!("{text}"),
            Err(refusal) => refusal.error,
        };
        assert!(!error.body().contains("secret"), "{text}: {error}");
        assert!(error.message.ends_with('.'), "{error}");
    }
}

/// Values as deep and as odd as a test needs.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Frames that are nearly right, so that every member meets every value.
fn nearly() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"credit\"",
        "\"append\"",
        "\"id\"",
        "\"payload\"",
        "\"base64\"",
        "\"producer\"",
        "\"seq\"",
        "\"epoch\"",
        "\"close\"",
        "true",
        "null",
        "1",
        "-1",
        "1e3",
        "\"p\"",
        " ",
    ]);
    prop_oneof![
        prop::collection::vec(word, 0..24).prop_map(|words| words.concat()),
        (value(), value(), value()).prop_map(|(id, payload, other)| {
            json!({"append": {"id": id, "payload": payload, "seq": other}}).to_string()
        }),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn frames_round_trip(
        id in prop_oneof![(0..=SAFE_INTEGER_MAX).prop_map(Value::from), ".{1,32}".prop_map(Value::from)],
        payload in value(),
        producer in prop::option::of(("[!-~]{1,40}", 0..=SAFE_INTEGER_MAX, 0..=SAFE_INTEGER_MAX)),
        seq in prop::option::of("[!-~]{1,40}"),
        close: bool,
    ) {
        let mut members = json!({"id": id, "payload": payload, "close": close});
        if let Some((id, epoch, seq)) = &producer {
            members["producer"] = json!({"id": id, "epoch": epoch, "seq": seq});
        }
        if let Some(seq) = &seq {
            members["seq"] = json!(seq);
        }
        let text = json!({"append": members}).to_string();
        let frame = append(&text);
        prop_assert_eq!(serde_json::from_str::<Value>(&frame.id.to_string()).unwrap(), id);
        let request = frame.request.unwrap();
        prop_assert_eq!(request.body, AppendBody::Json(&payload.to_string()));
        prop_assert_eq!(request.close, close);
        prop_assert_eq!(request.seq.map(|seq| seq.to_string()), seq);
        let found = request.producer.map(|p| (p.id.to_string(), p.epoch.0, p.seq.0));
        prop_assert_eq!(found, producer);
    }

    #[test]
    fn base64_round_trips(bytes: Vec<u8>) {
        let request = request(&format!(r#""base64":"{}""#, STANDARD.encode(&bytes)));
        prop_assert_eq!(request.unwrap().body, AppendBody::Base64(bytes));
    }

    /// A frame is accepted only if it is JSON and one object with one known member.
    #[test]
    fn what_is_accepted_is_a_frame(text in nearly()) {
        if let Ok(frame) = ClientFrame::parse(&text) {
            let value: Value = serde_json::from_str(&text).unwrap();
            let members = value.as_object().unwrap();
            prop_assert_eq!(members.len(), 1);
            match frame {
                ClientFrame::Credit(credit) => prop_assert_eq!(&members["credit"], &json!(credit)),
                ClientFrame::Append(frame) => {
                    let members = members["append"].as_object().unwrap();
                    let id: Value = serde_json::from_str(&frame.id.to_string()).unwrap();
                    prop_assert_eq!(&members["id"], &id);
                    if let Ok(request) = frame.request {
                        prop_assert_eq!(request.close, members.get("close") == Some(&json!(true)));
                        prop_assert_eq!(request.producer.is_some(), members.contains_key("producer"));
                        prop_assert_eq!(request.seq.is_some(), members.contains_key("seq"));
                    }
                }
            }
        }
    }
}
