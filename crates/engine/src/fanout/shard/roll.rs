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
