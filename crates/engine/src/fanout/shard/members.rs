//! Who is a member: joining, being removed, leaving.

use protocol::fanout::{LifeState, Removed, Subscribe, SubscriptionEpoch};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::{Departure, Life, Member, Shard, failing};
use crate::fanout::pause_ms;
use crate::fanout::roster::{LifeRow, MemberRow, Place, Roster, RosterWrite};
use crate::log::LogError;

/// Where a subscription begins, as its source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Life of the source.
    pub source: Generation,
    /// First position to deliver.
    pub start: Position,
    /// The source's tail: appends past it will be told.
    pub tail: Position,
}

/// What became of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The session is a member.
    Member,
    /// It was removed meanwhile, has joined again, or is a member for another life of the source.
    Removed,
}

impl<R: Roster> Shard<R> {
    /// A session is about to be added. To be answered with [`Shard::end_join`].
    pub fn begin_join(&mut self, session: &str, epoch: SubscriptionEpoch) {
        self.joins.entry(session.to_owned()).or_default().push(epoch);
    }

    /// That is over, whatever came of it.
    pub fn end_join(&mut self, session: &str, epoch: SubscriptionEpoch) {
        if let Some(joins) = self.joins.get_mut(session) {
            if let Some(at) = joins.iter().position(|one| *one == epoch) {
                joins.swap_remove(at);
            }
            if joins.is_empty() {
                self.joins.remove(session);
                self.removed.remove(session);
            }
        }
    }

    /// The epoch under which a session is a member for a life of the source.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn membership(
        &mut self,
        session: &str,
        source: Generation,
    ) -> Result<Option<SubscriptionEpoch>, LogError> {
        self.settle()?;
        let member = self.members.get(&(source, session.to_owned()));
        let live = member.filter(|member| !matches!(member.row.place, Place::Leaving { .. }));
        Ok(live.map(|member| member.row.epoch))
    }

    /// Whether a session is, or was, a member with this epoch for another life of the source: a subscription
    /// is of one life, and a question that comes twice may find the next one.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn is_of_another_life(
        &mut self,
        session: &str,
        epoch: SubscriptionEpoch,
        source: Generation,
    ) -> Result<bool, LogError> {
        self.settle()?;
        let others = self.lives.keys().filter(|other| **other != source);
        let mut members = others.filter_map(|of| self.members.get(&(*of, session.to_owned())));
        Ok(members.any(|member| member.row.epoch == epoch))
    }

    /// Whether a life of the source is known to be over.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn is_over(&mut self, source: Generation) -> Result<bool, LogError> {
        self.settle()?;
        Ok(self.lives.get(&source).is_some_and(|life| life.row.state != LifeState::Live))
    }

    /// Whether a session is a member for any life, or about to be one.
    pub(in crate::fanout) fn has_member(&self, session: &str) -> bool {
        let has = |source: &Generation| self.members.contains_key(&(*source, session.to_owned()));
        self.joins.contains_key(session) || self.lives.keys().any(has)
    }

    /// How many members there are, over all lives.
    pub fn len(&self) -> u64 {
        self.members.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The session has been attached at both ends: it is a member from now on. That there is a place for it
    /// was seen to by the root, see [`Shard::place`]; a session that is still a member for an earlier life
    /// of the source needs no second one.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn join(
        &mut self,
        wish: &Subscribe,
        at: Start,
        now: UnixMillis,
    ) -> Result<Joined, LogError> {
        self.settle()?;
        if self.removed.get(&wish.session).is_some_and(|last| *last >= wish.epoch) {
            return Ok(Joined::Removed);
        }
        let key = (at.source, wish.session.clone());
        let known = self.members.get(&key).map(|member| member.row.epoch);
        if known.is_some_and(|known| known > wish.epoch)
            || self.is_of_another_life(&wish.session, wish.epoch, at.source)?
        {
            return Ok(Joined::Removed);
        }
        let mut writes = Vec::new();
        let life = self.lives.entry(at.source).or_insert_with(|| {
            let row = LifeRow {
                generation: at.source,
                cursor: at.tail,
                up_to: at.tail,
                state: LifeState::Live,
                due: None,
                attempts: 0,
            };
            writes.push(RosterWrite::Life(row));
            Life { row, stored: row, is_delivering: false }
        });
        let in_step = at.start >= life.row.cursor && !life.is_delivering;
        let place = if in_step { Place::InStep } else { failing(at.start, 0, now) };
        let row = MemberRow {
            session: wish.session.clone(),
            source: at.source,
            generation: wish.generation,
            epoch: wish.epoch,
            place,
        };
        writes.push(RosterWrite::Member(row.clone()));
        self.members.insert(key, Member { row, in_flight: false });
        self.commit(writes, now)?;
        Ok(Joined::Member)
    }

    /// Subscriptions of a session with epochs from `first` to `last` end at once.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn remove(
        &mut self,
        session: &str,
        (first, last): (SubscriptionEpoch, SubscriptionEpoch),
        now: UnixMillis,
    ) -> Result<Removed, LogError> {
        self.settle()?;
        let mut remaining = None;
        if let Some(joins) = self.joins.get(session) {
            let mut removed = self.removed.get(session).copied().unwrap_or_default();
            if first <= last {
                removed = removed.max(last);
                self.removed.insert(session.to_owned(), removed);
            }
            remaining = joins.iter().copied().filter(|coming| *coming > removed).max();
        }
        let mut writes = Vec::new();
        for source in self.sources() {
            let key = (source, session.to_owned());
            let Some(member) = self.members.get(&key) else { continue };
            let epoch = member.row.epoch;
            if (first..=last).contains(&epoch) {
                self.members.remove(&key);
                writes.push(RosterWrite::DropMember { source, session: session.to_owned() });
            } else if !matches!(member.row.place, Place::Leaving { .. }) {
                remaining = remaining.max(Some(epoch));
            }
        }
        if !writes.is_empty() {
            self.commit(writes, now)?;
        }
        Ok(Removed { remaining })
    }

    /// Members that have left and of which somebody is to be told now, at most `limit`.
    pub fn begin_departures(&mut self, limit: usize, now: UnixMillis) -> Vec<Departure> {
        let due = |member: &Member| {
            !member.in_flight && member.leaving_due().is_some_and(|due| due <= now)
        };
        let keys = self.members.iter().filter(|(_, member)| due(member)).take(limit);
        let keys: Vec<_> = keys.map(|(key, _)| key.clone()).collect();
        let mut departures = Vec::with_capacity(keys.len());
        for (source, session) in keys {
            let staying = |other: Generation| {
                let member = self.members.get(&(other, session.clone()));
                let member = member.filter(|member| member.leaving_due().is_none());
                member.map(|member| member.row.epoch)
            };
            let remaining = self.sources().into_iter().filter_map(staying).max();
            let Some(member) = self.members.get_mut(&(source, session)) else { continue };
            let Place::Leaving { has_ended, .. } = member.row.place else { continue };
            member.in_flight = true;
            departures.push(Departure {
                source,
                target: member.target(),
                has_ended,
                tells_root: self.id != protocol::fanout::ShardId::ROOT,
                remaining,
            });
        }
        departures
    }

    /// Everybody has been told of a departure, or somebody could not be.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn end_departure(
        &mut self,
        departure: &Departure,
        is_told: bool,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.give_back_one(departure.source, &departure.target);
        self.settle()?;
        let key = (departure.source, departure.target.session.clone());
        let Some(member) = self.members.get_mut(&key) else { return Ok(()) };
        let Place::Leaving { has_ended, attempts, .. } = member.row.place else { return Ok(()) };
        if member.row.epoch != departure.target.epoch {
            return Ok(());
        }
        if is_told {
            self.members.remove(&key);
            let (source, session) = key;
            return self.commit(vec![RosterWrite::DropMember { source, session }], now);
        }
        let attempts = attempts.saturating_add(1);
        let due = now.saturating_add_ms(pause_ms(attempts));
        member.row.place = Place::Leaving { has_ended, attempts, due };
        let row = member.row.clone();
        self.commit(vec![RosterWrite::Member(row)], now)
    }
}
