//! What the engine knows of producers: their last accepted tuples.
//!
//! Changes since the last checkpoint are `dirty` and live in the extents' headers until the next
//! checkpoint writes them to the table. Everything else is asked from the table and kept in a
//! bounded memory.

use std::collections::HashMap;

use protocol::producer::{Epoch, Producer, ProducerId, Seq};

use crate::log::ProducerState;

/// Answers of the table that are kept; past it the memory starts anew.
const CLEAN_MAX: usize = 4_096;

/// Producer states of one life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    dirty: HashMap<ProducerId, ProducerState>,
    clean: HashMap<ProducerId, Option<ProducerState>>,
}

/// What a tuple means to a stream (PROTOCOL §5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next tuple of its producer.
    Accept,
    /// Appended before; carries the last accepted tuple.
    Duplicate(ProducerState),
    /// A newer epoch has been seen.
    StaleEpoch {
        /// The producer's current epoch.
        current: Epoch,
    },
    /// A new epoch that does not begin at sequence number 0.
    EpochStart,
    /// Tuples in between are missing.
    Gap {
        /// The sequence number that would be accepted.
        expected: Seq,
    },
}

/// Judges a tuple against the producer's last accepted one.
#[must_use]
pub fn judge(last: Option<ProducerState>, producer: &Producer) -> Verdict {
    let Some(last) = last else {
        return match producer.seq {
            Seq(0) => Verdict::Accept,
            _ => Verdict::Gap { expected: Seq(0) },
        };
    };
    if producer.epoch < last.epoch {
        return Verdict::StaleEpoch { current: last.epoch };
    }
    if producer.epoch > last.epoch {
        return if producer.seq == Seq(0) { Verdict::Accept } else { Verdict::EpochStart };
    }
    let expected = Seq(last.seq.0.saturating_add(1));
    match producer.seq.cmp(&expected) {
        std::cmp::Ordering::Less => Verdict::Duplicate(last),
        std::cmp::Ordering::Equal => Verdict::Accept,
        std::cmp::Ordering::Greater => Verdict::Gap { expected },
    }
}

impl Producers {
    /// The last accepted tuple of `id`; `table` is asked when memory does not know.
    pub(crate) fn last<E>(
        &mut self,
        id: &ProducerId,
        table: impl FnOnce() -> Result<Option<ProducerState>, E>,
    ) -> Result<Option<ProducerState>, E> {
        if let Some(state) = self.dirty.get(id) {
            return Ok(Some(*state));
        }
        if let Some(state) = self.clean.get(id) {
            return Ok(*state);
        }
        let state = table()?;
        if self.clean.len() >= CLEAN_MAX {
            self.clean.clear();
        }
        self.clean.insert(id.clone(), state);
        Ok(state)
    }

    /// Notes an accepted tuple.
    pub(crate) fn accept(&mut self, producer: &Producer) {
        let state = ProducerState { epoch: producer.epoch, seq: producer.seq };
        self.dirty.insert(producer.id.clone(), state);
    }

    /// Number of producers that changed since the last checkpoint.
    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Number of producers that the table does not have yet; `table` is asked whether it has one
    /// when memory does not know.
    pub(crate) fn unwritten<E>(
        &self,
        mut table: impl FnMut(&ProducerId) -> Result<bool, E>,
    ) -> Result<u64, E> {
        let mut unwritten = 0;
        for id in self.dirty.keys() {
            let is_written = match self.clean.get(id) {
                Some(state) => state.is_some(),
                None => table(id)?,
            };
            unwritten += u64::from(!is_written);
        }
        Ok(unwritten)
    }

    /// Hands out what changed since the last checkpoint; it counts as written from now on.
    pub(crate) fn take_dirty(&mut self) -> Vec<(ProducerId, ProducerState)> {
        if self.clean.len().saturating_add(self.dirty.len()) >= CLEAN_MAX {
            self.clean.clear();
        }
        let mut taken: Vec<_> = self.dirty.drain().collect();
        taken.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        self.clean.extend(taken.iter().map(|(id, state)| (id.clone(), Some(*state))));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(epoch: u64, seq: u64) -> Producer {
        Producer { id: ProducerId::parse("p").unwrap(), epoch: Epoch(epoch), seq: Seq(seq) }
    }

    #[test]
    fn judges_by_epoch_then_sequence() {
        let last = ProducerState { epoch: Epoch(2), seq: Seq(5) };
        let verdict = |epoch, seq| judge(Some(last), &producer(epoch, seq));
        assert_eq!(verdict(2, 6), Verdict::Accept);
        assert_eq!(verdict(2, 5), Verdict::Duplicate(last));
        assert_eq!(verdict(2, 0), Verdict::Duplicate(last));
        assert_eq!(verdict(2, 7), Verdict::Gap { expected: Seq(6) });
        assert_eq!(verdict(1, 6), Verdict::StaleEpoch { current: Epoch(2) });
        assert_eq!(verdict(3, 0), Verdict::Accept);
        assert_eq!(verdict(3, 1), Verdict::EpochStart);
        assert_eq!(judge(None, &producer(9, 0)), Verdict::Accept);
        assert_eq!(judge(None, &producer(0, 1)), Verdict::Gap { expected: Seq(0) });
    }
}
