//! The end of a run: faults stop, and everything has to come true and to be tidied up.

use std::rc::Rc;

use engine::fanout::ledger::{Ledger, Phase, Step};
use engine::fanout::peers::Address;
use engine::fanout::roster::memory::MemoryRoster;
use engine::fanout::roster::{Entry, Roster};
use engine::log::{Duty, Log};
use engine::{Stream, life};
use protocol::fanout::ShardId;
use protocol::offset::Position;

use super::clients::{delete_session, delete_source, publish, session, source, stream_of};
use super::hub::{Hub, label};
use super::model::Model;
use super::objects::Rows;
use super::streams::bytes_of;
use crate::violation::{Check, ensure};

/// Simulated time in which everything has to settle.
const HOURS: u64 = 12;
/// Steps in which it has to.
const STEPS: u32 = 60_000;

/// Faults stop: what was promised comes true; then everybody leaves, and nothing is left.
pub(super) fn settle(hub: &Rc<Hub>) -> Check {
    hub.calm_down();
    until(hub, "deliveries", delivered)?;
    for index in 0..hub.profile.sources {
        hub.spawn(None, "publish", Box::pin(publish(Rc::clone(hub), source(index))));
    }
    until(hub, "another message", delivered)?;
    contents(hub)?;
    for index in 0..hub.profile.sessions {
        hub.spawn(None, "delete", Box::pin(delete_session(Rc::clone(hub), session(index), 5)));
    }
    until(hub, "the end of sessions", delivered)?;
    for index in 0..hub.profile.sources {
        hub.spawn(None, "publish", Box::pin(publish(Rc::clone(hub), source(index))));
    }
    until(hub, "a message to nobody", forgotten)?;
    for index in 0..hub.profile.sources {
        hub.spawn(None, "delete", Box::pin(delete_source(Rc::clone(hub), source(index))));
    }
    until(hub, "the end of sources", forgotten)
}

/// Runs until a condition holds while nothing is under way.
fn until(hub: &Rc<Hub>, what: &str, condition: fn(&Hub) -> Check) -> Check {
    hub.note(format!("SETTLE {what}"));
    let deadline = hub.clock.get() + HOURS * 3_600_000;
    let last = hub.step.get() + STEPS;
    loop {
        hub.step_once(false);
        hub.verdict()?;
        let is_idle = hub.tasks.borrow().is_empty() && hub.net.borrow().next().is_none();
        let holds = if is_idle { condition(hub) } else { Ok(()) };
        if is_idle && holds.is_ok() {
            return Ok(());
        }
        if hub.clock.get() > deadline || hub.step.get() > last {
            hub.note(format!("{what} never came to an end"));
            holds?;
            let names = hub.tasks.borrow().names();
            ensure!(is_idle, Liveness, "{what}: these never end: {names:?}");
        }
    }
}

/// Everybody has what they were promised, and the rows of all objects agree.
fn delivered(hub: &Hub) -> Check {
    let model = hub.model.borrow();
    for (name, lives) in &model.sessions {
        for life in lives.values().filter(|life| !life.is_over) {
            for ((source, generation), link) in &life.links {
                let tail = model.sources.get(source).and_then(|of| of.get(generation));
                let tail = tail.map_or(0, |life| life.bytes.len() as u64);
                let has_all = !link.is_promised || link.next == tail;
                ensure!(has_all, Liveness, "{name} {source} {generation:?} {link:?} of {tail}");
            }
        }
    }
    rows_agree(hub, &model)
}

/// Nobody has a row of a subscription.
fn forgotten(hub: &Hub) -> Check {
    let model = hub.model.borrow();
    rows_agree(hub, &model)?;
    for (address, object) in hub.objects.borrow().iter() {
        let name = label(address);
        match &object.rows {
            Rows::Shard(roster) => {
                let roster = roster.borrow();
                let left = (roster.lives(), roster.members(), roster.entries("", 9));
                let (Ok(lives), Ok(members), Ok(entries)) = left else { continue };
                let is_empty = members.is_empty();
                ensure!(is_empty, Residue, "{name}: {lives:?} {members:?} {entries:?}");
            }
            Rows::Session(ledger) => {
                let rows = ledger.borrow().subscriptions().unwrap_or_default();
                ensure!(rows.is_empty(), Residue, "{name}: {rows:?}");
            }
            Rows::Stream(disk) => {
                let shards = disk.shards(9).unwrap_or_default();
                ensure!(shards.is_empty(), Residue, "{name}: {shards:?}");
                let lives = disk.lives(9).unwrap_or_default();
                let dead = lives.iter().filter(|life| life.phase != life::Phase::Live).count();
                ensure!(dead == 0, Residue, "{name}: {lives:?}");
            }
        }
    }
    Ok(())
}

/// Rows of objects agree with each other and with the sessions that there are.
fn rows_agree(hub: &Hub, model: &Model) -> Check {
    for (address, object) in hub.objects.borrow().iter() {
        match (&object.rows, address) {
            (Rows::Shard(roster), Address::Subscription(name)) => {
                shard_agrees(hub, model, name, &roster.borrow())?;
            }
            (Rows::Session(_), _) => session_agrees(model, address, &object.rows)?,
            (Rows::Stream(disk), _) => {
                let duties = disk.duties().unwrap_or_default();
                let busy = |duty: &Duty| matches!(duty, Duty::Fanout | Duty::Erase);
                let is_done = !duties.iter().any(|(duty, _)| busy(duty));
                ensure!(is_done, Liveness, "{}: {duties:?}", label(address));
                let lives = disk.lives(9).unwrap_or_default();
                ensure!(lives.len() <= 1, Residue, "{}: {lives:?}", label(address));
            }
            _ => {}
        }
    }
    Ok(())
}

fn shard_agrees(hub: &Hub, model: &Model, name: &str, roster: &MemoryRoster) -> Check {
    let Some((source, shard)) = ShardId::parse_object_name(name) else { return Ok(()) };
    let members = roster.members().unwrap_or_default();
    for member in &members {
        let stream = format!("p/session/{}", member.session);
        let life = model.alive(&stream).filter(|(of, _)| *of == member.generation);
        let link = life.and_then(|(_, life)| life.links.get(&(source.to_owned(), member.source)));
        let is_live = link.is_some_and(|link| link.epoch == member.epoch.0);
        ensure!(is_live, Residue, "shard {name}: {member:?}, {link:?}");
        let session = hub.objects.borrow();
        let session = session.get(&Address::Session(format!("p/{}", member.session)));
        let is_known = session.is_some_and(|session| session.rows.is_subscribed(source));
        let is_over = model.sources.get(source).and_then(|lives| lives.get(&member.source));
        let is_over = is_over.is_none_or(|life| life.ended_at.is_some());
        ensure!(is_known || is_over, Residue, "shard {name}: {member:?} has no row");
    }
    if shard != ShardId::ROOT {
        return Ok(());
    }
    let entries = roster.entries("", 1_000).unwrap_or_default();
    for (shard, count) in roster.rooms().unwrap_or_default() {
        let here = entries.iter().filter(|entry| entry.shard == shard).count() as u64;
        ensure!(here == count, Residue, "shard {name}: {count} in {shard:?}, not {here}");
    }
    let objects = hub.objects.borrow();
    // A question that arrives when its session has long left, and whose undoing fails as well, leaves an
    // entry behind: it takes a place, and is used if the session comes again.
    let is_wanted = |entry: &&Entry| {
        let session = objects.get(&Address::Session(format!("p/{}", entry.session)));
        session.is_some_and(|session| session.rows.is_subscribed(source))
    };
    for entry in entries.iter().filter(is_wanted) {
        let there = Address::Subscription(entry.shard.object_name(source));
        let rows = objects.get(&there).map(|object| object.rows.clone());
        let Some(Rows::Shard(other)) = rows else {
            ensure!(false, Residue, "shard {name}: {entry:?} of nobody");
            return Ok(());
        };
        let members = other.borrow().members().unwrap_or_default();
        let is_there = members.iter().any(|member| member.session == entry.session);
        ensure!(is_there, Residue, "shard {name}: {entry:?} is not there");
    }
    Ok(())
}

fn session_agrees(model: &Model, address: &Address, rows: &Rows) -> Check {
    let Rows::Session(ledger) = rows else { return Ok(()) };
    let ledger = ledger.borrow();
    let name = label(address);
    let row = ledger.session().unwrap_or_default();
    let alive = model.alive(&stream_of(address));
    for subscription in ledger.subscriptions().unwrap_or_default() {
        let is_settled = subscription.step == Step::Settled;
        ensure!(is_settled, Liveness, "{name}: {subscription:?} never settles");
        let life = alive.filter(|(of, _)| *of == subscription.generation);
        let link = life.and_then(|(_, life)| {
            let links = life.links.iter().filter(|((of, _), _)| *of == subscription.source);
            links
                .map(|(_, link)| link)
                .find(|link| Some(link.epoch) == subscription.live.map(|epoch| epoch.0))
        });
        ensure!(link.is_some(), Residue, "{name}: {subscription:?} without a link");
    }
    if let Some(row) = row {
        let is_settled = matches!(row.phase, Phase::None | Phase::Live);
        ensure!(is_settled, Liveness, "{name}: {row:?} never settles");
    }
    Ok(())
}

/// What streams hold is what the model says, read from the disk from the first byte on.
fn contents(hub: &Hub) -> Check {
    let model = hub.model.borrow();
    for (address, object) in hub.objects.borrow().iter() {
        let (Rows::Stream(disk), Address::Stream(name)) = (&object.rows, address) else { continue };
        let Ok(mut stream) = Stream::open(disk.clone()) else { continue };
        let now = protocol::time::UnixMillis(hub.clock.get());
        let Some(bytes) = bytes_of(&mut stream, Position(0), now) else { continue };
        let source = model.current(name).map(|(_, life)| &life.bytes);
        let session = model.alive(name).map(|(_, life)| &life.bytes);
        let Some(expected) = source.or(session) else { continue };
        let differs = bytes.iter().zip(expected).position(|(one, other)| one != other);
        let same = *expected == bytes;
        ensure!(same, OffsetsStable, "{name} differs at {differs:?}: {}", bytes.len());
    }
    Ok(())
}
