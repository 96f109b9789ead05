//! What sources and sessions should be like, the slow and obvious way.
//!
//! Sources are byte vectors of what their streams have confirmed. A session's stream is the concatenation
//! of what its links allow: the model judges every delivery by itself, from positions and epochs, and
//! takes the bytes from the source, never from the message.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::fanout::{AttachLink, Deliver, Delivered, DetachLink};
use protocol::offset::{Generation, Position};

use super::hub::Hub;
use crate::violation::{Check, ensure};

/// How far clocks may be apart that measure how long a life is held.
const SLACK_MS: u64 = 600_000;
/// Held lives past which the oldest lapses early.
const HELD_LIVES: usize = 16;

/// One life of a source.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceLife {
    pub(super) is_json: bool,
    pub(super) bytes: Vec<u8>,
    /// Ends of messages.
    pub(super) ends: Vec<u64>,
    /// The world's clock when it was seen to be over.
    pub(super) ended_at: Option<u64>,
}

/// A subscription as a session's stream has it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) epoch: u64,
    pub(super) start: u64,
    pub(super) next: u64,
    /// A client was told that it is there, and nobody has asked to end it since.
    pub(super) is_promised: bool,
    /// Number of the attachment.
    pub(super) number: u64,
}

/// One life of a session's stream.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionLife {
    pub(super) is_json: bool,
    pub(super) envelope: bool,
    pub(super) is_mortal: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) links: BTreeMap<(String, Generation), Link>,
    /// Every link that there ever was.
    pub(super) linked: BTreeMap<String, u64>,
    pub(super) floors: BTreeMap<String, u64>,
    pub(super) is_over: bool,
}

/// What a client has asked for of one session and one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Contract {
    /// Requests to subscribe that were sent.
    pub(super) subscribes: u64,
    /// Of these, those of which something may still come.
    pub(super) subscribes_open: u64,
    /// Requests that end the subscription, or the session.
    pub(super) voids: u64,
    pub(super) voids_open: u64,
    /// The end was confirmed, and nobody has subscribed since.
    pub(super) is_quiet: bool,
}

/// Source and session stream by their object names.
pub(super) type Key = (String, String);

/// The model of a world.
#[derive(Debug, Default)]
pub(super) struct Model {
    hold_ms: u64,
    pub(super) sources: BTreeMap<String, BTreeMap<Generation, SourceLife>>,
    pub(super) sessions: BTreeMap<String, BTreeMap<Generation, SessionLife>>,
    pub(super) contracts: BTreeMap<Key, Contract>,
    pub(super) attachments: u64,
    /// Deliveries that stored something, for the trace.
    pub(super) deliveries: u64,
}

/// Which requests a guard counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Subscribe,
    Void,
}

/// Held by a request, wherever it is, until nothing can come of it any more.
pub(super) struct Guard {
    hub: Rc<Hub>,
    asked: Asked,
    keys: Vec<Key>,
}

impl Guard {
    pub(super) fn new(hub: &Rc<Hub>, asked: Asked, keys: Vec<Key>) -> Rc<Self> {
        let mut model = hub.model.borrow_mut();
        for key in &keys {
            let contract = model.contracts.entry(key.clone()).or_default();
            match asked {
                Asked::Subscribe => {
                    contract.subscribes += 1;
                    contract.subscribes_open += 1;
                    contract.is_quiet = false;
                }
                Asked::Void => {
                    contract.voids += 1;
                    contract.voids_open += 1;
                }
            }
            if asked == Asked::Void {
                model.unpromise(key);
            }
        }
        Rc::new(Self { hub: Rc::clone(hub), asked, keys })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut model = self.hub.model.borrow_mut();
        for key in &self.keys {
            let contract = model.contracts.entry(key.clone()).or_default();
            match self.asked {
                Asked::Subscribe => contract.subscribes_open -= 1,
                Asked::Void => contract.voids_open -= 1,
            }
        }
    }
}

impl Model {
    pub(super) fn new(hold_ms: u64) -> Self {
        Self { hold_ms, ..Self::default() }
    }

    fn unpromise(&mut self, (source, stream): &Key) {
        let lives = self.sessions.entry(stream.clone()).or_default().values_mut();
        for life in lives {
            for ((of, _), link) in &mut life.links {
                link.is_promised &= of != source;
            }
        }
    }

    // ── sources ──────────────────────────────────────────────────────────────────────────────────

    /// A source was looked at: which life there is, and where it ends.
    pub(super) fn source_seen(
        &mut self,
        name: &str,
        seen: Option<(Generation, Position, bool)>,
        clock: u64,
    ) -> Check {
        let lives = self.sources.entry(name.to_owned()).or_default();
        if let Some((generation, _, is_json)) = seen {
            let fresh = SourceLife { is_json, ..SourceLife::default() };
            lives.entry(generation).or_insert(fresh);
        }
        let now = seen.map(|(generation, ..)| generation);
        for (generation, life) in lives.iter_mut() {
            if Some(*generation) != now {
                life.ended_at.get_or_insert(clock);
            }
        }
        if let Some((generation, tail, _)) = seen {
            let life = lives.entry(generation).or_default();
            ensure!(life.ended_at.is_none(), Lifetime, "{name}: {generation:?} is back");
            let length = life.bytes.len() as u64;
            ensure!(tail.0 == length, Tail, "{name} ends at {}, not {length}", tail.0);
        }
        Ok(())
    }

    /// A source has confirmed an append.
    pub(super) fn appended(
        &mut self,
        name: &str,
        generation: Generation,
        is_json: bool,
        messages: &[Vec<u8>],
    ) {
        let lives = self.sources.entry(name.to_owned()).or_default();
        let fresh = SourceLife { is_json, ..SourceLife::default() };
        let life = lives.entry(generation).or_insert(fresh);
        for message in messages {
            life.bytes.extend_from_slice(message);
            if is_json {
                life.bytes.extend_from_slice(b",\n");
            }
            life.ends.push(life.bytes.len() as u64);
        }
    }

    /// The life that there is.
    pub(super) fn current(&self, name: &str) -> Option<(Generation, &SourceLife)> {
        let (generation, life) = self.sources.get(name)?.last_key_value()?;
        life.ended_at.is_none().then_some((*generation, life))
    }

    /// Bytes that a shard was given.
    pub(super) fn replicated(
        &self,
        (name, generation): (&str, Generation),
        from: Position,
        bytes: &[u8],
    ) -> Check {
        let life = self.sources.get(name).and_then(|lives| lives.get(&generation));
        let from = from.0 as usize;
        let stored = life.and_then(|life| life.bytes.get(from..from + bytes.len()));
        ensure!(stored == Some(bytes), OffsetsStable, "{name} {generation:?} from {from}");
        Ok(())
    }

    /// Whether bytes of a life may be lost to those who lag behind.
    pub(super) fn may_lapse(&self, name: &str, generation: Generation, clock: u64) -> bool {
        let Some(lives) = self.sources.get(name) else { return false };
        let ended = lives.get(&generation).and_then(|life| life.ended_at);
        let newer = lives.range(generation..).filter(|(_, life)| life.ended_at.is_some()).count();
        ended.is_some_and(|ended| ended + self.hold_ms <= clock + SLACK_MS) || newer > HELD_LIVES
    }

    // ── sessions ─────────────────────────────────────────────────────────────────────────────────

    /// A session's stream was looked at.
    pub(super) fn session_seen(
        &mut self,
        name: &str,
        seen: Option<Generation>,
        clock: u64,
    ) -> Check {
        let lives = self.sessions.entry(name.to_owned()).or_default();
        for (generation, life) in lives.iter_mut() {
            if Some(*generation) == seen {
                ensure!(!life.is_over, Lifetime, "{name}: {generation:?} is back at {clock}");
                continue;
            }
            let kept = !life.is_over
                && !life.is_mortal
                && life.links.values().any(|link| link.is_promised);
            ensure!(!kept, Lifetime, "{name}: {generation:?} has ended with subscriptions");
            life.is_over = true;
        }
        Ok(())
    }

    /// A session's stream was made.
    pub(super) fn session_made(&mut self, name: &str, generation: Generation, life: SessionLife) {
        let lives = self.sessions.entry(name.to_owned()).or_default();
        lives.entry(generation).or_insert(life);
    }

    /// The life that there is.
    pub(super) fn alive(&self, name: &str) -> Option<(Generation, &SessionLife)> {
        let (generation, life) = self.sessions.get(name)?.last_key_value()?;
        (!life.is_over).then_some((*generation, life))
    }

    fn life_mut(&mut self, name: &str, generation: Generation) -> Option<&mut SessionLife> {
        let life = self.sessions.get_mut(name)?.get_mut(&generation)?;
        (!life.is_over).then_some(life)
    }

    /// A link was attached.
    pub(super) fn attached(&mut self, name: &str, message: &AttachLink, next: Position) -> Check {
        let AttachLink { session, link, epoch, first, .. } = message;
        let (epoch, start) = (epoch.0, next.0);
        let source = self.sources.get(&link.source).and_then(|of| of.get(&link.generation));
        let aligned = source.is_some_and(|source| {
            let length = source.bytes.len() as u64;
            let at_end = start == 0 || source.ends.contains(&start);
            start <= length && (at_end || !source.is_json)
        });
        ensure!(aligned, Answer, "{name} is attached to {link:?} at {start}");
        self.attachments += 1;
        let number = self.attachments;
        let Some(life) = self.life_mut(name, *session) else {
            ensure!(false, Residue, "{name}: attached to {session:?}, which is over");
            return Ok(());
        };
        let floor = life.floors.get(&link.source).copied().unwrap_or(0);
        ensure!(epoch > floor, Answer, "{name}: {epoch} is attached below the floor {floor}");
        life.linked.insert(link.source.clone(), number);
        let key = (link.source.clone(), link.generation);
        let known = life.links.get(&key).cloned();
        let mut fresh = Link { epoch, start, next: start, is_promised: false, number };
        match known {
            Some(known) if known.epoch == epoch => return Ok(()),
            Some(known) => {
                ensure!(known.epoch < epoch, Answer, "{name}: {epoch} replaces {known:?}");
                let goes_on = known.next == start;
                // Nothing twice because of a repetition, whether somebody has heard of it or not.
                let skips = (known.is_promised || known.epoch >= first.0) && !goes_on;
                ensure!(!skips, Delivered, "{name}: {link:?} {known:?} begins anew at {start}");
                fresh.is_promised = known.is_promised;
                if known.epoch >= first.0 {
                    // Whoever asked for it first said where it begins.
                    fresh.number = 0;
                }
            }
            None => {}
        }
        life.links.insert(key, fresh);
        Ok(())
    }

    /// Links were detached.
    pub(super) fn detached(&mut self, name: &str, message: &DetachLink) -> Check {
        let DetachLink { session, source, generation, first, epoch } = message;
        let sources = self.sources.get(source).cloned().unwrap_or_default();
        let Some(life) = self.life_mut(name, *session) else { return Ok(()) };
        let floor = life.floors.entry(source.clone()).or_default();
        *floor = epoch.0.max(*floor);
        let goes = |(of, at): &(String, Generation), link: &Link| {
            of == source
                && generation.is_none_or(|only| only == *at)
                && (first.0..=epoch.0).contains(&link.epoch)
        };
        for (key, link) in &life.links {
            if !goes(key, link) || !link.is_promised {
                continue;
            }
            let ended = sources.get(&key.1).filter(|life| life.ended_at.is_some());
            let has_all = ended.is_some_and(|life| life.bytes.len() as u64 == link.next);
            let is_end = generation.is_some() && has_all;
            ensure!(is_end, Delivered, "{name}: {key:?} {link:?} is detached: {message:?}");
        }
        life.links.retain(|key, link| !goes(key, link));
        Ok(())
    }

    /// A delivery was judged. Hands out what the session has to have stored because of it.
    pub(super) fn delivered(
        &mut self,
        name: &str,
        message: &Deliver,
        answer: Option<Delivered>,
        clock: u64,
    ) -> Check<Vec<u8>> {
        let Deliver { session, link, epoch, from, to, is_gap, offsets } = message;
        let may_lapse = self.may_lapse(&link.source, link.generation, clock);
        let key = (link.source.clone(), link.generation);
        let source = self.sources.get(&key.0).and_then(|of| of.get(&key.1)).cloned();
        let contract = self.contracts.get(&(key.0.clone(), name.to_owned())).cloned();
        let life = self.life_mut(name, *session);
        let known = life.and_then(|life| {
            life.links.get_mut(&key).map(|link| (life.envelope, life.is_json, link))
        });
        let known = known.filter(|(_, _, link)| link.epoch == epoch.0);
        let expected = match &known {
            None => Delivered::Gone,
            Some((_, _, link)) if from.0 > link.next => {
                Delivered::Behind { next: Position(link.next) }
            }
            Some(_) => Delivered::Done,
        };
        let Some(answer) = answer else { return Ok(Vec::new()) };
        ensure!(answer == expected, Answer, "{name}: {message:?} -> {answer:?}, not {expected:?}");
        let Some((envelope, is_json, link)) = known else { return Ok(Vec::new()) };
        if answer != Delivered::Done || to.0 <= link.next {
            return Ok(Vec::new());
        }
        let is_quiet = contract.is_some_and(|contract| contract.is_quiet);
        ensure!(!is_quiet, Delivered, "{name}: {message:?} after the end was confirmed");
        let Some(source) = source else {
            ensure!(false, Delivered, "{name}: {message:?} of a life that never was");
            return Ok(Vec::new());
        };
        let (next, path) = (link.next, key.0.split_once('/').map_or("", |(_, path)| path));
        ensure!(to.0 <= source.bytes.len() as u64, Delivered, "{name}: {message:?} is too long");
        link.next = to.0;
        self.deliveries += 1;
        if *is_gap {
            ensure!(may_lapse, Delivered, "{name}: {message:?} is a gap before its time");
            let at = |position: u64| format!("{:016}_{position:016}", offsets.0);
            let (from, to) = (at(next), at(to.0));
            let text = match (is_json, envelope) {
                (false, _) => String::new(),
                (true, true) => format!(
                    "{{\"stream\":\"{path}\",\"offset\":\"{to}\",\"gap\":{{\"from\":\"{from}\",\"to\":\"{to}\"}}}},\n"
                ),
                (true, false) => format!(
                    "{{\"gap\":{{\"stream\":\"{path}\",\"from\":\"{from}\",\"to\":\"{to}\"}}}},\n"
                ),
            };
            return Ok(text.into_bytes());
        }
        Ok(match envelope && is_json {
            false => source.bytes[next as usize..to.0 as usize].to_vec(),
            true => wrapped(&source, path, link_generation(message), next..to.0),
        })
    }

    /// The bytes that a session's stream has to have.
    pub(super) fn stored(&mut self, name: &str, generation: Generation, bytes: &[u8]) {
        if let Some(life) = self.life_mut(name, generation) {
            life.bytes.extend_from_slice(bytes);
        }
    }
}

fn link_generation(message: &Deliver) -> u64 {
    message.link.generation.0
}

/// Messages of a range, each with where it is from.
fn wrapped(
    source: &SourceLife,
    path: &str,
    generation: u64,
    range: std::ops::Range<u64>,
) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut from = range.start;
    for end in source.ends.iter().copied().filter(|end| range.start < *end && *end <= range.end) {
        let message = &source.bytes[from as usize..end as usize - 2];
        let head =
            format!("{{\"stream\":\"{path}\",\"offset\":\"{generation:016}_{end:016}\",\"data\":");
        wire.extend_from_slice(head.as_bytes());
        wire.extend_from_slice(message);
        wire.extend_from_slice(b"},\n");
        from = end;
    }
    wire
}
