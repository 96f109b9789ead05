//! What the root knows of the other shards: which session is where, and where there is room.
//!
//! Members never move. A new subscriber gets a place in the first shard that has one, the root first,
//! so that small sources have no other object. The directory is written before a shard is asked and
//! cleaned after it has answered: an entry may name a shard that does not have the session, and is
//! removed with the session's subscription. Of two copies of one question one may be refused and give
//! the place back that the other takes: it is noted again when that is answered.

use protocol::fanout::{Directory, RollDirectory, ShardId, SubscriptionEpoch};
use protocol::time::UnixMillis;

use super::roster::{Entry, Roster, RosterWrite};
use super::shard::Shard;
use crate::log::LogError;

/// Where a subscription goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// To the root itself.
    Here,
    /// To a shard.
    Shard(ShardId),
    /// Nowhere: a newer subscription is known.
    Superseded,
    /// Nowhere: every shard is full.
    Full,
}

impl<R: Roster> Shard<R> {
    /// Finds a place for a subscription, and notes it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn place(
        &mut self,
        session: &str,
        epoch: SubscriptionEpoch,
        now: UnixMillis,
    ) -> Result<Placed, LogError> {
        self.settle()?;
        if let Some(known) = self.roster.entry(session)? {
            if known.epoch > epoch {
                return Ok(Placed::Superseded);
            }
            let shard = known.shard;
            self.commit(vec![RosterWrite::Entry(Entry { epoch, ..known })], now)?;
            return Ok(Placed::Shard(shard));
        }
        // Sessions that are being added here have their places already.
        let here = self.len().saturating_add(self.joins.len() as u64);
        if self.has_member(session) || here < self.bounds.members_max {
            return Ok(Placed::Here);
        }
        let (members_max, shards_max) = (self.bounds.members_max, self.bounds.shards_max);
        let rooms = self.rooms()?;
        let taken = |shard: ShardId| rooms.get(&shard).copied().unwrap_or(0);
        let shards = (1..u32::try_from(shards_max).unwrap_or(u32::MAX)).map(ShardId);
        let mut free = shards.filter(|shard| taken(*shard) < members_max);
        let Some(shard) = free.next() else { return Ok(Placed::Full) };
        let mut writes =
            vec![RosterWrite::Entry(Entry { session: session.to_owned(), epoch, shard })];
        self.plan_room(shard, 1, &mut writes)?;
        self.commit(writes, now)?;
        Ok(Placed::Shard(shard))
    }

    /// What the directory knows of a session.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn entry(&mut self, session: &str) -> Result<Option<Entry>, LogError> {
        self.settle()?;
        self.roster.entry(session)
    }

    /// A session's subscriptions up to `last` are over at a shard, which still has `remaining`.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn left(
        &mut self,
        (shard, session): (ShardId, &str),
        last: SubscriptionEpoch,
        remaining: Option<SubscriptionEpoch>,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let entry = self.roster.entry(session)?;
        let Some(entry) = entry.filter(|entry| entry.shard == shard && entry.epoch <= last) else {
            return Ok(());
        };
        match remaining {
            None => self.drop_entry(&entry, now),
            Some(epoch) => self.commit(vec![RosterWrite::Entry(Entry { epoch, ..entry })], now),
        }
    }

    /// A session is a member of a shard: its place is noted, if it is not any more.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn keep(
        &mut self,
        shard: ShardId,
        session: &str,
        epoch: SubscriptionEpoch,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        if self.roster.entry(session)?.is_some() {
            return Ok(());
        }
        let mut writes =
            vec![RosterWrite::Entry(Entry { session: session.to_owned(), epoch, shard })];
        self.plan_room(shard, 1, &mut writes)?;
        self.commit(writes, now)
    }

    /// The directory as it is asked for, for operators.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn roll_directory(&mut self, question: &RollDirectory) -> Result<Directory, LogError> {
        self.settle()?;
        let RollDirectory { sessions, after, limit } = question;
        let mut entries = Vec::new();
        for session in sessions {
            entries.extend(self.roster.entry(session)?);
        }
        if sessions.is_empty() && *limit > 0 {
            entries = self.roster.entries(after, *limit)?;
        }
        let last = self.rooms()?.keys().next_back().copied().unwrap_or(ShardId::ROOT);
        Ok(Directory { entries, last })
    }

    fn drop_entry(&mut self, entry: &Entry, now: UnixMillis) -> Result<(), LogError> {
        let mut writes = vec![RosterWrite::DropEntry { session: entry.session.clone() }];
        self.plan_room(entry.shard, -1, &mut writes)?;
        self.commit(writes, now)
    }

    fn rooms(&mut self) -> Result<&mut std::collections::BTreeMap<ShardId, u64>, LogError> {
        if self.rooms.is_none() {
            self.rooms = Some(self.roster.rooms()?.into_iter().collect());
        }
        Ok(self.rooms.get_or_insert_default())
    }

    fn plan_room(
        &mut self,
        shard: ShardId,
        change: i64,
        writes: &mut Vec<RosterWrite>,
    ) -> Result<(), LogError> {
        let members = self.rooms()?.entry(shard).or_default();
        *members = members.saturating_add_signed(change);
        writes.push(RosterWrite::Room { shard, members: *members });
        Ok(())
    }
}
