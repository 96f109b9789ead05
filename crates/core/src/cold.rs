//! Cold bytes on their way to a client: whole blocks from the object store, verified, trimmed.
//!
//! The object answers a cold read with [`COLD_STATUS`], the headers that the client is to see, and
//! a [`ColdPage`] as the body; the edge puts the bytes in its place. Bytes that do not have their
//! checksums reach nobody: the range fails as `SEGMENT_CORRUPT`, with a log line that names the
//! object, and nothing is deleted because of it.

use engine::cold::Locator;
use engine::log::Blob;
use engine::rotate::stream_of;
use engine::segments::{Segments, Unavailable};
use engine::sums;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use serde::{Deserialize, Serialize};
use worker::Env;

use crate::edge::Audience;
use crate::metrics::{Level, event};
use crate::object::JsBytes;
use crate::respond::Failure;
use crate::store::store;

/// Status of an object's answer whose bytes lie in the object store. No client sees it.
pub(crate) const COLD_STATUS: u16 = 203;

/// [`Locator`] on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdRange {
    pub(crate) name: String,
    size: u64,
    from: u64,
    to: u64,
    sums: Vec<u32>,
}

impl From<Locator> for ColdRange {
    fn from(locator: Locator) -> Self {
        let Locator { name, size, range, sums } = locator;
        Self { name, size, from: range.start, to: range.end, sums }
    }
}

impl From<ColdRange> for Locator {
    fn from(range: ColdRange) -> Self {
        let ColdRange { name, size, from, to, sums } = range;
        Self { name, size, range: from..to, sums }
    }
}

/// The body of an answer whose bytes lie in the object store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ColdPage {
    pub(crate) range: ColdRange,
    /// Whether the body is to be a JSON array.
    pub(crate) json: bool,
    /// Whether a live read is answered.
    pub(crate) live: bool,
    /// What to ask again when the object in the store is gone, as a catch-up read: URL and object
    /// name.
    pub(crate) url: String,
    pub(crate) object: String,
    /// For whom to ask.
    pub(crate) audience: Audience,
}

/// Why bytes could not be had. Whoever makes one has told the operator.
#[derive(Debug)]
pub enum ColdError {
    /// There is no such object, or no such bytes in it: the stream may have ended meanwhile.
    Missing(String),
    /// The bytes are not what was stored.
    Corrupt(String),
    /// The store did not answer.
    Unavailable,
}

impl From<ColdError> for Failure {
    fn from(error: ColdError) -> Self {
        match error {
            ColdError::Missing(segment) | ColdError::Corrupt(segment) => damaged(segment),
            ColdError::Unavailable => {
                let message = "The object store did not answer; ask again.";
                Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1")
            }
        }
    }
}

/// A segment is damaged; its name helps the operator.
pub(crate) fn damaged(segment: String) -> Failure {
    let message = "A segment of the stream is damaged; other ranges can be read.";
    ApiError::new(ErrorCode::SegmentCorrupt, message).with("segment", segment).into()
}

/// Fetches a range, verified. What goes wrong is logged and counted here.
///
/// # Errors
/// [`ColdError`], see its variants; nothing was changed.
pub async fn fetch(locator: &Locator, env: &Env) -> Result<JsBytes, ColdError> {
    let fetched = fetch_blocks(locator, env).await;
    if let Err((error, cause)) = &fetched {
        let what = match error {
            ColdError::Missing(_) => "segment_missing",
            ColdError::Corrupt(_) => "segment_corrupt",
            ColdError::Unavailable => "segment_unavailable",
        };
        let stream = stream_of(&locator.name).unwrap_or_default();
        let details = [("segment", locator.name.clone().into()), ("cause", cause.clone().into())];
        event(env, (Level::Error, what), stream, 1, &details);
    }
    fetched.map_err(|(error, _)| error)
}

async fn fetch_blocks(locator: &Locator, env: &Env) -> Result<JsBytes, (ColdError, String)> {
    let unavailable = |error: Unavailable| (ColdError::Unavailable, error.0);
    let blocks = locator.blocks();
    let store = store(env).map_err(unavailable)?;
    let got = match store.get(&locator.name, blocks.clone()).await {
        Ok(got) => got,
        // A store that knows the object and cannot read it has lost some of its bytes.
        Err(error) => match store.head(&locator.name).await {
            Ok(Some(_)) => return Err((ColdError::Corrupt(locator.name.clone()), error.0)),
            Ok(None) => None,
            Err(_) => return Err(unavailable(error)),
        },
    };
    let Some(bytes) = got else {
        return Err((ColdError::Missing(locator.name.clone()), "there is no such object".into()));
    };
    let whole = bytes.len() == blocks.end.saturating_sub(blocks.start);
    if !whole || !verify(&bytes, &locator.sums) {
        let cause = format!("bytes {blocks:?} are not what was stored");
        return Err((ColdError::Corrupt(locator.name.clone()), cause));
    }
    let at = |position: u64| position.saturating_sub(blocks.start);
    Ok(bytes.slice(at(locator.range.start)..at(locator.range.end)))
}

/// Block by block, so that wasm's memory does not grow with the page.
fn verify(bytes: &JsBytes, expected: &[u32]) -> bool {
    let block = protocol::limits::SEGMENT_BLOCK_BYTES;
    let starts = (0..bytes.len()).step_by(usize::try_from(block).unwrap_or(usize::MAX));
    let sums =
        starts.map(|start| sums::crc32c(&bytes.slice(start..start.saturating_add(block)).to_vec()));
    sums.eq(expected.iter().copied())
}

/// The bytes of a page as a response's body.
pub(crate) fn dressed(bytes: JsBytes, json: bool) -> JsBytes {
    if !json {
        return bytes;
    }
    let bracket = |text: &str| JsBytes::from_vec(text.as_bytes().to_vec());
    let messages = bytes.slice(0..bytes.len().saturating_sub(2));
    JsBytes::concat(&[bracket("["), messages, bracket("]")])
}
