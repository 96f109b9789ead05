//! Tests of bodies and answers.

use super::*;
use crate::error::Detail;
use crate::fanout::{SessionView, SubscribedAll};
use crate::time::UnixMillis;
use proptest::prelude::*;
use serde_json::json;

/// Code and field of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (ErrorCode, Option<String>) {
    let error = result.unwrap_err();
    assert!(error.message.ends_with('.'), "{error}");
    let field = error.details.into_iter().find_map(|(name, value)| match value {
        Detail::Text(text) if name == "field" => Some(text),
        _ => None,
    });
    (error.code, field)
}

fn session_id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn path(text: &str) -> StreamPath {
    StreamPath::from_decoded(text).unwrap()
}

#[test]
fn sessions_are_read() {
    for empty in ["", " \n", "{}"] {
        assert_eq!(parse_session(empty.as_bytes()), Ok(PutSession::default()));
    }
    let text =
        r#"{"contentType":"application/json; charset=utf-8","ttlSeconds":60,"envelope":true}"#;
    let expected = PutSession {
        content_type: Some("application/json; charset=utf-8".to_owned()),
        ttl_seconds: Some(60),
        envelope: Some(true),
    };
    assert_eq!(parse_session(text.as_bytes()), Ok(expected));
    assert!(parse_session(br#"{"envelope":true}"#).is_ok());
    assert!(parse_session(br#"{"envelope":false,"contentType":"text/plain"}"#).is_ok());
    for (body, field) in [
        (r#"{"ttlSeconds":0}"#, Some("ttlSeconds")),
        (r#"{"ttlSeconds":31536001}"#, Some("ttlSeconds")),
        (r#"{"ttlSeconds":1.5}"#, Some("ttlSeconds")),
        (r#"{"ttlSeconds":"60"}"#, Some("ttlSeconds")),
        (r#"{"contentType":"json"}"#, Some("contentType")),
        (r#"{"contentType":"text/plain","envelope":true}"#, Some("envelope")),
        (r#"{"envelop":true}"#, Some("envelop")),
        ("[]", None),
        ("null", None),
    ] {
        let expected = (ErrorCode::InvalidBody, field.map(str::to_owned));
        assert_eq!(refusal(parse_session(body.as_bytes())), expected, "{body}");
    }
}

#[test]
fn subscriptions_are_read() {
    let text =
        r#"{"sessionId":"a:1","streamId":"chat/é 42","contentType":"text/plain","from":"-1"}"#;
    let subscribing = parse_subscribe(text.as_bytes()).unwrap();
    assert_eq!(subscribing.session, session_id("a:1"));
    assert_eq!(subscribing.content_type, ContentType::parse("text/plain").ok());
    assert_eq!(subscribing.sources, [Source { path: path("chat/é 42"), from: "-1".to_owned() }]);
    let wish = subscribing.sources[0].wish(&Project::parse("p").unwrap());
    assert_eq!((wish.source.as_str(), wish.from.as_str()), ("p/chat/é 42", "-1"));
    let least = parse_subscribe(br#"{"sessionId":"a","streamId":"b"}"#).unwrap();
    assert_eq!((least.content_type, least.sources[0].from.as_str()), (None, "now"));
}

#[test]
fn what_is_no_subscription_is_refused() {
    use ErrorCode::{InvalidBody, Reserved, SourceIsSession};
    for (body, code, field) in [
        (json!({"sessionId": "a"}), InvalidBody, Some("streamId")),
        (json!({"streamId": "a"}), InvalidBody, Some("sessionId")),
        (json!({"sessionId": "a b", "streamId": "a"}), InvalidBody, Some("sessionId")),
        (json!({"sessionId": "..", "streamId": "a"}), InvalidBody, Some("sessionId")),
        (json!({"sessionId": "a", "streamId": ""}), InvalidBody, Some("streamId")),
        (json!({"sessionId": "a", "streamId": "/a"}), InvalidBody, Some("streamId")),
        (json!({"sessionId": "a", "streamId": "a//1"}), InvalidBody, Some("streamId")),
        (json!({"sessionId": "a", "streamId": "a\\b"}), InvalidBody, Some("streamId")),
        (json!({"sessionId": "a", "streamId": 7}), InvalidBody, Some("streamId")),
        (json!({"sessionId": "a", "streamId": "b", "from": ""}), InvalidBody, Some("from")),
        (json!({"sessionId": "a", "streamId": "b", "from": "0"}), InvalidBody, Some("from")),
        (
            json!({"sessionId": "a", "streamId": "b", "contentType": ""}),
            InvalidBody,
            Some("contentType"),
        ),
        (json!({"sessionId": "a", "streamId": "b", "x": 1}), InvalidBody, Some("x")),
        (json!({"sessionId": "a", "streamId": "session/b"}), SourceIsSession, None),
        (json!({"sessionId": "a", "streamId": "session"}), SourceIsSession, None),
        (json!({"sessionId": "a", "streamId": "__ds/b"}), Reserved, None),
    ] {
        let refused = refusal(parse_subscribe(body.to_string().as_bytes()));
        assert_eq!(refused, (code, field.map(str::to_owned)), "{body}");
    }
}

#[test]
fn batches_are_read() {
    let body = json!({
        "sessionId": "s",
        "subscriptions": [{"streamId": "a"}, {"streamId": "b", "from": "-1"}],
    });
    let batch = parse_batch(body.to_string().as_bytes()).unwrap();
    let sources: Vec<(&str, &str)> =
        batch.sources.iter().map(|source| (source.path.as_str(), source.from.as_str())).collect();
    assert_eq!(sources, [("a", "now"), ("b", "-1")]);
    let of = |streams: &[String]| {
        let items: Vec<_> = streams.iter().map(|stream| json!({ "streamId": stream })).collect();
        parse_batch(json!({"sessionId": "s", "subscriptions": items}).to_string().as_bytes())
    };
    let many: Vec<String> = (0..SUBSCRIBE_BATCH_MAX).map(|at| at.to_string()).collect();
    assert_eq!(of(&many).unwrap().sources.len(), SUBSCRIBE_BATCH_MAX);
    let text = |text: &str| text.to_owned();
    let too_many = [&many[..], &[text("x")]].concat();
    for (streams, code, field) in [
        (vec![], ErrorCode::InvalidBody, Some("subscriptions")),
        (too_many, ErrorCode::InvalidBody, Some("subscriptions")),
        (vec![text("a"), text("a")], ErrorCode::InvalidBody, Some("subscriptions")),
        (vec![text("a"), text("..")], ErrorCode::InvalidBody, Some("subscriptions[1].streamId")),
        (vec![text("a"), text("session/x")], ErrorCode::SourceIsSession, None),
    ] {
        assert_eq!(refusal(of(&streams)), (code, field.map(str::to_owned)), "{field:?}");
    }
}

#[test]
fn ends_are_read() {
    let body = br#"{"sessionId":"s","streamId":"a/b"}"#;
    assert_eq!(parse_unsubscribe(body), Ok((session_id("s"), path("a/b"))));
    let body = br#"{"sessionId":"s","streamId":"a/b","from":"now"}"#;
    let refused = (ErrorCode::InvalidBody, Some("from".to_owned()));
    assert_eq!(refusal(parse_unsubscribe(body)), refused);
}

#[test]
fn answers_have_their_form() {
    let (project, session) = (Project::parse("p").unwrap(), session_id("a:1"));
    let expires_at = UnixMillis(1_769_853_600_500);
    let view = SessionView {
        is_new: true,
        content_type: "application/json".to_owned(),
        ttl_seconds: 60,
        envelope: false,
        expires_at,
        sources: vec!["p/a/b".to_owned(), "p/c".to_owned()],
    };
    assert_eq!(
        serde_json::to_value(SessionBody::of(&project, &session, view)).unwrap(),
        json!({
            "sessionId": "a:1",
            "sessionStreamPath": "/v1/p/stream/session/a%3A1",
            "contentType": "application/json",
            "ttlSeconds": 60,
            "envelope": false,
            "expiresAt": "2026-01-31T10:00:00.500Z",
            "subscriptions": [{"streamId": "a/b"}, {"streamId": "c"}],
        })
    );
    assert_eq!(
        serde_json::to_value(TouchedBody::of(&session, expires_at)).unwrap(),
        json!({"sessionId": "a:1", "expiresAt": "2026-01-31T10:00:00.500Z"})
    );
    let told = SubscribedAll { is_new: true, expires_at, outcomes: Vec::new() };
    assert_eq!(
        serde_json::to_value(SubscribedBody::of(&project, &session, &path("a/b"), &told)).unwrap(),
        json!({
            "sessionId": "a:1",
            "streamId": "a/b",
            "sessionStreamPath": "/v1/p/stream/session/a%3A1",
            "expiresAt": "2026-01-31T10:00:00.500Z",
            "isNewSession": true,
        })
    );
    assert_eq!(
        serde_json::to_value(ItemBody::of(&path("a"), Ok(()))).unwrap(),
        json!({"streamId": "a", "subscribed": true})
    );
    let error = ApiError::new(ErrorCode::TooManySubscriptions, "Full.").with("max", 3);
    assert_eq!(
        serde_json::to_value(ItemBody::of(&path("a"), Err(error))).unwrap(),
        json!({
            "streamId": "a",
            "subscribed": false,
            "error": {"code": "TOO_MANY_SUBSCRIPTIONS", "message": "Full.", "details": {"max": 3}},
        })
    );
}

proptest! {
    #[test]
    fn any_body_is_read_without_panic(text: String, id in "[a:. /]{0,4}", stream in "(session|__ds|a)?/?[a./]{0,3}") {
        let body = json!({"sessionId": id, "streamId": stream, "from": text.clone()}).to_string();
        for body in [text, body] {
            let bytes = body.as_bytes();
            let _ = (parse_session(bytes).is_ok(), parse_batch(bytes).is_ok());
            let _ = parse_unsubscribe(bytes).is_ok();
            if let Ok(subscribing) = parse_subscribe(bytes) {
                prop_assert!(subscribing.sources.iter().all(|source| source.path.reserved().is_none()));
            }
        }
    }

    #[test]
    fn what_is_accepted_is_what_was_sent(id in "[a-zA-Z0-9_:.-]{1,20}", stream in "[a-z]{1,5}(/[a-z]{1,5}){0,3}") {
        let body = json!({"sessionId": id, "streamId": stream}).to_string();
        match parse_unsubscribe(body.as_bytes()) {
            Ok((session, path)) => {
                prop_assert_eq!((session.as_str(), path.as_str()), (id.as_str(), stream.as_str()));
            }
            Err(error) => {
                let is_dots = id == "." || id == "..";
                let is_reserved = stream == "session" || stream.starts_with("session/");
                prop_assert!(is_dots || is_reserved, "{error}");
            }
        }
    }
}
