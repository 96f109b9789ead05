//! Storage of the objects: it fails on command, and breaks its contract for a canary.

use std::cell::RefCell;
use std::rc::Rc;

use engine::fanout::breaker::Open;
use engine::fanout::ledger::memory::MemoryLedger;
use engine::fanout::ledger::{Ledger, LedgerWrite, SessionRow, SubscriptionRow};
use engine::fanout::roster::memory::MemoryRoster;
use engine::fanout::roster::{Entry, LifeRow, MemberRow, Place, Roster, RosterWrite};
use engine::log::{Duty, LogError, Write};
use protocol::fanout::ShardId;

use super::Bug;
use super::hub::Hub;
use crate::decorators::{Hook, Hooked};
use crate::disk::Disk;

/// Fails on command.
fn strike(hub: &Hub, per_mille: u64, what: &str) -> Result<(), LogError> {
    if hub.fails(per_mille) {
        hub.note(format!("FAULT {what}"));
        return Err(LogError::Failed(format!("injected: {what}")));
    }
    Ok(())
}

/// What happens around the calls of a stream's log.
pub(super) struct StreamHook {
    pub(super) hub: Rc<Hub>,
}

/// The log of a stream.
pub(super) type StreamLog = Hooked<Disk, StreamHook>;

impl Hook for StreamHook {
    fn before_read(&self) -> Result<(), LogError> {
        strike(&self.hub, self.hub.profile.storage / 8, "a read of a stream")
    }

    fn before_commit(&self, writes: Vec<Write<Vec<u8>>>) -> Result<Vec<Write<Vec<u8>>>, LogError> {
        strike(&self.hub, self.hub.profile.storage, "a commit of a stream")?;
        let is_kept = |write: &Write<_>| {
            let is_duty = matches!(write, Write::Duty(Duty::Fanout, _) | Write::Alarm(_));
            self.hub.bug != Bug::ForgottenDuty || !is_duty
        };
        Ok(writes.into_iter().filter(is_kept).collect())
    }
}

/// The rows of a subscription object.
pub(super) struct SimRoster {
    pub(super) hub: Rc<Hub>,
    pub(super) disk: Rc<RefCell<MemoryRoster>>,
}

impl SimRoster {
    fn read<T>(
        &self,
        read: impl FnOnce(&MemoryRoster) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        strike(&self.hub, self.hub.profile.storage / 8, "a read of a shard")?;
        read(&self.disk.borrow())
    }

    /// What a planted bug makes of a write.
    fn planted(&self, write: RosterWrite) -> RosterWrite {
        match (self.hub.bug, write) {
            (Bug::CursorTooFar, RosterWrite::Life(row)) => {
                RosterWrite::Life(LifeRow { cursor: row.up_to, ..row })
            }
            (Bug::StepTooEarly, RosterWrite::Member(row))
                if matches!(row.place, Place::Own { .. }) =>
            {
                RosterWrite::Member(MemberRow { place: Place::InStep, ..row })
            }
            (_, write) => write,
        }
    }
}

impl Roster for SimRoster {
    fn commit(&mut self, writes: Vec<RosterWrite>) -> Result<(), LogError> {
        strike(&self.hub, self.hub.profile.storage, "a commit of a shard")?;
        let writes = writes.into_iter().map(|write| self.planted(write)).collect();
        self.disk.borrow_mut().commit(writes)
    }

    fn lives(&self) -> Result<Vec<LifeRow>, LogError> {
        self.read(Roster::lives)
    }

    fn members(&self) -> Result<Vec<MemberRow>, LogError> {
        self.read(Roster::members)
    }

    fn breaker(&self) -> Result<Option<Open>, LogError> {
        self.read(Roster::breaker)
    }

    fn entry(&self, session: &str) -> Result<Option<Entry>, LogError> {
        self.read(|disk| disk.entry(session))
    }

    fn entries(&self, after: &str, limit: u32) -> Result<Vec<Entry>, LogError> {
        self.read(|disk| disk.entries(after, limit))
    }

    fn rooms(&self) -> Result<Vec<(ShardId, u64)>, LogError> {
        self.read(Roster::rooms)
    }
}

/// The rows of a session's object.
pub(super) struct SimLedger {
    pub(super) hub: Rc<Hub>,
    pub(super) disk: Rc<RefCell<MemoryLedger>>,
}

impl Ledger for SimLedger {
    fn commit(&mut self, writes: Vec<LedgerWrite>) -> Result<(), LogError> {
        strike(&self.hub, self.hub.profile.storage, "a commit of a session")?;
        self.disk.borrow_mut().commit(writes)
    }

    fn session(&self) -> Result<Option<SessionRow>, LogError> {
        strike(&self.hub, self.hub.profile.storage / 8, "a read of a session")?;
        self.disk.borrow().session()
    }

    fn subscriptions(&self) -> Result<Vec<SubscriptionRow>, LogError> {
        strike(&self.hub, self.hub.profile.storage / 8, "a read of a session")?;
        self.disk.borrow().subscriptions()
    }
}
