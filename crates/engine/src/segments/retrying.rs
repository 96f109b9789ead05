//! [`Retrying`]: a store that is asked again before anybody hears of a failure.
//!
//! Deleting is idempotent, so an unknown outcome may be tried again as well: the answer to the last
//! attempt is the answer, but a refusal after an unknown outcome proves nothing. A put is not tried
//! again: a first attempt that arrives late could bring back an object that was stored by the
//! second one, and deleted since. Whoever puts tries again with another name.

use std::future::Future;
use std::ops::Range;

use super::{Listed, Outcome, Segments, Stored, Unavailable};

/// Attempts in all.
const ATTEMPTS: u32 = 3;

/// Pause before the second attempt; it doubles.
const PAUSE_MS: u64 = 50;

/// How to wait.
pub trait Pause {
    /// Waits.
    fn pause(&self, ms: u64) -> impl Future<Output = ()>;
}

/// Asks again, twice.
#[derive(Debug)]
pub struct Retrying<S, P> {
    inner: S,
    pause: P,
}

impl<S, P: Pause> Retrying<S, P> {
    /// Decorates `inner`.
    pub fn new(inner: S, pause: P) -> Self {
        Self { inner, pause }
    }

    async fn change<F: Future<Output = Outcome>>(&self, mut attempt: impl FnMut() -> F) -> Outcome {
        let mut outcome = attempt().await;
        let mut unsure = false;
        for step in 1..ATTEMPTS {
            if outcome == Outcome::Done {
                break;
            }
            unsure |= matches!(outcome, Outcome::Unknown(_));
            self.pause.pause(PAUSE_MS << step).await;
            outcome = attempt().await;
        }
        match outcome {
            Outcome::Failed(words) if unsure => Outcome::Unknown(words),
            outcome => outcome,
        }
    }

    async fn question<T, F: Future<Output = Result<T, Unavailable>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Unavailable> {
        let mut answer = attempt().await;
        for step in 1..ATTEMPTS {
            if answer.is_ok() {
                break;
            }
            self.pause.pause(PAUSE_MS << step).await;
            answer = attempt().await;
        }
        answer
    }
}

impl<S: Segments, P: Pause> Segments for Retrying<S, P> {
    type Bytes = S::Bytes;

    async fn put(&self, name: &str, parts: Vec<S::Bytes>, stored: Stored) -> Outcome {
        self.inner.put(name, parts, stored).await
    }

    async fn head(&self, name: &str) -> Result<Option<Stored>, Unavailable> {
        self.question(|| self.inner.head(name)).await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Option<S::Bytes>, Unavailable> {
        self.question(|| self.inner.get(name, range.clone())).await
    }

    async fn delete(&self, names: &[String]) -> Outcome {
        self.change(|| self.inner.delete(names)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Listed>, Unavailable> {
        self.question(|| self.inner.list(prefix, after, limit)).await
    }
}
