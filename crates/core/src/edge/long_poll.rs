//! Long-poll (PROTOCOL §5.7): one answer, as soon as there is something to tell.
//!
//! Data that is there already, and the end of a closed stream, the object answers at once. A wait
//! is a socket to the object and a timer here, so the object sleeps meanwhile.

use std::time::Duration;

use futures::future::{Either, select};
use protocol::content_type::ContentType;
use protocol::cursor::next_cursor;
use protocol::etag::Etag;
use protocol::headers::name;
use protocol::live::FrameHead;
use protocol::offset::Offset;
use worker::Delay;

use super::socket::{Arrival, Attached, Socket, attach};
use super::{Target, cold};
use crate::cold::dressed;
use crate::config::Config;
use crate::js;
use crate::object::JsBytes;
use crate::request::{ReadQuery, split_url};
use crate::respond::{Body, Failure, Reply};
use engine::log::Blob;
use protocol::error::ErrorCode;

/// How often a wait is taken up again after its connection broke.
const RECONNECTS_MAX: u32 = 2;

/// Serves one long-poll.
pub(crate) async fn serve(
    mut target: Target,
    query: &ReadQuery,
) -> Result<web_sys::Response, Failure> {
    let timeout_ms = Config::of(&target.env)?.limits.long_poll_timeout_ms;
    let deadline = js::now().saturating_add_ms(timeout_ms);
    for _ in 0..=RECONNECTS_MAX {
        let mut socket = match attach(&target, true).await? {
            Attached::Answer(response) => return cold::complete(response, &target.env).await,
            Attached::Reader(socket) => socket,
        };
        let left = Duration::from_millis(deadline.saturating_since_ms(js::now()));
        let arrival = {
            let next = Box::pin(socket.next());
            match select(next, Delay::from(left)).await {
                Either::Left((arrival, _)) => Some(arrival),
                Either::Right(_) => None,
            }
        };
        let waits_at = socket.tail.map(|tail| tail.position);
        let arrival = arrival.map(|arrival| match arrival {
            // Bytes are missing before the frame: as good as a broken connection.
            Arrival::Frame(head, _) if Some(head.from) != waits_at => Arrival::Ended,
            arrival => arrival,
        });
        let reply = match arrival {
            None => timed_out(&socket, query),
            Some(Arrival::Frame(head, bytes)) => answer(head, bytes, &socket.content_type, query),
            // Whether it is gone, held for its forks or another one by now, the object says.
            Some(Arrival::Gone | Arrival::Ended) => {
                target.url = from_tail(&target.url, &socket, query);
                continue;
            }
        };
        return reply
            .header_if(socket.is_public, name::STREAM_PUBLIC, "true")
            .into_response()
            .map_err(|error| crate::respond::internal("answering", &error));
    }
    let message = "The stream's connection broke while waiting; ask again.";
    Err(Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1"))
}

/// The same wait, taken up where the reader stands: `now` would be another place by now.
fn from_tail(url: &str, socket: &Socket, query: &ReadQuery) -> String {
    let (origin, path, _) = split_url(url);
    let is_number = |text: &&String| text.bytes().all(|byte| byte.is_ascii_digit());
    let cursor = query.cursor.as_ref().filter(is_number);
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    match socket.tail {
        Some(tail) => format!("{origin}{path}?offset={tail}&live=long-poll{cursor}"),
        None => url.to_owned(),
    }
}

fn timed_out(socket: &Socket, query: &ReadQuery) -> Reply {
    let next = socket.tail.unwrap_or(Offset::ZERO);
    no_content(next, &socket.content_type).header(name::STREAM_CURSOR, cursor(query))
}

fn no_content(next: Offset, content_type: &ContentType) -> Reply {
    Reply::new(204)
        .header(name::CONTENT_TYPE, content_type.as_str().to_owned())
        .header(name::STREAM_NEXT_OFFSET, next.to_string())
        .header(name::STREAM_UP_TO_DATE, "true")
        .header(name::CACHE_CONTROL, "no-store")
}

fn answer(head: FrameHead, bytes: JsBytes, content_type: &ContentType, query: &ReadQuery) -> Reply {
    if bytes.is_empty() {
        // Only the close of the stream is news without bytes.
        return no_content(head.next_offset(), content_type).header(name::STREAM_CLOSED, "true");
    }
    // A wait begins at the tail, so everything in the frame was written by this very life.
    let FrameHead { from, to, generation, closed, up_to_date, .. } = head;
    let etag = Etag { generation, from, to, closed, up_to_date };
    let reply = Reply::new(200)
        .header(name::CONTENT_TYPE, content_type.as_str().to_owned())
        .header(name::STREAM_NEXT_OFFSET, head.next_offset().to_string())
        .header(name::ETAG, etag.to_string())
        .header(name::CACHE_CONTROL, "no-store")
        .header_if(up_to_date, name::STREAM_UP_TO_DATE, "true")
        .header_if(closed, name::STREAM_CLOSED, "true");
    let reply = if closed { reply } else { reply.header(name::STREAM_CURSOR, cursor(query)) };
    reply.body(Body::Bytes(dressed(bytes, content_type.is_json())))
}

fn cursor(query: &ReadQuery) -> String {
    next_cursor(js::now(), query.cursor.as_deref(), js::random())
}
