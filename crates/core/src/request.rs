//! Headers and query of a request, parsed into the engine's types: the engine never sees a
//! header.

use std::cell::RefCell;
use std::collections::HashMap;

use engine::fork::ForkWish;
use js_sys::JsString;
use protocol::content_type::ContentType;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::{StreamSeq, is_closed, name, parse_sub_offset};
use protocol::lifetime::Lifetime;
use protocol::name::{ForkSourceError, Project, StreamName};
use protocol::offset::OffsetParam;
use protocol::producer::Producer;

use wasm_bindgen::{JsCast, JsValue};

use crate::js::HeaderMap;
use crate::respond::{Failure, sentence};

thread_local! {
    /// Header names as JavaScript strings: made once, so that asking for a header copies nothing
    /// into JavaScript.
    static NAMES: RefCell<HashMap<&'static str, JsString>> = RefCell::default();
}

/// The headers of a platform request.
pub(crate) struct Headers(HeaderMap);

impl Headers {
    pub(crate) fn of(request: &web_sys::Request) -> Self {
        Self(JsValue::from(request.headers()).unchecked_into())
    }

    /// The value of a header, if it is present; it may be empty.
    pub(crate) fn get(&self, name: &'static str) -> Option<String> {
        NAMES.with(|names| match names.try_borrow_mut() {
            Ok(mut names) => self.0.get(names.entry(name).or_insert_with(|| JsString::from(name))),
            Err(_) => self.0.get(&JsString::from(name)),
        })
    }
}

fn invalid(code: ErrorCode, error: impl std::fmt::Display) -> Failure {
    ApiError::new(code, sentence(error)).into()
}

/// `Content-Type`, if present.
pub(crate) fn content_type(headers: &Headers) -> Result<Option<ContentType>, Failure> {
    let parse = |text: String| ContentType::parse(&text);
    let present = headers.get(name::CONTENT_TYPE).filter(|text| !text.is_empty());
    present.map(parse).transpose().map_err(|error| invalid(ErrorCode::InvalidContentType, error))
}

/// The headers of an append, besides its content type.
pub(crate) struct AppendHeaders {
    pub(crate) content_type: Option<ContentType>,
    pub(crate) producer: Option<Producer>,
    pub(crate) seq: Option<StreamSeq>,
    pub(crate) close: bool,
}

impl AppendHeaders {
    pub(crate) fn parse(headers: &Headers) -> Result<Self, Failure> {
        let id = headers.get(name::PRODUCER_ID);
        let epoch = headers.get(name::PRODUCER_EPOCH);
        let seq = headers.get(name::PRODUCER_SEQ);
        let producer = Producer::from_headers(id.as_deref(), epoch.as_deref(), seq.as_deref())
            .map_err(|error| invalid(ErrorCode::InvalidProducer, error))?;
        let seq = headers.get(name::STREAM_SEQ).map(|text| StreamSeq::parse(&text)).transpose();
        Ok(Self {
            content_type: content_type(headers)?,
            producer,
            seq: seq.map_err(|error| invalid(ErrorCode::InvalidHeader, error))?,
            close: is_closed(headers.get(name::STREAM_CLOSED).as_deref()),
        })
    }
}

/// The headers of a creation.
pub(crate) struct CreateHeaders {
    pub(crate) content_type: Option<ContentType>,
    pub(crate) lifetime: Lifetime,
    pub(crate) closed: bool,
    pub(crate) fork: Option<ForkWish>,
}

impl CreateHeaders {
    pub(crate) fn parse(headers: &Headers, project: &Project) -> Result<Self, Failure> {
        let ttl = headers.get(name::STREAM_TTL);
        let expires_at = headers.get(name::STREAM_EXPIRES_AT);
        let lifetime = Lifetime::from_headers(ttl.as_deref(), expires_at.as_deref())
            .map_err(|error| invalid(ErrorCode::InvalidLifetime, error))?;
        Ok(Self {
            content_type: content_type(headers)?,
            lifetime,
            closed: is_closed(headers.get(name::STREAM_CLOSED).as_deref()),
            fork: fork_wish(headers, project)?,
        })
    }
}

fn fork_wish(headers: &Headers, project: &Project) -> Result<Option<ForkWish>, Failure> {
    let source = headers.get(name::STREAM_FORKED_FROM);
    let offset = headers.get(name::STREAM_FORK_OFFSET);
    let sub_offset = headers.get(name::STREAM_FORK_SUB_OFFSET);
    let Some(source) = source else {
        if offset.is_some() || sub_offset.is_some() {
            let message = "Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From.";
            return Err(Failure::new(ErrorCode::InvalidHeader, message));
        }
        return Ok(None);
    };
    let source = StreamName::parse_reference(&source, project).map_err(|error| match error {
        ForkSourceError::OtherProject => {
            Failure::new(ErrorCode::ForkSourceNotFound, "There is no stream to fork.")
        }
        error => invalid(ErrorCode::InvalidHeader, error),
    })?;
    let offset = offset.map(|text| OffsetParam::parse(&text)).transpose();
    let sub_offset = sub_offset.map(|text| parse_sub_offset(&text)).transpose();
    Ok(Some(ForkWish {
        source: source.object_name(),
        offset: offset.map_err(|error| invalid(ErrorCode::InvalidOffset, error))?,
        sub_offset: sub_offset
            .map_err(|error| invalid(ErrorCode::ForkSubOffset, error))?
            .unwrap_or(0),
    }))
}

/// How a GET wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    CatchUp,
    LongPoll,
    Sse,
}

/// The query of a GET.
#[derive(Clone, Debug)]
pub(crate) struct ReadQuery {
    pub(crate) offset: OffsetParam,
    pub(crate) mode: Mode,
    pub(crate) cursor: Option<String>,
}

impl ReadQuery {
    /// Parses the part of a URL after `?`. Unknown parameters are ignored; known ones may stand
    /// once.
    pub(crate) fn parse(query: &str) -> Result<Self, Failure> {
        let (mut offset, mut live, mut cursor) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match key {
                "offset" => &mut offset,
                "live" => &mut live,
                "cursor" => &mut cursor,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                let message = format!("The query parameter `{key}` stands twice.");
                return Err(Failure::new(ErrorCode::InvalidQuery, message));
            }
        }
        let mode = match live {
            None => Mode::CatchUp,
            Some("long-poll") => Mode::LongPoll,
            Some("sse") => Mode::Sse,
            Some(_) => {
                let message = "The query parameter `live` is `long-poll` or `sse`.";
                return Err(Failure::new(ErrorCode::InvalidQuery, message));
            }
        };
        if mode != Mode::CatchUp && offset.is_none() {
            let message = "A live read names its `offset`.";
            return Err(Failure::new(ErrorCode::InvalidQuery, message));
        }
        // No valid offset needs percent-encoding, so none is decoded.
        let offset = offset.map_or(Ok(OffsetParam::Start), OffsetParam::parse);
        Ok(Self {
            offset: offset.map_err(|error| invalid(ErrorCode::InvalidOffset, error))?,
            mode,
            cursor: cursor.map(str::to_owned),
        })
    }
}

/// Splits a URL into origin, path and query (without `?`); a fragment never reaches a server.
pub(crate) fn split_url(url: &str) -> (&str, &str, &str) {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(after_scheme..).unwrap_or_default();
    let path_at = rest.find(['/', '?']).map_or(url.len(), |at| after_scheme + at);
    let (origin, target) = url.split_at_checked(path_at).unwrap_or((url, ""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (origin, path, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_split_into_origin_path_and_query() {
        let split = split_url("http://h:1/v1/stream/a?offset=-1&x=?");
        assert_eq!(split, ("http://h:1", "/v1/stream/a", "offset=-1&x=?"));
        assert_eq!(split_url("http://h"), ("http://h", "", ""));
    }

    #[test]
    fn known_parameters_stand_once() {
        assert_eq!(ReadQuery::parse("foo=1&foo=2").unwrap().mode, Mode::CatchUp);
        for query in
            ["offset=-1&offset=-1", "live=sse", "live=x&offset=-1", "offset=", "offset=%2D1"]
        {
            assert!(ReadQuery::parse(query).is_err(), "{query}");
        }
        let query = ReadQuery::parse("cursor=7&live=long-poll&offset=now").unwrap();
        assert_eq!((query.mode, query.cursor.as_deref()), (Mode::LongPoll, Some("7")));
    }
}
