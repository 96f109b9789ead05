//! A life: one stream at a path, from its creation to the erasing of its last byte.
//!
//! A path sees several lives, one after the other. Each has a generation, higher than every
//! earlier one of the same path, and a base: the key of its position 0, past every key that an
//! earlier life used. So a deleted life whose bytes are still held or being erased coexists with
//! the new one. The table `lives` has one row a life; [`Tombstone`] remembers the rest.
//!
//! The row is also the checkpoint of what extents carry in their headers (`seq`, `closed`): it
//! holds as of the position `checkpoint`; headers of rows starting there or later come on top.

use protocol::content_type::ContentType;
use protocol::headers::StreamSeq;
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, Offset, Position};
use protocol::producer::Producer;
use protocol::time::UnixMillis;

use crate::codec::{Reader, Writer};
use crate::extent::{read_producer, write_producer};
use crate::log::Key;

/// Where a life stands.
///
/// ```text
/// Forking ──► Live ──► SoftDeleted ──► Held ──► Lapsed ──► Erasing ──► (no row)
///    │          └──────────────────────►           │          ▲
///    └───────────────── (any step may be left out) ┴──────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A fork that is still being copied: not visible to clients.
    Forking,
    /// Readable and, unless closed, writable.
    Live,
    /// Deleted or expired while forks still need its bytes: 410 to clients.
    SoftDeleted,
    /// Gone for everybody; rows are being erased in bounded steps.
    Erasing,
    /// Gone for clients, and kept for shards of subscribers that lag behind.
    Held,
    /// Gone for clients, and its bytes for everybody; its shards are still to be told.
    Lapsed,
}

impl Phase {
    /// The number stored in the table.
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::Forking => 0,
            Self::Live => 1,
            Self::SoftDeleted => 2,
            Self::Erasing => 3,
            Self::Held => 4,
            Self::Lapsed => 5,
        }
    }

    /// The phase of a stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Forking),
            1 => Some(Self::Live),
            2 => Some(Self::SoftDeleted),
            3 => Some(Self::Erasing),
            4 => Some(Self::Held),
            5 => Some(Self::Lapsed),
            _ => None,
        }
    }
}

/// What sort of session a session's stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Messages stand in the stream as in their sources.
    Plain,
    /// Each message of a JSON stream is wrapped with where it is from.
    Envelope,
}

/// Whether and by whom a stream was closed (PROTOCOL §4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Closed {
    /// Open for appends.
    #[default]
    No,
    /// Closed; with the tuple of the closing append, so that its retry is a success.
    By(Option<Producer>),
}

impl Closed {
    /// Whether the stream is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::By(_))
    }

    /// Encoding for the table: empty = open, `1` = closed, `2` + producer = closed by it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::No => {}
            Self::By(None) => {
                writer.varint(1);
            }
            Self::By(Some(producer)) => {
                writer.varint(2);
                write_producer(&mut writer, producer);
            }
        }
        writer.finish()
    }

    /// Decodes what [`Closed::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::No);
        }
        let mut reader = Reader::new(bytes);
        let closed = match reader.varint()? {
            1 => Self::By(None),
            2 => Self::By(Some(read_producer(&mut reader)?)),
            _ => return None,
        };
        reader.rest().is_empty().then_some(closed)
    }
}

/// One stretch of inherited positions: those up to and including `end` that no earlier stretch
/// covers carry `generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Generation that the offsets of the stretch carry.
    pub generation: Generation,
    /// Last position of the stretch.
    pub end: Position,
}

/// What a fork remembers of its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Object name of the direct source, `{project}/{path}`.
    pub source: String,
    /// The source's generation; zero until the source has answered.
    pub source_generation: Generation,
    /// The fork point: positions up to here are inherited.
    pub at: Position,
    /// The offset that the request named, if it named one: compared on a repeated PUT.
    pub requested: Option<Offset>,
    /// The sub-offset that the request named.
    pub sub_offset: u64,
    /// Inherited stretches, ascending, each end once.
    pub lineage: Vec<Inherited>,
}

impl Origin {
    /// Encodes the origin: version, source, numbers, lineage.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .varint(1)
            .bytes(self.source.as_bytes())
            .varint(self.source_generation.0)
            .varint(self.at.0)
            .varint(self.sub_offset);
        match self.requested {
            None => writer.varint(0),
            Some(offset) => writer.varint(1).varint(offset.generation.0).varint(offset.position.0),
        };
        writer.varint(self.lineage.len() as u64);
        for stretch in &self.lineage {
            writer.varint(stretch.generation.0).varint(stretch.end.0);
        }
        writer.finish()
    }

    /// Decodes what [`Origin::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.varint()? != 1 {
            return None;
        }
        let source = reader.str()?.to_owned();
        let source_generation = Generation(reader.varint()?);
        let at = Position(reader.varint()?);
        let sub_offset = reader.varint()?;
        let requested = match reader.varint()? {
            0 => None,
            _ => Some(Offset {
                generation: Generation(reader.varint()?),
                position: Position(reader.varint()?),
            }),
        };
        let mut lineage = Vec::new();
        for _ in 0..reader.count()? {
            let generation = Generation(reader.varint()?);
            lineage.push(Inherited { generation, end: Position(reader.varint()?) });
        }
        let origin = Self { source, source_generation, at, requested, sub_offset, lineage };
        reader.rest().is_empty().then_some(origin)
    }
}

/// A row of the table `lives`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Milliseconds of creation, raised above every earlier life of the path.
    pub generation: Generation,
    /// Key of position 0.
    pub base: Key,
    /// Where the life stands.
    pub phase: Phase,
    /// As given at creation, parameters included.
    pub content_type: ContentType,
    /// When the stream expires.
    pub lifetime: Lifetime,
    /// Whether everybody may read. Not inherited by forks.
    pub public: bool,
    /// Which session's stream it is, if it is one: sources are delivered to it.
    pub session: Option<SessionKind>,
    /// Last access that has been written down, for sliding lifetimes.
    pub touched: UnixMillis,
    /// The position as of which `seq`, `closed` and the producers' table hold.
    pub checkpoint: Position,
    /// Ends of appends in hot rows as of the checkpoint.
    pub hot_ends: u64,
    /// Last `Stream-Seq` as of the checkpoint.
    pub seq: Option<StreamSeq>,
    /// Close state as of the checkpoint.
    pub closed: Closed,
    /// Where a fork came from.
    pub origin: Option<Origin>,
}

/// What a public life, and that of a session, add to the number of their phase in the table. A row
/// that was written before there were such lives has no such number, and its life is neither.
const PUBLIC: i64 = 16;
const PLAIN_SESSION: i64 = 32;
const ENVELOPE_SESSION: i64 = 64;
const PHASES: i64 = 15;

impl Life {
    /// The number that stands for phase, `public` and `session` in the table.
    #[must_use]
    pub fn phase_code(&self) -> i64 {
        let session = match self.session {
            None => 0,
            Some(SessionKind::Plain) => PLAIN_SESSION,
            Some(SessionKind::Envelope) => ENVELOPE_SESSION,
        };
        self.phase.code() + if self.public { PUBLIC } else { 0 } + session
    }

    /// Phase, `public` and `session` of a stored number.
    #[must_use]
    pub fn from_phase_code(code: i64) -> Option<(Phase, bool, Option<SessionKind>)> {
        let phase = Phase::from_code(code & PHASES)?;
        let session = match code & !(PHASES | PUBLIC) {
            0 => None,
            PLAIN_SESSION => Some(SessionKind::Plain),
            ENVELOPE_SESSION => Some(SessionKind::Envelope),
            _ => return None,
        };
        Some((phase, code & PUBLIC != 0, session))
    }

    /// The key of a position of this life.
    #[must_use]
    pub fn key(&self, position: Position) -> Key {
        Key(self.base.0.saturating_add(position.0))
    }

    /// The position of a key of this life.
    #[must_use]
    pub fn position(&self, key: Key) -> Position {
        Position(key.0.saturating_sub(self.base.0))
    }
}

/// What outlives every life of a path: one row, written when a life is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tombstone {
    /// Highest generation that the path has seen.
    pub generation: Generation,
    /// First key that no life has used.
    pub next_base: Key,
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::producer::{Epoch, ProducerId, Seq};

    #[test]
    fn origins_round_trip_and_refuse_truncation() {
        let origin = Origin {
            source: "_default/a".into(),
            source_generation: Generation(7),
            at: Position(300),
            requested: Some(Offset { generation: Generation(7), position: Position(299) }),
            sub_offset: 1,
            lineage: vec![Inherited { generation: Generation(7), end: Position(300) }],
        };
        let bytes = origin.encode();
        assert_eq!(Origin::decode(&bytes), Some(origin));
        for end in 0..bytes.len() {
            assert_eq!(Origin::decode(&bytes[..end]), None);
        }
    }

    #[test]
    fn close_states_round_trip() {
        let producer =
            Producer { id: ProducerId::parse("p").unwrap(), epoch: Epoch(3), seq: Seq(9) };
        for closed in [Closed::No, Closed::By(None), Closed::By(Some(producer))] {
            assert_eq!(Closed::decode(&closed.encode()), Some(closed));
        }
        assert_eq!(Closed::decode(&[3]), None);
    }

    #[test]
    fn phases_round_trip() {
        for code in 0..6 {
            assert_eq!(Phase::from_code(code).map(Phase::code), Some(code));
        }
        assert_eq!(Phase::from_code(6), None);
        for code in [-1, 6, 15, 22, 97, 128, 129, i64::MIN, i64::MAX] {
            assert_eq!(Life::from_phase_code(code), None, "{code}");
        }
        let sessions = [None, Some(SessionKind::Plain), Some(SessionKind::Envelope)];
        for (code, session) in [1, 33, 65].into_iter().zip(sessions) {
            assert_eq!(Life::from_phase_code(code), Some((Phase::Live, false, session)));
            assert_eq!(Life::from_phase_code(code + 17), Some((Phase::SoftDeleted, true, session)));
        }
    }
}
