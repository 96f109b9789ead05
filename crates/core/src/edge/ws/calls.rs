//! Appends of one client: from its frames to batches for the object, and the answers back, in the
//! order of the appends.
//!
//! Up to `unacked_max` appends are on their way; later ones wait as the texts that they came in. An
//! append that is refused here ends its batch, so that no answer of the object spans it.

use std::collections::VecDeque;

use protocol::content_type::ContentType;
use protocol::error::{ApiError, ErrorCode};
use protocol::limits::{Limits, WS_UNACKED_BYTES_MAX};
use protocol::live::calls::{Answer, Call, encode};
use protocol::ws::{AppendFrame, AppendId, server};

/// Batches that the object has and has not answered. While it stores one, the next one fills up.
const BATCHES_IN_FLIGHT_MAX: u64 = 1;

/// Bytes of a batch; a larger append is a batch of its own. The platform's sockets are only known to
/// take messages of a megabyte.
const BATCH_BYTES: usize = 256 << 10;

/// Appends of a batch from which on it waits for no more.
const BATCH_APPENDS: u64 = 256;

/// An append that the client waits for.
enum Unanswered {
    /// It is in a batch; the bytes are those of its message.
    Sent { id: AppendId, bytes: u64 },
    /// It was refused here; its answer waits for those before it.
    Refused { id: AppendId, error: ApiError },
}

/// The appends of one client.
pub(super) struct Calls {
    content_type: ContentType,
    /// Why clients may not append here, if they may not.
    refusal: Option<ApiError>,
    unacked_max: u64,
    body_bytes_max: u64,
    unanswered: VecDeque<Unanswered>,
    /// Batches to be sent before the one that still grows.
    sealed: VecDeque<Vec<u8>>,
    batch: Vec<u8>,
    /// Appends in `batch`.
    gathered: u64,
    in_flight: u64,
    /// Whether the client sends appends ahead of their answers.
    is_pipelined: bool,
    /// Appends that have to wait, as they came.
    held: VecDeque<String>,
    /// Bytes of everything above.
    bytes: u64,
    /// Appends that came so far.
    pub(super) count: u64,
}

impl Calls {
    /// None yet.
    pub(super) fn new(
        content_type: ContentType,
        refusal: Option<ApiError>,
        limits: &Limits,
    ) -> Self {
        Self {
            content_type,
            refusal,
            unacked_max: limits.ws_unacked_max,
            body_bytes_max: limits.body_bytes_max,
            unanswered: VecDeque::new(),
            sealed: VecDeque::new(),
            batch: Vec::new(),
            gathered: 0,
            in_flight: 0,
            is_pipelined: false,
            held: VecDeque::new(),
            bytes: 0,
            count: 0,
        }
    }

    /// Whether an append can be added now; otherwise it is to be held.
    pub(super) fn has_room(&self) -> bool {
        self.held.is_empty() && self.is_below_max()
    }

    fn is_below_max(&self) -> bool {
        (self.unanswered.len() as u64) < self.unacked_max
    }

    /// Whether appends are unanswered that the object may have.
    pub(super) fn has_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.held.is_empty()
    }

    /// Keeps the text of an append until there is room.
    ///
    /// # Errors
    /// `TOO_MANY_UNACKED` when that is more than may be kept.
    pub(super) fn hold(&mut self, text: String) -> Result<(), ApiError> {
        self.take_bytes(text.len() as u64)?;
        self.held.push_back(text);
        Ok(())
    }

    /// Whether an append that has waited has room now.
    pub(super) fn has_released(&self) -> bool {
        !self.held.is_empty() && self.is_below_max()
    }

    /// The text of an append that has waited, if there is room for it now.
    pub(super) fn release(&mut self) -> Option<String> {
        if !self.is_below_max() {
            return None;
        }
        let text = self.held.pop_front()?;
        self.bytes = self.bytes.saturating_sub(text.len() as u64);
        Some(text)
    }

    /// Puts an append into a batch. `bytes` is the length of its message.
    ///
    /// # Errors
    /// `TOO_MANY_UNACKED` when the unanswered appends are more than may be kept.
    pub(super) fn add(&mut self, frame: AppendFrame<'_>, bytes: u64) -> Result<(), ApiError> {
        self.count += 1;
        let AppendFrame { id, request } = frame;
        let allowed = self.refusal.clone().map_or(request, Err);
        let encoded = allowed.and_then(|request| {
            let body = request.body.into_bytes(&self.content_type)?;
            if body.len() as u64 > self.body_bytes_max {
                let message = format!("The body is larger than {} bytes.", self.body_bytes_max);
                return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
            }
            if self.batch.len().saturating_add(body.len()) > BATCH_BYTES {
                self.seal();
            }
            let (producer, seq, close) = (request.producer, request.seq, request.close);
            encode(&mut self.batch, &Call { body: &body, producer, seq, close });
            Ok(())
        });
        match encoded {
            Ok(()) => {
                self.take_bytes(bytes)?;
                self.gathered += 1;
                self.is_pipelined |= self.in_flight > 0;
                self.unanswered.push_back(Unanswered::Sent { id, bytes });
            }
            Err(error) => {
                self.seal();
                self.unanswered.push_back(Unanswered::Refused { id, error });
            }
        }
        Ok(())
    }

    /// The next batch for the object, if it should have one now.
    pub(super) fn next_batch(&mut self) -> Option<Vec<u8>> {
        if self.in_flight >= BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        if self.sealed.is_empty() {
            self.is_pipelined = self.gathered > 1;
            self.seal();
        }
        let batch = self.sealed.pop_front()?;
        self.in_flight += 1;
        Some(batch)
    }

    /// Whether the next batch should wait a moment: a client that sends ahead has more for it on the
    /// way, and a commit costs the same for one append and for many.
    pub(super) fn lingers(&self) -> bool {
        let is_due = self.in_flight < BATCHES_IN_FLIGHT_MAX && self.sealed.is_empty();
        is_due && self.is_pipelined && (1..BATCH_APPENDS).contains(&self.gathered)
    }

    fn seal(&mut self) {
        if !self.batch.is_empty() {
            self.sealed.push_back(std::mem::take(&mut self.batch));
            self.gathered = 0;
        }
    }

    /// Takes the object's answers to one batch; `tell` gets the frames for the client.
    pub(super) fn answered(&mut self, answers: &[Answer], tell: &mut impl FnMut(&str)) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for answer in answers {
            let Some(id) = self.pop_sent(answer.count()) else { continue };
            tell(&match answer {
                Answer::Stored { count, next, closed, producer } => {
                    server::ack(&id, *count, next, false, *closed, *producer)
                }
                Answer::Duplicate { next, closed, producer } => {
                    server::ack(&id, 1, next, true, *closed, *producer)
                }
                Answer::Refused(error) => server::nack(&id, error),
            });
            self.tell_refused(tell);
        }
    }

    /// Tells of appends that were refused here, as far as it is their turn.
    pub(super) fn tell_refused(&mut self, tell: &mut impl FnMut(&str)) {
        while let Some(Unanswered::Refused { .. }) = self.unanswered.front() {
            if let Some(Unanswered::Refused { id, error }) = self.unanswered.pop_front() {
                tell(&server::nack(&id, &error));
            }
        }
    }

    /// Takes the `count` oldest appends, all of them sent; the id of the last.
    fn pop_sent(&mut self, count: u64) -> Option<AppendId> {
        let mut last = None;
        for _ in 0..count {
            if let Some(Unanswered::Sent { id, bytes }) = self.unanswered.pop_front() {
                self.bytes = self.bytes.saturating_sub(bytes);
                last = Some(id);
            }
        }
        last
    }

    fn take_bytes(&mut self, bytes: u64) -> Result<(), ApiError> {
        let others = self.bytes;
        self.bytes = others.saturating_add(bytes);
        // A message that is allowed at all may come alone, however large.
        if self.bytes <= WS_UNACKED_BYTES_MAX || others == 0 {
            return Ok(());
        }
        let message =
            format!("More than {WS_UNACKED_BYTES_MAX} bytes of appends wait for their answers.");
        Err(ApiError::new(ErrorCode::TooManyUnacked, message))
    }
}
