//! What a session's stream is asked: its life, its links to sources, and the ranges that are delivered to
//! it. Ranges join the group commit like any append.

use std::rc::Rc;

use engine::append::{Append, AppendError};
use engine::log::Blob;
use futures::channel::oneshot;
use protocol::error::ErrorCode;
use protocol::fanout::{
    AttachLink, CheckSession, CreateSession, Deliver, Delivered, DetachLink, EndSession, Message,
};
use protocol::limits::{BODY_BYTES_CEILING, ROW_BYTES_MAX};
use protocol::percent::decode_value;

use super::appends::{Room, Ticket, Waiting};
use super::{Answer, Call, Inner};
use crate::body::{self, Bounds};
use crate::call::{message_of, to_json};
use crate::js;
use crate::respond::{Body, Failure, Reply};

/// Name of the operation that delivers a range: the message is the query, the bytes are the body.
pub const DELIVER: &str = "deliver";

/// Most bytes of a range: a page, or one message of the largest body that an operator may allow.
const RANGE_BOUNDS: Bounds =
    Bounds { bytes_max: BODY_BYTES_CEILING + ROW_BYTES_MAX, timeout_ms: 10_000 };

/// The right to answer one delivery. Dropped unused, it says nothing, and the shard asks again.
pub(crate) struct DeliveryTicket {
    answer: oneshot::Sender<Result<Delivered, Failure>>,
    /// The room that the bytes take until they are stored.
    _room: Room,
}

impl DeliveryTicket {
    /// The session has the range, now or since earlier.
    pub(crate) fn appended(self) {
        self.tell(Ok(Delivered::Done));
    }

    /// The engine has refused it.
    pub(crate) fn refused(self, error: AppendError) {
        let judged = match error {
            AppendError::LinkBehind { next } => Ok(Delivered::Behind { next }),
            AppendError::LinkGone => Ok(Delivered::Gone),
            AppendError::Missing(engine::Missing::NotFound | engine::Missing::Gone) => {
                Ok(Delivered::Gone)
            }
            error => Err(error.into()),
        };
        self.tell(judged);
    }

    /// It was not stored.
    pub(crate) fn failed(self, failure: Failure) {
        self.tell(Err(failure));
    }

    fn tell(self, answer: Result<Delivered, Failure>) {
        // Who no longer waits asks again.
        let _ = self.answer.send(answer);
    }
}

impl Inner {
    /// What a session's object and its sources ask. `None`: no such question.
    pub(crate) async fn answer_session(
        self: &Rc<Self>,
        operation: &str,
        query: &str,
        call: &Call,
    ) -> Result<Option<Answer>, Failure> {
        let answer = match operation {
            DELIVER => return self.take_range(query, call).await.map(Some),
            CreateSession::OPERATION => {
                let question: CreateSession = message_of(call).await?;
                let made =
                    self.with_stream(|stream| stream.create_session(&question, js::now()))?;
                to_json(&made?)
            }
            EndSession::OPERATION => {
                let EndSession { generation } = message_of(call).await?;
                self.with_stream(|stream| stream.end_session(generation, js::now()))??;
                to_json(&())
            }
            CheckSession::OPERATION => {
                let question: CheckSession = message_of(call).await?;
                let state =
                    self.with_stream(|stream| stream.check_session(&question, js::now()))?;
                to_json(&state?)
            }
            AttachLink::OPERATION => {
                let question: AttachLink = message_of(call).await?;
                let link = self.with_stream(|stream| stream.attach_link(&question, js::now()))?;
                to_json(&link?)
            }
            DetachLink::OPERATION => {
                let question: DetachLink = message_of(call).await?;
                self.with_stream(|stream| stream.detach_link(&question, js::now()))??;
                to_json(&())
            }
            _ => return Ok(None),
        };
        Ok(Some(Reply::new(200).body(Body::Text(answer)).into()))
    }

    /// A range for the session: 204 when it has it, otherwise 200 with what it says.
    async fn take_range(self: &Rc<Self>, query: &str, call: &Call) -> Result<Answer, Failure> {
        let message = decode_value(query).and_then(|json| serde_json::from_str(&json).ok());
        let Some(message): Option<Deliver> = message else {
            return Err(Failure::new(ErrorCode::InvalidQuery, "A delivery does not parse."));
        };
        let bytes = body::read(&call.request, RANGE_BOUNDS).await?;
        let room = Room::take(self, bytes.len())?;
        let (answer, answered) = oneshot::channel();
        let append = Append {
            content_type: None,
            body: bytes,
            producer: None,
            seq: None,
            close: false,
            delivery: Some(Box::new(message)),
        };
        let ticket = Ticket::Delivery(DeliveryTicket { answer, _room: room });
        self.enqueue([Waiting { append, ticket }]);
        match answered.await {
            Ok(Ok(Delivered::Done)) => Ok(Reply::new(204).into()),
            Ok(Ok(other)) => Ok(Reply::new(200).body(Body::Text(to_json(&other))).into()),
            Ok(Err(failure)) => Err(failure),
            Err(oneshot::Canceled) => {
                Err(Failure::new(ErrorCode::StorageFailed, "The delivery was not stored."))
            }
        }
    }
}
