//! A page of the log on its way to a client, data frame by data frame.

use std::collections::VecDeque;
use std::ops::Range;

use engine::log::Blob;
use protocol::limits::WS_SLICE_BYTES;
use protocol::live::FrameHead;
use protocol::offset::Offset;
use protocol::ws::{server, slices, split_messages};

use super::client::Client;
use crate::object::JsBytes;

/// What is left of a page.
pub(super) struct Page {
    /// What the page is.
    pub(super) head: FrameHead,
    is_json: bool,
    bytes: JsBytes,
    /// Where `bytes` begin in the log.
    from: u64,
    pieces: VecDeque<Range<u64>>,
}

impl Page {
    /// A page without its first `repeated` bytes, which the client has.
    pub(super) fn new(head: FrameHead, bytes: &JsBytes, repeated: u64, is_json: bool) -> Self {
        let bytes = bytes.slice(repeated..bytes.len());
        let length = bytes.len();
        let wide = |range: Range<usize>| range.start as u64..range.end as u64;
        let slice = usize::try_from(WS_SLICE_BYTES).unwrap_or(usize::MAX);
        let pieces = match usize::try_from(length) {
            Ok(0) | Err(_) => VecDeque::new(),
            // One frame, whatever is in it: nothing has to be looked at.
            Ok(length) if length <= slice => std::iter::once(0..length as u64).collect(),
            Ok(_) if is_json => split_messages(&bytes.to_vec(), slice).map(wide).collect(),
            Ok(length) => slices(length, slice).map(wide).collect(),
        };
        let from = head.from.0.saturating_add(repeated);
        Self { head, is_json, bytes, from, pieces }
    }

    /// Whether every data frame was sent.
    pub(super) fn is_sent(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether the next data frame is the last.
    pub(super) fn is_last(&self) -> bool {
        self.pieces.len() == 1
    }

    /// Sends the next data frame, then `control` unless it is empty; the length of its payload.
    pub(super) fn send_next(&mut self, client: &Client, control: &str) -> u64 {
        let Some(piece) = self.pieces.pop_front() else { return 0 };
        let length = piece.end.saturating_sub(piece.start);
        if self.is_json {
            let mut next = self.head.next_offset();
            // All offsets of a page have the generation of its end.
            next.position.0 = self.from.saturating_add(piece.end);
            let messages = self.bytes.slice(piece.start..piece.end.saturating_sub(2));
            let tail = server::data_tail(&next.to_string());
            client.send_between((server::data_head(), &tail), &messages, control);
        } else {
            client.send_binary(&self.bytes.slice(piece), control);
        }
        length
    }

    /// The offset behind the page.
    pub(super) fn next(&self) -> Offset {
        self.head.next_offset()
    }
}
