//! What the session knows of a subscription, for operators.

use protocol::fanout::{Known, Knows};

use super::Session;
use crate::fanout::ledger::{Ledger, Step, SubscriptionRow};
use crate::log::LogError;

impl<L: Ledger> Session<L> {
    /// What there is of a subscription here, in the life of the session that is asked for, or else the
    /// most that any life has of it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn knows(&mut self, question: &Knows) -> Result<Known, LogError> {
        self.settle()?;
        let Knows { source, generation, epoch } = question;
        let rows = self.subscriptions.values().filter(|row| {
            row.source == *source && generation.is_none_or(|asked| asked == row.generation)
        });
        let known = |row: &SubscriptionRow| match row.step {
            Step::Leaving(last) if *epoch <= last => Known::Leaving,
            Step::Joining(joining) if *epoch == joining => Known::Joining,
            _ if row.live == Some(*epoch) => Known::Live,
            // Whoever removes a subscription removes all earlier ones.
            _ if row.epochs().any(|newer| newer > *epoch) => Known::Leaving,
            _ => Known::Unknown,
        };
        let mut most = Known::Unknown;
        for row in rows {
            most = match (most, known(row)) {
                (Known::Unknown, one) | (one, Known::Unknown) => one,
                (Known::Leaving, one) => one,
                (one, _) => one,
            };
        }
        Ok(most)
    }
}
