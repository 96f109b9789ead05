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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::json::frame_messages;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn controls() {
        assert_eq!(
            control("n", Some("7"), false, false),
            r#"{"type":"control","streamNextOffset":"n","streamCursor":"7"}"#
        );
        assert_eq!(
            control("n", Some("7"), true, false),
            r#"{"type":"control","streamNextOffset":"n","streamCursor":"7","upToDate":true}"#
        );
        assert_eq!(
            control("n", Some("7"), true, true),
            r#"{"type":"control","streamNextOffset":"n","upToDate":true,"streamClosed":true}"#
        );
    }

    #[test]
    fn acks() {
        let id = AppendId::Text("a\"b".into());
        assert_eq!(
            ack(&id, 1, "n", false, false, None),
            r#"{"ack":{"id":"a\"b","streamNextOffset":"n"}}"#
        );
        assert_eq!(
            ack(&AppendId::Number(7), 3, "n", false, true, None),
            r#"{"ack":{"id":7,"count":3,"streamNextOffset":"n","streamClosed":true}}"#
        );
        assert_eq!(
            ack(&AppendId::Number(0), 1, "n", true, false, Some((2, 5))),
            r#"{"ack":{"id":0,"streamNextOffset":"n","duplicate":true,"producer":{"epoch":2,"seq":5}}}"#
        );
    }

    #[test]
    fn errors() {
        let gap = ApiError::new(ErrorCode::ProducerGap, "gap").with("expectedSeq", 3);
        assert_eq!(
            nack(&AppendId::Number(1), &gap),
            r#"{"nack":{"id":1,"error":{"code":"PRODUCER_GAP","message":"gap","details":{"expectedSeq":3}}}}"#
        );
        assert_eq!(
            error(&ApiError::new(ErrorCode::InvalidFrame, "bad")),
            r#"{"error":{"code":"INVALID_FRAME","message":"bad"}}"#
        );
    }

    proptest! {
        #[test]
        fn data_frames_hold_the_messages(texts in prop::collection::vec(".*", 1..8), next: String) {
            let body = json!(texts).to_string();
            let wire = String::from_utf8(frame_messages(body.as_bytes()).unwrap().wire).unwrap();
            let messages = wire.strip_suffix(",\n").unwrap();
            let frame = format!("{}{messages}{}", data_head(), data_tail(&next));
            let expected = json!({"type": "data", "payload": texts, "streamNextOffset": next});
            prop_assert_eq!(serde_json::from_str::<Value>(&frame).unwrap(), expected);
        }

        #[test]
        fn frames_are_json_whatever_the_text(id: String, next: String, message: String) {
            let id = AppendId::Text(id.into());
            let error_of = ApiError::new(ErrorCode::Internal, message.clone()).with("next", next.clone());
            for frame in [
                control(&next, Some(&message), true, false),
                ack(&id, 2, &next, true, true, Some((0, 0))),
                nack(&id, &error_of),
                error(&error_of),
            ] {
                prop_assert!(serde_json::from_str::<Value>(&frame).is_ok(), "{}", frame);
            }
        }
    }
}
