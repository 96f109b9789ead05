//! [`Faulty`]: a store that fails on command.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::{Listed, Outcome, Segments, Stored, Unavailable};
use crate::log::Blob;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// A change fails, and nothing happens; a question is not answered.
    Refused,
    /// A change does not happen, and nobody can tell.
    Lost,
    /// A change happens, and nobody can tell.
    AnswerLost,
    /// A range comes back without its last byte.
    Short,
    /// A range comes back with one bit flipped.
    Corrupted,
}

/// Who says what goes wrong with the next call.
pub trait Faults {
    /// The fault of the next call.
    fn next(&self) -> Fault;
}

/// Faults in a row, then none.
impl Faults for RefCell<Vec<Fault>> {
    fn next(&self) -> Fault {
        let mut faults = self.borrow_mut();
        if faults.is_empty() { Fault::None } else { faults.remove(0) }
    }
}

/// The same fault until it is changed.
impl Faults for Cell<Fault> {
    fn next(&self) -> Fault {
        self.get()
    }
}

/// Fails on command.
#[derive(Debug)]
pub struct Faulty<S, F> {
    inner: S,
    faults: F,
}

impl<S, F> Faulty<S, F> {
    /// Decorates `inner`.
    pub fn new(inner: S, faults: F) -> Self {
        Self { inner, faults }
    }

    /// What says what goes wrong.
    pub fn faults(&self) -> &F {
        &self.faults
    }
}

const WORDS: &str = "injected";

impl<S: Segments, F: Faults> Faulty<S, F> {
    /// Lets a change happen, or not.
    async fn change(&self, change: impl Future<Output = Outcome>) -> Outcome {
        match self.faults.next() {
            Fault::Refused => Outcome::Failed(WORDS.into()),
            Fault::Lost => Outcome::Unknown(WORDS.into()),
            Fault::AnswerLost => {
                change.await;
                Outcome::Unknown(WORDS.into())
            }
            Fault::None | Fault::Short | Fault::Corrupted => change.await,
        }
    }

    fn asked(&self) -> Result<Fault, Unavailable> {
        match self.faults.next() {
            Fault::Refused | Fault::Lost | Fault::AnswerLost => Err(Unavailable(WORDS.into())),
            fault => Ok(fault),
        }
    }
}

impl<S: Segments, F: Faults> Segments for Faulty<S, F> {
    type Bytes = S::Bytes;

    async fn put(&self, name: &str, parts: Vec<S::Bytes>, stored: Stored) -> Outcome {
        self.change(self.inner.put(name, parts, stored)).await
    }

    async fn head(&self, name: &str) -> Result<Option<Stored>, Unavailable> {
        self.asked()?;
        self.inner.head(name).await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Option<S::Bytes>, Unavailable> {
        let fault = self.asked()?;
        let Some(bytes) = self.inner.get(name, range).await? else { return Ok(None) };
        Ok(Some(match fault {
            Fault::Short => bytes.slice(0..bytes.len().saturating_sub(1)),
            Fault::Corrupted => {
                let mut bytes = bytes.to_vec();
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
                S::Bytes::from_vec(bytes)
            }
            _ => bytes,
        }))
    }

    async fn delete(&self, names: &[String]) -> Outcome {
        self.change(self.inner.delete(names)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Listed>, Unavailable> {
        self.asked()?;
        self.inner.list(prefix, after, limit).await
    }
}
