//! Tests of routes, names and references.

use super::*;
use proptest::prelude::*;

fn stream(project: &str, path: &str) -> StreamName {
    StreamName {
        project: Project::parse(project).unwrap(),
        path: StreamPath::from_decoded(path).unwrap(),
    }
}

fn parsed(raw_path: &str) -> StreamName {
    match Route::parse(raw_path) {
        Ok(Route::Stream { name, .. }) => name,
        other => panic!("{raw_path}: {other:?}"),
    }
}

#[test]
fn stream_urls() {
    for (raw_path, project, path) in [
        ("/v1/p/stream/a", "p", "a"),
        ("/v1/stream/a/b", "_default", "a/b"),
        ("/v1/_default/stream/a/b", "_default", "a/b"),
        ("/v1/stream/stream/a", "_default", "stream/a"),
        ("/v1/stream/stream", "_default", "stream"),
        ("/v1/p/stream/stream/x", "p", "stream/x"),
        ("/v1/stream/caf%C3%A9%20%3f%23%25", "_default", "café ?#%"),
        ("/v1/stream/%252F", "_default", "%2F"),
        ("/v1/stream/a|b[c]^'", "_default", "a|b[c]^'"),
        ("/v1/stream/...", "_default", "..."),
        ("/v1/stream/.a", "_default", ".a"),
    ] {
        assert_eq!(parsed(raw_path), stream(project, path), "{raw_path}");
    }
    assert_eq!(parsed("/v1/p/stream/a/b").object_name(), "p/a/b");
    assert_eq!(parsed("/v1/stream/reconcile"), stream("_default", "reconcile"));
    assert_eq!(parsed("/v1/p/stream/reconcile"), stream("p", "reconcile"));
}

#[test]
fn other_urls() {
    assert_eq!(Route::parse("/health"), Ok(Route::Health));
    let project = Project::parse("p").unwrap();
    assert_eq!(Route::parse("/v1/p/reconcile"), Ok(Route::Reconcile { project }));
    assert_eq!(Route::parse("/v1/a.b/reconcile"), Err(NameError::InvalidProject));
    assert_eq!(Route::parse("/v1/reconcile"), Ok(Route::NotFound));
    for (raw_path, project) in [("/v1/stream", "_default"), ("/v1/p-1/stream", "p-1")] {
        let project = Project::parse(project).unwrap();
        assert_eq!(Route::parse(raw_path), Ok(Route::ProjectRoot { project }));
    }
    for raw_path in [
        "",
        "/",
        "health",
        "/health/",
        "/v1",
        "/v1/",
        "/v1/p",
        "/v1/p/",
        "/v1/p/streams/a",
        "/v2/stream/a",
        "//v1/stream/a",
        "/v1//x/stream/a",
        "/v1/%73tream/a",
        "/v1/p/Stream/a",
        "v1/stream/a",
        "/v1/b@d/other/a",
    ] {
        assert_eq!(Route::parse(raw_path), Ok(Route::NotFound), "{raw_path}");
    }
}

#[test]
fn urls_of_sessions() {
    let project = || Project::parse("p").unwrap();
    let session = |text: &str| SessionId::parse(text).unwrap();
    let long = "s".repeat(SESSION_ID_BYTES_MAX);
    for (segment, id) in
        [("a:b.c-d_e", "a:b.c-d_e"), ("a%3Ab", "a:b"), ("...", "..."), (&long, &long)]
    {
        let (project, session) = (project(), session(id));
        let route = Route::parse(&format!("/v1/p/session/{segment}")).unwrap();
        assert_eq!(route.stream_path().unwrap().as_str(), format!("session/{id}"));
        assert_eq!(route, Route::Session { project: project.clone(), session: session.clone() });
        let route = Route::parse(&format!("/v1/p/session/{segment}/touch")).unwrap();
        assert_eq!(route, Route::SessionTouch { project, session });
    }
    let id = session("a:b");
    assert_eq!(id.object_name(&project()), "p/a:b");
    assert_eq!(id.stream(&project()).url_path(), "/v1/p/stream/session/a%3Ab");
    assert_eq!(id.stream_path(), StreamPath::from_decoded("session/a:b").unwrap());
    let longer = format!("{long}s");
    for segment in ["", ".", "..", "%2e%2E", "a%2Fb", "a%20b", "a+b", "é", "%C3%A9", "a%", &longer]
    {
        let expected = Err(NameError::InvalidSession);
        assert_eq!(Route::parse(&format!("/v1/p/session/{segment}")), expected, "{segment}");
        assert_eq!(Route::parse(&format!("/v1/p/session/{segment}/touch")), expected, "{segment}");
    }
    for path in ["session", "session/a/b", "session/a/touch/", "session/a/"] {
        assert_eq!(Route::parse(&format!("/v1/p/{path}")), Ok(Route::NotFound), "{path}");
    }
    assert_eq!(Route::parse("/v1/p.q/session/a"), Err(NameError::InvalidProject));
}

#[test]
fn urls_of_publishing_and_subscribing() {
    let project = Project::parse("p").unwrap();
    for (path, route) in [
        ("subscribe", Route::Subscribe { project: project.clone() }),
        ("subscribe/batch", Route::SubscribeBatch { project: project.clone() }),
        ("unsubscribe", Route::Unsubscribe { project: project.clone() }),
        ("subscribe/", Route::NotFound),
        ("subscribe/batch/", Route::NotFound),
        ("unsubscribe/a", Route::NotFound),
        ("publish", Route::NotFound),
        ("publish/a/b%20c", Route::Publish { name: stream("p", "a/b c"), reserved: None }),
        (
            "publish/session/a",
            Route::Publish { name: stream("p", "session/a"), reserved: Some(Reserved::Session) },
        ),
    ] {
        assert_eq!(Route::parse(&format!("/v1/p/{path}")), Ok(route), "{path}");
    }
    assert_eq!(Route::parse("/v1/p/publish/"), Err(NameError::PathEmpty));
    assert_eq!(Route::parse("/v1/p/publish/a//b"), Err(NameError::EmptySegment));
    // There is no form without a project: these are projects of those names.
    for path in ["/v1/subscribe", "/v1/publish/a", "/v1/session/a"] {
        assert_eq!(Route::parse(path), Ok(Route::NotFound), "{path}");
    }
}

#[test]
fn names_that_are_not_allowed() {
    let long_project = format!("/v1/{}/stream/a", "p".repeat(65));
    let long_path = format!("/v1/stream/{}", "a".repeat(513));
    let long_url = format!("/v1/stream/{}", "a".repeat(URL_PATH_BYTES_MAX));
    for (raw_path, error) in [
        ("/v1//stream/a", NameError::InvalidProject),
        ("/v1/p.1/stream/a", NameError::InvalidProject),
        ("/v1/%70/stream/a", NameError::InvalidProject),
        ("/v1/é/stream", NameError::InvalidProject),
        (&long_project, NameError::InvalidProject),
        ("/v1/stream/", NameError::PathEmpty),
        ("/v1/p/stream/", NameError::PathEmpty),
        (&long_path, NameError::PathTooLong),
        (&long_url, NameError::UrlTooLong),
        ("/v1/stream/a%", NameError::InvalidEscape),
        ("/v1/stream/a%4", NameError::InvalidEscape),
        ("/v1/stream/a%4g", NameError::InvalidEscape),
        ("/v1/stream/a%+1", NameError::InvalidEscape),
        ("/v1/stream/a?b", NameError::Unencoded),
        ("/v1/stream/a#b", NameError::Unencoded),
        ("/v1/stream/é", NameError::Unencoded),
        ("/v1/stream/%FF", NameError::NotUtf8),
        ("/v1/stream/%C0%AF", NameError::NotUtf8),
        ("/v1/stream/%ED%A0%80", NameError::NotUtf8),
        ("/v1/stream/a%00", NameError::ControlCharacter),
        ("/v1/stream/a%0Ab", NameError::ControlCharacter),
        ("/v1/stream/a%7f", NameError::ControlCharacter),
        ("/v1/stream/a%C2%85", NameError::ControlCharacter),
        ("/v1/stream/a\tb", NameError::ControlCharacter),
        ("/v1/stream/a\\b", NameError::Backslash),
        ("/v1/stream/a%5Cb", NameError::Backslash),
        ("/v1/stream/a%2Fb", NameError::EncodedSlash),
        ("/v1/stream/%2f", NameError::EncodedSlash),
        ("/v1/stream/a//b", NameError::EmptySegment),
        ("/v1/stream//a", NameError::EmptySegment),
        ("/v1/stream/a/", NameError::EmptySegment),
        ("/v1/stream/.", NameError::DotSegment),
        ("/v1/stream/a/../b", NameError::DotSegment),
        ("/v1/stream/%2e%2E/b", NameError::DotSegment),
        ("/v1/stream/a/.%2e", NameError::DotSegment),
    ] {
        assert_eq!(Route::parse(raw_path), Err(error), "{raw_path}");
    }
}

#[test]
fn lengths_are_those_of_the_decoded_path() {
    let encoded = "%C3%A9".repeat(STREAM_PATH_BYTES_MAX / 2);
    let project = "p".repeat(PROJECT_BYTES_MAX);
    let name = parsed(&format!("/v1/{project}/stream/{encoded}"));
    assert_eq!(name.path.as_str().len(), STREAM_PATH_BYTES_MAX);
    assert_eq!(name.object_name().len(), 577);
    assert_eq!(parsed(&name.url_path()), name);
}

#[test]
fn reserved_segments() {
    for (raw_path, reserved) in [
        ("/v1/stream/__ds/subscriptions/x", Some(Reserved::Subscriptions)),
        ("/v1/p/stream/session/s", Some(Reserved::Session)),
        ("/v1/p/stream/session", Some(Reserved::Session)),
        ("/v1/p/stream/%73ession/s", Some(Reserved::Session)),
        ("/v1/p/stream/sessions", None),
        ("/v1/p/stream/a/session", None),
        ("/v1/p/stream/Session", None),
    ] {
        let name = parsed(raw_path);
        assert_eq!(Route::parse(raw_path), Ok(Route::Stream { name, reserved }), "{raw_path}");
    }
}

#[test]
fn references() {
    let default = Project::default();
    let other = Project::parse("p").unwrap();
    let read = StreamName::parse_reference;
    assert_eq!(read("/v1/stream/a/b", &default), Ok(stream("_default", "a/b")));
    assert_eq!(read("/v1/_default/stream/a", &default), Ok(stream("_default", "a")));
    assert_eq!(read("/v1/p/stream/caf%C3%A9", &other), Ok(stream("p", "café")));
    assert_eq!(read("/v1/stream/a", &other), Err(ForkSourceError::OtherProject));
    assert_eq!(read("/v1/p/stream/a", &default), Err(ForkSourceError::OtherProject));
    for value in ["", "a/b", "/a/b", "/v1/stream", "/health", "http://h/v1/stream/a"] {
        assert_eq!(read(value, &default), Err(ForkSourceError::NotAStream), "{value}");
    }
    for (value, error) in [
        ("/v1/stream/../a", NameError::DotSegment),
        ("/v1/stream/a?offset=-1", NameError::Unencoded),
        ("/v1/stream/a%2fb", NameError::EncodedSlash),
    ] {
        assert_eq!(read(value, &default), Err(ForkSourceError::Name(error)), "{value}");
    }
}

#[test]
fn object_names() {
    for name in ["", "p", "p/", "/a", "p/a//b", "p/../b", "stream/a", "p q/a"] {
        assert!(StreamName::parse_object_name(name).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn names_round_trip(
        project in "[a-zA-Z0-9_-]{1,64}", path in "[^/\\\\\\p{Cc}]{1,40}(/[^/\\\\\\p{Cc}]{1,40}){0,2}",
    ) {
        prop_assume!(project != "stream");
        let valid = path.split('/').all(|segment| !matches!(segment, "." | ".."));
        prop_assume!(valid && path.len() <= STREAM_PATH_BYTES_MAX);
        let name = stream(&project, &path);
        prop_assert_eq!(&parsed(&name.url_path()), &name);
        prop_assert_eq!(StreamName::parse_object_name(&name.object_name()), Ok(name.clone()));
        let reference = StreamName::parse_reference(&name.url_path(), &name.project);
        prop_assert_eq!(reference, Ok(name));
    }

    #[test]
    fn whatever_is_accepted_is_clean(
        raw_path in "\\PC*|/v1/stream/[a-c./%0-9A-F\\\\ ]{0,40}|/v1/[a-z%/]{0,9}/stream/(%[0-9A-F]{2}){0,9}",
    ) {
        if let Ok(Route::Stream { name, .. }) = Route::parse(&raw_path) {
            let path = name.path.as_str();
            prop_assert!((1..=STREAM_PATH_BYTES_MAX).contains(&path.len()));
            prop_assert!(!path.contains('\\') && !path.chars().any(char::is_control));
            prop_assert!(path.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
            prop_assert_eq!(StreamName::parse_object_name(&name.object_name()), Ok(name.clone()));
            prop_assert_eq!(parsed(&name.url_path()), name);
        }
    }
}
