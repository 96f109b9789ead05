//! One simulated object: its disk, the instance in memory if there is one, its model, and the
//! clients that hang on it.

use std::rc::Rc;

use engine::life::{Life, Phase};
use engine::log::{Key, Log, LogError};
use engine::readers::{Ending, Readers};
use engine::{Bounds, Stream};
use protocol::limits::CHECKPOINT_ROWS;
use protocol::offset::{Offset, Position};
use protocol::time::UnixMillis;

use crate::canary::{Bug, Canary, LiveCanary};
use crate::decorators::{Counting, Faulty, Planted};
use crate::disk::Disk;
use crate::faults::{Counters, Faults, Injection};
use crate::live::{Socket, Watch};
use crate::model::{Due, ModelPath};
use crate::store::Store;
use crate::store_audit::Claims;
use crate::violation::{Check, ensure};

/// The log that a simulated stream runs on.
pub type ObjectLog = Counting<Faulty<Planted<Disk>>>;

/// One stream object.
pub struct Object {
    /// Object name, `{project}/{path}`.
    pub name: String,
    /// What survives.
    pub disk: Disk,
    /// The instance, while it lives.
    pub stream: Option<Stream<ObjectLog>>,
    /// Counts instances.
    pub instance: u64,
    /// This machine's clock against the world's, in milliseconds.
    pub skew_ms: i64,
    /// What the stream should be like.
    pub model: ModelPath,
    /// Offsets that were handed out, by any life.
    pub handed: Vec<Offset>,
    /// Live readers of this instance.
    pub(crate) readers: Readers<Socket>,
    /// Their sockets: what the platform keeps of them.
    pub(crate) sockets: Vec<Socket>,
    /// Until when readers are attached, as the engine is told before each verb.
    pub attached_until: UnixMillis,
    /// What the sockets complain of.
    pub(crate) watch: Rc<Watch>,
    /// The planted bugs of live readers.
    pub(crate) live_canary: Rc<LiveCanary>,
    /// Counts what the engine reads.
    pub counters: Rc<Counters>,
    /// Commits seen by the last audit.
    pub audited_at: Option<u64>,
    /// What the disk says of the store, and the commits at which it was read.
    pub(crate) claims: Claims,
    pub(crate) claimed_at: Option<u64>,
    /// Verbs in which something failed.
    pub faults_seen: u64,
    /// When the object itself, or the platform, repeats a failed alarm.
    pub retry_at: Option<UnixMillis>,
    /// What the deployment allows the stream.
    pub bounds: Bounds,
    /// The object store, which all objects share.
    pub store: Store,
    faults: Rc<Faults>,
    canary: Rc<Canary>,
}

/// What became of a verb.
pub struct Ran<T> {
    /// The verb's answer; `None` when the instance could not even load.
    pub reply: Option<T>,
    /// Something failed because it was told to.
    pub faulted: bool,
    /// The instance died with the answer.
    pub lost: bool,
    /// The object's clock.
    pub now: UnixMillis,
}

/// Ids that one instance may give to its readers.
const READERS_OF_AN_INSTANCE: u64 = 1 << 32;

/// Rows that one group may add after the last chance of a checkpoint.
const GROUP_ROWS_MAX: u64 = 64;

impl Object {
    /// An object that nobody has asked anything yet.
    #[must_use]
    pub fn new(name: String, disk: Disk, bug: Bug) -> Self {
        let canary = Rc::new(Canary::new(bug, disk.clone()));
        Self {
            name,
            disk,
            stream: None,
            instance: 0,
            skew_ms: 0,
            model: ModelPath::default(),
            handed: Vec::new(),
            readers: Readers::new(0),
            sockets: Vec::new(),
            attached_until: UnixMillis::default(),
            watch: Rc::default(),
            live_canary: Rc::new(LiveCanary::new(bug)),
            counters: Rc::default(),
            audited_at: None,
            claims: Claims::default(),
            claimed_at: None,
            faults_seen: 0,
            retry_at: None,
            bounds: Bounds::default(),
            store: Store::default(),
            faults: Rc::default(),
            canary,
        }
    }

    fn log(&self) -> ObjectLog {
        let planted = Planted::new(self.disk.clone(), Rc::clone(&self.canary));
        let faulty = Faulty::new(planted, Rc::clone(&self.faults));
        Counting::new(faulty, Rc::clone(&self.counters))
    }

    /// Loses the memory. The sockets live on; what becomes of them is not decided here.
    pub fn crash(&mut self) -> Result<(), LogError> {
        self.stream = None;
        self.instance += 1;
        self.readers = Readers::new(0);
        self.attached_until = UnixMillis::default();
        self.audited_at = None;
        self.claimed_at = None;
        self.canary.crash();
        self.disk = self.disk.reopen()?;
        if let Some(life) = &mut self.model.current {
            life.accesses.lossy = true;
            life.accesses.attached = 0;
        }
        Ok(())
    }

    /// Runs a verb under a fault, waking the object first if it sleeps.
    pub fn run<T>(
        &mut self,
        injection: Injection,
        now: UnixMillis,
        verb: impl FnOnce(&mut Stream<ObjectLog>, UnixMillis) -> T,
    ) -> Check<Ran<T>> {
        self.faults.arm(injection);
        if self.stream.is_none() {
            self.counters.take_rows();
            match Stream::open(self.log()) {
                Ok(mut stream) => {
                    stream.set_bounds(self.bounds);
                    self.restore(stream.tail_position());
                    self.stream = Some(stream);
                }
                Err(error) => {
                    let faulted = self.faults.disarm();
                    ensure!(faulted, SpuriousFailure, "{} does not load: {error}", self.name);
                    return Ok(Ran { reply: None, faulted, lost: true, now });
                }
            }
            let rows = self.counters.take_rows();
            let bound = CHECKPOINT_ROWS + GROUP_ROWS_MAX;
            ensure!(rows <= bound, Bounded, "{} woke up with {rows} rows read", self.name);
        }
        let attached_until = self.attached_until;
        let Some(stream) = &mut self.stream else { unreachable!("opened above") };
        stream.set_attached_until(attached_until);
        if let Some(life) = &mut self.model.current {
            life.accesses.attached = attached_until.0;
        }
        let reply = Some(verb(stream, now));
        let faulted = self.faults.disarm();
        self.faults_seen += u64::from(faulted);
        if faulted && let Some(life) = &mut self.model.current {
            life.accesses.lossy = true;
            life.accesses.latest = life.accesses.latest.max(now.0);
        }
        let range = self.counters.range_bytes_max();
        ensure!(range <= engine::log::READ_RANGE_BYTES_MAX, Bounded, "a read of {range} bytes");
        Ok(Ran { reply, faulted, lost: injection.dies_after.is_some(), now })
    }

    /// The newest life on disk.
    pub fn newest(&self) -> Check<Option<Life>> {
        let lives = self.disk.lives(1);
        ensure!(lives.is_ok(), SpuriousFailure, "{}: {lives:?}", self.name);
        Ok(lives.unwrap_or_default().into_iter().next())
    }

    /// Hot bytes that the current life may hold beside those of dead lives.
    pub fn room(&self) -> Check<u64> {
        let bytes_max = self.bounds.bytes_max;
        if bytes_max >= protocol::limits::STREAM_BYTES_MAX {
            return Ok(bytes_max);
        }
        let lives = self.disk.lives(1_000);
        ensure!(lives.is_ok(), SpuriousFailure, "{}: {lives:?}", self.name);
        let (mut dead, mut end) = (0, Key(1 << 53));
        for life in lives.unwrap_or_default() {
            if life.phase == Phase::Erasing {
                let rows = self.disk.extents(life.base..end, u32::MAX);
                ensure!(rows.is_ok(), SpuriousFailure, "{}: {rows:?}", self.name);
                dead += rows.unwrap_or_default().iter().map(|row| row.length).sum::<u64>();
            }
            end = life.base;
        }
        Ok(bytes_max.saturating_sub(dead))
    }

    /// Brings the model up to an expiry that the engine has or has not acted upon.
    pub fn reconcile(&mut self, now: UnixMillis, faulted: bool) -> Check {
        let Some(life) = &self.model.current else { return Ok(()) };
        if life.phase != Phase::Live {
            return Ok(());
        }
        let generation = life.generation;
        let due = life.due(now);
        let same = |found: &Life| found.generation == generation && found.phase == Phase::Live;
        let alive = self.newest()?.as_ref().is_some_and(same);
        if alive {
            let outlived = due == Due::Yes && !faulted;
            ensure!(!outlived, Lifetime, "{} lives on at {now}: {:?}", self.name, life.accesses);
        } else {
            ensure!(due != Due::No, Lifetime, "{} ended at {now}: {:?}", self.name, life.accesses);
            self.end();
        }
        Ok(())
    }

    /// The current life has ended.
    pub fn end(&mut self) -> bool {
        self.readers.dismiss(Ending::Gone);
        self.note_attached();
        self.model.end()
    }

    /// To be called when readers came or went.
    pub fn note_attached(&mut self) {
        self.attached_until = self.readers.attached_until();
    }

    /// Takes up the readers whose sockets outlived the memory.
    fn restore(&mut self, tail: Position) {
        self.readers = Readers::new(self.instance * READERS_OF_AN_INSTANCE);
        self.sockets.retain(|socket| socket.wire.borrow().is_held);
        for socket in &self.sockets {
            let note = socket.wire.borrow().note;
            let Some(note) = note else { continue };
            socket.wire.borrow_mut().resumed = true;
            self.readers.restore(socket.clone(), self.live_canary.restored(note), tail);
        }
        self.note_attached();
    }
}
