//! What shards and sessions say of each other, compared for operators. Reports, never guesses, and
//! changes nothing.
//!
//! A page is some members of one shard, or some entries of the root's directory. Whoever looks wrong is
//! looked at once more, since subscriptions come and go meanwhile: what has gone by then was none, and
//! what was made anew is sound.
//!
//! **Error semantics.** One object that does not answer takes the whole page: nobody is called orphaned
//! for the silence of others.
//!
//! **What stays out.** What becomes of orphans. A session's stream refuses what comes for one, and so the
//! shard drops it with the source's next message.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures::future::{Either, join_all, select};
use protocol::fanout::{
    Directory, Entry, Known, Knows, Member, Roll, RollDirectory, ShardId, SubscriptionEpoch,
};
use protocol::offset::Generation;
use protocol::reconcile::{Place, Subscriber, SubscriberState, SubscribersReport};

use super::peers::{NoAnswer, Peers};
use super::shard_server::Names;

/// Most subscribers, or entries, of a page.
const PAGE_MAX: u32 = 100;
/// Objects that are asked at a time.
const AT_A_TIME: usize = 50;
/// How long a page may take.
const PAGE_MS: u64 = 30_000;

/// One page of the subscribers of a source, by its object name.
///
/// # Errors
/// [`NoAnswer`]: of at least one object, or not in time.
pub async fn page<P: Peers>(
    peers: &P,
    source: &str,
    place: &Place,
) -> Result<SubscribersReport, NoAnswer> {
    let names = Names { source: source.to_owned(), shard: ShardId::ROOT };
    let audit = Audit { peers, names };
    match select(pin!(audit.page(place)), pin!(peers.sleep(PAGE_MS))).await {
        Either::Left((page, _)) => page,
        Either::Right(((), _)) => Err(NoAnswer(format!("no page within {PAGE_MS} ms"))),
    }
}

struct Audit<'a, P> {
    peers: &'a P,
    names: Names,
}

impl<P: Peers> Audit<'_, P> {
    async fn page(&self, place: &Place) -> Result<SubscribersReport, NoAnswer> {
        match place {
            Place::Shard { shard, after } => self.members(*shard, after.clone()).await,
            Place::Directory { after } => self.entries(after).await,
        }
    }

    // ── members of a shard ───────────────────────────────────────────────────────────────────────

    async fn members(
        &self,
        shard: ShardId,
        after: Option<(String, Generation)>,
    ) -> Result<SubscribersReport, NoAnswer> {
        let members = self.roll(shard, Roll { after, limit: PAGE_MAX, sessions: vec![] }).await?;
        let next = match members.last().filter(|_| members.len() >= PAGE_MAX as usize) {
            Some(Member { session, source, .. }) => {
                Some(Place::Shard { shard, after: Some((session.clone(), *source)) })
            }
            None => self.behind(shard).await?,
        };
        let subscribers = self.judge(shard, members).await?;
        let next = next.map(|place| place.to_string());
        Ok(SubscribersReport { subscribers, next, ..SubscribersReport::default() })
    }

    /// Where it goes on behind a shard.
    async fn behind(&self, shard: ShardId) -> Result<Option<Place>, NoAnswer> {
        let Directory { last, .. } = self.directory(RollDirectory::default()).await?;
        Ok(if shard < last {
            Some(Place::Shard { shard: ShardId(shard.0.saturating_add(1)), after: None })
        } else if last == ShardId::ROOT {
            None
        } else {
            Some(Place::Directory { after: String::new() })
        })
    }

    async fn judge(
        &self,
        shard: ShardId,
        members: Vec<Member>,
    ) -> Result<Vec<Subscriber>, NoAnswer> {
        let staying: Vec<_> = members.iter().filter(|member| !member.is_leaving).collect();
        let known = self
            .known(
                staying
                    .iter()
                    .map(|member| (member.session.as_str(), Some(member.generation), member.epoch)),
            )
            .await?;
        let mut known = known.into_iter();
        let mut judged = Vec::with_capacity(members.len());
        let mut unknown = Vec::new();
        for member in members {
            // Whoever is on the way out is not asked about: `known` has the others, in this order.
            let known = if member.is_leaving { Some(Known::Leaving) } else { known.next() };
            let state = match known {
                Some(Known::Live | Known::Joining) => SubscriberState::Live,
                Some(Known::Leaving) => SubscriberState::Leaving,
                Some(Known::Unknown) | None => {
                    unknown.push(member.session.clone());
                    SubscriberState::Orphaned
                }
            };
            judged.push((member, state));
        }
        if !unknown.is_empty() {
            let again = self.find(shard, unknown).await?;
            judged.retain_mut(|(member, state)| {
                *state != SubscriberState::Orphaned || look_again(member, state, &again)
            });
        }
        let subscribers = judged.into_iter().map(|(member, state)| Subscriber {
            session_id: member.session,
            shard: shard.0,
            epoch: member.epoch.0,
            state,
        });
        Ok(subscribers.collect())
    }

    // ── entries of the directory ─────────────────────────────────────────────────────────────────

    async fn entries(&self, after: &str) -> Result<SubscribersReport, NoAnswer> {
        let question =
            RollDirectory { after: after.to_owned(), limit: PAGE_MAX, ..RollDirectory::default() };
        let Directory { entries, .. } = self.directory(question).await?;
        let last = entries.last().filter(|_| entries.len() >= PAGE_MAX as usize);
        let next = last.map(|entry| Place::Directory { after: entry.session.clone() });
        let absent = self.absent(entries).await?;
        let known = self
            .known(absent.iter().map(|entry| (entry.session.as_str(), None, entry.epoch)))
            .await?;
        let is_settled = |known: &Known| matches!(known, Known::Live | Known::Unknown);
        let suspects = absent.into_iter().zip(known).filter(|(_, known)| is_settled(known));
        let suspects: Vec<Entry> = suspects.map(|(entry, _)| entry).collect();
        let missing = if suspects.is_empty() { suspects } else { self.still(suspects).await? };
        Ok(SubscribersReport {
            missing: missing.into_iter().map(|entry| entry.session).collect(),
            next: next.map(|place| place.to_string()),
            ..SubscribersReport::default()
        })
    }

    /// Those that stand in the directory as before and are at their shards as little as before.
    async fn still(&self, suspects: Vec<Entry>) -> Result<Vec<Entry>, NoAnswer> {
        let sessions = suspects.iter().map(|entry| entry.session.clone()).collect();
        let Directory { mut entries, .. } =
            self.directory(RollDirectory { sessions, ..RollDirectory::default() }).await?;
        entries.retain(|entry| suspects.contains(entry));
        self.absent(entries).await
    }

    /// Entries whose shard has nothing of their session.
    async fn absent(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, NoAnswer> {
        let mut shards: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
        for Entry { session, shard, .. } in &entries {
            shards.entry(*shard).or_default().push(session.clone());
        }
        let mut here = BTreeSet::new();
        let shards: Vec<_> = shards.into_iter().collect();
        for some in shards.chunks(AT_A_TIME) {
            let asked = some.iter().map(|(shard, sessions)| self.find(*shard, sessions.clone()));
            for found in join_all(asked).await {
                here.extend(found?.into_iter().map(|member| member.session));
            }
        }
        Ok(entries.into_iter().filter(|entry| !here.contains(&entry.session)).collect())
    }

    // ── questions ────────────────────────────────────────────────────────────────────────────────

    async fn roll(&self, shard: ShardId, question: Roll) -> Result<Vec<Member>, NoAnswer> {
        self.peers.ask(&self.names.shard(shard), &question).await
    }

    /// What a shard has of some sessions.
    async fn find(&self, shard: ShardId, sessions: Vec<String>) -> Result<Vec<Member>, NoAnswer> {
        self.roll(shard, Roll { sessions, after: None, limit: u32::MAX }).await
    }

    async fn directory(&self, question: RollDirectory) -> Result<Directory, NoAnswer> {
        self.peers.ask(&self.names.shard(ShardId::ROOT), &question).await
    }

    /// What their objects know of subscriptions, in their order.
    async fn known(
        &self,
        subscriptions: impl Iterator<Item = (&str, Option<Generation>, SubscriptionEpoch)>,
    ) -> Result<Vec<Known>, NoAnswer> {
        let subscriptions: Vec<_> = subscriptions.collect();
        let mut known = Vec::with_capacity(subscriptions.len());
        for some in subscriptions.chunks(AT_A_TIME) {
            let asked = some.iter().map(|(session, generation, epoch)| {
                let source = self.names.source.clone();
                let question = Knows { source, generation: *generation, epoch: *epoch };
                async move { self.peers.ask(&self.names.session(session), &question).await }
            });
            for answer in join_all(asked).await {
                known.push(answer?);
            }
        }
        Ok(known)
    }
}

/// Judges a member that nobody knew of by what the shard has by now. `false`: it has gone.
fn look_again(member: &mut Member, state: &mut SubscriberState, again: &[Member]) -> bool {
    let is_same = |now: &&Member| now.session == member.session && now.source == member.source;
    let Some(now) = again.iter().find(is_same) else { return false };
    *state = match now {
        now if now.is_leaving => SubscriberState::Leaving,
        // It was made after the session was asked.
        now if now.epoch != member.epoch => SubscriberState::Live,
        _ => SubscriberState::Orphaned,
    };
    *member = now.clone();
    true
}

#[cfg(test)]
mod tests;
