//! Joining sources: what the session notes, asks and makes of the answers.

use futures::future::join_all;

use protocol::fanout::{Outcome, SessionRefusal, Subscribe, Subscribed, SubscriptionEpoch, Wish};
use protocol::time::UnixMillis;

use super::{ServeError, SessionServer};
use crate::fanout::ledger::{Ledger, Phase, SessionRow};
use crate::fanout::peers::{Address, NoAnswer, Peers};
use crate::fanout::session::{Joining, Session};

/// What came of joining sources.
pub(super) struct Joins {
    pub(super) outcomes: Vec<Outcome<()>>,
    pub(super) expires_at: Option<UnixMillis>,
}

impl<L: Ledger, P: Peers> SessionServer<L, P> {
    /// Subscribes to sources that this request has the turn for, some at a time.
    pub(super) async fn join_all(
        &self,
        row: &SessionRow,
        wishes: &[Wish],
    ) -> Result<Joins, ServeError> {
        let max = self.with(|session| session.bounds().subscriptions_max)?;
        let mut outcomes = Vec::with_capacity(wishes.len());
        let mut expires_at = None;
        let at_a_time = usize::try_from(self.with(|session| session.bounds().concurrency)?);
        let at_a_time = at_a_time.unwrap_or(1).max(1);
        for wishes in wishes.chunks(at_a_time) {
            // Each when it is its turn: the alarm undoes what was begun too long ago.
            let now = self.peers.now();
            let joinings = self.with(|session| session.begin_joins(wishes, now))??;
            let some: Vec<_> = joinings.iter().zip(wishes).collect();
            let asked = some.iter().map(|(joining, wish)| async {
                match joining {
                    Some(joining) => Some(self.join(joining, &wish.from).await),
                    None => None,
                }
            });
            let answers = join_all(asked).await;
            let now = self.peers.now();
            let (mut joined, mut refused) = (Vec::new(), Vec::new());
            let mut asked = Vec::new();
            for ((joining, _), answer) in some.iter().zip(answers) {
                let (Some(joining), Some(answer)) = (joining, answer) else {
                    outcomes.push(Outcome::Refused(SessionRefusal::TooManySubscriptions { max }));
                    continue;
                };
                let outcome = match answer {
                    Ok(Subscribed::Live { epoch, expires_at: until, .. }) => {
                        expires_at = expires_at.max(until);
                        joined.push((joining.clone(), epoch));
                        asked.push(outcomes.len());
                        Outcome::Done(())
                    }
                    Ok(answer) => {
                        refused.push(joining.clone());
                        Outcome::Refused(refusal_of(answer))
                    }
                    // The alarm undoes whatever came of it.
                    Err(_) => Outcome::Refused(SessionRefusal::Unavailable),
                };
                outcomes.push(outcome);
            }
            let kept = self.with(|session| session.joined(&joined, now))??;
            for (at, _) in asked.into_iter().zip(kept).filter(|(_, is_kept)| !is_kept) {
                if let Some(outcome) = outcomes.get_mut(at) {
                    *outcome = Outcome::Refused(SessionRefusal::Unavailable);
                }
            }
            self.with(|session| session.refused(&refused, now))??;
        }
        // Whoever deleted the session meanwhile has removed the subscriptions, too.
        let is_over = self
            .with(Session::row)??
            .is_none_or(|now| now.generation != row.generation || now.phase != Phase::Live);
        if is_over {
            outcomes.fill(Outcome::Refused(SessionRefusal::NotFound));
        }
        Ok(Joins { outcomes, expires_at })
    }

    /// Subscribes to one source.
    async fn join(&self, joining: &Joining, from: &str) -> Result<Subscribed, NoAnswer> {
        let before = SubscriptionEpoch(joining.epoch.0.saturating_sub(1));
        if joining.is_repeated {
            // Nobody knows where the earlier one is: wherever it is, it comes too late.
            self.detach(&joining.up_to(before)).await?;
        }
        let question = Subscribe {
            session: self.id().to_owned(),
            generation: joining.generation,
            epoch: joining.epoch,
            first: joining.first,
            known: joining.known,
            from: from.to_owned(),
        };
        let source = Address::Subscription(joining.source.clone());
        let answer = self.ask(&source, &question).await?;
        match &answer {
            // Links of attempts that came to nothing; this one has taken over its own.
            Subscribed::Live { epoch, .. } if *epoch == joining.epoch && joining.is_repeated => {
                self.detach(&joining.since(before)).await?;
            }
            Subscribed::Live { epoch, .. } if *epoch == joining.epoch => {}
            // What it has already stays; this attempt has no effect if it comes once more.
            Subscribed::Live { .. } => self.detach(&joining.since(joining.epoch)).await?,
            _ => {
                let refused = joining.up_to(joining.epoch);
                self.detach(&refused).await?;
                self.remove(&refused).await?;
            }
        }
        Ok(answer)
    }
}

fn refusal_of(answer: Subscribed) -> SessionRefusal {
    match answer {
        Subscribed::Source(refusal) => SessionRefusal::Source(refusal),
        Subscribed::SessionGone => SessionRefusal::NotFound,
        Subscribed::ContentType { session, source } => {
            SessionRefusal::ContentType { session, source }
        }
        Subscribed::Full => SessionRefusal::SourceFull,
        Subscribed::Live { .. } | Subscribed::Superseded => SessionRefusal::Unavailable,
    }
}
