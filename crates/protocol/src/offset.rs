//! Offsets: the tokens that name a position in a stream (PROTOCOL.md §8).
//!
//! ```text
//! 0001769853600500_0000000000000042
//! └ generation ──┘ └ position ────┘   16 decimal digits each, zero padded: 33 bytes
//! ```
//!
//! The generation tells the lives of one path apart, the position counts bytes of the log. Both
//! parts have a fixed width, so tokens sort as text exactly as [`Offset`] sorts as a value.
//!
//! **Invariants.** An [`Offset`] prints as one token, and a token is read only in the spelling in
//! which it is printed. The sentinels `-1` and `now` are never printed.
//!
//! **Error semantics.** Anything but a token or a sentinel is [`InvalidOffset`]. Whether an offset
//! belongs to a given stream is not known here.
//!
//! **What stays out.** Which generation a position of a fork carries, and what a stale one means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which life of a path: milliseconds of creation, raised above every earlier life's.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

impl Generation {
    /// The largest generation that sixteen digits hold.
    pub const MAX: Generation = Generation(SIXTEEN_DIGITS_MAX);
}

/// Bytes of the log before this point.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position(pub u64);

impl Position {
    /// The largest position that sixteen digits hold.
    pub const MAX: Position = Position(SIXTEEN_DIGITS_MAX);

    /// The position `bytes` further on, at most `u64::MAX`.
    #[must_use]
    pub const fn saturating_add_bytes(self, bytes: u64) -> Position {
        Position(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here; 0 when `earlier` is further on.
    #[must_use]
    pub const fn saturating_since_bytes(self, earlier: Position) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

const SIXTEEN_DIGITS_MAX: u64 = 9_999_999_999_999_999;
const DIGITS: usize = 16;
const TOKEN_BYTES: usize = 2 * DIGITS + 1;

/// A position of one life of a stream. Ordered by generation, then position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// The life that wrote the byte before this offset; a fork's inherited offsets keep the
    /// source's.
    pub generation: Generation,
    /// Bytes of the log before this offset.
    pub position: Position,
}

impl Offset {
    /// The all-zero token. It is no stream's own offset and stands for the start of any.
    pub const ZERO: Offset = Offset { generation: Generation(0), position: Position(0) };
}

/// The token. Values above [`Generation::MAX`] or [`Position::MAX`] would print wider; the engine
/// never makes them.
impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}_{:016}", self.generation.0, self.position.0)
    }
}

/// Reads a token: exactly 33 bytes, digits and one underscore.
impl FromStr for Offset {
    type Err = InvalidOffset;

    fn from_str(token: &str) -> Result<Offset, InvalidOffset> {
        let bytes: &[u8; TOKEN_BYTES] = token.as_bytes().try_into().map_err(|_| InvalidOffset)?;
        let (generation, rest) = digits(bytes)?;
        let Some((b'_', rest)) = rest.split_first() else {
            return Err(InvalidOffset);
        };
        let (position, _) = digits(rest)?;
        Ok(Offset { generation: Generation(generation), position: Position(position) })
    }
}

/// The value of the query parameter `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OffsetParam {
    /// `-1`: the earliest retained byte. A missing parameter means the same; that is the caller's
    /// to say, since live reads require one.
    Start,
    /// `now`: the tail at the time of the request.
    Now,
    /// A token, [`Offset::ZERO`] included.
    At(Offset),
}

impl OffsetParam {
    /// Reads a decoded parameter value. Sentinels are case-sensitive; the empty string is refused.
    ///
    /// # Errors
    /// [`InvalidOffset`] for anything that is neither a sentinel nor a token.
    pub fn parse(value: &str) -> Result<OffsetParam, InvalidOffset> {
        match value {
            "-1" => Ok(OffsetParam::Start),
            "now" => Ok(OffsetParam::Now),
            token => token.parse().map(OffsetParam::At),
        }
    }
}

/// As it stands in a query.
impl fmt::Display for OffsetParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("-1"),
            Self::Now => f.write_str("now"),
            Self::At(offset) => offset.fmt(f),
        }
    }
}

/// The text is neither an offset token nor a sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOffset;

impl fmt::Display for InvalidOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the offset is neither `-1`, `now` nor two groups of 16 digits joined by `_`")
    }
}

impl std::error::Error for InvalidOffset {}

/// Sixteen ASCII digits and what follows them.
fn digits(bytes: &[u8]) -> Result<(u64, &[u8]), InvalidOffset> {
    let (digits, rest) = bytes.split_first_chunk::<DIGITS>().ok_or(InvalidOffset)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidOffset);
    }
    Ok((digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offset(generation: u64, position: u64) -> Offset {
        Offset { generation: Generation(generation), position: Position(position) }
    }

    #[test]
    fn token_form() {
        let at = offset(1_769_853_600_500, 42);
        assert_eq!(at.to_string(), "0001769853600500_0000000000000042");
        assert_eq!("0001769853600500_0000000000000042".parse(), Ok(at));
        assert_eq!(Offset::ZERO.to_string(), "0000000000000000_0000000000000000");
        let max = Offset { generation: Generation::MAX, position: Position::MAX };
        assert_eq!(max.to_string(), "9999999999999999_9999999999999999");
        assert_eq!(max.to_string().parse(), Ok(max));
    }

    #[test]
    fn parameter_forms() {
        assert_eq!(OffsetParam::parse("-1"), Ok(OffsetParam::Start));
        assert_eq!(OffsetParam::parse("now"), Ok(OffsetParam::Now));
        assert_eq!(
            OffsetParam::parse("0000000000000000_0000000000000000"),
            Ok(OffsetParam::At(Offset::ZERO))
        );
    }

    #[test]
    fn refuses_other_spellings() {
        for text in [
            "",
            "0",
            "-2",
            "NOW",
            " now",
            "0_0",
            "0001769853600500_000000000000042",
            "0001769853600500_00000000000000042",
            "0001769853600500-0000000000000042",
            "0001769853600500_000000000000004a",
            "+001769853600500_0000000000000042",
            " 001769853600500_0000000000000042",
            "0001769853600500_0000000000000042\n",
            "0001769853600500_0000000000000042,",
            "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠",
        ] {
            assert_eq!(OffsetParam::parse(text), Err(InvalidOffset), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(generation in 0..=SIXTEEN_DIGITS_MAX, position in 0..=SIXTEEN_DIGITS_MAX) {
            let at = offset(generation, position);
            prop_assert_eq!(at.to_string().parse(), Ok(at));
            prop_assert_eq!(OffsetParam::parse(&at.to_string()), Ok(OffsetParam::At(at)));
        }

        #[test]
        fn tokens_sort_as_values(
            a in (0..=SIXTEEN_DIGITS_MAX, 0..=SIXTEEN_DIGITS_MAX),
            b in (0..=SIXTEEN_DIGITS_MAX, 0..=SIXTEEN_DIGITS_MAX),
        ) {
            let (a, b) = (offset(a.0, a.1), offset(b.0, b.1));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }

        #[test]
        fn whatever_is_accepted_prints_the_same(text in "\\PC*|[0-9]{15,17}_[0-9]{15,17}") {
            if let Ok(at) = text.parse::<Offset>() {
                prop_assert_eq!(at.to_string(), text);
            }
        }
    }
}
