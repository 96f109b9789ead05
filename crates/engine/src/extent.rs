//! The header of an extent: what the appends of one row did besides adding bytes.
//!
//! State rides in the extent, so one row makes an append atomic. Layout (varints as in
//! [`crate::codec`], `bytes` is length-prefixed):
//!
//! ```text
//! version   u8 = 1
//! flags     varint   1 closes · 2 stream-seq · 4 time · 8 producers · 16 closing producer · 32 links
//! ends      varint n, then n varint deltas; the first from the row's start
//! time      varint   ms since 1970 of the row's last append      (flag 4)
//! seq       bytes    the last Stream-Seq                          (flag 2)
//! producers varint n, then n × (bytes id, varint epoch, varint seq), each id once (flag 8)
//! closer    bytes id, varint epoch, varint seq                    (flag 16)
//! links     varint n, then n × (bytes source, varint generation, varint epoch, varint next), each
//!           source and generation once                            (flag 32)
//! ```
//!
//! `ends` holds the row-relative ends of the appends that finish in this row. An append that
//! spans rows leaves its end, and all its state, in its last row; a row whose last end is not the
//! row's end is therefore continued by the next. In JSON mode only the last end is kept.

use protocol::fanout::{SourceLife, SubscriptionEpoch};
use protocol::headers::StreamSeq;
use protocol::offset::{Generation, Position};
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;

use crate::codec::{Reader, Writer};

const VERSION: u8 = 1;
const CLOSES: u64 = 1;
const SEQ: u64 = 2;
const TIME: u64 = 4;
const PRODUCERS: u64 = 8;
const CLOSER: u64 = 16;
const LINKS: u64 = 32;

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
    /// How far each source has been delivered that is in this row, each life of a source once.
    pub links: Vec<Reached>,
}

/// How far a source has been delivered to a session's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The source.
    pub link: SourceLife,
    /// The subscription that it was delivered for.
    pub epoch: SubscriptionEpoch,
    /// Position of the source after what was delivered.
    pub next: Position,
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
            | flag(self.closer.is_some(), CLOSER)
            | flag(!self.links.is_empty(), LINKS);
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
        if !self.links.is_empty() {
            writer.varint(self.links.len() as u64);
            for reached in &self.links {
                write_reached(&mut writer, reached);
            }
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
        if flags & LINKS != 0 {
            for _ in 0..reader.count()? {
                head.links.push(read_reached(&mut reader)?);
            }
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

fn write_reached(writer: &mut Writer, reached: &Reached) {
    writer
        .bytes(reached.link.source.as_bytes())
        .varint(reached.link.generation.0)
        .varint(reached.epoch.0)
        .varint(reached.next.0);
}

fn read_reached(reader: &mut Reader<'_>) -> Option<Reached> {
    let source = reader.str()?.to_owned();
    let link = SourceLife { source, generation: Generation(reader.varint()?) };
    let epoch = SubscriptionEpoch(reader.varint()?);
    Some(Reached { link, epoch, next: Position(reader.varint()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn producer() -> impl Strategy<Value = Producer> {
        ("[a-z]{1,4}", any::<u64>(), any::<u64>()).prop_map(|(id, epoch, seq)| Producer {
            id: ProducerId::parse(&id).unwrap(),
            epoch: Epoch(epoch),
            seq: Seq(seq),
        })
    }

    fn reached() -> impl Strategy<Value = Reached> {
        ("[a-zä/]{1,9}", any::<[u64; 3]>()).prop_map(|(source, [generation, epoch, next])| {
            Reached {
                link: SourceLife { source, generation: Generation(generation) },
                epoch: SubscriptionEpoch(epoch),
                next: Position(next),
            }
        })
    }

    prop_compose! {
        fn head()(
            mut ends in prop::collection::vec(any::<u64>(), 0..4),
            time in prop::option::of(any::<u64>()),
            seq in prop::option::of("[a-z]{1,4}"),
            producers in prop::collection::vec(producer(), 0..3),
            closer in prop::option::of(producer()),
            links in prop::collection::vec(reached(), 0..4),
        ) -> Head {
            ends.sort_unstable();
            let seq = seq.map(|seq| StreamSeq::parse(&seq).unwrap());
            let closes = closer.is_some();
            Head { ends, time: time.map(UnixMillis), seq, producers, closes, closer, links }
        }
    }

    proptest! {
        #[test]
        fn heads_round_trip_and_refuse_truncation(head in head(), cut in 0.0..1.0_f64) {
            let bytes = head.encode();
            prop_assert_eq!(Head::decode(&bytes), Some(head));
            let cut = (bytes.len() as f64 * cut) as usize;
            prop_assert_eq!(Head::decode(&bytes[..cut]), None);
        }
    }
}
