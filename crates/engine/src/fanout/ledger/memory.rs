//! A [`Ledger`] in memory: the naive implementation that the other is compared with.
//!
//! Cloning it is a snapshot, which is how the simulator takes a crash. Its commits never fail.

use std::collections::BTreeMap;

use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::{Ledger, LedgerWrite, SessionRow, SubscriptionRow};
use crate::log::LogError;

/// Rows by their keys, as the tables of `docs/data-layout.md`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryLedger {
    session: Option<SessionRow>,
    subscriptions: BTreeMap<(Generation, String), SubscriptionRow>,
    /// When the alarm goes off: as it was set last. Who plays the platform takes it.
    pub alarm: Option<UnixMillis>,
}

impl Ledger for MemoryLedger {
    fn commit(&mut self, writes: Vec<LedgerWrite>) -> Result<(), LogError> {
        for write in writes {
            match write {
                LedgerWrite::Session(row) => self.session = Some(row),
                LedgerWrite::Subscription(row) => {
                    self.subscriptions.insert((row.generation, row.source.clone()), row);
                }
                LedgerWrite::DropSubscription { generation, source } => {
                    self.subscriptions.remove(&(generation, source));
                }
                LedgerWrite::Alarm(at) => self.alarm = Some(at),
            }
        }
        Ok(())
    }

    fn session(&self) -> Result<Option<SessionRow>, LogError> {
        Ok(self.session.clone())
    }

    fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, LogError> {
        Ok(self.subscriptions.values().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        super::super::suite::run(MemoryLedger::default);
    }

    #[test]
    fn a_clone_is_a_snapshot_and_has_the_alarm() {
        let mut ledger = MemoryLedger::default();
        ledger.commit(vec![LedgerWrite::Alarm(UnixMillis(7))]).unwrap();
        let crashed = ledger.clone();
        ledger.commit(vec![LedgerWrite::Alarm(UnixMillis(5))]).unwrap();
        assert_eq!((crashed.alarm, ledger.alarm), (Some(UnixMillis(7)), Some(UnixMillis(5))));
    }
}
