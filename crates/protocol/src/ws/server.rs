//! What the service sends: text frames as JSON. Data of streams that are not JSON is sent as it
//! is, in binary frames.

use serde_json::Value;

use super::AppendId;
use crate::error::ApiError;
use crate::sse::control_members;

/// Says where the reader stands. Its members are those of an SSE control event.
#[must_use]
pub fn control(next: &str, cursor: Option<&str>, up_to_date: bool, closed: bool) -> String {
    format!(r#"{{"type":"control",{}}}"#, control_members(next, cursor, up_to_date, closed))
}

/// What a data frame of a JSON stream begins with. Wire bytes without their last two follow: the
/// comma and the line break behind the last message.
#[must_use]
pub const fn data_head() -> &'static str {
    r#"{"type":"data","payload":["#
}

/// What a data frame of a JSON stream ends with. `next` is the offset behind its messages.
#[must_use]
pub fn data_tail(next: &str) -> String {
    format!(r#"],"streamNextOffset":{}}}"#, Value::from(next))
}

/// Answers `count` appends, the last of which is `id`, as stored.
///
/// `next` is the offset behind them, `duplicate` says that the last was stored before, `closed`
/// that the stream is closed there, `producer` is the highest accepted epoch and sequence number.
#[must_use]
pub fn ack(
    id: &AppendId,
    count: u64,
    next: &str,
    duplicate: bool,
    closed: bool,
    producer: Option<(u64, u64)>,
) -> String {
    let mut frame = format!(r#"{{"ack":{{"id":{id}"#);
    if count != 1 {
        frame.push_str(&format!(r#","count":{count}"#));
    }
    frame.push_str(&format!(r#","streamNextOffset":{}"#, Value::from(next)));
    if duplicate {
        frame.push_str(r#","duplicate":true"#);
    }
    if closed {
        frame.push_str(r#","streamClosed":true"#);
    }
    if let Some((epoch, seq)) = producer {
        frame.push_str(&format!(r#","producer":{{"epoch":{epoch},"seq":{seq}}}"#));
    }
    frame.push_str("}}");
    frame
}

/// Answers the append `id` as refused.
#[must_use]
pub fn nack(id: &AppendId, error: &ApiError) -> String {
    format!(r#"{{"nack":{{"id":{id},"error":{}}}}}"#, error.object())
}

/// Says why the socket is about to be closed.
#[must_use]
pub fn error(error: &ApiError) -> String {
    error.body()
}
