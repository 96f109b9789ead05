//! Publishers that wait to be told what became of their message.
//!
//! A publish is answered when every shard that the source had at that time has been heard of: it has
//! noted the message, has no subscribers any more, or did not answer. In each case the message is in the
//! source's log, and will reach every subscriber.

use std::collections::BTreeSet;

use protocol::fanout::{Fanout, FanoutMode, ShardId};
use protocol::offset::Position;

/// Who waits, each with what answers them.
pub struct Publishers<T> {
    waiting: Vec<Publisher<T>>,
}

struct Publisher<T> {
    /// The tail after the message.
    position: Position,
    /// Shards that have not been heard of.
    shards: BTreeSet<ShardId>,
    fanout: Fanout,
    ticket: T,
}

impl<T> Default for Publishers<T> {
    fn default() -> Self {
        Self { waiting: Vec::new() }
    }
}

/// What was heard of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has noted everything up to a tail.
    Noted(Position, Fanout),
    /// It has no subscribers.
    Dropped,
    /// It did not answer.
    Silent,
}

impl<T> Publishers<T> {
    /// Somebody waits for what is before `position`. `shards` are all that the source has.
    pub fn wait(
        &mut self,
        position: Position,
        shards: impl IntoIterator<Item = ShardId>,
        ticket: T,
    ) {
        let shards = shards.into_iter().collect();
        self.waiting.push(Publisher { position, shards, fanout: Fanout::default(), ticket });
    }

    /// Something was heard of a shard: who can be answered now, and with what, in the order in which
    /// they came.
    pub fn hear(&mut self, shard: ShardId, heard: Heard) -> Vec<(T, Fanout)> {
        for publisher in &mut self.waiting {
            let fanout = match heard {
                Heard::Noted(tail, _) if tail < publisher.position => continue,
                Heard::Noted(_, fanout) => fanout,
                Heard::Dropped => Fanout::default(),
                Heard::Silent => Fanout { mode: FanoutMode::Deferred, ..Fanout::default() },
            };
            if publisher.shards.remove(&shard) {
                publisher.fanout = publisher.fanout.and(fanout);
            }
        }
        self.take(|publisher| publisher.shards.is_empty())
    }

    fn take(&mut self, is_done: impl Fn(&Publisher<T>) -> bool) -> Vec<(T, Fanout)> {
        let waiting = std::mem::take(&mut self.waiting);
        let (done, waiting) = waiting.into_iter().partition(is_done);
        self.waiting = waiting;
        let done: Vec<Publisher<T>> = done;
        done.into_iter().map(|publisher| (publisher.ticket, publisher.fanout)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fanout(count: u64, mode: FanoutMode) -> Fanout {
        Fanout { count, successes: count, failures: 0, mode }
    }

    #[test]
    fn a_publish_is_answered_when_every_shard_was_heard_of() {
        let mut publishers = Publishers::default();
        let shards = [ShardId(0), ShardId(1)];
        publishers.wait(Position(10), shards, "a");
        publishers.wait(Position(20), shards, "b");
        let inline = |count| Heard::Noted(Position(10), fanout(count, FanoutMode::Inline));
        assert!(publishers.hear(ShardId(0), inline(3)).is_empty());
        let done = publishers.hear(ShardId(1), inline(2));
        assert_eq!(done, [("a", fanout(5, FanoutMode::Inline))]);
        let queued = Heard::Noted(Position(30), fanout(3, FanoutMode::Queued));
        assert!(publishers.hear(ShardId(0), queued).is_empty());
        assert!(publishers.hear(ShardId(0), queued).is_empty());
        let done = publishers.hear(ShardId(1), Heard::Dropped);
        assert_eq!(done, [("b", fanout(3, FanoutMode::Queued))]);
        assert!(publishers.waiting.is_empty());
    }

    #[test]
    fn silence_defers() {
        let mut publishers = Publishers::default();
        publishers.wait(Position(10), [ShardId(0)], ());
        let done = publishers.hear(ShardId(0), Heard::Silent);
        assert_eq!(done, [((), Fanout { mode: FanoutMode::Deferred, ..Fanout::default() })]);
    }
}
