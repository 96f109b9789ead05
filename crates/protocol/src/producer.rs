//! Idempotent producers as they appear in headers (PROTOCOL.md §5.2.1).
//!
//! Three headers come together or not at all; here they become one [`Producer`].
//!
//! **Error semantics.** [`ProducerHeaderError`] names the first header that is wrong. A missing
//! header beside a present one is reported before any syntax.
//!
//! **What stays out.** What an epoch or a sequence number means for a stream's state.

use std::fmt;

use crate::decimal;
use crate::headers::name;
use crate::limits::{PRODUCER_ID_BYTES_MAX, SAFE_INTEGER_MAX};

/// Who writes: 1 to [`PRODUCER_ID_BYTES_MAX`] visible ASCII characters (no spaces).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(Box<str>);

impl ProducerId {
    /// Reads a `Producer-Id` value.
    ///
    /// # Errors
    /// [`ProducerHeaderError::EmptyId`] or [`ProducerHeaderError::InvalidId`].
    pub fn parse(text: &str) -> Result<ProducerId, ProducerHeaderError> {
        if text.is_empty() {
            return Err(ProducerHeaderError::EmptyId);
        }
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > PRODUCER_ID_BYTES_MAX || !visible {
            return Err(ProducerHeaderError::InvalidId);
        }
        Ok(ProducerId(text.into()))
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which run of a producer; at most [`SAFE_INTEGER_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which request of a run, counted from 0; at most [`SAFE_INTEGER_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One request of one run of one producer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Producer {
    /// Who writes.
    pub id: ProducerId,
    /// Which run.
    pub epoch: Epoch,
    /// Which request of the run.
    pub seq: Seq,
}

impl Producer {
    /// Reads the headers `Producer-Id`, `Producer-Epoch` and `Producer-Seq`; `None` when all three
    /// are absent. Numbers are decimal without sign or leading zeros.
    ///
    /// # Errors
    /// [`ProducerHeaderError`], see its variants.
    pub fn from_headers(
        id: Option<&str>,
        epoch: Option<&str>,
        seq: Option<&str>,
    ) -> Result<Option<Producer>, ProducerHeaderError> {
        use ProducerHeaderError as Error;
        if id.is_none() && epoch.is_none() && seq.is_none() {
            return Ok(None);
        }
        let id = id.ok_or(Error::Missing(name::PRODUCER_ID))?;
        let epoch = epoch.ok_or(Error::Missing(name::PRODUCER_EPOCH))?;
        let seq = seq.ok_or(Error::Missing(name::PRODUCER_SEQ))?;
        Ok(Some(Producer {
            id: ProducerId::parse(id)?,
            epoch: Epoch(decimal::parse(epoch, SAFE_INTEGER_MAX).ok_or(Error::InvalidEpoch)?),
            seq: Seq(decimal::parse(seq, SAFE_INTEGER_MAX).ok_or(Error::InvalidSeq)?),
        }))
    }
}

/// Why the producer headers of a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerHeaderError {
    /// Some of the three headers are present, but not this one.
    Missing(&'static str),
    /// `Producer-Id` is empty.
    EmptyId,
    /// `Producer-Id` is too long or holds something other than visible ASCII.
    InvalidId,
    /// `Producer-Epoch` is no decimal integer up to [`SAFE_INTEGER_MAX`].
    InvalidEpoch,
    /// `Producer-Seq` is no decimal integer up to [`SAFE_INTEGER_MAX`].
    InvalidSeq,
}

impl fmt::Display for ProducerHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = "is not a decimal integer from 0 to 2^53-1";
        match self {
            Self::Missing(header) => {
                write!(f, "the producer headers come together, and {header} is missing")
            }
            Self::EmptyId => f.write_str("producer-id is empty"),
            Self::InvalidId => write!(
                f,
                "producer-id is not 1 to {PRODUCER_ID_BYTES_MAX} visible ASCII characters"
            ),
            Self::InvalidEpoch => write!(f, "producer-epoch {number}"),
            Self::InvalidSeq => write!(f, "producer-seq {number}"),
        }
    }
}

impl std::error::Error for ProducerHeaderError {}

#[cfg(test)]
mod tests {
    use super::*;
    use ProducerHeaderError as Error;
    use proptest::prelude::*;

    #[test]
    fn all_or_none() {
        assert_eq!(Producer::from_headers(None, None, None), Ok(None));
        let whole = Producer::from_headers(Some("p"), Some("0"), Some("7")).unwrap().unwrap();
        assert_eq!((whole.id.as_str(), whole.epoch, whole.seq), ("p", Epoch(0), Seq(7)));
        for (id, epoch, seq, missing) in [
            (Some("p"), None, None, "producer-epoch"),
            (Some("p"), Some("0"), None, "producer-seq"),
            (None, Some("0"), Some("0"), "producer-id"),
            (None, None, Some("0"), "producer-id"),
        ] {
            assert_eq!(Producer::from_headers(id, epoch, seq), Err(Error::Missing(missing)));
        }
    }

    #[test]
    fn refuses() {
        let long = "x".repeat(PRODUCER_ID_BYTES_MAX + 1);
        for (id, error) in [
            ("", Error::EmptyId),
            ("a b", Error::InvalidId),
            ("a\u{7f}", Error::InvalidId),
            ("é", Error::InvalidId),
            (&long, Error::InvalidId),
        ] {
            assert_eq!(
                Producer::from_headers(Some(id), Some("0"), Some("0")),
                Err(error),
                "{id:?}"
            );
        }
        for text in ["", "-1", "+1", "1abc", "0xyz", "1e3", "1.0", "01", "9007199254740992"] {
            let bad_epoch = Producer::from_headers(Some("p"), Some(text), Some("0"));
            assert_eq!(bad_epoch, Err(Error::InvalidEpoch), "{text:?}");
            let bad_seq = Producer::from_headers(Some("p"), Some("0"), Some(text));
            assert_eq!(bad_seq, Err(Error::InvalidSeq), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(
            id in "[!-~]{1,256}", epoch in 0..=SAFE_INTEGER_MAX, seq in 0..=SAFE_INTEGER_MAX,
        ) {
            let (epoch_text, seq_text) = (epoch.to_string(), seq.to_string());
            let producer = Producer::from_headers(Some(&id), Some(&epoch_text), Some(&seq_text));
            let producer = producer.unwrap().unwrap();
            prop_assert_eq!(producer.id.as_str(), &id);
            prop_assert_eq!((producer.epoch, producer.seq), (Epoch(epoch), Seq(seq)));
        }

        #[test]
        fn never_panics(id: Option<String>, epoch: Option<String>, seq: Option<String>) {
            let _ = Producer::from_headers(id.as_deref(), epoch.as_deref(), seq.as_deref());
        }
    }
}
