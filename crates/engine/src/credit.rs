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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paced_until_the_first_grant() {
        let mut credit = Credit::open(None);
        assert!((0..1000).all(|_| credit.take()));
        assert_eq!((credit.left(), credit.is_strict()), (None, false));
        assert_eq!(credit.grant(2), Ok(()));
        assert_eq!((credit.left(), credit.is_strict()), (Some(2), true));
        assert_eq!([credit.take(), credit.take(), credit.take()], [true, true, false]);
    }

    #[test]
    fn zero_is_strict() {
        let mut credit = Credit::open(Some(0));
        assert!(credit.is_strict() && !credit.take());
        let mut credit = Credit::open(None);
        assert_eq!(credit.grant(0), Ok(()));
        assert!(credit.is_strict() && !credit.take());
    }

    #[test]
    fn the_sum_has_an_end() {
        let mut credit = Credit::open(Some(SAFE_INTEGER_MAX));
        assert_eq!(credit.grant(0), Ok(()));
        assert_eq!(credit.grant(1), Err(CreditOverflow));
        assert_eq!(credit.grant(u64::MAX), Err(CreditOverflow));
        assert_eq!(credit.left(), Some(SAFE_INTEGER_MAX));
        assert!(credit.take());
        assert_eq!(credit.grant(1), Ok(()));
        let mut paced = Credit::open(None);
        assert_eq!(paced.grant(SAFE_INTEGER_MAX + 1), Err(CreditOverflow));
        assert_eq!(paced, Credit::Paced);
        assert_eq!(Credit::open(Some(u64::MAX)).left(), Some(SAFE_INTEGER_MAX));
    }

    proptest! {
        #[test]
        fn never_more_frames_than_granted(
            opened in 0..20_u64, steps in prop::collection::vec(prop::option::of(0..9_u64), 0..200),
        ) {
            let mut credit = Credit::open(Some(opened));
            let (mut granted, mut sent) = (opened, 0);
            for step in steps {
                match step {
                    Some(n) => {
                        prop_assert_eq!(credit.grant(n), Ok(()));
                        granted += n;
                    }
                    None => {
                        let took = credit.take();
                        prop_assert_eq!(took, sent < granted);
                        sent += u64::from(took);
                    }
                }
                prop_assert_eq!(credit.left(), Some(granted - sent));
            }
        }
    }
}
