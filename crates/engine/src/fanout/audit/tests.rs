//! The comparison, on shards and sessions in memory that were brought about by their own decisions.

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};

use futures::executor::block_on;
use protocol::fanout::{
    Deliver, Delivered, LifeState, Message, Nudge, PutSession, QueueMessage, Subscribe, Wish,
};
use protocol::offset::Position;
use protocol::time::UnixMillis;
use serde_json::{Value, from_value, to_value};

use super::*;
use crate::fanout::directory::Placed;
use crate::fanout::ledger::memory::MemoryLedger;
use crate::fanout::peers::{Address, Event, Fetched};
use crate::fanout::roster::memory::MemoryRoster;
use crate::fanout::session::{Joining, Session, SessionBounds};
use crate::fanout::shard::members::{Joined, Start};
use crate::fanout::shard::{Shard, ShardBounds};

const SOURCE: &str = "p/a";
const LIFE: Generation = Generation(5);
const NOW: UnixMillis = UnixMillis(1_000);
const MEMBERS_MAX: u64 = 120;

type Change = Box<dyn FnOnce(&World)>;

/// Shards, sessions, and what happens between two questions.
#[derive(Default)]
struct World {
    shards: RefCell<BTreeMap<u32, Shard<MemoryRoster>>>,
    sessions: RefCell<BTreeMap<String, Session<MemoryLedger>>>,
    /// Who does not answer.
    silent: RefCell<Option<Address>>,
    /// What happens after the first answer to an operation.
    after: RefCell<Option<(&'static str, Change)>>,
    is_slow: Cell<bool>,
    asked: Cell<usize>,
}

fn shard_bounds() -> ShardBounds {
    ShardBounds {
        members_max: MEMBERS_MAX,
        shards_max: 9,
        inline_max: 200,
        concurrency: 50,
        deadline_ms: 5_000,
        range_bytes: 1_000,
    }
}

fn session_bounds() -> SessionBounds {
    SessionBounds { ttl_seconds: 60, subscriptions_max: 9, concurrency: 9, deadline_ms: 9 }
}

fn wish() -> Wish {
    Wish { source: SOURCE.to_owned(), from: "now".into() }
}

impl World {
    fn shard<T>(&self, shard: ShardId, step: impl FnOnce(&mut Shard<MemoryRoster>) -> T) -> T {
        let open = || {
            let (roster, bounds) = (MemoryRoster::default(), shard_bounds());
            Shard::open(roster, shard, bounds, NOW).unwrap()
        };
        step(self.shards.borrow_mut().entry(shard.0).or_insert_with(open))
    }

    fn session<T>(&self, id: &str, step: impl FnOnce(&mut Session<MemoryLedger>) -> T) -> T {
        let open = || {
            let ledger = MemoryLedger::default();
            let mut session = Session::open(ledger, session_bounds(), NOW).unwrap();
            session.begin_creation(&PutSession::default(), "text/plain".into(), NOW).unwrap();
            session.created(Generation(3), NOW, NOW).unwrap();
            session
        };
        step(self.sessions.borrow_mut().entry(id.to_owned()).or_insert_with(open))
    }

    /// The session notes that it wants the source, and the root where it goes.
    fn begin(&self, id: &str) -> (Joining, ShardId) {
        let joining = self.session(id, |session| session.begin_joins(&[wish()], NOW)).unwrap();
        let joining = joining.into_iter().flatten().next().unwrap();
        let placed = self.shard(ShardId::ROOT, |root| root.place(id, joining.epoch, NOW)).unwrap();
        match placed {
            Placed::Here => (joining, ShardId::ROOT),
            Placed::Shard(shard) => (joining, shard),
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(&self, id: &str) -> (Joining, ShardId) {
        let (joining, shard) = self.begin(id);
        let wish = Subscribe {
            session: id.to_owned(),
            generation: joining.generation,
            epoch: joining.epoch,
            first: joining.first,
            known: None,
            from: "now".into(),
        };
        let at = Start { source: LIFE, start: Position(0), tail: Position(0) };
        assert_eq!(self.shard(shard, |shard| shard.join(&wish, at, NOW)), Ok(Joined::Member));
        let joined = [(joining.clone(), joining.epoch)];
        self.session(id, |session| session.joined(&joined, NOW)).unwrap();
        (joining, shard)
    }

    fn subscribe_many(&self, count: usize) {
        for at in 0..count {
            self.subscribe(&format!("s{at:04}"));
        }
    }

    /// The shard drops the session, and the root the entry of it.
    fn remove(&self, id: &str, shard: ShardId) {
        let all = (SubscriptionEpoch(0), SubscriptionEpoch(u64::MAX));
        self.shard(shard, |shard| shard.remove(id, all, NOW)).unwrap();
        self.shard(ShardId::ROOT, |root| root.left((shard, id), all.1, None, NOW)).unwrap();
    }

    fn forget(&self, id: &str) {
        self.sessions.borrow_mut().remove(id);
    }

    fn then(&self, operation: &'static str, change: impl FnOnce(&World) + 'static) {
        *self.after.borrow_mut() = Some((operation, Box::new(change)));
    }

    fn answer(&self, to: &Address, operation: &str, question: Value) -> Value {
        match to {
            Address::Session(name) => {
                let knows = from_value(question).unwrap();
                assert_eq!(operation, Knows::OPERATION);
                let id = name.strip_prefix("p/").unwrap();
                // An object that is asked for the first time knows of no session.
                let mut sessions = self.sessions.borrow_mut();
                let known = sessions.get_mut(id).map(|session| session.knows(&knows).unwrap());
                to_value(known.unwrap_or(Known::Unknown)).unwrap()
            }
            Address::Subscription(name) => {
                let (source, shard) = ShardId::parse_object_name(name).unwrap();
                assert_eq!(source, SOURCE);
                self.shard(shard, |shard| match operation {
                    Roll::OPERATION => {
                        to_value(shard.roll(&from_value(question).unwrap()).unwrap()).unwrap()
                    }
                    _ => {
                        let directory = shard.roll_directory(&from_value(question).unwrap());
                        to_value(directory.unwrap()).unwrap()
                    }
                })
            }
            Address::Stream(name) => panic!("{name} is asked"),
        }
    }

    fn page(&self, place: &Place) -> SubscribersReport {
        block_on(page(self, SOURCE, place)).unwrap()
    }

    /// All pages together, each checked.
    fn walk(&self) -> (Vec<Subscriber>, Vec<String>) {
        let (mut subscribers, mut missing) = (Vec::new(), Vec::new());
        let mut place = Some(Place::START);
        while let Some(from) = place {
            let page = self.page(&from);
            assert!(page.subscribers.len() <= PAGE_MAX as usize);
            subscribers.extend(page.subscribers);
            missing.extend(page.missing);
            place = page.next.map(|next| Place::parse(&next).unwrap());
        }
        (subscribers, missing)
    }

    fn state(&self, id: &str) -> Option<SubscriberState> {
        let (subscribers, missing) = self.walk();
        assert_eq!(missing, [""; 0]);
        subscribers.into_iter().find(|one| one.session_id == id).map(|one| one.state)
    }

    fn rows(&self) -> Vec<MemoryRoster> {
        self.shards.borrow().values().map(|shard| shard.roster().clone()).collect()
    }
}

impl Peers for World {
    type Bytes = Vec<u8>;

    fn now(&self) -> UnixMillis {
        NOW
    }

    async fn sleep(&self, _: u64) {
        if self.is_slow.get() { ready(()).await } else { pending().await }
    }

    async fn ask<M: Message>(&self, to: &Address, message: &M) -> Result<M::Answer, NoAnswer> {
        self.asked.set(self.asked.get() + 1);
        if self.is_slow.get() {
            return pending().await;
        }
        if self.silent.borrow().as_ref() == Some(to) {
            return Err(NoAnswer("silence".into()));
        }
        let answer = self.answer(to, M::OPERATION, to_value(message).unwrap());
        let change = self.after.borrow_mut().take_if(|(operation, _)| *operation == M::OPERATION);
        if let Some((_, change)) = change {
            change(self);
        }
        Ok(from_value(answer).unwrap())
    }

    async fn replicate(
        &self,
        _: &str,
        _: Generation,
        _: Position,
        _: u64,
    ) -> Result<Fetched<Vec<u8>>, NoAnswer> {
        panic!("nothing is read")
    }

    async fn deliver(&self, _: &str, _: &Deliver, _: &Vec<u8>) -> Result<Delivered, NoAnswer> {
        panic!("nothing is delivered")
    }

    async fn enqueue(&self, _: &QueueMessage) -> Result<(), NoAnswer> {
        panic!("nothing is put into the queue")
    }

    fn tell(&self, event: Event) {
        panic!("{event:?}")
    }
}

#[test]
fn every_subscriber_of_every_shard_comes_once() {
    let world = World::default();
    world.subscribe_many(300);
    let rows = world.rows();
    let (subscribers, missing) = world.walk();
    assert_eq!(missing, [""; 0]);
    let ids: BTreeSet<_> = subscribers.iter().map(|one| one.session_id.clone()).collect();
    assert_eq!((subscribers.len(), ids.len()), (300, 300));
    assert!(subscribers.iter().all(|one| one.state == SubscriberState::Live));
    let counts = [0, 1, 2].map(|at| subscribers.iter().filter(|one| one.shard == at).count());
    assert_eq!(counts, [120, 120, 60]);
    assert_eq!(world.rows(), rows);
}

#[test]
fn a_source_without_subscribers_is_two_questions() {
    let world = World::default();
    assert_eq!(world.page(&Place::START), SubscribersReport::default());
    assert_eq!(world.asked.get(), 2);
}

#[test]
fn whoever_is_on_the_way_out_on_either_side_is_leaving() {
    let world = World::default();
    world.subscribe("a");
    world.session("a", |session| session.begin_leaving(SOURCE, NOW)).unwrap();
    assert_eq!(world.state("a"), Some(SubscriberState::Leaving));

    let world = World::default();
    world.subscribe("a");
    let nudge = Nudge {
        generation: LIFE,
        tail: Position(9),
        state: LifeState::Held,
        shards: 1,
        traceparent: None,
    };
    world.shard(ShardId::ROOT, |root| root.hear(&nudge, NOW)).unwrap();
    world.forget("a");
    assert_eq!(world.state("a"), Some(SubscriberState::Leaving));
}

#[test]
fn whoever_is_being_made_is_live() {
    let world = World::default();
    world.subscribe("a");
    world.session("a", |session| session.begin_joins(&[wish()], NOW)).unwrap();
    assert_eq!(world.state("a"), Some(SubscriberState::Live));
}

#[test]
fn whom_nobody_knows_is_orphaned() {
    let world = World::default();
    world.subscribe_many(130);
    for id in ["s0007", "s0125"] {
        world.forget(id);
    }
    let (subscribers, missing) = world.walk();
    let is_orphaned = |one: &&Subscriber| one.state == SubscriberState::Orphaned;
    let orphans: Vec<_> = subscribers.iter().filter(is_orphaned).collect();
    let named: Vec<_> = orphans.iter().map(|one| (one.session_id.as_str(), one.shard)).collect();
    assert_eq!((named, subscribers.len()), (vec![("s0007", 0), ("s0125", 1)], 130));
    // The shard has it, so it is not missing as well.
    assert_eq!(missing, [""; 0]);
}

#[test]
fn whoever_goes_or_comes_meanwhile_is_no_orphan() {
    let world = World::default();
    world.subscribe("a");
    world.forget("a");
    world.then(Knows::OPERATION, |world| world.remove("a", ShardId::ROOT));
    assert_eq!(world.state("a"), None);

    let world = World::default();
    world.subscribe("a");
    world.forget("a");
    world.then(Knows::OPERATION, |world| {
        world.remove("a", ShardId::ROOT);
        world.session("a", |session| session.ended(NOW)).unwrap();
        world.session("a", |session| session.created(Generation(4), NOW, NOW)).unwrap();
        world.subscribe("a");
    });
    assert_eq!(world.state("a"), Some(SubscriberState::Live));
}

#[test]
fn an_entry_without_a_member_is_missing() {
    // The session believes that it is subscribed, or knows nothing.
    for forgets in [false, true] {
        let world = World::default();
        world.subscribe_many(122);
        let all = (SubscriptionEpoch(0), SubscriptionEpoch(u64::MAX));
        world.shard(ShardId(1), |shard| shard.remove("s0121", all, NOW)).unwrap();
        if forgets {
            world.forget("s0121");
        }
        let (subscribers, missing) = world.walk();
        assert_eq!((subscribers.len(), missing), (121, vec!["s0121".to_owned()]));
    }
}

#[test]
fn an_entry_that_is_under_way_is_not_missing() {
    let world = World::default();
    world.subscribe_many(120);
    let (joining, shard) = world.begin("joining");
    assert_eq!((shard, world.state("joining")), (ShardId(1), None));

    // Its member has gone, and the rest follows.
    world
        .session("joining", |session| session.joined(&[(joining.clone(), joining.epoch)], NOW))
        .unwrap();
    world.session("joining", |session| session.begin_leaving(SOURCE, NOW)).unwrap();
    assert_eq!(world.state("joining"), None);
}

#[test]
fn an_entry_that_goes_meanwhile_is_not_missing() {
    let world = World::default();
    world.subscribe_many(120);
    let (_, shard) = world.begin("gone");
    world.forget("gone");
    let place = Place::Directory { after: String::new() };
    world.then(Knows::OPERATION, move |world| world.remove("gone", shard));
    assert_eq!(world.page(&place).missing, [""; 0]);

    let (_, shard) = world.begin("gone");
    world.forget("gone");
    assert_eq!(shard, ShardId(1));
    assert_eq!(world.page(&place).missing, ["gone"]);
}

#[test]
fn silence_is_no_answer() {
    let world = World::default();
    world.subscribe_many(121);
    let session = Address::Session("p/s0007".into());
    let (root, shard) =
        (Address::Subscription("p/a".into()), Address::Subscription("p/a//1".into()));
    let directory = Place::Directory { after: String::new() };
    for (silent, place) in [
        (session, Place::START),
        (root.clone(), Place::START),
        (root, directory.clone()),
        (shard, directory),
    ] {
        *world.silent.borrow_mut() = Some(silent);
        assert!(block_on(page(&world, SOURCE, &place)).is_err());
    }
    world.is_slow.set(true);
    assert!(block_on(page(&world, SOURCE, &Place::START)).is_err());
}
