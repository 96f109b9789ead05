//! Streams: sources and those of sessions. Every verb is checked against the model.

use std::cell::RefCell;
use std::rc::Rc;

use engine::append::{Append, AppendError};
use engine::cold::Content;
use engine::create::{Create, CreateError};
use engine::duties::Busy;
use engine::fanout::peers::Address;
use engine::fanout::source::Replicated;
use engine::log::LogError;
use engine::read::Dress;
use engine::{Missing, Stream};
use protocol::content_type::ContentType;
use protocol::fanout::{
    AttachLink, AttachShard, CheckSession, CreateSession, Deliver, Delivered, DescribeSource,
    DetachLink, EndSession, LifeState, LinkAttached, Message, Nudge, Nudged, SessionCreated,
    SessionState, ShardId,
};
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, OffsetParam, Position};
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;
use serde_json::json;

use super::Bug;
use super::hub::{Hub, label};
use super::model::SessionLife;
use super::net::{Answer, from_json, to_json};
use super::objects::SimStream;
use crate::violation::{Check, ensure};

/// Shards that are told at a time.
const NUDGES_MAX: usize = 4;
/// How long a shard may take to answer a nudge.
const NUDGE_MS: u64 = 15_000;
/// Sessions with a shorter lifetime may end by themselves.
pub(super) const LASTING_SECONDS: u64 = 20 * 86_400;

type Shared = Rc<RefCell<SimStream>>;

fn name(address: &Address) -> &str {
    match address {
        Address::Stream(name) | Address::Subscription(name) | Address::Session(name) => name,
    }
}

fn is_session(address: &Address) -> bool {
    name(address).contains("/session/")
}

/// Serves a question.
pub(super) fn serve(
    hub: &Rc<Hub>,
    (address, stream): (&Address, &Shared),
    operation: &str,
    (body, bytes): (&str, Vec<u8>),
) -> Answer {
    let now = hub.now(address);
    let answer = match operation {
        "deliver" => return deliver(hub, (address, stream), (from_json(body)?, bytes), now),
        "client-append" => return append(hub, (address, stream), (body, bytes), now),
        "replicate" => return replicate(hub, (address, stream), body, now),
        AttachShard::OPERATION => {
            stream.borrow_mut().attach_shard(&from_json(body)?, now).map(|answer| to_json(&answer))
        }
        DescribeSource::OPERATION => {
            stream.borrow_mut().describe_source(now).map(|answer| to_json(&answer))
        }
        CreateSession::OPERATION => {
            return create_session(hub, (address, stream), &from_json(body)?, now);
        }
        EndSession::OPERATION => {
            let EndSession { generation } = from_json(body)?;
            stream.borrow_mut().end_session(generation, now).map(|answer| to_json(&answer))
        }
        CheckSession::OPERATION => {
            let question: CheckSession = from_json(body)?;
            let state = stream.borrow_mut().check_session(&question, now);
            hub.judge(saw(hub, address, stream));
            hub.judge(check_state(hub, (name(address), question.generation), state.as_ref().ok()));
            state.map(|answer| to_json(&answer))
        }
        AttachLink::OPERATION => {
            let question: AttachLink = from_json(body)?;
            let answer = stream.borrow_mut().attach_link(&question, now);
            hub.judge(saw(hub, address, stream));
            if let Ok(LinkAttached::Attached { next, .. }) = answer {
                hub.judge(hub.model.borrow_mut().attached(name(address), &question, next));
            }
            answer.map(|answer| to_json(&answer))
        }
        DetachLink::OPERATION => {
            let question: DetachLink = from_json(body)?;
            let answer = stream.borrow_mut().detach_link(&question, now);
            hub.judge(saw(hub, address, stream));
            if answer.is_ok() {
                hub.judge(hub.model.borrow_mut().detached(name(address), &question));
            }
            answer.map(|()| to_json(&()))
        }
        "client-put" => put(&mut stream.borrow_mut(), body, now),
        "client-delete" => match stream.borrow_mut().delete(now) {
            Ok(_) => Ok("\"deleted\"".into()),
            Err(Missing::Log(error)) => Err(error),
            Err(missing) => Ok(json!(format!("{missing:?}")).to_string()),
        },
        "client-read" => match stream.borrow_mut().locate(OffsetParam::Start, now) {
            Ok(_) => Ok("\"read\"".into()),
            Err(error) => Ok(json!(format!("{error:?}")).to_string()),
        },
        _ => return Err(format!("a stream knows no {operation}")),
    };
    hub.judge(saw(hub, address, stream));
    nudge(hub, address, stream);
    answer.map(|answer| (answer, Vec::new())).map_err(|error| error.to_string())
}

/// The model looks at a stream after a verb, unless that has failed and the next look as well.
fn saw(hub: &Hub, address: &Address, stream: &Shared) -> Check {
    let seen = match stream.borrow_mut().head(hub.now(address)) {
        Ok(seen) => Some(seen),
        Err(Missing::Log(_)) => return Ok(()),
        Err(Missing::NotFound | Missing::Gone) => None,
    };
    let clock = hub.clock.get();
    let mut model = hub.model.borrow_mut();
    if is_session(address) {
        let generation = seen.map(|seen| seen.generation);
        return model.session_seen(name(address), generation, clock);
    }
    let seen = seen.map(|seen| (seen.generation, seen.next.position, seen.content_type.is_json()));
    model.source_seen(name(address), seen, clock)
}

fn check_state(
    hub: &Hub,
    (name, generation): (&str, Generation),
    state: Option<&SessionState>,
) -> Check {
    let model = hub.model.borrow();
    let alive = model.alive(name).is_some_and(|(of, _)| of == generation);
    let says = state.map(|state| matches!(state, SessionState::Alive { .. }));
    ensure!(says.is_none_or(|says| says == alive), Answer, "{name}: {state:?}, not {alive}");
    Ok(())
}

// ── clients' verbs ──────────────────────────────────────────────────────────────────────────────

fn put(stream: &mut SimStream, body: &str, now: UnixMillis) -> Result<String, LogError> {
    let mut words = body.split(' ');
    let content_type = ContentType::parse(words.next().unwrap_or_default()).unwrap_or_default();
    let number = words.next().and_then(|word| word.parse::<u64>().ok());
    let lifetime = number.map_or(Lifetime::Unlimited, |seconds| Lifetime::Ttl { seconds });
    let create = Create {
        content_type: Some(content_type),
        lifetime,
        closed: false,
        public: false,
        session: None,
        body: Vec::new(),
        fork: None,
    };
    match stream.create(&create, now) {
        Ok(created) => Ok(json!(created.new).to_string()),
        Err(CreateError::Log(error)) => Err(error),
        Err(refused) => Ok(json!(format!("{refused:?}")).to_string()),
    }
}

/// `producer epoch seq` or nothing; messages are separated by line feeds.
fn append(
    hub: &Rc<Hub>,
    (address, stream): (&Address, &Shared),
    (body, bytes): (&str, Vec<u8>),
    now: UnixMillis,
) -> Answer {
    let words: Vec<&str> = body.split(' ').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(0);
    let id = words.first().and_then(|id| ProducerId::parse(id).ok());
    let producer = id.map(|id| Producer { id, epoch: Epoch(number(1)), seq: Seq(number(2)) });
    let mut live = stream.borrow_mut();
    let content_type = live.content_type().cloned();
    let is_json = content_type.as_ref().is_some_and(ContentType::is_json);
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let messages: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
    let body = match is_json {
        true => [b"[".to_vec(), messages.join(&b","[..]), b"]".to_vec()].concat(),
        false => messages.concat(),
    };
    let append = Append { content_type, body, producer, seq: None, close: false, delivery: None };
    let mut reply = live.append_group(vec![append], now);
    drop(live);
    let reply = reply.replies.pop().unwrap_or(Err(AppendError::EmptyBody));
    if let Ok(appended) = reply.as_ref()
        && !appended.duplicate
    {
        let generation = appended.next.generation;
        hub.model.borrow_mut().appended(name(address), generation, is_json, &messages);
    }
    hub.judge(saw(hub, address, stream));
    nudge(hub, address, stream);
    match reply {
        Ok(appended) => Ok((json!(appended.next.to_string()).to_string(), Vec::new())),
        Err(AppendError::Missing(Missing::Log(error))) => Err(error.to_string()),
        Err(refused) => Ok((json!(format!("refused: {refused:?}")).to_string(), Vec::new())),
    }
}

// ── what shards ask ─────────────────────────────────────────────────────────────────────────────

fn replicate(
    hub: &Rc<Hub>,
    (address, stream): (&Address, &Shared),
    body: &str,
    now: UnixMillis,
) -> Answer {
    let (generation, from, limit): (Generation, Position, u64) = from_json(body)?;
    let read = stream.borrow_mut().replicate(generation, from, limit, now);
    hub.judge(saw(hub, address, stream));
    let clock = hub.clock.get();
    let model = hub.model.borrow();
    match read.map_err(|error| error.to_string())? {
        Replicated::Page(page) => {
            let Content::Hot(bytes) = page.content else { return Err("cold".into()) };
            hub.judge(model.replicated((name(address), generation), from, &bytes));
            let body = json!({"to": page.to, "offsets": page.next.generation});
            Ok((body.to_string(), bytes))
        }
        Replicated::Lapsed { tail } => {
            hub.judge(lapses(model.may_lapse(name(address), generation, clock), address));
            Ok((json!({"tail": tail}).to_string(), Vec::new()))
        }
        Replicated::NoLife => Ok(("{}".into(), Vec::new())),
    }
}

fn lapses(may: bool, address: &Address) -> Check {
    ensure!(may, Delivered, "{}: a life lapsed before its time", label(address));
    Ok(())
}

/// Tells the shards that do not know the tail.
pub(super) fn nudge(hub: &Rc<Hub>, address: &Address, stream: &Shared) {
    let nudges = stream.borrow_mut().begin_nudges(NUDGES_MAX, hub.now(address));
    for (shard, nudge) in nudges {
        let job = nudge_one(Rc::clone(hub), address.clone(), Rc::clone(stream), (shard, nudge));
        hub.spawn(Some(address.clone()), "nudge", Box::pin(job));
    }
}

async fn nudge_one(
    hub: Rc<Hub>,
    address: Address,
    stream: Shared,
    (shard, nudge): (ShardId, Nudge),
) {
    if nudge.state == LifeState::Lapsed {
        let clock = hub.clock.get();
        let may = hub.model.borrow().may_lapse(name(&address), nudge.generation, clock);
        hub.judge(lapses(may, &address));
    }
    let to = Address::Subscription(shard.object_name(name(&address)));
    let question = hub.ask(to, Nudge::OPERATION, (to_json(&nudge), Vec::new()), None);
    let patience = hub.sleep(NUDGE_MS);
    let answer =
        match futures::future::select(std::pin::pin!(question), std::pin::pin!(patience)).await {
            futures::future::Either::Left((Ok((body, _)), _)) => from_json::<Nudged>(&body).ok(),
            _ => None,
        };
    let now = hub.now(&address);
    let noted = stream.borrow_mut().nudged(shard, &nudge, answer, now);
    hub.note(format!("{} heard of shard {shard:?}: {answer:?} {noted:?}", label(&address)));
    hub.judge(saw(&hub, &address, &stream));
    self::nudge(&hub, &address, &stream);
}

/// The alarm of a stream.
pub(super) fn alarm(hub: &Rc<Hub>, address: &Address, stream: &Shared) -> Result<(), LogError> {
    let now = hub.now(address);
    let due = stream.borrow_mut().on_alarm(Busy::default(), now);
    hub.judge(saw(hub, address, stream));
    if due?.nudge {
        nudge(hub, address, stream);
    }
    Ok(())
}

// ── what sessions are asked ─────────────────────────────────────────────────────────────────────

fn create_session(
    hub: &Hub,
    (address, stream): (&Address, &Shared),
    question: &CreateSession,
    now: UnixMillis,
) -> Answer {
    let created = stream.borrow_mut().create_session(question, now);
    if let Ok(SessionCreated::Alive { generation, is_new: true, .. }) = created {
        let life = SessionLife {
            is_json: question.content_type == "application/json",
            envelope: question.envelope,
            is_mortal: question.ttl_seconds < LASTING_SECONDS,
            ..SessionLife::default()
        };
        hub.model.borrow_mut().session_made(name(address), generation, life);
    }
    hub.judge(saw(hub, address, stream));
    Ok((to_json(&created.map_err(|error| error.to_string())?), Vec::new()))
}

fn deliver(
    hub: &Rc<Hub>,
    (address, stream): (&Address, &Shared),
    (mut message, bytes): (Deliver, Vec<u8>),
    now: UnixMillis,
) -> Answer {
    let sent = message.clone();
    if hub.bug == Bug::DedupOffByOne {
        // The repeat of a message is taken for the next one.
        let links = hub.model.borrow();
        let link = links.alive(name(address)).and_then(|(_, life)| {
            life.links.get(&(message.link.source.clone(), message.link.generation)).cloned()
        });
        if let Some(link) = link.filter(|link| link.next == message.to.0) {
            message.from = Position(link.next);
            message.to = Position(link.next + bytes.len() as u64);
        }
    }
    let mut live = stream.borrow_mut();
    let before = live.generation().map(|generation| (generation, live.tail_position()));
    let append = Append {
        content_type: None,
        body: bytes,
        producer: None,
        seq: None,
        close: false,
        delivery: Some(Box::new(message)),
    };
    let reply = live.append_group(vec![append], now).replies.pop();
    drop(live);
    hub.judge(saw(hub, address, stream));
    let answer = match reply.unwrap_or(Err(AppendError::EmptyBody)) {
        Ok(_) => Ok(Delivered::Done),
        Err(AppendError::LinkBehind { next }) => Ok(Delivered::Behind { next }),
        Err(AppendError::LinkGone | AppendError::Missing(Missing::NotFound | Missing::Gone)) => {
            Ok(Delivered::Gone)
        }
        Err(error) => Err(format!("{error:?}")),
    };
    hub.judge(stored(hub, (address, stream), &sent, (before, answer.as_ref().ok().copied())));
    let mut answer = answer?;
    let hides = matches!(hub.bug, Bug::CursorTooFar | Bug::StepTooEarly);
    if hides && matches!(answer, Delivered::Behind { .. }) {
        // Whoever is behind would be found out, and helped.
        answer = Delivered::Done;
    }
    Ok((to_json(&answer), Vec::new()))
}

/// A session's stream has grown by exactly what the model says.
fn stored(
    hub: &Hub,
    (address, stream): (&Address, &Shared),
    message: &Deliver,
    (before, answer): (Option<(Generation, Position)>, Option<Delivered>),
) -> Check {
    let clock = hub.clock.get();
    let mut model = hub.model.borrow_mut();
    let expected = model.delivered(name(address), message, answer, clock)?;
    let generation = message.session;
    let Some((_, from)) = before.filter(|(of, _)| *of == generation) else {
        ensure!(expected.is_empty(), Delivered, "{}: bytes of nobody", name(address));
        return Ok(());
    };
    let mut live = stream.borrow_mut();
    let grown = match live.generation() == Some(generation) {
        true => bytes_of(&mut live, from, hub.now(address)),
        false => Some(Vec::new()),
    };
    // A read may fail; the whole is compared at the end.
    if let Some(grown) = grown {
        let name = name(address);
        let shown = (String::from_utf8_lossy(&grown), String::from_utf8_lossy(&expected));
        ensure!(grown == expected, Delivered, "{name}: {message:?} stored {shown:?}");
    }
    model.stored(name(address), generation, &expected);
    Ok(())
}

/// Everything of a stream from a position on.
pub(super) fn bytes_of<L: engine::log::Log<Bytes = Vec<u8>>>(
    stream: &mut Stream<L>,
    mut from: Position,
    now: UnixMillis,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let page = stream.page(from, 1 << 16, Dress::Wire, now).ok()?;
        if let Content::Hot(found) = &page.content {
            bytes.extend_from_slice(found);
        }
        if page.up_to_date || page.to <= from {
            return Some(bytes);
        }
        from = page.to;
    }
}
