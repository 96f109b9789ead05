//! SSE (PROTOCOL §5.8): frames of the internal socket as events, until the connection is
//! recycled.
//!
//! The response is pulled: the next frame is encoded when the client has taken the one before,
//! and only then does the object get credit for more. A comment every few seconds comes from a
//! timer here, so that a departed client is noticed while the object sleeps. When the internal
//! socket breaks, the reader connects again at its position; frames that repeat are trimmed.

use std::time::Duration;

use engine::follow::{Arrived, Follower};
use engine::log::Blob;
use futures::future::{Either, select};
use futures::stream;
use protocol::content_type::{ContentType, SseEncoding};
use protocol::cursor::next_cursor;
use protocol::headers::name;
use protocol::limits::SSE_COMMENT_INTERVAL_MS;
use protocol::live::FrameHead;
use protocol::offset::{Offset, Position};
use protocol::sse;
use protocol::time::UnixMillis;
use worker::{Delay, Env, Response};

use super::socket::{Arrival, Attached, Socket, attach};
use crate::config::Config;
use crate::js;
use crate::request::{ReadQuery, split_url};
use crate::respond::{Failure, headers_of, internal};

/// Reconnections in a row without a frame in between, before the client is asked to come again.
const RECONNECTS_MAX: u32 = 3;

/// One SSE connection.
struct Reader {
    socket: Box<Socket>,
    content_type: ContentType,
    /// Where to connect again: URL without query, object, and the client's cursor.
    url: String,
    object: String,
    cursor: Option<String>,
    env: Env,
    /// Where the client stands.
    follower: Follower,
    /// Whether the last control event said that it was up to date.
    up_to_date: bool,
    /// Bytes of a character that the last frame cut off; they precede the next one.
    cut: Vec<u8>,
    until: UnixMillis,
    reconnects: u32,
    ended: bool,
}

/// Serves one SSE connection.
pub(crate) async fn serve(
    url: &str,
    query: &ReadQuery,
    object: &str,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let lifetime_ms = Config::from_env(env)?.limits.sse_lifetime_ms;
    let socket = match attach(url, true, object, env).await? {
        Attached::Answer(response) => return Ok(response),
        Attached::Reader(socket) => socket,
    };
    let (origin, path, _) = split_url(url);
    let content_type = socket.content_type.clone();
    let base64 = content_type.sse_encoding() == SseEncoding::Base64;
    let reader = Reader {
        socket,
        content_type,
        url: format!("{origin}{path}"),
        object: object.to_owned(),
        cursor: query.cursor.clone(),
        env: env.clone(),
        follower: Follower::default(),
        up_to_date: false,
        cut: Vec::new(),
        until: js::now().saturating_add_ms(lifetime_ms),
        reconnects: 0,
        ended: false,
    };
    respond(reader, base64).map_err(|error| internal("opening an event stream", &error))
}

fn respond(reader: Reader, base64: bool) -> Result<web_sys::Response, wasm_bindgen::JsValue> {
    let chunks = stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next_chunk().await?;
        Some((Ok::<Vec<u8>, worker::Error>(chunk), reader))
    });
    let mut headers = vec![
        (name::CONTENT_TYPE, "text/event-stream".into()),
        (name::CACHE_CONTROL, "no-cache".into()),
    ];
    if base64 {
        headers.push((name::STREAM_SSE_DATA_ENCODING, "base64".into()));
    }
    let response = Response::from_stream(chunks)?;
    Ok(response.with_headers(headers_of(&headers)?).into())
}

impl Reader {
    /// The next bytes of the response; `None` ends it.
    async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        if let Some(next) = self.follower.next() {
            // The client has taken what was sent.
            self.socket.grant(next.position);
        }
        loop {
            if self.ended {
                return None;
            }
            let left_ms = self.until.saturating_since_ms(js::now());
            if left_ms == 0 {
                self.socket.close();
                return self.farewell();
            }
            let pause = Duration::from_millis(left_ms.min(SSE_COMMENT_INTERVAL_MS));
            let arrival = {
                let next = Box::pin(self.socket.next());
                match select(next, Delay::from(pause)).await {
                    Either::Left((arrival, _)) => Some(arrival),
                    Either::Right(_) => None,
                }
            };
            match arrival {
                None => {
                    let mut comment = Vec::new();
                    sse::comment(&mut comment);
                    return Some(comment);
                }
                Some(Arrival::Frame(head, payload)) => match self.events(head, &payload.to_vec()) {
                    Some(chunk) => return Some(chunk),
                    None => self.reconnect().await?,
                },
                Some(Arrival::Gone) => return None,
                Some(Arrival::Ended) => self.reconnect().await?,
            }
        }
    }

    /// Encodes a frame; `None` when bytes are missing before it.
    fn events(&mut self, head: FrameHead, payload: &[u8]) -> Option<Vec<u8>> {
        let Arrived::Fresh { repeated } = self.follower.take(&head) else { return None };
        let fresh = payload.get(usize::try_from(repeated).ok()?..).unwrap_or_default();
        self.reconnects = 0;
        let mut chunk = Vec::with_capacity(fresh.len() + fresh.len() / 2 + 256);
        let bytes = [self.cut.as_slice(), fresh].concat();
        self.cut.clear();
        if !bytes.is_empty() {
            self.data_event(&mut chunk, &bytes, &head);
        }
        self.up_to_date = head.up_to_date;
        self.ended = head.closed;
        self.control_event(&mut chunk)?;
        Some(chunk)
    }

    /// Says where the client goes on: before the bytes of a character that were held back.
    fn control_event(&self, chunk: &mut Vec<u8>) -> Option<()> {
        let Offset { generation, position } = self.follower.next()?;
        let position = Position(position.0.saturating_sub(self.cut.len() as u64));
        let next = Offset { generation, position }.to_string();
        let cursor = next_cursor(js::now(), self.cursor.as_deref(), js::random());
        sse::control_event(chunk, &next, Some(&cursor), self.up_to_date, self.ended);
        Some(())
    }

    /// The last event of a response that is recycled: where to go on.
    fn farewell(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        self.control_event(&mut chunk)?;
        self.ended = true;
        Some(chunk)
    }

    fn data_event(&mut self, chunk: &mut Vec<u8>, bytes: &[u8], head: &FrameHead) {
        match self.content_type.sse_encoding() {
            SseEncoding::Json => sse::data_event_json(chunk, bytes),
            SseEncoding::Base64 => sse::data_event_base64(chunk, bytes),
            SseEncoding::Text => {
                // A character that two appends share is sent with the second one.
                let whole = if head.closed { bytes.len() } else { sse::utf8_cut(bytes) };
                let (whole, cut) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
                self.cut = cut.to_vec();
                sse::data_event_text(chunk, whole);
            }
        }
    }

    /// Connects again at the reader's position; `None` when the response has to end.
    async fn reconnect(&mut self) -> Option<()> {
        let next = self.follower.next()?;
        self.reconnects += 1;
        if self.reconnects > RECONNECTS_MAX {
            return None;
        }
        let url = format!("{}?offset={next}&live=sse", self.url);
        match attach(&url, true, &self.object, &self.env).await {
            Ok(Attached::Reader(socket)) => {
                self.socket = socket;
                Some(())
            }
            Ok(Attached::Answer(_)) | Err(_) => None,
        }
    }
}
