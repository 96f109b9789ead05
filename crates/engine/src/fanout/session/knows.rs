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
            Step::Undoing(last) if *epoch <= last => Known::Leaving,
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

#[cfg(test)]
mod tests {
    use protocol::fanout::SubscriptionEpoch;
    use protocol::offset::Generation;
    use protocol::time::UnixMillis;

    use super::*;
    use crate::fanout::ledger::LedgerWrite;
    use crate::fanout::ledger::memory::MemoryLedger;
    use crate::fanout::session::SessionBounds;

    fn session(rows: &[(u64, Option<u64>, Step)]) -> Session<MemoryLedger> {
        let mut ledger = MemoryLedger::default();
        for (generation, live, step) in rows {
            let row = SubscriptionRow {
                generation: Generation(*generation),
                source: "p/a".into(),
                live: live.map(SubscriptionEpoch),
                step: *step,
                begun: None,
                attempts: 0,
                due: None,
            };
            ledger.commit(vec![LedgerWrite::Subscription(row)]).unwrap();
        }
        let bounds =
            SessionBounds { ttl_seconds: 1, subscriptions_max: 1, concurrency: 1, deadline_ms: 1 };
        Session::open(ledger, bounds, UnixMillis(0)).unwrap()
    }

    fn known(
        rows: &[(u64, Option<u64>, Step)],
        generation: Option<u64>,
        epochs: [u64; 5],
    ) -> [Known; 5] {
        let mut session = session(rows);
        epochs.map(|epoch| {
            let (source, generation) = ("p/a".to_owned(), generation.map(Generation));
            let epoch = SubscriptionEpoch(epoch);
            session.knows(&Knows { source, generation, epoch }).unwrap()
        })
    }

    #[test]
    fn a_row_answers_for_its_epochs_and_all_before() {
        use Known::{Joining, Leaving, Live, Unknown};
        let epochs = [1, 4, 6, 9, 10];
        let all = |row| known(&[row], Some(3), epochs);
        let step = |epoch| Step::Joining(SubscriptionEpoch(epoch));
        let leaving = Step::Leaving(SubscriptionEpoch(9));
        assert_eq!(all((3, Some(4), Step::Settled)), [Leaving, Live, Unknown, Unknown, Unknown]);
        assert_eq!(all((3, Some(4), step(9))), [Leaving, Live, Leaving, Joining, Unknown]);
        assert_eq!(all((3, None, step(9))), [Leaving, Leaving, Leaving, Joining, Unknown]);
        assert_eq!(all((3, Some(4), leaving)), [Leaving, Leaving, Leaving, Leaving, Unknown]);
        assert_eq!(all((2, Some(4), Step::Settled)), [Unknown; 5]);
    }

    #[test]
    fn of_several_lives_the_most_counts() {
        let leaving = Step::Leaving(SubscriptionEpoch(6));
        let rows = [(2, Some(1), leaving), (3, Some(9), Step::Settled)];
        let known = known(&rows, None, [1, 4, 6, 9, 10]);
        use Known::{Leaving, Live, Unknown};
        assert_eq!(known, [Leaving, Leaving, Leaving, Live, Unknown]);
    }

    #[test]
    fn other_sources_do_not_count() {
        let mut session = session(&[(3, Some(4), Step::Settled)]);
        let (source, epoch) = ("p/b".to_owned(), SubscriptionEpoch(4));
        let known = session.knows(&Knows { source, generation: None, epoch });
        assert_eq!(known, Ok(Known::Unknown));
    }
}
