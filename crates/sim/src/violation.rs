//! What the oracle can find wrong.

use std::fmt;

/// The property that was broken. Numbers are those of the engine's crate documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// 1: acknowledged bytes are readable until the stream is deleted or expires.
    AckedReadable,
    /// 2: bytes at an offset never change, and no offset is shared by two lives.
    OffsetsStable,
    /// 3: the tail never goes back; what the engine says of it is true.
    Tail,
    /// 4: extents tile the log.
    Tiling,
    /// 5: a producer's tuple is appended at most once.
    ProducerOnce,
    /// An answer other than the protocol's, as the naive model has it.
    Answer,
    /// A request failed although nothing was injected.
    SpuriousFailure,
    /// A refused or failed request left a trace, or rows of a dead life are left.
    Residue,
    /// A stream ended before its time, or outlived it.
    Lifetime,
    /// An object of the store that nobody will ever delete, or a name that was used twice.
    Garbage,
    /// An object that is needed is gone, or damaged bytes were taken for true ones.
    Shared,
    /// A fork differs from its source's prefix, or a relation between the two is wrong.
    Fork,
    /// A reader was not told of an append, or told twice.
    Wake,
    /// A live client was shown something else than the log from its offset on.
    Delivered,
    /// More was sent than was granted.
    Credit,
    /// A duty that nobody will see to.
    Duty,
    /// More was read than the contract allows.
    Bounded,
    /// Once faults stopped, something never settled.
    Liveness,
}

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// What was expected and what was found.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.detail)
    }
}

/// The outcome of a check.
pub type Check<T = ()> = Result<T, Violation>;

/// Returns a [`Violation`] from the enclosing function unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $invariant:ident, $($detail:tt)+) => {
        if !$condition {
            return Err($crate::violation::Violation {
                invariant: $crate::violation::Invariant::$invariant,
                detail: format!($($detail)+),
            });
        }
    };
}
pub(crate) use ensure;
