//! [`Deliver`] as the query of a URL.
//!
//! It is sent once for each session that gets a range, and a URL's length is paid for at both ends: so numbers
//! with `-` between them, and last, because it may hold one, the source's name, percent-encoded.

use std::fmt::Write;

use super::{Deliver, SourceLife, SubscriptionEpoch};
use crate::offset::{Generation, Position};
use crate::percent::{decode_value, encode_value};

impl Deliver {
    /// The message as a query, without `?`.
    ///
    /// ```
    /// use protocol::fanout::{Deliver, SourceLife, SubscriptionEpoch};
    /// use protocol::offset::{Generation, Position};
    ///
    /// let message = Deliver {
    ///     session: Generation(9),
    ///     link: SourceLife { source: "p/a b".to_owned(), generation: Generation(7) },
    ///     epoch: SubscriptionEpoch(8),
    ///     from: Position(0),
    ///     to: Position(5),
    ///     offsets: Generation(7),
    ///     is_gap: false,
    /// };
    /// assert_eq!(message.to_query(), "9-7-8-0-5-7-0-p/a%20b");
    /// assert_eq!(Deliver::from_query(&message.to_query()), Some(message));
    /// ```
    #[must_use]
    pub fn to_query(&self) -> String {
        let Self { session, link, epoch, from, to, offsets, is_gap } = self;
        let (life, gap) = (link.generation.0, u8::from(*is_gap));
        let mut query = String::with_capacity(96 + link.source.len());
        // Writing to a string does not fail.
        let _ = write!(
            query,
            "{}-{life}-{}-{}-{}-{}-{gap}-{}",
            session.0,
            epoch.0,
            from.0,
            to.0,
            offsets.0,
            encode_value(&link.source)
        );
        query
    }

    /// The message that a query carries; `None` if it carries none.
    #[must_use]
    pub fn from_query(query: &str) -> Option<Self> {
        let mut parts = query.splitn(8, '-');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let session = Generation(number()?);
        let generation = Generation(number()?);
        let epoch = SubscriptionEpoch(number()?);
        let (from, to) = (Position(number()?), Position(number()?));
        let offsets = Generation(number()?);
        let is_gap = match number()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let source = decode_value(parts.next()?)?;
        let link = SourceLife { source, generation };
        Some(Self { session, link, epoch, from, to, offsets, is_gap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn queries_come_back(
            numbers in proptest::array::uniform6(any::<u64>()),
            source in ".*",
            is_gap in any::<bool>(),
        ) {
            let [session, generation, epoch, from, to, offsets] = numbers;
            let message = Deliver {
                session: Generation(session),
                link: SourceLife { source, generation: Generation(generation) },
                epoch: SubscriptionEpoch(epoch),
                from: Position(from),
                to: Position(to),
                offsets: Generation(offsets),
                is_gap,
            };
            let query = message.to_query();
            // Nothing that a parser of URLs would change, or end the query at.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:%".contains(&byte);
            prop_assert!(query.bytes().all(is_plain));
            prop_assert_eq!(Deliver::from_query(&query), Some(message));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = Deliver::from_query(&text);
        }
    }

    #[test]
    fn what_is_no_delivery_is_refused() {
        for bad in ["", "1-2-3-4-5-6-0", "1-2-3-4-5-6-2-p", "1-2-3-4-5-x-0-p", "1-2-3-4-5-6-0-%"] {
            assert_eq!(Deliver::from_query(bad), None, "{bad}");
        }
    }
}
