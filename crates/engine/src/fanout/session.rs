//! [`Session`]: what a session's object knows and decides.
//!
//! It orders what happens to the session: it mints the epochs, one larger than the other, by which everybody
//! else tells old from new. A subscription is noted here before anybody else hears of it, so that none
//! can be forgotten: what is under way when memory is lost is gone on with when it is asked for again, or undone
//! by the alarm.
//!
//! The session lives as long as its stream, whose end the stream alone knows; the alarm asks it when it
//! should be over.
//!
//! # Invariants
//! - Whatever subscription any other object may have of this session stands in a row here, until that
//!   object has confirmed that it has it no more, or the session's stream that it takes nothing of it.
//! - Rows of an earlier life of the session are only ever removed.
//!
//! # Error semantics
//! [`LogError`]: nothing was stored, and memory is loaded again before the next step.

mod knows;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use protocol::fanout::{PutSession, SubscriptionEpoch};
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::ledger::{Ledger, LedgerWrite, Phase, SessionRow, Step, SubscriptionRow};
use super::pause_ms;
use crate::log::LogError;

/// How long something may be overdue before a fresh instance doubts that the alarm is set.
const OVERDUE_MS: u64 = 60_000;
/// When the alarm looks after something that a request has begun, at least.
const PATIENCE_MS: u64 = 30_000;
/// Questions that a request asks one after another for what it has begun, and one more.
const QUESTIONS: u64 = 5;
/// An alarm that goes off so much too early is set anew: the object would be woken for nothing.
const IDLE_MS: u64 = 60_000;
/// How long after its end a session's stream is asked whether that has come.
const EXPIRY_SLACK_MS: u64 = 1_000;

/// What the deployment gives a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionBounds {
    /// Lifetime of a session whose creator named none.
    pub ttl_seconds: u64,
    /// Most subscriptions.
    pub subscriptions_max: u64,
    /// Questions to others under way at a time.
    pub concurrency: u64,
    /// How long a question may take.
    pub deadline_ms: u64,
}

/// A session's object. See the module's documentation.
pub struct Session<L> {
    ledger: L,
    bounds: SessionBounds,
    row: Option<SessionRow>,
    subscriptions: BTreeMap<(Generation, String), SubscriptionRow>,
    /// When the alarm goes off, as far as this instance knows.
    alarm: Option<UnixMillis>,
    /// Memory does not match the rows: a commit failed.
    stale: bool,
}

/// A subscription that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Generation of the session.
    pub generation: Generation,
    /// Object name of the source.
    pub source: String,
    /// The epoch that it will have.
    pub epoch: SubscriptionEpoch,
    /// The first attempt of which nobody knows what came, and the first that began at the same place: see
    /// [`Begun`](super::ledger::Begun).
    pub since: SubscriptionEpoch,
    /// See `since`.
    pub first: SubscriptionEpoch,
    /// The epoch that is live already.
    pub known: Option<SubscriptionEpoch>,
    /// Whether another join, or a removal, was begun before, and it is not known what came of it.
    pub is_repeated: bool,
}

impl Joining {
    /// The removal of this attempt and none before, if it is not after `last`; nothing up to `last` is
    /// made any more.
    pub(super) fn up_to(&self, last: SubscriptionEpoch) -> Leaving {
        let Self { generation, source, epoch, .. } = self;
        let (generation, source) = (*generation, source.clone());
        Leaving { generation, source, first: *epoch, last, has_stream: true }
    }

    /// The removal of every attempt that may have had an effect, up to `last`.
    pub(super) fn since(&self, last: SubscriptionEpoch) -> Leaving {
        Leaving { first: self.since, ..self.up_to(last) }
    }
}

/// A subscription that is being removed: every epoch from `first` to `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Generation of the session.
    pub generation: Generation,
    /// Object name of the source.
    pub source: String,
    /// First epoch that ends.
    pub first: SubscriptionEpoch,
    /// Last epoch that ends.
    pub last: SubscriptionEpoch,
    /// Whether the session has a stream at which it is to be detached first.
    pub has_stream: bool,
}

/// What the alarm has to see to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// The session itself: see its phase.
    pub session: Option<SessionRow>,
    /// Subscriptions to be removed.
    pub leaving: Vec<Leaving>,
}

impl<L: Ledger> Session<L> {
    /// Loads a session from its rows.
    ///
    /// # Errors
    /// [`LogError`] when the storage does not answer or a row does not decode.
    pub fn open(ledger: L, bounds: SessionBounds, now: UnixMillis) -> Result<Self, LogError> {
        let mut session = Self {
            ledger,
            bounds,
            row: None,
            subscriptions: BTreeMap::new(),
            alarm: None,
            stale: true,
        };
        session.settle()?;
        // The alarm was set with the rows. The platform gives an alarm up after some failures.
        let is_overdue = |due: &UnixMillis| due.saturating_add_ms(OVERDUE_MS) < now;
        session.alarm = session.due().filter(|due| !is_overdue(due));
        if session.alarm.is_none() {
            session.commit(Vec::new(), now)?;
        }
        Ok(session)
    }

    /// The storage below.
    pub fn ledger(&self) -> &L {
        &self.ledger
    }

    /// Gives the storage back.
    pub fn into_ledger(self) -> L {
        self.ledger
    }

    /// What the deployment gives it.
    pub fn bounds(&self) -> SessionBounds {
        self.bounds
    }

    /// When the alarm looks after something that a request begins now: longer than the request takes.
    fn patience(&self, now: UnixMillis) -> UnixMillis {
        now.saturating_add_ms(PATIENCE_MS.max(self.bounds.deadline_ms.saturating_mul(QUESTIONS)))
    }

    /// Makes memory match the rows.
    fn settle(&mut self) -> Result<(), LogError> {
        if !self.stale {
            return Ok(());
        }
        let rows = self.ledger.subscriptions()?;
        self.row = self.ledger.session()?.map(|row| {
            // Epochs are written down with the subscriptions that have them.
            let epochs = rows.iter().flat_map(SubscriptionRow::epochs);
            SessionRow { epoch: epochs.fold(row.epoch, Ord::max), ..row }
        });
        self.subscriptions =
            rows.into_iter().map(|row| ((row.generation, row.source.clone()), row)).collect();
        self.stale = false;
        self.alarm = None;
        Ok(())
    }

    /// The session as it stands; `None` before the first.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn row(&mut self) -> Result<Option<SessionRow>, LogError> {
        self.settle()?;
        Ok(self.row.clone())
    }

    /// Object names of the sources that the session of this generation is subscribed to.
    pub fn sources(&self, generation: Generation) -> Vec<String> {
        let first = (generation, String::new());
        let rows = self.subscriptions.range(first..);
        let rows = rows.take_while(|((of, _), _)| *of == generation);
        rows.filter(|(_, row)| row.live.is_some() && !matches!(row.step, Step::Leaving(_)))
            .map(|((_, source), _)| source.clone())
            .collect()
    }

    /// Whether the session of now has no subscription, nor one that is being made.
    pub fn has_no_subscription(&self) -> bool {
        let Some(session) = &self.row else { return true };
        !self.subscriptions.keys().any(|(generation, _)| *generation == session.generation)
    }

    /// The row of a subscription.
    pub fn subscription(&self, generation: Generation, source: &str) -> Option<&SubscriptionRow> {
        self.subscriptions.get(&(generation, source.to_owned()))
    }

    /// Notes what the session's stream will be, before it is asked for.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_creation(
        &mut self,
        wish: &PutSession,
        content_type: String,
        now: UnixMillis,
    ) -> Result<SessionRow, LogError> {
        self.settle()?;
        let before = self.row.clone();
        let row = SessionRow {
            phase: Phase::Creating,
            generation: before.as_ref().map_or(Generation(0), |row| row.generation),
            content_type,
            ttl_seconds: wish.ttl_seconds.unwrap_or(self.bounds.ttl_seconds),
            envelope: wish.envelope.unwrap_or(false),
            epoch: before.map_or(SubscriptionEpoch(0), |row| row.epoch),
            due: Some(self.patience(now)),
            attempts: 0,
        };
        self.store(row.clone(), now)?;
        Ok(row)
    }

    /// The stream is there.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn created(
        &mut self,
        generation: Generation,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(()) };
        let due = Some(expires_at.saturating_add_ms(EXPIRY_SLACK_MS));
        self.store(SessionRow { phase: Phase::Live, generation, due, attempts: 0, ..row }, now)
    }

    /// The stream was made and has ended, and nobody knew: the session that is being made is a later one.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn created_in_vain(
        &mut self,
        generation: Generation,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(()) };
        self.store(SessionRow { generation: generation.max(row.generation), ..row }, now)
    }

    /// The stream could not be made as noted: there is no session.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn creation_failed(&mut self, now: UnixMillis) -> Result<(), LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(()) };
        self.store(SessionRow { phase: Phase::None, due: None, attempts: 0, ..row }, now)
    }

    /// The stream is there until `expires_at` at least.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn lives_on(&mut self, expires_at: UnixMillis, now: UnixMillis) -> Result<(), LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(()) };
        let due = Some(expires_at.saturating_add_ms(EXPIRY_SLACK_MS));
        self.store(SessionRow { due, attempts: 0, ..row }, now)
    }

    /// The session is to end: first its stream.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_ending(&mut self, now: UnixMillis) -> Result<(), LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(()) };
        let due = Some(self.patience(now));
        self.store(SessionRow { phase: Phase::Ending, due, attempts: 0, ..row }, now)
    }

    /// The stream is gone: every subscription is to be removed.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn ended(&mut self, now: UnixMillis) -> Result<(), LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(()) };
        let last = SubscriptionEpoch(row.epoch.0.saturating_add(1).max(now.0));
        let row = SessionRow { phase: Phase::None, epoch: last, due: None, attempts: 0, ..row };
        let mut writes = vec![LedgerWrite::Session(row.clone())];
        for subscription in self.subscriptions.values_mut() {
            if subscription.generation != row.generation {
                continue;
            }
            subscription.step = Step::Leaving(last);
            subscription.begun = None;
            subscription.attempts = 0;
            subscription.due = Some(now);
            writes.push(LedgerWrite::Subscription(subscription.clone()));
        }
        self.row = Some(row);
        self.commit(writes, now)
    }

    /// What the phase is about did not succeed: the alarm tries again after a pause.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn postpone(&mut self, now: UnixMillis) -> Result<(), LogError> {
        self.settle()?;
        let Some(row) = self.row.clone() else { return Ok(()) };
        let attempts = row.attempts.saturating_add(1);
        let due = Some(now.saturating_add_ms(pause_ms(attempts)));
        self.store(SessionRow { due, attempts, ..row }, now)
    }

    /// What is due, at most `limit` subscriptions. A join that nobody knows the end of is undone from
    /// now on: an answer that comes after all is too late.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_duties(&mut self, limit: usize, now: UnixMillis) -> Result<Duties, LogError> {
        self.settle()?;
        let is_due = |due: Option<UnixMillis>| due.is_some_and(|due| due <= now);
        let session = self.row.clone().filter(|row| is_due(row.due));
        let mut duties = Duties { session, ..Duties::default() };
        let Some(session) = &self.row else { return Ok(duties) };
        let mut writes = Vec::new();
        let due = self.subscriptions.values_mut().filter(|row| is_due(row.due));
        for row in due.take(limit) {
            if let Step::Joining(epoch) = row.step {
                row.step = Step::Undoing(epoch);
                writes.push(LedgerWrite::Subscription(row.clone()));
            }
            duties.leaving.extend(leaving_of(row, session));
        }
        if !writes.is_empty() {
            self.commit(writes, now)?;
        }
        Ok(duties)
    }

    /// When something is due.
    pub fn due(&self) -> Option<UnixMillis> {
        let session = self.row.as_ref().and_then(|row| row.due);
        self.subscriptions.values().filter_map(|row| row.due).chain(session).min()
    }

    /// The alarm has gone off. To be answered with [`Session::end_alarm`] when what was due is done.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_alarm(&mut self) -> Result<(), LogError> {
        self.settle()?;
        // The platform takes the alarm away before it calls.
        self.alarm = None;
        Ok(())
    }

    /// Sets the alarm for what is still to be done.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn end_alarm(&mut self, now: UnixMillis) -> Result<(), LogError> {
        self.settle()?;
        self.commit(Vec::new(), now)
    }

    fn store(&mut self, row: SessionRow, now: UnixMillis) -> Result<(), LogError> {
        self.row = Some(row.clone());
        self.commit(vec![LedgerWrite::Session(row)], now)
    }

    /// Commits, and sets the alarm in the same transaction if it has to go off earlier than it would, or
    /// would find nothing to do for long.
    fn commit(&mut self, mut writes: Vec<LedgerWrite>, now: UnixMillis) -> Result<(), LogError> {
        let drops = |write: &LedgerWrite| matches!(write, LedgerWrite::DropSubscription { .. });
        if let Some(row) = self.row.as_ref().filter(|_| writes.iter().any(drops)) {
            // Its epoch is not forgotten with it.
            writes.push(LedgerWrite::Session(row.clone()));
        }
        if let Some(due) = self.due() {
            let due = due.max(now);
            let is_idle =
                |alarm: UnixMillis| !writes.is_empty() && alarm.saturating_add_ms(IDLE_MS) < due;
            if self.alarm.is_none_or(|alarm| due < alarm || is_idle(alarm)) {
                self.alarm = Some(due);
                writes.push(LedgerWrite::Alarm(due));
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        let outcome = self.ledger.commit(writes);
        self.stale |= outcome.is_err();
        outcome
    }
}

/// The removal that a row is about.
fn leaving_of(row: &SubscriptionRow, session: &SessionRow) -> Option<Leaving> {
    let (first, last) = match row.step {
        Step::Leaving(last) => (SubscriptionEpoch(0), last),
        Step::Undoing(last) => {
            // What is before is over, or goes on.
            (row.begun.as_ref().map_or(last, |begun| begun.since), last)
        }
        Step::Settled | Step::Joining(_) => return None,
    };
    let has_stream = session.generation == row.generation
        && matches!(session.phase, Phase::Live | Phase::Ending);
    Some(Leaving {
        generation: row.generation,
        source: row.source.clone(),
        first,
        last,
        has_stream,
    })
}
