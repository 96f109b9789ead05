//! Patterns of stream paths, as the claim `stream_id` has them.
//!
//! | in a pattern | matches |
//! |---|---|
//! | `*` | any run of characters without `/`, also none |
//! | `**`, or more stars | any run of characters, also none |
//! | `?` | one character other than `/` |
//! | anything else | itself |
//!
//! A pattern without `*` and `?` is the path itself. A path is matched decoded, as a whole, and
//! character by character: `?` takes one `é`.
//!
//! **Invariants.** Matching takes at most the product of both lengths, whatever the pattern.
//!
//! **What stays out.** Escapes: a path that holds a `*` or `?` itself can be matched, with others
//! like it, by `?`.

use std::fmt;

use crate::limits::STREAM_PATTERN_BYTES_MAX;
use crate::name::StreamPath;

/// A path or a glob of paths, 1 to [`STREAM_PATTERN_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamPattern(Box<str>);

/// The pattern is empty or longer than [`STREAM_PATTERN_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPattern;

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pattern is not 1 to {STREAM_PATTERN_BYTES_MAX} bytes")
    }
}

impl std::error::Error for InvalidPattern {}

impl StreamPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`InvalidPattern`]: its length is the only thing that can be wrong.
    pub fn parse(text: &str) -> Result<StreamPattern, InvalidPattern> {
        let is_valid = (1..=STREAM_PATTERN_BYTES_MAX).contains(&text.len());
        if is_valid { Ok(StreamPattern(text.into())) } else { Err(InvalidPattern) }
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches the whole of `path`.
    #[must_use]
    pub fn matches(&self, path: &StreamPath) -> bool {
        matches_text(&self.0, path.as_str())
    }
}

impl fmt::Display for StreamPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Literal(char),
    /// `?`
    One,
    /// `*`
    WithinSegment,
    /// `**`
    AcrossSegments,
}

impl Piece {
    /// Whether the piece can take `next`.
    fn takes(self, next: char) -> bool {
        match self {
            Piece::Literal(literal) => literal == next,
            Piece::One | Piece::WithinSegment => next != '/',
            Piece::AcrossSegments => true,
        }
    }

    /// Whether the piece can take nothing, and go on taking.
    fn is_run(self) -> bool {
        matches!(self, Piece::WithinSegment | Piece::AcrossSegments)
    }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::with_capacity(pattern.len());
    for next in pattern.chars() {
        match (next, pieces.last_mut()) {
            ('*', Some(last)) if last.is_run() => *last = Piece::AcrossSegments,
            ('*', _) => pieces.push(Piece::WithinSegment),
            ('?', _) => pieces.push(Piece::One),
            _ => pieces.push(Piece::Literal(next)),
        }
    }
    pieces
}

/// Runs all ways to match side by side: `reached` holds, for each piece and for the end, whether
/// everything before it can match what was read so far. There is no way back, so nothing is tried
/// twice.
pub(super) fn matches_text(pattern: &str, text: &str) -> bool {
    let pieces = pieces(pattern);
    let mut reached = vec![false; pieces.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    skip_runs(&pieces, &mut reached);
    for next in text.chars() {
        let mut following = vec![false; pieces.len() + 1];
        for (index, (piece, here)) in pieces.iter().zip(&reached).enumerate() {
            if *here && piece.takes(next) {
                let target = if piece.is_run() { index } else { index + 1 };
                following.get_mut(target).into_iter().for_each(|slot| *slot = true);
            }
        }
        skip_runs(&pieces, &mut following);
        reached = following;
    }
    reached.last() == Some(&true)
}

/// Adds what is reached because runs may take nothing.
fn skip_runs(pieces: &[Piece], reached: &mut [bool]) {
    let mut is_open = false;
    let runs = pieces.iter().map(|piece| piece.is_run()).chain([false]);
    for (slot, is_run) in reached.iter_mut().zip(runs) {
        *slot |= is_open;
        is_open = *slot && is_run;
    }
}
