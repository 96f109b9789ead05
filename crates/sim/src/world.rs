//! The world: objects, the network between them, a clock, and a scheduler that draws what happens
//! next from one seed.
//!
//! A step is one action of [`crate::workload::Action`]. After each, the objects that committed
//! something are audited. Client verbs are in [`crate::verbs`], forks in [`crate::forks`], messages
//! in [`crate::network`], audits in [`crate::oracle`], the end of a run in [`crate::settle`].

use protocol::time::UnixMillis;

use engine::Stream;
use engine::create::Create;
use engine::life::Phase;

use crate::canary::Bug;
use crate::disk::Disk;
use crate::faults::Injection;
use crate::forks::Making;
use crate::ledger::Ledger;
use crate::live::Client;
use crate::model::Body;
use crate::network::Message;
use crate::object::{Object, ObjectLog, Ran};
use crate::questions::Question;
use crate::rng::Rng;
use crate::store::{Fetch, Put, Store, Sweep};
use crate::trace::{Trace, short};
use crate::uploads::Upload;
use crate::violation::{Check, ensure};
use crate::workload::{Action, AppendRequest, Profile, Workload};

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Decides everything.
    pub seed: u64,
    /// Actions before the world is left to settle.
    pub steps: u32,
    /// Run on real SQLite instead of ordered maps.
    pub sqlite: bool,
    /// The planted bug, for the canary tests.
    pub bug: Bug,
    /// Print the trace as it comes.
    pub echo: bool,
}

/// A request that may be sent again.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    Create(Create<Vec<u8>>, Body),
    Append(AppendRequest),
    Delete,
}

/// Everything there is.
pub struct World {
    pub(crate) rng: Rng,
    pub(crate) clock: u64,
    pub(crate) trace: Trace,
    pub(crate) step: u32,
    pub(crate) profile: Profile,
    pub(crate) workload: Workload,
    pub(crate) objects: Vec<Object>,
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) history: Vec<(usize, Sent)>,
    pub(crate) network: Vec<Message>,
    pub(crate) makings: Vec<Making>,
    pub(crate) store: Store,
    pub(crate) store_audited_at: Option<u64>,
    pub(crate) uploads: Vec<Upload>,
    pub(crate) puts: Vec<Put>,
    pub(crate) sweeps: Vec<Sweep>,
    pub(crate) questions: Vec<Question>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) calls: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) clients_ever: u64,
    pub(crate) bug: Bug,
    /// No more faults: the run is settling.
    pub(crate) calm: bool,
}

/// Requests that may be repeated.
const HISTORY: usize = 40;

impl World {
    /// A world before its first step.
    pub fn new(setup: Setup) -> Check<Self> {
        let mut rng = Rng::new(setup.seed);
        let profile = Profile::draw(&mut rng);
        let store = Store::default();
        let mut objects = Vec::new();
        for name in ["_default/a", "_default/b", "_default/c", "_default/d", "_default/e"] {
            let disk = if setup.sqlite { Disk::sqlite() } else { Ok(Disk::memory()) };
            let Ok(disk) = disk else { unreachable!("an empty database in memory opens") };
            let mut object = Object::new(name.to_owned(), disk, setup.bug);
            object.bounds = profile.bounds;
            object.store = store.clone();
            objects.push(object);
        }
        objects.truncate(profile.paths);
        let mut world = Self {
            clock: 1_700_000_000_000 + rng.below(1_000_000),
            rng,
            trace: Trace::new(setup.echo),
            step: 0,
            ledgers: vec![Ledger::default(); profile.paths],
            objects,
            profile,
            workload: Workload::default(),
            history: Vec::new(),
            network: Vec::new(),
            makings: Vec::new(),
            store,
            store_audited_at: None,
            uploads: Vec::new(),
            puts: Vec::new(),
            sweeps: Vec::new(),
            questions: Vec::new(),
            fetches: Vec::new(),
            calls: 0,
            clients: Vec::new(),
            clients_ever: 0,
            bug: setup.bug,
            calm: false,
        };
        world.note(format!("seed {} {:?}", setup.seed, world.profile));
        Ok(world)
    }

    /// The trace so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Steps done so far.
    pub fn steps_done(&self) -> u32 {
        self.step
    }

    /// Takes all steps, then lets the world settle.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn run(&mut self, steps: u32) -> Check {
        // Large bodies make every audit expensive.
        let steps = if self.profile.large { steps / 4 } else { steps };
        for _ in 0..steps {
            self.step += 1;
            let action = Action::ALL[self.rng.weighted(&self.profile.weights)];
            self.act(action)?;
            self.rotate_what_is_due()?;
            for at in 0..self.objects.len() {
                self.audit(at)?;
            }
            self.audit_store()?;
            if self.step.is_multiple_of(50) {
                self.check_ledgers()?;
            }
        }
        self.settle()
    }

    fn act(&mut self, action: Action) -> Check {
        let at = self.target(action);
        match action {
            Action::Create => self.create(at),
            Action::Append => self.append(at),
            Action::Burst => self.burst(at),
            Action::Delete => self.delete(at),
            Action::Head => self.head(at),
            Action::Read => self.read(at),
            Action::Fork => self.fork(at),
            Action::Retry => self.retry(),
            Action::Attach => self.attach(at),
            Action::Leave => self.leave(),
            Action::Message => self.message(),
            Action::Impatience => self.impatience(),
            Action::Store if self.store_is_busy() => self.store_step(),
            Action::Store => self.append(at),
            Action::Crash => self.crash(at),
            Action::Alarm => self.ring_one(),
            Action::Advance => {
                let most = self.rng.pick(&[10, 1_000, 30_000, 120_000]);
                self.clock += self.rng.below(most);
                Ok(())
            }
            Action::Jump => self.jump(at),
            Action::Turn => self.turn_of_one(),
            Action::Live => self.live(),
        }
    }

    /// An object for an action: mostly one that the action can do something to.
    fn target(&mut self, action: Action) -> usize {
        let any = self.rng.index(self.objects.len());
        if self.rng.chance(20) {
            return any;
        }
        let suits = |object: &Object| {
            let life = object.model.current.as_ref();
            match action {
                Action::Create | Action::Fork => life.is_none(),
                Action::Append | Action::Burst => life.is_some_and(|life| !life.closed),
                Action::Read | Action::Attach => life.is_some(),
                Action::Delete => life.is_some_and(|life| life.closed || life.tail() > 400),
                _ => true,
            }
        };
        // The first that suits from a random one on.
        let count = self.objects.len();
        let order = (0..count).map(|step| (any + step) % count);
        order.into_iter().find(|at| suits(&self.objects[*at])).unwrap_or(any)
    }

    /// Sets the world's clock or one machine's.
    fn jump(&mut self, at: usize) -> Check {
        // The grace is measured on one clock: reads that are under way now have taken too long.
        self.fetches.clear();
        match self.rng.below(4) {
            0 => self.clock = self.clock.saturating_sub(self.rng.below(90_000)),
            1 => self.clock += self.rng.below(40 * 3_600_000),
            2 => self.objects[at].skew_ms = self.rng.below(10_000) as i64 - 5_000,
            _ => self.objects[at].skew_ms = self.rng.below(400_000) as i64 - 200_000,
        }
        self.note(format!("clock {} {}", self.clock, self.objects[at].skew_ms));
        Ok(())
    }

    /// The object's clock.
    pub(crate) fn now(&self, at: usize) -> UnixMillis {
        UnixMillis(self.clock.saturating_add_signed(self.objects[at].skew_ms))
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, text: String) {
        self.trace.line(format!("#{} {text}", self.step));
    }

    /// Runs a verb of an object, perhaps under a fault, and traces it.
    pub(crate) fn call<T: std::fmt::Debug>(
        &mut self,
        at: usize,
        what: &str,
        verb: impl FnOnce(&mut Stream<ObjectLog>, UnixMillis) -> T,
    ) -> Check<Ran<T>> {
        let percent = if self.calm { 0 } else { self.profile.fault_percent };
        let injection = Injection::draw(&mut self.rng, percent);
        self.call_with(at, what, injection, verb)
    }

    /// Runs a verb of an object under a given fault.
    pub(crate) fn call_with<T: std::fmt::Debug>(
        &mut self,
        at: usize,
        what: &str,
        injection: Injection,
        verb: impl FnOnce(&mut Stream<ObjectLog>, UnixMillis) -> T,
    ) -> Check<Ran<T>> {
        let now = self.now(at);
        let ran = self.objects[at].run(injection, now, verb)?;
        let name = &self.objects[at].name;
        let fate = match (ran.faulted, ran.lost) {
            (_, true) => " LOST",
            (true, false) => " FAULT",
            (false, false) => "",
        };
        self.note(format!("{name} @{now} {what} -> {}{fate}", short(&ran.reply)));
        // Time passes between any two requests, or none does.
        self.clock += self.rng.below(3);
        Ok(ran)
    }

    /// Brings the model up to date, and takes the memory of an instance that died in a verb.
    pub(crate) fn after<T>(&mut self, at: usize, ran: &Ran<T>) -> Check {
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        self.bury_instance(at, ran)
    }

    /// Takes the memory of an instance that died in a verb.
    pub(crate) fn bury_instance<T>(&mut self, at: usize, ran: &Ran<T>) -> Check {
        if ran.lost { self.lose_memory(at) } else { Ok(()) }
    }

    /// An instance ends. When it is only evicted, the sockets of its readers live on.
    fn crash(&mut self, at: usize) -> Check {
        let evicted = self.may_sleep(at) && self.rng.chance(60);
        let what = if evicted { "is evicted" } else { "crashes" };
        self.note(format!("{} {what}", self.objects[at].name));
        if self.rng.chance(30) {
            self.objects[at].skew_ms = self.rng.below(200) as i64 - 100;
            self.fetches.clear();
        }
        if evicted { self.lose_instance(at) } else { self.lose_memory(at) }
    }

    fn lose_memory(&mut self, at: usize) -> Check {
        self.break_sockets(at);
        self.lose_instance(at)
    }

    pub(crate) fn lose_instance(&mut self, at: usize) -> Check {
        let lost = self.objects[at].crash();
        ensure!(lost.is_ok(), SpuriousFailure, "{lost:?}");
        // What the instance was waiting for died with it; what it had sent travels on.
        self.makings.retain(|making| making.child != at);
        self.uploads.retain(|upload| upload.at != at);
        Ok(())
    }

    /// Remembers a request that may be repeated.
    pub(crate) fn remember(&mut self, at: usize, sent: Sent) {
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push((at, sent));
    }

    fn retry(&mut self) -> Check {
        if self.history.is_empty() {
            return Ok(());
        }
        let (at, sent) = self.history[self.rng.index(self.history.len())].clone();
        match sent {
            Sent::Create(create, body) if create.fork.is_some() => self.put_fork(at, create, body),
            Sent::Create(create, body) => self.put(at, &create, &body),
            Sent::Append(append) => self.append_group(at, vec![append]),
            Sent::Delete => self.delete(at),
        }
    }

    /// Compares what clients know with what is stored.
    pub(crate) fn check_ledgers(&mut self) -> Check {
        for (object, ledger) in self.objects.iter().zip(&mut self.ledgers) {
            let seen = object.model.current.as_ref();
            if let Some(life) = seen.filter(|life| life.phase != Phase::SoftDeleted) {
                let from = life.fork_point.unwrap_or(0) as usize;
                let stored = object.stored(life)?;
                ledger.check(life.generation, &stored[from.min(stored.len())..])?;
                ledger.forget_before(life.generation);
            }
        }
        Ok(())
    }
}
