//! The content type of a stream (PROTOCOL.md §9).
//!
//! A [`ContentType`] keeps the text it was created with, because that text is returned on reads,
//! and knows its essence (`type/subtype` in lower case), by which types are compared.
//!
//! **Invariants.** The text is printable ASCII of at most [`CONTENT_TYPE_BYTES_MAX`] bytes and
//! matches the grammar of RFC 9110 §8.3.1; it can be written into a header as it is.
//!
//! **Error semantics.** [`InvalidContentType`] for any text outside that grammar.
//!
//! **What stays out.** What a missing content type means: a create takes the default, an append
//! refuses, a fork inherits.

use std::fmt;

use crate::limits::CONTENT_TYPE_BYTES_MAX;

/// A valid media type with its parameters. `==` compares the text; requests are compared with
/// [`ContentType::same_media_type`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentType {
    text: Box<str>,
    essence: Box<str>,
}

/// How the bytes of a stream travel in SSE data events (PROTOCOL.md §5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SseEncoding {
    /// UTF-8 text, a line per `data:` line.
    Text,
    /// A JSON array, a message per `data:` line.
    Json,
    /// Base64, announced by the header `stream-sse-data-encoding`.
    Base64,
}

impl ContentType {
    /// Reads the value of a `Content-Type` header.
    ///
    /// ```text
    /// type "/" subtype *( OWS ";" OWS [ name "=" ( token / quoted-string ) ] )
    /// ```
    ///
    /// # Errors
    /// [`InvalidContentType`] when the text does not match, is longer than
    /// [`CONTENT_TYPE_BYTES_MAX`], or holds a byte outside printable ASCII (tabs included).
    pub fn parse(text: &str) -> Result<ContentType, InvalidContentType> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.len() > CONTENT_TYPE_BYTES_MAX || !printable {
            return Err(InvalidContentType);
        }
        let (essence, parameters) = match text.split_once(';') {
            Some((essence, parameters)) => (essence.trim_end_matches(' '), Some(parameters)),
            None => (text, None),
        };
        let (main, sub) = essence.split_once('/').ok_or(InvalidContentType)?;
        if !is_token(main) || !is_token(sub) || !parameters.is_none_or(are_parameters) {
            return Err(InvalidContentType);
        }
        Ok(ContentType { text: text.into(), essence: essence.to_ascii_lowercase().into() })
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `type/subtype` in lower case, without parameters.
    #[must_use]
    pub fn essence(&self) -> &str {
        &self.essence
    }

    /// Whether the stream is in JSON mode (PROTOCOL.md §9.1): `application/json` alone, no
    /// `+json` suffix.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.essence() == "application/json"
    }

    /// Whether the type is `text/*`.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.essence.starts_with("text/")
    }

    /// How data events of an SSE response carry this type.
    #[must_use]
    pub fn sse_encoding(&self) -> SseEncoding {
        if self.is_json() {
            SseEncoding::Json
        } else if self.is_text() {
            SseEncoding::Text
        } else {
            SseEncoding::Base64
        }
    }

    /// Whether both name the same media type: case-insensitive, parameters ignored.
    #[must_use]
    pub fn same_media_type(&self, other: &ContentType) -> bool {
        self.essence == other.essence
    }
}

/// `application/octet-stream`.
impl Default for ContentType {
    fn default() -> ContentType {
        let text = "application/octet-stream";
        ContentType { text: text.into(), essence: text.into() }
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text is no media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidContentType;

impl fmt::Display for InvalidContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the content type is not `type/subtype` with optional `; name=value` parameters \
             in at most {CONTENT_TYPE_BYTES_MAX} bytes"
        )
    }
}

impl std::error::Error for InvalidContentType {}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What follows the first semicolon.
fn are_parameters(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start_matches(' ');
        if !rest.is_empty() && !rest.starts_with(';') {
            match skip_parameter(rest) {
                Some(after) => rest = after.trim_start_matches(' '),
                None => return false,
            }
        }
        match rest.strip_prefix(';') {
            Some(after) => rest = after,
            None => return rest.is_empty(),
        }
    }
}

/// Skips `name=value`; `None` when there is none.
fn skip_parameter(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    if !is_token(name) {
        return None;
    }
    if let Some(quoted) = value.strip_prefix('"') {
        return skip_quoted(quoted);
    }
    let after = value.trim_start_matches(|c: char| u8::try_from(c).is_ok_and(is_token_byte));
    (after.len() < value.len()).then_some(after)
}

/// Skips the rest of a quoted string whose opening quote was read.
fn skip_quoted(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(characters.as_str()),
            '\\' => {
                characters.next()?;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> ContentType {
        ContentType::parse(text).unwrap()
    }

    #[test]
    fn keeps_the_text_and_compares_the_essence() {
        let json = parse("Application/JSON; charset=UTF-8");
        assert_eq!(json.as_str(), "Application/JSON; charset=UTF-8");
        assert_eq!(json.essence(), "application/json");
        assert!(json.is_json() && !json.is_text());
        assert!(json.same_media_type(&parse("application/json")));
        assert!(!json.same_media_type(&parse("application/ld+json")));
        assert_eq!(parse("text/plain ; a=b").essence(), "text/plain");
    }

    #[test]
    fn encodings() {
        for (text, encoding) in [
            ("application/json", SseEncoding::Json),
            ("TEXT/html;charset=utf-8", SseEncoding::Text),
            ("application/ndjson", SseEncoding::Base64),
            ("application/vnd.api+json", SseEncoding::Base64),
            ("application/octet-stream", SseEncoding::Base64),
            ("textual/x", SseEncoding::Base64),
        ] {
            assert_eq!(parse(text).sse_encoding(), encoding, "{text}");
        }
        assert_eq!(ContentType::default(), parse("application/octet-stream"));
    }

    #[test]
    fn accepts_the_grammar() {
        for text in [
            "text/plain;",
            "text/plain; ;charset=utf-8 ; x=\"a;b\\\"c, d\"",
            "text/plain;charset=\"\"",
            "multipart/form-data; boundary=----WebKit'x",
        ] {
            assert_eq!(parse(text).as_str(), text);
        }
    }

    #[test]
    fn refuses_what_is_outside_the_grammar() {
        let long = format!("text/{}", "a".repeat(CONTENT_TYPE_BYTES_MAX));
        for text in [
            "",
            "text",
            "text/",
            "/plain",
            "text/plain/x",
            " text/plain",
            "text /plain",
            "text/plain ",
            "text/plain, text/html",
            "text/plain; charset",
            "text/plain; charset=",
            "text/plain; =utf-8",
            "text/plain; charset =utf-8",
            "text/plain; charset=\"utf-8",
            "text/plain; charset=\"utf-8\\",
            "text/plain; charset=\"utf-8\"x",
            "text/plain;\tcharset=utf-8",
            "text/plain\r\nX: y",
            "text/plän",
            &long,
        ] {
            assert_eq!(ContentType::parse(text), Err(InvalidContentType), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn tokens_are_accepted_whatever_their_case(
            main in "[a-zA-Z0-9!#$&^_.+-]{1,20}", sub in "[a-zA-Z0-9!#$&^_.+-]{1,20}",
        ) {
            let lower = parse(&format!("{main}/{sub}").to_lowercase());
            let upper = parse(&format!("{main}/{sub};q=1").to_uppercase());
            prop_assert!(lower.same_media_type(&upper));
        }

        #[test]
        fn never_panics_and_accepts_only_header_text(
            text in "\\PC*|[a-z/;= \"\\\\]{0,40}|[a-z]{1,9}/[a-z]{1,9}[a-z;= \"\\\\]{0,30}",
        ) {
            if let Ok(parsed) = ContentType::parse(&text) {
                prop_assert_eq!(parsed.as_str(), &text);
                prop_assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
                prop_assert!(parse(parsed.essence()).same_media_type(&parsed));
            }
        }
    }
}
