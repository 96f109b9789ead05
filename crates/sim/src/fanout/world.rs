//! The scheduler: what happens next.

use std::rc::Rc;

use engine::fanout::peers::Address;

use super::clients::{put_source, source};
use super::hub::{Hub, label};
use super::{Setup, settle};
use crate::violation::Check;

/// How far time goes on at once when nothing happens.
const IDLE_MS: u64 = 6 * 3_600_000;

/// Something that can happen now.
#[derive(Clone, Copy)]
enum Move {
    Poll,
    Arrive,
    Timer,
    Ring,
    Act,
    Crash,
    Outage,
    Jump,
    Advance,
}

impl Hub {
    /// Runs a whole seed.
    pub(super) fn run(self: &Rc<Self>, setup: Setup) -> Check {
        let name = self.profile.name;
        self.note(format!("profile {name}: {:?}", self.profile));
        for index in 0..self.profile.sources {
            self.spawn(None, "put", Box::pin(put_source(Rc::clone(self), source(index))));
        }
        while self.step.get() < setup.steps {
            self.step_once(true);
            self.verdict()?;
        }
        settle::settle(self)
    }

    /// One thing happens.
    pub(super) fn step_once(self: &Rc<Self>, acts: bool) {
        self.step.set(self.step.get() + 1);
        let clock = self.clock.get();
        let ready = self.tasks.borrow().ready();
        let arrived = self.net.borrow().arrived(clock);
        let timer = self.timers.borrow_mut().next();
        let alarms = self.alarms();
        let rings = alarms.iter().filter(|(at, _)| *at <= clock).count();
        let is_timer_due = timer.is_some_and(|at| at <= clock);
        let busy = !ready.is_empty() || arrived > 0 || is_timer_due;
        let per_mille = |weight: u64| if self.calm.get() { 0 } else { weight as u32 };
        let when = |condition: bool, weight: u32| if condition { weight } else { 0 };
        let moves = [
            (Move::Poll, when(!ready.is_empty(), 4_000)),
            (Move::Arrive, when(arrived > 0, 2_000)),
            (Move::Timer, when(is_timer_due, 1_000)),
            (Move::Ring, when(rings > 0, 400)),
            (Move::Act, when(acts, if busy { 150 } else { 1_000 })),
            (Move::Crash, per_mille(self.profile.crash)),
            (Move::Outage, per_mille(self.profile.outage)),
            (Move::Jump, per_mille(self.profile.jump)),
            (Move::Advance, if busy { 20 } else { 2_000 }),
        ];
        let weights = moves.map(|(_, weight)| weight);
        let (chosen, _) = moves[self.rng.borrow_mut().weighted(&weights)];
        match chosen {
            Move::Poll => self.poll(self.pick(&ready)),
            Move::Arrive => {
                let index = self.below(arrived as u64) as usize;
                let parcel = self.net.borrow_mut().take(clock, index);
                if let Some(parcel) = parcel {
                    self.arrive(parcel);
                }
            }
            Move::Timer => {
                let timer = self.timers.borrow_mut().pop();
                if let Some(timer) = timer {
                    // Who waited may have gone since.
                    let _ = timer.send(());
                }
            }
            Move::Ring => {
                let due: Vec<_> = alarms.into_iter().filter(|(at, _)| *at <= clock).collect();
                let index = self.below(due.len() as u64) as usize;
                self.ring(&due[index].1);
            }
            Move::Act => self.act(),
            Move::Crash => self.crash_one(),
            Move::Outage => self.outage(),
            Move::Jump => {
                let most = self.pick(&[60_000, 600_000, 5 * 3_600_000]);
                self.clock.set(clock + self.below(most));
            }
            Move::Advance if busy => self.clock.set(clock + self.below(50)),
            Move::Advance => {
                let alarm = alarms.iter().map(|(at, _)| *at).min();
                let parcel = self.net.borrow().next();
                let next = [timer, alarm, parcel].into_iter().flatten().min();
                let idle = clock + self.below(2_000);
                let late = if self.chance(90) { 0 } else { self.below(3_000) };
                // Sessions with a long lifetime live through the whole run.
                let next = next.map_or(idle, |next| next.clamp(clock, clock + IDLE_MS) + late);
                self.clock.set(next);
            }
        }
    }

    /// A task goes on until it waits.
    fn poll(&self, id: u64) {
        let Some((mut task, waker)) = self.tasks.borrow_mut().take(id) else { return };
        if !task.poll(&waker) {
            self.tasks.borrow_mut().put_back(id, task);
        }
    }

    fn some_object(&self) -> Option<Address> {
        let objects = self.objects.borrow();
        let index = self.below(objects.len() as u64) as usize;
        objects.keys().nth(index).cloned()
    }

    fn crash_one(&self) {
        if let Some(address) = self.some_object() {
            self.crash(&address);
        }
    }

    /// An object, or most of a kind, fails for a while.
    fn outage(&self) {
        let Some(chosen) = self.some_object() else { return };
        let length = self.pick(&[3_000, 60_000, 600_000, 6 * 3_600_000]);
        let until = self.clock.get() + self.below(length);
        let all = self.chance(40);
        self.note(format!("OUTAGE of {} until {until}, all {all}", label(&chosen)));
        let is_session = |address: &Address| matches!(address, Address::Stream(name) if name.contains("/session/"));
        for (address, object) in self.objects.borrow_mut().iter_mut() {
            let alike = std::mem::discriminant(address) == std::mem::discriminant(&chosen)
                && is_session(address) == is_session(&chosen);
            if *address == chosen || (all && alike) {
                object.down_until = object.down_until.max(until);
            }
        }
    }

    /// Faults are over, clocks agree, and everybody is there.
    pub(super) fn calm_down(&self) {
        self.calm.set(true);
        self.note("CALM");
        for object in self.objects.borrow_mut().values_mut() {
            object.down_until = 0;
            object.skew_ms = 0;
        }
    }
}
