//! The conversation between a fork and its source, and the releases that end it.
//!
//! Objects talk over `fetch` with internal paths; requests and answers are JSON, pages of a copy
//! are binary. Every outcome is one of three: done, refused by the source, or unknown, and an
//! unknown reference is released like a known one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::Missing;
use engine::create::{Create, CreateError, Created};
use engine::fork::{Begun, CopyPage, ForkError, ForkGrant, ForkRequest, ForkWish};
use engine::life::Inherited;
use engine::log::{Blob, ForkId, Release};
use futures::channel::oneshot;
use js_sys::Uint8Array;
use protocol::content_type::ContentType;
use protocol::error::ErrorCode;
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, Offset, OffsetParam, Position};
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

use super::{Answer, Call, INTERNAL, INTERNAL_METHOD, Inner, JsBytes};
use crate::body;
use crate::edge::{forward, unavailable};
use crate::js;
use crate::respond::{Body, Failure, Reply, internal};

/// Largest internal message.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// How often a fork asks anew because its generation was too low.
const RAISES_MAX: u32 = 3;

/// `reference`: a fork asks its source.
#[derive(Serialize, Deserialize)]
struct ReferenceMessage {
    child: String,
    generation: u64,
    /// As in `Stream-Fork-Offset`.
    offset: Option<String>,
    sub_offset: u64,
    content_type: Option<String>,
}

/// The source's answer to `reference`.
#[derive(Serialize, Deserialize)]
enum ReferenceAnswer {
    Granted {
        source: u64,
        at: u64,
        content_type: String,
        ttl_s: Option<u64>,
        expires_at: Option<u64>,
        /// `(generation, end)`.
        lineage: Vec<(u64, u64)>,
    },
    RaiseTo(u64),
    Refused(Refusal),
}

/// [`ForkError`] on the wire.
#[derive(Serialize, Deserialize)]
enum Refusal {
    NotFound,
    Gone,
    BeyondTail { generation: u64, position: u64 },
    StaleOffset,
    InvalidOffset,
    SubOffset,
    ContentType(String),
    TooDeep,
    Storage,
}

/// `release`: a fork is gone.
#[derive(Serialize, Deserialize)]
struct ReleaseMessage {
    child: String,
    generation: u64,
}

/// Whether a fork is being made, and who waits for that to end.
#[derive(Default)]
pub(crate) struct ForkInProgress {
    going_on: Cell<bool>,
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
}

impl ForkInProgress {
    pub(crate) fn is_going_on(&self) -> bool {
        self.going_on.get()
    }

    fn begin(&self) {
        self.going_on.set(true);
    }

    fn end(&self) {
        self.going_on.set(false);
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
    ) -> Result<Created, Failure> {
        self.fork_in_progress.begin();
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
        while let Some((source, from, to)) = self.with_stream(|stream| stream.fork_missing())? {
            let path = format!("copy?source={}&from={}&to={}", source.0, from.0, to.0);
            let response = self.call(&wish.source, &path, None).await?;
            let buffer =
                response.array_buffer().map_err(|error| internal("copying a fork", &error))?;
            let buffer =
                JsFuture::from(buffer).await.map_err(|error| internal("copying a fork", &error))?;
            let page = decode_page(from, &JsBytes::new(Uint8Array::new(&buffer)))
                .ok_or_else(|| internal("copying a fork", &JsValue::from_str("damaged page")))?;
            self.with_stream(|stream| stream.fork_copied(page))??;
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
        let response = self.call(&wish.source, "reference", Some(to_json(&message))).await;
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

    /// Calls another stream's object. Any status but 200 is a failure.
    async fn call(
        &self,
        object: &str,
        operation: &str,
        body: Option<String>,
    ) -> Result<web_sys::Response, Failure> {
        let init = web_sys::RequestInit::new();
        if let Some(body) = body {
            init.set_method(INTERNAL_METHOD);
            init.set_body(&JsValue::from_str(&body));
        }
        let url = format!("http://object{INTERNAL}{operation}");
        let request = web_sys::Request::new_with_str_and_init(&url, &init).map_err(unavailable)?;
        let response = forward(&request, object, &self.env).await?;
        match response.status() {
            200 => Ok(response),
            status => Err(unavailable(JsValue::from_str(&format!("status {status}")))),
        }
    }

    /// Tells sources that forks of theirs are gone.
    pub(crate) async fn deliver(self: &Rc<Self>, releases: Vec<Release>) {
        for release in releases {
            let Ok(child) = self.name() else { return };
            let message = ReleaseMessage { child, generation: release.generation.0 };
            let told = self.call(&release.source, "release", Some(to_json(&message))).await;
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
                let answer = self.answer_reference(&message)?;
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
            _ => Err(Failure::new(ErrorCode::RouteNotFound, "No such internal operation.")),
        }
    }

    fn answer_reference(&self, message: &ReferenceMessage) -> Result<ReferenceAnswer, Failure> {
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
        let outcome = self.with_stream(|stream| stream.reference(&request, js::now()))?;
        Ok(match outcome {
            Ok(grant) => granted(grant),
            Err(ForkError::GenerationTooLow { at_least }) => ReferenceAnswer::RaiseTo(at_least.0),
            Err(ForkError::Refused) => ReferenceAnswer::RaiseTo(generation.0.saturating_add(1)),
            Err(error) => ReferenceAnswer::Refused(refusal_of(error)),
        })
    }

    fn answer_copy(&self, query: &str) -> Result<Answer, Failure> {
        let number = |name: &str| {
            let value = query.split('&').filter_map(|pair| pair.split_once('='));
            let value = value.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let (Some(source), Some(from), Some(to)) = (number("source"), number("from"), number("to"))
        else {
            return Err(Failure::new(ErrorCode::InvalidQuery, "A copy does not parse."));
        };
        let page = self.with_stream(|stream| {
            stream.copy(Generation(source), Position(from), Position(to))
        })??;
        Ok(Reply::new(200).body(Body::Bytes(encode_page(page))).into())
    }
}

/// What a source's answer, or its absence, means to the fork.
enum Asked {
    /// No reference is stored.
    Refused(ForkError),
    /// A reference may be stored.
    Unknown(Failure),
}

fn grant_of(answer: ReferenceAnswer) -> Result<ForkGrant, Asked> {
    let refused = |error| Err(Asked::Refused(error));
    match answer {
        ReferenceAnswer::RaiseTo(generation) => {
            refused(ForkError::GenerationTooLow { at_least: Generation(generation) })
        }
        ReferenceAnswer::Refused(refusal) => refused(error_of(refusal)),
        ReferenceAnswer::Granted { source, at, content_type, ttl_s, expires_at, lineage } => {
            let Ok(content_type) = ContentType::parse(&content_type) else {
                return Err(Asked::Unknown(Failure::new(
                    ErrorCode::Internal,
                    "A grant does not parse.",
                )));
            };
            let lifetime = match (ttl_s, expires_at) {
                (Some(seconds), _) => Lifetime::Ttl { seconds },
                (None, Some(at)) => Lifetime::ExpiresAt { at: UnixMillis(at) },
                (None, None) => Lifetime::Unlimited,
            };
            let stretch = |(generation, end)| Inherited {
                generation: Generation(generation),
                end: Position(end),
            };
            Ok(ForkGrant {
                source: Generation(source),
                at: Position(at),
                content_type,
                lifetime,
                lineage: lineage.into_iter().map(stretch).collect(),
            })
        }
    }
}

fn granted(grant: ForkGrant) -> ReferenceAnswer {
    let (ttl_s, expires_at) = match grant.lifetime {
        Lifetime::Unlimited => (None, None),
        Lifetime::Ttl { seconds } => (Some(seconds), None),
        Lifetime::ExpiresAt { at } => (None, Some(at.0)),
    };
    ReferenceAnswer::Granted {
        source: grant.source.0,
        at: grant.at.0,
        content_type: grant.content_type.as_str().to_owned(),
        ttl_s,
        expires_at,
        lineage: grant
            .lineage
            .iter()
            .map(|stretch| (stretch.generation.0, stretch.end.0))
            .collect(),
    }
}

fn refusal_of(error: ForkError) -> Refusal {
    use engine::offsets::OffsetError;
    match error {
        ForkError::Missing(Missing::NotFound) => Refusal::NotFound,
        ForkError::Missing(Missing::Gone) => Refusal::Gone,
        ForkError::Missing(Missing::Log(_)) | ForkError::Offset(OffsetError::Log(_)) => {
            Refusal::Storage
        }
        ForkError::Offset(OffsetError::BeyondTail { tail }) => {
            Refusal::BeyondTail { generation: tail.generation.0, position: tail.position.0 }
        }
        ForkError::Offset(OffsetError::Stale) => Refusal::StaleOffset,
        ForkError::Offset(OffsetError::Invalid) => Refusal::InvalidOffset,
        ForkError::SubOffset => Refusal::SubOffset,
        ForkError::ContentType { expected } => Refusal::ContentType(expected.as_str().to_owned()),
        ForkError::TooDeep => Refusal::TooDeep,
        // Both are answered with a generation to ask again with.
        ForkError::GenerationTooLow { .. } | ForkError::Refused => Refusal::Storage,
    }
}

fn error_of(refusal: Refusal) -> ForkError {
    use engine::offsets::OffsetError;
    let storage =
        || Missing::Log(engine::log::LogError::Failed("the source's storage failed".into()));
    match refusal {
        Refusal::NotFound => ForkError::Missing(Missing::NotFound),
        Refusal::Gone => ForkError::Missing(Missing::Gone),
        Refusal::BeyondTail { generation, position } => {
            let tail = Offset { generation: Generation(generation), position: Position(position) };
            ForkError::Offset(OffsetError::BeyondTail { tail })
        }
        Refusal::StaleOffset => ForkError::Offset(OffsetError::Stale),
        Refusal::InvalidOffset => ForkError::Offset(OffsetError::Invalid),
        Refusal::SubOffset => ForkError::SubOffset,
        Refusal::ContentType(expected) => {
            ForkError::ContentType { expected: ContentType::parse(&expected).unwrap_or_default() }
        }
        Refusal::TooDeep => ForkError::TooDeep,
        Refusal::Storage => ForkError::Missing(storage()),
    }
}

fn offset_text(offset: OffsetParam) -> String {
    match offset {
        OffsetParam::Start => "-1".into(),
        OffsetParam::Now => "now".into(),
        OffsetParam::At(offset) => offset.to_string(),
    }
}

/// `[count u32 LE][count × end u32 LE][bytes]`.
fn encode_page(page: CopyPage<JsBytes>) -> JsBytes {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut head = number(page.ends.len() as u64).to_vec();
    for end in &page.ends {
        head.extend_from_slice(&number(*end));
    }
    JsBytes::concat(&[JsBytes::from_vec(head), page.bytes])
}

fn decode_page(from: Position, page: &JsBytes) -> Option<CopyPage<JsBytes>> {
    let count = page.slice(0..4).to_vec();
    let count = u64::from(u32::from_le_bytes(count.try_into().ok()?));
    let head_bytes = 4 + count * 4;
    if head_bytes > page.len() {
        return None;
    }
    let ends = page.slice(4..head_bytes).to_vec();
    let (ends, _) = ends.as_chunks::<4>();
    let ends = ends.iter().map(|end| u64::from(u32::from_le_bytes(*end))).collect();
    Some(CopyPage { from, bytes: page.slice(head_bytes..page.len()), ends })
}

fn to_json(message: &impl Serialize) -> String {
    // These types have string keys and finite numbers only: they always serialize.
    serde_json::to_string(message).unwrap_or_default()
}

async fn message_of<T: serde::de::DeserializeOwned>(call: &Call) -> Result<T, Failure> {
    let bytes = body::read(&call.request, MESSAGE_BYTES_MAX).await?.to_vec();
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(ErrorCode::InvalidJson, error.to_string()))
}

async fn text_of(response: &web_sys::Response) -> Result<String, Failure> {
    let promise = response.text().map_err(|error| internal("reading an answer", &error))?;
    let text =
        JsFuture::from(promise).await.map_err(|error| internal("reading an answer", &error))?;
    Ok(text.as_string().unwrap_or_default())
}
