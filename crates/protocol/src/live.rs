//! Frames on the internal socket between an edge request and a stream's object.
//!
//! The object sends [`Frame`]s, the edge sends [`Grant`]s. All integers are little-endian.
//!
//! ```text
//! frame   0        1       2        10       18           26
//!         version  flags   from     to       generation   payload …
//!         u8 = 1   u8      u64      u64      u64          to − from bytes
//! flags   bit 0 up to date, bit 1 closed, bit 2 cold, others 0
//!
//! grant   0        1
//!         tag      up to
//!         u8 = 1   u64
//! ```
//!
//! The payload of a cold frame is not the bytes but where they are, as JSON. Appends and their
//! answers pass over the same socket: see [`calls`].
//!
//! **Invariants.** A frame names the range of the log that it carries, so the edge can trim what it
//! has and see a gap. Credit is an absolute position: a lost or repeated grant does no harm.
//!
//! **Error semantics.** [`FrameError`] for bytes that no encoder of this version makes; both ends
//! are ours, so the edge closes the socket and starts again from its last offset.
//!
//! **What stays out.** How payloads become SSE events or responses, and when credit is granted.

pub mod calls;

use std::fmt;

use crate::offset::{Generation, Offset, Position};

/// Close code: the stream was deleted or has expired.
pub const CLOSE_STREAM_GONE: u16 = 4404;
/// Close code: the object recycles its sockets; the edge connects again.
pub const CLOSE_RECYCLED: u16 = 4408;
/// Close code of RFC 6455's registry: try again later.
pub const CLOSE_TRY_LATER: u16 = 1013;

/// Bytes of an encoded [`FrameHead`].
pub const FRAME_HEAD_BYTES: usize = 26;
/// Bytes of an encoded [`Grant`].
pub const GRANT_BYTES: usize = 9;

/// First byte of an encoded [`Frame`].
pub const VERSION: u8 = 1;
/// First byte of an encoded [`Grant`].
pub const TAG_GRANT: u8 = 1;
/// First byte of a batch of [`calls`], where a grant has [`TAG_GRANT`].
pub const TAG_CALLS: u8 = 2;
/// First byte of a list of answers to calls, where a frame has [`VERSION`].
pub const TAG_ANSWERS: u8 = 2;

const FLAG_UP_TO_DATE: u8 = 1;
const FLAG_CLOSED: u8 = 2;
const FLAG_COLD: u8 = 4;

/// What a frame says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameHead {
    /// Where the payload begins.
    pub from: Position,
    /// Where it ends: not before `from`, the same for a frame without payload.
    pub to: Position,
    /// Generation of the offset at `to`.
    pub generation: Generation,
    /// Whether `to` was the tail when the frame was made.
    pub up_to_date: bool,
    /// Whether the stream is closed and `to` its end.
    pub closed: bool,
    /// Whether the payload says where the bytes are instead of being them.
    pub cold: bool,
}

impl FrameHead {
    /// The first bytes of a frame; the payload follows them.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEAD_BYTES] {
        let flags = if self.up_to_date { FLAG_UP_TO_DATE } else { 0 }
            | if self.closed { FLAG_CLOSED } else { 0 }
            | if self.cold { FLAG_COLD } else { 0 };
        let [f0, f1, f2, f3, f4, f5, f6, f7] = self.from.0.to_le_bytes();
        let [t0, t1, t2, t3, t4, t5, t6, t7] = self.to.0.to_le_bytes();
        let [g0, g1, g2, g3, g4, g5, g6, g7] = self.generation.0.to_le_bytes();
        [
            VERSION, flags, //
            f0, f1, f2, f3, f4, f5, f6, f7, //
            t0, t1, t2, t3, t4, t5, t6, t7, //
            g0, g1, g2, g3, g4, g5, g6, g7,
        ]
    }

    /// Reads the head of a frame that is `frame_bytes` long. Its payload need not be here.
    ///
    /// # Errors
    /// [`FrameError`], see its variants.
    pub fn decode(bytes: &[u8], frame_bytes: u64) -> Result<FrameHead, FrameError> {
        let (&[version, flags], rest) = bytes.split_first_chunk().ok_or(FrameError::Truncated)?;
        if version != VERSION {
            return Err(FrameError::UnknownVersion(version));
        }
        if flags & !(FLAG_UP_TO_DATE | FLAG_CLOSED | FLAG_COLD) != 0 {
            return Err(FrameError::UnknownFlags(flags));
        }
        let (from, rest) = split_u64(rest)?;
        let (to, rest) = split_u64(rest)?;
        let (generation, _) = split_u64(rest)?;
        let length = to.checked_sub(from).ok_or(FrameError::PayloadLength)?;
        let cold = flags & FLAG_COLD != 0;
        if !cold && length.checked_add(FRAME_HEAD_BYTES as u64) != Some(frame_bytes) {
            return Err(FrameError::PayloadLength);
        }
        Ok(FrameHead {
            from: Position(from),
            to: Position(to),
            generation: Generation(generation),
            up_to_date: flags & FLAG_UP_TO_DATE != 0,
            closed: flags & FLAG_CLOSED != 0,
            cold,
        })
    }

    /// The offset behind the payload.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        Offset { generation: self.generation, position: self.to }
    }
}

/// A frame: a range of the log and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the frame says about its payload.
    pub head: FrameHead,
    /// Bytes of the log, `head.to - head.from` of them, or where they are.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The whole frame in one buffer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + self.payload.len());
        bytes.extend_from_slice(&self.head.encode());
        bytes.extend_from_slice(self.payload);
        bytes
    }

    /// Splits a frame into its head and its payload.
    ///
    /// # Errors
    /// [`FrameError`], see its variants.
    pub fn decode(bytes: &[u8]) -> Result<(FrameHead, &[u8]), FrameError> {
        let head = FrameHead::decode(bytes, bytes.len() as u64)?;
        Ok((head, bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default()))
    }
}

/// Credit: the object may send every byte before `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// An absolute position of the log.
    pub up_to: Position,
}

impl Grant {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> [u8; GRANT_BYTES] {
        let [u0, u1, u2, u3, u4, u5, u6, u7] = self.up_to.0.to_le_bytes();
        [TAG_GRANT, u0, u1, u2, u3, u4, u5, u6, u7]
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`FrameError::Truncated`], [`FrameError::UnknownVersion`] for another tag, or
    /// [`FrameError::PayloadLength`] when something follows.
    pub fn decode(bytes: &[u8]) -> Result<Grant, FrameError> {
        let (&tag, rest) = bytes.split_first().ok_or(FrameError::Truncated)?;
        if tag != TAG_GRANT {
            return Err(FrameError::UnknownVersion(tag));
        }
        let (up_to, rest) = split_u64(rest)?;
        if !rest.is_empty() {
            return Err(FrameError::PayloadLength);
        }
        Ok(Grant { up_to: Position(up_to) })
    }
}

/// Why bytes are no message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// They end inside the fixed part.
    Truncated,
    /// The first byte is not the one that we write.
    UnknownVersion(u8),
    /// A flag is set that has no meaning.
    UnknownFlags(u8),
    /// The payload is not as long as the fixed part says.
    PayloadLength,
    /// A text inside does not parse.
    InvalidText,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the frame ends inside its fixed part"),
            Self::UnknownVersion(byte) => write!(f, "the frame begins with the byte {byte}"),
            Self::UnknownFlags(flags) => write!(f, "the frame has the unknown flags {flags:#b}"),
            Self::PayloadLength => f.write_str("the payload has not the length of its range"),
            Self::InvalidText => f.write_str("a text inside the frame does not parse"),
        }
    }
}

impl std::error::Error for FrameError {}

fn split_u64(bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let (value, rest) = bytes.split_first_chunk().ok_or(FrameError::Truncated)?;
    Ok((u64::from_le_bytes(*value), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &[u8] = &[
        1, 3, //
        0x02, 0x01, 0, 0, 0, 0, 0, 0, //
        0x05, 0x01, 0, 0, 0, 0, 0, 0, //
        0xF4, 0xD6, 0x05, 0x12, 0x9C, 0x01, 0, 0, //
        b'a', b'b', b'c',
    ];

    fn golden() -> Frame<'static> {
        let head = FrameHead {
            from: Position(0x102),
            to: Position(0x105),
            generation: Generation(0x019C_1205_D6F4),
            up_to_date: true,
            closed: true,
            cold: false,
        };
        Frame { head, payload: b"abc" }
    }

    #[test]
    fn golden_frame() {
        assert_eq!(golden().encode(), GOLDEN);
        assert_eq!(Frame::decode(GOLDEN), Ok((golden().head, &b"abc"[..])));
        assert_eq!(golden().head.next_offset().to_string(), "0001769828898548_0000000000000261");
    }

    #[test]
    fn golden_flags() {
        for (up_to_date, closed, cold, flags) in [
            (false, false, false, 0),
            (true, false, false, 1),
            (false, true, false, 2),
            (false, false, true, 4),
        ] {
            let head = FrameHead { up_to_date, closed, cold, ..golden().head };
            assert_eq!(head.encode()[1], flags);
        }
    }

    #[test]
    fn golden_grant() {
        let grant = Grant { up_to: Position(0x0102_0304_0506_0708) };
        assert_eq!(grant.encode(), [1, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Grant::decode(&grant.encode()), Ok(grant));
    }

    #[test]
    fn truncations() {
        for length in 0..GOLDEN.len() {
            let error = match length {
                0..FRAME_HEAD_BYTES => FrameError::Truncated,
                _ => FrameError::PayloadLength,
            };
            assert_eq!(Frame::decode(&GOLDEN[..length]), Err(error), "{length}");
        }
        let grant = Grant { up_to: Position(7) }.encode();
        for length in 0..grant.len() {
            assert_eq!(Grant::decode(&grant[..length]), Err(FrameError::Truncated), "{length}");
        }
    }

    #[test]
    fn refuses() {
        let with = |at: usize, byte: u8| {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(Frame::decode(&with(0, 2)), Err(FrameError::UnknownVersion(2)));
        assert_eq!(Frame::decode(&with(1, 8)), Err(FrameError::UnknownFlags(8)));
        assert_eq!(Frame::decode(&with(2, 9)), Err(FrameError::PayloadLength));
        assert_eq!(Frame::decode(&[GOLDEN, b"d"].concat()), Err(FrameError::PayloadLength));
        assert_eq!(Grant::decode(&[2; 9]), Err(FrameError::UnknownVersion(2)));
        assert_eq!(Grant::decode(&[1; 10]), Err(FrameError::PayloadLength));
    }

    proptest! {
        #[test]
        fn round_trip(
            from in 0..=u64::MAX - 64, generation: u64, up_to_date: bool, closed: bool, cold: bool,
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let to = Position(from).saturating_add_bytes(payload.len() as u64);
            let generation = Generation(generation);
            let head = FrameHead { from: Position(from), to, generation, up_to_date, closed, cold };
            let bytes = Frame { head, payload: &payload }.encode();
            prop_assert_eq!(Frame::decode(&bytes), Ok((head, &payload[..])));
        }

        #[test]
        fn whatever_is_accepted_encodes_the_same(bytes: Vec<u8>, flags in 0..9_u8, from: u8) {
            let length = bytes.len().saturating_sub(9) as u64;
            let made = [&[1, flags, from, 0, 0, 0, 0, 0, 0, 0][..],
                &(u64::from(from) + length).to_le_bytes(), &bytes].concat();
            for bytes in [bytes, made] {
                if let Ok((head, payload)) = Frame::decode(&bytes) {
                    prop_assert_eq!(Frame { head, payload }.encode(), bytes.clone());
                }
                if let Ok(grant) = Grant::decode(&bytes) {
                    prop_assert_eq!(&grant.encode()[..], bytes);
                }
            }
        }
    }
}
