//! What everything in the world hangs on: clock, chance, tasks, network, objects, and the model.
//!
//! A [`Hub`] is shared; each of its parts is borrowed for a moment only, and none while a task runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use engine::fanout::peers::Address;
use protocol::time::UnixMillis;

use super::model::Model;
use super::net::Net;
use super::objects::Object;
use super::profile::Profile;
use super::tasks::{Job, Tasks, Timers};
use super::{Bug, Setup};
use crate::rng::Rng;
use crate::trace::Trace;
use crate::violation::{Check, Violation};

/// The world's first millisecond.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The shared parts of a world.
pub(super) struct Hub {
    pub(super) rng: RefCell<Rng>,
    pub(super) clock: Cell<u64>,
    pub(super) trace: RefCell<Trace>,
    pub(super) tasks: RefCell<Tasks>,
    pub(super) timers: RefCell<Timers>,
    pub(super) net: RefCell<Net>,
    pub(super) objects: RefCell<BTreeMap<Address, Object>>,
    pub(super) model: RefCell<Model>,
    pub(super) profile: Profile,
    pub(super) bug: Bug,
    /// Faults are over.
    pub(super) calm: Cell<bool>,
    pub(super) step: Cell<u32>,
    /// What was found first.
    broken: RefCell<Option<Violation>>,
}

impl Hub {
    pub(super) fn new(setup: Setup) -> Rc<Self> {
        let mut rng = Rng::new(setup.seed);
        let profile = Profile::draw(&mut rng);
        Rc::new(Self {
            rng: RefCell::new(rng),
            clock: Cell::new(EPOCH_MS),
            trace: RefCell::new(Trace::new(setup.echo)),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            net: RefCell::default(),
            objects: RefCell::default(),
            model: RefCell::new(Model::new(profile.hold_ms)),
            profile,
            bug: setup.bug,
            calm: Cell::new(false),
            step: Cell::new(0),
            broken: RefCell::default(),
        })
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        let line = format!("#{} @{} {}", self.step.get(), self.clock.get(), text.as_ref());
        self.trace.borrow_mut().line(line);
    }

    /// Takes note of what a check has found.
    pub(super) fn judge(&self, check: Check) {
        if let Err(violation) = check {
            self.note(format!("VIOLATION {violation}"));
            self.broken.borrow_mut().get_or_insert(violation);
        }
    }

    /// What was found, if anything.
    pub(super) fn verdict(&self) -> Check {
        self.broken.borrow().clone().map_or(Ok(()), Err)
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.rng.borrow_mut().below(end)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Whether a fault happens that a profile gives so many of a thousand.
    pub(super) fn fails(&self, per_mille: u64) -> bool {
        !self.calm.get() && self.below(1_000) < per_mille
    }

    pub(super) fn pick<T: Copy>(&self, items: &[T]) -> T {
        self.rng.borrow_mut().pick(items)
    }

    pub(super) fn spawn(&self, owner: Option<Address>, what: &str, job: Job) -> u64 {
        let whose = owner.as_ref().map_or("a client".into(), label);
        self.tasks.borrow_mut().spawn(owner, format!("{whose}: {what}"), job)
    }

    /// Waits on the world's clock.
    pub(super) async fn sleep(&self, ms: u64) {
        let timer = self.timers.borrow_mut().set(self.clock.get().saturating_add(ms));
        // Nobody cancels timers.
        let _ = timer.await;
    }

    /// An object's clock.
    pub(super) fn now(&self, of: &Address) -> UnixMillis {
        let skew = self.objects.borrow().get(of).map_or(0, |object| object.skew_ms);
        UnixMillis(self.clock.get().saturating_add_signed(skew))
    }

    /// Lets go of everything that holds the hub itself.
    pub(super) fn tear_down(&self) {
        let tasks = self.tasks.borrow_mut().take_all();
        drop(tasks);
        let objects = std::mem::take(&mut *self.objects.borrow_mut());
        drop(objects);
        let net = std::mem::take(&mut *self.net.borrow_mut());
        drop(net);
    }
}

/// The last part of an object's name, for the trace.
pub(super) fn label(address: &Address) -> String {
    match address {
        Address::Stream(name) => format!("stream {name}"),
        Address::Subscription(name) => format!("shard {name}"),
        Address::Session(name) => format!("session {name}"),
    }
}
