//! [`Shard`]: what one subscription object delivers, to whom, and up to where.
//!
//! ```text
//!             cursor          up_to
//! source  ──────┼───────────────┼──►
//! in step       ●  everybody whose row says so: one range for all of them
//! own      ● ●      one position each: a backlog, or deliveries that fail
//! ```
//!
//! A batch is one range for all members in step. Its end commits the cursor and, in the same transaction,
//! what became of those who did not get it: they go on from a position of their own, and hold up
//! nobody. A session takes each byte once, whatever it is sent, so a position may be too low at any time;
//! it is never too high.
//!
//! # Core types
//! [`Batch`], [`CatchUp`] and [`Departure`] are work that was handed out; each has a method that
//! takes what became of it. Work that is never reported back is handed out again after a restart.
//!
//! # Invariants
//! - A member in step has everything before the cursor. When a batch moves the cursor, whoever was in step and
//!   not part of it gets a position of its own.
//! - What the shard has promised ([`Shard::promise`]) is stored, with an alarm: `cursor < up_to` has a due time.
//! - Rows of the same session are told apart by the source's life; an epoch only grows.
//!
//! # Error semantics
//! [`LogError`]: nothing was stored, and memory is loaded again before the next step.

mod deliver;
mod load;
pub mod members;
mod roll;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use protocol::fanout::{Fanout, LifeState, Nudge, ShardId, SubscriptionEpoch};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::breaker::Breaker;
use super::inline::InlineBound;
use super::pause_ms;
use super::roster::{LifeRow, MemberRow, Place, Roster, RosterWrite};
use crate::log::LogError;

/// What the deployment allows a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardBounds {
    /// Most members.
    pub members_max: u64,
    /// Most shards of a source.
    pub shards_max: u64,
    /// Most deliveries that a publisher waits for.
    pub inline_max: u64,
    /// Deliveries under way at a time.
    pub concurrency: u64,
    /// How long a delivery, or another question, may take.
    pub deadline_ms: u64,
    /// Bytes of a range, about.
    pub range_bytes: u64,
}

/// One part of a source's subscribers. See the module's documentation.
pub struct Shard<R> {
    pub(super) roster: R,
    pub(super) id: ShardId,
    pub(super) bounds: ShardBounds,
    lives: BTreeMap<Generation, Life>,
    members: BTreeMap<(Generation, String), Member>,
    breaker: Breaker,
    bound: InlineBound,
    /// How many sessions each other shard has; loaded when it is needed.
    pub(super) rooms: Option<BTreeMap<ShardId, u64>>,
    /// When the alarm goes off, as far as this instance knows.
    alarm: Option<UnixMillis>,
    /// Sessions that are being added, and how often: until they are, their life is not dropped.
    pub(super) joins: BTreeMap<String, Vec<SubscriptionEpoch>>,
    /// Epochs that were removed while sessions were being added.
    removed: BTreeMap<String, SubscriptionEpoch>,
    /// Memory does not match the rows: a commit failed.
    stale: bool,
}

/// A life of the source with what only memory knows.
struct Life {
    row: LifeRow,
    /// What is stored of it.
    stored: LifeRow,
    /// A batch is under way.
    is_delivering: bool,
}

/// A member with what only memory knows.
struct Member {
    row: MemberRow,
    /// Something is under way for it alone.
    in_flight: bool,
}

/// Who gets a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Id of the session.
    pub session: String,
    /// Generation of the session.
    pub generation: Generation,
    /// Which subscription.
    pub epoch: SubscriptionEpoch,
}

/// One range for everybody in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Life of the source.
    pub source: Generation,
    /// Where the range begins.
    pub from: Position,
    /// Where it ends at the latest, as far as is known.
    pub up_to: Position,
    /// Whether the range is lost.
    pub is_gap: bool,
    /// Who gets it.
    pub targets: Vec<Target>,
}

/// A range for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Life of the source.
    pub source: Generation,
    /// Where the range begins.
    pub from: Position,
    /// Where it ends at the latest, as far as is known.
    pub up_to: Position,
    /// Whether the range is lost.
    pub is_gap: bool,
    /// Who gets it.
    pub target: Target,
    /// How often this has failed before.
    pub attempts: u32,
}

/// A member that has left, and of which others are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Life of the source.
    pub source: Generation,
    /// Who.
    pub target: Target,
    /// Whether the session's object is to be told that the source has ended.
    pub has_ended: bool,
    /// Whether the root is to be told.
    pub tells_root: bool,
    /// The epoch with which the session stays a member for another life of the source.
    pub remaining: Option<SubscriptionEpoch>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session has the range.
    Done,
    /// The session has everything before a position only.
    Behind(Position),
    /// The session takes nothing of this subscription any more.
    Gone,
    /// It is not known.
    Failed,
    /// It was not tried.
    Untried,
}

/// Whether a shard has heard of a life before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has members of that life.
    Known,
    /// It has none, and nobody is being added.
    Unknown,
    /// It has none yet: ask again when those who are being added have been.
    Joining,
}

/// What there is to do for a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing, or nothing may be done now.
    Nothing,
    /// A batch is under way.
    Busy,
    /// A batch.
    Batch(Batch),
}

impl<R: Roster> Shard<R> {
    /// A source tells where its tail is. Nothing is stored yet, except that members of a life that is over
    /// and that have everything begin to leave.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn hear(&mut self, nudge: &Nudge, now: UnixMillis) -> Result<Heard, LogError> {
        self.settle()?;
        let source = nudge.generation;
        if !self.has_members(source) {
            if !self.joins.is_empty() && !self.lives.contains_key(&source) {
                return Ok(Heard::Joining);
            }
            if self.joins.is_empty() {
                self.drop_life(source, now)?;
                return Ok(Heard::Unknown);
            }
        }
        let Some(life) = self.lives.get_mut(&source) else { return Ok(Heard::Unknown) };
        life.row.up_to = life.row.up_to.max(nudge.tail);
        life.row.state = later(life.row.state, nudge.state);
        if nudge.state != LifeState::Live {
            let mut writes = Vec::new();
            self.plan_ends(source, &mut writes, now);
            if !writes.is_empty() {
                self.commit(writes, now)?;
            }
        }
        Ok(Heard::Known)
    }

    /// Makes sure that everything up to `up_to` will be delivered, by the alarm if by nobody else, at
    /// `due` at the latest. Stores nothing if that is so already.
    ///
    /// # Errors
    /// [`LogError`]: then it is not promised.
    pub fn promise(
        &mut self,
        source: Generation,
        up_to: Position,
        due: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let Some(life) = self.lives.get_mut(&source) else { return Ok(()) };
        life.row.up_to = life.row.up_to.max(up_to);
        let stored = &life.stored;
        let has_alarm = stored.due.is_some_and(|known| known <= due);
        let is_stored = stored.cursor >= up_to || (stored.up_to >= up_to && has_alarm);
        if is_stored && stored.state == life.row.state {
            return Ok(());
        }
        let lags = life.row.cursor < life.row.up_to;
        let earlier = life.row.due.map_or(due, |known| known.min(due));
        life.row.due = lags.then_some(earlier);
        let row = life.row;
        self.commit(vec![RosterWrite::Life(row)], now)
    }

    /// How far a fan-out has come.
    pub fn report(&self, source: Generation, up_to: Position) -> Fanout {
        let Some(life) = self.lives.get(&source) else { return Fanout::default() };
        let mut fanout = Fanout::default();
        for member in self.members_of(source) {
            let next = match member.row.place {
                Place::InStep => life.row.cursor,
                Place::Own { next, .. } => next,
                Place::Leaving { .. } => continue,
            };
            fanout.count += 1;
            fanout.successes += u64::from(next >= up_to);
        }
        fanout
    }

    /// Whether so many members may be served before a publish is answered.
    pub fn may_inline(&self, source: Generation) -> bool {
        self.bound.takes(self.members_of(source).count() as u64)
    }

    /// Whether deliveries are tried at all; if not, when one is.
    pub fn resumes_at(&self) -> Option<UnixMillis> {
        self.breaker.open().map(|open| open.until)
    }

    /// Whether the cursor has reached a position, or nobody needs it to.
    pub fn has_reached(&self, source: Generation, up_to: Position) -> bool {
        self.lives.get(&source).is_none_or(|life| life.row.cursor >= up_to)
    }

    /// Notes what a batch took.
    pub fn measured(&mut self, deliveries: usize, took_ms: u64) {
        self.bound.measured(deliveries as u64, took_ms);
    }

    /// What the deployment allows.
    pub fn bounds(&self) -> ShardBounds {
        self.bounds
    }

    /// The lives that there are.
    pub fn sources(&self) -> Vec<Generation> {
        self.lives.keys().copied().collect()
    }

    /// Lives whose cursor the alarm has to move now.
    pub fn due_lives(&self, now: UnixMillis) -> Vec<Generation> {
        if !self.breaker.is_closed() {
            return Vec::new();
        }
        let lives = self.lives.values();
        let due = lives.filter(|life| life.due().is_some_and(|due| due <= now));
        due.map(|life| life.row.generation).collect()
    }

    /// When something is due.
    pub fn due(&self) -> Option<UnixMillis> {
        let lives = self.lives.values().filter_map(Life::due);
        let members = self.members.values().filter_map(|member| self.due_of(member));
        let work = lives.chain(members).min();
        let told = self.members.values().filter_map(Member::telling_due).min();
        let work = match (work, self.breaker.open()) {
            (Some(_), Some(open)) => Some(open.until),
            (work, _) => work,
        };
        work.into_iter().chain(told).min()
    }

    /// When a member has to be caught up.
    fn due_of(&self, member: &Member) -> Option<UnixMillis> {
        let Place::Own { next, due, .. } = member.row.place else { return None };
        if member.in_flight {
            // Whoever is at it says when it is due next.
            return None;
        }
        let life = self.lives.get(&member.row.source)?;
        (next < life.row.up_to || life.row.state != LifeState::Live).then_some(due)
    }

    fn members_of(&self, source: Generation) -> impl Iterator<Item = &Member> {
        let first = (source, String::new());
        self.members.range(first..).take_while(move |((of, _), _)| *of == source).map(|(_, m)| m)
    }

    fn has_members(&self, source: Generation) -> bool {
        self.members_of(source).next().is_some()
    }

    fn drop_life(&mut self, source: Generation, now: UnixMillis) -> Result<(), LogError> {
        match self.lives.remove(&source) {
            None => Ok(()),
            Some(_) => self.commit(vec![RosterWrite::DropLife(source)], now),
        }
    }

    /// Members of a life that is over, and that have everything, begin to leave.
    fn plan_ends(&mut self, source: Generation, writes: &mut Vec<RosterWrite>, now: UnixMillis) {
        let Some(life) = self.lives.get(&source) else { return };
        if life.row.state == LifeState::Live {
            return;
        }
        let (cursor, up_to) = (life.row.cursor, life.row.up_to);
        let first = (source, String::new());
        let members = self.members.range_mut(first..);
        for (_, member) in members.take_while(|((of, _), _)| *of == source) {
            let next = match member.row.place {
                Place::InStep => cursor,
                Place::Own { next, .. } => next,
                Place::Leaving { .. } => continue,
            };
            if next >= up_to {
                member.row.place = Place::Leaving { has_ended: true, attempts: 0, due: now };
                writes.push(RosterWrite::Member(member.row.clone()));
            }
        }
    }

    /// Commits, and sets the alarm in the same transaction if it has to go off earlier than it would.
    pub(super) fn commit(
        &mut self,
        mut writes: Vec<RosterWrite>,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        if let Some(due) = self.due() {
            let due = due.max(now);
            if self.alarm.is_none_or(|alarm| due < alarm) {
                self.alarm = Some(due);
                writes.push(RosterWrite::Alarm(due));
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        let stored: Vec<LifeRow> = writes
            .iter()
            .filter_map(|write| match write {
                RosterWrite::Life(row) => Some(*row),
                _ => None,
            })
            .collect();
        let outcome = self.roster.commit(writes);
        self.stale |= outcome.is_err();
        for row in stored {
            if let Some(life) = self.lives.get_mut(&row.generation).filter(|_| !self.stale) {
                life.stored = row;
            }
        }
        outcome
    }

    /// The alarm has gone off. To be answered with [`Shard::end_alarm`] when what was due is done.
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
}

impl Life {
    /// When the alarm has to move the cursor.
    fn due(&self) -> Option<UnixMillis> {
        if self.row.cursor < self.row.up_to { self.row.due } else { None }
    }
}

impl Member {
    fn target(&self) -> Target {
        let MemberRow { session, generation, epoch, .. } = &self.row;
        Target { session: session.clone(), generation: *generation, epoch: *epoch }
    }

    fn leaving_due(&self) -> Option<UnixMillis> {
        match self.row.place {
            Place::Leaving { due, .. } => Some(due),
            _ => None,
        }
    }

    /// When somebody is to be told that it leaves, unless that is being done.
    fn telling_due(&self) -> Option<UnixMillis> {
        self.leaving_due().filter(|_| !self.in_flight)
    }
}

/// The later of two states of a life.
fn later(one: LifeState, other: LifeState) -> LifeState {
    let order = |state| match state {
        LifeState::Live => 0,
        LifeState::Held => 1,
        LifeState::Lapsed => 2,
    };
    if order(other) > order(one) { other } else { one }
}

/// A position of one's own that is tried again after a pause.
fn failing(next: Position, attempts: u32, now: UnixMillis) -> Place {
    let due = now.saturating_add_ms(if attempts == 0 { 0 } else { pause_ms(attempts) });
    Place::Own { next, attempts, due }
}
