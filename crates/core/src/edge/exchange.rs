//! What the edge does for every request: what it takes from it at its begin, and how its answer is
//! completed at its end.
//!
//! Both are one crossing between wasm and JavaScript: see `exchange.js`. A request that nobody needs
//! to change is passed on as it came.

use std::borrow::Cow;

use js_sys::Promise;
use protocol::error::ErrorCode;
use protocol::limits::{REQUEST_HEADERS_BYTES_MAX, URL_BYTES_MAX};
use protocol::trace::{RequestId, TraceParent};
use wasm_bindgen::prelude::*;
use worker::Env;

use super::cors::Cors;
use super::objects::unavailable_callback;
use crate::config::{Config, LogRequests};
use crate::js;
use crate::metrics;
use crate::request::{query_values, split_url};
use crate::respond::{EXPOSED_HEADERS, Failure};

#[wasm_bindgen(module = "/src/edge/exchange.js")]
extern "C" {
    #[wasm_bindgen(js_name = preamble)]
    fn preamble(request: &web_sys::Request) -> String;

    #[wasm_bindgen(js_name = finish)]
    fn finish(
        promise: &Promise,
        unavailable: &js_sys::Function,
        flags: u32,
        started: f64,
        told: &str,
        exposed: &str,
        dataset: &JsValue,
    ) -> Promise;
}

/// A request of a client.
pub struct Exchange {
    /// The platform's request; its body is unread.
    pub request: web_sys::Request,
    /// The bindings.
    pub env: Env,
    /// The invocation's context.
    pub context: JsValue,
    /// What was taken from the request.
    pub preamble: Preamble,
    /// The platform's, or one made up.
    id: String,
    started_ms: f64,
}

/// What the edge reads of a request.
pub struct Preamble {
    /// As it came.
    pub method: String,
    /// As it came; it may hold a token.
    pub url: String,
    header_bytes: u64,
    pub(crate) origin: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) subprotocols: Option<String>,
    pub(crate) forked_from: Option<String>,
    /// `traceparent`, if it is well-formed.
    pub trace: Option<TraceParent>,
    ray: Option<String>,
    /// The client's address, where the platform tells it.
    pub(crate) address: Option<String>,
    pub(crate) wants_timing: bool,
}

impl Preamble {
    /// Splits what `exchange.js` puts together.
    fn split(lines: &str) -> Self {
        let mut lines = lines.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let (method, url) = (line().to_owned(), line().to_owned());
        let header_bytes = line().parse().unwrap_or(0);
        let mut header = || line().strip_prefix('=').map(str::to_owned);
        Self {
            method,
            url,
            header_bytes,
            origin: header(),
            authorization: header(),
            subprotocols: header(),
            forked_from: header(),
            trace: header().as_deref().and_then(TraceParent::parse),
            ray: header(),
            address: header(),
            wants_timing: header().is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }
    }

    /// The part of the URL after `?`.
    pub(crate) fn query(&self) -> &str {
        split_url(&self.url).2
    }

    /// Whether the query asks for statistics.
    pub(crate) fn has_stats(&self) -> bool {
        query_values(self.query(), ["stats"]).is_ok_and(|[stats]| stats.is_some())
    }

    /// Refuses a request that is larger than any valid one.
    pub(crate) fn check_size(&self) -> Result<(), Failure> {
        if self.url.len() as u64 > URL_BYTES_MAX {
            let message = format!("The URL is longer than {URL_BYTES_MAX} bytes.");
            return Err(Failure::new(ErrorCode::UriTooLong, message));
        }
        if self.header_bytes > REQUEST_HEADERS_BYTES_MAX {
            let message = format!("The headers are longer than {REQUEST_HEADERS_BYTES_MAX} bytes.");
            return Err(Failure::new(ErrorCode::HeadersTooLarge, message));
        }
        Ok(())
    }
}

/// What is told of a request when it is answered.
pub(crate) struct Told<'a> {
    /// Id of the operation, or what the request failed to be.
    pub(crate) operation: &'static str,
    pub(crate) project: Option<&'a str>,
    pub(crate) path: Option<Cow<'a, str>>,
    /// Why the edge refused it.
    pub(crate) code: Option<ErrorCode>,
}

impl Exchange {
    /// Takes what is needed from a request.
    #[must_use]
    pub fn begin(request: web_sys::Request, env: Env, context: JsValue) -> Self {
        let preamble = Preamble::split(&preamble(&request));
        let ray = preamble.ray.as_deref().and_then(RequestId::parse);
        let made = || format!("{:08x}{:08x}", js::random(), js::random());
        let id = ray.map_or_else(made, |ray| ray.to_string());
        Self { request, env, context, preamble, id, started_ms: js_sys::Date::now() }
    }

    /// The promise of a response, completed.
    pub(crate) fn finish(
        &self,
        promise: &Promise,
        told: &Told<'_>,
        (cors, is_private): (&Cors, bool),
        config: Option<&Config>,
    ) -> Promise {
        let flags = self.flags(cors, is_private, config);
        let exposed = if cors.allowed().is_some() { EXPOSED_HEADERS } else { "" };
        let dataset = metrics::dataset(&self.env).unwrap_or(JsValue::UNDEFINED);
        let told = self.lines(told, cors);
        let started = self.started_ms;
        finish(promise, &unavailable_callback(), flags, started, &told, exposed, &dataset)
    }

    /// What `exchange.js` is to do, as bits.
    fn flags(&self, cors: &Cors, is_private: bool, config: Option<&Config>) -> u32 {
        let log = match config.map_or(LogRequests::All, |config| config.log_requests) {
            LogRequests::All => 1,
            LogRequests::Errors => 2,
            LogRequests::None => 0,
        };
        let bits = [(cors.varies(), 4), (is_private, 8), (self.preamble.wants_timing, 16)];
        bits.into_iter().filter(|(is_set, _)| *is_set).fold(log, |flags, (_, bit)| flags | bit)
    }

    /// What is told of the request, one a line. No part of a URL's path holds a line end.
    fn lines(&self, told: &Told<'_>, cors: &Cors) -> String {
        let trace = self.preamble.trace.map(|trace| trace.trace_id()).unwrap_or_default();
        let parts = [
            self.id.as_str(),
            told.operation,
            told.project.unwrap_or_default(),
            told.path.as_deref().unwrap_or_default(),
            &trace,
            cors.allowed().unwrap_or_default(),
            told.code.map(ErrorCode::as_str).unwrap_or_default(),
        ];
        parts.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_is_taken_apart() {
        let text =
            "GET\nhttp://h/v1/stream/a?stats\n120\n=http://o\n\n\n=/v1/stream/b\n\n\n\n=TRUE";
        let preamble = Preamble::split(text);
        assert_eq!((preamble.method.as_str(), preamble.query()), ("GET", "stats"));
        assert_eq!(preamble.origin.as_deref(), Some("http://o"));
        assert_eq!(preamble.authorization, None);
        assert_eq!(preamble.forked_from.as_deref(), Some("/v1/stream/b"));
        assert!(preamble.wants_timing && preamble.has_stats());
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let code = |lines: &str| Preamble::split(lines).check_size().err().map(|f| f.error.code);
        let url = format!("http://h/{}", "a".repeat(20_000));
        assert_eq!(code(&format!("GET\n{url}\n10")), Some(ErrorCode::UriTooLong));
        assert_eq!(code("GET\nhttp://h/\n40000"), Some(ErrorCode::HeadersTooLarge));
        assert_eq!(code("GET\nhttp://h/\n4000"), None);
    }
}
