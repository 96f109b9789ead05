//! Forks (PROTOCOL §4.2): a new stream that begins with the bytes of another.
//!
//! ```text
//! fork                                   source
//! begin_fork: intent row ──────────────► reference: row (child, generation)
//! fork_granted ◄──────────────────────── fork point, type, lifetime, lineage
//! fork_shared (×n) ◄──────────────────── copy: rows of sealed segments
//! fork_copied (×n) ◄──────────────────── copy: pages of hot bytes and append ends
//! finish_fork: visible
//! ```
//!
//! Every step is a commit of its own and may be the last: the intent's duty gives the fork up and
//! releases the source. The reference is idempotent by the fork's generation; a release that comes
//! before its reference leaves a row that refuses the latecomer. A fork shares its source's sealed
//! segments, copies the hot bytes behind them with the ends of appends, and takes no producers,
//! `Stream-Seq` or close state; then reads touch no other object. Shared objects stay as long as
//! the source's reference: it is the chain of references, fork by fork, that keeps them.

use std::ops::Range;

use protocol::content_type::ContentType;
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, Offset, OffsetParam, Position};

use crate::create::Created;
use crate::life::{Inherited, Origin};
use crate::log::{ForkId, LogError, SegmentRow};
use crate::offsets::OffsetError;
use crate::stream::Missing;

mod child;
mod source;

/// How long a fork may take before its duty looks whether somebody is still making it.
pub const FORK_PATIENCE_MS: u64 = 60_000;

/// What a request wants to fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkWish {
    /// Object name of the source, `{project}/{path}`.
    pub source: String,
    /// Anchor; absent means the source's tail.
    pub offset: Option<OffsetParam>,
    /// Messages (JSON) or bytes past the anchor.
    pub sub_offset: u64,
}

impl ForkWish {
    /// What a repeated request asks for that the fork is not. An absent offset matches any.
    pub(crate) fn difference(&self, origin: &Origin) -> Option<&'static str> {
        let requested = |offset| match (offset, origin.requested) {
            (None, _) => true,
            (Some(OffsetParam::At(offset)), Some(known)) => offset == known,
            (Some(OffsetParam::At(offset)), None) => offset.position == origin.at,
            (Some(OffsetParam::Start), known) => known.is_none_or(|known| known == Offset::ZERO),
            (Some(OffsetParam::Now), known) => known.is_none(),
        };
        if self.source != origin.source {
            return Some("fork source");
        }
        if !requested(self.offset) {
            return Some("fork offset");
        }
        (self.sub_offset != origin.sub_offset).then_some("fork sub-offset")
    }
}

/// A fork's question to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkRequest {
    /// Who asks.
    pub child: ForkId,
    /// Anchor; absent means the tail.
    pub offset: Option<OffsetParam>,
    /// Messages (JSON) or bytes past the anchor.
    pub sub_offset: u64,
    /// Content type that the request named.
    pub content_type: Option<ContentType>,
}

/// A source's answer: the reference is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkGrant {
    /// Generation of the source's life.
    pub source: Generation,
    /// The fork point.
    pub at: Position,
    /// The source's content type.
    pub content_type: ContentType,
    /// The source's lifetime.
    pub lifetime: Lifetime,
    /// Generations of the inherited offsets.
    pub lineage: Vec<Inherited>,
}

/// Why a source refuses a fork. No reference is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkError {
    /// No such source, or it is held for other forks only, or its log failed.
    Missing(Missing),
    /// The anchor is no offset of the source.
    Offset(OffsetError),
    /// The sub-offset names a position past the next boundary.
    SubOffset,
    /// The content types differ.
    ContentType {
        /// The source's.
        expected: ContentType,
    },
    /// The chain of forks is too long.
    TooDeep,
    /// The fork's generation is not above the source's: ask again with at least this one.
    GenerationTooLow {
        /// Lowest generation that will do.
        at_least: Generation,
    },
    /// This fork was given up before.
    Refused,
    /// Too many of the bytes are hot: rotate and ask again.
    TooHot,
    /// The sub-offset counts messages in cold bytes: ask again with them.
    Lend(Loan),
}

/// Cold bytes that the engine wants to see: at most [`crate::Bounds::lend_bytes`] at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loan {
    /// Where they are.
    pub range: Range<Position>,
    /// Messages still to be counted where they begin.
    pub missing: u64,
}

/// Cold bytes that the caller has fetched for the engine to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lent {
    /// Generation of the life whose bytes they are: [`crate::Stream::generation`] when it asked.
    pub generation: Generation,
    /// Position of the first byte.
    pub from: Position,
    /// Messages still to be counted there, as the [`Loan`] said.
    pub missing: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a source hands to a fork.
#[derive(Clone, Debug, PartialEq)]
pub enum Copied<B> {
    /// Segments to share, keyed by position, the last one cut at the fork point.
    Segments(Vec<SegmentRow>),
    /// Hot bytes to copy.
    Page(CopyPage<B>),
    /// What was hot has become a segment: forget the copied hot bytes and share it.
    Restart,
}

/// What a fork still has to get from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRequest {
    /// Generation of the source's life.
    pub source: Generation,
    /// Where the fork's shared segments end.
    pub cold: Position,
    /// What it has so far.
    pub from: Position,
    /// The fork point.
    pub to: Position,
}

impl From<LogError> for ForkError {
    fn from(error: LogError) -> Self {
        Self::Missing(Missing::Log(error))
    }
}

/// Inherited bytes on their way to a fork.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyPage<B> {
    /// First position.
    pub from: Position,
    /// The bytes; at most one row's worth.
    pub bytes: B,
    /// Ends of appends in the page, relative to `from`, ascending.
    pub ends: Vec<u64>,
}

/// How a fork begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It exists already.
    Exists(Created),
    /// Its intent is stored: ask the source.
    Intent(ForkRequest),
}
