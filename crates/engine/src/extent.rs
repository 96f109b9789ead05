//! The header of an extent: what the appends of one row did besides adding bytes.
//!
//! State rides in the extent, so one row makes an append atomic. Layout (varints as in
//! [`crate::codec`], `bytes` is length-prefixed):
//!
//! ```text
//! version   u8 = 1
//! flags     varint   1 closes · 2 stream-seq · 4 time · 8 producers · 16 closing producer
//! ends      varint n, then n varint deltas; the first from the row's start
//! time      varint   ms since 1970 of the row's last append      (flag 4)
//! seq       bytes    the last Stream-Seq                          (flag 2)
//! producers varint n, then n × (bytes id, varint epoch, varint seq), each id once (flag 8)
//! closer    bytes id, varint epoch, varint seq                    (flag 16)
//! ```
//!
//! `ends` holds the row-relative ends of the appends that finish in this row. An append that
//! spans rows leaves its end, and all its state, in its last row; a row whose last end is not the
//! row's end is therefore continued by the next. In JSON mode only the last end is kept.

use protocol::headers::StreamSeq;
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;

use crate::codec::{Reader, Writer};

const VERSION: u8 = 1;
const CLOSES: u64 = 1;
const SEQ: u64 = 2;
const TIME: u64 = 4;
const PRODUCERS: u64 = 8;
const CLOSER: u64 = 16;

/// The decoded header of one extent row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Row-relative ends of the appends that finish in this row, ascending.
    pub ends: Vec<u64>,
    /// Time of the row's last append; written only when a sliding lifetime needs it.
    pub time: Option<UnixMillis>,
    /// The last `Stream-Seq` of the row.
    pub seq: Option<StreamSeq>,
    /// Last state of each producer that appended in this row, each id once.
    pub producers: Vec<Producer>,
    /// Whether the row's last append closed the stream.
    pub closes: bool,
    /// The producer tuple of the closing append, if it had one.
    pub closer: Option<Producer>,
}

impl Head {
    /// Encodes the header as drawn in the module's documentation.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let flags = flag(self.closes, CLOSES)
            | flag(self.seq.is_some(), SEQ)
            | flag(self.time.is_some(), TIME)
            | flag(!self.producers.is_empty(), PRODUCERS)
            | flag(self.closer.is_some(), CLOSER);
        let mut writer = Writer::default();
        writer.varint(u64::from(VERSION)).varint(flags);
        write_deltas(&mut writer, &self.ends);
        if let Some(time) = self.time {
            writer.varint(time.0);
        }
        if let Some(seq) = &self.seq {
            writer.bytes(seq.as_str().as_bytes());
        }
        if !self.producers.is_empty() {
            writer.varint(self.producers.len() as u64);
            for producer in &self.producers {
                write_producer(&mut writer, producer);
            }
        }
        if let Some(closer) = &self.closer {
            write_producer(&mut writer, closer);
        }
        writer.finish()
    }

    /// Decodes a header; `None` when the bytes are not a whole, valid header.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.varint()? != u64::from(VERSION) {
            return None;
        }
        let flags = reader.varint()?;
        let mut head = Self { ends: read_deltas(&mut reader)?, ..Self::default() };
        head.closes = flags & CLOSES != 0;
        if flags & TIME != 0 {
            head.time = Some(UnixMillis(reader.varint()?));
        }
        if flags & SEQ != 0 {
            head.seq = Some(StreamSeq::parse(reader.str()?).ok()?);
        }
        if flags & PRODUCERS != 0 {
            for _ in 0..reader.count()? {
                head.producers.push(read_producer(&mut reader)?);
            }
        }
        if flags & CLOSER != 0 {
            head.closer = Some(read_producer(&mut reader)?);
        }
        reader.rest().is_empty().then_some(head)
    }

    /// Whether a row of `length` bytes with this header ends where an append ended.
    #[must_use]
    pub fn completes(&self, length: u64) -> bool {
        length == 0 || self.ends.last() == Some(&length)
    }
}

/// Writes ascending numbers as a count and the differences.
pub(crate) fn write_deltas(writer: &mut Writer, ascending: &[u64]) {
    writer.varint(ascending.len() as u64);
    let mut previous = 0;
    for value in ascending {
        writer.varint(value.saturating_sub(previous));
        previous = *value;
    }
}

/// Reads what [`write_deltas`] wrote.
pub(crate) fn read_deltas(reader: &mut Reader<'_>) -> Option<Vec<u64>> {
    let count = reader.count()?;
    let mut values = Vec::with_capacity(count);
    let mut value = 0u64;
    for _ in 0..count {
        value = value.checked_add(reader.varint()?)?;
        values.push(value);
    }
    Some(values)
}

pub(crate) fn write_producer(writer: &mut Writer, producer: &Producer) {
    writer.bytes(producer.id.as_str().as_bytes()).varint(producer.epoch.0).varint(producer.seq.0);
}

pub(crate) fn read_producer(reader: &mut Reader<'_>) -> Option<Producer> {
    let id = ProducerId::parse(reader.str()?).ok()?;
    Some(Producer { id, epoch: Epoch(reader.varint()?), seq: Seq(reader.varint()?) })
}
