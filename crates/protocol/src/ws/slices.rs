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
