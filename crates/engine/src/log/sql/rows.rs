//! Rows back into what they stand for.

use protocol::content_type::ContentType;
use protocol::headers::StreamSeq;
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::{Row, Value};
use crate::codec::Reader;
use crate::extent::read_deltas;
use crate::life::{Closed, Life, Origin};
use crate::log::{Blob, ExtentRow, Intent, Key, LogError, RotationRow, SegmentRow};

/// Takes the columns of a row from the left.
pub(super) struct Columns<B> {
    values: std::vec::IntoIter<Value<B>>,
    table: &'static str,
}

impl<B: Blob> Columns<B> {
    pub(super) fn new(row: Row<B>, table: &'static str) -> Self {
        Self { values: row.into_iter(), table }
    }

    pub(super) fn damaged(&self) -> LogError {
        LogError::Corrupt(format!("a row of table {} does not decode", self.table))
    }

    pub(super) fn optional_int(&mut self) -> Result<Option<u64>, LogError> {
        match self.values.next() {
            Some(Value::Integer(value)) => {
                u64::try_from(value).map(Some).map_err(|_| self.damaged())
            }
            Some(Value::Null) => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    pub(super) fn int(&mut self) -> Result<u64, LogError> {
        self.optional_int()?.ok_or_else(|| self.damaged())
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, LogError> {
        match self.values.next() {
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, LogError> {
        self.optional_text()?.ok_or_else(|| self.damaged())
    }

    pub(super) fn optional_blob(&mut self) -> Result<Option<B>, LogError> {
        match self.values.next() {
            Some(Value::Blob(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.damaged()),
        }
    }

    pub(super) fn blob(&mut self) -> Result<B, LogError> {
        self.optional_blob()?.ok_or_else(|| self.damaged())
    }
}

pub(super) const LIFE_COLUMNS: &str = "SELECT generation, base, phase, content_type, ttl_s, \
     expires_at, touched, checkpoint, hot_ends, seq, closed, origin FROM lives";

pub(super) fn life_of<B: Blob>(row: Row<B>) -> Result<Life, LogError> {
    let mut columns = Columns::new(row, "lives");
    let generation = Generation(columns.int()?);
    let base = Key(columns.int()?);
    let phase = i64::try_from(columns.int()?).ok().and_then(Life::from_phase_code);
    let content_type = ContentType::parse(&columns.text()?).ok();
    let lifetime = match (columns.optional_int()?, columns.optional_int()?) {
        (Some(seconds), _) => Lifetime::Ttl { seconds },
        (None, Some(at)) => Lifetime::ExpiresAt { at: UnixMillis(at) },
        (None, None) => Lifetime::Unlimited,
    };
    let touched = UnixMillis(columns.int()?);
    let checkpoint = Position(columns.int()?);
    let hot_ends = columns.int()?;
    let seq = columns.optional_text()?.map(|seq| StreamSeq::parse(&seq)).transpose();
    let closed = Closed::decode(&columns.blob()?.to_vec());
    let origin = match columns.optional_blob()? {
        None => None,
        Some(bytes) => Some(Origin::decode(&bytes.to_vec()).ok_or_else(|| columns.damaged())?),
    };
    let (Some((phase, public, session)), Some(content_type), Ok(seq), Some(closed)) =
        (phase, content_type, seq, closed)
    else {
        return Err(columns.damaged());
    };
    Ok(Life {
        generation,
        base,
        phase,
        content_type,
        lifetime,
        public,
        session,
        touched,
        checkpoint,
        hot_ends,
        seq,
        closed,
        origin,
    })
}

pub(super) fn extent_of<B: Blob>(row: Row<B>) -> Result<ExtentRow, LogError> {
    let mut columns = Columns::new(row, "extents");
    let key = Key(columns.int()?);
    let length = columns.int()?;
    Ok(ExtentRow { key, length, head: columns.blob()?.to_vec() })
}

pub(super) const SEGMENT_COLUMNS: &str = "SELECT start, length, own, name, size, sums, ends FROM segments \
     WHERE start >= ? AND start < ? ORDER BY start";

pub(super) fn segment_of<B: Blob>(row: Row<B>) -> Result<SegmentRow, LogError> {
    let mut columns = Columns::new(row, "segments");
    let key = Key(columns.int()?);
    let length = columns.int()?;
    let own = columns.int()? != 0;
    let name = columns.text()?;
    let size = columns.int()?;
    let sums = decode_sums(&columns.blob()?.to_vec()).ok_or_else(|| columns.damaged())?;
    let ends = decode_ends(&columns.blob()?.to_vec()).ok_or_else(|| columns.damaged())?;
    Ok(SegmentRow { key, length, name, own, size, sums, ends })
}

pub(super) fn rotation_of<B: Blob>(row: Row<B>) -> Result<RotationRow, LogError> {
    let mut columns = Columns::new(row, "rotations");
    let generation = Generation(columns.int()?);
    let attempt = columns.int()?;
    let intent = match (columns.optional_text()?, columns.optional_int()?, columns.optional_int()?)
    {
        (Some(name), Some(from), Some(to)) => {
            Some(Intent { name, from: Position(from), to: Position(to) })
        }
        (None, None, None) => None,
        _ => return Err(columns.damaged()),
    };
    Ok(RotationRow { generation, attempt, intent })
}

fn decode_sums(bytes: &[u8]) -> Option<Vec<u32>> {
    let (sums, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect())
}

fn decode_ends(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut reader = Reader::new(bytes);
    let ends = read_deltas(&mut reader)?;
    reader.rest().is_empty().then_some(ends)
}
