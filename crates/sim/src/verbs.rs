//! What clients do to a stream, and what they must be answered.

use engine::Missing;
use engine::append::{AppendError, Growth};
use engine::cold::Content;
use engine::create::{Create, CreateError};
use engine::delete::Deleted;
use engine::life::{Closed, Phase};
use engine::read::{Dress, ReadError};
use protocol::json::frame_messages;
use protocol::offset::{Offset, OffsetParam, Position};
use protocol::time::UnixMillis;

use crate::faults::Injection;
use crate::ledger::Outcome;
use crate::model::{Body, Due, ModelLife};
use crate::object::Ran;
use crate::violation::{Check, ensure};
use crate::workload::AppendRequest;
use crate::world::{Sent, World};

/// What a reader was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// It stands at a position of the current life.
    At(Position),
    /// There is no stream, or the offset is none of its.
    Refused,
    /// The object failed.
    Nobody,
}

/// Whether two refusals of an append are the same to a client.
fn same_refusal(a: &AppendError, b: &AppendError) -> bool {
    a == b || matches!((a, b), (AppendError::Json(_), AppendError::Json(_)))
}

/// Whether two refusals of a create are the same to a client.
pub(crate) fn same_create_refusal(a: &CreateError, b: &CreateError) -> bool {
    use CreateError::{Exists, Json};
    a == b || matches!((a, b), (Exists { .. }, Exists { .. }) | (Json(_), Json(_)))
}

impl World {
    // Create.

    pub(crate) fn create(&mut self, at: usize) -> Check {
        let now = self.now(at);
        let (create, body) = self.workload.create(&mut self.rng, &self.profile, now);
        self.remember(at, Sent::Create(create.clone(), body.clone()));
        self.put(at, &create, &body)
    }

    pub(crate) fn put(&mut self, at: usize, create: &Create<Vec<u8>>, body: &Body) -> Check {
        let sent = (&create.content_type, create.lifetime, create.closed, create.body.len());
        let what = format!("create {}", crate::trace::short(&sent));
        let ran = self.call(at, &what, |stream, now| stream.create(create, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        self.judge_create(at, create, body, &ran)?;
        self.bury_instance(at, &ran)
    }

    fn judge_create(
        &mut self,
        at: usize,
        create: &Create<Vec<u8>>,
        body: &Body,
        ran: &Ran<Result<engine::create::Created, CreateError>>,
    ) -> Check {
        let object = &mut self.objects[at];
        let reply = match &ran.reply {
            None => return Ok(()),
            Some(Err(CreateError::Log(error))) => {
                ensure!(ran.faulted, SpuriousFailure, "create: {error}");
                return Ok(());
            }
            Some(reply) => reply,
        };
        let expected = match object.model.existing(create) {
            Ok(None) => Ok(None),
            Ok(Some(life)) => Ok(Some(life.offset(life.tail()))),
            Err(error) => Err(error),
        };
        let json = create.content_type.as_ref().is_some_and(|sent| sent.is_json());
        let broken = json && !create.body.is_empty() && body.wire.is_none();
        let wire = if json { body.wire.as_deref().unwrap_or(&[]) } else { &create.body };
        let full = wire.len() as u64 > object.room()?;
        match (reply, expected) {
            (Ok(created), Ok(Some(next))) => {
                ensure!(!created.new && created.next == next, Answer, "{created:?}, not {next:?}");
            }
            (Ok(created), Ok(None)) => {
                ensure!(created.new && !broken && !full, Answer, "{created:?}");
                let next = self.begin_life(at, create, wire, ran.now)?;
                ensure!(created.next == next, Answer, "{created:?}, not {next:?}");
            }
            (Err(CreateError::Json(_)), Ok(None)) if broken => {}
            (Err(CreateError::Full { .. }), Ok(None)) if full && !broken => {}
            (Err(error), Err(expected)) => {
                let same = same_create_refusal(error, &expected);
                ensure!(same, Answer, "{error:?}, not {expected:?}");
            }
            (reply, expected) => ensure!(false, Answer, "{reply:?}, not {expected:?}"),
        }
        Ok(())
    }

    /// Takes a new life into the model, as it is found on disk.
    fn begin_life(
        &mut self,
        at: usize,
        create: &Create<Vec<u8>>,
        wire: &[u8],
        now: UnixMillis,
    ) -> Check<Offset> {
        let object = &mut self.objects[at];
        let found = object.newest()?;
        ensure!(found.is_some(), AckedReadable, "a created stream is not there");
        let Some(found) = found else { return Ok(Offset::ZERO) };
        let content_type = create.content_type.clone().unwrap_or_default();
        let mut life = ModelLife::new(found.generation, content_type, now);
        life.base = found.base.0;
        life.bound(&self.profile.bounds);
        life.lifetime = create.lifetime;
        life.public = create.public;
        life.push(wire);
        life.closed = create.closed;
        let newer = object.model.dead.iter().all(|dead| *dead < life.generation);
        ensure!(newer, OffsetsStable, "generation {:?} is used twice", life.generation);
        let free = life.base >= object.model.keys_end;
        ensure!(free, OffsetsStable, "keys from {} on are used twice", life.base);
        let next = life.offset(life.tail());
        object.handed.extend([life.offset(0), next]);
        object.model.current = Some(life);
        Ok(next)
    }

    // Append and close.

    pub(crate) fn append(&mut self, at: usize) -> Check {
        let members = if self.rng.chance(70) { 1 } else { 2 + self.rng.index(5) };
        let mut group = Vec::new();
        // Members of a group are drawn against the state that the ones before them should leave.
        let mut imagined = self.objects[at].model.current.clone();
        for _ in 0..members {
            let life = imagined.as_ref();
            let request = self.workload.append(&mut self.rng, &self.profile, life);
            if let Some(life) = &mut imagined {
                let _ = life.append(&request.append, request.wire.as_deref());
            }
            self.remember(at, Sent::Append(request.clone()));
            group.push(request);
        }
        self.append_group(at, group)
    }

    /// Many appends, each a group of its own, without faults: rows for checkpoints and erasing.
    pub(crate) fn burst(&mut self, at: usize) -> Check {
        let members = self.rng.pick(&[40, 300, 700, 2_100]);
        for _ in 0..members {
            if self.objects[at].model.live().map_or(true, |life| life.closed) {
                return Ok(());
            }
            let life = self.objects[at].model.current.as_ref();
            let mut request = self.workload.append(&mut self.rng, &self.profile, life);
            request.append.close = false;
            self.append_with(at, vec![request], Injection::default())?;
        }
        Ok(())
    }

    pub(crate) fn append_group(&mut self, at: usize, group: Vec<AppendRequest>) -> Check {
        let percent = if self.calm { 0 } else { self.profile.fault_percent };
        let injection = Injection::draw(&mut self.rng, percent);
        self.append_with(at, group, injection)
    }

    fn append_with(&mut self, at: usize, group: Vec<AppendRequest>, injection: Injection) -> Check {
        let sent: Vec<_> = group.iter().map(|request| request.append.clone()).collect();
        let brief = |append: &engine::append::Append<Vec<u8>>| {
            let tuple = append.producer.as_ref().map(|p| (p.id.as_str(), p.epoch.0, p.seq.0));
            format!("{}b{:?}{}", append.body.len(), tuple, if append.close { "!" } else { "" })
        };
        let what = format!("append {:?}", sent.iter().map(brief).collect::<Vec<_>>());
        let before = self.objects[at].model.current.as_ref().map(|life| (life.tail(), life.closed));
        let ran =
            self.call_with(at, &what, injection, |stream, now| stream.append_group(sent, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        self.judge_group(at, &group, &ran)?;
        let growth = ran.reply.as_ref().and_then(|reply| reply.growth);
        let alive = self.objects[at].model.live().is_ok();
        if let Some(before) = before.filter(|_| !ran.lost && alive) {
            self.wake(at, before, growth)?;
        }
        self.bury_instance(at, &ran)
    }

    fn judge_group(
        &mut self,
        at: usize,
        group: &[AppendRequest],
        ran: &Ran<engine::append::GroupReply>,
    ) -> Check {
        let object = &mut self.objects[at];
        let room = object.room()?;
        let ledger = &mut self.ledgers[at];
        let generation = object.model.current.as_ref().map(|life| life.generation);
        let replies = ran.reply.as_ref().map(|reply| reply.replies.as_slice()).unwrap_or_default();
        let complete = ran.reply.is_none() || replies.len() == group.len();
        ensure!(complete, Answer, "{} answers to {} requests", replies.len(), group.len());
        for (at, request) in group.iter().enumerate() {
            let reply = replies.get(at);
            let producer = request.append.producer.as_ref();
            let mut note = |outcome| {
                if let Some(generation) = generation {
                    ledger.note(generation, producer, request.token, outcome);
                }
            };
            let reply = match reply {
                None => {
                    note(Outcome::Maybe);
                    continue;
                }
                Some(Err(AppendError::Missing(Missing::Log(error)))) => {
                    ensure!(ran.faulted, SpuriousFailure, "append: {error}");
                    note(Outcome::Maybe);
                    continue;
                }
                Some(reply) => reply,
            };
            let expected = match object.model.live() {
                Err(missing) => Err(AppendError::Missing(missing)),
                Ok(life) => {
                    life.room = room;
                    let result = life.append(&request.append, request.wire.as_deref());
                    if result.as_ref().is_ok_and(|appended| !appended.duplicate) {
                        life.accessed(ran.now);
                    }
                    result
                }
            };
            let same = match (reply, &expected) {
                (Ok(reply), Ok(expected)) => reply == expected,
                (Err(reply), Err(expected)) => same_refusal(reply, expected),
                _ => false,
            };
            ensure!(same, Answer, "{reply:?}, not {expected:?}");
            note(match (reply, ran.lost) {
                (_, true) => Outcome::Maybe,
                (Ok(_), false) => Outcome::Acked,
                (Err(_), false) => Outcome::Refused,
            });
            if let Ok(appended) = reply {
                object.handed.push(appended.next);
            }
        }
        Ok(())
    }

    /// Gives readers a turn after a group, and checks that they are told of all that it did.
    fn wake(&mut self, at: usize, before: (u64, bool), growth: Option<Growth>) -> Check {
        let Some(life) = &self.objects[at].model.current else { return Ok(()) };
        let (from, was_closed) = before;
        let (to, closed) = (life.tail(), life.closed && !was_closed);
        let expected = (to > from || closed).then_some(Growth {
            from: Position(from),
            to: Position(to),
            closed,
        });
        ensure!(growth == expected, Wake, "readers are told {growth:?}, not {expected:?}");
        if let Some(growth) = growth {
            self.objects[at].readers.grew(growth.closed);
        }
        Ok(())
    }

    // Delete and HEAD.

    pub(crate) fn delete(&mut self, at: usize) -> Check {
        self.remember(at, Sent::Delete);
        let ran = self.call(at, "delete", |stream, now| stream.delete(now))?;
        let object = &mut self.objects[at];
        match &ran.reply {
            Some(Ok(deleted)) => {
                let generation =
                    object.model.live().map(|life| (life.generation, life.due(ran.now)));
                let due = generation.as_ref().map_or(true, |(_, due)| *due == Due::Yes);
                ensure!(!due, Answer, "deleted what is {generation:?}");
                let held = object.end();
                let expected = if held { Deleted::Held } else { Deleted::Buried };
                ensure!(*deleted == expected, Answer, "{deleted:?}, not {expected:?}");
            }
            Some(Err(Missing::Log(error))) => {
                ensure!(ran.faulted, SpuriousFailure, "delete: {error}");
                object.reconcile(ran.now, true)?;
            }
            Some(Err(missing)) => {
                object.reconcile(ran.now, ran.faulted)?;
                let expected = object.model.live().map(|life| life.generation);
                let same = expected == Err(missing.clone());
                ensure!(same, Answer, "{missing:?}, not {expected:?}");
            }
            None => {}
        }
        self.bury_instance(at, &ran)
    }

    pub(crate) fn head(&mut self, at: usize) -> Check {
        let ran = self.call(at, "head", |stream, now| stream.head(now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        match (&ran.reply, self.objects[at].model.live()) {
            (None | Some(Err(Missing::Log(_))), _) if ran.faulted => {}
            (Some(Err(missing)), Err(expected)) => {
                ensure!(*missing == expected, Answer, "{missing:?}, not {expected:?}");
            }
            (Some(Ok(head)), Ok(life)) => {
                let same = head.generation == life.generation
                    && head.next == life.offset(life.tail())
                    && head.closed == life.closed
                    && head.public == life.public
                    && head.content_type == life.content_type
                    && head.lifetime == life.lifetime;
                ensure!(same, Answer, "{head:?}");
            }
            (reply, _) => ensure!(false, Answer, "{reply:?}"),
        }
        self.bury_instance(at, &ran)
    }

    // Reads.

    /// An offset that a client may hold, or may have computed.
    pub(crate) fn any_offset(&mut self, at: usize) -> OffsetParam {
        let handed = &self.objects[at].handed;
        match self.rng.below(12) {
            0 => OffsetParam::Start,
            1 => OffsetParam::Now,
            2 => OffsetParam::At(Offset::ZERO),
            number if !handed.is_empty() => {
                // Recent ones more often than ancient ones.
                let reach = if self.rng.chance(70) { handed.len().min(12) } else { handed.len() };
                let mut offset = handed[handed.len() - 1 - self.rng.index(reach)];
                let shift = match number {
                    3 => 1,
                    4 => self.rng.below(6),
                    _ => 0,
                };
                offset.position.0 += shift;
                OffsetParam::At(offset)
            }
            _ => OffsetParam::Start,
        }
    }

    pub(crate) fn read(&mut self, at: usize) -> Check {
        let offset = self.any_offset(at);
        match self.find(at, offset)? {
            Found::At(position) => self.read_pages(at, position),
            Found::Refused | Found::Nobody => Ok(()),
        }
    }

    /// Asks an object where an offset is, as every read does first, and judges the answer.
    pub(crate) fn find(&mut self, at: usize, offset: OffsetParam) -> Check<Found> {
        let ran = self.ask_boundary(at, offset)?;
        let valid = self.objects[at].model.live().is_ok_and(|life| life.resolve(offset).is_ok());
        self.bury_instance(at, &ran)?;
        match ran.reply.filter(|_| !ran.lost) {
            None | Some(Err(ReadError::Missing(Missing::Log(_)))) => return Ok(Found::Nobody),
            Some(Ok(Some(locator))) => {
                let Some(byte) = self.fetch(&locator)? else { return Ok(Found::Nobody) };
                ensure!((byte == b"\n") == valid, Answer, "{offset:?}: {byte:?}");
                if !valid {
                    return Ok(Found::Refused);
                }
            }
            Some(_) => {}
        }
        let what = format!("locate {offset:?}");
        let ran = self.call(at, &what, |stream, now| stream.locate(offset, now))?;
        self.objects[at].reconcile(ran.now, ran.faulted)?;
        let expected = match self.objects[at].model.live() {
            Err(missing) => Err(ReadError::Missing(missing)),
            Ok(life) => life.resolve(offset).map(Position).map_err(ReadError::Offset),
        };
        let found = match &ran.reply {
            None | Some(Err(ReadError::Missing(Missing::Log(_)))) => {
                ensure!(ran.faulted, SpuriousFailure, "{:?}", ran.reply);
                Found::Nobody
            }
            Some(reply) => {
                ensure!(*reply == expected, Answer, "{reply:?}, not {expected:?}");
                reply.as_ref().map_or(Found::Refused, |position| Found::At(*position))
            }
        };
        if let (Found::At(_), Ok(life)) = (found, self.objects[at].model.live()) {
            life.accessed(ran.now);
        }
        self.bury_instance(at, &ran)?;
        Ok(if ran.lost { Found::Nobody } else { found })
    }

    fn read_pages(&mut self, at: usize, from: Position) -> Check {
        let small = !self.profile.large && self.rng.chance(80);
        let chunk = if small { 1 + self.rng.below(80) } else { 1 << 20 };
        let dress = if self.rng.chance(70) { Dress::Response } else { Dress::Wire };
        let mut from = from;
        for _ in 0..1 + self.rng.index(4) {
            let what = format!("page {from:?} {chunk}");
            let ran = self.call(at, &what, |stream, now| stream.page(from, chunk, dress, now))?;
            self.after(at, &ran)?;
            match &ran.reply {
                Some(Ok(page)) => {
                    self.check_page(at, page, from.0, chunk, dress)?;
                    from = page.to;
                }
                Some(Err(ReadError::Missing(Missing::Log(error)))) => {
                    ensure!(ran.faulted, SpuriousFailure, "page: {error}");
                }
                None => {}
                // It expired in between; `after` has checked that it may have.
                Some(Err(error)) => {
                    let missing = self.objects[at].model.live().map(|life| life.generation);
                    let same = missing.clone().map_err(ReadError::Missing) == Err(error.clone());
                    ensure!(same, Answer, "{error:?}, not {missing:?}");
                }
            }
            if ran.lost || !matches!(&ran.reply, Some(Ok(page)) if !page.up_to_date) {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(crate) fn check_page(
        &mut self,
        at: usize,
        page: &engine::read::Page<Vec<u8>>,
        from: u64,
        chunk: u64,
        dress: Dress,
    ) -> Check {
        let object = &mut self.objects[at];
        let Ok(life) = object.model.live() else {
            ensure!(false, Residue, "a page of a stream that is gone");
            return Ok(());
        };
        let (to, tail) = (page.to.0, life.tail());
        let in_order =
            page.from.0 == from && from <= to && to <= tail && (from < to || from == tail);
        ensure!(in_order, Tail, "page {from}..{to} of {tail}");
        let bytes = &life.bytes[from as usize..to as usize];
        let json = life.content_type.is_json();
        let mut cold = None;
        match &page.content {
            Content::Cold(locator) => {
                let length = locator.range.end - locator.range.start;
                let fits = to <= life.cold && length == to - from;
                ensure!(fits, Tiling, "{from}..{to} of {} lies in {locator:?}", life.cold);
                cold = Some((locator.clone(), bytes.to_vec()));
            }
            Content::Hot(found) if json && dress == Dress::Response => {
                let framed = frame_messages(found).map(|framed| framed.wire);
                ensure!(framed.as_deref() == Ok(bytes), OffsetsStable, "JSON of {from}..{to}");
            }
            Content::Hot(found) => {
                ensure!(found == bytes, OffsetsStable, "bytes of {from}..{to}");
            }
        }
        let whole = !json || bytes.is_empty() || bytes.ends_with(b"\n");
        ensure!(whole, Answer, "page {from}..{to} splits a message");
        // A JSON page may have to reach the end of a message, and then that of the row it ends in.
        let reach = largest_append(life) + protocol::limits::ROW_BYTES_MAX;
        // Another may take one byte more, where the position before it would be mistaken.
        let whole_appends = json || (cold.is_some() && life.content_type.is_text());
        let bounded = to - from <= if whole_appends { chunk.max(reach) } else { chunk + 1 };
        ensure!(bounded, Bounded, "page {from}..{to} of chunk {chunk}");
        let own = life.offset(from).generation == life.generation;
        let same = page.next == life.offset(to)
            && page.generation == life.generation
            && page.up_to_date == (to == tail)
            && page.closed == (to == tail && life.closed)
            && page.immutable == (own && to < tail);
        ensure!(same, Answer, "{:?} {} {}", page.next, page.up_to_date, page.closed);
        let back = life.resolve(OffsetParam::At(page.next));
        ensure!(back == Ok(to), OffsetsStable, "{:?} reads as {back:?}", page.next);
        object.handed.push(page.next);
        cold.map_or(Ok(()), |(locator, bytes)| self.read_cold(&locator, &bytes))
    }
}

fn largest_append(life: &ModelLife) -> u64 {
    let mut previous = 0;
    let length = |end: &u64| end - std::mem::replace(&mut previous, *end);
    life.ends.iter().map(length).max().unwrap_or(0)
}

/// Whether the phases and closes that the disk shows are those of the model.
pub(crate) fn same_state(found: &engine::life::Life, life: &ModelLife) -> bool {
    found.phase == life.phase
        && found.base.0 == life.base
        && found.public == life.public
        && (life.phase == Phase::Forking
            || found.content_type == life.content_type && found.lifetime == life.lifetime)
        && (life.closed || found.closed == Closed::No)
}
