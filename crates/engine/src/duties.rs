//! Duties: what the object's one alarm sees to.
//!
//! Each duty is bounded and idempotent and sets its own next time. What needs another object (a
//! release) is handed out; the caller reports back. Whatever fails stays in the table and comes
//! due again.

use protocol::offset::Generation;
use protocol::time::UnixMillis;

use crate::fork::FORK_PATIENCE_MS;
use crate::life::Phase;
use crate::log::{Duty, Log, LogError, Release, Write};
use crate::stream::Stream;

/// Releases handed out at a time.
const RELEASES_MAX: u32 = 32;

/// First pause after a failed release; it doubles up to an hour.
const RELEASE_PAUSE_MS: u64 = 2_000;
const RELEASE_PAUSE_MS_MAX: u64 = 3_600_000;

impl<L: Log> Stream<L> {
    /// Does what is due and sets the alarm for what is not. Returns the releases to deliver now.
    ///
    /// `making_fork`: whether a request of this very instance is still making the fork.
    ///
    /// # Errors
    /// [`LogError`]; what was not done is still in the table: set the alarm and come again.
    pub fn on_alarm(
        &mut self,
        making_fork: bool,
        now: UnixMillis,
    ) -> Result<Vec<Release>, LogError> {
        self.settle(now)?;
        // The platform takes the alarm away before it calls.
        self.alarm = None;
        let due: Vec<Duty> =
            self.duties.iter().filter(|(_, at)| **at <= now).map(|(duty, _)| *duty).collect();
        let mut releases = Vec::new();
        for duty in due {
            match duty {
                Duty::Expire => self.reschedule_expiry(now)?,
                Duty::Erase => self.do_erase(now)?,
                Duty::Fork => self.do_fork(making_fork, now)?,
                Duty::Release => releases = self.due_releases(now)?,
            }
        }
        self.set_alarm()?;
        Ok(releases)
    }

    /// The releases to deliver now; each must be answered with [`Stream::released`] or it comes
    /// due again.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn due_releases(&mut self, now: UnixMillis) -> Result<Vec<Release>, LogError> {
        if self.stale {
            self.reload()?;
        }
        if self.duties.get(&Duty::Release).is_none_or(|due| *due > now) {
            return Ok(Vec::new());
        }
        let releases = self.log.releases(RELEASES_MAX)?;
        let mut writes = Vec::new();
        let attempts = releases.iter().map(|release| release.attempts).min().unwrap_or(0);
        for release in &releases {
            let attempts = release.attempts.saturating_add(1);
            writes.push(Write::Release(Release { attempts, ..release.clone() }));
        }
        let pause = RELEASE_PAUSE_MS.saturating_shl(attempts).min(RELEASE_PAUSE_MS_MAX);
        match releases.is_empty() {
            true => self.plan_no_duty(&mut writes, Duty::Release),
            false => self.plan_duty(&mut writes, Duty::Release, now.saturating_add_ms(pause)),
        }
        self.commit(writes)?;
        Ok(releases)
    }

    /// Notes that a source has confirmed.
    ///
    /// # Errors
    /// [`LogError`]; the release is delivered once more, which does no harm.
    pub fn released(&mut self, generation: Generation) -> Result<(), LogError> {
        if self.stale {
            self.reload()?;
        }
        let others = self.log.releases(2)?.iter().any(|other| other.generation != generation);
        let mut writes = vec![Write::DropRelease(generation)];
        if !others {
            self.plan_no_duty(&mut writes, Duty::Release);
        }
        self.commit(writes)
    }

    /// The life did not end yet: look again when it would.
    fn reschedule_expiry(&mut self, now: UnixMillis) -> Result<(), LogError> {
        let live = self.current.as_ref().filter(|current| current.life.phase == Phase::Live);
        let expires = live.and_then(|current| current.expires(self.attached_until));
        let mut writes = Vec::new();
        match expires {
            Some(due) => self.plan_duty(&mut writes, Duty::Expire, due.max(now)),
            None => self.plan_no_duty(&mut writes, Duty::Expire),
        }
        self.commit(writes)
    }

    fn do_erase(&mut self, now: UnixMillis) -> Result<(), LogError> {
        let more = self.erase_step()?;
        let mut writes = Vec::new();
        match more {
            true => self.plan_duty(&mut writes, Duty::Erase, now),
            false => self.plan_no_duty(&mut writes, Duty::Erase),
        }
        self.commit(writes)
    }

    fn do_fork(&mut self, making_fork: bool, now: UnixMillis) -> Result<(), LogError> {
        let mut writes = Vec::new();
        if !self.is_forking() {
            self.plan_no_duty(&mut writes, Duty::Fork);
        } else if making_fork {
            self.plan_duty(&mut writes, Duty::Fork, now.saturating_add_ms(FORK_PATIENCE_MS));
        } else {
            return self.abandon_fork(true, now);
        }
        self.commit(writes)
    }

    /// Sets the alarm to the earliest duty, whatever was set before.
    pub(crate) fn set_alarm(&mut self) -> Result<(), LogError> {
        let Some(due) = self.duties.values().min().copied() else { return Ok(()) };
        if self.alarm == Some(due) {
            return Ok(());
        }
        self.alarm = Some(due);
        self.commit(vec![Write::Alarm(due)])
    }
}

trait SaturatingShl {
    fn saturating_shl(self, bits: u32) -> u64;
}

impl SaturatingShl for u64 {
    fn saturating_shl(self, bits: u32) -> u64 {
        self.saturating_mul(1u64.checked_shl(bits).unwrap_or(u64::MAX))
    }
}
