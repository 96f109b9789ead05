//! The words in which forks and sources talk: JSON, and pages of a copy in binary.

use engine::Missing;
use engine::fork::{Copied, CopyPage, ForkError, ForkGrant};
use engine::life::Inherited;
use engine::log::{Blob, Key, LogError, SegmentRow};
use engine::offsets::OffsetError;
use protocol::content_type::ContentType;
use protocol::error::ErrorCode;
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, Offset, OffsetParam, Position};
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::super::JsBytes;
use crate::call::to_json;
use crate::cold::damaged;
use crate::respond::Failure;

/// `reference`: a fork asks its source.
#[derive(Serialize, Deserialize)]
pub(super) struct ReferenceMessage {
    pub(super) child: String,
    pub(super) generation: u64,
    /// As in `Stream-Fork-Offset`.
    pub(super) offset: Option<String>,
    pub(super) sub_offset: u64,
    pub(super) content_type: Option<String>,
}

/// The source's answer to `reference`.
#[derive(Serialize, Deserialize)]
pub(super) enum ReferenceAnswer {
    Granted {
        source: u64,
        at: u64,
        content_type: String,
        ttl_s: Option<u64>,
        expires_at: Option<u64>,
        /// `(generation, end)`.
        lineage: Vec<(u64, u64)>,
    },
    RaiseTo(u64),
    /// The source's segment of this name is damaged.
    Damaged(String),
    Refused(Refusal),
}

/// [`ForkError`] on the wire.
#[derive(Serialize, Deserialize)]
pub(super) enum Refusal {
    NotFound,
    Gone,
    BeyondTail { generation: u64, position: u64 },
    StaleOffset,
    InvalidOffset,
    SubOffset,
    ContentType(String),
    TooDeep,
    TooHot,
    Storage,
}

/// A shared segment on the wire.
#[derive(Serialize, Deserialize)]
pub(super) struct SegmentMessage {
    at: u64,
    length: u64,
    name: String,
    size: u64,
    sums: Vec<u32>,
    ends: Vec<u64>,
}

/// `release`: a fork is gone.
#[derive(Serialize, Deserialize)]
pub(super) struct ReleaseMessage {
    pub(super) child: String,
    pub(super) generation: u64,
}

/// What a source's answer, or its absence, means to the fork.
pub(super) enum Asked {
    /// No reference is stored.
    Refused(ForkError),
    /// A reference may be stored.
    Unknown(Failure),
}

pub(super) fn grant_of(answer: ReferenceAnswer) -> Result<ForkGrant, Asked> {
    let refused = |error| Err(Asked::Refused(error));
    match answer {
        // Nothing is referenced, but an earlier copy of the question may have been answered.
        ReferenceAnswer::Damaged(segment) => Err(Asked::Unknown(damaged(segment))),
        ReferenceAnswer::RaiseTo(generation) => {
            refused(ForkError::GenerationTooLow { at_least: Generation(generation) })
        }
        ReferenceAnswer::Refused(refusal) => refused(error_of(refusal)),
        ReferenceAnswer::Granted { source, at, content_type, ttl_s, expires_at, lineage } => {
            let Ok(content_type) = ContentType::parse(&content_type) else {
                return Err(Asked::Unknown(Failure::new(
                    ErrorCode::Internal,
                    "A grant does not parse.",
                )));
            };
            let lifetime = match (ttl_s, expires_at) {
                (Some(seconds), _) => Lifetime::Ttl { seconds },
                (None, Some(at)) => Lifetime::ExpiresAt { at: UnixMillis(at) },
                (None, None) => Lifetime::Unlimited,
            };
            let stretch = |(generation, end)| Inherited {
                generation: Generation(generation),
                end: Position(end),
            };
            Ok(ForkGrant {
                source: Generation(source),
                at: Position(at),
                content_type,
                lifetime,
                lineage: lineage.into_iter().map(stretch).collect(),
            })
        }
    }
}

pub(super) fn granted(grant: ForkGrant) -> ReferenceAnswer {
    let (ttl_s, expires_at) = match grant.lifetime {
        Lifetime::Unlimited => (None, None),
        Lifetime::Ttl { seconds } => (Some(seconds), None),
        Lifetime::ExpiresAt { at } => (None, Some(at.0)),
    };
    ReferenceAnswer::Granted {
        source: grant.source.0,
        at: grant.at.0,
        content_type: grant.content_type.as_str().to_owned(),
        ttl_s,
        expires_at,
        lineage: grant
            .lineage
            .iter()
            .map(|stretch| (stretch.generation.0, stretch.end.0))
            .collect(),
    }
}

pub(super) fn refusal_of(error: ForkError) -> Refusal {
    match error {
        ForkError::Missing(Missing::NotFound) => Refusal::NotFound,
        ForkError::Missing(Missing::Gone) => Refusal::Gone,
        ForkError::Missing(Missing::Log(_)) | ForkError::Offset(OffsetError::Log(_)) => {
            Refusal::Storage
        }
        ForkError::Offset(OffsetError::BeyondTail { tail }) => {
            Refusal::BeyondTail { generation: tail.generation.0, position: tail.position.0 }
        }
        ForkError::Offset(OffsetError::Stale) => Refusal::StaleOffset,
        ForkError::Offset(OffsetError::Invalid) => Refusal::InvalidOffset,
        ForkError::SubOffset => Refusal::SubOffset,
        ForkError::ContentType { expected } => Refusal::ContentType(expected.as_str().to_owned()),
        ForkError::TooDeep => Refusal::TooDeep,
        ForkError::TooHot => Refusal::TooHot,
        // The first two are answered with a generation to ask again with, the last with bytes.
        ForkError::GenerationTooLow { .. } | ForkError::Refused | ForkError::Lend(_) => {
            Refusal::Storage
        }
    }
}

pub(super) fn error_of(refusal: Refusal) -> ForkError {
    let storage = || Missing::Log(LogError::Failed("the source's storage failed".into()));
    match refusal {
        Refusal::NotFound => ForkError::Missing(Missing::NotFound),
        Refusal::Gone => ForkError::Missing(Missing::Gone),
        Refusal::BeyondTail { generation, position } => {
            let tail = Offset { generation: Generation(generation), position: Position(position) };
            ForkError::Offset(OffsetError::BeyondTail { tail })
        }
        Refusal::StaleOffset => ForkError::Offset(OffsetError::Stale),
        Refusal::InvalidOffset => ForkError::Offset(OffsetError::Invalid),
        Refusal::SubOffset => ForkError::SubOffset,
        Refusal::ContentType(expected) => {
            ForkError::ContentType { expected: ContentType::parse(&expected).unwrap_or_default() }
        }
        Refusal::TooDeep => ForkError::TooDeep,
        Refusal::TooHot => ForkError::TooHot,
        Refusal::Storage => ForkError::Missing(storage()),
    }
}

pub(super) fn offset_text(offset: OffsetParam) -> String {
    match offset {
        OffsetParam::Start => "-1".into(),
        OffsetParam::Now => "now".into(),
        OffsetParam::At(offset) => offset.to_string(),
    }
}

/// `[kind u8]`, then for 0 a page, for 1 segments as JSON, for 2 nothing: start anew.
pub(super) fn encode_copied(copied: Copied<JsBytes>) -> JsBytes {
    let (kind, rest) = match copied {
        Copied::Page(page) => (0, encode_page(page)),
        Copied::Segments(rows) => {
            let message = |row: SegmentRow| SegmentMessage {
                at: row.key.0,
                length: row.length,
                name: row.name,
                size: row.size,
                sums: row.sums,
                ends: row.ends,
            };
            let messages: Vec<SegmentMessage> = rows.into_iter().map(message).collect();
            (1, JsBytes::from_vec(to_json(&messages).into_bytes()))
        }
        Copied::Restart => (2, JsBytes::from_vec(Vec::new())),
    };
    JsBytes::concat(&[JsBytes::from_vec(vec![kind]), rest])
}

pub(super) fn decode_copied(from: Position, bytes: &JsBytes) -> Option<Copied<JsBytes>> {
    let rest = bytes.slice(1..bytes.len());
    match bytes.slice(0..1).to_vec().first()? {
        0 => decode_page(from, &rest).map(Copied::Page),
        1 => {
            let messages: Vec<SegmentMessage> = serde_json::from_slice(&rest.to_vec()).ok()?;
            let row = |message: SegmentMessage| SegmentRow {
                key: Key(message.at),
                length: message.length,
                name: message.name,
                own: false,
                size: message.size,
                sums: message.sums,
                ends: message.ends,
            };
            Some(Copied::Segments(messages.into_iter().map(row).collect()))
        }
        2 => Some(Copied::Restart),
        _ => None,
    }
}

/// `[count u32 LE][count × end u32 LE][bytes]`.
pub(super) fn encode_page(page: CopyPage<JsBytes>) -> JsBytes {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut head = number(page.ends.len() as u64).to_vec();
    for end in &page.ends {
        head.extend_from_slice(&number(*end));
    }
    JsBytes::concat(&[JsBytes::from_vec(head), page.bytes])
}

pub(super) fn decode_page(from: Position, page: &JsBytes) -> Option<CopyPage<JsBytes>> {
    let count = page.slice(0..4).to_vec();
    let count = u64::from(u32::from_le_bytes(count.try_into().ok()?));
    let head_bytes = 4 + count * 4;
    if head_bytes > page.len() {
        return None;
    }
    let ends = page.slice(4..head_bytes).to_vec();
    let (ends, _) = ends.as_chunks::<4>();
    let ends = ends.iter().map(|end| u64::from(u32::from_le_bytes(*end))).collect();
    Some(CopyPage { from, bytes: page.slice(head_bytes..page.len()), ends })
}
