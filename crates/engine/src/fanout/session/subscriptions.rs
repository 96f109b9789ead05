//! Subscriptions of a session: how they begin and end.
//!
//! ```text
//!         begin_joins           joined
//! (none) ───────────► Joining ─────────► Settled ──begin_leaving──► Leaving ──► (none)
//!                        │ ▲                │ ▲
//!       nobody knows, or │ └── begin_joins ─┘ │ the live one stays
//!       refused          └──► Undoing ────────┘      (none, if none was live)
//! ```
//!
//! `begin_joins` takes over from Undoing and Leaving as well, with what they were about.

use protocol::fanout::{SubscriptionEpoch, Wish};
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::{Joining, Leaving, Session, leaving_of};
use crate::fanout::ledger::{Begun, Ledger, LedgerWrite, SessionRow, Step, SubscriptionRow};
use crate::fanout::pause_ms;
use crate::log::LogError;

impl<L: Ledger> Session<L> {
    /// Notes subscriptions that are about to be made, each with an epoch of its own. `None` for one that
    /// the session has no room for. One that has been tried before, to begin at the same place, goes on
    /// where that attempt is, if anything came of it: no message is there twice because of a repetition.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_joins(
        &mut self,
        wishes: &[Wish],
        now: UnixMillis,
    ) -> Result<Vec<Option<Joining>>, LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(vec![None; wishes.len()]) };
        let generation = row.generation;
        let first = (generation, String::new());
        let rows = self.subscriptions.range(first..);
        let mut count = rows.take_while(|((of, _), _)| *of == generation).count() as u64;
        let mut epoch = row.epoch;
        let mut writes = Vec::new();
        let mut joinings = Vec::with_capacity(wishes.len());
        for Wish { source, from } in wishes {
            let key = (generation, source.clone());
            let before = self.subscriptions.get(&key);
            if before.is_none() && count >= self.bounds.subscriptions_max {
                joinings.push(None);
                continue;
            }
            count += u64::from(before.is_none());
            epoch = SubscriptionEpoch(epoch.0.saturating_add(1).max(now.0));
            let is_leaving = before.is_some_and(|row| matches!(row.step, Step::Leaving(_)));
            let known = before.and_then(|row| row.live).filter(|_| !is_leaving);
            let is_repeated = before.is_some_and(|row| row.step != Step::Settled);
            let begun = before.and_then(|row| row.begun.as_ref());
            let is_joining = before.is_some_and(|row| matches!(row.step, Step::Joining(_)));
            let same = begun.filter(|begun| is_joining && begun.from == *from);
            let first = same.map_or(epoch, |same| same.first);
            // What is being removed is to be removed whatever comes of this.
            let none = if is_leaving { SubscriptionEpoch(0) } else { epoch };
            let since = begun.map_or(none, |begun| begun.since);
            let row = SubscriptionRow {
                generation,
                source: source.clone(),
                live: known,
                step: Step::Joining(epoch),
                begun: Some(Begun { since, first, from: from.clone() }),
                attempts: 0,
                due: Some(self.patience(now)),
            };
            writes.push(LedgerWrite::Subscription(row.clone()));
            self.subscriptions.insert(key, row);
            let source = source.clone();
            joinings.push(Some(Joining {
                generation,
                source,
                epoch,
                since,
                first,
                known,
                is_repeated,
            }));
        }
        self.row = Some(SessionRow { epoch, ..row });
        self.commit(writes, now)?;
        Ok(joinings)
    }

    /// Subscriptions are live, with the epochs that their sources say. Of each, whether the session
    /// keeps it: another request may have begun something newer meanwhile, which decides.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn joined(
        &mut self,
        joined: &[(Joining, SubscriptionEpoch)],
        now: UnixMillis,
    ) -> Result<Vec<bool>, LogError> {
        // What was live before may have ended meanwhile; it does not come back.
        let settled = |row: &SubscriptionRow, epoch| SubscriptionRow {
            live: if row.step == Step::Joining(epoch) { Some(epoch) } else { row.live },
            step: Step::Settled,
            begun: None,
            attempts: 0,
            due: None,
            ..row.clone()
        };
        self.settle_joins(joined.iter().map(|(joining, epoch)| (joining, *epoch)), settled, now)?;
        let is_kept = |(joining, epoch): &(Joining, SubscriptionEpoch)| {
            let row = self.subscription(joining.generation, &joining.source);
            row.is_some_and(|row| row.live == Some(*epoch) && !matches!(row.step, Step::Leaving(_)))
        };
        Ok(joined.iter().map(is_kept).collect())
    }

    /// Subscriptions were refused: what there was before is what there is. Another join that was under
    /// way before is undone by the alarm.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn refused(&mut self, refused: &[Joining], now: UnixMillis) -> Result<(), LogError> {
        let settled = |row: &SubscriptionRow, _| SubscriptionRow {
            step: Step::Settled,
            begun: None,
            attempts: 0,
            due: None,
            ..row.clone()
        };
        let is_doubtful = |joining: &&Joining| joining.is_repeated;
        let (doubtful, plain): (Vec<_>, Vec<_>) = refused.iter().partition(is_doubtful);
        let epoch_of = |joining: &'_ Joining| joining.epoch;
        self.settle_joins(plain.into_iter().map(|of| (of, epoch_of(of))), settled, now)?;
        let mut writes = Vec::new();
        for joining in doubtful {
            let key = (joining.generation, joining.source.clone());
            let Some(row) = self.subscriptions.get_mut(&key) else { continue };
            if row.step == Step::Joining(joining.epoch) {
                row.step = Step::Undoing(joining.epoch);
                row.due = Some(now);
                writes.push(LedgerWrite::Subscription(row.clone()));
            }
        }
        self.commit(writes, now)
    }

    fn settle_joins<'a>(
        &mut self,
        joinings: impl Iterator<Item = (&'a Joining, SubscriptionEpoch)>,
        settled: impl Fn(&SubscriptionRow, SubscriptionEpoch) -> SubscriptionRow,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let mut writes = Vec::new();
        for (joining, epoch) in joinings {
            let key = (joining.generation, joining.source.clone());
            let Some(row) = self.subscriptions.get(&key) else { continue };
            if row.step != Step::Joining(joining.epoch) {
                continue;
            }
            let row = settled(row, epoch);
            if row.live.is_some() {
                writes.push(LedgerWrite::Subscription(row.clone()));
                self.subscriptions.insert(key, row);
            } else {
                self.subscriptions.remove(&key);
                let (generation, source) = key;
                writes.push(LedgerWrite::DropSubscription { generation, source });
            }
        }
        self.commit(writes, now)
    }

    /// Notes that a subscription is to be removed. `None`: there is none.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_leaving(
        &mut self,
        source: &str,
        now: UnixMillis,
    ) -> Result<Option<Leaving>, LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(None) };
        let key = (row.generation, source.to_owned());
        let Some(before) = self.subscriptions.get(&key) else { return Ok(None) };
        let epoch = SubscriptionEpoch(row.epoch.0.saturating_add(1).max(now.0));
        let subscription = SubscriptionRow {
            step: Step::Leaving(epoch),
            begun: None,
            attempts: 0,
            due: Some(self.patience(now)),
            ..before.clone()
        };
        let row = SessionRow { epoch, ..row };
        let writes = vec![LedgerWrite::Subscription(subscription.clone())];
        let leaving = leaving_of(&subscription, &row);
        self.subscriptions.insert(key, subscription);
        self.row = Some(row);
        self.commit(writes, now)?;
        Ok(leaving)
    }

    /// An epoch above all that there have been, for a session that is there.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn mint(&mut self, now: UnixMillis) -> Result<SubscriptionEpoch, LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(SubscriptionEpoch(now.0)) };
        let epoch = SubscriptionEpoch(row.epoch.0.saturating_add(1).max(now.0));
        self.store(SessionRow { epoch, ..row }, now)?;
        Ok(epoch)
    }

    /// A subscription was removed everywhere, or somebody did not answer.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn end_leaving(
        &mut self,
        leaving: &Leaving,
        is_removed: bool,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let key = (leaving.generation, leaving.source.clone());
        let Some(row) = self.subscriptions.get_mut(&key) else { return Ok(()) };
        if ![Step::Leaving(leaving.last), Step::Undoing(leaving.last)].contains(&row.step) {
            return Ok(());
        }
        if is_removed && row.live.is_some() && matches!(row.step, Step::Undoing(_)) {
            (row.step, row.begun, row.attempts, row.due) = (Step::Settled, None, 0, None);
            let row = row.clone();
            return self.commit(vec![LedgerWrite::Subscription(row)], now);
        }
        if is_removed {
            self.subscriptions.remove(&key);
            let (generation, source) = key;
            return self.commit(vec![LedgerWrite::DropSubscription { generation, source }], now);
        }
        row.attempts = row.attempts.saturating_add(1);
        row.due = Some(now.saturating_add_ms(pause_ms(row.attempts)));
        let row = row.clone();
        self.commit(vec![LedgerWrite::Subscription(row)], now)
    }

    /// A source has ended, and with it this subscription; another one that the session has by now stays.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn has_ended(
        &mut self,
        generation: Generation,
        source: &str,
        epoch: SubscriptionEpoch,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let key = (generation, source.to_owned());
        let Some(row) = self.subscriptions.get_mut(&key) else { return Ok(()) };
        if row.step == Step::Joining(epoch) {
            // It has ended before the session has heard that it was made.
            row.step = Step::Settled;
            row.begun = None;
            row.due = None;
            row.live = row.live.or(Some(epoch));
        }
        if row.live != Some(epoch) {
            let row = row.clone();
            return self.commit(vec![LedgerWrite::Subscription(row)], now);
        }
        match row.step {
            Step::Settled => {
                self.subscriptions.remove(&key);
                let (generation, source) = key;
                self.commit(vec![LedgerWrite::DropSubscription { generation, source }], now)
            }
            // What is under way goes on, and does not fall back to what has ended.
            Step::Joining(_) | Step::Leaving(_) | Step::Undoing(_) => {
                row.live = None;
                let row = row.clone();
                self.commit(vec![LedgerWrite::Subscription(row)], now)
            }
        }
    }
}
