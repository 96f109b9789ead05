//! Objects: what survives of one, its instance, its alarm; and how questions reach it.

use std::cell::RefCell;
use std::rc::Rc;

use engine::Stream;
use engine::fanout::ledger::Ledger;
use engine::fanout::ledger::LedgerWrite;
use engine::fanout::ledger::memory::MemoryLedger;
use engine::fanout::peers::Address;
use engine::fanout::roster::memory::MemoryRoster;
use engine::fanout::session::{Session, SessionBounds};
use engine::fanout::session_server::SessionServer;
use engine::fanout::shard::{Shard, ShardBounds};
use engine::fanout::shard_server::{Names, ShardServer};
use engine::log::{Log, LogError, Write};
use protocol::time::UnixMillis;

use super::hub::{Hub, label};
use super::net::{Answering, Parcel, Question, SimPeers};
use super::storage::{SimLedger, SimRoster, StreamHook, StreamLog};
use super::{serve, streams};
use crate::decorators::Hooked;
use crate::disk::Disk;

/// When the platform calls an alarm's handler again that did not return.
const AGAIN_MS: u64 = 2_000;

pub(super) type SimStream = Stream<StreamLog>;
pub(super) type SimShard = ShardServer<SimRoster, SimPeers>;
pub(super) type SimSession = SessionServer<SimLedger, SimPeers>;

/// What survives of an object.
#[derive(Clone)]
pub(super) enum Rows {
    Stream(Disk),
    Shard(Rc<RefCell<MemoryRoster>>),
    Session(Rc<RefCell<MemoryLedger>>),
}

/// An instance.
#[derive(Clone)]
pub(super) enum Instance {
    Stream(Rc<RefCell<SimStream>>),
    Shard(Rc<SimShard>),
    Session(Rc<SimSession>),
}

/// One object.
pub(super) struct Object {
    pub(super) rows: Rows,
    pub(super) instance: Option<Instance>,
    pub(super) skew_ms: i64,
    /// It does not answer before this time of the world.
    pub(super) down_until: u64,
    /// Its alarm's handler runs.
    pub(super) is_ringing: bool,
}

impl Rows {
    fn of(address: &Address) -> Self {
        match address {
            Address::Stream(_) => Self::Stream(Disk::memory()),
            Address::Subscription(_) => Self::Shard(Rc::default()),
            Address::Session(_) => Self::Session(Rc::default()),
        }
    }

    pub(super) fn alarm(&self) -> Option<UnixMillis> {
        match self {
            Self::Stream(disk) => disk.alarm(),
            Self::Shard(disk) => disk.borrow().alarm,
            Self::Session(disk) => disk.borrow().alarm,
        }
    }

    /// Whether a session's object has a row of a source.
    pub(super) fn is_subscribed(&self, source: &str) -> bool {
        let Self::Session(disk) = self else { return false };
        let rows = disk.borrow().subscriptions().unwrap_or_default();
        rows.iter().any(|row| row.source == source)
    }

    fn take_alarm(&self) {
        match self {
            Self::Stream(disk) => drop(disk.take_alarm()),
            Self::Shard(disk) => disk.borrow_mut().alarm = None,
            Self::Session(disk) => disk.borrow_mut().alarm = None,
        }
    }

    /// Sets the alarm, unless it rings before that.
    fn set_alarm(&self, at: UnixMillis) {
        if self.alarm().is_some_and(|alarm| alarm <= at) {
            return;
        }
        // The storage below the faults never fails.
        let _ = match self {
            Self::Stream(disk) => disk.clone().commit(vec![Write::Alarm(at)]),
            Self::Shard(disk) => {
                disk.borrow_mut().alarm = Some(at);
                Ok(())
            }
            Self::Session(disk) => disk.borrow_mut().commit(vec![LedgerWrite::Alarm(at)]),
        };
    }
}

impl Hub {
    fn shard_bounds(&self) -> ShardBounds {
        let profile = &self.profile;
        ShardBounds {
            members_max: profile.members_max,
            shards_max: profile.shards_max,
            inline_max: profile.inline_max,
            concurrency: profile.concurrency,
            deadline_ms: profile.deadline_ms,
            range_bytes: profile.range_bytes,
        }
    }

    fn session_bounds(&self) -> SessionBounds {
        SessionBounds {
            ttl_seconds: 30 * 86_400,
            subscriptions_max: 2 + self.profile.sources / 2,
            concurrency: self.profile.concurrency,
            deadline_ms: self.profile.deadline_ms * 2,
        }
    }

    /// Rows of an object, which is made if there is none.
    pub(super) fn rows(&self, address: &Address) -> Rows {
        let mut objects = self.objects.borrow_mut();
        let object = objects.entry(address.clone()).or_insert_with(|| Object {
            rows: Rows::of(address),
            instance: None,
            skew_ms: 0,
            down_until: 0,
            is_ringing: false,
        });
        object.rows.clone()
    }

    /// The instance of an object, which is woken if there is none.
    pub(super) fn wake(self: &Rc<Self>, address: &Address) -> Result<Instance, LogError> {
        let rows = self.rows(address);
        let awake = self.objects.borrow().get(address).and_then(|object| object.instance.clone());
        if let Some(instance) = awake {
            return Ok(instance);
        }
        let skew = self.below(2 * self.profile.skew_ms + 1) as i64 - self.profile.skew_ms as i64;
        if let Some(object) = self.objects.borrow_mut().get_mut(address) {
            object.skew_ms = if self.calm.get() { 0 } else { skew };
        }
        let hub = Rc::clone(self);
        let now = self.now(address);
        let peers = SimPeers::new(self, address);
        let instance = match (rows, address) {
            (Rows::Stream(disk), _) => {
                let mut stream = Stream::open(Hooked::new(disk, Rc::new(StreamHook { hub })))?;
                stream.set_bounds(engine::Bounds {
                    fanout_hold_ms: self.profile.hold_ms,
                    ..engine::Bounds::default()
                });
                Instance::Stream(Rc::new(RefCell::new(stream)))
            }
            (Rows::Shard(disk), Address::Subscription(name)) => {
                let Some(names) = Names::of(name) else { unreachable!("{name}") };
                let roster = SimRoster { hub, disk };
                let shard = Shard::open(roster, names.shard, self.shard_bounds(), now)?;
                Instance::Shard(Rc::new(ShardServer::new(shard, names, peers)))
            }
            (Rows::Session(disk), Address::Session(name)) => {
                let ledger = SimLedger { hub, disk };
                let session = Session::open(ledger, self.session_bounds(), now)?;
                Instance::Session(Rc::new(SessionServer::new(session, name.clone(), peers)))
            }
            _ => unreachable!("rows of another kind"),
        };
        if let Some(object) = self.objects.borrow_mut().get_mut(address) {
            object.instance = Some(instance.clone());
        }
        Ok(instance)
    }

    /// An object loses its memory and whatever it was doing.
    pub(super) fn crash(&self, address: &Address) {
        self.note(format!("{} CRASHES", label(address)));
        let tasks = self.tasks.borrow_mut().take_all_of(address);
        drop(tasks);
        let now = self.now(address);
        let mut objects = self.objects.borrow_mut();
        let Some(object) = objects.get_mut(address) else { return };
        if std::mem::take(&mut object.is_ringing) && object.rows.alarm().is_none() {
            object.rows.set_alarm(now.saturating_add_ms(AGAIN_MS));
        }
        let instance = object.instance.take();
        drop(objects);
        drop(instance);
    }

    /// A parcel arrives.
    pub(super) fn arrive(self: &Rc<Self>, parcel: Parcel) {
        match parcel {
            Parcel::Answer(call, answer) => {
                let asker = self.net.borrow_mut().take_call(call);
                if let Some(asker) = asker {
                    // Who has given up is not there any more.
                    let _ = asker.send(answer);
                }
            }
            Parcel::Question(question) => self.accept(question),
        }
    }

    fn accept(self: &Rc<Self>, question: Question) {
        let Question { to, call, operation, body, bytes, guard } = question;
        self.rows(&to);
        let down = self.objects.borrow().get(&to).map_or(0, |object| object.down_until);
        if down > self.clock.get() {
            self.note(format!("{} is DOWN for {operation}", label(&to)));
            return self.refuse(call, "the object is down");
        }
        let instance = match self.wake(&to) {
            Ok(instance) => instance,
            Err(error) => return self.refuse(call, &error.to_string()),
        };
        self.note(format!("{} <- {call:?} {operation} {body}", label(&to)));
        let answering = Answering::new(self, call);
        let hub = Rc::clone(self);
        let (owner, what) = (to.clone(), format!("{operation} {call:?}"));
        let job = async move {
            let answer = serve::serve(&hub, (&to, instance), operation, (body, bytes)).await;
            let shown = match &answer {
                Ok((answer, _)) => answer.clone(),
                Err(error) => format!("ERROR {error}"),
            };
            hub.note(format!("{} -> {call:?} {operation} {shown}", label(&to)));
            answering.answer(answer);
            drop(guard);
        };
        self.spawn(Some(owner), &what, Box::pin(job));
    }

    /// When the first alarm rings, on the world's clock, of objects whose handler does not run.
    pub(super) fn alarms(&self) -> Vec<(u64, Address)> {
        let objects = self.objects.borrow();
        let waiting = objects.iter().filter(|(_, object)| !object.is_ringing);
        let set = waiting.filter_map(|(address, object)| {
            let at = object.rows.alarm()?.0.saturating_add_signed(-object.skew_ms);
            Some((at.max(object.down_until), address.clone()))
        });
        set.collect()
    }

    /// An alarm goes off.
    pub(super) fn ring(self: &Rc<Self>, address: &Address) {
        let rows = self.rows(address);
        rows.take_alarm();
        self.note(format!("{} RINGS", label(address)));
        let instance = match self.wake(address) {
            Ok(instance) => instance,
            Err(_) => return rows.set_alarm(self.now(address).saturating_add_ms(AGAIN_MS)),
        };
        if let Some(object) = self.objects.borrow_mut().get_mut(address) {
            object.is_ringing = true;
        }
        let hub = Rc::clone(self);
        let owner = address.clone();
        let job = async move {
            let mut rung = ring_once(&hub, (&owner, instance.clone())).await;
            if hub.fails(hub.profile.ring_twice) {
                rung = ring_once(&hub, (&owner, instance)).await;
            }
            if let Err(error) = rung {
                hub.note(format!("{} rang in vain: {error}", label(&owner)));
                rows.set_alarm(hub.now(&owner).saturating_add_ms(AGAIN_MS));
            }
            if let Some(object) = hub.objects.borrow_mut().get_mut(&owner) {
                object.is_ringing = false;
            }
        };
        self.spawn(Some(address.clone()), "alarm", Box::pin(job));
    }
}

async fn ring_once(
    hub: &Rc<Hub>,
    (address, instance): (&Address, Instance),
) -> Result<(), LogError> {
    match instance {
        Instance::Stream(stream) => streams::alarm(hub, address, &stream),
        Instance::Shard(shard) => shard.alarm().await,
        Instance::Session(session) => session.alarm().await,
    }
}
