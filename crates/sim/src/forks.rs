//! Forks: the requests that make them, and what each does with the answers of its source.
//!
//! A [`Making`] is what a request holds while its object waits for the source. It dies with the
//! instance; its messages do not, and their answers then reach nobody.

use crate::network::{Answer, Message, Payload};
use engine::Missing;
use engine::create::{Create, CreateError, Created};
use engine::fork::{Begun, Copied, CopyRequest, ForkError, ForkGrant, ForkRequest, ForkWish};
use engine::life::Phase;
use protocol::lifetime::Lifetime;
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use crate::faults::Injection;
use crate::model::{Body, ModelLife, ModelOrigin};
use crate::verbs::same_create_refusal;
use crate::violation::{Check, ensure};
use crate::workload::Kind;
use crate::world::{Sent, World};

/// A fork that a request is making.
#[derive(Clone, Debug)]
pub(crate) struct Making {
    pub(crate) id: u64,
    pub(crate) child: usize,
    pub(crate) source: usize,
    pub(crate) create: Create<Vec<u8>>,
    pub(crate) body: Body,
    pub(crate) wish: ForkWish,
    /// The question that the source is asked.
    pub(crate) question: ForkRequest,
    /// The call that it waits for.
    pub(crate) waiting: u64,
    /// A reference may have been stored without us hearing of it.
    pub(crate) unsure: bool,
    /// What is asked for now, once the source has granted the fork.
    pub(crate) copying: Option<CopyRequest>,
    pub(crate) tries: u32,
    /// Faults of the object when it began: after one, memory may be of no use any more.
    pub(crate) faults: u64,
}

/// Attempts before a making gives up.
const TRIES_MAX: u32 = 4;

impl World {
    // The request.

    pub(crate) fn fork(&mut self, at: usize) -> Check {
        let source = self.source_for(at);
        if self.objects[source].model.live().is_err() && self.rng.chance(80) {
            return self.create(source);
        }
        let offset = if self.rng.chance(40) { None } else { Some(self.any_offset(source)) };
        // Messages past a cold anchor: their bytes have to be fetched first.
        let cold = self.objects[source].model.current.as_ref().is_some_and(|life| life.cold > 0);
        let plain = if cold { 30 } else { 65 };
        let sub_offset = if self.rng.chance(plain) { 0 } else { self.rng.below(12) };
        let name = self.objects[source].name.clone();
        let source_life = self.objects[source].model.current.as_ref();
        let kind = source_life.map_or(Kind::Binary, |life| Kind::of(&life.content_type));
        let content_type = source_life.map(|life| life.content_type.clone());
        let named = match self.rng.below(10) {
            0 => Some(self.workload.content_type(&mut self.rng, &self.profile)),
            1..4 => content_type,
            _ => None,
        };
        let now = self.now(at);
        let body = self.workload.first_body(&mut self.rng, &self.profile, kind);
        let create = Create {
            content_type: named,
            lifetime: self.workload.lifetime(&mut self.rng, &self.profile, now),
            closed: self.rng.chance(5),
            public: crate::workload::is_public(now),
            session: None,
            body: body.sent.clone(),
            fork: Some(ForkWish { source: name, offset, sub_offset }),
        };
        self.remember(at, Sent::Create(create.clone(), body.clone()));
        self.put_fork(at, create, body)
    }

    /// Mostly a stream that is there and is another; sometimes any, itself included.
    fn source_for(&mut self, child: usize) -> usize {
        let count = self.objects.len();
        let any = self.rng.index(count);
        if self.rng.chance(15) {
            return any;
        }
        let live = |at: &usize| {
            let life = self.objects[*at].model.current.as_ref();
            *at != child && life.is_some_and(|life| life.phase == Phase::Live)
        };
        (0..count).map(|step| (any + step) % count).find(live).unwrap_or(any)
    }

    pub(crate) fn put_fork(&mut self, at: usize, create: Create<Vec<u8>>, body: Body) -> Check {
        let Some(wish) = create.fork.clone() else { return Ok(()) };
        let name = self.objects[at].name.clone();
        let source = self.objects.iter().position(|object| object.name == wish.source);
        let making = self.makings.iter().any(|making| making.child == at);
        if !making && self.rng.chance(50) {
            // What an earlier instance left unfinished is given up first.
            self.give_up(at, true)?;
        }
        let what = format!("fork {:?} + {} of {}", wish.offset, wish.sub_offset, wish.source);
        let ran =
            self.call(at, &what, |stream, now| stream.begin_fork(&create, &wish, &name, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        let expected = self.objects[at].model.existing(&create);
        let next = expected.as_ref().map(|life| life.map(|life| life.offset(life.tail())));
        match (&ran.reply, next) {
            (None | Some(Err(CreateError::Log(_))), _) if ran.faulted => {}
            (Some(Ok(Begun::Exists(created))), Ok(Some(next))) => {
                ensure!(!created.new && created.next == next, Answer, "{created:?}");
            }
            (Some(Err(error)), Err(expected)) => {
                let same = same_create_refusal(error, expected);
                ensure!(same, Answer, "{error:?}, not {expected:?}");
            }
            (Some(Ok(Begun::Intent(question))), Ok(None)) => {
                let question = question.clone();
                self.intend(at, &create, &wish, &question, ran.now)?;
                if let Some(source) = source.filter(|_| !ran.lost) {
                    self.begin_making(at, source, create, body, wish, question);
                }
            }
            (reply, next) => ensure!(false, Answer, "{reply:?}, not {next:?}"),
        }
        self.bury_instance(at, &ran)
    }

    /// Takes an intent into the model.
    fn intend(
        &mut self,
        at: usize,
        create: &Create<Vec<u8>>,
        wish: &ForkWish,
        question: &ForkRequest,
        now: UnixMillis,
    ) -> Check {
        let object = &mut self.objects[at];
        let base = object.newest()?.map_or(0, |found| found.base.0);
        let generation = question.child.generation;
        let newer = object.model.dead.iter().all(|dead| *dead < generation);
        ensure!(newer, OffsetsStable, "generation {generation:?} is used twice");
        let free = base >= object.model.keys_end;
        ensure!(free, OffsetsStable, "keys from {base} on are used twice");
        let content_type = create.content_type.clone().unwrap_or_default();
        let mut life = ModelLife::new(generation, content_type, now);
        life.phase = Phase::Forking;
        life.public = create.public;
        life.base = base;
        life.bound(&self.profile.bounds);
        life.origin = Some(ModelOrigin {
            wish: wish.clone(),
            inherited: Vec::new(),
            ends: Default::default(),
            intent_at: now.0,
        });
        object.model.current = Some(life);
        Ok(())
    }

    fn begin_making(
        &mut self,
        child: usize,
        source: usize,
        create: Create<Vec<u8>>,
        body: Body,
        wish: ForkWish,
        question: ForkRequest,
    ) {
        self.calls += 1;
        let making = Making {
            id: self.calls,
            child,
            source,
            create,
            body,
            wish,
            question,
            waiting: 0,
            // Where messages may be doubled, a refusal says nothing about the other copy.
            unsure: self.profile.message_fault_percent > 0,
            copying: None,
            tries: 0,
            faults: self.objects[child].faults_seen,
        };
        self.ask(making);
    }

    /// Sends what the making needs next and lets it wait.
    fn ask(&mut self, mut making: Making) {
        let payload = match making.copying {
            None => Payload::Reference(making.question.clone()),
            Some(request) => Payload::Copy(request),
        };
        making.waiting = self.send(making.child, making.source, payload);
        self.makings.retain(|other| other.id != making.id);
        self.makings.push(making);
    }

    // Answers.

    pub(crate) fn answered(&mut self, message: &Message, answer: Answer) -> Check {
        let at = message.from;
        if self.objects[at].instance != message.instance {
            return Ok(());
        }
        if let Answer::Release(generation, confirmed) = answer {
            return if confirmed.is_ok() { self.released(at, generation) } else { Ok(()) };
        }
        let waits = |making: &Making| making.child == at && making.waiting == message.call;
        let Some(index) = self.makings.iter().position(waits) else { return Ok(()) };
        let mut making = self.makings[index].clone();
        making.waiting = 0;
        self.makings[index].waiting = 0;
        match answer {
            Answer::Reference(Ok(grant)) => self.granted(making, grant),
            Answer::Reference(Err(ForkError::GenerationTooLow { at_least })) => {
                self.raise(making, at_least)
            }
            Answer::Reference(Err(ForkError::Missing(Missing::Log(_)) | ForkError::TooHot))
                if self.rng.chance(50) =>
            {
                self.again(making)
            }
            Answer::Reference(Err(_)) => {
                let unsure = making.unsure;
                self.abandon(making, unsure)
            }
            Answer::Copy(Ok(copied)) => self.received(making, copied),
            Answer::Copy(Err(Missing::Log(_))) => self.again(making),
            Answer::Copy(Err(_)) => self.abandon(making, true),
            Answer::Broken | Answer::Release(..) => {
                making.unsure = true;
                self.again(making)
            }
        }
    }

    /// A making asks once more, or gives up.
    fn again(&mut self, mut making: Making) -> Check {
        making.tries += 1;
        if making.tries < TRIES_MAX {
            self.ask(making);
            return Ok(());
        }
        let referenced = making.unsure || making.copying.is_some();
        self.abandon(making, referenced)
    }

    /// A making stops waiting, or its object stops working on it.
    pub(crate) fn impatience(&mut self) -> Check {
        if self.makings.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.makings.len());
        if self.rng.chance(35) && !self.calm {
            let dropped = self.makings.swap_remove(index);
            self.note(format!("{} drops its request", self.objects[dropped.child].name));
            return Ok(());
        }
        let mut making = self.makings[index].clone();
        making.unsure = true;
        self.again(making)
    }

    fn raise(&mut self, mut making: Making, at_least: Generation) -> Check {
        let child = making.child;
        let name = self.objects[child].name.clone();
        let Making { create, wish, .. } = &making;
        let (create, wish) = (create.clone(), wish.clone());
        let ran = self.call(child, "raise", |stream, now| {
            stream.raise_fork(&create, &wish, &name, at_least, now)
        })?;
        match &ran.reply {
            Some(Ok(Begun::Intent(question))) => {
                let generation = question.child.generation;
                ensure!(generation >= at_least, Fork, "{generation:?} below {at_least:?}");
                self.intend(child, &create, &wish, question, ran.now)?;
                making.question = question.clone();
                if !ran.lost {
                    self.ask(making);
                }
            }
            reply => {
                ensure!(ran.faulted, SpuriousFailure, "raise: {reply:?}");
                if !ran.lost {
                    return self.abandon(making, false);
                }
            }
        }
        self.bury_instance(child, &ran)
    }

    fn granted(&mut self, making: Making, grant: ForkGrant) -> Check {
        let child = making.child;
        let source = self.objects[making.source].model.current.as_ref();
        let source = source.filter(|life| life.generation == grant.source).cloned();
        ensure!(source.is_some(), Fork, "a referenced source is gone");
        let Some(source) = source else { return Ok(()) };
        let create = making.create.clone();
        let ran = self.call_with(child, "granted", Injection::default(), |stream, _| {
            stream.fork_granted(&create, &grant)
        })?;
        let at = grant.at.0;
        let inherited = source.bytes[..at as usize].to_vec();
        let ends = source.ends.range(..=at).copied().collect();
        let Some(life) = &mut self.objects[child].model.current else {
            ensure!(false, Fork, "the intent of a fork is gone while it is made");
            return Ok(());
        };
        if let Some(origin) = &mut life.origin {
            origin.inherited = inherited;
            origin.ends = ends;
        }
        life.content_type = create.content_type.clone().unwrap_or(source.content_type);
        life.lifetime = match create.lifetime {
            Lifetime::Unlimited => source.lifetime,
            own => own,
        };
        life.stretches.clone_from(&grant.lineage);
        life.fork_point = Some(at);
        let json = life.content_type.is_json() && !create.body.is_empty();
        match (&ran.reply, json && making.body.wire.is_none()) {
            (Some(Ok(())), false) => self.copy_on(making),
            (Some(Err(CreateError::Json(_))), true) => self.abandon(making, true),
            (reply, _) => {
                ensure!(false, Answer, "granted: {reply:?}");
                Ok(())
            }
        }
    }

    fn received(&mut self, making: Making, copied: Copied<Vec<u8>>) -> Check {
        let child = making.child;
        let taken = copied.clone();
        let ran = self.call(child, "received", |stream, _| stream.fork_received(copied))?;
        match &ran.reply {
            Some(Ok(())) => {
                if let Some(life) = &mut self.objects[child].model.current {
                    take(life, taken);
                }
                if !ran.lost {
                    return self.copy_on(making);
                }
            }
            reply => {
                let disturbed = ran.faulted || making.faults != self.objects[child].faults_seen;
                ensure!(disturbed, SpuriousFailure, "received: {reply:?}");
                if !ran.lost {
                    return self.abandon(making, true);
                }
            }
        }
        self.bury_instance(child, &ran)
    }

    /// Asks for the next page, or makes the fork visible.
    fn copy_on(&mut self, mut making: Making) -> Check {
        let child = making.child;
        let ran = self
            .call_with(child, "missing", Injection::default(), |stream, _| stream.fork_missing())?;
        match ran.reply.flatten() {
            None => self.finish(making),
            missing => {
                making.copying = missing;
                making.tries = 0;
                self.ask(making);
                Ok(())
            }
        }
    }

    fn finish(&mut self, making: Making) -> Check {
        let child = making.child;
        let create = making.create.clone();
        let ran = self.call(child, "finish", |stream, now| stream.finish_fork(&create, now))?;
        let full = self.is_full(&making)?;
        match &ran.reply {
            Some(Err(CreateError::Full { .. })) if full => {
                if !ran.lost {
                    return self.abandon(making, true);
                }
            }
            Some(Ok(created)) => {
                ensure!(!full, Answer, "a fork of too many bytes");
                self.makings.retain(|other| other.id != making.id);
                self.finished(child, &making, created, ran.now)?;
            }
            reply => {
                let disturbed = ran.faulted || making.faults != self.objects[child].faults_seen;
                ensure!(disturbed, SpuriousFailure, "finish: {reply:?}");
                if !ran.lost {
                    return self.abandon(making, true);
                }
            }
        }
        self.bury_instance(child, &ran)
    }

    /// Whether the fork's own first bytes are too many after what it inherits.
    fn is_full(&self, making: &Making) -> Check<bool> {
        let Making { create, body, .. } = making;
        let object = &self.objects[making.child];
        let Some(life) = &object.model.current else { return Ok(false) };
        let json = life.content_type.is_json();
        let wire = if json { body.wire.as_deref().unwrap_or(&[]) } else { &create.body };
        Ok(!create.body.is_empty() && life.hot() + wire.len() as u64 > object.room()?)
    }

    fn finished(
        &mut self,
        at: usize,
        making: &Making,
        created: &Created,
        now: UnixMillis,
    ) -> Check {
        let object = &mut self.objects[at];
        let Some(life) = &mut object.model.current else {
            ensure!(false, Fork, "a fork that was given up became visible");
            return Ok(());
        };
        let origin = life.origin.as_ref();
        let whole = origin.is_some_and(|origin| origin.inherited == life.bytes);
        ensure!(whole, Fork, "a fork became visible without all it inherits");
        let json = life.content_type.is_json();
        life.ends = origin.map(|origin| origin.ends.clone()).unwrap_or_default();
        life.ends.extend(Some(life.tail()).filter(|at| *at > 0));
        life.phase = Phase::Live;
        life.accesses.last = now.0;
        life.accesses.latest = now.0;
        let wire = if json { making.body.wire.as_deref() } else { Some(&*making.body.sent) };
        life.push(wire.unwrap_or(&[]));
        life.closed = making.create.closed;
        let next = life.offset(life.tail());
        let positions = [Some(0), life.fork_point, Some(life.tail())];
        object.handed.extend(positions.into_iter().flatten().map(|at| life.offset(at)));
        let same = created.new && created.next == next && created.closed == life.closed;
        ensure!(same, Answer, "{created:?}, not {next:?}");
        Ok(())
    }

    fn abandon(&mut self, making: Making, referenced: bool) -> Check {
        let child = making.child;
        self.makings.retain(|other| other.id != making.id);
        let lost = self.give_up(child, referenced)?;
        if !lost && self.rng.chance(50) { self.hand_out_releases(child) } else { Ok(()) }
    }

    /// Gives an unfinished fork up, if there is one; `true` when the instance died.
    fn give_up(&mut self, child: usize, referenced: bool) -> Check<bool> {
        let what = format!("abandon {referenced}");
        let ran = self.call(child, &what, |stream, now| stream.abandon_fork(referenced, now))?;
        match &ran.reply {
            Some(Ok(())) => {
                let model = &mut self.objects[child].model;
                if model.current.as_ref().is_some_and(|life| life.phase == Phase::Forking) {
                    model.bury(referenced);
                }
            }
            reply => ensure!(ran.faulted, SpuriousFailure, "abandon: {reply:?}"),
        }
        self.bury_instance(child, &ran)?;
        Ok(ran.lost)
    }
}

/// Adds what a fork has received to its model.
fn take(life: &mut ModelLife, copied: Copied<Vec<u8>>) {
    match copied {
        Copied::Page(page) => life.bytes.extend(page.bytes),
        Copied::Restart => life.bytes.truncate(life.cold as usize),
        Copied::Segments(rows) => {
            let inherited = life.origin.as_ref().map(|origin| origin.inherited.clone());
            let to = life.cold + rows.iter().map(|row| row.length).sum::<u64>();
            let shared = &inherited.unwrap_or_default()[life.cold as usize..to as usize];
            life.bytes.extend_from_slice(shared);
            life.cold = to;
        }
    }
}
