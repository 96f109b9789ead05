//! How many data frames a WebSocket client may still get.

use std::fmt;

use protocol::limits::SAFE_INTEGER_MAX;

/// The credit of one client. It never turns from strict to paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// The client has granted nothing yet: its send buffer sets the pace.
    Paced,
    /// The client counts.
    Strict {
        /// Data frames that may be sent; at most [`SAFE_INTEGER_MAX`].
        left: u64,
    },
}

impl Credit {
    /// The credit of a new socket: strict from the start when the client opened it with some, also
    /// with 0. More than [`SAFE_INTEGER_MAX`] counts as that.
    #[must_use]
    pub fn open(granted: Option<u64>) -> Credit {
        match granted {
            None => Credit::Paced,
            Some(granted) => Credit::Strict { left: granted.min(SAFE_INTEGER_MAX) },
        }
    }

    /// Allows `n` more data frames. The first grant of a paced client makes it strict.
    ///
    /// # Errors
    /// [`CreditOverflow`] when the sum passes [`SAFE_INTEGER_MAX`]; the credit stays as it is.
    pub fn grant(&mut self, n: u64) -> Result<(), CreditOverflow> {
        let left = self.left().unwrap_or(0);
        let sum = left.checked_add(n).filter(|sum| *sum <= SAFE_INTEGER_MAX);
        *self = Credit::Strict { left: sum.ok_or(CreditOverflow)? };
        Ok(())
    }

    /// Uses credit for one data frame; `false` when there is none, and the frame has to wait.
    pub fn take(&mut self) -> bool {
        match self {
            Credit::Paced => true,
            Credit::Strict { left: 0 } => false,
            Credit::Strict { left } => {
                *left -= 1;
                true
            }
        }
    }

    /// Data frames that may be sent; `None` when nobody counts.
    #[must_use]
    pub const fn left(&self) -> Option<u64> {
        match self {
            Credit::Paced => None,
            Credit::Strict { left } => Some(*left),
        }
    }

    /// Whether the client counts.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        matches!(self, Credit::Strict { .. })
    }
}

/// The sum of a client's credit passes [`SAFE_INTEGER_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditOverflow;

impl fmt::Display for CreditOverflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sum of the credit passes 2^53-1")
    }
}

impl std::error::Error for CreditOverflow {}
