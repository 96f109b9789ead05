//! Alarms, and the end of a run: faults stop, everything settles, and what is left is looked at.

use engine::duties::{Busy, Due};
use engine::fork::FORK_PATIENCE_MS;
use engine::life::Phase;
use engine::log::{Key, Log, Write};
use engine::read::Dress;
use protocol::offset::{OffsetParam, Position};
use protocol::time::UnixMillis;

use crate::faults::Injection;
use crate::object::Object;
use crate::violation::{Check, ensure};
use crate::world::World;

/// The pause that the object takes when its alarm failed.
const RETRY_PAUSE_MS: u64 = 1_000;

/// Steps in which a quiet world has to settle.
const SETTLE_STEPS: u32 = 20_000;

impl World {
    /// Lets a due alarm go off: just in time, late, and sometimes twice.
    pub(crate) fn ring_one(&mut self) -> Check {
        let due = |world: &Self, at: usize| {
            world.objects[at].disk.alarm().is_some_and(|alarm| alarm <= world.now(at))
        };
        let ready: Vec<usize> = (0..self.objects.len()).filter(|at| due(self, *at)).collect();
        if ready.is_empty() {
            // Time goes on to the next alarm, so that one is met to the millisecond.
            return self.skip_to_alarm();
        }
        let at = self.rng.pick(&ready);
        self.take_alarm(at);
        self.ring(at)?;
        if self.rng.chance(10) { self.ring(at) } else { Ok(()) }
    }

    fn skip_to_alarm(&mut self) -> Check {
        let at = self.rng.index(self.objects.len());
        let alarm = self.objects[at].disk.alarm();
        let wait = alarm.map_or(0, |alarm| alarm.saturating_since_ms(self.now(at)));
        if wait < 3_600_000 {
            self.clock += wait;
        }
        Ok(())
    }

    fn take_alarm(&mut self, at: usize) {
        self.objects[at].disk.take_alarm();
        self.objects[at].retry_at = None;
    }

    /// Runs the alarm's handler; the alarm has been taken.
    fn ring(&mut self, at: usize) -> Check {
        let making = self.makings.iter().any(|making| making.child == at);
        let busy = Busy { making_fork: making, rotating: self.is_uploading(at) };
        let what = format!("alarm {busy:?}");
        let ran = self.call(at, &what, |stream, now| stream.on_alarm(busy, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        self.reconcile_forking(at, making, ran.now)?;
        let failed = match &ran.reply {
            Some(Ok(_)) => false,
            reply => {
                ensure!(ran.faulted, SpuriousFailure, "alarm: {reply:?}");
                true
            }
        };
        let object = &mut self.objects[at];
        let set = object.disk.alarm();
        let again = match (ran.lost, failed) {
            // The platform repeats a handler that did not return, unless it set the alarm.
            (true, _) => set.is_none().then_some(ran.now),
            // The object's own handler sets the alarm when the engine could not.
            (false, true) => {
                let retry = ran.now.saturating_add_ms(RETRY_PAUSE_MS);
                set.is_none_or(|set| retry < set).then_some(retry)
            }
            (false, false) => None,
        };
        if let Some(again) = again {
            object.retry_at = Some(again);
            let set = object.disk.commit(vec![Write::Alarm(again)]);
            ensure!(set.is_ok(), SpuriousFailure, "{set:?}");
        }
        object.audited_at = None;
        self.bury_instance(at, &ran)?;
        match ran.reply.filter(|_| !ran.lost) {
            Some(Ok(due)) => self.see_to(at, due),
            _ => Ok(()),
        }
    }

    /// What the alarm has handed out.
    fn see_to(&mut self, at: usize, due: Due) -> Check {
        self.send_releases(at, &due.releases)?;
        self.sweep(at, due.markers);
        due.upload.map_or(Ok(()), |rotation| self.take_up(at, rotation))
    }

    /// An unfinished fork may have been given up by its duty.
    fn reconcile_forking(&mut self, at: usize, making: bool, now: UnixMillis) -> Check {
        let object = &mut self.objects[at];
        let forking = object.model.current.as_ref().filter(|life| life.phase == Phase::Forking);
        let Some(life) = forking else { return Ok(()) };
        let generation = life.generation;
        let intent_at = life.origin.as_ref().map_or(0, |origin| origin.intent_at);
        let there = object
            .newest()?
            .is_some_and(|found| found.generation == generation && found.phase == Phase::Forking);
        if !there {
            let patient = now.0 >= intent_at + FORK_PATIENCE_MS;
            ensure!(patient && !making, Fork, "a fork was given up while it was made");
            object.model.bury(true);
        }
        Ok(())
    }

    /// Faults stop: messages arrive, makings come to an end, every stream is read, deleted, and
    /// leaves nothing behind.
    ///
    /// # Errors
    /// The first broken invariant.
    pub(crate) fn settle(&mut self) -> Check {
        self.calm = true;
        self.note("settling".to_owned());
        for object in &mut self.objects {
            object.skew_ms = 0;
        }
        self.fetches.clear();
        self.drain()?;
        self.ring_uploads()?;
        self.check_ledgers()?;
        self.settle_readers()?;
        for at in 0..self.objects.len() {
            self.audit(at)?;
            self.read_all(at)?;
        }
        for at in 0..self.objects.len() {
            self.delete(at)?;
            self.audit(at)?;
        }
        self.ring_out()?;
        for at in 0..self.objects.len() {
            self.check_nothing_left(at)?;
        }
        let names = self.store.names();
        ensure!(names.is_empty(), Liveness, "the store keeps {names:?}");
        let hash = self.trace.hash();
        self.note(format!("settled {hash:016x}"));
        Ok(())
    }

    /// Delivers messages until no request is waiting.
    fn drain(&mut self) -> Check {
        for _ in 0..SETTLE_STEPS {
            self.rotate_what_is_due()?;
            match (self.network.is_empty(), self.makings.is_empty()) {
                _ if self.store_is_busy() => {
                    self.store_step()?;
                    self.audit_store()?;
                }
                (true, true) => return Ok(()),
                (true, false) => self.impatience()?,
                (false, _) => self.message()?,
            }
        }
        ensure!(false, Liveness, "forks are made for ever: {:?}", self.makings);
        Ok(())
    }

    /// Lets alarms go off until no upload is open whose instance is gone.
    fn ring_uploads(&mut self) -> Check {
        for _ in 0..SETTLE_STEPS {
            let open = |object: &Object| {
                let life = object.model.current.as_ref();
                let rotation = life.map(|life| object.disk.rotation(life.generation));
                rotation.is_some_and(|row| {
                    row.is_ok_and(|row| row.is_some_and(|row| row.intent.is_some()))
                })
            };
            let Some(at) = self.objects.iter().position(open) else { return Ok(()) };
            let Some(alarm) = self.objects[at].disk.alarm() else { break };
            self.clock = self.clock.max(alarm.0);
            self.take_alarm(at);
            self.ring(at)?;
            self.drain()?;
        }
        ensure!(false, Liveness, "an upload is open for ever");
        Ok(())
    }

    /// Lets every alarm go off at its time, until none is set.
    fn ring_out(&mut self) -> Check {
        for _ in 0..SETTLE_STEPS {
            self.drain()?;
            let alarms = self.objects.iter().enumerate();
            let alarms = alarms.filter_map(|(at, object)| Some((object.disk.alarm()?, at)));
            let Some((alarm, at)) = alarms.min() else { return Ok(()) };
            self.clock = self.clock.max(alarm.0);
            self.take_alarm(at);
            self.ring(at)?;
            self.audit(at)?;
            self.audit_store()?;
        }
        ensure!(false, Liveness, "alarms go off for ever");
        Ok(())
    }

    /// Reads a whole stream in pages.
    fn read_all(&mut self, at: usize) -> Check {
        let chunk = if self.profile.large { 1 << 18 } else { 16 + self.rng.below(4_000) };
        let located = self.call_with(at, "read all", Injection::default(), |stream, now| {
            stream.locate(OffsetParam::Start, now)
        })?;
        self.after(at, &located)?;
        let Some(Ok(Position(mut from))) = located.reply else { return Ok(()) };
        if let Ok(life) = self.objects[at].model.live() {
            life.accessed(located.now);
        }
        loop {
            let ran = self.call_with(at, "page", Injection::default(), |stream, now| {
                stream.page(Position(from), chunk, Dress::Response, now)
            })?;
            self.after(at, &ran)?;
            let Some(Ok(page)) = &ran.reply else { return Ok(()) };
            self.check_page(at, page, from, chunk, Dress::Response)?;
            from = page.to.0;
            if page.up_to_date {
                return Ok(());
            }
        }
    }

    fn check_nothing_left(&mut self, at: usize) -> Check {
        let object = &self.objects[at];
        let name = &object.name;
        let left = &object.model.current;
        ensure!(left.is_none(), Liveness, "{name} is held for ever: {left:?}");
        let lives = object.disk.lives(10);
        ensure!(lives == Ok(vec![]), Liveness, "{name} keeps lives: {lives:?}");
        let rows = object.disk.extents(Key(0)..Key(1 << 53), 10);
        ensure!(rows == Ok(vec![]), Liveness, "{name} keeps rows: {rows:?}");
        let segments = object.disk.segments(Key(0)..Key(1 << 53), 10);
        ensure!(segments == Ok(vec![]), Liveness, "{name} keeps segments: {segments:?}");
        let markers = object.disk.markers(10);
        ensure!(markers == Ok(vec![]), Liveness, "{name} keeps markers: {markers:?}");
        let duties = object.disk.duties();
        ensure!(duties == Ok(vec![]), Liveness, "{name} keeps duties: {duties:?}");
        let releases = object.disk.releases(10);
        ensure!(releases == Ok(vec![]), Liveness, "{name} keeps releases: {releases:?}");
        for generation in &object.model.dead {
            let forks = object.disk.forks_of(*generation, 1);
            ensure!(forks == Ok(0), Liveness, "{name} keeps references to {generation:?}");
            let rotation = object.disk.rotation(*generation);
            ensure!(rotation == Ok(None), Liveness, "{name} keeps a rotation: {rotation:?}");
            let producers = object.disk.has_producers(*generation);
            ensure!(producers == Ok(false), Liveness, "{name} keeps producers");
        }
        let tombstone = object.disk.tombstone().ok().flatten().unwrap_or_default();
        let highest = object.model.dead.iter().max().copied().unwrap_or_default();
        ensure!(tombstone.generation == highest, OffsetsStable, "{tombstone:?}, not {highest:?}");
        Ok(())
    }
}
