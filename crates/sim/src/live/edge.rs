//! The edge's side of one client connection: frames put together, cut for the client, and credit
//! for the object.

use std::collections::VecDeque;

use engine::credit::Credit;
use engine::follow::{self, Follower, Window};
use engine::readers::Kind;
use protocol::limits::LIVE_CREDIT_BYTES;
use protocol::live::{FrameHead, Grant};
use protocol::offset::{Offset, Position};
use protocol::ws::{slices, split_messages};

use crate::live::wire::{EdgeEnd, Socket, Up};

/// Frames that wait for a client before its connection counts as full.
const OUT_MAX: usize = 4;

/// Why a client's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A long-poll has its answer, an event stream its time.
    Answered,
    /// The stream is closed, and all of it was delivered.
    Closed,
    /// The life that was read has ended.
    Gone,
    /// The service failed: come again.
    Failed,
}

/// What a client is shown.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// Bytes, and the offset behind them where the frame says it.
    Data(Vec<u8>, Option<Offset>),
    /// Where the client stands.
    Control { next: Offset, up_to_date: bool, closed: bool },
    /// The connection ends.
    End(Why),
}

/// Credit for the object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As the service gives it.
    Window(Window),
    /// The same by another measure: streams of a few hundred bytes never fill a megabyte.
    Small { window: u64, granted: Position },
}

impl Pace {
    /// A pace, and the credit that the object is told of when the reader stands at `from`.
    pub(crate) fn open(window: u64, from: Position, is_open: bool) -> (Self, Position) {
        if window == LIVE_CREDIT_BYTES {
            let granted = if is_open { follow::granted(from) } else { from };
            return (Self::Window(Window::open(from, is_open)), granted);
        }
        let granted = if is_open { from.saturating_add_bytes(window) } else { from };
        (Self::Small { window, granted }, granted)
    }

    fn consumed(&mut self, consumed: Position) -> Option<Grant> {
        match self {
            Self::Window(window) => window.consumed(consumed),
            Self::Small { window, granted } => {
                let up_to = consumed.saturating_add_bytes(*window);
                let more = up_to.saturating_since_bytes(*granted);
                if more <= *window / 2 {
                    return None;
                }
                *granted = up_to;
                Some(Grant { up_to })
            }
        }
    }
}

/// One client connection at an edge.
pub(crate) struct Edge {
    pub(crate) kind: Kind,
    pub(crate) json: bool,
    pub(crate) follower: Follower,
    /// Where the first internal connection began.
    pub(crate) located: Offset,
    pub(crate) pace: Pace,
    pub(crate) window: u64,
    pub(crate) credit: Credit,
    pub(crate) socket: Option<Socket>,
    /// What of the last frame is still to be passed on.
    pub(crate) held: VecDeque<Shown>,
    /// Passed on, and not yet taken by the client.
    pub(crate) out: VecDeque<Shown>,
    /// Behind what was passed on.
    pub(crate) consumed: Position,
    /// Data frames passed on, all of them and when the client granted for the first time.
    pub(crate) sent: u64,
    pub(crate) sent_free: u64,
    /// Frames that the client has granted.
    pub(crate) allowed: u64,
    pub(crate) is_ending: bool,
}

impl Edge {
    /// Where to connect again.
    pub(crate) fn next(&self) -> Offset {
        self.follower.next().unwrap_or(self.located)
    }

    /// Cuts the fresh bytes of a frame for the client.
    pub(crate) fn hold(&mut self, head: &FrameHead, fresh: &[u8], slice: usize) {
        if self.kind == Kind::LongPoll && fresh.is_empty() && !head.closed {
            return;
        }
        let mut at = head.to.0 - fresh.len() as u64;
        let whole = std::iter::once(0..fresh.len()).filter(|all| !all.is_empty());
        let pieces: Vec<_> = match (self.kind, self.json) {
            (Kind::WebSocket, true) => split_messages(fresh, slice).collect(),
            (Kind::WebSocket, false) => slices(fresh.len(), slice).collect(),
            _ => whole.collect(),
        };
        for piece in pieces {
            at += piece.len() as u64;
            let next = Offset { generation: head.generation, position: Position(at) };
            let next = Some(next).filter(|_| self.kind == Kind::WebSocket && self.json);
            self.held.push_back(Shown::Data(fresh[piece].to_vec(), next));
        }
        let (up_to_date, closed) = (head.up_to_date, head.closed);
        self.held.push_back(Shown::Control { next: self.next(), up_to_date, closed });
        if closed {
            self.end(Why::Closed);
        } else if self.kind == Kind::LongPoll {
            self.end(Why::Answered);
        }
    }

    /// Ends the client's connection after what is held.
    pub(crate) fn end(&mut self, why: Why) {
        if !self.is_ending {
            self.is_ending = true;
            self.held.push_back(Shown::End(why));
        }
    }

    /// Passes one frame on, if the client may have it.
    pub(crate) fn pass_on(&mut self, ignores_credit: bool) -> bool {
        let is_data = matches!(self.held.front(), Some(Shown::Data(..)));
        if is_data && (self.out.len() >= OUT_MAX || !(self.credit.take() || ignores_credit)) {
            return false;
        }
        let Some(shown) = self.held.pop_front() else { return false };
        if let Shown::Data(bytes, _) = &shown {
            self.sent += 1;
            self.consumed.0 += bytes.len() as u64;
        }
        self.out.push_back(shown);
        true
    }

    /// The client allows `n` more data frames.
    pub(crate) fn granted(&mut self, n: u64) {
        if !self.credit.is_strict() {
            self.sent_free = self.sent;
        }
        self.allowed += n;
        let granted = self.credit.grant(n);
        debug_assert_eq!(granted, Ok(()));
    }

    /// Gives the object credit, if the client could take more. Whether there was any to give.
    pub(crate) fn want_more(&mut self) -> bool {
        let wants = self.held.is_empty() && self.credit.left() != Some(0);
        let Some(socket) = self.socket.as_ref().filter(|_| wants && self.out.len() < OUT_MAX)
        else {
            return false;
        };
        let mut wire = socket.wire.borrow_mut();
        wire.consumed = self.consumed;
        let Some(grant) = self.pace.consumed(self.consumed) else { return false };
        wire.granted = wire.granted.max(grant.up_to);
        wire.up.push_back(Up::Grant(grant));
        true
    }

    /// Whether the client was sent more than it has allowed.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.credit.is_strict() && self.sent - self.sent_free > self.allowed
    }

    /// Gives the internal connection up. What the object gets to know of it: its close, nothing
    /// before it writes, or nothing at all.
    pub(crate) fn hang_up(&mut self, fate: u64) {
        let Some(socket) = self.socket.take() else { return };
        let mut wire = socket.wire.borrow_mut();
        wire.edge = match fate {
            0 => EdgeEnd::Silent,
            1 => EdgeEnd::Cut,
            _ => {
                wire.up.push_back(Up::Close);
                EdgeEnd::Silent
            }
        };
    }
}
