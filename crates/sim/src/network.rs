//! The network between objects: messages, everything that happens to them on the way, and the
//! source's side of a fork, judged.

use engine::Missing;
use engine::fork::{Copied, CopyRequest, ForkError, ForkGrant, ForkRequest};
use engine::log::{ForkId, LogError, Release};
use protocol::offset::Generation;

use crate::object::Ran;
use crate::violation::{Check, ensure};
use crate::world::World;

/// A message under way.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) call: u64,
    /// Who asked; answers go there.
    pub(crate) from: usize,
    /// The asking instance: answers to a dead one reach nobody.
    pub(crate) instance: u64,
    pub(crate) to: usize,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Reference(ForkRequest),
    Copy(CopyRequest),
    Release(ForkId),
    Answer(Answer),
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Reference(Result<ForkGrant, ForkError>),
    Copy(Result<Copied<Vec<u8>>, Missing>),
    Release(Generation, Result<(), LogError>),
    /// The connection broke: nobody knows what happened.
    Broken,
}

impl World {
    pub(crate) fn send(&mut self, from: usize, to: usize, payload: Payload) -> u64 {
        self.calls += 1;
        let instance = self.objects[from].instance;
        self.network.push(Message { call: self.calls, from, instance, to, payload });
        self.calls
    }

    /// A message arrives, or is lost, or arrives and will arrive again.
    pub(crate) fn message(&mut self) -> Check {
        if self.network.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.network.len());
        let trouble = !self.calm && self.rng.chance(self.profile.message_fault_percent);
        let message = match (trouble, self.rng.below(3)) {
            (true, 0) => {
                let lost = self.network.swap_remove(index);
                self.note(format!("lost: {}", crate::trace::short(&lost)));
                return Ok(());
            }
            (true, 1) => {
                let broken = Payload::Answer(Answer::Broken);
                Message { payload: broken, ..self.network.swap_remove(index) }
            }
            // Delivered now and once more later.
            (true, _) => self.network[index].clone(),
            (false, _) => self.network.swap_remove(index),
        };
        self.deliver(message)
    }

    fn deliver(&mut self, message: Message) -> Check {
        let to = message.to;
        let answer = match &message.payload {
            Payload::Answer(answer) => return self.answered(&message, answer.clone()),
            Payload::Reference(request) => match self.ask_source(&message, request)? {
                Some(answer) => Some(answer),
                None => return Ok(()),
            },
            Payload::Copy(request) => {
                let request = *request;
                let what = format!("copy {request:?}");
                let ran = self.call(to, &what, |stream, _| stream.copy(request))?;
                self.judge_copy(to, request, &ran)?;
                self.bury_instance(to, &ran)?;
                ran.reply.filter(|_| !ran.lost).map(Answer::Copy)
            }
            Payload::Release(child) => {
                let what = format!("release {child:?}");
                let ran = self.call(to, &what, |stream, now| stream.release(child, now))?;
                self.objects[to].reconcile(ran.now, ran.faulted)?;
                match &ran.reply {
                    Some(Ok(())) => self.objects[to].model.release(child),
                    reply => ensure!(ran.faulted, SpuriousFailure, "release: {reply:?}"),
                }
                self.bury_instance(to, &ran)?;
                let generation = child.generation;
                ran.reply.filter(|_| !ran.lost).map(|reply| Answer::Release(generation, reply))
            }
        };
        let payload = Payload::Answer(answer.unwrap_or(Answer::Broken));
        self.network.push(Message { payload, ..message });
        Ok(())
    }

    pub(crate) fn judge_reference(
        &mut self,
        at: usize,
        request: &ForkRequest,
        ran: &Ran<Result<ForkGrant, ForkError>>,
    ) -> Check {
        match &ran.reply {
            None => {}
            Some(Err(ForkError::Missing(Missing::Log(error)))) => {
                ensure!(ran.faulted, SpuriousFailure, "reference: {error}");
            }
            Some(reply) => {
                let expected = self.objects[at].model.reference(request);
                ensure!(*reply == expected, Fork, "{reply:?}, not {expected:?}");
            }
        }
        Ok(())
    }

    fn judge_copy(
        &mut self,
        at: usize,
        CopyRequest { source, cold, from, to: end }: CopyRequest,
        ran: &Ran<Result<Copied<Vec<u8>>, Missing>>,
    ) -> Check {
        let held = self.objects[at].model.current.as_ref();
        let life = held.filter(|life| life.generation == source);
        match (&ran.reply, life) {
            (None | Some(Err(Missing::Log(_))), _) if ran.faulted => {}
            (Some(Err(Missing::NotFound)), None) => {}
            (Some(Err(Missing::NotFound)), Some(_)) if from.0 >= self.objects[at].model.kept() => {}
            (Some(Ok(Copied::Restart)), Some(life)) => {
                let overtaken = cold < from && from.0 < life.cold;
                ensure!(overtaken, Fork, "a restart at {from:?} after {cold:?}");
            }
            (Some(Ok(Copied::Segments(rows))), Some(life)) => {
                let mut next = from.0;
                for row in rows {
                    let ends = life.ends.range(next + 1..).map(|end| end - next);
                    let ends = ends.take_while(|end| *end < row.length).chain([row.length]);
                    let known = life.content_type.is_json() || row.ends == ends.collect::<Vec<_>>();
                    let fits = row.key.0 == next && !row.own && row.length > 0 && known;
                    ensure!(fits, Fork, "a segment {row:?} at {next}");
                    next += row.length;
                }
                let fits = cold == from && from.0 < next && next <= end.0.min(life.cold);
                ensure!(fits, Fork, "segments {from:?}..{next} of ..{end:?}");
            }
            (Some(Ok(Copied::Page(page))), Some(life)) => {
                let to = from.0 + page.bytes.len() as u64;
                let fits = page.from == from && from.0 < to && to <= end.0 && to <= life.tail();
                ensure!(fits, Fork, "a page {from:?}..{to} of ..{end:?}");
                let bytes = &life.bytes[from.0 as usize..to as usize];
                ensure!(page.bytes == bytes, Fork, "a page with other bytes");
                let ends = life.ends.range(from.0 + 1..=to).map(|end| end - from.0);
                let known = life.content_type.is_json() || page.ends == ends.collect::<Vec<_>>();
                ensure!(known, Fork, "a page with other ends: {:?}", page.ends);
            }
            (reply, life) => {
                let held = life.is_some();
                ensure!(false, Fork, "copy: {reply:?}, while the life is held: {held}");
            }
        }
        Ok(())
    }

    pub(crate) fn released(&mut self, at: usize, generation: Generation) -> Check {
        let ran = self.call(at, "released", |stream, _| stream.released(generation))?;
        match &ran.reply {
            Some(Ok(())) => {
                self.objects[at].model.releases.remove(&generation);
            }
            reply => ensure!(ran.faulted, SpuriousFailure, "released: {reply:?}"),
        }
        self.bury_instance(at, &ran)
    }

    /// The object delivers what is due without waiting for its alarm.
    pub(crate) fn hand_out_releases(&mut self, at: usize) -> Check {
        let ran = self.call(at, "due releases", |stream, now| stream.due_releases(now))?;
        match ran.reply.as_ref() {
            Some(Ok(releases)) if !ran.lost => self.send_releases(at, releases)?,
            Some(Ok(_)) => {}
            reply => ensure!(ran.faulted, SpuriousFailure, "releases: {reply:?}"),
        }
        self.bury_instance(at, &ran)
    }

    pub(crate) fn send_releases(&mut self, at: usize, releases: &[Release]) -> Check {
        for release in releases {
            let known = self.objects[at].model.releases.get(&release.generation);
            let owed = known == Some(&release.source);
            ensure!(owed, Fork, "{release:?} was not owed");
            let to = self.objects.iter().position(|object| object.name == release.source);
            let child = self.objects[at].name.clone();
            let id = ForkId { child, generation: release.generation };
            if let Some(to) = to {
                self.send(at, to, Payload::Release(id));
            }
        }
        Ok(())
    }
}
