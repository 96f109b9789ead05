//! Where a read of the log is cut into data frames.

use std::ops::Range;

/// Cuts `bytes`, a range of a JSON stream's log that ends behind a message, at ends of messages.
///
/// The pieces tile `bytes` in order. Each holds as many messages as fit `max` bytes, terminators
/// included, and at least one. Bytes behind the last end, which a range of the log does not have,
/// count as a message.
pub fn split_messages(bytes: &[u8], max: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(begin..).filter(|rest| !rest.is_empty())?;
        let fitting = rest.get(..max).unwrap_or(rest);
        let is_end = |byte: &u8| *byte == b'\n';
        let last = match rest.len() <= max {
            true => None,
            false => fitting
                .iter()
                .rposition(is_end)
                .or_else(|| rest.iter().skip(max).position(is_end).map(|behind| max + behind)),
        };
        let end = begin + last.map_or(rest.len(), |last| last + 1);
        let piece = begin..end;
        begin = end;
        Some(piece)
    })
}

/// Cuts `len` bytes, of a stream that is not JSON, into pieces of `max` bytes and what is left. A
/// `max` of 0 counts as 1.
pub fn slices(len: usize, max: usize) -> impl Iterator<Item = Range<usize>> {
    let max = max.max(1);
    (0..len).step_by(max).map(move |begin| begin..len.min(begin.saturating_add(max)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(wire: &str, max: usize) -> Vec<&str> {
        split_messages(wire.as_bytes(), max).map(|range| &wire[range]).collect()
    }

    #[test]
    fn cuts_at_messages() {
        assert_eq!(pieces("", 4), [""; 0]);
        assert_eq!(pieces("1,\n2,\n3,\n", 9), ["1,\n2,\n3,\n"]);
        assert_eq!(pieces("1,\n2,\n3,\n", 8), ["1,\n2,\n", "3,\n"]);
        assert_eq!(pieces("1,\n2,\n3,\n", 3), ["1,\n", "2,\n", "3,\n"]);
        assert_eq!(pieces("1,\n2,\n", 0), ["1,\n", "2,\n"]);
        assert_eq!(pieces("12345,\n1,\n", 3), ["12345,\n", "1,\n"]);
        assert_eq!(pieces("1,\n12345,\n", 5), ["1,\n", "12345,\n"]);
        assert_eq!(pieces("1,\n2", 3), ["1,\n", "2"]);
    }

    #[test]
    fn cuts_bytes() {
        let ends = |len, max| slices(len, max).map(|range| range.end).collect::<Vec<_>>();
        assert!(ends(0, 4).is_empty());
        assert_eq!(ends(4, 4), [4]);
        assert_eq!(ends(9, 4), [4, 8, 9]);
        assert_eq!(ends(2, 0), [1, 2]);
        assert_eq!(ends(3, usize::MAX), [3]);
    }

    proptest! {
        #[test]
        fn pieces_tile_end_at_messages_and_are_as_large_as_they_may(
            messages in prop::collection::vec("[a-z]{0,12}", 0..40), max in 0..40_usize,
        ) {
            let wire: String = messages.iter().map(|message| format!("{message},\n")).collect();
            let pieces = pieces(&wire, max);
            prop_assert_eq!(pieces.concat(), &wire[..]);
            for (piece, next) in pieces.iter().zip(pieces.iter().skip(1).chain([&""])) {
                prop_assert!(piece.ends_with(",\n"));
                prop_assert!(piece.len() <= max || piece.matches('\n').count() == 1);
                let further = next.split_inclusive('\n').next();
                prop_assert!(further.is_none_or(|message| piece.len() + message.len() > max));
            }
        }

        #[test]
        fn slices_tile(len in 0..1000_usize, max in 1..100_usize) {
            let mut at = 0;
            for piece in slices(len, max) {
                prop_assert_eq!(piece.start, at);
                prop_assert!(piece.len() == max || (piece.end == len && !piece.is_empty()));
                at = piece.end;
            }
            prop_assert_eq!(at, len);
        }
    }
}
