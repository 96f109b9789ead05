//! Telling shards of subscribers what there is, and publishers what became of it.
//!
//! After every group commit, each shard that does not know the tail is nudged; one nudge a shard is
//! under way at a time, and what piles up meanwhile goes with the next. That is a shortcut: the duty *fan out*,
//! which is committed with the bytes, sees to it that no shard is forgotten.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use engine::append::Appended;
use engine::cold::Content;
use engine::fanout::publishers::{Heard, Publishers};
use engine::fanout::source::Replicated;
use futures::future::{Either, select};
use protocol::error::ErrorCode;
use protocol::fanout::{
    AttachShard, DescribeSource, Fanout, FanoutMode, Message, Nudge, Nudged, ShardAttached,
    ShardId, SourceRefusal,
};
use protocol::headers::name;
use protocol::offset::{Generation, OffsetParam, Position};
use protocol::trace::TraceParent;
use worker::Delay;

use super::appends::RequestTicket;
use super::{Answer, Call, Inner};
use crate::call::{ask_message, message_of, to_json};
use crate::cold::ColdRange;
use crate::edge::SUBSCRIPTION_BINDING;
use crate::js;
use crate::respond::{Body, Failure, Reply};

/// Shards that are told at a time.
const NUDGES_MAX: usize = 50;
/// How long a shard may take to answer: it delivers meanwhile.
const NUDGE_MS: u64 = 15_000;

/// Name of the operation that hands a range of a source out.
pub const REPLICATE: &str = "replicate";
/// Header of a range: the position after its last byte, and the generation that its offsets carry.
pub const RANGE_TO: &str = "x-range-to";
/// See [`RANGE_TO`].
pub const RANGE_OFFSETS: &str = "x-range-offsets";
/// Status of a range whose bytes are in the object store: the body is a
/// [`crate::cold::ColdRange`].
pub const RANGE_COLD: u16 = 203;
/// Status when the bytes are gone for ever: the final tail is in [`RANGE_TO`], if the life is known.
pub const RANGE_GONE: u16 = 410;

/// Publishers that wait.
#[derive(Default)]
pub(crate) struct Fanouts {
    publishers: RefCell<Publishers<Published>>,
    /// Trace of the request that appended last.
    trace: Cell<Option<TraceParent>>,
}

/// A publish that was stored.
pub(crate) struct Published {
    pub(crate) ticket: RequestTicket,
    pub(crate) appended: Appended,
    pub(crate) has_body: bool,
}

impl Published {
    fn answer(self, fanout: Fanout) {
        self.ticket.published(&self.appended, self.has_body, fanout);
    }
}

impl Inner {
    /// Answers a publish when the shards that have to be told of it have been.
    pub(crate) fn await_fanout(self: &Rc<Self>, mut published: Published) {
        if published.appended.duplicate {
            // It was fanned out when it was new.
            return published.answer(Fanout::default());
        }
        published.ticket.release_room();
        let position = published.appended.next.position;
        let waits = self.with_stream(|stream| stream.unaware_shards(position));
        let (shards, is_silent) = waits.unwrap_or_default();
        if shards.is_empty() {
            let mode = if is_silent { FanoutMode::Deferred } else { FanoutMode::Inline };
            return published.answer(Fanout { mode, ..Fanout::default() });
        }
        // Each of these shards is being nudged or will be, and each nudge has an end: nobody waits for ever.
        if let Ok(mut publishers) = self.fanouts.publishers.try_borrow_mut() {
            publishers.wait(position, shards, published);
        }
    }

    /// Notes the trace of the request that has made the stream grow last.
    pub(crate) fn note_trace(&self, traceparent: Option<&str>) {
        self.fanouts.trace.set(traceparent.and_then(TraceParent::parse));
    }

    fn answer_publishers(
        &self,
        who: impl FnOnce(&mut Publishers<Published>) -> Vec<(Published, Fanout)>,
    ) {
        let Ok(mut publishers) = self.fanouts.publishers.try_borrow_mut() else { return };
        let done = who(&mut publishers);
        drop(publishers);
        done.into_iter().for_each(|(published, fanout)| published.answer(fanout));
    }

    /// Tells the shards that do not know the tail, without making anybody wait.
    pub(crate) fn nudge_shards(self: &Rc<Self>) {
        let nudges = self.with_stream(|stream| stream.begin_nudges(NUDGES_MAX, js::now()));
        for (shard, nudge) in nudges.unwrap_or_default() {
            let inner = Rc::clone(self);
            self.state.wait_until(async move { inner.nudge(shard, nudge).await });
        }
    }

    async fn nudge(self: Rc<Self>, shard: ShardId, nudge: Nudge) {
        let Ok(source) = self.name() else { return };
        let trace = self.fanouts.trace.get();
        let told = Nudge { traceparent: trace.map(|trace| trace.to_string()), ..nudge.clone() };
        let object = shard.object_name(&source);
        let question = ask_message(SUBSCRIPTION_BINDING, &object, &told, trace, &self.env);
        let patience = Delay::from(Duration::from_millis(NUDGE_MS));
        let answer = match select(pin!(question), patience).await {
            Either::Left((answer, _)) => answer.ok(),
            Either::Right(_) => None,
        };
        let noted = self.with_stream(|stream| stream.nudged(shard, &nudge, answer, js::now()));
        if let Ok(Err(error)) = noted {
            // The duty nudges once more.
            worker::console_error!("{}", Failure::from(error).error);
        }
        let heard = match answer {
            Some(Nudged::Noted(fanout)) => Heard::Noted(nudge.tail, fanout),
            Some(Nudged::Drop) => Heard::Dropped,
            None => Heard::Silent,
        };
        self.answer_publishers(|publishers| publishers.hear(shard, heard));
        self.nudge_shards();
    }

    /// What subscription objects and sessions ask of a source. `None`: no such question.
    pub(crate) async fn answer_subscribers(
        self: &Rc<Self>,
        operation: &str,
        query: &str,
        call: &Call,
    ) -> Result<Option<Answer>, Failure> {
        let answer = match operation {
            AttachShard::OPERATION => to_json(&self.attach_shard(&message_of(call).await?).await?),
            DescribeSource::OPERATION => {
                to_json(&self.with_stream(|stream| stream.describe_source(js::now()))??)
            }
            REPLICATE => return self.replicate(query).map(Some),
            _ => return Ok(None),
        };
        Ok(Some(Reply::new(200).body(Body::Text(answer)).into()))
    }

    async fn attach_shard(&self, question: &AttachShard) -> Result<ShardAttached, Failure> {
        if let Ok(offset) = OffsetParam::parse(&question.from)
            && self.with_stream(|stream| stream.check(js::now()))?.is_ok()
            && !self.boundary_holds(offset).await?
        {
            return Ok(ShardAttached::Refused(SourceRefusal::InvalidOffset));
        }
        Ok(self.with_stream(|stream| stream.attach_shard(question, js::now()))??)
    }

    /// A range of the log for a shard: the bytes, or where they are.
    fn replicate(&self, query: &str) -> Result<Answer, Failure> {
        let mut numbers = query.split('-').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (Some(generation), Some(from), Some(limit)) = (next(), next(), next()) else {
            return Err(Failure::new(ErrorCode::InvalidQuery, "A range does not parse."));
        };
        let (generation, from) = (Generation(generation), Position(from));
        let read =
            self.with_stream(|stream| stream.replicate(generation, from, limit, js::now()))??;
        let page = match read {
            Replicated::Page(page) => page,
            Replicated::Lapsed { tail } => {
                return Ok(Reply::new(RANGE_GONE).header(RANGE_TO, tail.0.to_string()).into());
            }
            Replicated::NoLife => return Ok(Reply::new(RANGE_GONE).into()),
        };
        let reply = Reply::new(200)
            .header(name::CACHE_CONTROL, "no-store")
            .header(RANGE_TO, page.to.0.to_string())
            .header(RANGE_OFFSETS, page.next.generation.0.to_string());
        Ok(match page.content {
            Content::Hot(bytes) => reply.body(Body::Bytes(bytes)),
            Content::Cold(locator) => {
                reply.status(RANGE_COLD).body(Body::Text(to_json(&ColdRange::from(locator))))
            }
        }
        .into())
    }
}
