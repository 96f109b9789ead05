//! Who is a member, for operators.

use protocol::fanout::{LifeState, Member, Roll};

use super::Shard;
use crate::fanout::roster::{MemberRow, Place, Roster};
use crate::log::LogError;

impl<R: Roster> Shard<R> {
    /// Members as they are asked for.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn roll(&mut self, question: &Roll) -> Result<Vec<Member>, LogError> {
        self.settle()?;
        let Roll { sessions, after, limit } = question;
        let after = after.as_ref().map(|(session, life)| (session.as_str(), *life));
        let asked = |row: &&MemberRow| {
            Some((row.session.as_str(), row.source)) > after
                && (sessions.is_empty() || sessions.contains(&row.session))
        };
        let mut rows: Vec<&MemberRow> =
            self.members.values().map(|member| &member.row).filter(asked).collect();
        rows.sort_by_key(|row| (&row.session, row.source));
        let is_over = |row: &MemberRow| {
            let life = self.lives.get(&row.source);
            life.is_none_or(|life| life.row.state != LifeState::Live)
        };
        let members = rows.into_iter().take(*limit as usize).map(|row| Member {
            session: row.session.clone(),
            source: row.source,
            generation: row.generation,
            epoch: row.epoch,
            is_leaving: matches!(row.place, Place::Leaving { .. }) || is_over(row),
        });
        Ok(members.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use protocol::fanout::{ShardId, SubscriptionEpoch};
    use protocol::offset::{Generation, Position};
    use protocol::time::UnixMillis;

    use super::*;
    use crate::fanout::roster::memory::MemoryRoster;
    use crate::fanout::roster::{LifeRow, RosterWrite};
    use crate::fanout::shard::ShardBounds;

    fn shard(keys: &BTreeSet<(String, u64)>) -> Shard<MemoryRoster> {
        let mut roster = MemoryRoster::default();
        for (session, life) in keys {
            let source = Generation(*life);
            let life = LifeRow {
                generation: source,
                cursor: Position(0),
                up_to: Position(0),
                state: LifeState::Live,
                due: None,
                attempts: 0,
            };
            let member = MemberRow {
                session: session.clone(),
                source,
                generation: Generation(1),
                epoch: SubscriptionEpoch(1),
                place: Place::InStep,
            };
            roster.commit(vec![RosterWrite::Life(life), RosterWrite::Member(member)]).unwrap();
        }
        let bounds = ShardBounds {
            members_max: 100,
            shards_max: 1,
            inline_max: 1,
            concurrency: 1,
            deadline_ms: 1,
            range_bytes: 1,
        };
        Shard::open(roster, ShardId::ROOT, bounds, UnixMillis(0)).unwrap()
    }

    proptest! {
        #[test]
        fn pages_of_any_size_have_everybody_once_and_in_order(
            keys in proptest::collection::btree_set(("[a-c.-]{1,3}", 1..4u64), 0..30),
            limit in 1..9u32,
        ) {
            let mut shard = shard(&keys);
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = shard.roll(&Roll { sessions: vec![], after, limit }).unwrap();
                let Some(last) = page.last() else { break };
                prop_assert!(page.len() <= limit as usize);
                after = Some((last.session.clone(), last.source));
                seen.extend(page.into_iter().map(|one| (one.session, one.source.0)));
            }
            prop_assert_eq!(seen, keys.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn those_who_are_asked_for_come(
            keys in proptest::collection::btree_set(("[ab]{1,2}", 1..4u64), 0..12),
            asked in proptest::collection::vec("[ab]{1,2}", 1..4),
        ) {
            let question = Roll { sessions: asked.clone(), after: None, limit: u32::MAX };
            let found = shard(&keys).roll(&question).unwrap();
            let found: BTreeSet<_> = found.into_iter().map(|one| (one.session, one.source.0)).collect();
            let expected = keys.into_iter().filter(|(session, _)| asked.contains(session));
            prop_assert_eq!(found, expected.collect::<BTreeSet<_>>());
        }
    }
}
