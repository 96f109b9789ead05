//! Percent-encoding of URLs (RFC 3986 §2.1): decoded once, byte by byte.

/// A byte of a decoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) byte: u8,
    /// Whether it stood there as `%XX`.
    pub(crate) escaped: bool,
}

/// The decoded bytes; `None` stands for a `%` without two hexadecimal digits.
pub(crate) fn decoded(encoded: &str) -> impl Iterator<Item = Option<Decoded>> {
    let mut bytes = encoded.bytes();
    std::iter::from_fn(move || match bytes.next()? {
        b'%' => {
            let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
            let pair = high.zip(low);
            Some(pair.map(|(high, low)| Decoded { byte: high * 16 + low, escaped: true }))
        }
        byte => Some(Some(Decoded { byte, escaped: false })),
    })
}

/// Decodes the value of a query parameter. `None` when an escape is broken or the result is no
/// UTF-8. `+` stands for itself: offsets and cursors are not form data.
///
/// ```
/// assert_eq!(protocol::percent::decode_value("%2D1").as_deref(), Some("-1"));
/// assert_eq!(protocol::percent::decode_value("%2"), None);
/// ```
#[must_use]
pub fn decode_value(encoded: &str) -> Option<String> {
    let bytes = decoded(encoded).map(|decoded| decoded.map(|decoded| decoded.byte));
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

/// Encodes the value of a query parameter: everything but letters, digits and `-._~/:`.
///
/// ```
/// assert_eq!(protocol::percent::encode_value("a/b c"), "a/b%20c");
/// ```
#[must_use]
pub fn encode_value(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(digit));
        }
    }
    encoded
}

/// A hexadecimal digit of a value below 16.
fn digit(value: u8) -> char {
    char::from(if value < 10 { b'0' + value } else { b'A' + value - 10 })
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_and_leaves_plain_text_alone(text in ".*") {
            let decoded = decode_value(&text);
            if !text.contains('%') {
                prop_assert_eq!(decoded, Some(text));
            }
        }

        #[test]
        fn escapes_come_back(text in ".*") {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode_value(&escaped), Some(text.clone()));
            prop_assert_eq!(decode_value(&encode_value(&text)), Some(text));
        }
    }
}
