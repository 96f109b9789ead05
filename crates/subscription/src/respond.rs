//! What objects refuse, as HTTP.

use durable_streams_core::respond::Failure;
use protocol::error::{ApiError, ErrorCode};
use protocol::fanout::{SessionRefusal, SourceRefusal};
use protocol::headers::name;

/// The answer to a request that a session's object has refused.
pub fn refused(refusal: SessionRefusal) -> Failure {
    match refusal {
        SessionRefusal::NotFound => {
            Failure::new(ErrorCode::SessionNotFound, "There is no such session.")
        }
        SessionRefusal::Exists { differs } => {
            let message = format!("A session with another {differs} exists.");
            ApiError::new(ErrorCode::SessionExists, message).with("differs", differs).into()
        }
        SessionRefusal::Source(refusal) => source_refused(&refusal),
        SessionRefusal::ContentType { session, source } => ApiError::new(
            ErrorCode::ContentTypeMismatch,
            "The session's content type is not the stream's.",
        )
        .with("session", session)
        .with("source", source)
        .into(),
        SessionRefusal::TooManySubscriptions { max } => ApiError::new(
            ErrorCode::TooManySubscriptions,
            "The session has as many subscriptions as it may.",
        )
        .with("max", max)
        .into(),
        SessionRefusal::SourceFull => {
            let message = "The stream has as many subscribers as it may.";
            Failure::new(ErrorCode::TooManySubscribers, message)
        }
        SessionRefusal::Unavailable => {
            let message = "A part of the service did not answer; ask again.";
            Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1")
        }
    }
}

fn source_refused(refusal: &SourceRefusal) -> Failure {
    let (code, message) = match refusal {
        SourceRefusal::NotFound => {
            (ErrorCode::StreamNotFound, "There is no stream to subscribe to.")
        }
        SourceRefusal::Gone => (
            ErrorCode::StreamGone,
            "The stream to subscribe to was deleted and is held only for its forks.",
        ),
        SourceRefusal::StaleOffset => {
            (ErrorCode::StaleOffset, "The offset belongs to an earlier life of this path.")
        }
        SourceRefusal::InvalidOffset => {
            (ErrorCode::InvalidOffset, "The offset is not one that this stream has handed out.")
        }
        SourceRefusal::OffsetBeyondTail => {
            (ErrorCode::OffsetBeyondTail, "The offset lies past the end of the stream.")
        }
    };
    Failure::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_codes_and_details() {
        let source = SessionRefusal::Source;
        let text = |text: &str| text.to_owned();
        for (refusal, status, body) in [
            (
                SessionRefusal::NotFound,
                404,
                r#"{"error":{"code":"SESSION_NOT_FOUND","message":"There is no such session."}}"#,
            ),
            (
                SessionRefusal::Exists { differs: text("lifetime") },
                409,
                r#"{"error":{"code":"SESSION_EXISTS","message":"A session with another lifetime exists.","details":{"differs":"lifetime"}}}"#,
            ),
            (
                SessionRefusal::ContentType { session: text("a/b"), source: text("c/d") },
                409,
                r#"{"error":{"code":"CONTENT_TYPE_MISMATCH","message":"The session's content type is not the stream's.","details":{"session":"a/b","source":"c/d"}}}"#,
            ),
            (
                SessionRefusal::TooManySubscriptions { max: 1000 },
                409,
                r#"{"error":{"code":"TOO_MANY_SUBSCRIPTIONS","message":"The session has as many subscriptions as it may.","details":{"max":1000}}}"#,
            ),
            (
                SessionRefusal::SourceFull,
                409,
                r#"{"error":{"code":"TOO_MANY_SUBSCRIBERS","message":"The stream has as many subscribers as it may."}}"#,
            ),
            (
                source(SourceRefusal::NotFound),
                404,
                r#"{"error":{"code":"STREAM_NOT_FOUND","message":"There is no stream to subscribe to."}}"#,
            ),
        ] {
            let failure = refused(refusal);
            assert_eq!(
                (failure.error.code.status(), failure.error.body().as_str()),
                (status, body)
            );
        }
        for (refusal, code) in [
            (source(SourceRefusal::Gone), ErrorCode::StreamGone),
            (source(SourceRefusal::StaleOffset), ErrorCode::StaleOffset),
            (source(SourceRefusal::InvalidOffset), ErrorCode::InvalidOffset),
            (source(SourceRefusal::OffsetBeyondTail), ErrorCode::OffsetBeyondTail),
            (SessionRefusal::Unavailable, ErrorCode::Unavailable),
        ] {
            assert_eq!(refused(refusal).error.code, code);
        }
    }
}
