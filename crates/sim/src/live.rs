//! Live readers: the engine's map of readers in every object, sockets to edges, edges with the
//! engine's follower and window, and clients of any speed.
//!
//! ```text
//! Object: Readers ──frames──► Wire ──► Edge: Follower, Window, Credit ──► Client
//!                 ◄──grants──      ◄──                              ◄──credit──
//! ```
//! A turn of an object, a frame that arrives, a slice that is passed on: each is a step of its own,
//! and anything may happen in between. What a client is shown is judged in [`client`], what a
//! socket is sent in [`wire`], and that everybody gets everything at the end of the run in
//! [`settle`].

mod client;
mod edge;
mod settle;
mod steps;
mod wire;

use std::rc::Rc;

use engine::Missing;
use engine::cold::Content;
use engine::life::Phase;
use engine::read::{Dress, Page, ReadError};
use engine::readers::{Attach, Budget, Ending, Framed, Kind, Readers, Room, Turn};
use protocol::live::{Frame, FrameHead};
use protocol::offset::{OffsetParam, Position};

pub(crate) use client::Client;
pub(crate) use wire::{SentFrame, Socket, Watch};

use crate::live::wire::{EdgeEnd, Wire};
use crate::verbs::Found;
use crate::violation::{Check, ensure};
use crate::world::World;

/// What became of an internal connection.
enum Connected {
    Open(Socket, Position),
    /// There is no such life.
    Refused,
    /// Not now.
    Failed,
}

/// How an edge opens an internal connection.
struct Open {
    kind: Kind,
    offset: OffsetParam,
    /// Whether the client can take bytes.
    is_open: bool,
}

/// A page with what was asked for.
type Served = (Position, Page<Vec<u8>>);

impl World {
    // The object.

    /// Whether an instance could go and its readers stay: nobody waits for a turn but those whose
    /// notes say where they stand.
    pub(crate) fn may_sleep(&self, at: usize) -> bool {
        let object = &self.objects[at];
        let Some(life) = &object.model.current else { return object.stream.is_some() };
        let (tail, closed) = (Position(life.tail()), life.closed);
        let held = object.sockets.iter().map(|socket| socket.wire.borrow());
        let mut held = held.filter(|wire| wire.is_held);
        object.stream.is_some() && held.all(|wire| wire.may_sleep(tail, closed))
    }

    /// An object with readers sleeps, if it may; where instances never end, none does.
    fn evict_one(&mut self) -> Check {
        let count = self.objects.len();
        let any = self.rng.index(count);
        let order = (0..count).map(|step| (any + step) % count);
        let sleeps = |at: &usize| !self.objects[*at].sockets.is_empty() && self.may_sleep(*at);
        let at = order.into_iter().find(sleeps).filter(|_| self.profile.crashes());
        at.map_or(Ok(()), |at| {
            self.note(format!("{} sleeps", self.objects[at].name));
            self.lose_instance(at)
        })
    }

    /// The machine of an object is gone, and every socket with it.
    pub(crate) fn break_sockets(&mut self, at: usize) {
        for socket in std::mem::take(&mut self.objects[at].sockets) {
            let mut wire = socket.wire.borrow_mut();
            let arriving = self.rng.index(wire.down.len() + 1);
            wire.is_held = false;
            wire.snap(arriving);
        }
    }

    /// Some object serves readers.
    pub(crate) fn turn_of_one(&mut self) -> Check {
        let count = self.objects.len();
        let any = self.rng.index(count);
        let order = (0..count).map(|step| (any + step) % count);
        let ready = order.into_iter().find(|at| self.objects[*at].readers.has_ready());
        ready.map_or(Ok(()), |at| self.turn(at))
    }

    /// One turn: some pages for some readers.
    pub(crate) fn turn(&mut self, at: usize) -> Check {
        let live = &self.profile.live;
        let (most, chunk) = (live.turn_readers, live.chunk);
        let budget = Budget {
            readers: 1 + self.rng.below(most),
            bytes: self.rng.pick(&[1, 100, 1_000, 1 << 20]),
        };
        let canary = Rc::clone(&self.objects[at].live_canary);
        let mut readers = std::mem::replace(&mut self.objects[at].readers, Readers::new(0));
        let mut pages: Vec<Served> = Vec::new();
        let (mut asked, mut failed) = (false, None);
        let ran = self.call(at, "turn", |stream, now| {
            readers.serve(budget, |from| {
                asked = true;
                let mut page = stream.page(from, chunk, Dress::Wire, now);
                if let Ok(first) = &page
                    && canary.skips(from)
                    && !first.up_to_date
                {
                    page = stream.page(first.to, chunk, Dress::Wire, now);
                }
                let page = page.map_err(|error| match error {
                    ReadError::Missing(Missing::Log(error)) => {
                        failed = Some(error);
                        Ending::Again
                    }
                    _ => Ending::Gone,
                })?;
                if !page.up_to_date {
                    canary.saw_cut(page.to);
                }
                let framed = framed(&page);
                pages.push((from, page));
                Ok(framed)
            })
        })?;
        self.objects[at].readers = readers;
        ensure!(failed.is_none() || ran.faulted, SpuriousFailure, "turn: {failed:?}");
        let left = if self.objects[at].readers.has_ready() { Turn::More } else { Turn::Idle };
        ensure!(ran.reply == Some(left), Wake, "a turn leaves {left:?}, not {:?}", ran.reply);
        let sends = self.objects[at].watch.take_sends();
        ensure!(sends <= budget.readers, Bounded, "{sends} frames in a turn of {budget:?}");
        self.objects[at].watch.check()?;
        self.objects[at].note_attached();
        // Those who waited may all have left; then the stream was not looked at.
        if asked {
            self.objects[at].reconcile(ran.now, ran.faulted)?;
        }
        for (from, page) in &pages {
            // A planted bug reads elsewhere; the sockets have seen it.
            self.check_page(at, page, from.0.max(page.from.0), chunk, Dress::Wire)?;
        }
        self.bury_instance(at, &ran)
    }

    /// Opens an internal connection for a client.
    fn connect(&mut self, client: &mut Client, open: &Open) -> Check<Connected> {
        let at = client.at;
        let position = match self.find(at, open.offset)? {
            Found::At(position) => position,
            Found::Refused => return Ok(Connected::Refused),
            Found::Nobody => return Ok(Connected::Failed),
        };
        let live = self.profile.live.clone();
        let now = self.now(at);
        let object = &mut self.objects[at];
        let (before, waiting) = (object.readers.len(), object.readers.waiting());
        let room = object.readers.room(open.kind, live.readers_max, live.waiters_max, now);
        object.note_attached();
        if room == Room::Full {
            let full = before >= live.readers_max
                || (open.kind == Kind::LongPoll && waiting >= live.waiters_max);
            ensure!(full, Answer, "no room for {client} beside {before} readers");
            self.note(format!("{client} finds no room"));
            return Ok(Connected::Failed);
        }
        let Some(life) = object.model.current.as_ref() else { return Ok(Connected::Failed) };
        client.stand(life, position.0, &object.model)?;
        let greeted = open.kind == Kind::LongPoll;
        let (_, granted) = edge::Pace::open(live.window, position, open.is_open);
        let wire = Wire::new(position, granted, live.window, greeted);
        let socket = Socket::new(wire, &object.watch, &object.live_canary);
        let lifetime_ms = self.rng.pick(&[500, 20_000, 60_000, 600_000]);
        let object = &mut self.objects[at];
        let id = object.readers.attach(Attach {
            outlet: socket.clone(),
            kind: open.kind,
            from: position,
            granted,
            until: now.saturating_add_ms(lifetime_ms),
            greeted,
        });
        object.sockets.push(socket.clone());
        object.note_attached();
        self.note(format!("{client} is reader {id} from {} on", position.0));
        Ok(Connected::Open(socket, position))
    }

    /// Something arrives at an object on one of its sockets.
    fn arrive_at(&mut self, at: usize, index: usize) -> Check<bool> {
        let socket = self.objects[at].sockets[index].clone();
        if !socket.wire.borrow().is_held {
            self.objects[at].sockets.swap_remove(index);
            return Ok(false);
        }
        let Some(up) = socket.wire.borrow_mut().up.pop_front() else { return Ok(false) };
        // Wakes the object, and the map with it.
        let ran = self.call(at, &format!("{up:?}"), |_, _| ())?;
        self.bury_instance(at, &ran)?;
        let note = socket.wire.borrow().note;
        let Some(note) = note.filter(|_| !ran.lost) else { return Ok(true) };
        match up {
            wire::Up::Grant(grant) => self.objects[at].readers.grant(note.id, grant.up_to),
            wire::Up::Close => {
                let left = self.objects[at].readers.leave(note.id);
                ensure!(left.is_some(), Wake, "reader {} was not there", note.id);
                socket.wire.borrow_mut().is_held = false;
                self.reader_left(at, note.until)?;
            }
        }
        self.objects[at].watch.check()?;
        Ok(true)
    }

    fn reader_left(&mut self, at: usize, until: protocol::time::UnixMillis) -> Check {
        let ran = self.call(at, "reader left", |stream, now| stream.reader_left(until, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        match (&ran.reply, self.objects[at].model.live()) {
            (None | Some(Err(Missing::Log(_))), _) if ran.faulted => {}
            (Some(Ok(())), Ok(life)) => {
                let left = ran.now.min(until).0;
                life.accesses.last = life.accesses.last.max(left);
                life.accesses.latest = life.accesses.latest.max(left);
            }
            (Some(Err(missing)), Err(expected)) if *missing == expected => {}
            (reply, _) => ensure!(false, Answer, "{reply:?}"),
        }
        self.objects[at].note_attached();
        self.bury_instance(at, &ran)
    }

    // Clients come and go.

    /// One more client of a path, or a crowd.
    pub(crate) fn attach(&mut self, at: usize) -> Check {
        let crowd = 1 + self.rng.index(self.profile.live.crowd);
        let begins = self.any_offset(at);
        for _ in 0..crowd {
            if self.clients.len() >= self.profile.live.clients_max {
                break;
            }
            let begins = if self.rng.chance(75) {
                self.rng.pick(&[OffsetParam::Start, OffsetParam::Now])
            } else {
                begins
            };
            self.clients_ever += 1;
            let kind = self.rng.pick(&[Kind::LongPoll, Kind::Sse, Kind::WebSocket]);
            let speed = self.rng.pick(&[client::Speed::Stalled, client::Speed::One]);
            self.clients.push(Client {
                id: self.clients_ever,
                at,
                kind,
                speed: if self.rng.chance(60) { client::Speed::All } else { speed },
                begins,
                shown: Vec::new(),
                life: None,
                position: 0,
                edge: None,
                received: 0,
                allowed: None,
                is_over: false,
            });
            self.step_of(self.clients.len() - 1)?;
        }
        Ok(())
    }

    /// A client goes away, or its edge, or a connection breaks.
    pub(crate) fn leave(&mut self) -> Check {
        if self.clients.is_empty() {
            return Ok(());
        }
        // One that has much to lose.
        let count = self.clients.len();
        let drawn = [0; 3].map(|_| self.rng.index(count));
        let queue = |at: &usize| self.clients[*at].on_its_way();
        let index = drawn.into_iter().max_by_key(queue).unwrap_or(0);
        let fate = self.rng.below(6);
        let client = &mut self.clients[index];
        let edge = client.edge.as_mut();
        let what = match self.rng.below(4) {
            // The client goes: for good, or to come again at an offset that it was shown.
            0 | 1 => {
                edge.into_iter().for_each(|edge| edge.hang_up(fate));
                client.edge = None;
                "goes"
            }
            // The edge dies: nobody closes anything.
            2 => {
                edge.into_iter().for_each(|edge| edge.hang_up(fate % 2));
                client.edge = None;
                "loses its edge"
            }
            // The socket between edge and object breaks; or first loses a frame.
            _ => {
                let knows = edge.as_ref().is_some_and(|edge| edge.follower.next().is_some());
                let socket = edge.and_then(|edge| edge.socket.as_ref());
                if let Some(socket) = socket {
                    let mut wire = socket.wire.borrow_mut();
                    let ended = wire.ended.is_some() || wire.edge != EdgeEnd::Open;
                    if !ended {
                        let length = wire.down.len();
                        if knows && length > 1 && self.rng.chance(50) {
                            wire.down.remove(self.rng.index(length - 1));
                        }
                        let arriving = self.rng.index(wire.down.len() + 1);
                        wire.snap(arriving);
                        wire.edge = self.rng.pick(&[EdgeEnd::Silent, EdgeEnd::Cut]);
                        if self.rng.chance(60) {
                            wire.up.push_back(wire::Up::Close);
                        }
                    }
                }
                "loses its socket"
            }
        };
        let line = format!("{client} {what}");
        let for_good = client.edge.is_none() && self.rng.chance(30);
        if for_good {
            self.clients.swap_remove(index);
        }
        self.note(line);
        Ok(())
    }

    /// Whether the life that a client reads is the one that is there.
    fn reads_on(&self, client: &Client) -> bool {
        let current = self.objects[client.at].model.current.as_ref();
        let current = current.filter(|life| life.phase == Phase::Live);
        client.life.is_some() && current.map(|life| life.generation) == client.life
    }
}

/// A page as a frame.
fn framed(page: &Page<Vec<u8>>) -> Framed<Rc<SentFrame>> {
    let (payload, locator) = match &page.content {
        Content::Hot(bytes) => (bytes.as_slice(), None),
        Content::Cold(locator) => (&[][..], Some(locator.clone())),
    };
    let head = FrameHead {
        from: page.from,
        to: page.to,
        generation: page.next.generation,
        up_to_date: page.up_to_date,
        closed: page.closed,
        cold: locator.is_some(),
    };
    let bytes = Frame { head, payload }.encode();
    let frame = Rc::new(SentFrame { bytes, locator, head });
    Framed { head, size: frame.size(), frame }
}
