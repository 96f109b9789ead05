//! Appends of WebSocket clients: batches of calls on the internal socket, into the group commit.
//!
//! A call is for the life that the client reads. If that has ended when the call's turn comes, it
//! is refused, whatever is at the path by then.

use std::cell::RefCell;
use std::rc::Rc;

use engine::append::{Append, Appended};
use engine::log::Blob;
use protocol::error::ApiError;
use protocol::live::CLOSE_RECYCLED;
use protocol::live::calls::{self, Answer, Answers, Call};
use protocol::offset::Generation;
use wasm_bindgen::JsValue;
use worker::WebSocket;

use super::appends::{Room, Ticket, Waiting, nothing_stored};
use super::{Inner, JsBytes};
use crate::respond::internal;

/// A batch whose answers are being collected. When its last ticket is gone, they are sent.
struct Batch {
    socket: WebSocket,
    life: Generation,
    answers: RefCell<Answers>,
    /// The room that the bodies take until they are answered.
    _room: Option<Room>,
}

impl Batch {
    fn push(&self, answer: Answer) {
        if let Ok(mut answers) = self.answers.try_borrow_mut() {
            answers.push(answer);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let message = self.answers.get_mut().encode();
        // A client that has left learns nothing any more.
        let _ = self.socket.send_with_bytes(message);
    }
}

/// The right to answer one call. The answers of a batch are in the order of its calls, because the
/// group commit answers in that order.
pub(crate) struct CallTicket {
    batch: Rc<Batch>,
    is_answered: bool,
}

impl CallTicket {
    /// The life that the call is for.
    pub(crate) fn life(&self) -> Generation {
        self.batch.life
    }

    /// Answers a call that was stored, or stored before.
    pub(crate) fn appended(mut self, appended: &Appended) {
        let (next, closed) = (appended.next.to_string(), appended.closed);
        let producer = appended.producer.map(|(epoch, seq)| (epoch.0, seq.0));
        self.answer(match appended.duplicate {
            true => Answer::Duplicate { next, closed, producer },
            false => Answer::Stored { count: 1, next, closed, producer },
        });
    }

    /// Answers a call that was refused.
    pub(crate) fn refused(mut self, error: ApiError) {
        self.answer(Answer::Refused(error));
    }

    fn answer(&mut self, answer: Answer) {
        self.is_answered = true;
        self.batch.push(answer);
    }
}

impl Drop for CallTicket {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answer(Answer::Refused(nothing_stored()));
        }
    }
}

impl Inner {
    /// A batch of calls; `bytes` and `message` are the same.
    pub(crate) fn on_calls(
        self: &Rc<Self>,
        socket: WebSocket,
        reader: u64,
        bytes: &[u8],
        message: &JsBytes,
    ) {
        // The socket of a reader that was sent away is closing. Should it not be, its edge learns now
        // that nothing of this was stored.
        if !self.is_attached(reader) {
            let _ = socket.close(Some(CLOSE_RECYCLED), Some("connect again"));
            return;
        }
        let calls = match calls::decode(bytes) {
            Ok(calls) => calls,
            Err(error) => {
                internal("reading appends", &JsValue::from_str(&error.to_string()));
                let _ = socket.close(Some(1011), Some("unreadable appends"));
                return;
            }
        };
        let stream =
            self.with_stream(|stream| stream.generation().zip(stream.content_type().cloned()));
        let Ok(Some((life, content_type))) = stream else { return };
        let room = Room::take(self, message.len());
        let refusal = room.as_ref().err().map(|failure| failure.error.clone());
        let answers = RefCell::default();
        let batch = Rc::new(Batch { socket, life, answers, _room: room.ok() });
        let ticket = || CallTicket { batch: Rc::clone(&batch), is_answered: false };
        if let Some(error) = refusal {
            calls.iter().for_each(|_| ticket().refused(error.clone()));
            return;
        }
        let start = bytes.as_ptr() as u64;
        let call = |call: Call<'_>| {
            let at = call.body.as_ptr() as u64 - start;
            let append = Append {
                content_type: Some(content_type.clone()),
                body: message.slice(at..at + call.body.len() as u64),
                producer: call.producer,
                seq: call.seq,
                close: call.close,
                delivery: None,
            };
            Waiting { append, ticket: Ticket::Call(ticket()) }
        };
        let waiting: Vec<_> = calls.into_iter().map(call).collect();
        // From here on the tickets alone keep the batch: its answers are sent with the last of them.
        drop(batch);
        self.enqueue(waiting);
    }
}
