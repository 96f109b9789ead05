//! One entry into every parser for arbitrary bytes: the body of the cargo-fuzz target `parsers`,
//! and a property test of this crate.
//!
//! Each check feeds the bytes to a parser and, when they are accepted, asserts what the parser's
//! module promises. A broken promise panics, which is how a fuzzer is told.
//!
//! **What stays out.** Comparisons with other implementations: those are the modules' own tests.

use crate::body::parse_body;
use crate::content_type::ContentType;
use crate::cursor::next_cursor;
use crate::error::{ApiError, ErrorCode};
use crate::etag::matches_if_none_match;
use crate::headers::{StreamSeq, parse_sub_offset};
use crate::json::{frame_messages, nth_message_end, scan_boundary_back};
use crate::lifetime::Lifetime;
use crate::limits::{JSON_DEPTH_MAX, Limits};
use crate::live::calls::{self, Answers};
use crate::live::{Frame, Grant, TAG_CALLS};
use crate::name::{Route, StreamName, StreamPath};
use crate::offset::OffsetParam;
use crate::producer::Producer;
use crate::registry::{ChangeProject, CreateProject, ProjectRecord};
use crate::sessions::{parse_batch, parse_session, parse_subscribe, parse_unsubscribe};
use crate::sse;
use crate::time::{UnixMillis, format_rfc3339, parse_rfc3339};
use crate::token::{Claims, Scope, StreamPattern, sign, sign_parts, verify};
use crate::trace::{RequestId, TraceParent};
use crate::ws::{self, AppendBody, ClientFrame};

/// Feeds `data` to every parser of the crate.
///
/// # Panics
/// When a parser breaks what its module promises.
pub fn fuzz_parsers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    check_tokens(&text);
    check_headers(&text);
    check_names(&text);
    check_json(data);
    check_frames(data);
    check_events(data);
    check_calls(data);
    check_client_frames(&text);
    check_claims(&text);
    check_projects(data);
    check_sessions(data);
    check_traces(&text);
}

fn check_tokens(text: &str) {
    if let Ok(OffsetParam::At(offset)) = OffsetParam::parse(text) {
        assert_eq!(offset.to_string(), text);
    }
    if let Some(at) = parse_rfc3339(text) {
        assert_eq!(parse_rfc3339(&format_rfc3339(at)), Some(at));
    }
    let jitter = text.len() as u64;
    let cursor = next_cursor(UnixMillis(u64::MAX / 2), Some(text), jitter);
    assert!(cursor.bytes().all(|byte| byte.is_ascii_digit()));
    if let Err(error) = Limits::from_vars(|_| Some(text.to_owned())) {
        assert_eq!(error.value, text);
    }
}

fn check_headers(text: &str) {
    if let Ok(content_type) = ContentType::parse(text) {
        let essence = ContentType::parse(content_type.essence());
        assert!(essence.is_ok_and(|essence| essence.same_media_type(&content_type)));
    }
    if let Ok(seq) = StreamSeq::parse(text) {
        assert_eq!(seq.as_str(), text);
    }
    if let Ok(sub_offset) = parse_sub_offset(text) {
        assert_eq!(sub_offset.to_string(), text);
    }
    let mut parts = text.splitn(3, '\n');
    let (first, second, third) = (parts.next(), parts.next(), parts.next());
    if let Ok(Some(producer)) = Producer::from_headers(first, second, third) {
        let printed = format!("{}\n{}\n{}", producer.id, producer.epoch, producer.seq);
        assert_eq!(printed, text);
    }
    if let Ok(Lifetime::ExpiresAt { at }) = Lifetime::from_headers(None, Some(text)) {
        assert_eq!(parse_rfc3339(text), Some(at));
    }
    if let Ok(Lifetime::Ttl { seconds }) = Lifetime::from_headers(Some(text), None) {
        assert_eq!(seconds.to_string(), text);
    }
    let listed = matches_if_none_match(&format!("\"x\", W/{text}"), text);
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    assert!(listed || quoted.is_none_or(|inner| inner.contains('"')));
    let _ = matches_if_none_match(text, "\"1:0:0\"");
}

fn check_names(text: &str) {
    for raw_path in [text.to_owned(), format!("/v1/stream/{text}")] {
        let Ok(Route::Stream { name, reserved }) = Route::parse(&raw_path) else {
            continue;
        };
        let again = Route::parse(&name.url_path());
        assert_eq!(again, Ok(Route::Stream { name: name.clone(), reserved }));
        let reference = StreamName::parse_reference(&raw_path, &name.project);
        assert_eq!(reference.as_ref(), Ok(&name));
        assert_eq!(StreamName::parse_object_name(&name.object_name()), Ok(name));
    }
    let body = ApiError::new(ErrorCode::Internal, text).with("text", text).body();
    assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
}

fn check_json(data: &[u8]) {
    let framed = frame_messages(data);
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        // serde_json stops at a depth of 128, far below ours.
        const { assert!(JSON_DEPTH_MAX > 128) };
        let messages = value.as_array().map_or(1, |messages| messages.len() as u64);
        assert_eq!(framed.as_ref().map(|framed| framed.messages), Ok(messages));
    }
    let Ok(framed) = framed else { return };
    let whole = (framed.messages > 0).then_some(framed.wire.len());
    assert_eq!(scan_boundary_back(&framed.wire), whole);
    assert_eq!(nth_message_end(&framed.wire, framed.messages), Some(framed.wire.len()));
    assert_eq!(nth_message_end(&framed.wire, framed.messages + 1), None);
    let messages = framed.wire.strip_suffix(b",\n").unwrap_or(&framed.wire);
    let again = frame_messages(&[b"[", messages, b"]"].concat());
    assert_eq!(again, Ok(framed));
}

fn check_frames(data: &[u8]) {
    if let Ok((head, payload)) = Frame::decode(data) {
        assert_eq!(Frame { head, payload }.encode(), data);
    }
    if let Ok(grant) = Grant::decode(data) {
        assert_eq!(&grant.encode()[..], data);
    }
}

fn check_calls(data: &[u8]) {
    if let Ok(list) = calls::decode(data) {
        let mut again = vec![TAG_CALLS];
        for call in &list {
            calls::encode(&mut again, call);
        }
        assert_eq!(again, data);
    }
    if let Ok(list) = Answers::decode(data) {
        let counted = |list: &[calls::Answer]| {
            list.iter().fold(0, |sum: u64, answer| sum.saturating_add(answer.count()))
        };
        let mut answers = Answers::default();
        list.iter().for_each(|answer| answers.push(answer.clone()));
        assert_eq!(counted(answers.as_slice()), counted(&list));
        assert_eq!(Answers::decode(&answers.encode()).as_deref(), Ok(answers.as_slice()));
    }
}

fn check_client_frames(text: &str) {
    match ClientFrame::parse(text) {
        Ok(ClientFrame::Credit(credit)) => assert!(ws::parse_credit(&credit.to_string()).is_ok()),
        Ok(ClientFrame::Append(frame)) => {
            let again = format!(r#"{{"append":{{"id":{}}}}}"#, frame.id);
            let again = ClientFrame::parse(&again);
            let same = |again: ClientFrame<'_>| match again {
                ClientFrame::Append(again) => again.id == frame.id,
                ClientFrame::Credit(_) => false,
            };
            assert!(again.is_ok_and(same));
            let answer = match &frame.request {
                Ok(_) => ws::server::ack(&frame.id, 2, text, true, true, Some((0, 1))),
                Err(error) => ws::server::nack(&frame.id, error),
            };
            assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok());
        }
        Err(refusal) => assert!(matches!(refusal.close_code(), 1007 | 1008)),
    }
    // Whatever a POST takes, a frame takes too, as the same text.
    if frame_messages(text.as_bytes()).is_ok() {
        let wrapped = format!(r#"{{"append":{{"payload":{text},"id":0}}}}"#);
        let Ok(ClientFrame::Append(frame)) = ClientFrame::parse(&wrapped) else {
            unreachable!("{wrapped}");
        };
        let payload = text.trim_matches([' ', '\t', '\r', '\n']);
        assert!(frame.request.is_ok_and(|request| request.body == AppendBody::Json(payload)));
    }
}

fn check_claims(text: &str) {
    // Whoever has no secret gets nothing in, and whoever has one gets in what it signed.
    let now = UnixMillis(0);
    assert!(verify(text, &[b"fuzz".repeat(8)], now).is_err());
    let signed = sign_parts(r#"{"alg":"HS256"}"#, text, b"");
    if let Ok(claims) = verify(&signed, &[b""], now) {
        let again = verify(&sign(&claims, b""), &[b""], now);
        let said = |claims: Claims| (claims.project, claims.scope, claims.streams);
        assert_eq!(again.map(said), Ok(said(claims)));
    }
    assert!(verify(&sign_parts(text, "{}", b""), &[b""], now).is_err());
    let _ = Scope::parse_list(text);
    if let (Ok(pattern), Ok(path)) = (StreamPattern::parse(text), StreamPath::from_decoded(text)) {
        assert!(pattern.matches(&path) || text.contains('?') || text.contains('*'));
    }
}

fn check_projects(data: &[u8]) {
    if let Ok(record) = parse_body::<ProjectRecord>(data) {
        let again = serde_json::to_vec(&record).unwrap_or_default();
        assert_eq!(parse_body(&again), Ok(record));
    }
    let refused =
        [parse_body::<CreateProject>(data).err(), parse_body::<ChangeProject>(data).err()];
    assert!(refused.iter().flatten().all(|error| error.code == ErrorCode::InvalidBody));
}

fn check_sessions(data: &[u8]) {
    let _ = parse_session(data);
    let read = [parse_subscribe(data), parse_batch(data)];
    let sources = read.iter().flatten().flat_map(|subscribing| &subscribing.sources);
    let ended = parse_unsubscribe(data).ok();
    let mut paths = sources.map(|source| &source.path).chain(ended.iter().map(|(_, path)| path));
    assert!(paths.all(|path| path.reserved().is_none()));
}

fn check_traces(text: &str) {
    if let Some(parent) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
    }
    assert!(RequestId::parse(text).is_none_or(|id| id.as_str() == text));
}

fn check_events(data: &[u8]) {
    let (whole, rest) = data.split_at_checked(sse::utf8_cut(data)).unwrap_or_default();
    assert_eq!(whole.len() + rest.len(), data.len());
    assert!(rest.len() <= 3);
    for write in [sse::data_event_text, sse::data_event_base64] {
        let mut out = Vec::new();
        write(&mut out, data);
        assert_eq!(out.is_empty(), data.is_empty());
        assert!(data.is_empty() || out.starts_with(b"event: data\ndata:"));
        // A blank line ends an event, so there must be one, at the end.
        let blank_lines = out.windows(2).filter(|pair| pair == b"\n\n").count();
        assert_eq!(blank_lines, usize::from(!data.is_empty()));
        assert!(!out.contains(&b'\r') && (out.is_empty() || out.ends_with(b"\n\n")));
    }
}

#[cfg(test)]
mod tests {
    use super::fuzz_parsers;
    use proptest::prelude::*;

    /// Pieces of what the parsers accept, so that random data gets further than the first byte.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                &b"-1"[..],
                b"now",
                b"0001769853600500_0000000000000042",
                b"_",
                b"0",
                b"17",
                b"2026-01-31",
                b"T12:00:00",
                b".5",
                b"Z",
                b"+02:00",
                b"application/json",
                b"; charset=",
                b"\"",
                b"\\",
                b"W/",
                b"*",
                b",",
                b"\n",
                b"\r",
                b" ",
                b"/v1/",
                b"p/",
                b"stream/",
                b"%2F",
                b"%C3%A9",
                b"..",
                b"{",
                b"}",
                b"[",
                b"]",
                b":",
                b"true",
                b"null",
                b"\\u00e9",
                b"1.5e3",
                b"\x01",
                b"\x00\x00\x00\x00\x00\x00\x00",
                b"\xC3",
                b"\xA9",
                b"\xF0\x9F\x98\x80",
                b"{\"credit\":",
                b"{\"append\":{\"id\":",
                b"\"i\"",
                b",\"payload\":",
                b",\"base64\":\"YQ==\"",
                b",\"producer\":{\"id\":\"p\",\"epoch\":0,\"seq\":",
                b",\"seq\":\"1\"",
                b",\"close\":true",
                b"}}",
                b"\x02",
                b"\x01\x00\x00\x00",
                b"\x02[{\"stored\":{\"count\":1,\"next\":\"n\",\"closed\":false}}",
                b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                b"eyJhbGciOiJIUzI1NiJ9.",
                b"{\"sub\":\"p\",\"scope\":\"read\",\"exp\":",
                b",\"stream_id\":\"a/**\"",
                b",\"nbf\":0",
                b"**",
                b"?",
                b"{\"corsOrigins\":[\"https://*.a.b:1\"]",
                b",\"isPublic\":true",
                b",\"signingSecrets\":[\"0123456789abcdef0123456789abcdef\"]",
                b"{\"refused\":{\"code\":\"INTERNAL\",\"message\":\"\"}}",
            ])
            .prop_map(<[u8]>::to_vec),
            prop::collection::vec(any::<u8>(), 0..3),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn pieces_keep_every_promise(data in pieces()) {
            fuzz_parsers(&data);
        }

        #[test]
        fn bytes_keep_every_promise(data: Vec<u8>) {
            fuzz_parsers(&data);
        }
    }
}
