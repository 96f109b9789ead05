//! Which answers to live reads may be given to those who ask later.
//!
//! What a key names has to be what the answer holds: for as long as it is kept, whoever asks with
//! the same offset has to be owed the same bytes.
//!
//! # Errors
//! None: what is not certain is not kept.
//!
//! # What does not belong here
//! Lifetimes of streams; for how long an answer is kept.

use protocol::offset::{Generation, Offset, OffsetParam};

/// Whether an answer to a live read at `asked` stays true, as far as offsets tell: it holds the
/// bytes from `from` to `next` of the life `own`.
///
/// - An inherited offset of a fork has its source's generation, and names no life of this path: the
///   next fork of the same source has other bytes behind it.
/// - An offset one past the end is read as the end. It is another place as soon as an append ends
///   there.
#[must_use]
pub fn stays_true(asked: OffsetParam, from: Offset, next: Offset, own: Generation) -> bool {
    asked == OffsetParam::At(from) && from.generation == own && next > from
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::offset::Position;

    const SOURCE: Generation = Generation(5);
    const OWN: Generation = Generation(7);

    fn offset(generation: Generation, position: u64) -> Offset {
        Offset { generation, position: Position(position) }
    }

    #[test]
    fn bytes_behind_an_offset_of_the_same_life_stay_true() {
        let (from, next) = (offset(OWN, 10), offset(OWN, 12));
        assert!(stays_true(OffsetParam::At(from), from, next, OWN));
    }

    #[test]
    fn an_inherited_offset_names_no_life_of_this_path() {
        let from = offset(SOURCE, 10);
        assert!(!stays_true(OffsetParam::At(from), from, offset(OWN, 12), OWN));
        assert!(!stays_true(OffsetParam::At(from), from, offset(SOURCE, 12), OWN));
    }

    #[test]
    fn an_offset_that_was_read_as_another_is_not_kept() {
        let (from, one_past) = (offset(OWN, 10), offset(OWN, 11));
        // An append of one byte: the answer does not even get past what was asked for.
        assert!(!stays_true(OffsetParam::At(one_past), from, one_past, OWN));
        // More followed it: the offset has become the end of the first append.
        assert!(!stays_true(OffsetParam::At(one_past), from, offset(OWN, 16), OWN));
        for asked in [OffsetParam::Start, OffsetParam::Now] {
            assert!(!stays_true(asked, from, one_past, OWN));
        }
    }

    #[test]
    fn an_answer_without_bytes_is_true_for_the_moment() {
        let from = offset(OWN, 10);
        assert!(!stays_true(OffsetParam::At(from), from, from, OWN));
    }
}
