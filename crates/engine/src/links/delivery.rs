//! Deliveries: ranges of sources on their way into a session's stream.
//!
//! A delivery is an append that names a range instead of a producer's tuple. What the session has of
//! it already is cut off; what it lacks before it is asked for first.

use protocol::envelope::{gap_message, wrap_messages};
use protocol::fanout::{Deliver, SourceLife};
use protocol::offset::{Offset, Position};

use crate::append::AppendError;
use crate::life::SessionKind;
use crate::log::{Blob, Log, LogError};
use crate::stream::Current;

/// What a session's stream does with a delivery.
pub(crate) enum Verdict<B> {
    /// It has the range.
    Known,
    /// It takes these bytes; none for a gap that it has no way to tell.
    Take(B),
}

/// Judges a delivery against the link that it names.
pub(crate) fn judge<L: Log>(
    log: &L,
    current: &mut Current,
    delivery: &Deliver,
    bytes: &L::Bytes,
) -> Result<Verdict<L::Bytes>, AppendError> {
    let life = current.life.generation;
    let Some(kind) = current.life.session.filter(|_| delivery.session == life) else {
        return Err(AppendError::LinkGone);
    };
    let known = current.links.last(&delivery.link, || log.link(life, &delivery.link))?;
    let next = known.filter(|known| known.epoch == delivery.epoch).and_then(|known| known.next);
    let Some(next) = next else { return Err(AppendError::LinkGone) };
    if delivery.to <= next {
        return Ok(Verdict::Known);
    }
    if delivery.from > next {
        return Err(AppendError::LinkBehind { next });
    }
    if current.closed.is_closed() {
        return Err(AppendError::LinkGone);
    }
    let is_json = current.is_json();
    if delivery.is_gap {
        return Ok(Verdict::Take(gap(delivery, next, kind, is_json)));
    }
    if bytes.len() != delivery.to.saturating_since_bytes(delivery.from) {
        return Err(LogError::Failed("the bytes of a delivery do not fit its range".into()).into());
    }
    let bytes = match next.saturating_since_bytes(delivery.from) {
        0 => bytes.clone(),
        known => bytes.slice(known..bytes.len()),
    };
    Ok(Verdict::Take(match kind {
        SessionKind::Envelope if is_json => {
            let path = path_of(&delivery.link);
            L::Bytes::from_vec(wrap_messages(&bytes.to_vec(), path, delivery.offsets, next))
        }
        SessionKind::Plain | SessionKind::Envelope => bytes,
    }))
}

/// What tells a session of lost bytes.
fn gap<B: Blob>(delivery: &Deliver, next: Position, kind: SessionKind, is_json: bool) -> B {
    if !is_json {
        return B::from_vec(Vec::new());
    }
    let offset = |position| Offset { generation: delivery.offsets, position };
    let is_enveloped = kind == SessionKind::Envelope;
    let path = path_of(&delivery.link);
    B::from_vec(gap_message(path, offset(next), offset(delivery.to), is_enveloped))
}

/// The source's path without its project.
fn path_of(link: &SourceLife) -> &str {
    link.source.split_once('/').map_or(link.source.as_str(), |(_, path)| path)
}
