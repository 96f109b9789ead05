//! Appends of WebSocket clients on the internal socket, and their answers.
//!
//! The edge sends batches of [`Call`]s, the object sends [`Answers`] in the same order. All
//! integers are little-endian.
//!
//! ```text
//! batch   0          1
//!         tag        call … one behind the other, to the end
//!         u8 = 2
//!
//! call    0          1          5
//!         flags      body       [producer] [seq] body …
//!         u8         u32
//! flags   bit 0 close, bit 1 producer, bit 2 seq, others 0
//!
//! producer  0        8        16       18
//!           epoch    seq      length   id …
//!           u64      u64      u16
//! seq       0        2
//!           length   text …
//!           u16
//!
//! answers 0          1
//!         tag        JSON: a list of answers
//!         u8 = 2
//! ```
//!
//! **Invariants.** What is decoded was parsed: ids and `Stream-Seq` are values of their types, not
//! texts. Answers are counted: their counts add up to the calls that they answer.
//!
//! **Error semantics.** [`FrameError`] for bytes that no encoder of this version makes, as for the
//! other messages of the socket.
//!
//! **What stays out.** When calls are batched, and how the object forms groups of them.

use serde::{Deserialize, Serialize};

use super::{FrameError, TAG_ANSWERS, TAG_CALLS, split_u64};
use crate::error::ApiError;
use crate::headers::StreamSeq;
use crate::limits::{
    BODY_BYTES_CEILING, PRODUCER_ID_BYTES_MAX, SAFE_INTEGER_MAX, STREAM_SEQ_BYTES_MAX,
};
use crate::producer::{Epoch, Producer, ProducerId, Seq};

const FLAG_CLOSE: u8 = 1;
const FLAG_PRODUCER: u8 = 2;
const FLAG_SEQ: u8 = 4;

const _: () = assert!(BODY_BYTES_CEILING <= u32::MAX as u64, "the length of a body is a u32");
const _: () = assert!(
    PRODUCER_ID_BYTES_MAX <= u16::MAX as usize && STREAM_SEQ_BYTES_MAX <= u16::MAX as usize,
    "the length of a text is a u16"
);

/// One append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// What a POST would carry, not yet framed. At most [`BODY_BYTES_CEILING`] bytes.
    pub body: &'a [u8],
    /// The idempotent producer, if any.
    pub producer: Option<Producer>,
    /// `Stream-Seq`, if any.
    pub seq: Option<StreamSeq>,
    /// Whether to close the stream in the same step.
    pub close: bool,
}

/// Appends `call` to the batch in `out`; an empty `out` becomes a batch of one.
pub fn encode(out: &mut Vec<u8>, call: &Call<'_>) {
    if out.is_empty() {
        out.push(TAG_CALLS);
    }
    let Call { body, producer, seq, close } = call;
    let flags = if *close { FLAG_CLOSE } else { 0 }
        | if producer.is_some() { FLAG_PRODUCER } else { 0 }
        | if seq.is_some() { FLAG_SEQ } else { 0 };
    out.push(flags);
    // A body has no more bytes than a u32 counts; if it had, the object would refuse the batch.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    if let Some(Producer { id, epoch, seq }) = producer {
        out.extend_from_slice(&epoch.0.to_le_bytes());
        out.extend_from_slice(&seq.0.to_le_bytes());
        push_text(out, id.as_str());
    }
    if let Some(seq) = seq {
        push_text(out, seq.as_str());
    }
    out.extend_from_slice(body);
}

/// The calls of a batch.
///
/// # Errors
/// [`FrameError::UnknownVersion`] for another tag, [`FrameError::Truncated`] when the batch ends
/// inside a call's fixed part, [`FrameError::PayloadLength`] inside a body,
/// [`FrameError::UnknownFlags`] or [`FrameError::InvalidText`].
pub fn decode(batch: &[u8]) -> Result<Vec<Call<'_>>, FrameError> {
    let (&tag, mut rest) = batch.split_first().ok_or(FrameError::Truncated)?;
    if tag != TAG_CALLS {
        return Err(FrameError::UnknownVersion(tag));
    }
    let mut calls = Vec::new();
    while !rest.is_empty() {
        let (call, behind) = split_call(rest)?;
        calls.push(call);
        rest = behind;
    }
    Ok(calls)
}

/// What became of one or more calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// They were stored.
    Stored {
        /// How many calls this answers; at least 1.
        count: u64,
        /// The offset behind the last of them.
        next: String,
        /// Whether the last of them closed the stream.
        closed: bool,
        /// Epoch and sequence number of the producer, the highest that was accepted. Only for one
        /// call.
        producer: Option<(u64, u64)>,
    },
    /// One call had been stored before.
    Duplicate {
        /// The offset that the client is told.
        next: String,
        /// Whether the stream is closed.
        closed: bool,
        /// As in `Stored`.
        producer: Option<(u64, u64)>,
    },
    /// One call was refused; nothing of it is stored.
    Refused(ApiError),
}

impl Answer {
    /// How many calls this answers.
    #[must_use]
    pub const fn count(&self) -> u64 {
        match self {
            Self::Stored { count, .. } => *count,
            Self::Duplicate { .. } | Self::Refused(_) => 1,
        }
    }
}

/// Answers in the order of their calls, with runs of `Stored` as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    list: Vec<Answer>,
}

impl Answers {
    /// Adds the answer to the next call. Stored calls become one answer, which names no producer;
    /// a close is always the last of its answer.
    pub fn push(&mut self, answer: Answer) {
        if let (
            Some(Answer::Stored { count, next, closed, producer }),
            Answer::Stored { count: more, next: further, closed: now_closed, .. },
        ) = (self.list.last_mut(), &answer)
            && !*closed
        {
            *count = count.saturating_add(*more);
            next.clone_from(further);
            *closed = *now_closed;
            *producer = None;
            return;
        }
        self.list.push(answer);
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The answers as they are sent.
    #[must_use]
    pub fn as_slice(&self) -> &[Answer] {
        &self.list
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut message = vec![TAG_ANSWERS];
        // Texts, numbers and flags always serialize. If they did not, what is left of the message
        // would not decode.
        let _ = serde_json::to_writer(&mut message, &self.list);
        message
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`FrameError::Truncated`], [`FrameError::UnknownVersion`] for another tag, or
    /// [`FrameError::InvalidText`] for other JSON and for an answer to no call.
    pub fn decode(message: &[u8]) -> Result<Vec<Answer>, FrameError> {
        let (&tag, json) = message.split_first().ok_or(FrameError::Truncated)?;
        if tag != TAG_ANSWERS {
            return Err(FrameError::UnknownVersion(tag));
        }
        let list: Vec<Answer> =
            serde_json::from_slice(json).map_err(|_| FrameError::InvalidText)?;
        match list.iter().all(|answer| answer.count() > 0) {
            true => Ok(list),
            false => Err(FrameError::InvalidText),
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn split_call(bytes: &[u8]) -> Result<(Call<'_>, &[u8]), FrameError> {
    let (&flags, rest) = bytes.split_first().ok_or(FrameError::Truncated)?;
    if flags & !(FLAG_CLOSE | FLAG_PRODUCER | FLAG_SEQ) != 0 {
        return Err(FrameError::UnknownFlags(flags));
    }
    let (length, mut rest) = rest.split_first_chunk().ok_or(FrameError::Truncated)?;
    let length =
        usize::try_from(u32::from_le_bytes(*length)).map_err(|_| FrameError::PayloadLength)?;
    let mut producer = None;
    if flags & FLAG_PRODUCER != 0 {
        let (found, behind) = split_producer(rest)?;
        producer = Some(found);
        rest = behind;
    }
    let mut seq = None;
    if flags & FLAG_SEQ != 0 {
        let (text, behind) = split_text(rest)?;
        seq = Some(StreamSeq::parse(text).map_err(|_| FrameError::InvalidText)?);
        rest = behind;
    }
    let (body, rest) = rest.split_at_checked(length).ok_or(FrameError::PayloadLength)?;
    Ok((Call { body, producer, seq, close: flags & FLAG_CLOSE != 0 }, rest))
}

fn split_producer(bytes: &[u8]) -> Result<(Producer, &[u8]), FrameError> {
    let (epoch, rest) = split_u64(bytes)?;
    let (seq, rest) = split_u64(rest)?;
    let (id, rest) = split_text(rest)?;
    let id = ProducerId::parse(id).map_err(|_| FrameError::InvalidText)?;
    if epoch > SAFE_INTEGER_MAX || seq > SAFE_INTEGER_MAX {
        return Err(FrameError::InvalidText);
    }
    Ok((Producer { id, epoch: Epoch(epoch), seq: Seq(seq) }, rest))
}

fn split_text(bytes: &[u8]) -> Result<(&str, &[u8]), FrameError> {
    let (length, rest) = bytes.split_first_chunk().ok_or(FrameError::Truncated)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (text, rest) = rest.split_at_checked(length).ok_or(FrameError::Truncated)?;
    Ok((std::str::from_utf8(text).map_err(|_| FrameError::InvalidText)?, rest))
}

#[cfg(test)]
mod tests;
