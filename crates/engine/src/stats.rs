//! What a stream holds, counted for operators.
//!
//! Everything is in memory or counted by one query that is bounded by [`COUNT_MAX`]; producers that
//! no checkpoint has written yet cost one look-up each at most, and a checkpoint bounds their
//! number. Looking is no access: it does not move a sliding lifetime.

use protocol::time::UnixMillis;

use crate::load::KEY_END;
use crate::log::{Counts, Log};
use crate::stream::{Metadata, Missing, Stream};

/// Rows of a kind are counted up to this number.
pub const COUNT_MAX: u32 = 100_000;

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// What HEAD tells.
    pub metadata: Metadata,
    /// Hot bytes of the stream.
    pub hot_bytes: u64,
    /// Hot bytes of the object: those of deleted lives that are still to be erased, too.
    pub held_bytes: u64,
    /// How many hot bytes the object may hold.
    pub bytes_max: u64,
    /// Bytes of the stream in segments, shared ones included.
    pub cold_bytes: u64,
    /// Rows, each number up to [`COUNT_MAX`]; producers are those that exist now, not those of the
    /// checkpoint.
    pub counts: Counts,
    /// Bytes of the last segment, if the stream made it itself.
    pub last_rotated: Option<u64>,
}

impl<L: Log> Stream<L> {
    /// Counts what the stream holds.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn stats(&mut self, now: UnixMillis) -> Result<Stats, Missing> {
        let metadata = self.head(now)?;
        let (held_bytes, bytes_max) = self.quota();
        let Some(current) = &self.current else { return Err(Missing::NotFound) };
        let generation = current.life.generation;
        let keys = current.life.base..KEY_END;
        let last = self.log.last_segment(keys.clone())?;
        let mut counts = self.log.counts(generation, keys, COUNT_MAX)?;
        let has = |id: &_| self.log.producer(generation, id).map(|state| state.is_some());
        counts.producers = counts.producers.saturating_add(current.producers.unwritten(has)?);
        Ok(Stats {
            metadata,
            hot_bytes: current.hot_bytes(),
            held_bytes,
            bytes_max,
            cold_bytes: current.cold.0,
            counts,
            last_rotated: last.filter(|row| row.own).map(|row| row.length),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::append::Append;
    use crate::create::Create;
    use crate::log::memory::MemoryLog;
    use protocol::lifetime::Lifetime;
    use protocol::limits::CHECKPOINT_ROWS;
    use protocol::producer::{Epoch, Producer, ProducerId, Seq};

    fn created(ttl_s: u64) -> Stream<MemoryLog> {
        let mut stream = Stream::open(MemoryLog::default()).unwrap();
        let create = Create {
            content_type: None,
            lifetime: Lifetime::Ttl { seconds: ttl_s },
            closed: false,
            public: false,
            session: None,
            body: b"abc".to_vec(),
            fork: None,
        };
        stream.create(&create, UnixMillis(1_000)).unwrap();
        stream
    }

    fn append(stream: &mut Stream<MemoryLog>, producer: &str, seq: u64) {
        let id = ProducerId::parse(producer).unwrap();
        let append = Append {
            content_type: Some(protocol::content_type::ContentType::default()),
            body: b"d".to_vec(),
            producer: Some(Producer { id, epoch: Epoch(0), seq: Seq(seq) }),
            seq: None,
            close: false,
            delivery: None,
        };
        let outcome = stream.append_group(vec![append], UnixMillis(1_000));
        assert!(outcome.replies.iter().all(Result::is_ok));
    }

    #[test]
    fn producers_are_counted_once_whether_written_or_not() {
        let mut stream = created(100);
        for seq in 0..CHECKPOINT_ROWS + 5 {
            append(&mut stream, "a", seq);
        }
        append(&mut stream, "b", 0);
        for memory in ["kept", "lost"] {
            let stats = stream.stats(UnixMillis(1_000)).unwrap();
            assert_eq!(stats.counts.producers, 2, "{memory}");
            assert_eq!(stats.counts.extents, CHECKPOINT_ROWS + 7);
            assert_eq!(
                (stats.hot_bytes, stats.held_bytes),
                (stats.counts.extents + 2, stats.hot_bytes)
            );
            assert_eq!((stats.cold_bytes, stats.last_rotated), (0, None));
            stream = Stream::open(stream.into_log()).unwrap();
        }
    }

    #[test]
    fn looking_is_no_access() {
        let mut stream = created(2);
        assert!(stream.stats(UnixMillis(2_500)).is_ok());
        assert_eq!(stream.stats(UnixMillis(3_000)), Err(Missing::NotFound));
    }
}
