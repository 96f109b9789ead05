//! The scanner behind [`super::frame_messages`]: validates and copies in one pass.
//!
//! It keeps one bit per open container instead of a call per level, and passes over the inside of
//! strings eight bytes at a time. The body is known to be UTF-8, so bytes above 0x7F need no look:
//! outside strings they are unexpected, inside they are text.

use super::{Framed, JsonError, JsonErrorKind as Kind};
use crate::limits::JSON_DEPTH_MAX;

/// Reads a body from its begin to its end.
pub(super) struct Scanner<'a> {
    body: &'a [u8],
    /// Bytes read.
    at: usize,
    /// Open containers.
    depth: usize,
    /// One bit per open container, from the outermost: 1 for an object, 0 for an array.
    objects: [u64; JSON_DEPTH_MAX / 64],
    /// Whether the innermost open container is an object.
    in_object: bool,
    /// Whether the white space of the current message holds a CR or LF.
    line_break: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(body: &'a [u8]) -> Scanner<'a> {
        Scanner {
            body,
            at: 0,
            depth: 0,
            objects: [0; JSON_DEPTH_MAX / 64],
            in_object: false,
            line_break: false,
        }
    }

    /// The whole body: one message, or an array of messages.
    pub(super) fn frame(mut self) -> Result<Framed, JsonError> {
        let mut framed = Framed { wire: Vec::with_capacity(self.body.len() + 2), messages: 0 };
        self.skip_white_space();
        match self.peek() {
            None => return Err(JsonError::Empty),
            Some(b'[') => self.messages(&mut framed)?,
            Some(0xEF) if self.body.starts_with(b"\xEF\xBB\xBF") => {
                return Err(self.fault(Kind::ByteOrderMark));
            }
            Some(_) => self.message(&mut framed)?,
        }
        self.skip_white_space();
        match self.peek() {
            None => Ok(framed),
            Some(_) => Err(self.fault(Kind::TrailingData)),
        }
    }

    /// The top-level array.
    fn messages(&mut self, framed: &mut Framed) -> Result<(), JsonError> {
        self.open(false)?;
        self.skip_white_space();
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.message(framed)?;
            self.skip_white_space();
            if self.eat(b']') {
                return Ok(());
            }
            self.expect(b',')?;
            self.skip_white_space();
        }
    }

    /// One message, copied to the wire.
    fn message(&mut self, framed: &mut Framed) -> Result<(), JsonError> {
        let begin = self.at;
        self.line_break = false;
        self.value()?;
        let text = self.body.get(begin..self.at).unwrap_or_default();
        let copied_from = framed.wire.len();
        framed.wire.extend_from_slice(text);
        if self.line_break {
            for byte in framed.wire.iter_mut().skip(copied_from) {
                if matches!(byte, b'\r' | b'\n') {
                    *byte = b' ';
                }
            }
        }
        framed.wire.extend_from_slice(b",\n");
        framed.messages += 1;
        Ok(())
    }

    /// One value with everything inside it; ends behind its last byte.
    fn value(&mut self) -> Result<(), JsonError> {
        let floor = self.depth;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                Some(b'{') => {
                    self.open(true)?;
                    self.skip_white_space();
                    if !self.eat(b'}') {
                        self.key()?;
                        continue;
                    }
                    self.close();
                }
                Some(b'[') => {
                    self.open(false)?;
                    self.skip_white_space();
                    if !self.eat(b']') {
                        continue;
                    }
                    self.close();
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.unexpected()),
            }
            if !self.next_value(floor)? {
                return Ok(());
            }
        }
    }

    /// Behind a value: closes containers until another value is due (`true`) or until no more
    /// than `floor` containers are open (`false`).
    fn next_value(&mut self, floor: usize) -> Result<bool, JsonError> {
        while self.depth > floor {
            self.skip_white_space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.skip_white_space();
                    if self.in_object {
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if self.in_object => {}
                Some(b']') if !self.in_object => {}
                _ => return Err(self.unexpected()),
            }
            self.at += 1;
            self.close();
        }
        Ok(false)
    }

    /// The key of a member, its colon, and the white space around it.
    fn key(&mut self) -> Result<(), JsonError> {
        self.expect(b'"')?;
        self.string()?;
        self.skip_white_space();
        self.expect(b':')?;
        self.skip_white_space();
        Ok(())
    }

    /// The rest of a string whose opening quote was read.
    fn string(&mut self) -> Result<(), JsonError> {
        loop {
            self.at += plain_prefix(self.body.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.fault(Kind::ControlCharacter)),
                None => return Err(self.unexpected()),
            }
        }
    }

    /// A backslash and what belongs to it.
    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        match rest {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 2,
            [_, b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|d| d.is_ascii_hexdigit()) => {
                self.at += 6;
            }
            [_] => {
                self.at += 1;
                return Err(self.unexpected());
            }
            _ => return Err(self.fault(Kind::InvalidEscape)),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At least one digit.
    #[inline]
    fn digits(&mut self) -> Result<(), JsonError> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > begin { Ok(()) } else { Err(self.fault(Kind::InvalidNumber)) }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if self.body.get(self.at..).unwrap_or_default().starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.unexpected())
    }

    /// Enters the container that begins here.
    fn open(&mut self, object: bool) -> Result<(), JsonError> {
        let Some(word) = self.objects.get_mut(self.depth / 64) else {
            return Err(self.fault(Kind::TooDeep));
        };
        let bit = 1 << (self.depth % 64);
        if object {
            *word |= bit
        } else {
            *word &= !bit
        }
        self.in_object = object;
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Leaves the innermost container.
    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        let outer = self.depth.saturating_sub(1);
        let word = self.objects.get(outer / 64).copied().unwrap_or_default();
        self.in_object = word >> (outer % 64) & 1 == 1;
    }

    #[inline]
    fn skip_white_space(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => {}
                Some(b'\r' | b'\n') => self.line_break = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    /// Passes over `byte` if it stands here.
    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.unexpected()) }
    }

    #[cold]
    fn unexpected(&self) -> JsonError {
        match self.peek() {
            Some(_) => self.fault(Kind::UnexpectedByte),
            None => self.fault(Kind::UnexpectedEnd),
        }
    }

    #[cold]
    fn fault(&self, kind: Kind) -> JsonError {
        JsonError::Invalid { position: self.at, kind }
    }
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// How many bytes from the begin are neither a quote, nor a backslash, nor below 0x20.
#[inline]
fn plain_prefix(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut length = 0;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let found = special_bytes(u64::from_le_bytes(*word));
        if found != 0 {
            return length + found.trailing_zeros() as usize / 8;
        }
        length += 8;
        rest = after;
    }
    let is_plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    length + rest.iter().take_while(is_plain).count()
}

/// The high bit of each byte of `word` that is a quote, a backslash or below 0x20. A byte behind
/// such a byte may be marked too, because subtraction borrows; the first mark is always right.
#[inline]
const fn special_bytes(word: u64) -> u64 {
    let quote = word ^ (LOW_BITS * b'"' as u64);
    let backslash = word ^ (LOW_BITS * b'\\' as u64);
    let marks = word.wrapping_sub(LOW_BITS * 0x20)
        | quote.wrapping_sub(LOW_BITS)
        | backslash.wrapping_sub(LOW_BITS);
    // Bytes from 0x80 have none of these values: the exclusive or keeps their high bit.
    marks & !word & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive_plain_prefix(bytes: &[u8]) -> usize {
        let special = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
        bytes.iter().position(special).unwrap_or(bytes.len())
    }

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=255 {
            for place in 0..19 {
                let mut bytes = [b'x'; 19];
                bytes[place] = byte;
                assert_eq!(plain_prefix(&bytes), naive_plain_prefix(&bytes), "{byte} {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_search(bytes: Vec<u8>, text in "[ -~é\u{1F600}]{0,80}") {
            prop_assert_eq!(plain_prefix(&bytes), naive_plain_prefix(&bytes));
            prop_assert_eq!(plain_prefix(text.as_bytes()), naive_plain_prefix(text.as_bytes()));
        }
    }
}
