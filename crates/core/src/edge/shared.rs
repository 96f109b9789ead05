//! Reads that share: catch-up and long-poll at an offset that names a life of the stream.
//!
//! Many readers of one isolate make one trip: first to the cache of pages, then to the object. What
//! may be shared, and with whom, is decided by [`engine::flights`]; docs/caching.md draws it.
//!
//! # Invariants
//! - Every key holds the stream, the audience, the mode and the offset. A client's own headers go
//!   into no trip that others may share; `If-None-Match` is answered here.
//! - A cursor is computed for each client.
//!
//! # Errors
//! As the object's; a trip that fails is begun again by somebody else before anybody hears of it.

use std::cell::Cell;
use std::rc::Rc;

use engine::flights::{Flights, Key, Outcome, Reader, Seat, Step, may_be_cached};
use js_sys::{Promise, encode_uri_component};
use protocol::cursor::next_cursor;
use protocol::error::ErrorCode;
use protocol::etag::matches_if_none_match;
use protocol::headers::name;
use protocol::offset::{Offset, OffsetParam, Position};
use protocol::time::UnixMillis;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::future_to_promise;

use super::flights::{self, Turn, Waiting};
use super::pages::{Facts, Landed, find, pass_on};
use super::{Target, cold, forward, long_poll};
use crate::config::Config;
use crate::js;
use crate::request::{Mode, ReadQuery, split_url};
use crate::respond::{Failure, internal};

/// How long a catch-up read waits for somebody else's trip.
const CATCH_UP_MS: u64 = 10_000;

/// How the edge came by an answer.
#[derive(Clone, Copy)]
enum Source {
    Hit,
    Coalesced,
    Miss,
    Bypass,
}

impl Source {
    fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Coalesced => "coalesced",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// How a trip ended that did not fail.
pub(super) enum Trip {
    /// With the object's answer.
    Answer(web_sys::Response),
    /// A page of the cache.
    Cached(Landed),
    /// Its time was over, and nothing had happened.
    TimedOut(web_sys::Response),
}

/// One read.
pub(super) struct Read {
    /// What is asked; its URL has offset and mode, and nothing else of the client's.
    target: Target,
    mode: Mode,
    offset: OffsetParam,
    cursor: Option<String>,
    if_none_match: Option<String>,
    context: js::Context,
    cache_seconds: u64,
    began: UnixMillis,
    /// How long a read waits at most.
    wait_ms: u64,
    deadline: UnixMillis,
}

/// Whether reads at an offset may share: it names a life, so that no other life's bytes can be
/// mistaken for it. `-1` and `now` mean something else with every write.
pub(super) fn is_shareable(offset: OffsetParam) -> bool {
    matches!(offset, OffsetParam::At(offset) if offset != Offset::ZERO)
}

impl Read {
    /// A read of a client.
    pub(super) fn new(
        request: &web_sys::Request,
        query: ReadQuery,
        target: Target,
        context: js::Context,
    ) -> Result<Self, Failure> {
        let limits = Config::of(&target.env)?.limits;
        let (origin, path, _) = split_url(&target.url);
        let (wait_ms, live) = match query.mode {
            Mode::LongPoll => (limits.long_poll_timeout_ms, "&live=long-poll"),
            _ => (CATCH_UP_MS, ""),
        };
        let began = js::now();
        let conditional = query.mode == Mode::CatchUp;
        let if_none_match =
            conditional.then(|| request.headers().get(name::IF_NONE_MATCH).ok().flatten());
        Ok(Self {
            target: target.at(format!("{origin}{path}?offset={}{live}", query.offset)),
            mode: query.mode,
            offset: query.offset,
            cursor: query.cursor,
            if_none_match: if_none_match.flatten(),
            context,
            cache_seconds: limits.edge_cache_seconds,
            began,
            wait_ms,
            deadline: began.saturating_add_ms(wait_ms),
        })
    }

    fn is_live(&self) -> bool {
        self.mode == Mode::LongPoll
    }

    fn kind(&self) -> String {
        let mode = if self.is_live() { "long-poll" } else { "catch-up" };
        format!("{}/{mode}", self.target.audience.word())
    }

    /// Trips do not depend on the cursor.
    fn key(&self) -> Key {
        let read = format!("{}/{}", self.kind(), self.offset);
        Key { stream: self.target.object.clone(), read }
    }

    /// URL of the page in the cache; `None` when it is not to be kept.
    fn page_key(&self) -> Option<String> {
        const CURSOR_DIGITS_MAX: usize = 16;
        if self.cache_seconds == 0 || !is_shareable(self.offset) {
            return None;
        }
        let cursor = self.cursor.as_deref().filter(|_| self.is_live()).unwrap_or_default();
        let is_number = cursor.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || cursor.len() > CURSOR_DIGITS_MAX {
            return None;
        }
        let encoded = |text: &str| String::from(encode_uri_component(text));
        // Deployments of one zone have one cache: those at other hosts have streams of their own.
        let origin = encoded(split_url(&self.target.url).0);
        let (object, kind) = (encoded(&self.target.object), self.kind());
        let page = format!("{origin}/{kind}/{object}?offset={}&cursor={cursor}", self.offset);
        Some(format!("https://pages.invalid/{page}"))
    }

    /// Status and headers of an answer for this very reader.
    fn dress(&self, status: u16, facts: &Facts, source: Source) -> (u16, String) {
        let cache_control = &facts.cache_control;
        let mut set = format!("{}\n{}", name::STREAM_CACHE, source.word());
        set += &format!("\n{}\n{cache_control}", name::CACHE_CONTROL);
        if facts.has_cursor {
            let cursor = next_cursor(js::now(), self.cursor.as_deref(), js::random());
            set += &format!("\n{}\n{cursor}", name::STREAM_CURSOR);
        }
        let is_known = self
            .if_none_match
            .as_ref()
            .is_some_and(|known| matches_if_none_match(known, &facts.etag));
        let is_known = is_known && status == 200 && !facts.etag.is_empty();
        (if is_known { 304 } else { status }, set)
    }

    fn answer(&self, landed: &Landed, source: Source) -> Result<web_sys::Response, Failure> {
        let (status, set) = self.dress(landed.status, &landed.facts, source);
        landed.response(status, &set)
    }

    /// An answer that was made before this reader asked. It has the bytes that it is owed, but what
    /// was the end then need not be the end now: a further read tells.
    fn answer_later(&self, landed: &Landed) -> Result<web_sys::Response, Failure> {
        let (status, mut set) = self.dress(landed.status, &landed.facts, Source::Coalesced);
        if !landed.facts.is_closed() {
            set += &format!("\n{}\n", name::STREAM_UP_TO_DATE);
        }
        landed.response(status, &set)
    }

    fn pass_on(
        &self,
        response: &web_sys::Response,
        source: Source,
    ) -> Result<web_sys::Response, Failure> {
        let (status, set) = self.dress(response.status(), &Facts::of(response), source);
        pass_on(response, status, &set)
    }

    /// Makes a trip that nobody shares.
    async fn alone(&self, source: Source) -> Result<web_sys::Response, Failure> {
        let known = self.if_none_match.as_deref();
        match self.ask_object(self.deadline, known, |_| ()).await? {
            Trip::Answer(response) | Trip::TimedOut(response) => self.pass_on(&response, source),
            Trip::Cached(landed) => self.answer(&landed, Source::Hit),
        }
    }

    /// Asks the object. `known` is what the client has, if the answer is for nobody else. `on_wait` is
    /// given what to tell as long as nothing happens.
    async fn ask_object(
        &self,
        until: UnixMillis,
        known: Option<&str>,
        on_wait: impl Fn(&web_sys::Response),
    ) -> Result<Trip, Failure> {
        if self.is_live() {
            return long_poll::trip(&self.target, self.offset, until, on_wait).await;
        }
        let Target { object, env, .. } = &self.target;
        let failed = |error| internal("asking the stream", &error);
        let request = self.target.request().map_err(failed)?;
        if let Some(known) = known {
            request.headers().set(name::IF_NONE_MATCH, known).map_err(failed)?;
        }
        let response = forward(&request, object, env).await?;
        Ok(Trip::Answer(cold::complete(response, env).await?))
    }

    /// One trip for everybody: to the cache, then to the object.
    async fn travel(&self, seat: &Seat, until: UnixMillis) -> Result<Trip, Failure> {
        let written = flights::written(&self.target.object);
        if may_be_cached(self.offset, written)
            && let Some(key) = self.page_key()
            && let Some(page) = find(&key).await
            && flights::is_current(&self.target.object, &Facts::of(&page))
            && self.may_read(seat, &page)
            && let Ok(mut landed) = Landed::read(&page).await
        {
            landed.is_cached = true;
            return Ok(Trip::Cached(landed));
        }
        let flight = seat.flight;
        let on_wait = |response: &_| flights::waiting(flight, Landed::head(response));
        self.ask_object(until, None, on_wait).await
    }

    /// Makes a trip, lands it, and puts what may be kept into the cache. `own` gets an answer that
    /// is for the reader who began only.
    async fn fly(&self, seat: &Seat, until: UnixMillis, own: &Cell<Option<web_sys::Response>>) {
        let asked_at = js::now();
        let trip = self.travel(seat, until).await;
        let (outcome, answer) = self.settle(seat, trip).await;
        own.set(answer);
        if !self.is_live() && matches!(outcome, Outcome::Unshared) {
            flights::part(&self.key());
        }
        let lasting = match &outcome {
            Outcome::Shared(landed, _) if self.lasts(landed) => Some(landed),
            _ => None,
        };
        flights::land(seat.flight, &outcome, lasting.map(Landed::bytes));
        if let (Some(landed), Some(key)) = (lasting, self.page_key())
            && !landed.is_cached
        {
            // Everybody has been answered: nobody waits for this.
            landed.keep(&key, self.cache_seconds, asked_at).await;
        }
    }

    /// Whether an answer is to be read into memory for those who wait. How long it is its offsets
    /// tell, but for the commas of JSON.
    fn may_read(&self, seat: &Seat, response: &web_sys::Response) -> bool {
        let begin = match self.offset {
            OffsetParam::At(offset) => offset.position,
            _ => Position(0),
        };
        let end = Facts::of(response).end().filter(|_| response.status() == 200);
        let bytes = end.map_or(0, |end| end.0.saturating_sub(begin.0));
        flights::may_read(seat.flight, bytes)
    }

    /// Whether an answer may be given to those who ask later.
    fn lasts(&self, landed: &Landed) -> bool {
        let facts = &landed.facts;
        let says_so = if self.is_live() { facts.lasts } else { facts.is_immutable() };
        landed.status == 200 && (landed.is_cached || says_so)
    }

    /// What a trip means to those who wait for it.
    async fn settle(
        &self,
        seat: &Seat,
        trip: Result<Trip, Failure>,
    ) -> (Outcome<Landed>, Option<web_sys::Response>) {
        let settled = match trip {
            Ok(Trip::Cached(landed)) => {
                let claim = landed.facts.claim();
                return (Outcome::Shared(landed, claim), None);
            }
            Ok(Trip::TimedOut(response)) => {
                let landed = Landed::head(&response);
                let claim = landed.facts.claim();
                return (Outcome::TimedOut(landed, claim), None);
            }
            Ok(Trip::Answer(response)) => {
                let is_page = response.status() == 200 && Facts::of(&response).is_immutable();
                let is_own = !self.is_live() && !is_page || !self.may_read(seat, &response);
                if response.status() < 500 && is_own {
                    return (Outcome::Unshared, Some(response));
                }
                Landed::read(&response).await
            }
            Err(failure) => Err(failure),
        };
        match settled {
            Ok(landed) if landed.status < 500 => {
                let claim = landed.facts.claim();
                (Outcome::Shared(landed, claim), None)
            }
            Ok(landed) => (Outcome::Failed(landed), None),
            Err(failure) => match failure.reply().into_response() {
                Ok(response) => match Landed::read(&response).await {
                    Ok(landed) => (Outcome::Failed(landed), None),
                    Err(_) => (Outcome::Unshared, None),
                },
                Err(_) => (Outcome::Unshared, None),
            },
        }
    }
}

/// Serves a read that may not share.
pub(super) async fn bypass(read: &Read) -> Result<web_sys::Response, Failure> {
    read.alone(Source::Bypass).await
}

/// Serves a read.
pub(super) async fn serve(read: Rc<Read>) -> Result<web_sys::Response, Failure> {
    let key = read.key();
    let written = flights::written(&read.target.object);
    let mut reader = Reader::new(read.began, read.deadline, written);
    let mut in_vain = None;
    loop {
        let now = js::now();
        let until = reader.leads_until(now, read.wait_ms);
        let (waiting, own, source) = match (flights::ask(&key, until), until) {
            (Turn::Landed(landed), _) => return read.answer_later(&landed),
            (Turn::Waits(waiting), _) => (waiting, Rc::default(), Source::Coalesced),
            (Turn::Leads(waiting), Some(until)) => {
                let own = lead(&read, &waiting, until);
                (waiting, own, Source::Miss)
            }
            _ => match in_vain.filter(|_| until.is_none() && reader.is_late(now)) {
                Some(landed) => return read.answer(&landed, Source::Coalesced),
                None => return read.alone(Source::Miss).await,
            },
        };
        let (seat, patience) = (waiting.seat, reader.patience(&waiting.seat));
        let Some(outcome) = waiting.outcome(patience).await else {
            let so_far = flights::leave(&seat);
            if !reader.is_over(js::now()) {
                continue;
            }
            let so_far = so_far.or(in_vain).map(|landed| (landed.clone(), landed.facts.claim()));
            return match reader.gives_up(so_far) {
                Some(Step::Answer(landed)) => read.answer(&landed, source),
                Some(_) => read.alone(Source::Miss).await,
                None => Err(no_answer()),
            };
        };
        if let Some(response) = own.take() {
            return read.pass_on(&response, source);
        }
        match reader.hears(outcome, js::now()) {
            Step::Answer(landed) => {
                let is_hit = landed.is_cached && matches!(source, Source::Miss);
                return read.answer(&landed, if is_hit { Source::Hit } else { source });
            }
            Step::AskAgain => {}
            Step::WaitOn(landed) => in_vain = Some(landed),
            Step::GoAlone => return read.alone(Source::Miss).await,
        }
    }
}

/// Begins a trip, which goes on when the client leaves. The cell gets the answer if it turns out to
/// be for this reader only.
fn lead(
    read: &Rc<Read>,
    waiting: &Waiting,
    until: UnixMillis,
) -> Rc<Cell<Option<web_sys::Response>>> {
    let own = Rc::new(Cell::new(None));
    let (read, seat, answer) = (Rc::clone(read), waiting.seat, Rc::clone(&own));
    let context = read.context.clone();
    let trip: Promise = future_to_promise(async move {
        let until = Flights::<(), Landed>::ends(js::now(), until);
        read.fly(&seat, until, &answer).await;
        Ok(JsValue::UNDEFINED)
    });
    flights::keep_alive(&context, &trip);
    own
}

fn no_answer() -> Failure {
    Failure::new(ErrorCode::Unavailable, "The stream did not answer; ask again.")
        .header(name::RETRY_AFTER, "1")
}
