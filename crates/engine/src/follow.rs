//! The other end of a live reader: frames put back together into one run of the log.
//!
//! Frames name the range of the log that they carry. [`Follower`] says of each what is new in it;
//! [`Window`] decides when the sender gets more credit, so that at most a window of bytes is
//! granted and not consumed.
//!
//! # Invariants
//! What is taken of all frames, one after the other, is the log from the first frame's start on: no
//! byte twice, none left out, over any number of connections.
//!
//! # What does not belong here
//! Sockets, and how the bytes are told to a client.

use protocol::limits::LIVE_CREDIT_BYTES;
use protocol::live::{FrameHead, Grant};
use protocol::offset::{Offset, Position};

/// Where a reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    next: Option<Offset>,
}

/// What a frame brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// What comes after its first `repeated` bytes; that may be nothing.
    Fresh {
        /// Bytes at the start of the frame that were there before.
        repeated: u64,
    },
    /// Bytes are missing before it: connect again at [`Follower::next`].
    Gap,
}

impl Follower {
    /// A reader that stands at `next`; at the first frame's start if that is not known.
    #[must_use]
    pub fn at(next: Option<Offset>) -> Self {
        Self { next }
    }

    /// The offset behind everything that was taken.
    #[must_use]
    pub fn next(&self) -> Option<Offset> {
        self.next
    }

    /// Judges a frame; unless there is a gap, it counts as taken.
    pub fn take(&mut self, head: &FrameHead) -> Arrived {
        let expected = self.next.map_or(head.from, |next| next.position);
        if head.from > expected {
            return Arrived::Gap;
        }
        if self.next.is_none_or(|next| next.position <= head.to) {
            self.next = Some(head.next_offset());
        }
        let length = head.to.saturating_since_bytes(head.from);
        Arrived::Fresh { repeated: expected.saturating_since_bytes(head.from).min(length) }
    }
}

/// Credit for the sender: absolute, so that a lost or repeated grant does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    granted: Position,
}

impl Window {
    /// The sender's credit when the reader stands at `from`: a window, or nothing for a reader that
    /// asked for nothing yet.
    #[must_use]
    pub fn open(from: Position, is_open: bool) -> Self {
        Self { granted: if is_open { granted(from) } else { from } }
    }

    /// Everything before `consumed` was taken, and more is wanted. The grant to send, if it is worth
    /// one.
    pub fn consumed(&mut self, consumed: Position) -> Option<Grant> {
        let up_to = granted(consumed);
        let more = up_to.saturating_since_bytes(self.granted);
        if more <= LIVE_CREDIT_BYTES / 2 {
            return None;
        }
        self.granted = up_to;
        Some(Grant { up_to })
    }
}

/// Credit of a reader that stands at `from`.
#[must_use]
pub fn granted(from: Position) -> Position {
    from.saturating_add_bytes(LIVE_CREDIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::offset::Generation;

    fn head(from: u64, to: u64) -> FrameHead {
        FrameHead {
            from: Position(from),
            to: Position(to),
            generation: Generation(7),
            up_to_date: false,
            closed: false,
            cold: false,
        }
    }

    #[test]
    fn the_first_frame_says_where_the_reader_stands() {
        let mut follower = Follower::default();
        assert_eq!(follower.take(&head(5, 9)), Arrived::Fresh { repeated: 0 });
        assert_eq!(follower.next().map(|next| next.position), Some(Position(9)));
    }

    #[test]
    fn what_repeats_is_counted_and_what_is_missing_is_a_gap() {
        let mut follower = Follower::default();
        follower.take(&head(0, 10));
        assert_eq!(follower.take(&head(4, 12)), Arrived::Fresh { repeated: 6 });
        assert_eq!(follower.take(&head(2, 8)), Arrived::Fresh { repeated: 6 });
        assert_eq!(follower.take(&head(13, 14)), Arrived::Gap);
        assert_eq!(follower.next().map(|next| next.position), Some(Position(12)));
    }

    #[test]
    fn credit_is_granted_by_the_half_window() {
        let mut window = Window::open(Position(0), true);
        assert_eq!(window.consumed(Position(LIVE_CREDIT_BYTES / 2)), None);
        let grant = window.consumed(Position(LIVE_CREDIT_BYTES / 2 + 1));
        assert_eq!(grant, Some(Grant { up_to: Position(LIVE_CREDIT_BYTES * 3 / 2 + 1) }));
        let mut shut = Window::open(Position(0), false);
        assert_eq!(shut.consumed(Position(0)), Some(Grant { up_to: Position(LIVE_CREDIT_BYTES) }));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_one_run(frames in prop::collection::vec((0..50_u64, 0..20_u64), 1..60)) {
            let mut follower = Follower::at(Some(head(0, 0).next_offset()));
            let mut taken = Vec::new();
            for (from, length) in frames {
                let head = head(from, from + length);
                if let Arrived::Fresh { repeated } = follower.take(&head) {
                    taken.extend(from + repeated..from + length);
                }
            }
            let expected: Vec<u64> = (0..taken.len() as u64).collect();
            prop_assert_eq!(taken, expected);
        }
    }
}
