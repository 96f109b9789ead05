//! A [`Roster`] in memory: the naive implementation that the other is compared with.
//!
//! Cloning it is a snapshot, which is how the simulator takes a crash. Its commits never fail.

use std::collections::BTreeMap;
use std::ops::Bound;

use protocol::fanout::ShardId;
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::{Entry, LifeRow, MemberRow, Roster, RosterWrite};
use crate::fanout::breaker::Open;
use crate::log::LogError;

/// Rows by their keys, as the tables of `docs/data-layout.md`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryRoster {
    lives: BTreeMap<Generation, LifeRow>,
    members: BTreeMap<(Generation, String), MemberRow>,
    breaker: Option<Open>,
    directory: BTreeMap<String, Entry>,
    rooms: BTreeMap<ShardId, u64>,
    /// When the alarm goes off: as it was set last. Who plays the platform takes it.
    pub alarm: Option<UnixMillis>,
}

impl MemoryRoster {
    fn store(&mut self, write: RosterWrite) {
        match write {
            RosterWrite::Life(row) => {
                self.lives.insert(row.generation, row);
            }
            RosterWrite::DropLife(generation) => {
                self.lives.remove(&generation);
            }
            RosterWrite::Member(row) => {
                self.members.insert((row.source, row.session.clone()), row);
            }
            RosterWrite::DropMember { source, session } => {
                self.members.remove(&(source, session));
            }
            RosterWrite::Breaker(open) => self.breaker = open,
            RosterWrite::Entry(entry) => {
                self.directory.insert(entry.session.clone(), entry);
            }
            RosterWrite::DropEntry { session } => {
                self.directory.remove(&session);
            }
            RosterWrite::Room { shard, members } => {
                self.rooms.insert(shard, members);
            }
            RosterWrite::Alarm(at) => self.alarm = Some(at),
        }
    }
}

impl Roster for MemoryRoster {
    fn commit(&mut self, writes: Vec<RosterWrite>) -> Result<(), LogError> {
        for write in writes {
            self.store(write);
        }
        Ok(())
    }

    fn lives(&self) -> Result<Vec<LifeRow>, LogError> {
        Ok(self.lives.values().copied().collect())
    }

    fn members(&self) -> Result<Vec<MemberRow>, LogError> {
        Ok(self.members.values().cloned().collect())
    }

    fn breaker(&self) -> Result<Option<Open>, LogError> {
        Ok(self.breaker)
    }

    fn entry(&self, session: &str) -> Result<Option<Entry>, LogError> {
        Ok(self.directory.get(session).cloned())
    }

    fn entries(&self, after: &str, limit: u32) -> Result<Vec<Entry>, LogError> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let entries = self.directory.range::<str, _>(behind).take(limit as usize);
        Ok(entries.map(|(_, entry)| entry.clone()).collect())
    }

    fn rooms(&self) -> Result<Vec<(ShardId, u64)>, LogError> {
        Ok(self.rooms.iter().map(|(shard, members)| (*shard, *members)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        super::super::suite::run(MemoryRoster::default);
    }

    #[test]
    fn a_clone_is_a_snapshot_and_has_the_alarm() {
        let mut roster = MemoryRoster::default();
        roster.commit(vec![RosterWrite::Alarm(UnixMillis(7))]).unwrap();
        let crashed = roster.clone();
        let room = RosterWrite::Room { shard: ShardId(1), members: 2 };
        roster.commit(vec![RosterWrite::Alarm(UnixMillis(5)), room]).unwrap();
        assert_eq!((crashed.alarm, crashed.rooms().unwrap()), (Some(UnixMillis(7)), vec![]));
        assert_eq!(roster.alarm, Some(UnixMillis(5)));
    }
}
