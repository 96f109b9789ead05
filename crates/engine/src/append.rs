//! Append and close (PROTOCOL §5.2, §5.3): a group of requests becomes one commit.
//!
//! Each request of a group is judged on its own, in arrival order, against the state that the
//! ones before it leave. Small bodies share extent rows; a body above `MERGE_BYTES_MAX` gets rows
//! of its own. If the commit fails, nothing of the group happened: memory is loaded again and its
//! members run one by one, so that one bad member does not take the others along.
//!
//! Precedence of refusals: missing stream, malformed body, stale epoch, duplicate (a success),
//! closed, content type, producer gap, `Stream-Seq`. A delivery to a session's stream joins the
//! group as well; what is asked of it is told in [`crate::links`].

use protocol::content_type::ContentType;
use protocol::fanout::Deliver;
use protocol::headers::StreamSeq;
use protocol::json::{JsonError, frame_messages};
use protocol::lifetime::Lifetime;
use protocol::limits::{CHECKPOINT_ROWS, GROUP_APPENDS_MAX, MERGE_BYTES_MAX, ROW_BYTES_MAX};
use protocol::offset::{Offset, Position};
use protocol::producer::{Epoch, Producer, Seq};
use protocol::time::UnixMillis;

use crate::extent::{Head, Reached};
use crate::life::Closed;
use crate::links::delivery;
use crate::log::{Blob, LinkState, Log, LogError, ProducerState, Write};
use crate::producers::{Verdict, judge};
use crate::stream::{Current, Missing, Stream};

/// Producers and links that may change between two checkpoints, and header bytes that a wake-up may have
/// to read: past either, a checkpoint is written before its time.
const DIRTY_MAX: usize = 4_096;
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// One request to append.
#[derive(Clone, Debug)]
pub struct Append<B> {
    /// Content type of the body, if the request named one.
    pub content_type: Option<ContentType>,
    /// The body as sent; may be empty only with `close`.
    pub body: B,
    /// Idempotent producer tuple.
    pub producer: Option<Producer>,
    /// Writer sequence number, scoped per stream.
    pub seq: Option<StreamSeq>,
    /// Whether to close the stream in the same step.
    pub close: bool,
    /// What the body is a range of, for a delivery to a session's stream. The body is the range's
    /// wire bytes then, and nothing else of the request counts.
    pub delivery: Option<Box<Deliver>>,
}

/// A successful append or close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The tail after it; for a duplicate, the tail now.
    pub next: Offset,
    /// Highest accepted tuple of the request's producer.
    pub producer: Option<(Epoch, Seq)>,
    /// Whether this very append was stored before.
    pub duplicate: bool,
    /// Whether the stream is closed now.
    pub closed: bool,
}

/// Why an append was refused. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// No stream to append to, or the log failed.
    Missing(Missing),
    /// No bytes and no close.
    EmptyBody,
    /// A JSON array without elements.
    EmptyArray,
    /// Not JSON, on a JSON stream.
    Json(JsonError),
    /// A body without a content type.
    ContentTypeMissing,
    /// A body of another content type than the stream's.
    ContentTypeMismatch {
        /// The stream's.
        expected: ContentType,
    },
    /// A newer epoch of the producer has been seen.
    StaleEpoch {
        /// That epoch.
        current: Epoch,
    },
    /// A new epoch that does not start at sequence number 0.
    EpochStart,
    /// Appends of the producer are missing in between.
    ProducerGap {
        /// The sequence number that would be accepted.
        expected: Seq,
        /// The one that came.
        received: Seq,
    },
    /// `Stream-Seq` is not above the last one.
    SeqConflict {
        /// The last one.
        last: StreamSeq,
    },
    /// The stream would hold more bytes than it may.
    Full {
        /// How many it may.
        bytes_max: u64,
    },
    /// The stream is closed.
    Closed {
        /// Its final tail.
        next: Offset,
    },
    /// The session takes nothing for this subscription: it is over or superseded, that life of the
    /// session is, or this is no session's stream.
    LinkGone,
    /// The session lacks what comes before the range.
    LinkBehind {
        /// The first position of the source that it lacks.
        next: Position,
    },
}

impl From<LogError> for AppendError {
    fn from(error: LogError) -> Self {
        Self::Missing(Missing::Log(error))
    }
}

/// What a group did to the log: the range that readers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Tail before the group.
    pub from: Position,
    /// Tail after it.
    pub to: Position,
    /// Whether the group closed the stream.
    pub closed: bool,
}

/// The answers to a group, in its order, and what changed, if anything did.
#[derive(Debug)]
pub struct GroupReply {
    /// One answer a request.
    pub replies: Vec<Result<Appended, AppendError>>,
    /// What live readers are to be told.
    pub growth: Option<Growth>,
}

impl<L: Log> Stream<L> {
    /// Appends a group of requests as one commit. See the module's documentation.
    pub fn append_group(&mut self, group: Vec<Append<L::Bytes>>, now: UnixMillis) -> GroupReply {
        let before = self.live(now).map(|current| (current.tail, current.closed.is_closed()));
        let (from, was_closed) = match before {
            Ok(before) => before,
            Err(missing) => {
                let refuse = |_| Err(AppendError::Missing(missing.clone()));
                return GroupReply {
                    replies: group.into_iter().map(refuse).collect(),
                    growth: None,
                };
            }
        };
        let replies = match self.try_group(&group, now) {
            Ok(replies) => replies,
            Err(error) if group.len() == 1 => vec![Err(error.into())],
            Err(_) => group.into_iter().map(|append| self.append_one(append, now)).collect(),
        };
        // From the answers, not from memory: that is stale when the last member failed.
        let stored = || replies.iter().flatten();
        let to = stored().map(|appended| appended.next.position).max().unwrap_or(from);
        let closed = !was_closed && stored().any(|appended| appended.closed);
        let growth = (to > from || closed).then_some(Growth { from, to, closed });
        GroupReply { replies, growth }
    }

    fn append_one(
        &mut self,
        append: Append<L::Bytes>,
        now: UnixMillis,
    ) -> Result<Appended, AppendError> {
        self.check(now).map_err(AppendError::Missing)?;
        let mut replies = self.try_group(std::slice::from_ref(&append), now)?;
        replies.pop().unwrap_or(Err(AppendError::EmptyBody))
    }

    /// Plans and commits the whole group; on a failed commit nothing of it happened.
    fn try_group(
        &mut self,
        group: &[Append<L::Bytes>],
        now: UnixMillis,
    ) -> Result<Vec<Result<Appended, AppendError>>, LogError> {
        let (room, bytes_max) = (self.room(), self.bounds.bytes_max);
        let Some(current) = &mut self.current else { return Ok(Vec::new()) };
        let tail = current.tail;
        let mut rows = Rows::new(current, now);
        let mut replies = Vec::with_capacity(group.len());
        for append in group {
            // A log that fails in the middle of planning fails the group: memory has moved on.
            let reply = match admit(&self.log, current, append, (room, bytes_max)) {
                Err(AppendError::Missing(Missing::Log(error))) => {
                    self.stale = true;
                    return Err(error);
                }
                Ok(Admitted::Duplicate(appended)) => Ok(appended),
                Ok(Admitted::New(body)) => Ok(rows.push(current, append, body)),
                Err(refusal) => Err(refusal),
            };
            replies.push(reply);
        }
        let skips = rows.skips;
        let mut writes = rows.finish(current);
        if writes.is_empty() && !skips {
            return Ok(replies);
        }
        // Deliveries are no access: a session that nobody reads ends.
        if current.life.session.is_none() {
            current.accessed(now);
        }
        if skips {
            checkpoint(current, &mut writes);
        } else {
            plan_checkpoint(current, &mut writes);
        }
        if current.tail > tail {
            self.plan_fanout(&mut writes, now);
        }
        self.commit(writes)?;
        Ok(replies)
    }
}

enum Admitted<B> {
    /// Stored before, or a close of a closed stream: nothing to do.
    Duplicate(Appended),
    /// To be stored: the bytes as they go on the wire.
    New(B),
}

/// Judges one request against the current state.
fn admit<L: Log>(
    log: &L,
    current: &mut Current,
    append: &Append<L::Bytes>,
    (room, bytes_max): (u64, u64),
) -> Result<Admitted<L::Bytes>, AppendError> {
    if let Some(delivery) = &append.delivery {
        return admit_delivery(log, current, (delivery, &append.body), (room, bytes_max));
    }
    let body = wire_body(current, append)?;
    let next = current.tail_offset();
    let closed = current.closed.is_closed();
    let verdict = match &append.producer {
        None => Verdict::Accept,
        Some(producer) => {
            let generation = current.life.generation;
            let last =
                current.producers.last(&producer.id, || log.producer(generation, &producer.id))?;
            judge(last, producer)
        }
    };
    match verdict {
        Verdict::StaleEpoch { current } => return Err(AppendError::StaleEpoch { current }),
        Verdict::Duplicate(ProducerState { epoch, seq }) => {
            let producer = Some((epoch, seq));
            return Ok(Admitted::Duplicate(Appended { next, producer, duplicate: true, closed }));
        }
        Verdict::Accept | Verdict::EpochStart | Verdict::Gap { .. } => {}
    }
    if closed {
        let close_only = append.close && append.body.is_empty() && append.producer.is_none();
        return match close_only {
            true => {
                Ok(Admitted::Duplicate(Appended { next, producer: None, duplicate: true, closed }))
            }
            false => Err(AppendError::Closed { next }),
        };
    }
    check_content_type(current, append)?;
    match (verdict, &append.producer) {
        (Verdict::EpochStart, _) => return Err(AppendError::EpochStart),
        (Verdict::Gap { expected }, Some(producer)) => {
            return Err(AppendError::ProducerGap { expected, received: producer.seq });
        }
        _ => {}
    }
    match (&append.seq, &current.seq) {
        (Some(seq), Some(last)) if seq <= last => {
            Err(AppendError::SeqConflict { last: last.clone() })
        }
        _ if !body.is_empty() && current.hot_bytes().saturating_add(body.len()) > room => {
            Err(AppendError::Full { bytes_max })
        }
        _ => Ok(Admitted::New(body)),
    }
}

/// Judges one delivery against the current state.
fn admit_delivery<L: Log>(
    log: &L,
    current: &mut Current,
    (delivery, bytes): (&Deliver, &L::Bytes),
    (room, bytes_max): (u64, u64),
) -> Result<Admitted<L::Bytes>, AppendError> {
    match delivery::judge(log, current, delivery, bytes)? {
        delivery::Verdict::Known => Ok(Admitted::Duplicate(Appended {
            next: current.tail_offset(),
            producer: None,
            duplicate: true,
            closed: current.closed.is_closed(),
        })),
        delivery::Verdict::Take(body) if current.hot_bytes().saturating_add(body.len()) > room => {
            Err(AppendError::Full { bytes_max })
        }
        delivery::Verdict::Take(body) => Ok(Admitted::New(body)),
    }
}

/// The body as it goes on the wire: framed in JSON mode, as sent otherwise.
fn wire_body<B: Blob>(current: &Current, append: &Append<B>) -> Result<B, AppendError> {
    if append.body.is_empty() {
        return if append.close { Ok(append.body.clone()) } else { Err(AppendError::EmptyBody) };
    }
    let Some(content_type) = &append.content_type else {
        return Err(AppendError::ContentTypeMissing);
    };
    if !current.is_json() || !content_type.is_json() {
        return Ok(append.body.clone());
    }
    let framed = frame_messages(&append.body.to_vec()).map_err(AppendError::Json)?;
    if framed.messages == 0 {
        return Err(AppendError::EmptyArray);
    }
    Ok(B::from_vec(framed.wire))
}

fn check_content_type<B: Blob>(current: &Current, append: &Append<B>) -> Result<(), AppendError> {
    let expected = &current.life.content_type;
    match &append.content_type {
        Some(sent) if !append.body.is_empty() && !sent.same_media_type(expected) => {
            Err(AppendError::ContentTypeMismatch { expected: expected.clone() })
        }
        _ => Ok(()),
    }
}

/// Extent rows under construction.
pub(crate) struct Rows<B> {
    /// Start of the open row.
    start: Position,
    head: Head,
    parts: Vec<B>,
    /// Bytes in `parts`.
    bytes: u64,
    appends: u64,
    json: bool,
    time: Option<UnixMillis>,
    /// Whether a link has moved without bytes: no header says so, and a checkpoint has to.
    skips: bool,
    writes: Vec<Write<B>>,
}

impl<B: Blob> Rows<B> {
    pub(crate) fn new(current: &Current, now: UnixMillis) -> Self {
        let sliding =
            matches!(current.life.lifetime, Lifetime::Ttl { .. }) && current.life.session.is_none();
        Self {
            start: current.tail,
            head: Head::default(),
            parts: Vec::new(),
            bytes: 0,
            appends: 0,
            json: current.is_json(),
            time: sliding.then_some(now),
            skips: false,
            writes: Vec::new(),
        }
    }

    /// Adds an admitted append and moves the current state on.
    fn push(&mut self, current: &mut Current, append: &Append<B>, body: B) -> Appended {
        if let Some(delivery) = &append.delivery {
            return self.deliver(current, delivery, body);
        }
        self.add_bytes(current, body);
        if let Some(seq) = &append.seq {
            self.head.seq = Some(seq.clone());
            current.seq = Some(seq.clone());
        }
        if let Some(producer) = &append.producer {
            current.producers.accept(producer);
            self.head.producers.retain(|known| known.id != producer.id);
            self.head.producers.push(producer.clone());
        }
        if append.close {
            self.close(current, append.producer.clone());
        }
        Appended {
            next: current.tail_offset(),
            producer: append.producer.as_ref().map(|producer| (producer.epoch, producer.seq)),
            duplicate: false,
            closed: current.closed.is_closed(),
        }
    }

    /// Adds a delivery and moves its link on.
    fn deliver(&mut self, current: &mut Current, delivery: &Deliver, body: B) -> Appended {
        let Deliver { link, epoch, to, .. } = delivery;
        current.links.advance(link.clone(), LinkState { epoch: *epoch, next: Some(*to) });
        if body.is_empty() {
            self.skips = true;
        } else {
            self.add_bytes(current, body);
            self.head.links.retain(|known| known.link != *link);
            self.head.links.push(Reached { link: link.clone(), epoch: *epoch, next: *to });
        }
        let (next, closed) = (current.tail_offset(), current.closed.is_closed());
        Appended { next, producer: None, duplicate: false, closed }
    }

    /// Adds the bytes of one append; they may fill several rows.
    pub(crate) fn add_bytes(&mut self, current: &mut Current, body: B) {
        let length = body.len();
        let own_rows = length > MERGE_BYTES_MAX;
        let full =
            self.bytes.saturating_add(length) > ROW_BYTES_MAX || self.appends >= GROUP_APPENDS_MAX;
        if own_rows || full {
            self.seal(current);
        }
        let mut at = 0;
        while length.saturating_sub(at) > ROW_BYTES_MAX {
            let next = at.saturating_add(ROW_BYTES_MAX);
            self.put(current, body.slice(at..next));
            self.seal(current);
            at = next;
        }
        let rest = if at == 0 { body } else { body.slice(at..length) };
        self.put(current, rest);
        self.end_append();
        if own_rows {
            // The head of the last row is still to be filled in; it is sealed by what comes next.
            self.appends = GROUP_APPENDS_MAX;
        }
    }

    /// Marks the stream closed by the append just added.
    pub(crate) fn close(&mut self, current: &mut Current, closer: Option<Producer>) {
        self.head.closes = true;
        self.head.closer.clone_from(&closer);
        current.closed = Closed::By(closer);
    }

    fn put(&mut self, current: &mut Current, part: B) {
        self.bytes = self.bytes.saturating_add(part.len());
        current.tail = Position(current.tail.0.saturating_add(part.len()));
        if !part.is_empty() {
            self.parts.push(part);
        }
    }

    fn end_append(&mut self) {
        self.appends += 1;
        if self.json {
            self.head.ends.clear();
        }
        if self.bytes > 0 && self.head.ends.last() != Some(&self.bytes) {
            self.head.ends.push(self.bytes);
        }
    }

    /// Turns the open row into a write.
    fn seal(&mut self, current: &mut Current) {
        let head = std::mem::take(&mut self.head);
        let parts = std::mem::take(&mut self.parts);
        let start = std::mem::replace(&mut self.start, current.tail);
        self.bytes = 0;
        self.appends = 0;
        if parts.is_empty() && head == Head::default() {
            return;
        }
        let bytes = match <[B; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => B::concat(&parts),
        };
        current.hot_ends += head.ends.len() as u64;
        let head = Head { time: self.time, ..head }.encode();
        current.rows += 1;
        current.head_bytes += head.len() as u64;
        self.writes.push(Write::Extent { key: current.key(start), head, bytes });
    }

    pub(crate) fn finish(mut self, current: &mut Current) -> Vec<Write<B>> {
        self.seal(current);
        self.writes
    }
}

/// Writes down what the headers since the last checkpoint say, when they have become many.
pub(crate) fn plan_checkpoint<B>(current: &mut Current, writes: &mut Vec<Write<B>>) {
    let due = current.rows >= CHECKPOINT_ROWS
        || current.head_bytes >= HEAD_BYTES_MAX
        || current.producers.dirty_len().saturating_add(current.links.dirty_len()) >= DIRTY_MAX;
    if due {
        checkpoint(current, writes);
    }
}

/// Writes down what the headers since the last checkpoint say.
pub(crate) fn checkpoint<B>(current: &mut Current, writes: &mut Vec<Write<B>>) {
    let generation = current.life.generation;
    let as_of = current.tail;
    for (id, state) in current.producers.take_dirty() {
        writes.push(Write::Producer { generation, id, state, as_of });
    }
    for (link, state) in current.links.take_dirty() {
        writes.push(Write::Link { life: generation, link, state, as_of });
    }
    current.life.checkpoint = as_of;
    current.life.hot_ends = current.hot_ends;
    current.life.seq.clone_from(&current.seq);
    current.life.closed.clone_from(&current.closed);
    current.life.touched = current.touched;
    current.rows = 0;
    current.head_bytes = 0;
    writes.push(Write::Life(current.life.clone()));
}
