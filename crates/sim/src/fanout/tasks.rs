//! Tasks and timers: an executor in which the scheduler decides who goes on.
//!
//! A task belongs to an object, and dies with its instance; tasks of nobody are clients.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use engine::fanout::peers::Address;
use futures::channel::oneshot;

/// What a task runs.
pub(super) type Job = Pin<Box<dyn Future<Output = ()>>>;

/// One task.
pub(super) struct Task {
    owner: Option<Address>,
    what: String,
    job: Job,
}

/// Tasks that were woken.
type Ready = Arc<Mutex<BTreeSet<u64>>>;

struct Notify {
    id: u64,
    ready: Ready,
}

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        if let Ok(mut ready) = self.ready.lock() {
            ready.insert(self.id);
        }
    }
}

/// All tasks of a world.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: BTreeMap<u64, Task>,
    ready: Ready,
    last: u64,
}

impl Tasks {
    /// Adds a task, which is ready.
    pub(super) fn spawn(&mut self, owner: Option<Address>, what: String, job: Job) -> u64 {
        self.last += 1;
        self.tasks.insert(self.last, Task { owner, what, job });
        if let Ok(mut ready) = self.ready.lock() {
            ready.insert(self.last);
        }
        self.last
    }

    /// Tasks that can go on, in the order in which they were made.
    pub(super) fn ready(&self) -> Vec<u64> {
        let Ok(mut ready) = self.ready.lock() else { return Vec::new() };
        ready.retain(|id| self.tasks.contains_key(id));
        ready.iter().copied().collect()
    }

    /// Whether there is any task.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// What is under way.
    pub(super) fn names(&self) -> Vec<String> {
        self.tasks.values().map(|task| task.what.clone()).collect()
    }

    /// Takes a task out to poll it. Nothing of the world is borrowed meanwhile.
    pub(super) fn take(&mut self, id: u64) -> Option<(Task, Waker)> {
        if let Ok(mut ready) = self.ready.lock() {
            ready.remove(&id);
        }
        let waker = Waker::from(Arc::new(Notify { id, ready: Arc::clone(&self.ready) }));
        self.tasks.remove(&id).map(|task| (task, waker))
    }

    /// Puts back a task that waits.
    pub(super) fn put_back(&mut self, id: u64, task: Task) {
        self.tasks.insert(id, task);
    }

    /// Takes the tasks of an object; to be dropped when nothing is borrowed.
    pub(super) fn take_all_of(&mut self, owner: &Address) -> Vec<Task> {
        let of = |task: &Task| task.owner.as_ref() == Some(owner);
        let ids: Vec<u64> =
            self.tasks.iter().filter(|(_, task)| of(task)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.tasks.remove(&id)).collect()
    }

    /// Takes every task.
    pub(super) fn take_all(&mut self) -> Vec<Task> {
        std::mem::take(&mut self.tasks).into_values().collect()
    }
}

impl Task {
    /// Goes on; `true` when it is done.
    pub(super) fn poll(&mut self, waker: &Waker) -> bool {
        self.job.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
    }
}

/// Who waits for which time, on the world's clock.
#[derive(Default)]
pub(super) struct Timers {
    waiting: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    last: u64,
}

impl Timers {
    /// A timer.
    pub(super) fn set(&mut self, at: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.last += 1;
        self.waiting.insert((at, self.last), sender);
        receiver
    }

    /// When the next one goes off; those that nobody waits for are forgotten.
    pub(super) fn next(&mut self) -> Option<u64> {
        while let Some(entry) = self.waiting.first_entry() {
            if !entry.get().is_canceled() {
                return Some(entry.key().0);
            }
            entry.remove();
        }
        None
    }

    /// Takes the next one.
    pub(super) fn pop(&mut self) -> Option<oneshot::Sender<()>> {
        self.waiting.pop_first().map(|(_, sender)| sender)
    }
}
