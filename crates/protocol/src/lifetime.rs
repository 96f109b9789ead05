//! How long a stream lives (PROTOCOL.md §5.1).
//!
//! **Error semantics.** [`LifetimeError`] says which header is wrong; both together are refused.
//!
//! **What stays out.** What counts as an access, and when an expired stream is erased.

use std::fmt;

use crate::decimal;
use crate::limits::TTL_SECONDS_MAX;
use crate::time::{UnixMillis, parse_rfc3339};

/// The lifetime of a stream as it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Unlimited,
    /// `Stream-TTL`: this many seconds after the last read or write.
    Ttl {
        /// 0 to [`TTL_SECONDS_MAX`].
        seconds: u64,
    },
    /// `Stream-Expires-At`: at this instant, however it is used.
    ExpiresAt {
        /// May lie in the past; the stream is then expired at once.
        at: UnixMillis,
    },
}

impl Lifetime {
    /// Reads the headers `Stream-TTL` and `Stream-Expires-At`.
    ///
    /// The TTL is decimal without sign or leading zeros; 0 is allowed. The timestamp is read by
    /// [`parse_rfc3339`].
    ///
    /// # Errors
    /// [`LifetimeError`], see its variants.
    pub fn from_headers(
        ttl: Option<&str>,
        expires_at: Option<&str>,
    ) -> Result<Lifetime, LifetimeError> {
        match (ttl, expires_at) {
            (None, None) => Ok(Lifetime::Unlimited),
            (Some(_), Some(_)) => Err(LifetimeError::Both),
            (Some(ttl), None) => decimal::parse(ttl, TTL_SECONDS_MAX)
                .map(|seconds| Lifetime::Ttl { seconds })
                .ok_or(LifetimeError::InvalidTtl),
            (None, Some(expires_at)) => parse_rfc3339(expires_at)
                .map(|at| Lifetime::ExpiresAt { at })
                .ok_or(LifetimeError::InvalidExpiresAt),
        }
    }

    /// When a stream last accessed at `last_access` expires: at that instant it is already gone.
    /// `None`: never.
    #[must_use]
    pub const fn deadline(self, last_access: UnixMillis) -> Option<UnixMillis> {
        match self {
            Lifetime::Unlimited => None,
            Lifetime::Ttl { seconds } => {
                Some(last_access.saturating_add_ms(seconds.saturating_mul(1000)))
            }
            Lifetime::ExpiresAt { at } => Some(at),
        }
    }
}

/// Why the lifetime headers of a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeError {
    /// `Stream-TTL` and `Stream-Expires-At` exclude each other.
    Both,
    /// `Stream-TTL` is no decimal integer up to [`TTL_SECONDS_MAX`].
    InvalidTtl,
    /// `Stream-Expires-At` is no RFC 3339 date-time from 1970 to 9999.
    InvalidExpiresAt,
}

impl fmt::Display for LifetimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both => f.write_str("stream-ttl and stream-expires-at exclude each other"),
            Self::InvalidTtl => {
                write!(f, "stream-ttl is not a decimal integer from 0 to {TTL_SECONDS_MAX}")
            }
            Self::InvalidExpiresAt => {
                f.write_str("stream-expires-at is not an RFC 3339 date-time from 1970 to 9999")
            }
        }
    }
}

impl std::error::Error for LifetimeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::format_rfc3339;
    use proptest::prelude::*;

    #[test]
    fn one_header_or_none() {
        assert_eq!(Lifetime::from_headers(None, None), Ok(Lifetime::Unlimited));
        assert_eq!(Lifetime::from_headers(Some("0"), None), Ok(Lifetime::Ttl { seconds: 0 }));
        assert_eq!(
            Lifetime::from_headers(None, Some("1970-01-01T00:00:01+00:00")),
            Ok(Lifetime::ExpiresAt { at: UnixMillis(1000) })
        );
        let both = Lifetime::from_headers(Some("junk"), Some("junk"));
        assert_eq!(both, Err(LifetimeError::Both));
    }

    #[test]
    fn refuses() {
        for ttl in ["", "abc", "-1", "00060", "+60", "60.5", "1e3", " 60", "100000000001"] {
            let read = Lifetime::from_headers(Some(ttl), None);
            assert_eq!(read, Err(LifetimeError::InvalidTtl), "{ttl:?}");
        }
        let read = Lifetime::from_headers(None, Some("not-a-timestamp"));
        assert_eq!(read, Err(LifetimeError::InvalidExpiresAt));
    }

    #[test]
    fn deadlines() {
        let at = UnixMillis(5);
        assert_eq!(Lifetime::Unlimited.deadline(at), None);
        assert_eq!(Lifetime::Ttl { seconds: 2 }.deadline(at), Some(UnixMillis(2005)));
        assert_eq!(Lifetime::ExpiresAt { at }.deadline(UnixMillis(9)), Some(at));
    }

    proptest! {
        #[test]
        fn round_trip(seconds in 0..=TTL_SECONDS_MAX, ms in 0..=UnixMillis::RFC3339_MAX.0) {
            let ttl = Lifetime::from_headers(Some(&seconds.to_string()), None);
            prop_assert_eq!(ttl, Ok(Lifetime::Ttl { seconds }));
            let at = UnixMillis(ms);
            let expires = Lifetime::from_headers(None, Some(&format_rfc3339(at)));
            prop_assert_eq!(expires, Ok(Lifetime::ExpiresAt { at }));
        }

        #[test]
        fn never_panics(ttl: Option<String>, expires_at: Option<String>) {
            let _ = Lifetime::from_headers(ttl.as_deref(), expires_at.as_deref());
        }
    }
}
