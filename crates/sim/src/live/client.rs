//! A live client, and what it must be shown: the model's log from its offset on, each byte once.

use engine::readers::Kind;
use protocol::offset::{Generation, Offset, OffsetParam};

use crate::live::edge::{Edge, Shown, Why};
use crate::model::{ModelLife, ModelPath};
use crate::violation::{Check, ensure};

/// Offsets that a client remembers.
const SHOWN: usize = 40;

/// How a client takes what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    Stalled,
    One,
    All,
}

/// A client that reads one path live, over as many connections as it takes.
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    pub(crate) speed: Speed,
    /// What it asks for as long as it was shown no offset.
    pub(crate) begins: OffsetParam,
    /// Offsets that it was shown, the last of them last.
    pub(crate) shown: Vec<Offset>,
    /// The life that it reads.
    pub(crate) life: Option<Generation>,
    /// Behind the last byte that it saw.
    pub(crate) position: u64,
    pub(crate) edge: Option<Edge>,
    /// Data frames of this connection, and how many it has allowed if it counts from the start.
    pub(crate) received: u64,
    pub(crate) allowed: Option<u64>,
    /// It was told that there will be nothing more.
    pub(crate) is_over: bool,
}

impl Client {
    /// Takes up to `count` frames. How many there were.
    pub(crate) fn take(&mut self, count: usize, path: &ModelPath) -> Check<usize> {
        for taken in 0..count {
            let Some(shown) = self.edge.as_mut().and_then(|edge| edge.out.pop_front()) else {
                return Ok(taken);
            };
            match shown {
                Shown::Data(bytes, next) => self.see_data(&bytes, next, path)?,
                Shown::Control { next, up_to_date, closed } => {
                    self.see_control(next, up_to_date, closed, path)?;
                }
                Shown::End(why) => {
                    self.see_end(why, path)?;
                    return Ok(taken + 1);
                }
            }
        }
        Ok(count)
    }

    /// Frames on their way to its edge.
    pub(crate) fn on_its_way(&self) -> usize {
        let socket = self.edge.as_ref().and_then(|edge| edge.socket.as_ref());
        socket.map_or(0, |socket| socket.wire.borrow().down.len())
    }

    fn life<'a>(&self, path: &'a ModelPath) -> Check<&'a ModelLife> {
        let life = self.life.and_then(|generation| path.life(generation));
        ensure!(life.is_some(), Delivered, "{self} reads no life");
        life.map_or_else(|| unreachable!("just checked"), Ok)
    }

    fn see_data(&mut self, bytes: &[u8], next: Option<Offset>, path: &ModelPath) -> Check {
        self.received += 1;
        let allowed = self.allowed.is_none_or(|allowed| self.received <= allowed);
        ensure!(allowed, Credit, "{self} got {} frames of {:?}", self.received, self.allowed);
        let life = self.life(path)?;
        let (from, to) = (self.position as usize, self.position as usize + bytes.len());
        let same = life.bytes.get(from..to) == Some(bytes) && from < to;
        ensure!(same, Delivered, "{self} got {} bytes that are not {from}..{to}", bytes.len());
        let whole = !life.content_type.is_json() || bytes.ends_with(b"\n");
        ensure!(whole, Delivered, "{self}: {from}..{to} splits a message");
        self.position = to as u64;
        if let Some(next) = next {
            self.see_offset(next, path)?;
        }
        Ok(())
    }

    fn see_offset(&mut self, next: Offset, path: &ModelPath) -> Check {
        let expected = self.life(path)?.offset(self.position);
        ensure!(next == expected, Delivered, "{self} is told {next}, not {expected}");
        if self.shown.len() == SHOWN {
            self.shown.remove(0);
        }
        self.shown.push(next);
        Ok(())
    }

    fn see_control(
        &mut self,
        next: Offset,
        up_to_date: bool,
        closed: bool,
        path: &ModelPath,
    ) -> Check {
        self.see_offset(next, path)?;
        let life = self.life(path)?;
        let at = self.position;
        let was_tail = at == 0 || life.ends.contains(&at) || life.fork_point == Some(at);
        ensure!(!up_to_date || was_tail, Delivered, "{self}: {at} never was a tail");
        let ended = life.closed && at == life.tail();
        ensure!(!closed || ended, Delivered, "{self}: not closed at {at}");
        Ok(())
    }

    fn see_end(&mut self, why: Why, path: &ModelPath) -> Check {
        self.edge = None;
        match why {
            Why::Answered | Why::Failed => {}
            Why::Closed => {
                let life = self.life(path)?;
                let ended = life.closed && self.position == life.tail();
                ensure!(
                    ended,
                    Delivered,
                    "{self} is ended at {} of {}",
                    self.position,
                    life.tail()
                );
                self.is_over = true;
            }
            Why::Gone => {
                let lives = path.current.as_ref().filter(|life| Some(life.generation) == self.life);
                let lives = lives.is_some_and(|life| life.phase == engine::life::Phase::Live);
                ensure!(!lives, Delivered, "{self} is told that a life is gone that is not");
                self.is_over = true;
            }
        }
        Ok(())
    }

    /// A connection stands at a position of the current life: the one that is read, or one that
    /// shares everything up to there with it.
    pub(crate) fn stand(&mut self, current: &ModelLife, at: u64, path: &ModelPath) -> Check {
        if let Some(life) = self.life.filter(|life| *life != current.generation) {
            let end = at as usize;
            let before = path.life(life).and_then(|life| life.bytes.get(..end));
            let same = before.is_some() && before == current.bytes.get(..end);
            ensure!(same, Delivered, "{self} reads on at {at} in {:?}", current.generation);
        }
        self.life = Some(current.generation);
        Ok(())
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "client {} ({:?} at {})", self.id, self.kind, self.position)
    }
}
