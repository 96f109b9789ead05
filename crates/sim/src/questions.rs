//! What a source does with a fork's question: it may have to look at cold bytes first, and other
//! things happen while it fetches them.

use std::ops::Range;

use engine::cold::Locator;
use engine::fork::{ForkError, ForkRequest, Lent, Loan};
use engine::offsets::OffsetError;
use engine::read::ReadError;
use engine::{Missing, Stream};
use protocol::offset::{Generation, OffsetParam, Position};
use protocol::time::UnixMillis;

use crate::faults::Injection;
use crate::network::{Answer, Message, Payload};
use crate::object::{ObjectLog, Ran};
use crate::violation::{Check, ensure};
use crate::world::World;

/// A question that waits for cold bytes.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    message: Message,
    request: ForkRequest,
    /// The instance that was asked.
    instance: u64,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// The byte before the offset, and whether the offset is a boundary.
    Boundary(Locator, bool),
    /// Where the messages lie that the sub-offset counts.
    Messages(Generation, Loan, Vec<Locator>),
}

impl World {
    /// A question arrives; `None` when it has to wait for cold bytes.
    pub(crate) fn ask_source(
        &mut self,
        message: &Message,
        request: &ForkRequest,
    ) -> Check<Option<Answer>> {
        let to = message.to;
        if let Some(offset) = request.offset {
            let ran = self.ask_boundary(to, offset)?;
            let valid =
                self.objects[to].model.live().is_ok_and(|life| life.resolve(offset).is_ok());
            self.bury_instance(to, &ran)?;
            match ran.reply {
                None | Some(Err(ReadError::Missing(Missing::Log(_)))) => {
                    return Ok(Some(Answer::Broken));
                }
                _ if ran.lost => return Ok(Some(Answer::Broken)),
                Some(Ok(Some(locator))) => {
                    let instance = self.objects[to].instance;
                    let (message, request) = (message.clone(), request.clone());
                    let wanted = Wanted::Boundary(locator, valid);
                    self.questions.push(Question { message, request, instance, wanted });
                    return Ok(None);
                }
                _ => {}
            }
        }
        self.refer(message, request, None)
    }

    /// Asks where the byte before an offset lies, and judges the answer.
    pub(crate) fn ask_boundary(
        &mut self,
        at: usize,
        offset: OffsetParam,
    ) -> Check<Ran<Result<Option<Locator>, ReadError>>> {
        let what = format!("boundary {offset:?}");
        let ran = self.call(at, &what, |stream, now| stream.boundary(offset, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        let expected = match self.objects[at].model.live() {
            Err(missing) => Err(ReadError::Missing(missing)),
            Ok(life) => life.resolve(offset).map(|_| ()).map_err(ReadError::Offset),
        };
        match &ran.reply {
            None | Some(Err(ReadError::Missing(Missing::Log(_)))) => {
                ensure!(ran.faulted, SpuriousFailure, "boundary: {:?}", ran.reply);
            }
            // Only the byte will tell.
            Some(Ok(Some(_))) => {
                let refused = expected.as_ref().err();
                let possible = refused
                    .is_none_or(|refused| *refused == ReadError::Offset(OffsetError::Invalid));
                ensure!(possible, Answer, "{:?}, not {expected:?}", ran.reply);
            }
            // The position is hot, or whoever asks next is told.
            Some(Ok(None)) => {}
            Some(reply) => {
                let reply = reply.clone().map(|_| ());
                ensure!(reply == expected, Answer, "boundary: {reply:?}, not {expected:?}");
            }
        }
        Ok(ran)
    }

    /// Asks the engine; `None` when it has to be lent cold bytes first.
    fn refer(
        &mut self,
        message: &Message,
        request: &ForkRequest,
        lent: Option<&Lent>,
    ) -> Check<Option<Answer>> {
        let to = message.to;
        let verb =
            |stream: &mut Stream<ObjectLog>, now: UnixMillis| stream.reference(request, lent, now);
        let ran = self.call(to, "reference", verb)?;
        self.objects[to].reconcile(ran.now, ran.faulted)?;
        if let Some(Err(ForkError::Lend(loan))) = &ran.reply {
            let loan = loan.clone();
            self.judge_lend(to, request, &loan.range)?;
            if !ran.lost {
                self.borrow(message, request, loan)?;
                return Ok(None);
            }
        } else {
            self.judge_reference(to, request, &ran)?;
        }
        self.bury_instance(to, &ran)?;
        let answer = ran.reply.filter(|_| !ran.lost);
        if matches!(answer, Some(Err(ForkError::TooHot))) && self.profile.rotates {
            self.rotate(to)?;
        }
        Ok(Some(answer.map_or(Answer::Broken, Answer::Reference)))
    }

    fn judge_lend(&self, at: usize, request: &ForkRequest, range: &Range<Position>) -> Check {
        let life = self.objects[at].model.current.as_ref();
        let fits = life.is_some_and(|life| {
            let counts = life.content_type.is_json() && request.sub_offset > 0;
            counts && range.start < range.end && range.end.0 <= life.cold
        });
        ensure!(fits, Fork, "{request:?} wants {range:?}");
        Ok(())
    }

    /// Finds out where the bytes lie that the engine wants to see.
    fn borrow(&mut self, message: &Message, request: &ForkRequest, loan: Loan) -> Check {
        let to = message.to;
        let pieces = loan.range.clone();
        let ran = self.call_with(to, "pieces", Injection::default(), |stream, _| {
            Some((stream.generation()?, stream.pieces(pieces).ok()?))
        })?;
        let Some(Some((generation, pieces))) = ran.reply else {
            ensure!(false, SpuriousFailure, "pieces: {:?}", ran.reply);
            return Ok(());
        };
        self.questions.push(Question {
            message: message.clone(),
            request: request.clone(),
            instance: self.objects[to].instance,
            wanted: Wanted::Messages(generation, loan, pieces),
        });
        Ok(())
    }

    /// Cold bytes arrive for a question, or do not.
    pub(crate) fn advance_question(&mut self, index: usize) -> Check {
        let Question { message, request, instance, wanted } = self.questions.swap_remove(index);
        let answer = if self.objects[message.to].instance == instance {
            self.look_and_refer(&message, &request, wanted)?
        } else {
            Some(Answer::Broken)
        };
        if let Some(answer) = answer {
            self.network.push(Message { payload: Payload::Answer(answer), ..message });
        }
        Ok(())
    }

    fn look_and_refer(
        &mut self,
        message: &Message,
        request: &ForkRequest,
        wanted: Wanted,
    ) -> Check<Option<Answer>> {
        match wanted {
            Wanted::Boundary(locator, valid) => {
                let Some(byte) = self.fetch_for_object(&locator)? else {
                    return Ok(Some(Answer::Broken));
                };
                ensure!((byte == b"\n") == valid, Answer, "{:?}: {byte:?}", request.offset);
                if !valid {
                    let refusal = Err(ForkError::Offset(OffsetError::Invalid));
                    return Ok(Some(Answer::Reference(refusal)));
                }
                self.refer(message, request, None)
            }
            Wanted::Messages(generation, Loan { range, missing }, pieces) => {
                let mut bytes = Vec::new();
                for piece in &pieces {
                    match self.fetch_for_object(piece)? {
                        Some(part) => bytes.extend(part),
                        None => return Ok(Some(Answer::Broken)),
                    }
                }
                let length = range.end.0 - range.start.0;
                ensure!(bytes.len() as u64 == length, Shared, "{range:?} in {pieces:?}");
                let lent = Lent { generation, from: range.start, missing, bytes };
                self.refer(message, request, Some(&lent))
            }
        }
    }

    /// As [`World::fetch`]; what an object asked for some time ago may be gone.
    pub(crate) fn fetch_for_object(&mut self, locator: &Locator) -> Check<Option<Vec<u8>>> {
        if self.store.head(&locator.name).is_none() {
            return Ok(None);
        }
        self.fetch(locator)
    }
}
