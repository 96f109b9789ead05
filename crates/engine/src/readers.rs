//! Live readers of a stream: who waits for what, and the pump that feeds them.
//!
//! Catch-up and live tail are one loop: send from the reader's position until credit or tail stops
//! it, one page a turn. There is no second path that could reorder.
//!
//! - [`Readers`] is the map. A reader stands in exactly one place, by what it needs: bytes (it has
//!   everything), credit (it may not be sent more), a turn (there is something to send), or nothing
//!   any more (it has the end of a closed stream).
//! - [`Outlet`] is a reader's socket. Closing consumes it, so a reader is ended once.
//! - [`Note`] is what has to survive the loss of memory to resume a reader.
//!
//! # Invariants
//! - An append touches the readers that have everything, and no others: its cost does not grow with
//!   readers that wait for credit. One turn serves a bounded number of readers and bytes.
//! - Nothing past `granted` is sent. The last page before it may end behind it: pages end at
//!   message boundaries.
//! - The ranges that a reader is sent are contiguous, unless memory was lost: then they may repeat.
//! - A note changes when a grant arrives and when a reader leaves or reaches the tail, never per
//!   broadcast.
//!
//! # Error semantics
//! A page that cannot be read ends its reader with the [`Ending`] that the reason calls for; an
//! outlet that does not take a frame is broken and forgotten.
//!
//! # What does not belong here
//! Sockets, how a frame is encoded, and who calls [`Readers::serve`] again when it is not done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::live::FrameHead;
use protocol::offset::Position;
use protocol::time::UnixMillis;

/// How long past its end a reader's connection may still be reported as open.
const OVERDUE_MS: u64 = 500;

/// What a reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One frame with news.
    LongPoll,
    /// Every frame until it is recycled or the stream is closed.
    Sse,
    /// Every frame until it leaves: it may have appends to send after the end of a closed stream.
    WebSocket,
}

/// Why a reader is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has what it came for.
    Done,
    /// The life that it reads has ended.
    Gone,
    /// It is to connect again at its position.
    Again,
}

/// What has to survive the loss of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The reader.
    pub id: u64,
    /// What it waits for.
    pub kind: Kind,
    /// Next position to send; `None` at the tail.
    pub sent: Option<Position>,
    /// Absolute credit: no page may begin here or later.
    pub granted: Position,
    /// When the other end will have ended the connection by itself.
    pub until: UnixMillis,
}

/// A reader's socket.
pub trait Outlet {
    /// An encoded frame, shared by all readers that start where it does.
    type Frame;

    /// Sends a frame. `false`: the socket is broken.
    fn send(&self, frame: &Self::Frame) -> bool;

    /// Keeps a note, replacing the last one.
    fn note(&self, note: &Note);

    /// Ends the connection after what was sent.
    fn close(self, why: Ending);
}

/// A page as a frame.
#[derive(Clone, Debug)]
pub struct Framed<F> {
    /// What it carries.
    pub head: FrameHead,
    /// Bytes on the socket.
    pub size: u64,
    /// The frame.
    pub frame: F,
}

/// How much one turn may do before other work has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Readers served.
    pub readers: u64,
    /// Bytes sent; the frame that passes it is the last.
    pub bytes: u64,
}

/// What a turn left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nobody waits for a turn.
    Idle,
    /// Some do.
    More,
}

/// Whether there is room for one more reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// As many as may be are attached.
    Full,
}

/// What a reader needs, and so where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// It has everything: in `at_tail`.
    Bytes,
    /// It may not be sent more: in no index.
    Credit,
    /// There may be something to send: in `ready`.
    Turn,
    /// It has the end of a closed stream: in no index.
    Nothing,
}

struct Reader<O> {
    outlet: O,
    kind: Kind,
    sent: Position,
    granted: Position,
    until: UnixMillis,
    /// What the note says of the position.
    noted: Option<Position>,
    needs: Needs,
    /// Whether it knows where it stands; until then it gets a frame even if that has no bytes.
    greeted: bool,
}

/// The live readers of one stream.
pub struct Readers<O: Outlet> {
    by_id: BTreeMap<u64, Reader<O>>,
    at_tail: BTreeSet<u64>,
    ready: VecDeque<u64>,
    last_id: u64,
    waiting: u64,
    attached_until: UnixMillis,
}

/// A reader that wants to be attached.
#[derive(Debug)]
pub struct Attach<O> {
    /// Its socket.
    pub outlet: O,
    /// What it waits for.
    pub kind: Kind,
    /// Where it stands.
    pub from: Position,
    /// Absolute credit: no page may begin here or later.
    pub granted: Position,
    /// When the other end will have ended the connection by itself.
    pub until: UnixMillis,
    /// Whether it knows already that it stands at the tail.
    pub greeted: bool,
}

impl<O: Outlet> Readers<O> {
    /// Nobody. The first reader's id will be above `last_id`: an instance chooses it above all ids
    /// of earlier ones, so that the late end of a socket is not taken for that of another.
    #[must_use]
    pub fn new(last_id: u64) -> Self {
        Self {
            by_id: BTreeMap::new(),
            at_tail: BTreeSet::new(),
            ready: VecDeque::new(),
            last_id,
            waiting: 0,
            attached_until: UnixMillis::default(),
        }
    }

    /// Readers attached, in all modes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.by_id.len() as u64
    }

    /// Whether nobody is attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Long-polls among them.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Readers of one kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.by_id.values().filter(|reader| reader.kind == kind).count() as u64
    }

    /// Whether somebody waits for a turn.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The latest `until` of any reader since there was none: never too early, and that is what
    /// counts for a lifetime that readers defer.
    #[must_use]
    pub fn attached_until(&self) -> UnixMillis {
        self.attached_until
    }

    /// Whether another reader may be attached. When there is no room, readers whose connections
    /// ended without a word are ended first.
    pub fn room(
        &mut self,
        kind: Kind,
        readers_max: u64,
        waiters_max: u64,
        now: UnixMillis,
    ) -> Room {
        let is_full = |readers: &Self| {
            readers.len() >= readers_max
                || (kind == Kind::LongPoll && readers.waiting >= waiters_max)
        };
        if is_full(self) {
            self.end_overdue(now);
        }
        if is_full(self) { Room::Full } else { Room::Free }
    }

    /// Attaches a reader; it waits for its turn. Returns its id.
    pub fn attach(&mut self, attach: Attach<O>) -> u64 {
        self.last_id = self.last_id.wrapping_add(1);
        let Attach { outlet, kind, from, granted, until, greeted } = attach;
        // A long-poll begins at the tail.
        let noted = Some(from).filter(|_| kind != Kind::LongPoll);
        let needs = Needs::Turn;
        let reader = Reader { outlet, kind, sent: from, granted, until, noted, needs, greeted };
        reader.outlet.note(&reader.as_note(self.last_id));
        self.insert(self.last_id, reader);
        self.last_id
    }

    /// Takes up a reader that outlived the memory, as its note says.
    pub fn restore(&mut self, outlet: O, note: Note, tail: Position) {
        self.last_id = self.last_id.max(note.id);
        let sent = note.sent.unwrap_or(tail);
        let needs = if sent >= tail { Needs::Bytes } else { Needs::Turn };
        let reader = Reader {
            outlet,
            kind: note.kind,
            sent,
            granted: note.granted,
            until: note.until,
            noted: note.sent,
            needs,
            greeted: true,
        };
        self.insert(note.id, reader);
    }

    /// The log has grown, or was closed: readers that have everything get a turn. The end of a
    /// closed stream is told without credit, so then everybody does.
    pub fn grew(&mut self, closed: bool) {
        let woken: Vec<u64> = if closed {
            self.at_tail.clear();
            let waits = |needs| matches!(needs, Needs::Bytes | Needs::Credit);
            self.by_id.iter().filter(|(_, r)| waits(r.needs)).map(|(id, _)| *id).collect()
        } else {
            std::mem::take(&mut self.at_tail).into_iter().collect()
        };
        for id in &woken {
            if let Some(reader) = self.by_id.get_mut(id) {
                reader.needs = Needs::Turn;
            }
        }
        self.ready.extend(woken);
    }

    /// Serves readers that wait for a turn, one page each, until the budget is spent. `page` frames
    /// the page at a position.
    pub fn serve(
        &mut self,
        budget: Budget,
        mut page: impl FnMut(Position) -> Result<Framed<O::Frame>, Ending>,
    ) -> Turn {
        let mut last = None;
        let mut bytes = 0;
        for _ in 0..budget.readers {
            let Some(id) = self.ready.pop_front() else { return Turn::Idle };
            bytes += self.feed(id, &mut last, &mut page);
            if bytes >= budget.bytes {
                break;
            }
        }
        if self.ready.is_empty() { Turn::Idle } else { Turn::More }
    }

    /// Credit for a reader: no page may begin at `up_to` or later. It never shrinks.
    pub fn grant(&mut self, id: u64, up_to: Position) {
        let Some(reader) = self.by_id.get_mut(&id).filter(|r| r.granted < up_to) else { return };
        reader.granted = up_to;
        reader.outlet.note(&reader.as_note(id));
        if reader.needs == Needs::Credit {
            reader.needs = Needs::Turn;
            self.ready.push_back(id);
        }
    }

    /// Whether the reader is attached.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// A reader's connection has ended. Gives back its outlet.
    pub fn leave(&mut self, id: u64) -> Option<O> {
        let reader = self.by_id.remove(&id)?;
        self.at_tail.remove(&id);
        self.waiting = self.waiting.saturating_sub(u64::from(reader.kind == Kind::LongPoll));
        if self.by_id.is_empty() {
            self.ready.clear();
            self.attached_until = UnixMillis::default();
        }
        Some(reader.outlet)
    }

    /// Ends every reader.
    pub fn dismiss(&mut self, why: Ending) {
        for (_, reader) in std::mem::take(&mut self.by_id) {
            reader.outlet.close(why);
        }
        *self = Self::new(self.last_id);
    }

    /// Ends readers whose connections have ended without a word.
    fn end_overdue(&mut self, now: UnixMillis) {
        let overdue = |reader: &Reader<O>| reader.until.saturating_add_ms(OVERDUE_MS) < now;
        let ids: Vec<u64> =
            self.by_id.iter().filter(|(_, r)| overdue(r)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, Ending::Again);
        }
    }

    fn end(&mut self, id: u64, why: Ending) {
        if let Some(outlet) = self.leave(id) {
            outlet.close(why);
        }
    }

    fn insert(&mut self, id: u64, reader: Reader<O>) {
        self.attached_until = self.attached_until.max(reader.until);
        self.waiting += u64::from(reader.kind == Kind::LongPoll);
        match reader.needs {
            Needs::Bytes => {
                self.at_tail.insert(id);
            }
            Needs::Turn => self.ready.push_back(id),
            Needs::Credit | Needs::Nothing => {}
        }
        self.by_id.insert(id, reader);
    }

    /// Sends a reader its next page, if it may have one. Returns the bytes sent.
    fn feed(
        &mut self,
        id: u64,
        last: &mut Option<Framed<O::Frame>>,
        page: &mut impl FnMut(Position) -> Result<Framed<O::Frame>, Ending>,
    ) -> u64 {
        // One that has left may still stand in the queue.
        let Some(reader) = self.by_id.get_mut(&id).filter(|r| r.needs == Needs::Turn) else {
            return 0;
        };
        let framed = match last {
            Some(framed) if framed.head.from == reader.sent => framed,
            _ => match page(reader.sent) {
                Ok(framed) => last.insert(framed),
                Err(why) => {
                    self.end(id, why);
                    return 0;
                }
            },
        };
        let (sent, next) = reader.take(id, framed);
        match next {
            Next::Needs(needs) => {
                reader.needs = needs;
                match needs {
                    Needs::Bytes => {
                        self.at_tail.insert(id);
                    }
                    Needs::Turn => self.ready.push_back(id),
                    Needs::Credit | Needs::Nothing => {}
                }
            }
            Next::Broken => {
                self.leave(id);
            }
            Next::Done => self.end(id, Ending::Done),
        }
        sent
    }
}

/// What becomes of a reader that was fed.
enum Next {
    Needs(Needs),
    Broken,
    Done,
}

impl<O: Outlet> Reader<O> {
    /// Takes the frame at its position, or its head alone as a greeting, or nothing.
    fn take(&mut self, id: u64, framed: &Framed<O::Frame>) -> (u64, Next) {
        let head = &framed.head;
        let has_bytes = head.to > head.from;
        if has_bytes && self.sent >= self.granted {
            self.note(id, Some(self.sent));
            return (0, Next::Needs(Needs::Credit));
        }
        let is_news = has_bytes || head.closed;
        let mut sent = 0;
        if is_news || !self.greeted {
            if !self.outlet.send(&framed.frame) {
                return (0, Next::Broken);
            }
            sent = framed.size;
        }
        self.sent = head.to;
        self.greeted = true;
        let next = match self.kind {
            Kind::WebSocket if head.closed => Next::Needs(Needs::Nothing),
            _ if head.closed => Next::Done,
            Kind::LongPoll if is_news => Next::Done,
            _ if head.up_to_date => Next::Needs(Needs::Bytes),
            _ => Next::Needs(Needs::Turn),
        };
        if let Next::Needs(Needs::Bytes | Needs::Nothing) = next {
            self.note(id, None);
        }
        (sent, next)
    }

    fn note(&mut self, id: u64, sent: Option<Position>) {
        if self.noted != sent {
            self.noted = sent;
            self.outlet.note(&self.as_note(id));
        }
    }

    fn as_note(&self, id: u64) -> Note {
        let Self { kind, noted, granted, until, .. } = *self;
        Note { id, kind, sent: noted, granted, until }
    }
}

#[cfg(test)]
mod tests;
