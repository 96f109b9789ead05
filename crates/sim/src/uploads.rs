//! Uploads: how an object makes a segment of its oldest hot bytes, and how it finds out what became
//! of an upload that an earlier instance began.
//!
//! Every stage is a step of the scheduler, and all of them are lost with the instance: only the
//! intent on disk and a put under way live on.

use engine::life::Phase;
use engine::log::LogError;
use engine::rotate::{Collected, Rotation, Sealed};
use engine::segments::Outcome;

use crate::model::ModelLife;
use crate::object::Ran;
use crate::store::Put;
use crate::violation::{Check, ensure};
use crate::world::World;

/// An object that is making a segment.
pub(crate) struct Upload {
    pub(crate) at: usize,
    stage: Stage,
}

enum Stage {
    /// Hot bytes are read; with a rotation: those of an upload that lost its instance.
    Collect(Collected<Vec<u8>>, Option<Rotation>),
    /// The intent is still to be stored.
    Intend(Sealed<Vec<u8>>),
    Put(Rotation, Sealed<Vec<u8>>),
    /// Waits for the put of this call.
    Wait(Rotation, Sealed<Vec<u8>>, u64),
    /// Nobody knows whether the object is there.
    Look(Rotation, Sealed<Vec<u8>>),
    End(Rotation, Sealed<Vec<u8>>, Outcome),
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Collect(_, None) => "collect",
            Self::Collect(_, Some(_)) => "collect again",
            Self::Intend(_) => "intend",
            Self::Put(..) => "put",
            Self::Wait(..) => "wait",
            Self::Look(..) => "look",
            Self::End(..) => "end",
        }
    }
}

impl Upload {
    /// Whether it can do nothing before the store has answered.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.stage, Stage::Wait(..))
    }
}

impl World {
    /// Whether an object is making a segment.
    pub(crate) fn is_uploading(&self, at: usize) -> bool {
        self.uploads.iter().any(|upload| upload.at == at)
    }

    /// Objects that are awake begin to make a segment when it is time.
    pub(crate) fn rotate_what_is_due(&mut self) -> Check {
        for at in 0..self.objects.len() {
            let now = self.now(at);
            let stream = self.objects[at].stream.as_ref();
            if self.profile.rotates && stream.is_some_and(|stream| stream.rotation_due(now)) {
                self.rotate(at)?;
            }
        }
        Ok(())
    }

    /// Begins to make a segment, if there is anything to make it of.
    pub(crate) fn rotate(&mut self, at: usize) -> Check {
        if self.is_uploading(at) {
            return Ok(());
        }
        let mut collected = None;
        let ran = self.call(at, "rotate", |stream, _| {
            collected = stream.collect()?;
            Ok::<_, LogError>(collected.is_some())
        })?;
        let refused = !matches!(ran.reply, Some(Ok(_)));
        ensure!(!refused || ran.faulted, SpuriousFailure, "rotate: {:?}", ran.reply);
        if let Some(collected) = collected.filter(|_| !ran.lost) {
            self.uploads.push(Upload { at, stage: Stage::Collect(collected, None) });
        }
        self.bury_instance(at, &ran)
    }

    /// Takes up what an earlier instance began.
    pub(crate) fn take_up(&mut self, at: usize, rotation: Rotation) -> Check {
        ensure!(!self.is_uploading(at), Garbage, "{rotation:?} is under way");
        let stream = self.objects[at].stream.as_ref();
        if let Some(collected) = stream.map(|stream| stream.collect_again(&rotation)) {
            let stage = Stage::Collect(collected, Some(rotation));
            self.uploads.push(Upload { at, stage });
        }
        Ok(())
    }

    /// An upload takes its next step.
    pub(crate) fn advance_upload(&mut self, index: usize) -> Check {
        let Upload { at, stage } = self.uploads.swap_remove(index);
        let name = stage.name();
        if !self.calm && self.rng.chance(2) {
            // Its task ends, the instance lives on: the duty finds the intent.
            self.note(format!("{} drops its upload: {name}", self.objects[at].name));
            return Ok(());
        }
        let next = match stage {
            Stage::Collect(collected, rotation) => self.collect(at, collected, rotation)?,
            Stage::Intend(sealed) => self.begin_upload(at, sealed)?,
            Stage::Put(rotation, sealed) => Some(self.send_put(rotation, sealed)),
            Stage::Look(rotation, sealed) => self.look(rotation, sealed),
            waiting @ Stage::Wait(..) => Some(waiting),
            Stage::End(rotation, sealed, outcome) => {
                self.end_upload(at, rotation, sealed, outcome)?
            }
        };
        if let Some(stage) = next {
            self.note(format!("{} {name} -> {}", self.objects[at].name, stage.name()));
            self.uploads.push(Upload { at, stage });
        }
        Ok(())
    }

    fn collect(
        &mut self,
        at: usize,
        mut collected: Collected<Vec<u8>>,
        rotation: Option<Rotation>,
    ) -> Check<Option<Stage>> {
        let ran = self.call(at, "collect", |stream, _| stream.collect_step(&mut collected))?;
        let fits = match &ran.reply {
            Some(Ok(fits)) => *fits,
            reply => {
                ensure!(ran.faulted, SpuriousFailure, "collect: {reply:?}");
                false
            }
        };
        self.bury_instance(at, &ran)?;
        if !fits || ran.lost {
            return Ok(None);
        }
        Ok(Some(match (collected.is_complete(), rotation) {
            (false, rotation) => Stage::Collect(collected, rotation),
            (true, None) => Stage::Intend(collected.seal()),
            (true, Some(rotation)) => Stage::Look(rotation, collected.seal()),
        }))
    }

    fn begin_upload(&mut self, at: usize, sealed: Sealed<Vec<u8>>) -> Check<Option<Stage>> {
        let object = self.objects[at].name.clone();
        let ran =
            self.call(at, "intend", |stream, now| stream.begin_rotation(&object, &sealed, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        let rotation = match &ran.reply {
            Some(Ok(rotation)) => rotation.clone(),
            reply => {
                ensure!(ran.faulted, SpuriousFailure, "intend: {reply:?}");
                None
            }
        };
        self.bury_instance(at, &ran)?;
        let Some(rotation) = rotation else { return Ok(None) };
        let fresh = self.store.claim(&rotation.name);
        ensure!(fresh, Garbage, "the name {} is used twice", rotation.name);
        Ok(Some(Stage::Put(rotation, sealed)).filter(|_| !ran.lost))
    }

    fn send_put(&mut self, rotation: Rotation, sealed: Sealed<Vec<u8>>) -> Stage {
        self.calls += 1;
        self.puts.push(Put {
            call: self.calls,
            name: rotation.name.clone(),
            parts: sealed.parts.clone(),
            stored: sealed.stored(),
            late: false,
        });
        Stage::Wait(rotation, sealed, self.calls)
    }

    /// Whoever has an intent and has not put yet, when its marker is worked off, has taken too
    /// long: the instance that died in between.
    pub(crate) fn forget_unsent(&mut self, names: &[String]) {
        let late = |stage: &Stage| matches!(stage, Stage::Put(put, _) if names.contains(&put.name));
        self.uploads.retain(|upload| !late(&upload.stage));
    }

    /// The store has answered a put; whoever waits for it goes on.
    pub(crate) fn put_answered(&mut self, call: u64, outcome: Outcome) {
        let waits = |upload: &Upload| matches!(upload.stage, Stage::Wait(_, _, on) if on == call);
        let Some(index) = self.uploads.iter().position(waits) else { return };
        let Upload { at, stage } = self.uploads.swap_remove(index);
        if let Stage::Wait(rotation, sealed, _) = stage {
            self.uploads.push(Upload { at, stage: Stage::End(rotation, sealed, outcome) });
        }
    }

    /// Looks for the object of an upload; without an answer the duty comes again.
    fn look(&mut self, rotation: Rotation, sealed: Sealed<Vec<u8>>) -> Option<Stage> {
        if self.store_fails() {
            return None;
        }
        let outcome = match self.store.head(&rotation.name) {
            Some(stored) if stored == sealed.stored() => Outcome::Done,
            _ => Outcome::Unknown("it is not there".into()),
        };
        Some(Stage::End(rotation, sealed, outcome))
    }

    /// Publishes the segment, or gives it up.
    fn end_upload(
        &mut self,
        at: usize,
        rotation: Rotation,
        sealed: Sealed<Vec<u8>>,
        outcome: Outcome,
    ) -> Check<Option<Stage>> {
        use engine::rotate::Upload::{Failed, Unknown};
        let given_up = match outcome {
            Outcome::Done => {
                let what = format!("publish {}", rotation.name);
                let ran =
                    self.call(at, &what, |stream, now| stream.publish(&rotation, sealed, now))?;
                self.objects[at].reconcile(ran.now, ran.faulted)?;
                self.judge_publish(at, &rotation, &ran)?;
                self.bury_instance(at, &ran)?;
                return Ok(None);
            }
            Outcome::Failed(_) => Failed,
            Outcome::Unknown(_) => Unknown,
        };
        let what = format!("give up {} {given_up:?}", rotation.name);
        let ran =
            self.call(at, &what, |stream, now| stream.rotation_failed(&rotation, given_up, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        let sound = ran.faulted || matches!(ran.reply, Some(Ok(())));
        ensure!(sound, SpuriousFailure, "give up: {:?}", ran.reply);
        self.bury_instance(at, &ran)?;
        Ok(None)
    }

    fn judge_publish(
        &mut self,
        at: usize,
        rotation: &Rotation,
        ran: &Ran<Result<bool, LogError>>,
    ) -> Check {
        let life = self.objects[at].model.current.as_mut();
        // What is held for its forks makes no segments any more.
        let live = |life: &&mut ModelLife| {
            life.generation == rotation.generation && life.phase == Phase::Live
        };
        match (&ran.reply, life.filter(live)) {
            (Some(Ok(true)), Some(life)) => {
                let fits = life.cold == rotation.from.0 && rotation.to.0 <= life.tail();
                ensure!(fits, Tiling, "{rotation:?} after {}", life.cold);
                life.cold = rotation.to.0;
            }
            (Some(Ok(false)), None) => {}
            (Some(Err(_)) | None, _) if ran.faulted => {}
            (reply, life) => {
                let held = life.is_some();
                ensure!(false, Answer, "publish: {reply:?}, while the life is live: {held}");
            }
        }
        Ok(())
    }
}
