//! The end of a run for live readers: faults are over, so everybody gets everything.

use engine::readers::{Kind, Room};

use crate::live::client::Client;
use crate::violation::{Check, ensure};
use crate::world::World;

/// Rounds in which live readers have to settle.
const ROUNDS: u32 = 4_000;

impl World {
    /// Every client reaches the tail and is told of the close; then all go, some without a word,
    /// and no reader is left.
    pub(crate) fn settle_readers(&mut self) -> Check {
        let max = self.profile.live.clients_max as u64;
        let live = &mut self.profile.live;
        // Nobody is refused for others that have gone, and long streams end some time.
        (live.readers_max, live.waiters_max) = (4 * max, 4 * max);
        (live.turn_readers, live.chunk) = (1_000, 1 << 18);
        // One that sleeps may have readers that catch up.
        for at in 0..self.objects.len() {
            let ran = self.call(at, "wake", |_, _| ())?;
            self.bury_instance(at, &ran)?;
        }
        for _ in 0..ROUNDS {
            let mut did = self.deliver_all()?;
            for index in (0..self.clients.len()).rev() {
                did |= self.step_of(index)?;
            }
            for at in 0..self.objects.len() {
                if self.objects[at].readers.has_ready() {
                    self.turn(at)?;
                    did = true;
                }
                self.audit(at)?;
            }
            self.rotate_what_is_due()?;
            if !did {
                return self.check_readers();
            }
        }
        let client = self.clients.first().map(ToString::to_string);
        ensure!(false, Liveness, "live readers do not settle, as {client:?}");
        Ok(())
    }

    /// Everything arrives that is on its way to objects.
    fn deliver_all(&mut self) -> Check<bool> {
        let mut did = false;
        for at in 0..self.objects.len() {
            for index in (0..self.objects[at].sockets.len()).rev() {
                did |= self.arrive_at(at, index)?;
            }
        }
        Ok(did)
    }

    fn check_readers(&mut self) -> Check {
        for client in &self.clients {
            let object = &self.objects[client.at];
            let path = &object.model;
            let life = path.current.as_ref().filter(|life| Some(life.generation) == client.life);
            ensure!(life.is_some(), Liveness, "{client} was not told that its life is gone");
            let at_tail = life.is_some_and(|life| !life.closed && client.position == life.tail());
            let tail = life.map(|life| (life.tail(), life.closed));
            ensure!(at_tail, Liveness, "{client} is left behind at {tail:?}");
            ensure!(self.is_attached(client), Liveness, "{client} waits for nothing");
        }
        for object in &self.objects {
            let held = object.sockets.iter().filter(|socket| socket.wire.borrow().is_held).count();
            let readers = object.readers.len();
            ensure!(held as u64 == readers, Wake, "{readers} readers on {held} sockets");
        }
        let mut clients = std::mem::take(&mut self.clients);
        for edge in clients.iter_mut().filter_map(|client| client.edge.as_mut()) {
            let fate = self.rng.below(3);
            edge.hang_up(fate);
        }
        self.deliver_all()?;
        for at in 0..self.objects.len() {
            let now = self.now(at);
            let object = &mut self.objects[at];
            let overdue = object.readers.attached_until().max(now).saturating_add_ms(5_001);
            let room = object.readers.room(Kind::Sse, 0, 0, overdue);
            let left = object.readers.len();
            ensure!(room == Room::Full && left == 0, Liveness, "{left} readers are left");
            object.note_attached();
            object.watch.check()?;
        }
        Ok(())
    }

    fn is_attached(&self, client: &Client) -> bool {
        let socket = client.edge.as_ref().and_then(|edge| edge.socket.as_ref());
        socket.is_some_and(|socket| {
            let wire = socket.wire.borrow();
            let readers = &self.objects[client.at].readers;
            wire.is_held && wire.note.is_some_and(|note| readers.contains(note.id))
        })
    }
}
