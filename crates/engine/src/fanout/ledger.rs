//! `Ledger`: the contract between a session's object and its storage, and the rows that it holds.
//!
//! The contract is that of [`super::roster`]: commits are atomic and ordered, and durable before anybody
//! hears of them.

use protocol::fanout::SubscriptionEpoch;
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use crate::log::LogError;

pub mod memory;
pub mod sql;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

/// The session: one row, which stays when the session has ended, so that epochs keep growing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// How the session stands.
    pub phase: Phase,
    /// Generation of the session that there is, or was last; zero before the first.
    pub generation: Generation,
    /// Content type of its stream.
    pub content_type: String,
    /// Sliding lifetime.
    pub ttl_seconds: u64,
    /// Whether each message is wrapped with where it is from.
    pub envelope: bool,
    /// The last epoch that was minted.
    pub epoch: SubscriptionEpoch,
    /// When the alarm looks after the session itself.
    pub due: Option<UnixMillis>,
    /// Failed attempts to finish what the phase is about.
    pub attempts: u32,
}

/// How a session stands.
///
/// ```text
/// None ──► Creating ──► Live ──► Ending ──► None
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// There is none.
    #[default]
    None,
    /// Its stream is being made, or may be there.
    Creating,
    /// It is there.
    Live,
    /// Its stream is being deleted.
    Ending,
}

impl Phase {
    /// The number stored in the table.
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::None => 0,
            Self::Creating => 1,
            Self::Live => 2,
            Self::Ending => 3,
        }
    }

    /// The phase of a stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        [Self::None, Self::Creating, Self::Live, Self::Ending]
            .into_iter()
            .find(|phase| phase.code() == code)
    }
}

/// A subscription of one life of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Generation of the session.
    pub generation: Generation,
    /// Object name of the source.
    pub source: String,
    /// The epoch that is live: deliveries come with it.
    pub live: Option<SubscriptionEpoch>,
    /// What is under way.
    pub step: Step,
    /// While joining or undoing: which attempts there were.
    pub begun: Option<Begun>,
    /// Failed attempts at it.
    pub attempts: u32,
    /// When the alarm looks after it.
    pub due: Option<UnixMillis>,
}

/// Attempts at one join. Nobody knows what came of the earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The first of them; zero if it took over from a removal, which goes on if it comes to nothing.
    pub since: SubscriptionEpoch,
    /// From this one on, all of them are to begin at the same place.
    pub first: SubscriptionEpoch,
    /// That place: an offset, `-1` or `now`.
    pub from: String,
}

impl SubscriptionRow {
    /// Every epoch that the row names.
    pub fn epochs(&self) -> impl Iterator<Item = SubscriptionEpoch> {
        let step = match self.step {
            Step::Settled => None,
            Step::Joining(epoch) | Step::Leaving(epoch) | Step::Undoing(epoch) => Some(epoch),
        };
        self.live.into_iter().chain(step)
    }
}

/// What is under way with a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is live.
    Settled,
    /// It is being made, with this epoch.
    Joining(SubscriptionEpoch),
    /// It is being removed, whatever epochs up to this it has had.
    Leaving(SubscriptionEpoch),
    /// Attempts to join, up to this epoch, are being undone: nobody knows what came of them.
    Undoing(SubscriptionEpoch),
}

/// One row to store or drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerWrite {
    /// Stores the session.
    Session(SessionRow),
    /// Stores a subscription.
    Subscription(SubscriptionRow),
    /// Drops a subscription.
    DropSubscription {
        /// Generation of the session.
        generation: Generation,
        /// Object name of the source.
        source: String,
    },
    /// Sets the object's alarm.
    Alarm(UnixMillis),
}

/// The storage of one session's object. See the module's documentation for the contract.
pub trait Ledger {
    /// Stores all writes, in order, or none.
    ///
    /// # Errors
    /// [`LogError::Failed`]; nothing was stored.
    fn commit(&mut self, writes: Vec<LedgerWrite>) -> Result<(), LogError>;

    /// The session, if there has ever been one.
    ///
    /// # Errors
    /// As all reads: [`LogError`] when the storage fails or a row does not decode.
    fn session(&self) -> Result<Option<SessionRow>, LogError>;

    /// Every subscription, by generation and source.
    ///
    /// # Errors
    /// See [`Ledger::session`].
    fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, LogError>;
}
