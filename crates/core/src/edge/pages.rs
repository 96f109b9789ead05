//! Answers as plain data, and the platform's cache of them.
//!
//! A [`Landed`] answer belongs to no request: any reader of the isolate may be given it. The cache
//! holds pages under URLs that no client can ask for; a page is put there behind the answer.
//!
//! # Errors
//! A cache that does not answer is a cache that has nothing: it is logged, and the object is asked.

use std::rc::Rc;

use engine::flights::{Claim, Reach};
use js_sys::{Promise, Uint8Array};
use protocol::offset::Position;
use protocol::time::UnixMillis;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::respond::{Failure, internal};

#[wasm_bindgen(module = "/src/edge/pages.js")]
extern "C" {
    #[wasm_bindgen(js_name = headersOf)]
    fn headers_of(response: &web_sys::Response) -> JsValue;

    #[wasm_bindgen(js_name = factsOf)]
    fn facts_of(response: &web_sys::Response) -> String;

    #[wasm_bindgen(catch, js_name = answer)]
    fn build(
        status: u16,
        headers: &JsValue,
        body: Option<&Uint8Array>,
        set: &str,
    ) -> Result<web_sys::Response, JsValue>;

    #[wasm_bindgen(catch)]
    fn rewrap(
        response: &web_sys::Response,
        status: u16,
        set: &str,
    ) -> Result<web_sys::Response, JsValue>;

    #[wasm_bindgen(js_name = findPage)]
    fn find_page(key: &str) -> Promise;

    #[wasm_bindgen(js_name = keepPage)]
    fn keep_page(
        key: &str,
        seconds: f64,
        asked_at: f64,
        headers: &JsValue,
        body: &Uint8Array,
    ) -> Promise;
}

/// What the edge looks at in an answer.
#[derive(Debug, Default)]
pub(super) struct Facts {
    reach: Option<Reach>,
    is_up_to_date: bool,
    /// Whether the answer carries a cursor: then each reader is given one of its own.
    pub(super) has_cursor: bool,
    pub(super) etag: String,
    /// What the client is told.
    pub(super) cache_control: String,
    /// Whether the object says that a live answer may be given to those who ask later.
    pub(super) lasts: bool,
    /// Of a cached page: when the object was asked for it.
    pub(super) asked_at: UnixMillis,
}

impl Facts {
    pub(super) fn of(response: &web_sys::Response) -> Self {
        let text = facts_of(response);
        let mut lines = text.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        let offset = next().parse().ok();
        let (is_up_to_date, closed) = (next() == "true", next() == "true");
        Self {
            reach: offset.map(|next| Reach { next, closed }),
            is_up_to_date: is_up_to_date || closed,
            has_cursor: !next().is_empty(),
            etag: next().to_owned(),
            cache_control: next().to_owned(),
            lasts: !next().is_empty(),
            asked_at: UnixMillis(next().parse().unwrap_or_default()),
        }
    }

    /// What the answer says of the stream's end.
    pub(super) fn claim(&self) -> Claim {
        self.reach.filter(|_| self.is_up_to_date)
    }

    /// Where the answer ends.
    pub(super) fn end(&self) -> Option<Position> {
        self.reach.map(|reach| reach.next.position)
    }

    /// Whether the answer reaches an end that is final.
    pub(super) fn is_closed(&self) -> bool {
        self.reach.is_some_and(|reach| reach.closed)
    }

    /// Whether the object says that the page never changes.
    pub(super) fn is_immutable(&self) -> bool {
        self.cache_control.starts_with("public")
    }
}

/// An answer that belongs to no request.
#[derive(Clone, Debug)]
pub(super) struct Landed {
    pub(super) status: u16,
    headers: JsValue,
    body: Option<Uint8Array>,
    pub(super) facts: Rc<Facts>,
    /// Whether it was found in the cache.
    pub(super) is_cached: bool,
}

impl Landed {
    /// Reads a response to its end.
    pub(super) async fn read(response: &web_sys::Response) -> Result<Self, Failure> {
        let broken = |error: JsValue| internal("reading an answer", &error);
        let mut landed = Self::head(response);
        if response.body().is_some() {
            let bytes = JsFuture::from(response.array_buffer().map_err(broken)?).await;
            landed.body = Some(Uint8Array::new(&bytes.map_err(broken)?));
        }
        Ok(landed)
    }

    /// A response without its body.
    pub(super) fn head(response: &web_sys::Response) -> Self {
        Self {
            status: response.status(),
            headers: headers_of(response),
            body: None,
            facts: Rc::new(Facts::of(response)),
            is_cached: false,
        }
    }

    /// Bytes that it takes: the body, and roughly its headers.
    pub(super) fn bytes(&self) -> u64 {
        const HEADER_BYTES: u64 = 2048;
        u64::from(self.body.as_ref().map_or(0, Uint8Array::length)).saturating_add(HEADER_BYTES)
    }

    /// A response for one reader: `set` is names and values in turn, one a line.
    pub(super) fn response(&self, status: u16, set: &str) -> Result<web_sys::Response, Failure> {
        let body = self.body.as_ref().filter(|_| status != 304);
        build(status, &self.headers, body, set).map_err(|error| internal("answering", &error))
    }

    /// Puts the page into the cache; `asked_at`: when the object was asked for it.
    pub(super) async fn keep(&self, key: &str, seconds: u64, asked_at: UnixMillis) {
        let Some(body) = &self.body else { return };
        let (seconds, asked_at) = (seconds as f64, asked_at.0 as f64);
        let kept = keep_page(key, seconds, asked_at, &self.headers, body);
        let kept = JsFuture::from(kept).await;
        if let Err(error) = kept {
            internal("caching a page", &error);
        }
    }
}

/// The page under a key, if the cache has it.
pub(super) async fn find(key: &str) -> Option<web_sys::Response> {
    match JsFuture::from(find_page(key)).await {
        Ok(found) if found.is_undefined() => None,
        Ok(found) => Some(found.unchecked_into()),
        Err(error) => {
            internal("looking for a cached page", &error);
            None
        }
    }
}

/// A response of this very request, dressed for its reader; the body passes through.
pub(super) fn pass_on(
    response: &web_sys::Response,
    status: u16,
    set: &str,
) -> Result<web_sys::Response, Failure> {
    rewrap(response, status, set).map_err(|error| internal("answering", &error))
}
