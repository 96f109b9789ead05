//! Links: a session's stream, and how far it has each of its sources.
//!
//! A link is an entry (source, life of the source) → (epoch, next): everything of the source before
//! `next` was delivered for the subscription `epoch`. It rides in the header of the extent that
//! holds the delivered bytes, like a producer's state: one row makes a delivery atomic, and one that
//! comes twice is stored once.
//!
//! # Core types
//! - [`Links`]: what is in memory. Changes since the last checkpoint are `dirty` and live in headers;
//!   the rest is asked from the table and kept in a bounded memory.
//! - `session`: the session's life, and attaching and detaching. `delivery`: what becomes of a range.
//!
//! # Invariants
//! 1. A header that is replayed is newer than the table: whoever writes the table for a link that a
//!    header since the checkpoint names moves the checkpoint to the tail in the same commit.
//! 2. A link's epoch never goes back, nor, within an epoch, its `next`.
//! 3. At or below a source's floor nothing is attached any more.
//!
//! # Error semantics
//! [`crate::log::LogError`]: nothing was stored. What the session decides is part of the answer.
//!
//! # What stays out
//! Why a subscription begins or ends, and who asks.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use protocol::fanout::{SourceLife, SubscriptionEpoch};
use protocol::offset::Generation;

use crate::append::checkpoint;
use crate::log::{LinkState, LogError, Write};
use crate::stream::Current;

pub(crate) mod delivery;
mod session;
#[cfg(test)]
mod tests;

/// Answers of the table that are kept; past it the memory starts anew.
const CLEAN_MAX: usize = 4_096;

/// Links of one life of a session's stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    dirty: HashMap<SourceLife, LinkState>,
    clean: HashMap<SourceLife, Option<LinkState>>,
}

/// The key of a source's floor in the table.
pub(crate) fn floor_of(source: &str) -> SourceLife {
    SourceLife { source: source.to_owned(), generation: Generation(0) }
}

impl Links {
    /// What is known of a link; `table` is asked when memory does not know.
    pub(crate) fn last(
        &mut self,
        link: &SourceLife,
        table: impl FnOnce() -> Result<Option<LinkState>, LogError>,
    ) -> Result<Option<LinkState>, LogError> {
        if let Some(state) = self.dirty.get(link) {
            return Ok(Some(*state));
        }
        if let Some(state) = self.clean.get(link) {
            return Ok(*state);
        }
        let state = table()?;
        self.keep(link.clone(), state);
        Ok(state)
    }

    /// Notes what a header says, or is about to say.
    pub(crate) fn advance(&mut self, link: SourceLife, state: LinkState) {
        self.dirty.insert(link, state);
    }

    /// Number of links that changed since the last checkpoint.
    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Hands out what changed since the last checkpoint; it counts as written from now on.
    pub(crate) fn take_dirty(&mut self) -> Vec<(SourceLife, LinkState)> {
        let mut taken: Vec<_> = self.dirty.drain().collect();
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        for (link, state) in &taken {
            self.keep(link.clone(), Some(*state));
        }
        taken
    }

    fn keep(&mut self, link: SourceLife, state: Option<LinkState>) {
        if self.clean.len() >= CLEAN_MAX {
            self.clean.clear();
        }
        self.clean.insert(link, state);
    }

    /// Forgets links of a source, floors apart; `true` when a header since the checkpoint names one.
    fn forget(
        &mut self,
        source: &str,
        generation: Option<Generation>,
        epochs: &RangeInclusive<SubscriptionEpoch>,
    ) -> bool {
        let goes = |link: &SourceLife, state: &LinkState| {
            link.source == source
                && generation.is_none_or(|wanted| wanted == link.generation)
                && state.next.is_some()
                && epochs.contains(&state.epoch)
        };
        let before = self.dirty.len();
        self.dirty.retain(|link, state| !goes(link, state));
        self.clean.retain(|link, state| !state.is_some_and(|state| goes(link, &state)));
        self.dirty.len() < before
    }
}

/// Plans the row of a link, or of a floor, outside of any extent.
fn plan_link<B>(
    current: &mut Current,
    writes: &mut Vec<Write<B>>,
    link: SourceLife,
    state: LinkState,
) {
    if current.links.dirty.contains_key(&link) {
        current.links.advance(link, state);
        checkpoint(current, writes);
        return;
    }
    current.links.keep(link.clone(), Some(state));
    let (life, as_of) = (current.life.generation, current.tail);
    writes.push(Write::Link { life, link, state, as_of });
}

/// Plans the end of links of a source.
fn plan_no_links<B>(
    current: &mut Current,
    writes: &mut Vec<Write<B>>,
    source: &str,
    generation: Option<Generation>,
    epochs: RangeInclusive<SubscriptionEpoch>,
) {
    let life = current.life.generation;
    let named = current.links.forget(source, generation, &epochs);
    let (source, from, up_to) = (source.to_owned(), *epochs.start(), *epochs.end());
    writes.push(Write::DropLinks { life, source, generation, from, up_to });
    if named {
        checkpoint(current, writes);
    }
}
