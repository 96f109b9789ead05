//! What live clients, their edges and the sockets between them do next.

use std::collections::VecDeque;
use std::rc::Rc;

use engine::credit::Credit;
use engine::follow::{Arrived, Follower};
use engine::readers::{Ending, Kind};
use protocol::live::Frame;
use protocol::offset::OffsetParam;

use crate::canary::Bug;
use crate::live::client::{Client, Speed};
use crate::live::edge::{Edge, Pace, Shown, Why};
use crate::live::wire::{Down, SentFrame};
use crate::live::{Connected, Open};
use crate::violation::{Check, ensure};
use crate::world::World;

/// Kinds of things that a connected client and its edge can do next.
const KINDS: usize = 5;

impl World {
    /// Some of what clients, edges and sockets do meanwhile.
    pub(crate) fn live(&mut self) -> Check {
        if self.rng.chance(self.profile.live.fault_percent) {
            self.leave()?;
        }
        if self.rng.chance(25) {
            self.evict_one()?;
        }
        let events = 1 + self.rng.index(4 * self.clients.len().min(60));
        for _ in 0..events {
            if self.rng.chance(30) {
                self.something_arrives()?;
            } else if !self.clients.is_empty() {
                let index = self.rng.index(self.clients.len());
                self.step_of(index)?;
            }
        }
        Ok(())
    }

    /// Something arrives at some object.
    pub(crate) fn something_arrives(&mut self) -> Check<bool> {
        let at = self.rng.index(self.objects.len());
        let sockets = self.objects[at].sockets.len();
        if sockets == 0 {
            return Ok(false);
        }
        let index = self.rng.index(sockets);
        self.arrive_at(at, index)
    }

    /// A client does its next thing; whether there was any.
    pub(crate) fn step_of(&mut self, index: usize) -> Check<bool> {
        let mut client = self.clients.swap_remove(index);
        let did = self.advance(&mut client)?;
        if !client.is_over {
            // Where it was.
            self.clients.push(client);
            let last = self.clients.len() - 1;
            self.clients.swap(index, last);
        }
        Ok(did)
    }

    fn advance(&mut self, client: &mut Client) -> Check<bool> {
        if client.edge.is_none() {
            return self.open(client);
        }
        if !self.calm && self.rng.chance(2) {
            self.recycle(client);
        }
        let first = self.rng.index(KINDS);
        for kind in (0..KINDS).map(|step| (first + step) % KINDS) {
            let did = match kind {
                0 => self.arrive(client)?,
                1 => self.pass_on(client)?,
                2 => self.take(client)?,
                3 => self.grant(client),
                _ => client.edge.as_mut().is_some_and(Edge::want_more),
            };
            if did {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A client opens a connection, at an offset that it was shown if there is one.
    fn open(&mut self, client: &mut Client) -> Check<bool> {
        let older = client.shown.len().saturating_sub(1 + self.rng.index(3));
        let resumes = if self.calm || self.rng.chance(85) {
            client.shown.last()
        } else {
            client.shown.get(older)
        };
        let resumes = resumes.copied();
        let offset = resumes.map_or(client.begins, OffsetParam::At);
        if resumes.is_none() {
            client.life = None;
        }
        let granted = match (client.kind, self.rng.below(3)) {
            (Kind::WebSocket, 0) => Some(0),
            (Kind::WebSocket, 1) => Some(self.rng.below(4)),
            _ => None,
        };
        let credit = Credit::open(granted);
        let open = Open { kind: client.kind, offset, is_open: credit.left() != Some(0) };
        let (socket, position) = match self.connect(client, &open)? {
            Connected::Open(socket, position) => (socket, position),
            Connected::Failed => return Ok(true),
            Connected::Refused => {
                self.refused(client, resumes.is_some())?;
                client.is_over = true;
                return Ok(true);
            }
        };
        let same = resumes.is_none_or(|shown| shown.position == position);
        ensure!(same, Delivered, "{client}: {resumes:?} is at {position:?}");
        client.position = position.0;
        client.received = 0;
        client.allowed = granted;
        let life = self.objects[client.at].model.live();
        let Ok(life) = life else { return Ok(true) };
        let located = life.offset(position.0);
        let json = life.content_type.is_json();
        let window = self.profile.live.window;
        // An event stream may learn from the first frame where it stands.
        let knows = client.kind != Kind::Sse || self.rng.chance(50);
        let mut held = VecDeque::new();
        if client.kind == Kind::WebSocket {
            held.push_back(Shown::Control { next: located, up_to_date: false, closed: false });
        }
        client.edge = Some(Edge {
            kind: client.kind,
            json,
            follower: Follower::at(Some(located).filter(|_| knows)),
            located,
            pace: Pace::open(window, position, open.is_open).0,
            window,
            credit,
            socket: Some(socket),
            held,
            out: VecDeque::new(),
            consumed: position,
            sent: 0,
            sent_free: 0,
            allowed: granted.unwrap_or(0),
            is_ending: false,
        });
        Ok(true)
    }

    /// An offset that was shown is refused only when its life has ended.
    fn refused(&mut self, client: &Client, was_shown: bool) -> Check {
        self.note(format!("{client} is refused"));
        let sound = !(was_shown && self.reads_on(client));
        ensure!(sound, Delivered, "{client} is refused, and its stream is there");
        Ok(())
    }

    /// An event stream has had its time, a long-poll has waited for long enough.
    fn recycle(&mut self, client: &mut Client) {
        let Some(edge) = &mut client.edge else { return };
        if client.kind == Kind::WebSocket || edge.is_ending || !edge.held.is_empty() {
            return;
        }
        let next = edge.next();
        edge.held.push_back(Shown::Control { next, up_to_date: false, closed: false });
        edge.end(Why::Answered);
    }

    /// What has arrived at the edge, or a new connection to the object.
    fn arrive(&mut self, client: &mut Client) -> Check<bool> {
        let Some(edge) = &mut client.edge else { return Ok(false) };
        if !edge.held.is_empty() || edge.is_ending {
            return Ok(false);
        }
        let Some(socket) = &edge.socket else { return self.connect_again(client) };
        let arrived = socket.wire.borrow_mut().down.pop_front();
        let Some(arrived) = arrived else { return Ok(false) };
        match arrived {
            Down::Frame(frame) => self.read_frame(client, &frame)?,
            Down::Broken | Down::End(Ending::Again) => edge.socket = None,
            Down::End(Ending::Done) => {
                // It has told of the end of the stream, or brought news that were none.
                let again = client.kind == Kind::LongPoll;
                ensure!(again, Wake, "{client} is ended without an answer");
                edge.socket = None;
            }
            Down::End(Ending::Gone) => {
                edge.socket = None;
                edge.end(Why::Gone);
            }
        }
        Ok(true)
    }

    fn read_frame(&mut self, client: &mut Client, frame: &Rc<SentFrame>) -> Check {
        let slice = if self.calm { 1 << 20 } else { self.rng.pick(&[1, 7, 40, 1 << 20]) };
        let fate = self.rng.below(6);
        let fetched = match &frame.locator {
            None => None,
            Some(locator) => match self.fetch_for_object(locator)? {
                Some(bytes) => Some(bytes),
                None => {
                    self.note(format!("{client} cannot fetch {:?}", frame.head));
                    client.edge.iter_mut().for_each(|edge| edge.hang_up(fate));
                    return Ok(());
                }
            },
        };
        let Some(edge) = &mut client.edge else { return Ok(()) };
        let (head, payload) = match Frame::decode(&frame.bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                ensure!(false, Answer, "a frame does not decode: {error}");
                return Ok(());
            }
        };
        let bytes = fetched.as_deref().unwrap_or(payload);
        let arrived = edge.follower.take(&head);
        match arrived {
            Arrived::Gap => edge.hang_up(fate),
            Arrived::Fresh { repeated } => {
                let repeated = if self.bug == Bug::UntrimmedRepeats { 0 } else { repeated };
                let fresh = bytes.get(repeated as usize..);
                ensure!(fresh.is_some(), Delivered, "{client}: {repeated} of {head:?} repeat");
                // Large pages in pieces of a byte would take for ever.
                let slice = if bytes.len() > 4_000 { slice.max(1_000) } else { slice };
                edge.hold(&head, fresh.unwrap_or_default(), slice);
            }
        }
        let line = format!("{client} <- {}..{} {arrived:?}", head.from.0, head.to.0);
        self.note(line);
        Ok(())
    }

    /// The edge connects again where its reader stands.
    fn connect_again(&mut self, client: &mut Client) -> Check<bool> {
        let Some(edge) = &mut client.edge else { return Ok(false) };
        if !self.calm && self.rng.chance(10) {
            edge.end(Why::Failed);
            return Ok(true);
        }
        let next = edge.next();
        let is_open = edge.credit.left() != Some(0);
        let open = Open { kind: client.kind, offset: OffsetParam::At(next), is_open };
        match self.connect(client, &open)? {
            Connected::Open(socket, position) => {
                ensure!(position == next.position, Delivered, "{client}: {next} is {position:?}");
                let Some(edge) = &mut client.edge else { return Ok(false) };
                edge.pace = Pace::open(edge.window, position, is_open).0;
                edge.consumed = position;
                edge.socket = Some(socket);
            }
            Connected::Refused => {
                self.refused(client, true)?;
                client.edge.iter_mut().for_each(|edge| edge.end(Why::Gone));
            }
            Connected::Failed => {}
        }
        Ok(true)
    }

    /// The edge passes a frame on.
    fn pass_on(&mut self, client: &mut Client) -> Check<bool> {
        let fate = self.rng.below(6);
        let Some(edge) = &mut client.edge else { return Ok(false) };
        let passed = edge.pass_on(self.bug == Bug::IgnoredCredit);
        if passed && matches!(edge.out.back(), Some(Shown::End(_))) {
            edge.hang_up(fate);
        }
        let (is_overdrawn, sent, allowed) = (edge.is_overdrawn(), edge.sent, edge.allowed);
        ensure!(!is_overdrawn, Credit, "{client} is sent {sent} frames, not {allowed}");
        Ok(passed)
    }

    /// The client takes what it was sent.
    fn take(&mut self, client: &mut Client) -> Check<bool> {
        if self.calm || self.rng.chance(5) {
            client.speed = self.rng.pick(&[Speed::Stalled, Speed::One, Speed::All]);
        }
        let count = match client.speed {
            _ if self.calm => usize::MAX,
            Speed::Stalled => 0,
            Speed::One => 1,
            Speed::All => usize::MAX,
        };
        let taken = client.take(count, &self.objects[client.at].model)?;
        if taken > 0 {
            self.note(format!("{client} took {taken}"));
        }
        Ok(taken > 0)
    }

    /// A WebSocket client allows more data frames.
    fn grant(&mut self, client: &mut Client) -> bool {
        let Some(edge) = client.edge.as_mut().filter(|edge| edge.kind == Kind::WebSocket) else {
            return false;
        };
        let wants = match self.calm {
            true => edge.credit.left() == Some(0),
            false => self.rng.chance(if edge.credit.is_strict() { 30 } else { 5 }),
        };
        if !wants {
            return false;
        }
        let n = if self.calm { 1_000 } else { self.rng.below(4) };
        edge.granted(n);
        client.allowed = client.allowed.map(|allowed| allowed + n);
        true
    }
}
