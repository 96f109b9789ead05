//! The others, over the platform: objects by name, the queue, the console.

use std::time::Duration;

use durable_streams_core::call::ask_message;
use durable_streams_core::cold::{self, ColdRange};
use durable_streams_core::edge::{
    SESSION_BINDING, STREAM_BINDING, SUBSCRIPTION_BINDING, call_object,
};
use durable_streams_core::js;
use durable_streams_core::metrics::{Level, event};
use durable_streams_core::object::JsBytes;
use durable_streams_core::object::deliveries;
use durable_streams_core::object::fanout::{
    RANGE_COLD, RANGE_GONE, RANGE_OFFSETS, RANGE_TO, REPLICATE,
};
use engine::fanout::peers::{Address, Event, Fetched, NoAnswer, Peers};
use futures::FutureExt;
use futures::future::{Shared, WeakShared};
use js_sys::Uint8Array;
use protocol::fanout::{Deliver, Delivered, Message, QueueMessage};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;
use protocol::trace::TraceParent;
use std::cell::{Cell, RefCell};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::{Delay, Env};

/// Name of the binding of the queue.
pub const QUEUE_BINDING: &str = "FANOUT";

/// Sleeps of at least so long need not be exact: those that end within [`GRAIN_MS`] share a timer.
const SHARED_MS: u64 = 1_000;
const GRAIN_MS: u64 = 100;

#[wasm_bindgen]
extern "C" {
    /// The producing end of a queue.
    type Queue;

    #[wasm_bindgen(method, catch)]
    fn send(this: &Queue, message: &JsValue, options: &JsValue)
    -> Result<js_sys::Promise, JsValue>;
}

/// The others, as one object reaches them.
pub struct WorkersPeers {
    env: Env,
    /// Name of the object, for the console.
    object: String,
    /// Trace of the request that made the object do what it does.
    trace: Cell<Option<TraceParent>>,
    /// The timer that was set last, and when it goes off. It is cleared when nobody waits for it any more.
    timer: RefCell<Option<(UnixMillis, WeakShared<Delay>)>>,
}

impl WorkersPeers {
    /// The others of an object of this name.
    pub fn new(env: Env, object: String) -> Self {
        Self { env, object, trace: Cell::new(None), timer: RefCell::new(None) }
    }

    /// From now on the object works for a request of this trace, or for nobody's. Of several that it
    /// serves side by side, the last one counts.
    pub fn set_trace(&self, trace: Option<TraceParent>) {
        self.trace.set(trace);
    }

    /// A timer for everybody who wants to be woken at about that time: each delivery has a deadline, and
    /// setting a timer for it costs a tenth of it.
    fn timer_of(&self, ms: u64) -> Shared<Delay> {
        let now = self.now();
        let due = UnixMillis(now.saturating_add_ms(ms).0.next_multiple_of(GRAIN_MS));
        let known = self.timer.try_borrow().ok().and_then(|timer| {
            let (known_due, timer) = timer.as_ref()?;
            if *known_due == due { timer.upgrade() } else { None }
        });
        known.unwrap_or_else(|| {
            let delay = Delay::from(Duration::from_millis(due.saturating_since_ms(now))).shared();
            if let (Ok(mut timer), Some(weak)) = (self.timer.try_borrow_mut(), delay.downgrade()) {
                *timer = Some((due, weak));
            }
            delay
        })
    }

    async fn read_range(
        &self,
        source: &str,
        (generation, from): (Generation, Position),
        limit: u64,
    ) -> Result<Fetched<JsBytes>, JsValue> {
        let url = format!("http://object/internal/{REPLICATE}?{}-{}-{limit}", generation.0, from.0);
        let request = web_sys::Request::new_with_str(&url)?;
        let response = call_object(STREAM_BINDING, &request, source, &self.env)?;
        let response: web_sys::Response = JsFuture::from(response).await?.unchecked_into();
        let number = |name: &str| {
            let text = response.headers().get(name).ok().flatten();
            text.and_then(|text| text.parse::<u64>().ok())
        };
        let (to, offsets) = (number(RANGE_TO).map(Position), number(RANGE_OFFSETS));
        let bytes = match (response.status(), to) {
            (RANGE_GONE, Some(tail)) => return Ok(Fetched::Lapsed { tail }),
            (RANGE_GONE, None) => return Ok(Fetched::NoLife),
            (200, _) => {
                let buffer = JsFuture::from(response.array_buffer()?).await?;
                JsBytes::new(Uint8Array::new(&buffer))
            }
            (RANGE_COLD, _) => {
                let text = JsFuture::from(response.text()?).await?.as_string().unwrap_or_default();
                let range: ColdRange = serde_json::from_str(&text)
                    .map_err(|error| JsValue::from(error.to_string()))?;
                cold::fetch(&range.into(), &self.env)
                    .await
                    .map_err(|error| JsValue::from(format!("{error:?}")))?
            }
            (status, _) => return Err(JsValue::from(format!("status {status}"))),
        };
        match (to, offsets) {
            (Some(to), Some(offsets)) => {
                Ok(Fetched::Range { to, offsets: Generation(offsets), bytes })
            }
            _ => Err(JsValue::from("a range without its positions")),
        }
    }

    fn queue(&self) -> Result<Queue, JsValue> {
        let queue = js_sys::Reflect::get(&self.env, &QUEUE_BINDING.into())?;
        if queue.is_undefined() {
            return Err(JsValue::from("the deployment binds no queue"));
        }
        Ok(queue.unchecked_into())
    }
}

fn no_answer(error: JsValue) -> NoAnswer {
    NoAnswer(error.as_string().unwrap_or_else(|| js::message(&error)))
}

impl Peers for WorkersPeers {
    type Bytes = JsBytes;

    fn now(&self) -> UnixMillis {
        js::now()
    }

    async fn sleep(&self, ms: u64) {
        if ms < SHARED_MS {
            return Delay::from(Duration::from_millis(ms)).await;
        }
        self.timer_of(ms).await;
    }

    async fn ask<M: Message>(&self, to: &Address, message: &M) -> Result<M::Answer, NoAnswer> {
        let (binding, object) = match to {
            Address::Stream(object) => (STREAM_BINDING, object),
            Address::Subscription(object) => (SUBSCRIPTION_BINDING, object),
            Address::Session(object) => (SESSION_BINDING, object),
        };
        let answer = ask_message(binding, object, message, self.trace.get(), &self.env).await;
        answer.map_err(|failure| NoAnswer(failure.error.message))
    }

    async fn replicate(
        &self,
        source: &str,
        generation: Generation,
        from: Position,
        limit: u64,
    ) -> Result<Fetched<JsBytes>, NoAnswer> {
        self.read_range(source, (generation, from), limit).await.map_err(no_answer)
    }

    async fn deliver(
        &self,
        stream: &str,
        message: &Deliver,
        bytes: &JsBytes,
    ) -> Result<Delivered, NoAnswer> {
        deliveries::send(stream, message, bytes, &self.env).await.map_err(no_answer)
    }

    async fn enqueue(&self, message: &QueueMessage) -> Result<(), NoAnswer> {
        let json = serde_json::to_string(message).unwrap_or_default();
        let sent = async {
            let options = js_sys::JSON::parse(r#"{"contentType":"text"}"#)?;
            JsFuture::from(self.queue()?.send(&JsValue::from(json), &options)?).await
        };
        sent.await.map(|_| ()).map_err(no_answer)
    }

    fn tell(&self, told: Event) {
        let trace = self.trace.get().map(|trace| trace.trace_id());
        let (level, what, number, mut details) = described(told);
        details.push(("traceId", trace.into()));
        event(&self.env, (level, what), &self.object, number, &details);
    }
}

/// Level, name, number and details of what an operator is told.
fn described(told: Event) -> (Level, &'static str, u64, Vec<(&'static str, serde_json::Value)>) {
    match told {
        Event::DeliveryFailed { session, from, to, attempt, cause } => {
            let details = vec![
                ("session", session.into()),
                ("from", from.0.into()),
                ("to", to.0.into()),
                ("attempt", attempt.into()),
                ("cause", cause.into()),
            ];
            (Level::Error, "delivery_failed", 1, details)
        }
        Event::Dropped { session } => {
            (Level::Info, "subscriber_dropped", 1, vec![("session", session.into())])
        }
        Event::Gap { session, from, to } => {
            let details =
                vec![("session", session.into()), ("from", from.0.into()), ("to", to.0.into())];
            (Level::Error, "fanout_gap", to.0.saturating_sub(from.0), details)
        }
        Event::BreakerOpened => (Level::Error, "breaker_opened", 1, Vec::new()),
        Event::BreakerClosed => (Level::Info, "breaker_closed", 1, Vec::new()),
        Event::QueueFailed { cause } => {
            (Level::Error, "queue_failed", 1, vec![("cause", cause.into())])
        }
        Event::SourceFailed { cause } => {
            (Level::Error, "source_failed", 1, vec![("cause", cause.into())])
        }
        Event::StorageFailed { cause } => {
            (Level::Error, "storage_failed", 1, vec![("cause", cause.into())])
        }
    }
}
