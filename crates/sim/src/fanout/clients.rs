//! Clients: what they ask, and what they make of the answers.
//!
//! A client that gets no answer asks again, or not. What it was told is what the model holds against
//! the sessions.

use std::rc::Rc;

use engine::fanout::peers::Address;
use protocol::fanout::{
    DeleteSession, Message, Outcome, PutSession, SessionRefusal, ShowSession, SubscribeAll,
    SubscribedAll, TouchSession, Unsubscribe, Wish,
};

use protocol::offset::Generation;

use super::hub::Hub;
use super::model::{Asked, Guard, Key, Link, Model, SourceLife};
use super::net::{from_json, to_json};
use super::streams::LASTING_SECONDS;
use crate::violation::{Check, ensure};

/// How often a client asks again.
const RETRIES: u64 = 2;

pub(super) fn source(index: u64) -> String {
    format!("p/src{index}")
}

pub(super) fn session(index: u64) -> Address {
    Address::Session(format!("p/s{index}"))
}

/// Name of a session's stream.
pub(super) fn stream_of(session: &Address) -> String {
    let Address::Session(name) = session else { return String::new() };
    let (project, id) = name.split_once('/').unwrap_or_default();
    format!("{project}/session/{id}")
}

impl Hub {
    /// A client does something.
    pub(super) fn act(self: &Rc<Self>) {
        let which = self.rng.borrow_mut().weighted(&self.profile.wishes);
        let source = source(self.below(self.profile.sources));
        let session = session(self.below(self.profile.sessions));
        let hub = Rc::clone(self);
        match which {
            0 => self.spawn(None, "act", Box::pin(publish(hub, source))),
            1 => self.spawn(None, "act", Box::pin(put_source(hub, source))),
            2 => self.spawn(None, "act", Box::pin(delete_source(hub, source))),
            3 => self.spawn(None, "act", Box::pin(put_session(hub, session))),
            4 => self.spawn(None, "act", Box::pin(delete_session(hub, session, 1))),
            5 => self.spawn(None, "act", Box::pin(subscribe(hub, session))),
            6 => self.spawn(None, "act", Box::pin(unsubscribe(hub, session, source))),
            _ => self.spawn(None, "act", Box::pin(look(hub, session))),
        };
    }

    async fn request(
        &self,
        to: &Address,
        operation: &'static str,
        body: String,
        guard: Option<Rc<Guard>>,
    ) -> Option<String> {
        let answer = self.ask(to.clone(), operation, (body, Vec::new()), guard).await;
        answer.ok().map(|(body, _)| body)
    }
}

// ── sources ─────────────────────────────────────────────────────────────────────────────────────

pub(super) async fn publish(hub: Rc<Hub>, source: String) {
    let (number, count) = (hub.below(1 << 40), 1 + hub.below(3));
    let padding = "x".repeat(hub.pick(&[0, 0, 5, 40]));
    let message = |at: u64| format!("{{\"t\":\"{source}:{number:x}:{at}{padding}\"}}");
    let bytes = (0..count).map(message).collect::<Vec<_>>().join("\n").into_bytes();
    let produced = hub.chance(60);
    let body = if produced { format!("p{number:x} 0 0") } else { String::new() };
    for _ in 0..=RETRIES {
        let to = Address::Stream(source.clone());
        let answer = hub.ask(to, "client-append", (body.clone(), bytes.clone()), None).await;
        if answer.is_ok() || !produced {
            return;
        }
        hub.sleep(hub.below(3_000)).await;
    }
}

pub(super) async fn put_source(hub: Rc<Hub>, source: String) {
    let is_json = hub.chance(85) != source.ends_with('2');
    let content_type = if is_json { "application/json" } else { "application/octet-stream" };
    let ttl = hub.pick(&[20, 120, 3_600]);
    let body = match hub.chance(hub.profile.mortal_sources) {
        true => format!("{content_type} {ttl}"),
        false => content_type.to_owned(),
    };
    hub.request(&Address::Stream(source), "client-put", body, None).await;
}

pub(super) async fn delete_source(hub: Rc<Hub>, source: String) {
    for _ in 0..=RETRIES {
        let to = Address::Stream(source.clone());
        if hub.request(&to, "client-delete", String::new(), None).await.is_some() {
            return;
        }
    }
}

// ── sessions ────────────────────────────────────────────────────────────────────────────────────

async fn put_session(hub: Rc<Hub>, session: Address) {
    let is_json = hub.chance(80);
    let ttl = match hub.chance(hub.profile.mortal_sessions) {
        true => hub.pick(&[5, 60, 1_800]),
        false => LASTING_SECONDS + 1,
    };
    let wish = PutSession {
        content_type: (!is_json).then(|| "application/octet-stream".to_owned()),
        ttl_seconds: Some(ttl),
        envelope: Some(hub.chance(40)),
    };
    hub.request(&session, PutSession::OPERATION, to_json(&wish), None).await;
}

/// Every source beside one session.
fn keys(hub: &Hub, session: &Address) -> Vec<Key> {
    let stream = stream_of(session);
    (0..hub.profile.sources).map(|index| (source(index), stream.clone())).collect()
}

/// Counts of requests to subscribe when a request was sent; none is the same when one is under way.
fn counts(hub: &Hub, keys: &[Key]) -> Vec<u64> {
    let model = hub.model.borrow();
    let count = |key| match model.contracts.get(key) {
        Some(contract) if contract.subscribes_open > 0 => u64::MAX,
        Some(contract) => contract.subscribes,
        None => 0,
    };
    keys.iter().map(count).collect()
}

/// The end of subscriptions was confirmed: nothing may come, unless somebody subscribes.
fn confirm_end(hub: &Hub, keys: &[Key], before: &[u64]) {
    let mut model = hub.model.borrow_mut();
    for (key, before) in keys.iter().zip(before) {
        let contract = model.contracts.entry(key.clone()).or_default();
        if contract.subscribes == *before && contract.subscribes_open == 0 {
            contract.is_quiet = true;
        }
    }
}

/// Deletes a session; `true` when it is known to be gone.
pub(super) async fn delete_until_gone(hub: &Rc<Hub>, session: &Address, attempts: u64) -> bool {
    for _ in 0..attempts {
        let keys = keys(hub, session);
        let before = counts(hub, &keys);
        let guard = Guard::new(hub, Asked::Void, keys.clone());
        let answer =
            hub.request(session, DeleteSession::OPERATION, to_json(&DeleteSession), Some(guard));
        if let Some(body) = answer.await {
            let outcome = from_json::<Outcome<()>>(&body);
            if matches!(outcome, Ok(Outcome::Done(()) | Outcome::Refused(SessionRefusal::NotFound)))
            {
                confirm_end(hub, &keys, &before);
                return true;
            }
        }
        hub.sleep(hub.below(2_000)).await;
    }
    false
}

pub(super) async fn delete_session(hub: Rc<Hub>, session: Address, attempts: u64) {
    delete_until_gone(&hub, &session, attempts).await;
}

async fn unsubscribe(hub: Rc<Hub>, session: Address, source: String) {
    let keys = vec![(source.clone(), stream_of(&session))];
    for _ in 0..=hub.below(RETRIES) {
        let before = counts(&hub, &keys);
        let guard = Guard::new(&hub, Asked::Void, keys.clone());
        let wish = to_json(&Unsubscribe { source: source.clone() });
        let answer = hub.request(&session, Unsubscribe::OPERATION, wish, Some(guard)).await;
        if let Some(body) = answer {
            let outcome = from_json::<Outcome<bool>>(&body);
            hub.note(format!("told: {session:?} {source} {outcome:?}"));
            if matches!(outcome, Ok(Outcome::Done(_) | Outcome::Refused(SessionRefusal::NotFound)))
            {
                return confirm_end(&hub, &keys, &before);
            }
        }
    }
}

async fn look(hub: Rc<Hub>, session: Address) {
    match hub.below(3) {
        0 => {
            hub.request(&session, ShowSession::OPERATION, to_json(&ShowSession), None).await;
        }
        1 => {
            hub.request(&session, TouchSession::OPERATION, to_json(&TouchSession), None).await;
        }
        _ => {
            let stream = Address::Stream(stream_of(&session));
            hub.request(&stream, "client-read", String::new(), None).await;
        }
    }
}

// ── subscribing ─────────────────────────────────────────────────────────────────────────────────

/// What a request to subscribe found when it was sent.
struct Asking {
    key: Key,
    from: String,
    subscribes: u64,
    is_alone: bool,
    voids: u64,
    attachments: u64,
    /// Ends of the source's lives.
    tails: Vec<(u64, u64)>,
    /// The first life that the request can be about.
    least: u64,
}

/// Where to begin: mostly somewhere that there is.
fn offset(hub: &Hub, source: &str) -> String {
    let model = hub.model.borrow();
    let lives = model.sources.get(source);
    let at = |generation: u64, position: u64| format!("{generation:016}_{position:016}");
    match (hub.below(10), lives.and_then(|lives| lives.last_key_value())) {
        (0..4, _) | (_, None) => "now".into(),
        (4..7, _) => "-1".into(),
        (7 | 8, Some((generation, life))) => {
            let ends = life.ends.len() as u64;
            let end = life.ends.get(hub.below(ends) as usize).copied().unwrap_or(0);
            at(generation.0, end)
        }
        (_, Some((generation, life))) => match hub.below(3) {
            0 => "nowhere".into(),
            1 => at(generation.0, life.bytes.len() as u64 + 10),
            _ => at(lives.and_then(|lives| lives.first_key_value()).map_or(1, |of| of.0.0), 0),
        },
    }
}

fn asking(hub: &Hub, key: Key, from: String) -> Asking {
    let model = hub.model.borrow();
    let contract = model.contracts.get(&key).cloned().unwrap_or_default();
    let lives = model.sources.get(&key.0).cloned().unwrap_or_default();
    let tails = lives.iter().map(|(of, life)| (of.0, life.bytes.len() as u64)).collect();
    let is_over = |life: &SourceLife| u64::from(life.ended_at.is_some());
    let least = lives.last_key_value().map_or(0, |(of, life)| of.0 + is_over(life));
    Asking {
        least,
        key,
        from,
        // The guard has counted this very request.
        subscribes: contract.subscribes,
        is_alone: contract.subscribes_open == 1,
        voids: if contract.voids_open == 0 { contract.voids } else { u64::MAX },
        attachments: model.attachments,
        tails,
    }
}

async fn subscribe(hub: Rc<Hub>, session: Address) {
    let stream = stream_of(&session);
    let wanted = 1 + hub.below(hub.profile.sources);
    let first = hub.below(hub.profile.sources);
    let sources = (0..wanted).map(|at| source((first + at) % hub.profile.sources));
    let wishes: Vec<Wish> = sources
        .map(|source| {
            let from = offset(&hub, &source);
            Wish { source, from }
        })
        .collect();
    let content_type = hub.pick(&[None, None, None, Some("application/json")]).map(str::to_owned);
    let wish = SubscribeAll { content_type, wishes };
    for _ in 0..=hub.below(RETRIES) {
        let keys: Vec<Key> =
            wish.wishes.iter().map(|wish| (wish.source.clone(), stream.clone())).collect();
        let guard = Guard::new(&hub, Asked::Subscribe, keys.clone());
        let wishes = wish.wishes.iter();
        let asked: Vec<Asking> = keys
            .into_iter()
            .zip(wishes)
            .map(|(key, wish)| asking(&hub, key, wish.from.clone()))
            .collect();
        let answer =
            hub.request(&session, SubscribeAll::OPERATION, to_json(&wish), Some(guard)).await;
        let Some(body) = answer else { continue };
        let outcome = from_json::<Outcome<SubscribedAll>>(&body);
        hub.note(format!("told: {session:?} {outcome:?}"));
        let Ok(Outcome::Done(done)) = outcome else { return };
        for (asked, outcome) in asked.iter().zip(&done.outcomes) {
            if matches!(outcome, Outcome::Done(())) {
                hub.judge(promise(&mut hub.model.borrow_mut(), asked));
            }
        }
        return;
    }
}

/// A client was told that a subscription is there.
fn promise(model: &mut Model, asked: &Asking) -> Check {
    let (source, stream) = &asked.key;
    let contract = model.contracts.get(&asked.key).cloned().unwrap_or_default();
    let is_voided = contract.voids != asked.voids || contract.voids_open > 0;
    let is_alone = asked.is_alone && contract.subscribes == asked.subscribes;
    let tails: Vec<(u64, u64)> = model.sources.get(source).map_or(Vec::new(), |lives| {
        lives.iter().map(|(of, life)| (of.0, life.bytes.len() as u64)).collect()
    });
    let lives = model.sessions.entry(stream.clone()).or_default();
    let Some((_, life)) = lives.last_key_value() else {
        ensure!(false, Answer, "{stream} is subscribed to {source} and was never there");
        return Ok(());
    };
    let ever = lives.values().any(|life| life.linked.contains_key(source));
    let may_be_gone = life.is_over && (life.is_mortal || is_voided);
    ensure!(ever || may_be_gone, Answer, "{stream} is subscribed to {source} and has no link");
    if is_voided || life.is_over {
        return Ok(());
    }
    let Some((_, life)) = lives.iter_mut().next_back() else { return Ok(()) };
    let of_source =
        |((of, at), _): &(&(String, Generation), &mut Link)| of == source && at.0 >= asked.least;
    let mut links: Vec<_> = life.links.iter_mut().filter(of_source).collect();
    // Whose answer it is, and of which life of the source, cannot be told when several have asked.
    let newer = tails.iter().filter(|(of, _)| *of >= asked.least).count();
    if !is_alone && (links.len() > 1 || newer > 1) {
        return Ok(());
    }
    let Some(((_, generation), link)) = links.pop() else { return Ok(()) };
    let is_fresh = link.number > asked.attachments;
    link.is_promised = true;
    if !is_fresh || !is_alone {
        return Ok(());
    }
    let tail_of = |tails: &[(u64, u64)], missing| {
        tails.iter().find(|(of, _)| *of == generation.0).map_or(missing, |(_, tail)| *tail)
    };
    let fits = match asked.from.as_str() {
        "now" => (tail_of(&asked.tails, 0)..=tail_of(&tails, u64::MAX)).contains(&link.start),
        "-1" => link.start == 0,
        token => {
            let (of, position) = token.split_once('_').unwrap_or_default();
            let zero = of.parse() == Ok(0u64);
            (zero || of.parse() == Ok(generation.0)) && position.parse() == Ok(link.start)
        }
    };
    ensure!(fits, Answer, "{stream}: {source} from {} began at {}", asked.from, link.start);
    Ok(())
}
