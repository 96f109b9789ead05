//! The one integer syntax of headers and variables: `0`, or a digit 1–9 followed by digits.
//!
//! No sign, no leading zero, no white space, no fraction, no exponent. Whatever has two spellings
//! would have two cache keys and two readings; so there is one.

/// Parses `text` as a strict decimal not above `max`. `None` when the syntax is wrong or the
/// number is larger.
pub(crate) fn parse(text: &str, max: u64) -> Option<u64> {
    let bytes = text.as_bytes();
    match bytes {
        [] => return None,
        [b'0'] => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value: u64 = 0;
    for byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (value <= max).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use proptest::prelude::*;

    #[test]
    fn refuses_every_other_spelling() {
        for text in ["", "+1", "-1", "01", "00", "1.0", "1e3", " 1", "1 ", "0x1", "१", "1_000"] {
            assert_eq!(parse(text, u64::MAX), None, "{text:?}");
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(parse("0", 0), Some(0));
        assert_eq!(parse("1", 0), None);
        assert_eq!(parse("18446744073709551615", u64::MAX), Some(u64::MAX));
        assert_eq!(parse("18446744073709551616", u64::MAX), None);
    }

    proptest! {
        #[test]
        fn round_trip(value: u64) {
            prop_assert_eq!(parse(&value.to_string(), u64::MAX), Some(value));
        }

        #[test]
        fn whatever_is_accepted_prints_the_same(text in "[0-9+\\-. ]{0,22}|\\PC*") {
            if let Some(value) = parse(&text, u64::MAX) {
                prop_assert_eq!(value.to_string(), text);
            }
        }
    }
}
