//! A log of numbers, readers whose sockets are vectors.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use protocol::offset::Generation;

use super::*;

const PAGE: u64 = 10;
const ALL: Budget = Budget { readers: u64::MAX, bytes: u64::MAX };

/// What a reader's socket has seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    frames: Vec<FrameHead>,
    notes: Vec<Note>,
    closed: Option<Ending>,
    broken: bool,
}

#[derive(Clone, Debug, Default)]
struct Socket(Rc<RefCell<Seen>>);

impl Outlet for Socket {
    type Frame = FrameHead;

    fn send(&self, frame: &FrameHead) -> bool {
        let mut seen = self.0.borrow_mut();
        assert_eq!(seen.closed, None, "nothing is sent after the end");
        if !seen.broken {
            seen.frames.push(*frame);
        }
        !seen.broken
    }

    fn note(&self, note: &Note) {
        self.0.borrow_mut().notes.push(*note);
    }

    fn close(self, why: Ending) {
        let before = self.0.borrow_mut().closed.replace(why);
        assert_eq!(before, None, "a reader is ended once");
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Log {
    tail: u64,
    closed: bool,
}

impl Log {
    fn page(self, from: Position) -> Result<Framed<FrameHead>, Ending> {
        let to = self.tail.min(from.0 + PAGE);
        let up_to_date = to == self.tail;
        let head = FrameHead {
            from,
            to: Position(to),
            generation: Generation(1),
            up_to_date,
            closed: up_to_date && self.closed,
            cold: false,
        };
        Ok(Framed { head, size: to - from.0, frame: head })
    }
}

fn attach(readers: &mut Readers<Socket>, kind: Kind, from: u64, granted: u64) -> (u64, Socket) {
    let outlet = Socket::default();
    let until = UnixMillis(1_000);
    let (from, granted) = (Position(from), Position(granted));
    let attach = Attach { outlet: outlet.clone(), kind, from, granted, until, greeted: false };
    (readers.attach(attach), outlet)
}

fn last_frame(socket: &Socket) -> Option<(u64, u64)> {
    socket.0.borrow().frames.last().map(|head| (head.from.0, head.to.0))
}

#[test]
fn catches_up_page_by_page_and_follows() {
    let (mut readers, mut log) = (Readers::new(0), Log { tail: 25, closed: false });
    let (_, socket) = attach(&mut readers, Kind::Sse, 0, 100);
    assert_eq!(
        readers.serve(Budget { readers: 1, bytes: u64::MAX }, |from| log.page(from)),
        Turn::More
    );
    assert_eq!(readers.serve(ALL, |from| log.page(from)), Turn::Idle);
    assert_eq!(socket.0.borrow().frames.len(), 3);
    log.tail = 27;
    readers.grew(false);
    readers.serve(ALL, |from| log.page(from));
    assert_eq!(last_frame(&socket), Some((25, 27)));
    // Attached, and at the tail: nothing was noted per broadcast.
    assert_eq!(socket.0.borrow().notes.len(), 2);
}

#[test]
fn an_append_touches_only_readers_that_have_everything() {
    let (mut readers, mut log) = (Readers::new(0), Log { tail: 30, closed: false });
    let (starved, _) = attach(&mut readers, Kind::Sse, 0, 5);
    let (_, following) = attach(&mut readers, Kind::Sse, 30, 100);
    readers.serve(ALL, |from| log.page(from));
    log.tail = 31;
    readers.grew(false);
    let mut asked = Vec::new();
    readers.serve(ALL, |from| {
        asked.push(from.0);
        log.page(from)
    });
    assert_eq!(asked, [30]);
    assert_eq!(last_frame(&following), Some((30, 31)));
    readers.grant(starved, Position(11));
    assert!(readers.has_ready());
    readers.grant(starved, Position(7));
    readers.serve(ALL, |from| log.page(from));
    assert_eq!(readers.by_id[&starved].sent, Position(20), "a page may end past the credit");
}

#[test]
fn readers_at_one_position_share_a_frame() {
    let (mut readers, log) = (Readers::new(0), Log { tail: 5, closed: false });
    let sockets: Vec<_> = (0..50).map(|_| attach(&mut readers, Kind::Sse, 0, 100).1).collect();
    let mut pages = 0;
    readers.serve(ALL, |from| {
        pages += 1;
        log.page(from)
    });
    assert_eq!(pages, 1);
    assert!(sockets.iter().all(|socket| last_frame(socket) == Some((0, 5))));
}

#[test]
fn a_long_poll_is_answered_once() {
    let (mut readers, mut log) = (Readers::new(0), Log { tail: 5, closed: false });
    let outlet = Socket::default();
    let (from, granted, until) = (Position(5), Position(100), UnixMillis(1_000));
    let kind = Kind::LongPoll;
    let greeted = true;
    readers.attach(Attach { outlet: outlet.clone(), kind, from, granted, until, greeted });
    readers.serve(ALL, |from| log.page(from));
    assert_eq!((last_frame(&outlet), readers.waiting()), (None, 1));
    log.tail = 6;
    readers.grew(false);
    readers.serve(ALL, |from| log.page(from));
    assert_eq!((last_frame(&outlet), readers.waiting()), (Some((5, 6)), 0));
    assert_eq!(outlet.0.borrow().closed, Some(Ending::Done));
    assert_eq!(readers.attached_until(), UnixMillis(0));
}

#[test]
fn the_end_of_a_closed_stream_needs_no_credit() {
    let (mut readers, mut log) = (Readers::new(0), Log { tail: 5, closed: false });
    let (_, sse) = attach(&mut readers, Kind::Sse, 5, 5);
    let (socket_id, socket) = attach(&mut readers, Kind::WebSocket, 5, 5);
    let (_, behind) = attach(&mut readers, Kind::Sse, 0, 0);
    readers.serve(ALL, |from| log.page(from));
    log.closed = true;
    readers.grew(true);
    readers.serve(ALL, |from| log.page(from));
    assert_eq!(sse.0.borrow().closed, Some(Ending::Done));
    assert!(socket.0.borrow().frames.last().is_some_and(|head| head.closed));
    assert_eq!(socket.0.borrow().closed, None, "it may have appends to send");
    assert!(readers.contains(socket_id));
    assert_eq!(last_frame(&behind), None, "bytes need credit");
}

#[test]
fn a_page_that_cannot_be_read_ends_its_reader() {
    let mut readers = Readers::new(0);
    let (id, socket) = attach(&mut readers, Kind::Sse, 0, 100);
    readers.serve(ALL, |_| Err(Ending::Gone));
    assert_eq!(socket.0.borrow().closed, Some(Ending::Gone));
    assert!(!readers.contains(id));
}

#[test]
fn a_broken_socket_costs_one_attempt() {
    let (mut readers, log) = (Readers::new(0), Log { tail: 50, closed: false });
    let (_, broken) = attach(&mut readers, Kind::Sse, 0, 100);
    broken.0.borrow_mut().broken = true;
    let (_, whole) = attach(&mut readers, Kind::Sse, 0, 100);
    readers.serve(ALL, |from| log.page(from));
    assert_eq!((readers.len(), last_frame(&whole)), (1, Some((40, 50))));
}

#[test]
fn room_is_made_of_overdue_readers() {
    let (mut readers, log) = (Readers::<Socket>::new(0), Log::default());
    let (_, socket) = attach(&mut readers, Kind::Sse, 0, 100);
    readers.serve(ALL, |from| log.page(from));
    assert_eq!(readers.room(Kind::Sse, 1, 1, UnixMillis(1_500)), Room::Full);
    assert_eq!(readers.room(Kind::LongPoll, 2, 1, UnixMillis(1_500)), Room::Free);
    assert_eq!(readers.room(Kind::Sse, 1, 1, UnixMillis(1_501)), Room::Free);
    assert_eq!(socket.0.borrow().closed, Some(Ending::Again));
}

#[test]
fn notes_resume_readers_in_another_memory() {
    let (mut readers, log) = (Readers::new(0), Log { tail: 30, closed: false });
    let (_, starved) = attach(&mut readers, Kind::Sse, 0, 5);
    let (_, following) = attach(&mut readers, Kind::WebSocket, 30, 100);
    readers.serve(ALL, |from| log.page(from));
    let mut restored = Readers::new(0);
    for socket in [&starved, &following] {
        let note = socket.0.borrow().notes.last().copied().unwrap();
        restored.restore(socket.clone(), note, Position(30));
    }
    restored.serve(ALL, |from| log.page(from));
    assert_eq!(last_frame(&starved), Some((0, 10)), "sent once, before");
    let (id, _) = attach(&mut restored, Kind::Sse, 30, 100);
    assert_eq!((id, restored.len()), (3, 3), "ids are not used twice");
    restored.dismiss(Ending::Gone);
    assert_eq!((restored.len(), following.0.borrow().closed), (0, Some(Ending::Gone)));
}

/// What an object keeps for an idle reader besides the platform's socket and its attachment.
#[test]
fn an_idle_reader_costs_next_to_nothing() {
    let entry = size_of::<(u64, Reader<Socket>)>() + size_of::<u64>();
    assert!(entry <= 128, "{entry} bytes");
}

/// What happens to the map.
#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Close,
    Attach(u8, u64, u64),
    Grant(usize, u64),
    Leave(usize),
    Serve(u64),
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..30_u64).prop_map(Step::Append),
        1 => Just(Step::Close),
        4 => (0..3_u8, 0..100_u64, 0..40_u64).prop_map(|(k, f, g)| Step::Attach(k, f, g)),
        4 => (0..8_usize, 0..40_u64).prop_map(|(n, more)| Step::Grant(n, more)),
        1 => (0..8_usize).prop_map(Step::Leave),
        6 => (1..6_u64).prop_map(Step::Serve),
        1 => Just(Step::Forget),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// Whatever happens, each reader's frames are one run, within its credit, and when everybody
    /// was served nobody who could have more is left without.
    #[test]
    fn every_reader_gets_its_run(steps in steps()) {
        let (mut readers, mut log) = (Readers::new(0), Log::default());
        let mut all: Vec<(u64, Socket, u64, u64, Kind)> = Vec::new();
        let mut memories = 0;
        for step in steps {
            match step {
                Step::Append(more) if !log.closed => {
                    log.tail += more;
                    readers.grew(false);
                }
                Step::Close => {
                    log.closed = true;
                    readers.grew(true);
                }
                Step::Attach(kind, from, credit) => {
                    let kind = [Kind::LongPoll, Kind::Sse, Kind::WebSocket][usize::from(kind)];
                    let from = from.min(log.tail);
                    let (id, socket) = attach(&mut readers, kind, from, from + credit);
                    all.push((id, socket, from, from + credit, kind));
                }
                Step::Grant(n, more) => if let Some(reader) = all.get_mut(n) {
                    reader.3 += more;
                    readers.grant(reader.0, Position(reader.3));
                },
                Step::Leave(n) => if let Some(reader) = all.get(n) {
                    readers.leave(reader.0);
                },
                Step::Serve(count) => {
                    readers.serve(Budget { readers: count, bytes: 25 }, |from| log.page(from));
                }
                Step::Forget => {
                    // Only what waits for no turn may be forgotten: the object stays awake until then.
                    while readers.serve(ALL, |from| log.page(from)) == Turn::More {}
                    memories += 1;
                    let mut restored = Readers::new(memories * 1_000);
                    for (id, socket, ..) in &all {
                        if readers.contains(*id) {
                            let note = socket.0.borrow().notes.last().copied().unwrap();
                            restored.restore(socket.clone(), note, Position(log.tail));
                        }
                    }
                    readers = restored;
                }
                Step::Append(_) => {}
            }
        }
        while readers.serve(ALL, |from| log.page(from)) == Turn::More {}
        for (id, socket, from, granted, kind) in all {
            let seen = socket.0.borrow();
            let mut next = from;
            for head in &seen.frames {
                prop_assert!(head.from.0 <= next, "a gap before {head:?}");
                prop_assert!(head.from == head.to || head.from.0 < granted, "{head:?} past {granted}");
                next = next.max(head.to.0);
            }
            if readers.contains(id) {
                let served = next == log.tail || next >= granted;
                prop_assert!(served, "reader {id} stands at {next} of {}", log.tail);
                let told = !log.closed || next < log.tail || kind == Kind::WebSocket;
                prop_assert!(told, "reader {id} was not told of the end");
            }
        }
    }
}
