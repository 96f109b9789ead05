//! A frame whose bytes lie in the object store: fetched piece by piece, so that a connection never
//! holds more than a piece of it.
//!
//! A cold page ends where an append does, and an append may be larger than a page. Its pieces end
//! at messages in JSON streams and between characters in text; each is a frame of its own.

use std::task::{Context, Poll};

use engine::cold::Locator;
use engine::log::Blob;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use protocol::content_type::ContentType;
use protocol::limits::READ_CHUNK_BYTES;
use protocol::live::FrameHead;
use protocol::sse::utf8_cut;
use worker::Env;

use crate::cold::{self, ColdError};
use crate::object::JsBytes;

/// Longest encoding of a character.
const UTF8_BYTES_MAX: u64 = 4;

/// Bytes that are looked at in one go for the end of a message.
const WINDOW_BYTES: u64 = 64 << 10;

/// What is left of a cold frame.
pub(crate) struct ColdFrame {
    head: FrameHead,
    locator: Locator,
    content_type: ContentType,
    env: Env,
    /// Bytes of the piece that is being fetched.
    wanted: u64,
    fetch: LocalBoxFuture<'static, Result<JsBytes, ColdError>>,
}

/// A piece, and what is left behind it.
pub(crate) type Piece = (FrameHead, JsBytes, Option<ColdFrame>);

impl ColdFrame {
    /// Begins to fetch the first piece.
    pub(crate) fn new(
        head: FrameHead,
        locator: Locator,
        content_type: ContentType,
        env: Env,
    ) -> Self {
        Self::of(head, locator, content_type, env, READ_CHUNK_BYTES)
    }

    fn of(
        head: FrameHead,
        locator: Locator,
        content_type: ContentType,
        env: Env,
        wanted: u64,
    ) -> Self {
        let (part, fetch_env) = (locator.part(0..wanted), env.clone());
        let fetch = async move { cold::fetch(&part, &fetch_env).await }.boxed_local();
        Self { head, locator, content_type, env, wanted, fetch }
    }

    /// The next piece. After it, what is left is to be asked.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, ColdError>> {
        loop {
            let bytes = match self.fetch.poll_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(bytes)) => bytes,
            };
            let length = self.locator.range.end.saturating_sub(self.locator.range.start);
            if bytes.len() >= length {
                return Poll::Ready(Ok((self.head, bytes, None)));
            }
            let cut = self.cut(&bytes);
            if cut > 0 {
                return Poll::Ready(Ok(self.split(&bytes, cut, length)));
            }
            // One message that is larger than the piece.
            let wanted = self.wanted.saturating_mul(2);
            let (head, locator) = (self.head, self.locator.clone());
            *self = Self::of(head, locator, self.content_type.clone(), self.env.clone(), wanted);
        }
    }

    fn split(&self, bytes: &JsBytes, cut: u64, length: u64) -> Piece {
        let middle = self.head.from.saturating_add_bytes(cut);
        let head = FrameHead { to: middle, up_to_date: false, closed: false, ..self.head };
        let rest = FrameHead { from: middle, ..self.head };
        let locator = self.locator.part(cut..length);
        let rest = Self::new(rest, locator, self.content_type.clone(), self.env.clone());
        (head, bytes.slice(0..cut), Some(rest))
    }

    /// Where a piece can end; 0 if nowhere.
    fn cut(&self, bytes: &JsBytes) -> u64 {
        if self.content_type.is_json() {
            return last_message_end(bytes);
        }
        if !self.content_type.is_text() {
            return bytes.len();
        }
        let start = bytes.len().saturating_sub(UTF8_BYTES_MAX);
        let last = bytes.slice(start..bytes.len()).to_vec();
        start.saturating_add(utf8_cut(&last) as u64)
    }
}

fn last_message_end(bytes: &JsBytes) -> u64 {
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(WINDOW_BYTES);
        let window = bytes.slice(start..end).to_vec();
        if let Some(at) = window.iter().rposition(|byte| *byte == b'\n') {
            return start.saturating_add(at as u64 + 1);
        }
        end = start;
    }
    0
}
