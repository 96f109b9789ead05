//! Headers and query of a request, parsed into the engine's types: the engine never sees a
//! header.

use engine::fork::ForkWish;
use protocol::content_type::ContentType;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::{StreamSeq, is_closed, is_public, name, parse_sub_offset};
use protocol::lifetime::Lifetime;
use protocol::name::{ForkSourceError, Project, StreamName};
use protocol::offset::OffsetParam;
use protocol::percent::decode_value;
use protocol::producer::Producer;
use protocol::ws::parse_credit;

use crate::respond::{Failure, sentence};

/// The headers of a platform request.
pub(crate) struct Headers(pub(crate) web_sys::Headers);

impl Headers {
    /// The value of a header, if it is present; it may be empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).ok().flatten()
    }
}

fn invalid(code: ErrorCode, error: impl std::fmt::Display) -> Failure {
    ApiError::new(code, sentence(error)).into()
}

fn content_type(text: Option<&str>) -> Result<Option<ContentType>, Failure> {
    let present = text.filter(|text| !text.is_empty());
    let parsed = present.map(ContentType::parse).transpose();
    parsed.map_err(|error| invalid(ErrorCode::InvalidContentType, error))
}

/// `Content-Length`, if present.
pub(crate) fn content_length(text: Option<&str>) -> Option<u64> {
    text.and_then(|text| text.parse().ok())
}

/// The headers of an append as text, in the order of `append.js`.
pub(crate) struct AppendHeaderText<'a> {
    pub(crate) content_length: Option<&'a str>,
    content_type: Option<&'a str>,
    producer_id: Option<&'a str>,
    producer_epoch: Option<&'a str>,
    producer_seq: Option<&'a str>,
    stream_seq: Option<&'a str>,
    stream_closed: Option<&'a str>,
    pub(crate) origin: Option<&'a str>,
    pub(crate) timing: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) audience: Option<&'a str>,
    pub(crate) publish: Option<&'a str>,
}

impl<'a> AppendHeaderText<'a> {
    /// Splits one header a line, each present one behind a `=`.
    pub(crate) fn split(lines: &'a str) -> Self {
        let mut lines = lines.split('\n').map(|line| line.strip_prefix('='));
        let mut next = || lines.next().flatten();
        Self {
            content_length: next(),
            content_type: next(),
            producer_id: next(),
            producer_epoch: next(),
            producer_seq: next(),
            stream_seq: next(),
            stream_closed: next(),
            origin: next(),
            timing: next(),
            traceparent: next(),
            audience: next(),
            publish: next(),
        }
    }
}

/// The headers of an append.
pub(crate) struct AppendHeaders {
    pub(crate) content_type: Option<ContentType>,
    pub(crate) producer: Option<Producer>,
    pub(crate) seq: Option<StreamSeq>,
    pub(crate) close: bool,
}

impl AppendHeaders {
    pub(crate) fn parse(text: &AppendHeaderText<'_>) -> Result<Self, Failure> {
        let producer =
            Producer::from_headers(text.producer_id, text.producer_epoch, text.producer_seq)
                .map_err(|error| invalid(ErrorCode::InvalidProducer, error))?;
        let seq = text.stream_seq.map(StreamSeq::parse).transpose();
        Ok(Self {
            content_type: content_type(text.content_type)?,
            producer,
            seq: seq.map_err(|error| invalid(ErrorCode::InvalidHeader, error))?,
            close: is_closed(text.stream_closed),
        })
    }
}

/// The headers of a creation.
pub(crate) struct CreateHeaders {
    pub(crate) content_type: Option<ContentType>,
    pub(crate) lifetime: Lifetime,
    pub(crate) closed: bool,
    pub(crate) public: bool,
    pub(crate) fork: Option<ForkWish>,
}

impl CreateHeaders {
    pub(crate) fn parse(headers: &Headers, project: &Project) -> Result<Self, Failure> {
        let ttl = headers.get(name::STREAM_TTL);
        let expires_at = headers.get(name::STREAM_EXPIRES_AT);
        let lifetime = Lifetime::from_headers(ttl.as_deref(), expires_at.as_deref())
            .map_err(|error| invalid(ErrorCode::InvalidLifetime, error))?;
        Ok(Self {
            content_type: content_type(headers.get(name::CONTENT_TYPE).as_deref())?,
            lifetime,
            closed: is_closed(headers.get(name::STREAM_CLOSED).as_deref()),
            public: is_public(headers.get(name::STREAM_PUBLIC).as_deref()),
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
    if source.path.reserved().is_some() {
        // A session's stream ends with its session, and is held for nobody.
        let message = "A stream of the service's own cannot be forked.";
        return Err(Failure::new(ErrorCode::Reserved, message));
    }
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
    WebSocket,
}

/// The query of a GET.
#[derive(Clone, Debug)]
pub(crate) struct ReadQuery {
    pub(crate) offset: OffsetParam,
    pub(crate) mode: Mode,
    pub(crate) cursor: Option<String>,
    /// Data frames that a WebSocket client allows; `None` when it counts none.
    pub(crate) credit: Option<u64>,
}

impl ReadQuery {
    /// Parses the part of a URL after `?`. Unknown parameters are ignored; known ones may stand
    /// once.
    pub(crate) fn parse(query: &str) -> Result<Self, Failure> {
        let names = ["offset", "live", "cursor", "credit"];
        let [offset, live, cursor, credit] = query_values(query, names)?;
        let mode = match live.as_deref() {
            None => Mode::CatchUp,
            Some("long-poll") => Mode::LongPoll,
            Some("sse") => Mode::Sse,
            Some("ws") => Mode::WebSocket,
            Some(_) => {
                let message = "The query parameter `live` is `long-poll`, `sse` or `ws`.";
                return Err(Failure::new(ErrorCode::InvalidQuery, message));
            }
        };
        if mode != Mode::CatchUp && offset.is_none() {
            let message = "A live read names its `offset`.";
            return Err(Failure::new(ErrorCode::InvalidQuery, message));
        }
        let credit = credit.filter(|_| mode == Mode::WebSocket);
        let credit = credit.map(|text| parse_credit(&text)).transpose();
        let offset = offset.map_or(Ok(OffsetParam::Start), |text| OffsetParam::parse(&text));
        Ok(Self {
            offset: offset.map_err(|error| invalid(ErrorCode::InvalidOffset, error))?,
            mode,
            cursor,
            credit: credit?,
        })
    }
}

/// The values of some parameters of the part of a URL after `?`. Others are ignored; these may
/// stand once.
pub(crate) fn query_values<const N: usize>(
    query: &str,
    names: [&str; N],
) -> Result<[Option<String>; N], Failure> {
    let mut values = [const { None }; N];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(key) = decode_value(key) else { continue };
        let slot = names.iter().position(|name| *name == key).and_then(|at| values.get_mut(at));
        let Some(slot) = slot else { continue };
        let value = decode_value(value).ok_or_else(|| {
            let message = format!("The query parameter `{key}` is not percent-encoded UTF-8.");
            Failure::new(ErrorCode::InvalidQuery, message)
        })?;
        if slot.replace(value).is_some() {
            let message = format!("The query parameter `{key}` stands twice.");
            return Err(Failure::new(ErrorCode::InvalidQuery, message));
        }
    }
    Ok(values)
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
    fn append_headers_are_told_apart() {
        let text = AppendHeaderText::split("=12\n=text/plain\n\n\n=\n\n=true\n\n\n\n=x\n");
        assert_eq!((text.content_length, text.producer_seq), (Some("12"), Some("")));
        assert_eq!((text.producer_id, text.origin), (None, None));
        assert_eq!(text.audience, Some("x"));
        assert_eq!(text.stream_closed, Some("true"));
    }

    #[test]
    fn known_parameters_stand_once() {
        assert_eq!(ReadQuery::parse("foo=1&foo=2").unwrap().mode, Mode::CatchUp);
        for query in ["offset=-1&offset=-1", "live=sse", "live=x&offset=-1", "offset=", "offset=%2"]
        {
            assert!(ReadQuery::parse(query).is_err(), "{query}");
        }
        assert_eq!(ReadQuery::parse("offset=%2D1").unwrap().offset, OffsetParam::Start);
        let query = ReadQuery::parse("cursor=7&live=long-poll&offset=now").unwrap();
        assert_eq!((query.mode, query.cursor.as_deref()), (Mode::LongPoll, Some("7")));
    }
}
