//! JSON bodies: read, checked, and what is wrong with them said in one sentence.
//!
//! **Error semantics.** `INVALID_BODY`, with the field in the sentence and in `details` where there
//! is one. The libraries' own sentences quote values, so only our own are answered.
//!
//! **What stays out.** Which fields a body has: see the types that implement `Validate`.

use garde::Validate;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ErrorCode};

/// Longest name of a field that an answer repeats: what a client made up may be anything.
const FIELD_BYTES_MAX: usize = 64;

/// Reads a body and checks it.
///
/// # Errors
/// `INVALID_BODY`: not JSON, no object, an unknown, repeated or missing field, a value of another
/// type, or one that the type refuses.
pub fn parse_body<T>(bytes: &[u8]) -> Result<T, ApiError>
where
    T: DeserializeOwned + Validate<Context = ()>,
{
    // Serde by itself would take an array of the fields' values as well.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let body: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        refuse_json(&error.into_inner(), &path)
    })?;
    json.end().map_err(|error| refuse_json(&error, ""))?;
    if !is_object {
        return Err(invalid("The body is not a JSON object."));
    }
    body.validate().map_err(|report| refuse_value(&report))?;
    Ok(body)
}

/// What serde found, at `path`; `.` or nothing is the body itself.
fn refuse_json(error: &serde_json::Error, path: &str) -> ApiError {
    if !error.is_data() {
        let (line, column) = (error.line(), error.column());
        return invalid(&format!("The body is not JSON: see line {line}, column {column}."));
    }
    let text = error.to_string();
    // Serde names these fields in its sentence only. They are fields that we know.
    let quoted = |begin: &str| text.strip_prefix(begin)?.split('`').next();
    if let Some(field) = quoted("missing field `") {
        return at_field(field, |field| format!("The body lacks the field `{field}`."));
    }
    if let Some(field) = quoted("duplicate field `") {
        return at_field(field, |field| format!("The field `{field}` stands there twice."));
    }
    if matches!(path, "" | "." | "?") {
        return invalid("The body is not a JSON object with the fields of this request.");
    }
    let is_unknown = text.starts_with("unknown field");
    let problem = if is_unknown { "is unknown" } else { "has the wrong type" };
    at_field(path, |field| format!("The field `{field}` {problem}."))
}

/// What garde found first. Its sentences here are ours or numbers, never values.
fn refuse_value(report: &garde::Report) -> ApiError {
    match report.iter().next() {
        Some((path, error)) => at_field(&camel_case(&path.to_string()), |field| {
            format!("The field `{field}` is not allowed: {error}.")
        }),
        None => invalid("The body is not allowed."),
    }
}

/// `INVALID_BODY` at a field, unless its name is too long to repeat.
pub(crate) fn at_field(field: &str, sentence: impl FnOnce(&str) -> String) -> ApiError {
    if field.len() > FIELD_BYTES_MAX {
        return invalid("The body has a field that is unknown.");
    }
    invalid(&sentence(field)).with("field", field)
}

fn invalid(sentence: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidBody, sentence)
}

/// A field's name in JSON, of its name in Rust.
fn camel_case(path: &str) -> String {
    let mut words = path.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}
