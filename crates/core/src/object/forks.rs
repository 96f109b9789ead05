//! The conversation between a fork and its source, and the releases that end it.
//!
//! Objects talk over `fetch` with internal paths; requests and answers are JSON, pages of a copy
//! are binary. Every outcome is one of three: done, refused by the source, or unknown, and an
//! unknown reference is released like a known one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::create::{Create, CreateError, Created};
use engine::fork::{Begun, CopyRequest, ForkError, ForkGrant, ForkRequest, ForkWish, Lent, Loan};
use engine::log::{Blob, ForkId, Release};
use futures::channel::oneshot;
use js_sys::Uint8Array;
use protocol::content_type::ContentType;
use protocol::error::ErrorCode;
use protocol::limits::{FORK_SUB_OFFSET_BYTES_MAX, ROW_BYTES_MAX};
use protocol::offset::{Generation, OffsetParam, Position};
use protocol::trace::TraceParent;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use super::{Answer, Call, Inner, JsBytes};
use crate::call::{call, message_of, text_of, to_json};
use crate::cold::{self, ColdError};
use crate::js;
use crate::respond::{Body, Failure, Reply, internal};

mod wire;

use wire::{
    Asked, ReferenceAnswer, ReferenceMessage, Refusal, ReleaseMessage, decode_copied,
    encode_copied, grant_of, granted, offset_text, refusal_of,
};

/// How often a source judges one question: after uploads, and with cold bytes at hand, a megabyte
/// each time.
const REFERENCES_MAX: u64 = 4 + FORK_SUB_OFFSET_BYTES_MAX / ROW_BYTES_MAX;

/// How often a fork asks anew because its generation was too low.
const RAISES_MAX: u32 = 3;

/// Whether a fork is being made, and who waits for that to end.
#[derive(Default)]
pub(crate) struct ForkInProgress {
    going_on: Cell<bool>,
    /// Trace of the request that makes it.
    trace: Cell<Option<TraceParent>>,
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
}

impl ForkInProgress {
    pub(crate) fn is_going_on(&self) -> bool {
        self.going_on.get()
    }

    fn begin(&self, trace: Option<TraceParent>) {
        self.going_on.set(true);
        self.trace.set(trace);
    }

    fn end(&self) {
        self.going_on.set(false);
        self.trace.set(None);
        self.waiting.take().into_iter().for_each(|waiting| {
            // A request that no longer waits needs no telling.
            let _ = waiting.send(());
        });
    }

    async fn ended(&self) {
        while self.is_going_on() {
            let (sender, receiver) = oneshot::channel();
            match self.waiting.try_borrow_mut() {
                Ok(mut waiting) => waiting.push(sender),
                Err(_) => return,
            }
            // A sender that was dropped is an end as well.
            let _ = receiver.await;
        }
    }
}

impl Inner {
    /// Waits for a fork that is being made at this path, and gives up one that an earlier
    /// instance left unfinished: then the path is what it is.
    pub(crate) async fn settle_fork(self: &Rc<Self>) -> Result<(), Failure> {
        self.fork_in_progress.ended().await;
        if self.with_stream(|stream| stream.is_forking())? {
            self.with_stream(|stream| stream.abandon_fork(true, js::now()))??;
            self.deliver_due();
        }
        Ok(())
    }

    /// Makes a fork, or confirms that it exists. Whatever fails leaves nothing behind.
    pub(crate) async fn make_fork(
        self: &Rc<Self>,
        request: &Create<JsBytes>,
        wish: &ForkWish,
        trace: Option<TraceParent>,
    ) -> Result<Created, Failure> {
        self.fork_in_progress.begin(trace);
        let outcome = self.try_fork(request, wish).await;
        self.fork_in_progress.end();
        if outcome.is_err() {
            self.deliver_due();
        }
        outcome
    }

    async fn try_fork(
        self: &Rc<Self>,
        request: &Create<JsBytes>,
        wish: &ForkWish,
    ) -> Result<Created, Failure> {
        let child = self.name()?;
        if wish.source == child {
            return self.existing_or_not_found(request);
        }
        let mut begun =
            self.with_stream(|stream| stream.begin_fork(request, wish, &child, js::now()))??;
        for _ in 0..RAISES_MAX {
            let question = match begun {
                Begun::Exists(created) => return Ok(created),
                Begun::Intent(question) => question,
            };
            match self.ask_source(wish, &question).await {
                Ok(grant) => return self.copy_and_finish(request, wish, &grant).await,
                Err(Asked::Refused(ForkError::GenerationTooLow { at_least })) => {
                    begun = self.with_stream(|stream| {
                        stream.raise_fork(request, wish, &child, at_least, js::now())
                    })??;
                }
                Err(Asked::Refused(error)) => {
                    self.with_stream(|stream| stream.abandon_fork(false, js::now()))??;
                    return Err(error.into());
                }
                Err(Asked::Unknown(failure)) => {
                    self.with_stream(|stream| stream.abandon_fork(true, js::now()))??;
                    return Err(failure);
                }
            }
        }
        self.with_stream(|stream| stream.abandon_fork(false, js::now()))??;
        Err(CreateError::Busy.into())
    }

    /// A stream that names itself as its source: the stream there is decides.
    fn existing_or_not_found(&self, request: &Create<JsBytes>) -> Result<Created, Failure> {
        self.with_stream(|stream| stream.check(js::now()))?
            .map_err(|missing| Failure::from(ForkError::Missing(missing)))?;
        self.with_stream(|stream| stream.create(request, js::now()))?.map_err(Failure::from)
    }

    async fn copy_and_finish(
        self: &Rc<Self>,
        request: &Create<JsBytes>,
        wish: &ForkWish,
        grant: &ForkGrant,
    ) -> Result<Created, Failure> {
        let copied = self.copy_all(request, wish, grant).await;
        let finished = match copied {
            Ok(()) => self
                .with_stream(|stream| stream.finish_fork(request, js::now()))
                .and_then(|outcome| outcome.map_err(Failure::from)),
            Err(failure) => Err(failure),
        };
        if finished.is_err() {
            self.with_stream(|stream| stream.abandon_fork(true, js::now()))??;
        }
        finished
    }

    async fn copy_all(
        self: &Rc<Self>,
        request: &Create<JsBytes>,
        wish: &ForkWish,
        grant: &ForkGrant,
    ) -> Result<(), Failure> {
        self.with_stream(|stream| stream.fork_granted(request, grant))??;
        while let Some(missing) = self.with_stream(|stream| stream.fork_missing())? {
            let CopyRequest { source, cold, from, to } = missing;
            let path =
                format!("copy?source={}&cold={}&from={}&to={}", source.0, cold.0, from.0, to.0);
            let trace = self.fork_in_progress.trace.get();
            let response = call(&wish.source, &path, None, trace, &self.env).await?;
            let buffer =
                response.array_buffer().map_err(|error| internal("copying a fork", &error))?;
            let buffer =
                JsFuture::from(buffer).await.map_err(|error| internal("copying a fork", &error))?;
            let copied = decode_copied(from, &JsBytes::new(Uint8Array::new(&buffer)))
                .ok_or_else(|| internal("copying a fork", &JsValue::from_str("damaged page")))?;
            self.with_stream(|stream| stream.fork_received(copied))??;
        }
        Ok(())
    }

    async fn ask_source(
        &self,
        wish: &ForkWish,
        question: &ForkRequest,
    ) -> Result<ForkGrant, Asked> {
        let message = ReferenceMessage {
            child: question.child.child.clone(),
            generation: question.child.generation.0,
            offset: question.offset.map(offset_text),
            sub_offset: question.sub_offset,
            content_type: question.content_type.as_ref().map(|text| text.as_str().to_owned()),
        };
        let (trace, message) = (self.fork_in_progress.trace.get(), Some(to_json(&message)));
        let response = call(&wish.source, "reference", message, trace, &self.env).await;
        let answer = match response {
            Ok(response) => text_of(&response).await,
            Err(failure) => Err(failure),
        };
        let answer = answer.map_err(Asked::Unknown)?;
        match serde_json::from_str(&answer) {
            Ok(answer) => grant_of(answer),
            Err(error) => Err(Asked::Unknown(internal(
                "asking the source of a fork",
                &JsValue::from_str(&error.to_string()),
            ))),
        }
    }

    /// Tells sources that forks of theirs are gone.
    pub(crate) async fn deliver(self: &Rc<Self>, releases: Vec<Release>) {
        for release in releases {
            let Ok(child) = self.name() else { return };
            let message = ReleaseMessage { child, generation: release.generation.0 };
            let message = Some(to_json(&message));
            let told = call(&release.source, "release", message, None, &self.env).await;
            if told.is_ok()
                && let Err(failure) = self
                    .with_stream(|stream| stream.released(release.generation))
                    .and_then(|outcome| outcome.map_err(Failure::from))
            {
                worker::console_error!("{}", failure.error);
            }
        }
    }

    /// Delivers what is due without making the current request wait; the duty stays until the
    /// sources have confirmed.
    pub(crate) fn deliver_due(self: &Rc<Self>) {
        let due = self.with_stream(|stream| stream.due_releases(js::now()));
        let Ok(Ok(releases)) = due else { return };
        if releases.is_empty() {
            return;
        }
        let inner = Rc::clone(self);
        self.state.wait_until(async move { inner.deliver(releases).await });
    }

    /// The source's side.
    pub(crate) async fn answer_object(
        self: &Rc<Self>,
        operation: &str,
        query: &str,
        call: &Call,
    ) -> Result<Answer, Failure> {
        match operation {
            "reference" => {
                let message: ReferenceMessage = message_of(call).await?;
                let answer = self.answer_reference(&message).await?;
                Ok(Reply::new(200).body(Body::Text(to_json(&answer))).into())
            }
            "copy" => self.answer_copy(query),
            "release" => {
                let message: ReleaseMessage = message_of(call).await?;
                let generation = Generation(message.generation);
                let child = ForkId { child: message.child, generation };
                self.with_stream(|stream| stream.release(&child, js::now()))??;
                self.deliver_due();
                Ok(Reply::new(200).into())
            }
            "reconcile" => {
                let answer = self.reconcile(&message_of(call).await?)?;
                Ok(Reply::new(200).body(Body::Text(to_json(&answer))).into())
            }
            "stats" => self.stats(),
            _ => Err(Failure::new(ErrorCode::RouteNotFound, "No such internal operation.")),
        }
    }

    async fn answer_reference(
        &self,
        message: &ReferenceMessage,
    ) -> Result<ReferenceAnswer, Failure> {
        let offset = message.offset.as_deref().map(OffsetParam::parse).transpose();
        let content_type = message.content_type.as_deref().map(ContentType::parse).transpose();
        let (Ok(offset), Ok(content_type)) = (offset, content_type) else {
            return Err(Failure::new(ErrorCode::InvalidHeader, "A reference does not parse."));
        };
        let generation = Generation(message.generation);
        let request = ForkRequest {
            child: ForkId { child: message.child.clone(), generation },
            offset,
            sub_offset: message.sub_offset,
            content_type,
        };
        if let Some(offset) = offset
            && self.with_stream(|stream| stream.check(js::now()))?.is_ok()
        {
            match self.boundary_holds(offset).await {
                Ok(true) => {}
                Ok(false) => return Ok(ReferenceAnswer::Refused(Refusal::InvalidOffset)),
                Err(error) => return unread(error),
            }
        }
        let mut lent = None;
        let mut outcome = Err(ForkError::TooHot);
        for _ in 0..REFERENCES_MAX {
            let life;
            (outcome, life) = self.with_stream(|stream| {
                let outcome = stream.reference(&request, lent.as_ref(), js::now());
                (outcome, stream.generation())
            })?;
            match (&outcome, life) {
                (Err(ForkError::Lend(loan)), Some(life)) => {
                    // What was lent before has been counted.
                    drop(lent.take());
                    match self.lend(loan.clone(), life).await? {
                        Ok(bytes) => lent = Some(bytes),
                        Err(error) => return unread(error),
                    }
                }
                (Err(ForkError::TooHot), _) => self.rotate_for_fork().await,
                _ => break,
            }
        }
        Ok(match outcome {
            Ok(grant) => granted(grant),
            Err(ForkError::GenerationTooLow { at_least }) => ReferenceAnswer::RaiseTo(at_least.0),
            Err(ForkError::Refused) => ReferenceAnswer::RaiseTo(generation.0.saturating_add(1)),
            Err(error) => ReferenceAnswer::Refused(refusal_of(error)),
        })
    }

    /// Cold bytes of a life for the engine to look at.
    async fn lend(
        &self,
        Loan { range, missing }: Loan,
        generation: Generation,
    ) -> Result<Result<Lent, ColdError>, Failure> {
        let from = range.start;
        let mut bytes = Vec::new();
        for locator in self.with_stream(|stream| stream.pieces(range))?? {
            match cold::fetch(&locator, &self.env).await {
                Ok(piece) => bytes.extend(piece.to_vec()),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(Lent { generation, from, missing, bytes }))
    }

    fn answer_copy(&self, query: &str) -> Result<Answer, Failure> {
        let number = |name: &str| {
            let value = query.split('&').filter_map(|pair| pair.split_once('='));
            let value = value.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let numbers = (number("source"), number("cold"), number("from"), number("to"));
        let (Some(source), Some(cold), Some(from), Some(to)) = numbers else {
            return Err(Failure::new(ErrorCode::InvalidQuery, "A copy does not parse."));
        };
        let request = CopyRequest {
            source: Generation(source),
            cold: Position(cold),
            from: Position(from),
            to: Position(to),
        };
        let copied = self.with_stream(|stream| stream.copy(request))??;
        Ok(Reply::new(200).body(Body::Bytes(encode_copied(copied))).into())
    }
}

/// Cold bytes of the source that could not be had.
fn unread(error: ColdError) -> Result<ReferenceAnswer, Failure> {
    match error {
        ColdError::Missing(segment) | ColdError::Corrupt(segment) => {
            Ok(ReferenceAnswer::Damaged(segment))
        }
        ColdError::Unavailable => Err(error.into()),
    }
}
