//! Reads that are alike share one trip to the stream's object.
//!
//! The first reader of a position begins a trip; whoever asks for the same while it is under way
//! waits for it. Every reader waits, also the one that began: so a trip does not depend on who is
//! still there. What has landed lingers for [`FLIGHT_LINGER_MS`], for readers that were on their way.
//!
//! ```text
//! ask ──► Landed            lingering: the answer is here
//!     ──► Leads(seat)       begin the trip, then wait like everybody
//!     ──► Waits(seat)       somebody's trip is under way
//!     ──► Alone             a trip that nobody shares: there is no room, the reader may not lead, or
//!                           the last answer was for its reader only
//! land(outcome) ──► the waiters, each of which asks [`Reader::hears`] what that means to it
//! ```
//!
//! # Invariants
//! 1. A reader is never given less than a write that this isolate has seen acknowledged before the
//!    reader asked: see [`Reach`].
//! 2. A trip that timed out or failed is no answer to a reader that has time left.
//! 3. Trips, waiters, lingering answers and their bytes are bounded by constants.
//!
//! # Errors
//! None. A failed trip is an outcome like any other.
//!
//! # What does not belong here
//! Promises, responses, timers, the shared cache of pages; which reads are alike.

use std::collections::BTreeMap;
use std::mem;

use protocol::limits::{
    FLIGHT_ALONE_BYTES_MAX, FLIGHT_BYTES_MAX, FLIGHT_FAILURES_MAX, FLIGHT_GRACE_MS,
    FLIGHT_LINGER_MS, FLIGHT_MS_MAX, FLIGHT_READING_BYTES_MAX, FLIGHT_WAITERS_MAX,
    FLIGHT_WRITES_MAX, FLIGHTS_MAX, FLIGHTS_UNDER_WAY_MAX,
};
use protocol::offset::Offset;
use protocol::time::UnixMillis;

mod apart;
mod lasting;
mod news;
#[cfg(test)]
mod tests;

pub use apart::may_be_cached;
pub use lasting::stays_true;
pub use news::{News, Write};

/// A reader whose time is over in less than this many milliseconds does not begin again.
const LEFT_MIN_MS: u64 = 20;

/// A trip that may not take at least this many milliseconds is not worth beginning for others.
const LEAD_MIN_MS: u64 = 1_000;

/// Which reads are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The stream's object name: what writes to it concern.
    pub stream: String,
    /// Everything else that tells answers apart.
    pub read: String,
}

/// How far an answer, or a write, says that the stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// The offset behind it.
    pub next: Offset,
    /// Whether the stream is closed there.
    pub closed: bool,
}

/// What an answer says of the stream's end: its reach, if it says that there is no more.
pub type Claim = Option<Reach>;

/// A place among those who wait for a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The trip.
    pub flight: FlightId,
    number: u64,
    /// When the trip counts as lost.
    pub lost_at: UnixMillis,
}

/// A trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlightId(u64);

/// What a reader that asks is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<P> {
    /// Take this.
    Landed(P),
    /// Wait.
    Waits(Seat),
    /// Begin the trip, and wait.
    Leads(Seat),
    /// Make a trip without telling anybody; or, with little time left, none: see
    /// [`Reader::is_late`].
    Alone,
}

/// How a trip ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<P> {
    /// With an answer for everybody who asked for it, as far as its claim reaches.
    Shared(P, Claim),
    /// Its time was over, and nothing had happened: what to tell those whose time is over as well.
    TimedOut(P, Claim),
    /// With an answer that is true for the moment only.
    Unshared,
    /// It failed; the answer tells how.
    Failed(P),
}

/// What a reader does about an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<P> {
    /// It answers.
    Answer(P),
    /// It asks again: it waits for another trip, or begins one.
    AskAgain,
    /// The same; if its time is over before it hears anything, this is its answer.
    WaitOn(P),
    /// It makes a trip of its own.
    GoAlone,
}

struct Flight<W, P> {
    key: Key,
    lost_at: UnixMillis,
    waiters: BTreeMap<u64, W>,
    /// What to tell a reader whose time ends before the trip's.
    waiting: Option<P>,
    /// Bytes of its answer, once that is being read.
    reading: u64,
}

struct Lingering<P> {
    payload: P,
    claim: Claim,
    bytes: u64,
    until: UnixMillis,
    used: u64,
}

/// The trips of one isolate. `W` is how a waiter is woken, `P` an answer as plain data.
pub struct Flights<W, P> {
    flights: BTreeMap<FlightId, Flight<W, P>>,
    joinable: BTreeMap<Key, FlightId>,
    landed: BTreeMap<Key, Lingering<P>>,
    landed_bytes: u64,
    /// Of all trips' answers, while they are being read.
    reading_bytes: u64,
    /// Counts flights, seats and uses.
    counter: u64,
    apart: apart::Apart,
    writes: Writes,
}

impl<W, P> Default for Flights<W, P> {
    fn default() -> Self {
        Self {
            flights: BTreeMap::new(),
            joinable: BTreeMap::new(),
            landed: BTreeMap::new(),
            landed_bytes: 0,
            reading_bytes: 0,
            counter: 0,
            apart: apart::Apart::default(),
            writes: Writes::default(),
        }
    }
}

impl<W, P: Clone> Flights<W, P> {
    /// A reader asks. A trip that it begins ends at `until` or earlier, see [`Flights::ends`]; `None`:
    /// it may begin none for others, see [`Reader::leads_until`]. That is not the reader's own time:
    /// readers whose times end one after the other share a trip all the same. `waiter` is called if
    /// the reader is to wait.
    pub fn ask(
        &mut self,
        key: &Key,
        now: UnixMillis,
        until: Option<UnixMillis>,
        waiter: impl FnOnce() -> W,
    ) -> Asked<P> {
        self.counter = self.counter.saturating_add(1);
        if let Some(payload) = self.lingering(key, now) {
            return Asked::Landed(payload);
        }
        if let Some(id) = self.joinable.get(key).copied() {
            match self.flights.get_mut(&id) {
                Some(flight) if now < flight.lost_at => {
                    if flight.waiters.len() >= FLIGHT_WAITERS_MAX {
                        return Asked::Alone;
                    }
                    flight.waiters.insert(self.counter, waiter());
                    let (number, lost_at) = (self.counter, flight.lost_at);
                    return Asked::Waits(Seat { flight: id, number, lost_at });
                }
                _ => self.joinable.remove(key),
            };
        }
        let Some(until) = until else { return Asked::Alone };
        if self.apart.holds(key, now) {
            return Asked::Alone;
        }
        if self.flights.len() >= FLIGHTS_UNDER_WAY_MAX {
            self.drop_lost(now);
        }
        if self.flights.len() >= FLIGHTS_UNDER_WAY_MAX {
            return Asked::Alone;
        }
        if self.joinable.len() >= FLIGHTS_MAX {
            self.close_one(now);
        }
        let (flight, number) = (FlightId(self.counter), self.counter);
        let lost_at = Self::ends(now, until).saturating_add_ms(FLIGHT_GRACE_MS);
        let waiters = BTreeMap::from([(number, waiter())]);
        self.flights.insert(
            flight,
            Flight { key: key.clone(), lost_at, waiters, waiting: None, reading: 0 },
        );
        self.joinable.insert(key.clone(), flight);
        Asked::Leads(Seat { flight, number, lost_at })
    }

    /// When a trip that begins `now` has to end, if it may take until `until`.
    #[must_use]
    pub fn ends(now: UnixMillis, until: UnixMillis) -> UnixMillis {
        until.min(now.saturating_add_ms(FLIGHT_MS_MAX))
    }

    /// The trip waits for something to happen; until then this is the answer for whoever's time is
    /// over.
    pub fn waiting(&mut self, id: FlightId, payload: P) {
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.waiting = Some(payload);
        }
    }

    /// Whether an answer of so many bytes is to be read into memory, until the trip lands. If not,
    /// it is for nobody but the reader that began.
    pub fn may_read(&mut self, id: FlightId, bytes: u64, now: UnixMillis) -> bool {
        let fits = |others: u64| others.saturating_add(bytes) <= FLIGHT_READING_BYTES_MAX;
        let reading = self.flights.get(&id).map_or(0, |flight| flight.reading);
        if !fits(self.reading_bytes.saturating_sub(reading)) {
            self.drop_lost(now);
        }
        let Some(flight) = self.flights.get_mut(&id) else { return false };
        let others = self.reading_bytes.saturating_sub(flight.reading);
        if !fits(others) || (bytes > FLIGHT_ALONE_BYTES_MAX && flight.waiters.len() < 2) {
            return false;
        }
        flight.reading = bytes;
        self.reading_bytes = others.saturating_add(bytes);
        true
    }

    /// A reader's time is over, or its trip is lost: it waits no longer. Returns what to tell if
    /// nothing has happened so far.
    pub fn leave(&mut self, seat: &Seat) -> Option<P> {
        let flight = self.flights.get_mut(&seat.flight)?;
        flight.waiters.remove(&seat.number);
        flight.waiting.clone()
    }

    /// A trip has ended. Returns those who wait for it, each of which hears of the outcome.
    /// `bytes`: what a shared answer takes, if it may linger.
    pub fn land(
        &mut self,
        id: FlightId,
        outcome: &Outcome<P>,
        bytes: Option<u64>,
        now: UnixMillis,
    ) -> Vec<W> {
        let Some(Flight { key, waiters, reading, .. }) = self.flights.remove(&id) else {
            return Vec::new();
        };
        self.reading_bytes = self.reading_bytes.saturating_sub(reading);
        self.drop_expired(now);
        if self.joinable.get(&key) == Some(&id) {
            self.joinable.remove(&key);
            if let (Outcome::Shared(payload, claim), Some(bytes)) = (outcome, bytes)
                && self.written(&key.stream).is_none_or(|floor| satisfies(*claim, floor))
            {
                let until = now.saturating_add_ms(FLIGHT_LINGER_MS);
                let (payload, claim, used) = (payload.clone(), *claim, self.counter);
                self.keep(key, Lingering { payload, claim, bytes, until, used });
            }
        }
        waiters.into_values().collect()
    }

    /// A read has turned out to be for its reader only: for a moment, others need not wait for each
    /// other to find out the same.
    pub fn part(&mut self, key: &Key, now: UnixMillis) {
        self.apart.note(key, now);
    }

    /// A write through this isolate has been answered. When the life of the stream may have begun or
    /// ended, nothing that was asked for before is good for those who ask from now on.
    pub fn wrote(&mut self, stream: &str, news: News, now: UnixMillis) {
        let reach = match news {
            News::Nothing => return,
            News::Reach(reach) => Some(reach),
            News::NewLife => None,
        };
        let mut stale: Vec<Key> = Vec::new();
        for (key, landed) in self.landed.range(first_of(stream)..) {
            if key.stream != stream {
                break;
            }
            if reach.is_none_or(|floor| !satisfies(landed.claim, floor)) {
                stale.push(key.clone());
            }
        }
        for key in &stale {
            self.forget(key);
        }
        match reach {
            Some(reach) => self.writes.note(stream, reach),
            None => {
                self.writes.begin_anew(stream, now);
                let of_stream = |key: &&Key| key.stream == stream;
                let joinable = self.joinable.range(first_of(stream)..).map(|(key, _)| key);
                let joinable: Vec<Key> = joinable.take_while(of_stream).cloned().collect();
                for key in &joinable {
                    self.joinable.remove(key);
                }
            }
        }
    }

    /// How far writes through this isolate have brought a stream, as far as it is remembered.
    #[must_use]
    pub fn written(&self, stream: &str) -> Option<Reach> {
        self.writes.last(stream)
    }

    /// Whether an answer to a question of that time may be of the stream's present life, as far as
    /// it is known here.
    #[must_use]
    pub fn is_of_this_life(&self, stream: &str, asked_at: UnixMillis) -> bool {
        self.writes.get(stream).is_none_or(|last| asked_at > last.anew_at)
    }

    /// Bytes of the lingering answers.
    #[must_use]
    pub fn lingering_bytes(&self) -> u64 {
        self.landed_bytes
    }

    fn lingering(&mut self, key: &Key, now: UnixMillis) -> Option<P> {
        let landed = self.landed.get_mut(key)?;
        if now < landed.until {
            landed.used = self.counter;
            return Some(landed.payload.clone());
        }
        self.forget(key);
        None
    }

    /// Keeps a landed answer; the least recently used ones make room.
    fn keep(&mut self, key: Key, landing: Lingering<P>) {
        self.forget(&key);
        if landing.bytes > FLIGHT_BYTES_MAX {
            return;
        }
        let room = FLIGHT_BYTES_MAX.saturating_sub(landing.bytes);
        while self.landed.len() >= FLIGHTS_MAX || self.landed_bytes > room {
            let oldest = self.landed.iter().min_by_key(|(_, landed)| landed.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            self.forget(&oldest);
        }
        self.landed_bytes = self.landed_bytes.saturating_add(landing.bytes);
        self.landed.insert(key, landing);
    }

    fn forget(&mut self, key: &Key) {
        if let Some(landed) = self.landed.remove(key) {
            self.landed_bytes = self.landed_bytes.saturating_sub(landed.bytes);
        }
    }

    fn drop_expired(&mut self, now: UnixMillis) {
        self.landed.retain(|_, landed| now < landed.until);
        self.landed_bytes = self.landed.values().map(|landed| landed.bytes).sum();
    }

    /// Makes room for a trip that can be joined: a lost one, or else the one that the fewest readers
    /// share, can be joined no more. It lands as before; of those that are alike, the oldest.
    fn close_one(&mut self, now: UnixMillis) {
        let readers = |id: &FlightId| {
            let flight = self.flights.get(id).filter(|flight| now < flight.lost_at);
            flight.map_or(0, |flight| flight.waiters.len())
        };
        let fewest = self.joinable.iter().min_by_key(|(_, id)| (readers(id), **id));
        if let Some(key) = fewest.map(|(key, _)| key.clone()) {
            self.joinable.remove(&key);
        }
    }

    /// Trips that ended without a word. Who waits for them notices by its own timer.
    fn drop_lost(&mut self, now: UnixMillis) {
        self.flights.retain(|_, flight| now < flight.lost_at);
        self.reading_bytes = self.flights.values().map(|flight| flight.reading).sum();
        let flights = &self.flights;
        self.joinable.retain(|_, id| flights.contains_key(id));
    }
}

fn first_of(stream: &str) -> Key {
    Key { stream: stream.to_owned(), read: String::new() }
}

/// Whether an answer is good for a reader that knows of a write. One that does not claim to be all
/// there is, is good for everybody.
#[must_use]
pub fn satisfies(claim: Claim, written: Reach) -> bool {
    claim.is_none_or(|reach| reach >= written)
}

/// One reader, from its question to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// When it asked first.
    began: UnixMillis,
    /// When it has to answer.
    pub deadline: UnixMillis,
    /// The last write that it may know of: how far the stream was written when it asked.
    pub written: Option<Reach>,
    failures: u32,
    has_seen_stale: bool,
}

impl Reader {
    /// A reader that asks now.
    #[must_use]
    pub fn new(now: UnixMillis, deadline: UnixMillis, written: Option<Reach>) -> Self {
        Self { began: now, deadline, written, failures: 0, has_seen_stale: false }
    }

    /// Until when a trip may last that it begins for others, if such a trip may take `wait_ms`.
    /// `None`: it may begin none. The platform ends what a request does some time after its client
    /// has left, and nobody is told when that was: it may have left as soon as it had asked.
    #[must_use]
    pub fn leads_until(&self, now: UnixMillis, wait_ms: u64) -> Option<UnixMillis> {
        let last = self.began.saturating_add_ms(FLIGHT_MS_MAX);
        let is_worth_it = now.saturating_add_ms(LEAD_MIN_MS) <= last;
        is_worth_it.then(|| now.saturating_add_ms(wait_ms).min(last))
    }

    /// Whether a reader that waits in vain may as well be told so: a trip of its own would be short.
    #[must_use]
    pub fn is_late(&self, now: UnixMillis) -> bool {
        now.saturating_add_ms(LEAD_MIN_MS) >= self.deadline
    }

    /// Until when to wait at a seat: its own time, or the trip's.
    #[must_use]
    pub fn patience(&self, seat: &Seat) -> UnixMillis {
        self.deadline.min(seat.lost_at)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        now.saturating_add_ms(LEFT_MIN_MS) >= self.deadline
    }

    /// What to do about the end of the trip that it has waited for.
    pub fn hears<P>(&mut self, outcome: Outcome<P>, now: UnixMillis) -> Step<P> {
        match outcome {
            Outcome::Shared(payload, claim) if self.may_take(claim) => Step::Answer(payload),
            Outcome::TimedOut(payload, claim) if self.may_take(claim) => {
                if self.is_over(now) {
                    Step::Answer(payload)
                } else {
                    Step::WaitOn(payload)
                }
            }
            // Any trip that begins from now on sees the write; one that is under way may not.
            Outcome::Shared(..) | Outcome::TimedOut(..) if self.has_seen_stale => Step::GoAlone,
            Outcome::Shared(..) | Outcome::TimedOut(..) => {
                self.has_seen_stale = true;
                Step::AskAgain
            }
            Outcome::Unshared => Step::GoAlone,
            Outcome::Failed(payload) if self.failures >= FLIGHT_FAILURES_MAX => {
                Step::Answer(payload)
            }
            Outcome::Failed(_) => {
                self.failures = self.failures.saturating_add(1);
                Step::AskAgain
            }
        }
    }

    /// What to do when its time is over while it waits: `so_far` is what its trip would tell, or an
    /// earlier one told. `None`: nobody has told anything.
    pub fn gives_up<P>(&self, so_far: Option<(P, Claim)>) -> Option<Step<P>> {
        // A trip may have begun before a write that it has not noticed yet.
        let step = |(payload, claim)| match claim {
            claim if self.may_take(claim) => Step::Answer(payload),
            _ => Step::GoAlone,
        };
        so_far.map(step)
    }

    fn may_take(&self, claim: Claim) -> bool {
        self.written.is_none_or(|written| satisfies(claim, written))
    }
}

/// What is known of one stream.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    reach: Option<Reach>,
    /// When a create or a delete was last answered.
    anew_at: UnixMillis,
}

/// The last write of each of the streams that were written to last: two halves, of which the older
/// one is dropped when the younger one is full.
#[derive(Debug, Default)]
struct Writes {
    young: BTreeMap<String, Written>,
    old: BTreeMap<String, Written>,
}

impl Writes {
    fn note(&mut self, stream: &str, reach: Reach) {
        let last = self.get(stream).unwrap_or_default();
        // Answers to writes may arrive out of order.
        let reach = last.reach.map_or(reach, |last| last.max(reach));
        self.set(stream, Written { reach: Some(reach), ..last });
    }

    fn begin_anew(&mut self, stream: &str, now: UnixMillis) {
        self.set(stream, Written { reach: None, anew_at: now });
    }

    fn set(&mut self, stream: &str, written: Written) {
        if let Some(last) = self.young.get_mut(stream) {
            *last = written;
            return;
        }
        if self.young.len() >= FLIGHT_WRITES_MAX / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(stream.to_owned(), written);
    }

    fn get(&self, stream: &str) -> Option<Written> {
        self.young.get(stream).or_else(|| self.old.get(stream)).copied()
    }

    fn last(&self, stream: &str) -> Option<Reach> {
        self.get(stream)?.reach
    }
}
