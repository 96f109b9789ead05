//! One function a method: parse, ask the engine, reply.

use std::rc::Rc;

use engine::cold::Content;
use engine::create::{Create, Created};
use engine::flights::stays_true;
use engine::log::Blob;
use engine::offsets::OffsetError;
use engine::read::{Dress, Page};
use protocol::content_type::ContentType;
use protocol::cursor::next_cursor;
use protocol::error::ErrorCode;
use protocol::etag::{Etag, matches_if_none_match};
use protocol::headers::name;
use protocol::lifetime::Lifetime;
use protocol::name::Route;
use protocol::offset::{Offset, OffsetParam};
use protocol::time::format_rfc3339;
use protocol::trace::TraceParent;

use super::{Answer, Call, Inner, JsBytes, STREAM_LASTS};
use crate::body::{self, Bounds};
use crate::cold::{self, COLD_STATUS, ColdError, ColdPage};
use crate::js;
use crate::request::{CreateHeaders, Mode, ReadQuery, split_url};
use crate::respond::{Body, CONTENT_POLICY, Failure, Reply};

const IMMUTABLE: &str = "public, max-age=60, stale-while-revalidate=300";
const REVALIDATE: &str = "no-cache";
const NO_STORE: &str = "no-store";

impl Inner {
    /// PUT: create, or confirm that it exists.
    pub(crate) async fn put(self: &Rc<Self>, call: &Call, path: &str) -> Result<Answer, Failure> {
        let Ok(Route::Stream { name, .. }) = Route::parse(path) else {
            return Err(Failure::new(ErrorCode::InvalidPath, "The path names no stream."));
        };
        let headers = CreateHeaders::parse(&call.headers, &name.project)?;
        let body = body::read(&call.request, Bounds::of(&self.config()?.limits)).await?;
        let request = Create {
            content_type: headers.content_type,
            lifetime: headers.lifetime,
            closed: headers.closed,
            public: headers.public,
            session: None,
            body,
            fork: headers.fork,
        };
        self.settle_fork().await?;
        let created = match &request.fork {
            None => self.with_stream(|stream| stream.create(&request, js::now()))??,
            Some(wish) => {
                let trace = call.headers.get(name::TRACEPARENT);
                let trace = trace.as_deref().and_then(TraceParent::parse);
                self.make_fork(&request, wish, trace).await?
            }
        };
        Ok(created_reply(&created, call).into())
    }

    /// HEAD: metadata.
    pub(crate) fn head(&self) -> Result<Answer, Failure> {
        let metadata = self.with_stream(|stream| stream.head(js::now()))??;
        let reply = Reply::new(200)
            .header(name::CONTENT_TYPE, metadata.content_type.as_str().to_owned())
            .header(name::STREAM_NEXT_OFFSET, metadata.next.to_string())
            .header(name::CACHE_CONTROL, NO_STORE)
            .header_if(metadata.closed, name::STREAM_CLOSED, "true")
            .header_if(metadata.public, name::STREAM_PUBLIC, "true");
        Ok(match metadata.lifetime {
            Lifetime::Unlimited => reply,
            Lifetime::Ttl { seconds } => reply.header(name::STREAM_TTL, seconds.to_string()),
            Lifetime::ExpiresAt { at } => reply.header(name::STREAM_EXPIRES_AT, format_rfc3339(at)),
        }
        .into())
    }

    /// DELETE.
    pub(crate) fn delete(self: &Rc<Self>) -> Result<Answer, Failure> {
        self.with_stream(|stream| stream.delete(js::now()))??;
        self.nudge_shards();
        self.deliver_due();
        Ok(Reply::new(204).header(name::CACHE_CONTROL, NO_STORE).into())
    }

    /// GET: catch up, or attach a live reader.
    pub(crate) async fn get(self: &Rc<Self>, call: &Call, query: &str) -> Result<Answer, Failure> {
        self.with_stream(|stream| stream.check(js::now()))??;
        let query = ReadQuery::parse(query)?;
        self.check_boundary(query.offset).await?;
        // Meanwhile the path may have got another stream.
        self.admit(call.audience, "GET")?;
        match query.mode {
            Mode::CatchUp => self.catch_up(call, &query),
            Mode::LongPoll => self.long_poll(call, &query),
            Mode::Sse | Mode::WebSocket => self.attach_follower(call, &query),
        }
    }

    fn catch_up(&self, call: &Call, query: &ReadQuery) -> Result<Answer, Failure> {
        let read = self.read_page(query)?;
        let (page, reply) = (&read.page, read.reply(200));
        if query.offset == OffsetParam::Now {
            let reply = reply.header(name::CACHE_CONTROL, NO_STORE);
            return Ok(self.filled(reply, read, (call, query))?.into());
        }
        let etag = etag_of(page);
        // A page may be kept if its URL names the generation and nothing ends its life early.
        let named = matches!(query.offset, OffsetParam::At(offset) if offset != Offset::ZERO);
        let lasts = self.with_stream(|stream| stream.lasts())?;
        let cache = if page.immutable && named && lasts { IMMUTABLE } else { REVALIDATE };
        let known = call.headers.get(name::IF_NONE_MATCH);
        if known.is_some_and(|known| matches_if_none_match(&known, &etag)) {
            let reply = read.reply(304);
            return Ok(reply.header(name::ETAG, etag).header(name::CACHE_CONTROL, cache).into());
        }
        let reply = reply.header(name::ETAG, etag).header(name::CACHE_CONTROL, cache);
        Ok(self.filled(reply, read, (call, query))?.into())
    }

    /// The reply with the page's bytes, or with where they are: then the edge puts them in.
    fn filled(
        &self,
        reply: Reply,
        ReadPage { page, content_type, .. }: ReadPage,
        (call, query): (&Call, &ReadQuery),
    ) -> Result<Reply, Failure> {
        match page.content {
            Content::Hot(bytes) => Ok(reply.body(Body::Bytes(bytes))),
            Content::Cold(locator) => {
                let page = ColdPage {
                    range: locator.into(),
                    json: content_type.is_json(),
                    live: query.mode != Mode::CatchUp,
                    url: catch_up_url(&call.url, query.offset),
                    object: self.name()?,
                    audience: call.audience,
                };
                let text = serde_json::to_string(&page).unwrap_or_default();
                Ok(reply.status(COLD_STATUS).body(Body::Text(text)))
            }
        }
    }

    /// Refuses a cold offset of a JSON stream that is not at a message's end.
    async fn check_boundary(&self, offset: OffsetParam) -> Result<(), Failure> {
        if self.boundary_holds(offset).await? { Ok(()) } else { Err(OffsetError::Invalid.into()) }
    }

    /// Whether a cold offset of a JSON stream is at a message's end. What is no offset of the
    /// stream at all is the engine's to refuse.
    pub(crate) async fn boundary_holds(&self, offset: OffsetParam) -> Result<bool, ColdError> {
        let before = self.with_stream(|stream| stream.boundary(offset, js::now()));
        let Ok(Ok(Some(locator))) = before else { return Ok(true) };
        Ok(cold::fetch(&locator, &self.env).await?.to_vec().as_slice() == b"\n")
    }

    fn long_poll(self: &Rc<Self>, call: &Call, query: &ReadQuery) -> Result<Answer, Failure> {
        let read = self.read_page(query)?;
        let page = &read.page;
        let waiting = page.from == page.to;
        if waiting && !page.closed {
            return self.attach_long_poll(call, read);
        }
        let status = if waiting { 204 } else { 200 };
        let mut reply = read.reply(status).header(name::CACHE_CONTROL, NO_STORE);
        if !page.closed {
            let cursor = next_cursor(js::now(), query.cursor.as_deref(), js::random());
            reply = reply.header(name::STREAM_CURSOR, cursor);
        }
        if waiting {
            return Ok(reply.into());
        }
        let lasts = self.with_stream(|stream| {
            let from = stream.offset_of(page.from);
            let stays = |from| stays_true(query.offset, from, page.next, page.generation);
            stream.lasts() && from.is_some_and(stays)
        })?;
        let reply = reply.header(name::ETAG, etag_of(page)).header_if(lasts, STREAM_LASTS, "true");
        Ok(self.filled(reply, read, (call, query))?.into())
    }

    fn read_page(&self, query: &ReadQuery) -> Result<ReadPage, Failure> {
        let chunk = self.config()?.limits.read_chunk_bytes;
        let now = js::now();
        self.with_stream(|stream| {
            let from = stream.locate(query.offset, now)?;
            let page = stream.page(from, chunk, Dress::Response, now)?;
            let content_type = stream.content_type().cloned().unwrap_or_default();
            Ok::<_, Failure>(ReadPage { page, content_type, is_public: stream.is_public() })
        })?
    }
}

/// A page, with what else of the stream its readers are told.
pub(crate) struct ReadPage {
    pub(crate) page: Page<JsBytes>,
    pub(crate) content_type: ContentType,
    pub(crate) is_public: bool,
}

impl ReadPage {
    /// The headers that describe the page, with or without its bytes.
    fn reply(&self, status: u16) -> Reply {
        let Self { page, content_type, is_public } = self;
        Reply::new(status)
            .header(name::CONTENT_TYPE, content_type.as_str().to_owned())
            .header(name::STREAM_NEXT_OFFSET, page.next.to_string())
            .header_if(status == 200, name::CONTENT_SECURITY_POLICY, CONTENT_POLICY)
            .header_if(page.up_to_date, name::STREAM_UP_TO_DATE, "true")
            .header_if(page.closed, name::STREAM_CLOSED, "true")
            .header_if(*is_public, name::STREAM_PUBLIC, "true")
    }
}

fn etag_of(page: &Page<JsBytes>) -> String {
    let Page { generation, from, to, closed, up_to_date, .. } = *page;
    Etag { generation, from, to, closed, up_to_date }.to_string()
}

fn created_reply(created: &Created, call: &Call) -> Reply {
    let reply = Reply::new(if created.new { 201 } else { 200 })
        .header(name::CONTENT_TYPE, created.content_type.as_str().to_owned())
        .header(name::STREAM_NEXT_OFFSET, created.next.to_string())
        .header(name::CACHE_CONTROL, NO_STORE)
        .header_if(created.closed, name::STREAM_CLOSED, "true");
    if !created.new {
        return reply;
    }
    let (origin, path, _) = split_url(&call.url);
    reply.header(name::LOCATION, format!("{origin}{path}"))
}

/// A catch-up read of the same stream at the same offset.
fn catch_up_url(url: &str, offset: OffsetParam) -> String {
    let (origin, path, _) = split_url(url);
    format!("{origin}{path}?offset={offset}")
}
