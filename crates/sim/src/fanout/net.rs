//! The network, and the others as an object sees them.
//!
//! A question may be lost, arrive late, twice, or after its asker has given up; so may its answer. Whoever
//! is down does not answer, or says so. The platform's own deadline ends every question.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use engine::fanout::peers::{Address, Event, Fetched, NoAnswer, Peers};
use futures::channel::oneshot;
use futures::future::{Either, select};
use protocol::fanout::{Deliver, DeliverNow, Delivered, Message, QueueMessage};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;
use serde_json::{Value, json};

use super::hub::{Hub, label};
use super::model::Guard;

/// When the platform ends a question.
const PLATFORM_MS: u64 = 90_000;

/// What is answered: a message, and bytes beside it.
pub(super) type Answer = Result<(String, Vec<u8>), String>;

/// A question on its way.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) to: Address,
    /// Whose answer it is; `None`: nobody waits.
    pub(super) call: Option<u64>,
    pub(super) operation: &'static str,
    pub(super) body: String,
    pub(super) bytes: Vec<u8>,
    /// What the model is told when nothing can come of it any more.
    pub(super) guard: Option<Rc<Guard>>,
}

/// Something on its way.
pub(super) enum Parcel {
    Question(Question),
    Answer(u64, Answer),
}

/// What is on its way, by time of arrival.
#[derive(Default)]
pub(super) struct Net {
    parcels: BTreeMap<(u64, u64), Parcel>,
    calls: BTreeMap<u64, oneshot::Sender<Answer>>,
    last: u64,
}

impl Net {
    fn put(&mut self, at: u64, parcel: Parcel) {
        self.last += 1;
        self.parcels.insert((at, self.last), parcel);
    }

    /// How many have arrived.
    pub(super) fn arrived(&self, now: u64) -> usize {
        self.parcels.range(..=(now, u64::MAX)).take(8).count()
    }

    /// Takes one that has arrived.
    pub(super) fn take(&mut self, now: u64, index: usize) -> Option<Parcel> {
        let key = *self.parcels.range(..=(now, u64::MAX)).nth(index)?.0;
        self.parcels.remove(&key)
    }

    /// When the next one arrives.
    pub(super) fn next(&self) -> Option<u64> {
        self.parcels.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes the asker of a call.
    pub(super) fn take_call(&mut self, call: u64) -> Option<oneshot::Sender<Answer>> {
        self.calls.remove(&call)
    }
}

/// Answers that there is no answer, unless somebody does better.
pub(super) struct Answering {
    hub: Rc<Hub>,
    call: Option<u64>,
}

impl Answering {
    pub(super) fn new(hub: &Rc<Hub>, call: Option<u64>) -> Self {
        Self { hub: Rc::clone(hub), call }
    }

    pub(super) fn answer(mut self, answer: Answer) {
        if let Some(call) = self.call.take() {
            self.hub.send_answer(call, answer);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(call) = self.call.take().filter(|_| self.hub.chance(70)) {
            self.hub.send_answer(call, Err("the instance is gone".into()));
        }
    }
}

impl Hub {
    /// When something that is sent now arrives.
    fn arrival(&self) -> u64 {
        let slow = self.fails(self.profile.slow);
        let delay = match (slow, self.below(8)) {
            (false, _) => self.below(20),
            (true, 0) => self.below(8 * 3_600_000),
            (true, 1 | 2) => self.below(600_000),
            (true, _) => self.below(15_000),
        };
        self.clock.get().saturating_add(delay)
    }

    fn post(&self, parcel: Parcel) {
        let at = self.arrival();
        self.net.borrow_mut().put(at, parcel);
    }

    fn send_answer(&self, call: u64, answer: Answer) {
        if self.fails(self.profile.lost) {
            self.note(format!("LOST the answer {call}"));
            return;
        }
        self.post(Parcel::Answer(call, answer));
    }

    /// Sends a question; lost ones are noticed at once, or not.
    pub(super) fn send(&self, question: Question) {
        if self.fails(self.profile.lost) {
            self.note(format!("LOST {} to {}", question.operation, label(&question.to)));
            self.refuse(question.call, "the network failed");
            return;
        }
        // A client's request is one request.
        if question.guard.is_none() && self.fails(self.profile.twice) {
            self.note(format!("TWICE {} to {}", question.operation, label(&question.to)));
            self.post(Parcel::Question(question.clone()));
        }
        self.post(Parcel::Question(question));
    }

    /// Nothing comes of a question: its asker hears so, or nothing.
    pub(super) fn refuse(&self, call: Option<u64>, cause: &str) {
        if let Some(call) = call.filter(|_| self.chance(50)) {
            self.send_answer(call, Err(cause.into()));
        }
    }

    /// Asks, and waits for an answer.
    pub(super) async fn ask(
        &self,
        to: Address,
        operation: &'static str,
        (body, bytes): (String, Vec<u8>),
        guard: Option<Rc<Guard>>,
    ) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let call = {
            let mut net = self.net.borrow_mut();
            net.last += 1;
            let call = net.last;
            net.calls.insert(call, sender);
            call
        };
        self.send(Question { to, call: Some(call), operation, body, bytes, guard });
        let answer = match select(pin!(receiver), pin!(self.sleep(PLATFORM_MS))).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(oneshot::Canceled), _)) => Err("forgotten".into()),
            Either::Right(_) => Err("the platform has given up".into()),
        };
        self.net.borrow_mut().calls.remove(&call);
        answer
    }

    /// The queue hands a message on, some time, once or twice, or never.
    fn queue(&self, message: &QueueMessage) {
        if self.fails(self.profile.queue / 2) {
            return self.note("LOST a message of the queue");
        }
        let copies = 1 + u64::from(self.fails(self.profile.twice));
        for _ in 0..copies {
            let now = DeliverNow { generation: message.generation, up_to: message.up_to };
            let question = Question {
                to: Address::Subscription(message.shard.object_name(&message.source)),
                call: None,
                operation: DeliverNow::OPERATION,
                body: to_json(&now),
                bytes: Vec::new(),
                guard: None,
            };
            let late = if self.chance(80) { self.below(100) } else { self.below(40_000) };
            let at = self.clock.get().saturating_add(late);
            self.net.borrow_mut().put(at, Parcel::Question(question));
        }
    }
}

/// A message as text.
pub(super) fn to_json(message: &impl serde::Serialize) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

/// A message from its text.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))
}

/// The others, as one object sees them.
#[derive(Clone)]
pub(super) struct SimPeers {
    pub(super) hub: Rc<Hub>,
    pub(super) me: Address,
    /// Counts what was told, so that the trace shows it.
    pub(super) told: Rc<Cell<u64>>,
}

impl SimPeers {
    pub(super) fn new(hub: &Rc<Hub>, me: &Address) -> Self {
        Self { hub: Rc::clone(hub), me: me.clone(), told: Rc::default() }
    }
}

impl Peers for SimPeers {
    type Bytes = Vec<u8>;

    fn now(&self) -> UnixMillis {
        self.hub.now(&self.me)
    }

    async fn sleep(&self, ms: u64) {
        self.hub.sleep(ms).await;
    }

    async fn ask<M: Message>(&self, to: &Address, message: &M) -> Result<M::Answer, NoAnswer> {
        let question = (to_json(message), Vec::new());
        let answer = self.hub.ask(to.clone(), M::OPERATION, question, None).await;
        let (body, _) = answer.map_err(NoAnswer)?;
        from_json(&body).map_err(NoAnswer)
    }

    async fn replicate(
        &self,
        source: &str,
        generation: Generation,
        from: Position,
        limit: u64,
    ) -> Result<Fetched<Vec<u8>>, NoAnswer> {
        let body = json!([generation, from, limit]).to_string();
        let to = Address::Stream(source.to_owned());
        let answer = self.hub.ask(to, "replicate", (body, Vec::new()), None).await;
        let (body, bytes) = answer.map_err(NoAnswer)?;
        let value: Value = from_json(&body).map_err(NoAnswer)?;
        let number = |at: &str| value.get(at).and_then(Value::as_u64);
        Ok(match (number("to"), number("offsets"), number("tail")) {
            (Some(to), Some(offsets), _) => {
                Fetched::Range { to: Position(to), offsets: Generation(offsets), bytes }
            }
            (_, _, Some(tail)) => Fetched::Lapsed { tail: Position(tail) },
            _ => Fetched::NoLife,
        })
    }

    async fn deliver(
        &self,
        stream: &str,
        message: &Deliver,
        bytes: &Vec<u8>,
    ) -> Result<Delivered, NoAnswer> {
        let to = Address::Stream(stream.to_owned());
        let question = (to_json(message), bytes.clone());
        let answer = self.hub.ask(to, "deliver", question, None).await;
        let (body, _) = answer.map_err(NoAnswer)?;
        from_json(&body).map_err(NoAnswer)
    }

    async fn enqueue(&self, message: &QueueMessage) -> Result<(), NoAnswer> {
        self.hub.sleep(self.hub.below(10)).await;
        if self.hub.fails(self.hub.profile.queue / 2) {
            return Err(NoAnswer("the queue refuses".into()));
        }
        self.hub.queue(message);
        Ok(())
    }

    fn tell(&self, event: Event) {
        self.told.set(self.told.get() + 1);
        self.hub.note(format!("{} tells {event:?}", label(&self.me)));
    }
}
