//! What a client sends: credit or an append, one JSON object a message.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::append::{AppendFrame, AppendMembers};
use super::close_code;
use crate::decimal;
use crate::error::{ApiError, ErrorCode};
use crate::limits::SAFE_INTEGER_MAX;

/// A text message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// So many more data frames may be sent; at most [`SAFE_INTEGER_MAX`].
    Credit(u64),
    /// An append that can be answered.
    Append(Box<AppendFrame<'a>>),
}

impl<'a> ClientFrame<'a> {
    /// Reads a message. Time is linear in the text, the stack does not grow with its nesting.
    ///
    /// # Errors
    /// [`Refusal`]: `INVALID_CREDIT` for credit that is no number that can be granted,
    /// `INVALID_FRAME` for everything else, also for an append without a usable `id`.
    pub fn parse(text: &'a str) -> Result<ClientFrame<'a>, Refusal> {
        match serde_json::from_str(text) {
            Ok(Member::Credit(credit)) => {
                let credit = parse_credit(credit.get()).map_err(|error| Refusal { error })?;
                Ok(ClientFrame::Credit(credit))
            }
            Ok(Member::Append(members)) => {
                let frame = AppendFrame::from_members(&members).ok_or_else(invalid_id)?;
                Ok(ClientFrame::Append(Box::new(frame)))
            }
            Err(error) => Err(match error.classify() {
                Category::Data => unknown_frame(),
                // The words of serde_json may quote the text, so only the place is told.
                _ => refusal(format!(
                    "The frame is not valid JSON: see line {}, column {}.",
                    error.line(),
                    error.column()
                )),
            }),
        }
    }
}

/// Reads credit, of a frame or of the query: decimal without sign, leading zeros, fraction or
/// exponent, at most [`SAFE_INTEGER_MAX`].
///
/// # Errors
/// `INVALID_CREDIT` for any other text.
pub fn parse_credit(text: &str) -> Result<u64, ApiError> {
    decimal::parse(text, SAFE_INTEGER_MAX).ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidCredit, "Credit is not an integer from 0 to 2^53-1.")
    })
}

/// Why a message ends its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told before the socket closes: `INVALID_FRAME` or `INVALID_CREDIT`.
    pub error: ApiError,
}

impl Refusal {
    /// The code that the socket closes with.
    #[must_use]
    pub const fn close_code(&self) -> u16 {
        close_code(self.error.code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refusal {}

fn refusal(message: impl Into<String>) -> Refusal {
    Refusal { error: ApiError::new(ErrorCode::InvalidFrame, message) }
}

fn unknown_frame() -> Refusal {
    refusal("The frame is not an object with `credit`, a number, or `append`, an object.")
}

fn invalid_id() -> Refusal {
    refusal(
        "The append has no `id` that is a string of 1 to 128 bytes or an integer from 0 to 2^53-1.",
    )
}

/// The one member of a frame.
enum Member<'a> {
    Credit(&'a RawValue),
    Append(AppendMembers<'a>),
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Credit,
    Append,
}

impl<'de: 'a, 'a> Deserialize<'de> for Member<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Member<'a>, D::Error> {
        deserializer.deserialize_map(MemberVisitor)
    }
}

/// Written out, since a derived one would take an array for an object.
struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one member")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member<'de>, A::Error> {
        let member = match map.next_key()? {
            Some(Key::Credit) => Member::Credit(map.next_value()?),
            Some(Key::Append) => Member::Append(map.next_value()?),
            None => return Err(A::Error::custom("no member")),
        };
        match map.next_key::<Key>()? {
            Some(_) => Err(A::Error::custom("a second member")),
            None => Ok(member),
        }
    }
}
