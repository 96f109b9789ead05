//! The object store that all objects share, and the messages that are on their way to it.
//!
//! A change of the store is a message: it lives on when the instance that sent it is gone. A put
//! may land late; all that is known is that it lands before a marker of its name is worked off.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use engine::cold::Locator;
use engine::log::Marker;
use engine::segments::{Fault, Faulty, MemorySegments, Outcome, Segments, Stored};

use crate::uploads::Upload;
use crate::violation::{Check, ensure};
use crate::world::World;

/// The store, and every name that an upload ever had. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: MemorySegments,
    names: Rc<RefCell<BTreeSet<String>>>,
    changes: Rc<Cell<u64>>,
}

/// What happens to a range on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    None,
    /// The store says that there is no such object.
    Missing,
    /// What [`Faulty`] does.
    Fault(Fault),
}

/// Waits for the store in memory, which is always ready.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the store in memory is always ready"),
    }
}

impl Store {
    /// Notes a name; `false` when it was used before.
    pub fn claim(&self, name: &str) -> bool {
        self.names.borrow_mut().insert(name.to_owned())
    }

    /// How often the store was changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    fn put(&self, name: &str, parts: Vec<Vec<u8>>, stored: Stored) -> Outcome {
        self.changes.set(self.changes.get() + 1);
        now(self.objects.put(name, parts, stored))
    }

    fn delete(&self, names: &[String]) -> Outcome {
        self.changes.set(self.changes.get() + 1);
        now(self.objects.delete(names))
    }

    /// What is stored under a name.
    #[must_use]
    pub fn head(&self, name: &str) -> Option<Stored> {
        now(self.objects.head(name)).unwrap_or_default()
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let listed = now(self.objects.list("", None, u32::MAX)).unwrap_or_default();
        listed.into_iter().map(|object| object.name).collect()
    }

    /// The first bytes of an object.
    #[must_use]
    pub fn prefix(&self, name: &str, length: u64) -> Option<Vec<u8>> {
        now(self.objects.get(name, 0..length)).unwrap_or_default()
    }

    /// The bytes of a locator, as whoever answers a client gets them: fetched in whole blocks,
    /// verified, trimmed. `None` when they cannot be had.
    #[must_use]
    pub fn fetch(&self, locator: &Locator, damage: Damage) -> Option<Vec<u8>> {
        let fault = if let Damage::Fault(fault) = damage { fault } else { Fault::None };
        let store = Faulty::new(self.objects.clone(), Cell::new(fault));
        let blocks = locator.blocks();
        let found = now(store.get(&locator.name, blocks.clone())).ok().flatten();
        let bytes = found.filter(|_| damage != Damage::Missing)?;
        let (from, to) = (locator.range.start - blocks.start, locator.range.end - blocks.start);
        let sound = engine::sums::verify(&bytes, &locator.sums);
        bytes.get(from as usize..to as usize).filter(|_| sound).map(<[u8]>::to_vec)
    }
}

/// A put under way.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) call: u64,
    pub(crate) name: String,
    pub(crate) parts: Vec<Vec<u8>>,
    pub(crate) stored: Stored,
    /// It was given up as unknown, and may still land.
    pub(crate) late: bool,
}

/// Markers that are being worked off.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    at: usize,
    instance: u64,
    markers: Vec<Marker>,
    /// Whether the store has deleted them, once it has answered.
    deleted: Option<bool>,
}

/// A client's read of cold bytes that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    locator: Locator,
    bytes: Vec<u8>,
    /// The world's clock at which it has taken too long.
    until: u64,
}

impl World {
    /// Whether a call of the store goes wrong.
    pub(crate) fn store_fails(&mut self) -> bool {
        !self.calm && self.rng.chance(self.profile.store_fault_percent)
    }

    /// One thing that waits for the store goes on.
    pub(crate) fn store_step(&mut self) -> Check {
        // Those that wait for a put stand behind the others.
        self.uploads.sort_by_key(Upload::waits);
        let counts = [
            self.uploads.iter().filter(|upload| !upload.waits()).count(),
            self.puts.len(),
            self.sweeps.len(),
            self.questions.len(),
            self.fetches.len(),
        ];
        let total = counts.iter().sum::<usize>();
        if total == 0 {
            return Ok(());
        }
        let mut index = self.rng.index(total);
        let mut kind = 0;
        while index >= counts[kind] {
            index -= counts[kind];
            kind += 1;
        }
        match kind {
            0 => self.advance_upload(index),
            1 => self.advance_put(index),
            2 => self.advance_sweep(index),
            3 => self.advance_question(index),
            _ => self.advance_fetch(index),
        }
    }

    /// Whether anything waits for the store.
    pub(crate) fn store_is_busy(&self) -> bool {
        !(self.uploads.is_empty()
            && self.puts.is_empty()
            && self.sweeps.is_empty()
            && self.questions.is_empty()
            && self.fetches.is_empty())
    }

    /// A put arrives, fails, is lost, is answered in vain, or stays under way.
    fn advance_put(&mut self, index: usize) -> Check {
        let put = self.puts.swap_remove(index);
        let unknown = Outcome::Unknown("injected".into());
        let fails = self.store_fails();
        let outcome = match (put.late, fails, self.rng.below(4)) {
            (true, true, _) => {
                self.note(format!("a late put of {} is lost", put.name));
                return Ok(());
            }
            (false, true, 0) => Outcome::Failed("injected".into()),
            (false, true, 1) => unknown,
            (false, true, 2) => {
                self.puts.push(Put { late: true, ..put.clone() });
                unknown
            }
            (false, true, _) => {
                self.land(&put)?;
                unknown
            }
            (_, false, _) => {
                self.land(&put)?;
                Outcome::Done
            }
        };
        self.note(format!("put {} -> {outcome:?}", put.name));
        if !put.late {
            self.put_answered(put.call, outcome);
        }
        Ok(())
    }

    fn land(&mut self, put: &Put) -> Check {
        let outcome = self.store.put(&put.name, put.parts.clone(), put.stored);
        ensure!(outcome == Outcome::Done, Garbage, "put {}: {outcome:?}", put.name);
        Ok(())
    }

    /// The object hands markers to the store.
    pub(crate) fn sweep(&mut self, at: usize, markers: Vec<Marker>) {
        if !markers.is_empty() {
            let instance = self.objects[at].instance;
            self.sweeps.push(Sweep { at, instance, markers, deleted: None });
        }
    }

    fn advance_sweep(&mut self, index: usize) -> Check {
        let sweep = self.sweeps.swap_remove(index);
        let Some(deleted) = sweep.deleted else { return self.delete_marked(sweep) };
        let at = sweep.at;
        if self.objects[at].instance != sweep.instance {
            return Ok(());
        }
        let what = format!("swept {deleted} {}", sweep.markers.len());
        let ran = self.call(at, &what, |stream, now| stream.swept(&sweep.markers, deleted, now))?;
        let sound = ran.faulted || matches!(ran.reply, Some(Ok(())));
        ensure!(sound, SpuriousFailure, "swept: {:?}", ran.reply);
        self.bury_instance(at, &ran)
    }

    /// The store deletes what is marked, or does not, and answers or does not.
    fn delete_marked(&mut self, mut sweep: Sweep) -> Check {
        let names: Vec<String> = sweep.markers.iter().map(|marker| marker.name.clone()).collect();
        self.forget_unsent(&names);
        let fate = if self.store_fails() { self.rng.below(3) } else { 3 };
        if fate > 1 {
            // Every put has ended by now, one way or the other.
            let (due, rest): (Vec<Put>, _) = std::mem::take(&mut self.puts)
                .into_iter()
                .partition(|put| names.contains(&put.name));
            self.puts = rest;
            for put in due {
                if self.rng.chance(50) {
                    self.land(&put)?;
                }
                if !put.late {
                    self.put_answered(put.call, Outcome::Unknown("too late".into()));
                }
            }
            let outcome = self.store.delete(&names);
            ensure!(outcome == Outcome::Done, SpuriousFailure, "delete: {outcome:?}");
        }
        self.note(format!("delete {names:?} -> {fate}"));
        sweep.deleted = Some(fate == 3);
        if self.calm || self.rng.chance(90) {
            self.sweeps.push(sweep);
        }
        Ok(())
    }

    /// Fetches the bytes of a locator. `None`: they could not be had, and that was noticed.
    pub(crate) fn fetch(&mut self, locator: &Locator) -> Check<Option<Vec<u8>>> {
        let kinds = [
            Damage::Missing,
            Damage::Fault(Fault::Refused),
            Damage::Fault(Fault::Short),
            Damage::Fault(Fault::Corrupted),
        ];
        let damage = if self.store_fails() { self.rng.pick(&kinds) } else { Damage::None };
        let bytes = self.store.fetch(locator, damage);
        let honest = bytes.is_some() == (damage == Damage::None);
        ensure!(honest, Shared, "{locator:?} under {damage:?}: {:?}", bytes.is_some());
        Ok(bytes)
    }

    /// A client reads cold bytes: now, or within the grace.
    pub(crate) fn read_cold(&mut self, locator: &Locator, bytes: &[u8]) -> Check {
        let until = self.clock + self.profile.bounds.grace_ms;
        let fetch = Fetch { locator: locator.clone(), bytes: bytes.to_vec(), until };
        if self.rng.chance(30) && !self.calm {
            self.fetches.push(fetch);
            return Ok(());
        }
        self.check_fetch(&fetch)
    }

    fn check_fetch(&mut self, fetch: &Fetch) -> Check {
        let bytes = self.fetch(&fetch.locator)?;
        let same = bytes.is_none_or(|bytes| bytes == fetch.bytes);
        ensure!(same, OffsetsStable, "other bytes than {:?}", fetch.locator);
        Ok(())
    }

    fn advance_fetch(&mut self, index: usize) -> Check {
        let fetch = self.fetches.swap_remove(index);
        if self.clock < fetch.until { self.check_fetch(&fetch) } else { Ok(()) }
    }
}
