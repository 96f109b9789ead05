//! The `append` frame of a client.
//!
//! Its members are sliced first, whatever they are; then `id` decides whether the append can be
//! answered, and the rest becomes an [`AppendRequest`] or the error of the answer.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::content_type::ContentType;
use crate::decimal;
use crate::error::{ApiError, ErrorCode};
use crate::headers::StreamSeq;
use crate::limits::SAFE_INTEGER_MAX;
use crate::producer::{Epoch, Producer, ProducerId, Seq};

/// Bytes of an [`AppendId`] that is a text; it is held until the append is answered.
const ID_BYTES_MAX: usize = 128;

/// An append that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendFrame<'a> {
    /// What the answer repeats.
    pub id: AppendId,
    /// What to append, or the error that the client gets in a nack: `INVALID_APPEND`,
    /// `INVALID_PRODUCER` for `producer`, `INVALID_HEADER` for `seq`.
    pub request: Result<AppendRequest<'a>, ApiError>,
}

/// The name that a client gives to an append. Prints as the JSON value that it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AppendId {
    /// 1 to 128 bytes.
    Text(Box<str>),
    /// At most [`SAFE_INTEGER_MAX`].
    Number(u64),
}

impl fmt::Display for AppendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => Value::from(text.as_ref()).fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// What a client asks to append, as the headers and the body of a POST would say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRequest<'a> {
    /// The bytes, still in their wrapping.
    pub body: AppendBody<'a>,
    /// The idempotent producer, if any.
    pub producer: Option<Producer>,
    /// `Stream-Seq`, if any.
    pub seq: Option<StreamSeq>,
    /// Whether to close the stream in the same step.
    pub close: bool,
}

/// The body of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendBody<'a> {
    /// There is none.
    None,
    /// `payload`: the text of one JSON value, without white space around it.
    Json(&'a str),
    /// `base64`, decoded.
    Base64(Vec<u8>),
}

impl<'a> AppendBody<'a> {
    /// The bytes that a POST to a stream of this content type would carry; empty for no body. JSON
    /// is not looked into: the bytes still have to be framed as a POST's are.
    ///
    /// # Errors
    /// `INVALID_APPEND` for a `payload` that is no text for a `text/*` stream, and for any
    /// `payload` for a stream that is neither that nor JSON.
    pub fn into_bytes(self, content_type: &ContentType) -> Result<Cow<'a, [u8]>, ApiError> {
        match self {
            Self::None => Ok(Cow::Borrowed(b"")),
            Self::Base64(bytes) => Ok(Cow::Owned(bytes)),
            Self::Json(text) if content_type.is_json() => Ok(Cow::Borrowed(text.as_bytes())),
            Self::Json(text) if content_type.is_text() => match string(text) {
                Some(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.as_bytes())),
                Some(Cow::Owned(text)) => Ok(Cow::Owned(text.into_bytes())),
                None => Err(invalid("The `payload` for a text stream is not a string of Unicode.")),
            },
            Self::Json(_) => {
                Err(invalid("This stream holds bytes: send them as `base64`, not as `payload`."))
            }
        }
    }
}

/// The members of an `append` object as they stand in the text.
#[derive(Default)]
pub(super) struct AppendMembers<'a> {
    id: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    base64: Option<&'a RawValue>,
    producer: Option<&'a RawValue>,
    seq: Option<&'a RawValue>,
    close: Option<&'a RawValue>,
    /// A member is unknown or stands twice.
    fault: bool,
}

impl<'a> AppendFrame<'a> {
    /// The frame with these members; `None` without a usable `id`.
    pub(super) fn from_members(members: &AppendMembers<'a>) -> Option<AppendFrame<'a>> {
        let id = parse_id(members.id?.get())?;
        Some(AppendFrame { id, request: parse_request(members) })
    }
}

fn parse_id(raw: &str) -> Option<AppendId> {
    if raw.starts_with('"') {
        let text = string(raw).filter(|text| (1..=ID_BYTES_MAX).contains(&text.len()))?;
        return Some(AppendId::Text(text.into()));
    }
    decimal::parse(raw, SAFE_INTEGER_MAX).map(AppendId::Number)
}

fn parse_request<'a>(members: &AppendMembers<'a>) -> Result<AppendRequest<'a>, ApiError> {
    if members.fault {
        return Err(invalid("A member of the append is unknown or stands twice."));
    }
    let close = match members.close.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("The append's `close` is neither `true` nor `false`.")),
    };
    let body = match (members.payload, members.base64) {
        (None, None) => AppendBody::None,
        (Some(payload), None) => AppendBody::Json(payload.get()),
        (None, Some(base64)) => AppendBody::Base64(decode_base64(base64.get())?),
        (Some(_), Some(_)) => {
            return Err(invalid("An append has either `payload` or `base64`, not both."));
        }
    };
    let producer = members.producer.map(|raw| parse_producer(raw.get())).transpose()?;
    let seq = members.seq.map(|raw| parse_seq(raw.get())).transpose()?;
    Ok(AppendRequest { body, producer, seq, close })
}

fn decode_base64(raw: &str) -> Result<Vec<u8>, ApiError> {
    string(raw)
        .and_then(|text| STANDARD.decode(text.as_bytes()).ok())
        .ok_or_else(|| invalid("The append's `base64` is not a string of padded base64."))
}

fn parse_seq(raw: &str) -> Result<StreamSeq, ApiError> {
    let error = |message: String| ApiError::new(ErrorCode::InvalidHeader, message);
    let text = string(raw).ok_or_else(|| error("The append's `seq` is not a string.".into()))?;
    StreamSeq::parse(&text).map_err(|cause| error(format!("In the append's `seq`, {cause}.")))
}

fn parse_producer(raw: &str) -> Result<Producer, ApiError> {
    let error = |message: String| ApiError::new(ErrorCode::InvalidProducer, message);
    let members: ProducerMembers = serde_json::from_str(raw).map_err(|_| {
        error("The append's `producer` is not an object with `id`, `epoch` and `seq`.".into())
    })?;
    let id = string(members.id.get())
        .ok_or_else(|| error("The producer's `id` is not a string.".into()))?;
    let id = ProducerId::parse(&id)
        .map_err(|cause| error(format!("In the append's `producer`, {cause}.")))?;
    let number = |name: &str, raw: &RawValue| {
        decimal::parse(raw.get(), SAFE_INTEGER_MAX).ok_or_else(|| {
            error(format!("The producer's `{name}` is not an integer from 0 to 2^53-1."))
        })
    };
    let epoch = Epoch(number("epoch", members.epoch)?);
    let seq = Seq(number("seq", members.seq)?);
    Ok(Producer { id, epoch, seq })
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidAppend, message)
}

/// The text of a JSON string; `None` for another value, and for escapes of lone surrogates, which
/// name no text. `raw` is valid JSON.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Id,
    Payload,
    Base64,
    Producer,
    Seq,
    Close,
    #[serde(other)]
    Unknown,
}

impl<'de: 'a, 'a> Deserialize<'de> for AppendMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AppendMembers<'a>, D::Error> {
        deserializer.deserialize_map(AppendVisitor)
    }
}

/// Written out, since a derived one would take an array for an object, and would not go on behind
/// a member that is wrong.
struct AppendVisitor;

impl<'de> Visitor<'de> for AppendVisitor {
    type Value = AppendMembers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AppendMembers<'de>, A::Error> {
        let mut members = AppendMembers::default();
        while let Some(key) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            let slot = match key {
                Key::Id if members.id.is_some() => return Err(A::Error::custom("a second id")),
                Key::Id => &mut members.id,
                Key::Payload => &mut members.payload,
                Key::Base64 => &mut members.base64,
                Key::Producer => &mut members.producer,
                Key::Seq => &mut members.seq,
                Key::Close => &mut members.close,
                Key::Unknown => {
                    members.fault = true;
                    continue;
                }
            };
            members.fault |= slot.replace(value).is_some();
        }
        Ok(members)
    }
}

/// The members of a `producer` object.
struct ProducerMembers<'a> {
    id: &'a RawValue,
    epoch: &'a RawValue,
    seq: &'a RawValue,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum ProducerKey {
    Id,
    Epoch,
    Seq,
}

impl<'de: 'a, 'a> Deserialize<'de> for ProducerMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ProducerMembers<'a>, D::Error> {
        deserializer.deserialize_map(ProducerVisitor)
    }
}

/// Written out for the same reason as [`AppendVisitor`].
struct ProducerVisitor;

impl<'de> Visitor<'de> for ProducerVisitor {
    type Value = ProducerMembers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ProducerMembers<'de>, A::Error> {
        let (mut id, mut epoch, mut seq) = (None, None, None);
        while let Some(key) = map.next_key()? {
            let slot = match key {
                ProducerKey::Id => &mut id,
                ProducerKey::Epoch => &mut epoch,
                ProducerKey::Seq => &mut seq,
            };
            if slot.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        let missing = || A::Error::custom("a member is missing");
        Ok(ProducerMembers {
            id: id.ok_or_else(missing)?,
            epoch: epoch.ok_or_else(missing)?,
            seq: seq.ok_or_else(missing)?,
        })
    }
}
