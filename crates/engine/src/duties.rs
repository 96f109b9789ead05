//! Duties: what the object's one alarm sees to.
//!
//! Each duty is bounded and idempotent and sets its own next time. What needs another object (a
//! release, a nudge) or the object store (a marker, an interrupted upload) is handed out; the caller
//! reports back. Whatever fails stays in the table and comes due again.

use protocol::offset::Generation;
use protocol::time::UnixMillis;

use crate::fork::FORK_PATIENCE_MS;
use crate::life::Phase;
use crate::log::{Duty, Log, LogError, Marker, Release, Write};
use crate::rotate::{Rotation, UPLOAD_PATIENCE_MS};
use crate::stream::Stream;

/// Releases handed out at a time.
const RELEASES_MAX: u32 = 32;

/// First pause after a failed release; it doubles up to an hour.
const RELEASE_PAUSE_MS: u64 = 2_000;
const RELEASE_PAUSE_MS_MAX: u64 = 3_600_000;

/// Deletion markers handed out at a time.
const MARKERS_MAX: u32 = 256;

/// How long a deletion may take before its markers are handed out again.
const SWEEP_PATIENCE_MS: u64 = 60_000;

/// What the instance is in the middle of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// A request is making a fork here.
    pub making_fork: bool,
    /// An upload is under way.
    pub rotating: bool,
}

/// What is due outside of the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Sources to tell that a fork is gone; each must be answered with [`Stream::released`] or it
    /// comes due again.
    pub releases: Vec<Release>,
    /// Objects to delete; to be answered with [`Stream::swept`].
    pub markers: Vec<Marker>,
    /// An upload that lost its instance: collect its range again, look for the object, and answer
    /// with [`Stream::publish`] or [`Stream::rotation_failed`].
    pub upload: Option<Rotation>,
    /// Shards that do not know the tail: call [`Stream::begin_nudges`].
    pub nudge: bool,
}

impl<L: Log> Stream<L> {
    /// Does what is due and sets the alarm for what is not.
    ///
    /// # Errors
    /// [`LogError`]; what was not done is still in the table: set the alarm and come again.
    pub fn on_alarm(&mut self, busy: Busy, now: UnixMillis) -> Result<Due, LogError> {
        self.settle(now)?;
        // The platform takes the alarm away before it calls.
        self.alarm = None;
        let due: Vec<Duty> =
            self.duties.iter().filter(|(_, at)| **at <= now).map(|(duty, _)| *duty).collect();
        let mut handed = Due::default();
        for duty in due {
            match duty {
                Duty::Expire => self.reschedule_expiry(now)?,
                Duty::Erase => self.do_erase(now)?,
                Duty::Fork => self.do_fork(busy.making_fork, now)?,
                Duty::Release => handed.releases = self.due_releases(now)?,
                Duty::Rotate => handed.upload = self.do_rotate(busy.rotating, now)?,
                Duty::Sweep => handed.markers = self.due_markers(now)?,
                Duty::Fanout => handed.nudge = self.do_fanout(now)?,
            }
        }
        self.set_alarm()?;
        Ok(handed)
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
        let more = self.erase_step(now)?;
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

    /// The upload that lost its instance, if one did. Without an upload, a pause is over.
    fn do_rotate(&mut self, busy: bool, now: UnixMillis) -> Result<Option<Rotation>, LogError> {
        let upload = self.interrupted();
        let mut writes = Vec::new();
        match &upload {
            None => self.plan_no_duty(&mut writes, Duty::Rotate),
            Some(_) => {
                let due = now.saturating_add_ms(UPLOAD_PATIENCE_MS);
                self.plan_duty(&mut writes, Duty::Rotate, due);
            }
        }
        self.commit(writes)?;
        Ok(upload.filter(|_| !busy))
    }

    fn due_markers(&mut self, now: UnixMillis) -> Result<Vec<Marker>, LogError> {
        let known = self.log.markers(MARKERS_MAX)?;
        let next = known.iter().map(|marker| marker.due).find(|due| *due > now);
        let due: Vec<Marker> = known.into_iter().filter(|marker| marker.due <= now).collect();
        let mut writes = Vec::new();
        match (due.is_empty(), next) {
            (false, _) => {
                let again = now.saturating_add_ms(SWEEP_PATIENCE_MS);
                self.plan_duty(&mut writes, Duty::Sweep, again);
            }
            (true, Some(next)) => self.plan_duty(&mut writes, Duty::Sweep, next),
            (true, None) => self.plan_no_duty(&mut writes, Duty::Sweep),
        }
        self.commit(writes)?;
        Ok(due)
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
