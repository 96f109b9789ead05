//! The internal socket between an edge and an object: frames one way, grants the other, both late.
//!
//! [`Socket`] is the object's end, the [`Outlet`] of the engine's map of readers. It judges what
//! the map does to it: everything that a socket can see by itself is checked here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use engine::cold::Locator;
use engine::readers::{Ending, Note, Outlet};
use protocol::live::{FRAME_HEAD_BYTES, FrameHead, Grant};
use protocol::offset::Position;

use crate::canary::LiveCanary;
use crate::violation::{Check, Invariant, Violation};

/// A frame as it was encoded. What a cold one says instead of its bytes is no text here.
#[derive(Debug)]
pub(crate) struct SentFrame {
    /// The head and, unless the frame is cold, the payload.
    pub(crate) bytes: Vec<u8>,
    /// Where the bytes of a cold frame are.
    pub(crate) locator: Option<Locator>,
    pub(crate) head: FrameHead,
}

/// What is on its way to the edge.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Frame(Rc<SentFrame>),
    End(Ending),
    Broken,
}

/// What is on its way to the object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Up {
    Grant(Grant),
    Close,
}

/// What became of the edge's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EdgeEnd {
    Open,
    /// It is gone, and nobody has told the object's machine.
    Silent,
    /// It is gone, and the next write will tell.
    Cut,
}

/// Both directions and what both ends know.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) down: VecDeque<Down>,
    pub(crate) up: VecDeque<Up>,
    pub(crate) edge: EdgeEnd,
    /// What the platform keeps for the object.
    pub(crate) note: Option<Note>,
    /// Whether the object has its end.
    pub(crate) is_held: bool,
    pub(crate) ended: Option<Ending>,
    /// Where the next frame has to begin.
    pub(crate) to: Position,
    /// Whether a frame was sent, or none is needed to say where the reader stands.
    pub(crate) greeted: bool,
    pub(crate) told_closed: bool,
    /// Memory was lost since the last frame: the next one may repeat.
    pub(crate) resumed: bool,
    /// Highest credit that the edge has given.
    pub(crate) granted: Position,
    /// Up to where the edge has passed on.
    pub(crate) consumed: Position,
    /// Bytes that may be granted and not consumed.
    pub(crate) window: u64,
}

/// What all sockets of an object tell the oracle.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    complaints: RefCell<Vec<Violation>>,
    sends: Cell<u64>,
}

impl Watch {
    /// Frames sent since the last call.
    pub(crate) fn take_sends(&self) -> u64 {
        self.sends.take()
    }

    /// The first thing that was wrong.
    pub(crate) fn check(&self) -> Check {
        self.complaints.borrow_mut().drain(..).next().map_or(Ok(()), Err)
    }

    fn complain(&self, invariant: Invariant, detail: String) {
        self.complaints.borrow_mut().push(Violation { invariant, detail });
    }
}

/// The object's end of a socket. Clones are the same end: the platform has one, the map another.
#[derive(Clone)]
pub(crate) struct Socket {
    pub(crate) wire: Rc<RefCell<Wire>>,
    watch: Rc<Watch>,
    canary: Rc<LiveCanary>,
}

impl Wire {
    /// A socket whose edge stands at `from`.
    pub(crate) fn new(from: Position, granted: Position, window: u64, greeted: bool) -> Self {
        Self {
            down: VecDeque::new(),
            up: VecDeque::new(),
            edge: EdgeEnd::Open,
            note: None,
            is_held: true,
            ended: None,
            to: from,
            greeted,
            told_closed: false,
            resumed: false,
            granted,
            consumed: from,
            window,
        }
    }

    /// Whether an instance that has only the note would leave nothing out: the reader has
    /// everything, or the note says where it stands and there is something to tell it.
    pub(crate) fn may_sleep(&self, tail: Position, closed: bool) -> bool {
        let noted = self.note.and_then(|note| note.sent);
        let has_all = self.greeted && self.to == tail && (!closed || self.told_closed);
        has_all || noted.is_some_and(|noted| noted < tail)
    }

    /// The object's machine is gone, or the connection broke: some of what was on its way arrives.
    pub(crate) fn snap(&mut self, arriving: usize) {
        self.down.truncate(arriving);
        self.down.push_back(Down::Broken);
        self.up.clear();
    }

    fn judge(&self, head: &FrameHead) -> Result<(), (Invariant, String)> {
        let has_bytes = head.to > head.from;
        let wrong = |invariant, what: &str| Err((invariant, format!("{what}: {head:?}, {self:?}")));
        if self.ended.is_some() || self.told_closed {
            return wrong(Invariant::Delivered, "a frame after the end");
        }
        if head.from != self.to && !(self.resumed && head.from < self.to) {
            return wrong(Invariant::Delivered, "a frame that does not follow the last one");
        }
        if !has_bytes && !head.closed && self.greeted {
            return wrong(Invariant::Wake, "a frame without news");
        }
        let credited = head.from < self.granted && head.from.0 <= self.consumed.0 + self.window;
        if has_bytes && !credited {
            return wrong(Invariant::Credit, "a frame without credit");
        }
        Ok(())
    }
}

impl Socket {
    pub(crate) fn new(wire: Wire, watch: &Rc<Watch>, canary: &Rc<LiveCanary>) -> Self {
        let wire = Rc::new(RefCell::new(wire));
        Self { wire, watch: Rc::clone(watch), canary: Rc::clone(canary) }
    }
}

impl Outlet for Socket {
    type Frame = Rc<SentFrame>;

    fn send(&self, frame: &Rc<SentFrame>) -> bool {
        let mut wire = self.wire.borrow_mut();
        if wire.edge == EdgeEnd::Cut {
            wire.is_held = false;
            return false;
        }
        self.watch.sends.set(self.watch.sends.get() + 1);
        if self.canary.forgets(frame) {
            return true;
        }
        if let Err((invariant, detail)) = wire.judge(&frame.head) {
            self.watch.complain(invariant, detail);
        }
        wire.to = frame.head.to;
        wire.greeted = true;
        wire.resumed = false;
        wire.told_closed |= frame.head.closed;
        if wire.edge == EdgeEnd::Open {
            wire.down.push_back(Down::Frame(Rc::clone(frame)));
        }
        true
    }

    fn note(&self, note: &Note) {
        self.wire.borrow_mut().note = Some(*note);
    }

    fn close(self, why: Ending) {
        let mut wire = self.wire.borrow_mut();
        if let Some(before) = wire.ended.replace(why) {
            let detail = format!("ended twice: {before:?}, {why:?}");
            self.watch.complain(Invariant::Wake, detail);
        }
        wire.is_held = false;
        if wire.edge == EdgeEnd::Open {
            wire.down.push_back(Down::End(why));
        }
    }
}

impl SentFrame {
    /// Bytes on the socket.
    pub(crate) fn size(&self) -> u64 {
        (self.bytes.len().max(FRAME_HEAD_BYTES)) as u64
    }
}
