//! Tests of tokens and patterns.

use super::*;
use proptest::prelude::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"ffffffffffffffffffffffffffffffff";
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const PAYLOAD: &str = r#"{"sub":"demo","scope":"write","exp":2000000000}"#;

/// A token of these texts with a right signature.
fn signed(header: &str, payload: &str) -> String {
    sign_parts(header, payload, SECRET)
}

fn verified(token: &str) -> Result<Claims, TokenError> {
    verify(token, &[SECRET], NOW)
}

fn with_payload(payload: &str) -> Result<Claims, TokenError> {
    verified(&signed(HEADER, payload))
}

fn claims() -> Claims {
    Claims {
        project: Project::parse("demo").unwrap(),
        scope: Scope::Write,
        expires: UnixMillis(2_000_000_000_000),
        not_before: None,
        streams: None,
    }
}

fn path(text: &str) -> StreamPath {
    StreamPath::from_decoded(text).unwrap()
}

#[test]
fn a_token_of_another_implementation_is_read() {
    // Made with Python's hmac and base64.
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                 eyJzdWIiOiJkZW1vIiwic2NvcGUiOiJ3cml0ZSIsImV4cCI6MjAwMDAwMDAwMH0.\
                 V5kI6VQJknN3ZHEIN3EMiUekjNeL4-Gtbd7MR-SPyRo";
    assert_eq!(signed(HEADER, PAYLOAD), token);
    assert_eq!(verified(token), Ok(claims()));
    assert_eq!(verify(token, &[OTHER], NOW), Err(TokenError::Signature));
    assert_eq!(verify::<&[u8]>(token, &[], NOW), Err(TokenError::Signature));
}

#[test]
fn the_example_of_rfc_7515_has_a_right_signature_and_no_claims_of_ours() {
    let key =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let key = URL_SAFE_NO_PAD.decode(key).unwrap();
    let at = UnixMillis(1_300_000_000_000);
    let no_project = Err(TokenError::Claims("the token has no `sub`"));
    assert_eq!(verify(token, &[&key], at), no_project);
    assert_eq!(verify(token, &[SECRET], at), Err(TokenError::Signature));
}

#[test]
fn no_other_header_is_taken() {
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"HS256 "}"#,
        r#"{"alg":""}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","typ":""}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
    ] {
        assert_eq!(verified(&signed(header, PAYLOAD)), Err(TokenError::Algorithm), "{header}");
    }
    for header in [
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":256}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","typ":null}"#,
        "[\"HS256\"]",
        "HS256",
        "null",
        "{",
        "",
    ] {
        assert_eq!(verified(&signed(header, PAYLOAD)), Err(TokenError::Malformed), "{header}");
    }
    for header in [r#"{"alg":"HS256"}"#, r#"{"typ":"jwt","kid":"1","alg":"HS256"}"#] {
        assert_eq!(verified(&signed(header, PAYLOAD)), Ok(claims()), "{header}");
    }
    // `none` with an empty signature has an empty part.
    let message = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), "e30");
    assert_eq!(verified(&message), Err(TokenError::Malformed));
}

#[test]
fn a_token_has_exactly_three_parts() {
    let token = signed(HEADER, PAYLOAD);
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("{token}") };
    for bad in [
        String::new(),
        "..".to_owned(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{token}.{signature}"),
        format!("{token}."),
        format!(".{token}"),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}="),
        format!("{header}.{payload}.!{signature}"),
        format!("{token}{}", "A".repeat(TOKEN_BYTES_MAX)),
    ] {
        assert_eq!(verified(&bad), Err(TokenError::Malformed), "{bad}");
    }
}

#[test]
fn a_token_of_the_largest_size_is_read() {
    let payload = |pad: usize| {
        format!(r#"{{"sub":"demo","scope":"write","exp":2000000000,"x":"{}"}}"#, "x".repeat(pad))
    };
    let pad = (0..TOKEN_BYTES_MAX)
        .rev()
        .find(|pad| signed(HEADER, &payload(*pad)).len() <= TOKEN_BYTES_MAX)
        .unwrap();
    assert_eq!(with_payload(&payload(pad)), Ok(claims()));
    assert_eq!(with_payload(&payload(pad + 1)), Err(TokenError::Malformed));
}

#[test]
fn each_changed_byte_is_noticed() {
    let token = signed(HEADER, PAYLOAD);
    for index in 0..token.len() {
        for change in [1, 2, 4, 8, 16, 32, 64] {
            let mut bytes = token.clone().into_bytes();
            bytes[index] ^= change;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verified(&changed).is_err(), "byte {index}: {changed}");
        }
    }
}

#[test]
fn the_last_secret_counts_like_the_first() {
    let token = sign(&claims(), SECRET);
    for secrets in [&[SECRET, OTHER][..], &[OTHER, SECRET], &[OTHER, OTHER, SECRET]] {
        assert_eq!(verify(&token, secrets, NOW), Ok(claims()));
    }
    assert_eq!(verify(&token, &[OTHER, OTHER], NOW), Err(TokenError::Signature));
    assert_eq!(verify(&token, &[&SECRET[1..]], NOW), Err(TokenError::Signature));
}

#[test]
fn the_signature_is_checked_before_the_claims() {
    for payload in ["", "{", "{}", r#"{"sub":"demo","scope":"write","exp":1}"#] {
        let token = signed(HEADER, payload);
        let expected =
            if payload.is_empty() { TokenError::Malformed } else { TokenError::Signature };
        assert_eq!(verify(&token, &[OTHER], NOW), Err(expected), "{payload}");
    }
}

#[test]
fn times_count_to_the_millisecond_with_leeway() {
    let token = |expires: u64, not_before: Option<u64>| {
        let not_before = not_before.map(UnixMillis);
        sign(&Claims { expires: UnixMillis(expires), not_before, ..claims() }, SECRET)
    };
    let (now, leeway) = (NOW.0, TOKEN_LEEWAY_MS);
    assert!(verified(&token(now, None)).is_ok());
    assert!(verified(&token(now - leeway + 1, None)).is_ok());
    assert_eq!(verified(&token(now - leeway, None)), Err(TokenError::Expired));
    assert!(verified(&token(now + 1, Some(now + leeway))).is_ok());
    let early = token(now + leeway + 2, Some(now + leeway + 1));
    assert_eq!(verified(&early), Err(TokenError::NotYetValid));
    assert!(verify(&token(0, None), &[SECRET], UnixMillis(0)).is_ok());
}

#[test]
fn numbers_are_seconds() {
    let expires = |number: &str| {
        let payload = format!(r#"{{"sub":"demo","scope":"write","exp":{number}}}"#);
        with_payload(&payload).map(|claims| claims.expires.0)
    };
    for (number, ms) in [
        ("2000000000", 2_000_000_000_000),
        ("2000000000.5", 2_000_000_000_500),
        ("2000000000.0004", 2_000_000_000_000),
        ("2e9", 2_000_000_000_000),
        ("18446744073709551615", u64::MAX),
        ("1e300", u64::MAX),
    ] {
        assert_eq!(expires(number), Ok(ms), "{number}");
    }
    for number in ["-1", "-0.5", "\"2000000000\"", "null", "true", "[]", "1e999", "NaN", "0x7f"] {
        assert_eq!(expires(number), Err(TokenError::Malformed), "{number}");
    }
}

#[test]
fn claims_are_checked_one_by_one() {
    for (payload, clause) in [
        (r#"{"scope":"read","exp":2e9}"#, "the token has no `sub`"),
        (r#"{"sub":"a","exp":2e9}"#, "the token has no `scope`"),
        (r#"{"sub":"a","scope":"read"}"#, "the token has no `exp`"),
        (r#"{"sub":"a/b","scope":"read","exp":2e9}"#, "the token's `sub` is no project"),
        (r#"{"sub":"a","scope":"","exp":2e9}"#, "the token's `scope` has no known word"),
        (r#"{"sub":"a","scope":"Read","exp":2e9}"#, "the token's `scope` has no known word"),
        (r#"{"sub":"a","scope":"read,write","exp":2e9}"#, "the token's `scope` has no known word"),
        (
            r#"{"sub":"a","scope":"read","exp":2e9,"stream_id":""}"#,
            "the token's `stream_id` is empty or too long",
        ),
    ] {
        assert_eq!(with_payload(payload), Err(TokenError::Claims(clause)), "{payload}");
    }
    for payload in [
        r#"{"sub":"a","scope":"read","exp":2e9,"exp":2e9}"#,
        r#"{"sub":"a","sub":"b","scope":"read","exp":2e9}"#,
        r#"{"sub":"a","scope":"read","exp":2e9,"stream_id":null}"#,
        r#"{"sub":"a","scope":"read","exp":2e9,"nbf":null}"#,
        r#"{"sub":"a","scope":["read"],"exp":2e9}"#,
        r#"{"sub":1,"scope":"read","exp":2e9}"#,
        r#"["a"]"#,
        "{}{}",
    ] {
        assert_eq!(with_payload(payload), Err(TokenError::Malformed), "{payload}");
    }
}

#[test]
fn the_highest_scope_counts() {
    assert!(Scope::Read < Scope::Write && Scope::Write < Scope::Manage);
    for (list, scope) in [
        ("read", Some(Scope::Read)),
        ("read write", Some(Scope::Write)),
        ("manage read", Some(Scope::Manage)),
        ("openid  write ", Some(Scope::Write)),
        ("openid", None),
        ("", None),
    ] {
        assert_eq!(Scope::parse_list(list), scope, "{list}");
    }
}

#[test]
fn a_token_reaches_its_project_scope_and_streams() {
    let limited = Claims { streams: Some(StreamPattern::parse("a/*").unwrap()), ..claims() };
    let (demo, other) = (claims().project, Project::parse("other").unwrap());
    let (inside, outside) = (path("a/b"), path("b"));
    for (claims, project, stream, needed, expected) in [
        (claims(), &demo, Some(&inside), Scope::Read, Ok(())),
        (claims(), &demo, None, Scope::Write, Ok(())),
        (claims(), &demo, None, Scope::Manage, Err(Denied::Scope(Scope::Manage))),
        (claims(), &other, Some(&inside), Scope::Read, Err(Denied::Project)),
        (limited.clone(), &demo, Some(&inside), Scope::Write, Ok(())),
        (limited.clone(), &demo, Some(&outside), Scope::Read, Err(Denied::Stream)),
        (limited, &demo, None, Scope::Read, Err(Denied::Stream)),
    ] {
        assert_eq!(claims.permit(project, stream, needed), expected, "{claims:?} {stream:?}");
    }
}

#[test]
fn streams_of_a_body_are_looked_at_later() {
    let limited = Claims { streams: Some(StreamPattern::parse("a/*").unwrap()), ..claims() };
    let (demo, other) = (claims().project, Project::parse("other").unwrap());
    assert_eq!(limited.permit_some(&demo, Scope::Write), Ok(()));
    assert_eq!(limited.permit_some(&demo, Scope::Manage), Err(Denied::Scope(Scope::Manage)));
    assert_eq!(limited.permit_some(&other, Scope::Read), Err(Denied::Project));
}

#[test]
fn patterns() {
    for (pattern, yes, no) in [
        ("a/b", &["a/b"][..], &["a", "a/b/c", "a/bc", "A/b"][..]),
        ("a/*", &["a/b", "a/é"], &["a", "a/b/c", "b/a"]),
        ("*", &["a", "abc"], &["a/b"]),
        ("**", &["a", "a/b/c"], &[]),
        ("a/**", &["a/b", "a/b/c"], &["a", "ab"]),
        ("**/log", &["a/log", "a/b/log"], &["log", "a/blog"]),
        ("a*c", &["ac", "abc", "abcc"], &["a/c", "abcd"]),
        ("a**c", &["ac", "a/b/c"], &["a/b"]),
        ("a***c", &["ac", "a/b/c"], &["a/b"]),
        ("?", &["a", "é", "?"], &["ab"]),
        ("a?b", &["a-b"], &["a/b", "ab"]),
        ("user-?/**/x*", &["user-1/a/x", "user-1/a/b/xy"], &["user-1/x", "user-12/a/x"]),
        ("[a-z].+", &["[a-z].+"], &["b.+"]),
    ] {
        let pattern = StreamPattern::parse(pattern).unwrap();
        yes.iter().for_each(|text| assert!(pattern.matches(&path(text)), "{pattern} {text}"));
        no.iter().for_each(|text| assert!(!pattern.matches(&path(text)), "{pattern} {text}"));
    }
    assert_eq!(StreamPattern::parse(""), Err(InvalidPattern));
    assert!(StreamPattern::parse(&"*".repeat(512)).is_ok());
    assert_eq!(StreamPattern::parse(&"*".repeat(513)), Err(InvalidPattern));
}

#[test]
fn a_hostile_pattern_costs_no_more_than_both_lengths() {
    let pattern = StreamPattern::parse(&"*a".repeat(256)).unwrap();
    assert!(!pattern.matches(&path(&format!("{}b", "a".repeat(511)))));
    let pattern = StreamPattern::parse(&"**a?".repeat(128)).unwrap();
    assert!(!pattern.matches(&path(&format!("{}b", "ab/a".repeat(100)))));
}

#[test]
fn equality_of_secrets() {
    assert!(constant_time_eq(b"", b"") && constant_time_eq(SECRET, SECRET));
    assert!(!constant_time_eq(SECRET, OTHER) && !constant_time_eq(b"", SECRET));
    assert!(!constant_time_eq(&SECRET[1..], SECRET) && !constant_time_eq(SECRET, &SECRET[1..]));
}

#[test]
fn errors_say_one_clause_and_nothing_of_the_token() {
    let token = signed(HEADER, r#"{"sub":"s3cr3t/","scope":"read","exp":2e9}"#);
    let error = verified(&token).unwrap_err();
    assert_eq!(error.to_string(), "the token's `sub` is no project");
    assert!(!format!("{error:?}").contains("s3cr3t"));
    assert_eq!(Denied::Scope(Scope::Write).to_string(), "the token lacks the scope `write`");
}

/// The pattern taken apart by recursion, as its table in the docs reads.
fn matches_naively(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => (0..=text.len()).any(|cut| matches_naively(rest, &text[cut..])),
        ['*', rest @ ..] => {
            let segment = text.iter().position(|next| *next == '/').unwrap_or(text.len());
            (0..=segment).any(|cut| matches_naively(rest, &text[cut..]))
        }
        ['?', rest @ ..] => {
            text.first().is_some_and(|next| *next != '/') && matches_naively(rest, &text[1..])
        }
        [literal, rest @ ..] => text.first() == Some(literal) && matches_naively(rest, &text[1..]),
    }
}

prop_compose! {
    fn any_claims()(
        project in "[a-zA-Z0-9_-]{1,64}".prop_filter("taken", |name| name != "stream"),
        scope in prop::sample::select(vec![Scope::Read, Scope::Write, Scope::Manage]),
        expires in NOW.0..4_000_000_000_000,
        not_before in prop::option::of(0..NOW.0),
        streams in prop::option::of("\\PC{1,100}"),
    ) -> Claims {
        Claims {
            project: Project::parse(&project).unwrap(),
            scope,
            expires: UnixMillis(expires),
            not_before: not_before.map(UnixMillis),
            streams: streams.map(|text| StreamPattern::parse(&text).unwrap()),
        }
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_verified(claims in any_claims(), secret: Vec<u8>) {
        prop_assert_eq!(verify(&sign(&claims, &secret), &[secret], NOW), Ok(claims));
    }

    #[test]
    fn any_text_is_refused(text: String, parts in "[A-Za-z0-9_-]{0,9}\\.[A-Za-z0-9_-]{0,9}\\.\\PC{0,9}") {
        prop_assert!(verified(&text).is_err());
        prop_assert!(verified(&parts).is_err());
    }

    #[test]
    fn any_signed_json_is_read_without_panic(payload: String, number: f64) {
        let _ = with_payload(&payload);
        let _ = with_payload(&format!(r#"{{"sub":"a","scope":"read","exp":{number},"nbf":{number}}}"#));
    }

    #[test]
    fn patterns_match_as_the_model_says(pattern in "[ab/*?é]{1,9}", text in "[ab/é]{0,9}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(
            pattern::matches_text(&pattern, &text),
            matches_naively(&chars(&pattern), &chars(&text))
        );
    }

    #[test]
    fn secrets_are_equal_when_they_are(a: Vec<u8>, b: Vec<u8>) {
        prop_assert_eq!(constant_time_eq(&a, &b), a == b);
        prop_assert!(constant_time_eq(&a, &a));
    }
}
