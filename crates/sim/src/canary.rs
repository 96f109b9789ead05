//! Planted bugs: an oracle that never fails proves nothing, so tests break the log on purpose and
//! expect a fixed seed to find it.

use std::cell::RefCell;

use engine::extent::Head;
use engine::log::memory::MemoryLog;
use engine::log::{Log, LogError, Write};

use crate::decorators::Hook;
use crate::disk::Disk;

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
