//! Long-poll (PROTOCOL §5.7): one answer, as soon as there is something to tell.
//!
//! Data that is there already, and the end of a closed stream, the object answers at once. A wait
//! is a socket to the object and a timer here, so the object sleeps meanwhile. Readers at one offset
//! share a wait: see [`super::shared`].

use std::time::Duration;

use engine::flights::stays_true;
use engine::log::Blob;
use futures::future::{Either, select};
use protocol::content_type::ContentType;
use protocol::cursor::next_cursor;
use protocol::error::ErrorCode;
use protocol::etag::Etag;
use protocol::headers::name;
use protocol::live::FrameHead;
use protocol::offset::{Offset, OffsetParam};
use protocol::time::UnixMillis;
use worker::Delay;

use super::shared::Trip;
use super::socket::{Arrival, Attached, Socket, attach};
use super::{Target, cold};
use crate::cold::dressed;
use crate::js;
use crate::object::{JsBytes, STREAM_LASTS};
use crate::request::split_url;
use crate::respond::{Body, CONTENT_POLICY, Failure, Reply, internal};

/// How often a wait is taken up again after its connection broke.
const RECONNECTS_MAX: u32 = 2;

/// One trip: what the object says at once to a reader at `asked`, the offset of the target's URL, or
/// what it says before `until`. `on_wait` is given the answer of a wait in vain as soon as the wait
/// begins.
pub(super) async fn trip(
    target: &Target,
    asked: OffsetParam,
    until: UnixMillis,
    on_wait: impl Fn(&web_sys::Response),
) -> Result<Trip, Failure> {
    let mut target = target.clone();
    for _ in 0..=RECONNECTS_MAX {
        let mut socket = match attach(&target, true).await? {
            Attached::Answer(response) => {
                return Ok(Trip::Answer(cold::complete(response, &target.env).await?));
            }
            Attached::Reader(socket) => socket,
        };
        let in_vain = response(timed_out(&socket), &socket)?;
        on_wait(&in_vain);
        let left = Duration::from_millis(until.saturating_since_ms(js::now()));
        let arrival = {
            let next = Box::pin(socket.next());
            match select(next, Delay::from(left)).await {
                Either::Left((arrival, _)) => arrival,
                Either::Right(_) => return Ok(Trip::TimedOut(in_vain)),
            }
        };
        match arrival {
            // Bytes are missing before the frame: as good as a broken connection.
            Arrival::Frame(head, _) if Some(head.from) != socket.tail.map(|tail| tail.position) => {
            }
            Arrival::Frame(head, bytes) => {
                return Ok(Trip::Answer(response(answer(asked, head, bytes, &socket), &socket)?));
            }
            // Whether it is gone, held for its forks or another one by now, the object says.
            Arrival::Gone | Arrival::Ended => {}
        }
        target.url = from_tail(&target.url, &socket);
    }
    let message = "The stream's connection broke while waiting; ask again.";
    Err(Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1"))
}

fn response(reply: Reply, socket: &Socket) -> Result<web_sys::Response, Failure> {
    let reply = reply.header_if(socket.is_public, name::STREAM_PUBLIC, "true");
    reply.into_response().map_err(|error| internal("answering", &error))
}

/// The same wait, taken up where the reader stands: `now` would be another place by now.
fn from_tail(url: &str, socket: &Socket) -> String {
    let (origin, path, _) = split_url(url);
    match socket.tail {
        Some(tail) => format!("{origin}{path}?offset={tail}&live=long-poll"),
        None => url.to_owned(),
    }
}

fn timed_out(socket: &Socket) -> Reply {
    let next = socket.tail.unwrap_or(Offset::ZERO);
    no_content(next, &socket.content_type).header(name::STREAM_CURSOR, cursor())
}

fn no_content(next: Offset, content_type: &ContentType) -> Reply {
    Reply::new(204)
        .header(name::CONTENT_TYPE, content_type.as_str().to_owned())
        .header(name::STREAM_NEXT_OFFSET, next.to_string())
        .header(name::STREAM_UP_TO_DATE, "true")
        .header(name::CACHE_CONTROL, "no-store")
}

fn answer(asked: OffsetParam, head: FrameHead, bytes: JsBytes, socket: &Socket) -> Reply {
    let content_type = &socket.content_type;
    if bytes.is_empty() {
        // Only the close of the stream is news without bytes.
        return no_content(head.next_offset(), content_type).header(name::STREAM_CLOSED, "true");
    }
    // A wait begins at the tail, so everything in the frame was written by this very life.
    let FrameHead { from, to, generation, closed, up_to_date, .. } = head;
    let etag = Etag { generation, from, to, closed, up_to_date };
    // The tail at which it waited may be inherited all the same.
    let stays = |tail| stays_true(asked, tail, head.next_offset(), generation);
    let lasts = socket.lasts && socket.tail.is_some_and(stays);
    let reply = Reply::new(200)
        .header(name::CONTENT_TYPE, content_type.as_str().to_owned())
        .header(name::STREAM_NEXT_OFFSET, head.next_offset().to_string())
        .header(name::ETAG, etag.to_string())
        .header(name::CACHE_CONTROL, "no-store")
        .header(name::CONTENT_SECURITY_POLICY, CONTENT_POLICY)
        .header_if(up_to_date, name::STREAM_UP_TO_DATE, "true")
        .header_if(closed, name::STREAM_CLOSED, "true")
        .header_if(lasts, STREAM_LASTS, "true");
    let reply = if closed { reply } else { reply.header(name::STREAM_CURSOR, cursor()) };
    reply.body(Body::Bytes(dressed(bytes, content_type.is_json())))
}

/// Says that there is one; each reader's own is put in its place.
fn cursor() -> String {
    next_cursor(js::now(), None, 0)
}
