//! Tests of records, bodies and origins.

use super::*;
use crate::body::parse_body;
use crate::error::{ApiError, Detail, ErrorCode};
use crate::limits::CORS_ORIGINS_MAX;
use proptest::prelude::*;
use serde_json::json;

const TEXT: &str = "0123456789abcdef0123456789abcdef";

fn secret(index: usize) -> Secret {
    Secret::parse(&format!("{index:0>32}")).unwrap()
}

fn record(secrets: usize) -> ProjectRecord {
    ProjectRecord {
        signing_secrets: (0..secrets).map(secret).collect(),
        cors_origins: AllowedOrigins::default(),
        is_public: false,
    }
}

/// The sentence and the field of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (String, Option<String>) {
    let error = result.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidBody);
    assert!(error.message.ends_with('.'), "{error}");
    let field = error.details.into_iter().find_map(|(name, value)| match value {
        Detail::Text(text) if name == "field" => Some(text),
        _ => None,
    });
    (error.message, field)
}

#[test]
fn secrets_have_lengths_characters_and_ids() {
    assert!(Secret::parse(TEXT).is_some());
    assert!(Secret::parse(&TEXT[1..]).is_none());
    assert!(Secret::parse(&"~!".repeat(128)).is_some());
    assert!(Secret::parse(&"a".repeat(257)).is_none());
    for bad in [" ", "\n", "é", "\u{7f}"] {
        assert!(Secret::parse(&format!("{TEXT}{bad}")).is_none(), "{bad:?}");
    }
    let secret = Secret::parse(TEXT).unwrap();
    assert_eq!(secret.id(), "3eb1bd439947eb76");
    assert_eq!(format!("{secret:?}"), "Secret(3eb1bd439947eb76)");
    assert_eq!(secret.as_ref(), TEXT.as_bytes());
}

#[test]
fn a_record_is_stored_and_read() {
    let text = format!(
        r#"{{"signingSecrets":["{TEXT}"],"corsOrigins":["https://a.example"],"isPublic":true}}"#
    );
    let record: ProjectRecord = parse_body(text.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), text);
    assert!(!format!("{record:?}").contains(TEXT));
    for secrets in [0, 9] {
        let stored = serde_json::to_vec(&super::tests::record(secrets)).unwrap();
        let (_, field) = refusal(parse_body::<ProjectRecord>(&stored));
        assert_eq!(field.as_deref(), Some("signingSecrets"));
    }
}

#[test]
fn secrets_are_added_and_removed() {
    let mut record = record(1);
    assert_eq!(record.remove_secret(&secret(0).id()), Removal::Last);
    assert_eq!(record.add_secret(secret(1)), Ok(true));
    assert_eq!(record.add_secret(secret(1)), Ok(false));
    assert_eq!(record.remove_secret("0"), Removal::NotFound);
    assert_eq!(record.remove_secret(&secret(0).id()), Removal::Removed);
    assert_eq!(record.signing_secrets, [secret(1)]);
    (2..SECRETS_MAX + 1).for_each(|index| assert_eq!(record.add_secret(secret(index)), Ok(true)));
    assert_eq!(record.add_secret(secret(99)), Err(TooManySecrets));
    assert_eq!(record.add_secret(secret(1)), Ok(false));
    assert_eq!(record.signing_secrets.len(), SECRETS_MAX);
}

#[test]
fn a_view_has_no_secret() {
    let mut record = record(1);
    record.add_secret(Secret::parse(TEXT).unwrap()).unwrap();
    let view = record.view(&Project::parse("demo").unwrap());
    assert_eq!(
        serde_json::to_value(view).unwrap(),
        json!({
            "project": "demo",
            "corsOrigins": [],
            "isPublic": false,
            "secrets": [{"id": secret(0).id()}, {"id": "3eb1bd439947eb76"}],
        })
    );
}

#[test]
fn bodies_of_requests() {
    let text = format!(r#" {{"signingSecret":"{TEXT}"}} "#);
    let create: CreateProject = parse_body(text.as_bytes()).unwrap();
    let mut record = ProjectRecord::from(create);
    assert!(record.cors_origins.0.is_empty() && !record.is_public);
    let change: ChangeProject = parse_body(br#"{"corsOrigins":["*"]}"#).unwrap();
    change.apply(&mut record);
    assert!(record.cors_origins.is_any() && !record.is_public);
    let change: ChangeProject = parse_body(br#"{"isPublic":true}"#).unwrap();
    change.apply(&mut record);
    assert!(record.cors_origins.is_any() && record.is_public);
    assert!(parse_body::<AddSecret>(text.as_bytes()).is_ok());
}

#[test]
fn refusals_name_the_field() {
    let long = "x".repeat(65);
    for (body, sentence, field) in [
        ("", "The body is not JSON: see line 1, column 0.", None),
        ("{", "The body is not JSON: see line 1, column 1.", None),
        ("nul", "The body is not JSON: see line 1, column 3.", None),
        (r#"{"isPublic":true} x"#, "The body is not JSON: see line 1, column 19.", None),
        ("7", "The body is not a JSON object with the fields of this request.", None),
        ("[null,true]", "The body is not a JSON object.", None),
        (r#"{"isPublic":"x"}"#, "The field `isPublic` has the wrong type.", Some("isPublic")),
        (
            r#"{"corsOrigins":["*",7]}"#,
            "The field `corsOrigins[1]` has the wrong type.",
            Some("corsOrigins[1]"),
        ),
        (r#"{"corsOrigin":[]}"#, "The field `corsOrigin` is unknown.", Some("corsOrigin")),
        (
            r#"{"isPublic":true,"isPublic":true}"#,
            "The field `isPublic` stands there twice.",
            Some("isPublic"),
        ),
        (
            "{}",
            "The field `isPublic` is not allowed: missing, and so is every other field.",
            Some("isPublic"),
        ),
        (&format!(r#"{{"{long}":1}}"#), "The body has a field that is unknown.", None),
    ] {
        let (message, named) = refusal(parse_body::<ChangeProject>(body.as_bytes()));
        assert_eq!((message.as_str(), named.as_deref()), (sentence, field), "{body}");
    }
    let (message, field) = refusal(parse_body::<ChangeProject>(br#"{"corsOrigins":["*","x"]}"#));
    assert!(message.starts_with("The field `corsOrigins[1]` is not allowed: neither"), "{message}");
    assert_eq!(field.as_deref(), Some("corsOrigins[1]"));
    let (message, field) = refusal(parse_body::<CreateProject>(b"{}"));
    assert_eq!(message, "The body lacks the field `signingSecret`.");
    assert_eq!(field.as_deref(), Some("signingSecret"));
}

#[test]
fn refusals_do_not_repeat_a_secret() {
    for body in [
        r#"{"signingSecret":"hunter2"}"#,
        r#"{"signingSecret":["hunter2"]}"#,
        r#"{"signingSecret":{"hunter2":1}}"#,
        r#"{"signingSecret":"hunter2","signingSecret":"hunter2"}"#,
    ] {
        let error = parse_body::<AddSecret>(body.as_bytes()).unwrap_err();
        assert!(error.body().contains("signingSecret"), "{error}");
        assert!(!error.body().contains("hunter2"), "{error}");
    }
}

#[test]
fn origins_that_may_be_listed() {
    let body = |origin: &str| json!({ "corsOrigins": [origin] }).to_string();
    for good in [
        "*",
        "https://example.com",
        "http://localhost:3000",
        "https://*.example.com",
        "http://*.localhost:8080",
        "https://xn--bcher-kva.example",
        "http://127.0.0.1:8787",
        "http://[::1]",
        "http://[::1]:8080",
        "http://example.com:443",
    ] {
        assert!(parse_body::<ChangeProject>(body(good).as_bytes()).is_ok(), "{good}");
    }
    for bad in [
        "",
        "null",
        "example.com",
        "https://",
        "https://*",
        "https://*.",
        "https://*.*.example.com",
        "https://a.*.example.com",
        "https://a*.example.com",
        "https://Example.com",
        "HTTPS://example.com",
        "ftp://example.com",
        "https://example.com/",
        "https://example.com/a",
        "https://user@example.com",
        "https://user:pw@example.com",
        "https://example.com:443",
        "http://example.com:80",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:080",
        "https://example.com:65536",
        "https://example.com:+1",
        "https://example.com?",
        "https://example..com",
        "https://example.com ",
        "https://bücher.example",
        "http://[::1",
        "http://[0:0::1]",
        "http://::1",
    ] {
        let (_, field) = refusal(parse_body::<ChangeProject>(body(bad).as_bytes()));
        assert_eq!(field.as_deref(), Some("corsOrigins[0]"), "{bad}");
    }
    let many = vec!["https://example.com"; CORS_ORIGINS_MAX];
    let body = |list: &[&str]| json!({ "corsOrigins": list }).to_string();
    assert!(parse_body::<ChangeProject>(body(&many).as_bytes()).is_ok());
    let many = [&many[..], &["*"]].concat();
    let (_, field) = refusal(parse_body::<ChangeProject>(body(&many).as_bytes()));
    assert_eq!(field.as_deref(), Some("corsOrigins"));
}

#[test]
fn origins_that_match() {
    let list = |entries: &[&str]| {
        AllowedOrigins(entries.iter().map(|entry| (*entry).to_owned()).collect())
    };
    let some = list(&["https://example.com", "https://*.example.org:8443"]);
    for origin in ["https://example.com", "https://a.example.org:8443"] {
        assert_eq!(some.allows(origin), Some(origin));
    }
    for origin in [
        "",
        "null",
        "*",
        "http://example.com",
        "https://example.com:8443",
        "https://EXAMPLE.com",
        "https://example.com.evil.example",
        "https://evilexample.com",
        "https://example.org:8443",
        "https://a.example.org",
        "https://a.b.example.org:8443",
        "https://.example.org:8443",
        "https://*.example.org:8443",
        "https://evil/.example.org:8443",
        "https://evil@a.example.org:8443",
    ] {
        assert_eq!(some.allows(origin), None, "{origin}");
    }
    assert_eq!(list(&["https://a.example", "*"]).allows("null"), Some("*"));
    assert_eq!(AllowedOrigins::any().allows("https://a.example"), Some("*"));
    assert_eq!(AllowedOrigins::default().allows("https://a.example"), None);
}

proptest! {
    #[test]
    fn any_body_is_read_without_panic(text: String, field in "[a-zA-Z_]{0,9}", value: String) {
        let nested = json!({ field.clone(): value, "corsOrigins": [text.clone()] }).to_string();
        for body in [text, nested] {
            if let Err(error) = parse_body::<ChangeProject>(body.as_bytes()) {
                prop_assert_eq!(error.code, ErrorCode::InvalidBody);
            }
            let _ = parse_body::<ProjectRecord>(body.as_bytes());
        }
    }

    #[test]
    fn a_listed_origin_matches_itself_and_no_other(host in "[a-z.:0-9*/-]{1,12}", origin in "https://[a-z.]{1,12}") {
        let entry = format!("https://{host}");
        let body = json!({ "corsOrigins": [entry] }).to_string();
        if let Ok(ChangeProject { cors_origins: Some(list), .. }) = parse_body(body.as_bytes()) {
            let is_exact = !host.starts_with("*.");
            prop_assert_eq!(list.allows(&entry).is_some(), is_exact);
            prop_assert!(!is_exact || list.allows(&origin).is_some() == (origin == entry));
        }
    }
}
