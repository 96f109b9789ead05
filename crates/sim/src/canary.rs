//! Planted bugs: an oracle that never fails proves nothing, so tests break the log on purpose and
//! expect a fixed seed to find it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::extent::Head;
use engine::log::memory::MemoryLog;
use engine::log::{Log, LogError, Write};
use engine::readers::Note;
use protocol::offset::Position;

use crate::decorators::Hook;
use crate::disk::Disk;
use crate::live::SentFrame;

/// Which bug is planted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    /// None.
    #[default]
    None,
    /// A crash loses the last row of the last commit, if that commit had several rows.
    TornCommit,
    /// Producers are never written down.
    ForgottenProducers,
    /// A segment is published, and the rows that it replaces stay.
    KeptExtents,
    /// The intent of an upload is not written down.
    ForgottenIntents,
    /// Objects of a deleted stream get no deletion marker.
    LostMarkers,
    /// An upload that is given up gets no deletion marker.
    UnmarkedUndo,
    /// A page behind one that did not reach the tail is left out.
    SkippedPages,
    /// A frame goes to all readers but the second.
    ForgottenReaders,
    /// What repeats in a frame is not trimmed.
    UntrimmedRepeats,
    /// Data frames are sent without a client's credit.
    IgnoredCredit,
    /// Readers that outlive the memory go on at the tail.
    LostNotes,
}

/// The hook of [`crate::decorators::Planted`].
pub struct Canary {
    bug: Bug,
    disk: Disk,
    /// What a crash leaves, when that is not what was committed.
    torn: RefCell<Option<MemoryLog>>,
}

impl Canary {
    /// Plants a bug above `disk`.
    #[must_use]
    pub fn new(bug: Bug, disk: Disk) -> Self {
        Self { bug, disk, torn: RefCell::new(None) }
    }

    /// Lets the crash do its damage.
    pub fn crash(&self) {
        if let (Disk::Memory(log), Some(torn)) = (&self.disk, self.torn.take()) {
            *log.borrow_mut() = torn;
        }
    }

    fn tear(&self, writes: &[Write<Vec<u8>>]) -> Result<(), LogError> {
        let Disk::Memory(log) = &self.disk else { return Ok(()) };
        let mut torn = log.borrow().clone();
        torn.commit(writes[..writes.len() - 1].to_vec())?;
        *self.torn.borrow_mut() = Some(torn);
        Ok(())
    }
}

fn without_producers(write: Write<Vec<u8>>) -> Option<Write<Vec<u8>>> {
    match write {
        Write::Producer { .. } => None,
        Write::Extent { key, head, bytes } => {
            let head = Head { producers: Vec::new(), ..Head::decode(&head)? }.encode();
            Some(Write::Extent { key, head, bytes })
        }
        other => Some(other),
    }
}

/// Whether a commit ends an upload without a segment.
fn is_undo(writes: &[Write<Vec<u8>>]) -> bool {
    let settles = |write: &Write<_>| matches!(write, Write::Rotation(row) if row.intent.is_none());
    let publishes = |write: &Write<_>| matches!(write, Write::Segment(_));
    writes.iter().any(settles) && !writes.iter().any(publishes)
}

/// A commit without the writes that the bug loses.
fn without(bug: Bug, mut writes: Vec<Write<Vec<u8>>>) -> Vec<Write<Vec<u8>>> {
    let publishes = writes.iter().any(|write| matches!(write, Write::Segment(_)));
    let buries = writes.iter().any(|write| matches!(write, Write::EraseSegments { .. }));
    let undo = is_undo(&writes);
    writes.retain(|write| match (bug, write) {
        (Bug::KeptExtents, Write::EraseExtents { .. }) => !publishes,
        (Bug::ForgottenIntents, Write::Rotation(row)) => row.intent.is_none(),
        (Bug::LostMarkers, Write::Marker(_)) => !buries,
        (Bug::UnmarkedUndo, Write::Marker(_)) => !undo,
        _ => true,
    });
    writes
}

impl Hook for Canary {
    fn before_commit(&self, writes: Vec<Write<Vec<u8>>>) -> Result<Vec<Write<Vec<u8>>>, LogError> {
        match self.bug {
            Bug::None => Ok(writes),
            Bug::TornCommit => {
                self.torn.take();
                if writes.len() > 1 {
                    self.tear(&writes)?;
                }
                Ok(writes)
            }
            Bug::ForgottenProducers => {
                Ok(writes.into_iter().filter_map(without_producers).collect())
            }
            bug => Ok(without(bug, writes)),
        }
    }
}

/// The bugs of live readers; stands between the engine's map of readers, its pages and its sockets.
#[derive(Debug, Default)]
pub struct LiveCanary {
    bug: Bug,
    /// The frame that was sent last, and to how many.
    last: RefCell<Option<Rc<SentFrame>>>,
    sent: Cell<u64>,
    /// End of the last page, if that was not the tail.
    cut: Cell<Option<Position>>,
}

impl LiveCanary {
    /// Plants a bug.
    #[must_use]
    pub fn new(bug: Bug) -> Self {
        Self { bug, ..Self::default() }
    }

    /// Whether a socket is to lose this frame.
    pub(crate) fn forgets(&self, frame: &Rc<SentFrame>) -> bool {
        if self.bug != Bug::ForgottenReaders {
            return false;
        }
        let mut last = self.last.borrow_mut();
        let again = last.as_ref().is_some_and(|last| Rc::ptr_eq(last, frame));
        self.sent.set(if again { self.sent.get() + 1 } else { 1 });
        *last = Some(Rc::clone(frame));
        self.sent.get() == 2
    }

    /// Whether the page at a position is to be left out.
    pub(crate) fn skips(&self, from: Position) -> bool {
        self.bug == Bug::SkippedPages && self.cut.take() == Some(from)
    }

    /// A page was read that ends at a position before the tail.
    pub(crate) fn saw_cut(&self, to: Position) {
        self.cut.set(Some(to));
    }

    /// The note that a new instance finds.
    pub(crate) fn restored(&self, note: Note) -> Note {
        if self.bug == Bug::LostNotes { Note { sent: None, ..note } } else { note }
    }
}
