//! What is delivered: batches for those in step, catch-ups for the others, the breaker's probe.

use std::collections::BTreeMap;

use protocol::fanout::LifeState;
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::{Batch, Begun, CatchUp, Life, Member, Shard, Target, Verdict, failing};
use crate::fanout::pause_ms;
use crate::fanout::roster::{Place, Roster, RosterWrite};
use crate::log::LogError;

impl<R: Roster> Shard<R> {
    /// The next range for everybody in step, and for those who are past the cursor already. To be answered
    /// with [`Shard::end_batch`] or [`Shard::source_failed`].
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_batch(&mut self, source: Generation) -> Result<Begun, LogError> {
        self.settle()?;
        if !self.breaker.is_closed() {
            return Ok(Begun::Nothing);
        }
        let Some(life) = self.lives.get_mut(&source) else { return Ok(Begun::Nothing) };
        if life.is_delivering {
            return Ok(Begun::Busy);
        }
        if life.row.cursor >= life.row.up_to {
            return Ok(Begun::Nothing);
        }
        life.is_delivering = true;
        let (from, up_to) = (life.row.cursor, life.row.up_to);
        let is_gap = life.row.state == LifeState::Lapsed;
        let is_part = |member: &&Member| match member.row.place {
            Place::InStep => true,
            Place::Own { next, attempts, .. } => next >= from && attempts == 0 && !member.in_flight,
            Place::Leaving { .. } => false,
        };
        let targets = self.members_of(source).filter(is_part).map(Member::target).collect();
        Ok(Begun::Batch(Batch { source, from, up_to, is_gap, targets }))
    }

    /// A batch is over: `[from, to)` was delivered, with a verdict for each target in their order. `true`
    /// when that opened the breaker; then everybody stays where they are.
    ///
    /// # Errors
    /// [`LogError`]: then everybody stays where they are.
    pub fn end_batch(
        &mut self,
        batch: &Batch,
        to: Position,
        verdicts: &[Verdict],
        now: UnixMillis,
    ) -> Result<bool, LogError> {
        let settled = self.settle();
        let Some(life) = self.lives.get_mut(&batch.source) else { return settled.map(|()| false) };
        life.is_delivering = false;
        settled?;
        let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|v| wanted(v)).count();
        let failures = count(|verdict| *verdict == Verdict::Failed) as u64;
        let successes =
            verdicts.len() as u64 - failures - count(|verdict| *verdict == Verdict::Untried) as u64;
        if self.breaker.record(successes, failures, now) {
            return self.stay(batch, verdicts, now).map(|()| true);
        }
        let before = life.row.cursor;
        life.row.cursor = before.max(to);
        life.row.up_to = life.row.up_to.max(to);
        life.row.attempts = 0;
        let lags = life.row.cursor < life.row.up_to;
        // Whoever delivers goes on; if nobody does, the alarm.
        life.row.due = lags.then(|| now.saturating_add_ms(pause_ms(1)));
        let row = life.row;
        let mut writes = vec![RosterWrite::Life(row)];
        if row.cursor > before {
            self.plan_left_behind(batch, before, &mut writes, now);
        }
        for (target, verdict) in batch.targets.iter().zip(verdicts) {
            self.plan_verdict(batch, to, (target, *verdict), &mut writes, now);
        }
        self.plan_ends(batch.source, &mut writes, now);
        self.commit(writes, now)?;
        Ok(false)
    }

    /// The breaker has opened: nobody's position changes, but those who are gone go.
    fn stay(
        &mut self,
        batch: &Batch,
        verdicts: &[Verdict],
        now: UnixMillis,
    ) -> Result<(), LogError> {
        let mut writes = vec![RosterWrite::Breaker(self.breaker.open())];
        if let Some(life) = self.lives.get_mut(&batch.source) {
            life.row.due = Some(now);
            writes.push(RosterWrite::Life(life.row));
        }
        for (target, verdict) in batch.targets.iter().zip(verdicts) {
            if *verdict == Verdict::Gone {
                self.plan_gone(batch.source, target, &mut writes, now);
            }
        }
        self.commit(writes, now)
    }

    /// Members in step that are not part of the batch that moves the cursor keep their position. There are
    /// none, unless memory was loaded again meanwhile.
    fn plan_left_behind(
        &mut self,
        batch: &Batch,
        before: Position,
        writes: &mut Vec<RosterWrite>,
        now: UnixMillis,
    ) {
        let part: BTreeMap<_, _> =
            batch.targets.iter().map(|target| (&target.session, target.epoch)).collect();
        let first = (batch.source, String::new());
        let members = self.members.range_mut(first..);
        for ((_, session), member) in members.take_while(|((of, _), _)| *of == batch.source) {
            let is_part = part.get(session) == Some(&member.row.epoch);
            if member.row.place == Place::InStep && !is_part {
                member.row.place = failing(before, 0, now);
                writes.push(RosterWrite::Member(member.row.clone()));
            }
        }
    }

    fn plan_verdict(
        &mut self,
        batch: &Batch,
        to: Position,
        (target, verdict): (&Target, Verdict),
        writes: &mut Vec<RosterWrite>,
        now: UnixMillis,
    ) {
        if verdict == Verdict::Gone {
            return self.plan_gone(batch.source, target, writes, now);
        }
        let Some(life) = self.lives.get(&batch.source) else { return };
        let cursor = life.row.cursor;
        let key = (batch.source, target.session.clone());
        let member = self.members.get_mut(&key);
        let Some(member) = member.filter(|member| member.row.epoch == target.epoch) else { return };
        let place = match (verdict, member.row.place) {
            (_, Place::Leaving { .. }) | (Verdict::Done, Place::InStep) => return,
            (Verdict::Done, Place::Own { next, .. }) if next.max(to) >= cursor => Place::InStep,
            (Verdict::Done, Place::Own { next, .. }) => failing(next.max(to), 0, now),
            (Verdict::Behind(next), _) => failing(next, 0, now),
            (_, Place::Own { next, .. }) => {
                failing(next, u32::from(verdict == Verdict::Failed), now)
            }
            (Verdict::Failed, Place::InStep) => failing(batch.from, 1, now),
            (_, Place::InStep) => failing(batch.from, 0, now),
        };
        member.row.place = place;
        writes.push(RosterWrite::Member(member.row.clone()));
    }

    /// A session takes nothing any more. The root is told if that is another object.
    fn plan_gone(
        &mut self,
        source: Generation,
        target: &Target,
        writes: &mut Vec<RosterWrite>,
        now: UnixMillis,
    ) {
        let key = (source, target.session.clone());
        let Some(member) = self.members.get_mut(&key) else { return };
        if member.row.epoch != target.epoch {
            return;
        }
        if self.id == protocol::fanout::ShardId::ROOT {
            self.members.remove(&key);
            let (source, session) = key;
            writes.push(RosterWrite::DropMember { source, session });
        } else {
            member.row.place = Place::Leaving { has_ended: false, attempts: 0, due: now };
            writes.push(RosterWrite::Member(member.row.clone()));
        }
    }

    /// Nobody will report back on a batch.
    pub fn give_back(&mut self, source: Generation) {
        if let Some(life) = self.lives.get_mut(&source) {
            life.is_delivering = false;
        }
    }

    /// Nobody will report back on a catch-up or a departure.
    pub fn give_back_one(&mut self, source: Generation, target: &Target) {
        if let Some(member) = self.members.get_mut(&(source, target.session.clone())) {
            member.in_flight = false;
        }
    }

    /// The source did not hand out a range for a batch: it is tried again after a pause.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn source_failed(&mut self, source: Generation, now: UnixMillis) -> Result<(), LogError> {
        let settled = self.settle();
        let Some(life) = self.lives.get_mut(&source) else { return settled };
        life.is_delivering = false;
        settled?;
        life.row.attempts = life.row.attempts.saturating_add(1);
        life.row.due = Some(now.saturating_add_ms(pause_ms(life.row.attempts)));
        let row = life.row;
        self.commit(vec![RosterWrite::Life(row)], now)
    }

    /// The source says that the bytes of a life are gone: from here on there are gaps, up to its final
    /// tail.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn source_lapsed(
        &mut self,
        source: Generation,
        tail: Option<Position>,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        let Some(life) = self.lives.get_mut(&source) else { return Ok(()) };
        life.row.state = LifeState::Lapsed;
        life.row.up_to = life.row.up_to.max(tail.unwrap_or_default());
        life.row.due = Some(now);
        let row = life.row;
        let mut writes = vec![RosterWrite::Life(row)];
        self.plan_ends(source, &mut writes, now);
        self.commit(writes, now)
    }

    /// Members whose own deliveries are due, at most `limit`. Each is to be answered with
    /// [`Shard::end_catch_up`]. Those that turn out to have everything are put in step.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_catch_ups(
        &mut self,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<CatchUp>, LogError> {
        self.settle()?;
        if !self.breaker.is_closed() {
            return Ok(Vec::new());
        }
        for source in self.sources() {
            let mut writes = Vec::new();
            self.plan_ends(source, &mut writes, now);
            if !writes.is_empty() {
                self.commit(writes, now)?;
            }
        }
        let mut due: Vec<_> = self
            .members
            .values()
            .filter_map(|member| {
                let Place::Own { due, attempts, .. } = member.row.place else { return None };
                let life = self.lives.get(&member.row.source)?;
                let catch_up = member.catch_up(life).filter(|_| due <= now)?;
                Some((attempts, due, catch_up))
            })
            .collect();
        // Those who fail wait behind those who do not.
        due.sort_by_key(|(attempts, due, _)| (*attempts, *due));
        due.truncate(limit);
        for (_, _, CatchUp { source, target, .. }) in &due {
            if let Some(member) = self.members.get_mut(&(*source, target.session.clone())) {
                member.in_flight = true;
            }
        }
        Ok(due.into_iter().map(|(_, _, catch_up)| catch_up).collect())
    }

    /// A catch-up is over: the session was sent everything from where the catch-up began up to `to`.
    ///
    /// # Errors
    /// [`LogError`]: then the member stays where it is.
    pub fn end_catch_up(
        &mut self,
        catch_up: &CatchUp,
        to: Position,
        verdict: Verdict,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        let settled = self.settle();
        let key = (catch_up.source, catch_up.target.session.clone());
        if let Some(member) = self.members.get_mut(&key) {
            member.in_flight = false;
        }
        settled?;
        let Some(life) = self.lives.get(&catch_up.source) else { return Ok(()) };
        let (cursor, may_step) = (life.row.cursor, !life.is_delivering);
        let Some(member) = self.members.get_mut(&key) else { return Ok(()) };
        let Place::Own { next, attempts, .. } = member.row.place else { return Ok(()) };
        if member.row.epoch != catch_up.target.epoch {
            return Ok(());
        }
        let mut writes = Vec::new();
        member.row.place = match verdict {
            Verdict::Gone => {
                self.plan_gone(catch_up.source, &catch_up.target, &mut writes, now);
                return self.commit(writes, now);
            }
            Verdict::Done if to.max(next) >= cursor && may_step => Place::InStep,
            Verdict::Done => failing(to.max(next), 0, now),
            Verdict::Behind(behind) => failing(behind, 0, now),
            Verdict::Failed => failing(next, attempts.saturating_add(1), now),
            Verdict::Untried => failing(next, attempts, now),
        };
        writes.push(RosterWrite::Member(member.row.clone()));
        self.plan_ends(catch_up.source, &mut writes, now);
        self.commit(writes, now)
    }

    /// The one delivery that an open breaker allows when its time has come. To be answered with
    /// [`Shard::end_probe`]. `None`: not yet, or there is nothing to deliver, and the breaker is closed.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn begin_probe(&mut self, now: UnixMillis) -> Result<Option<CatchUp>, LogError> {
        self.settle()?;
        if !self.breaker.is_to_be_probed(now) {
            return Ok(None);
        }
        let lives = &self.lives;
        let candidates = self.members.values().filter_map(|member| {
            let life = lives.get(&member.row.source)?;
            match member.row.place {
                Place::InStep if life.row.cursor < life.row.up_to => {
                    Some(member.range(life, life.row.cursor, 0))
                }
                _ => member.catch_up(life),
            }
        });
        // One session that always fails must not speak for the others.
        let probe = candidates.min_by_key(|probe| probe.attempts);
        if probe.is_none() {
            self.end_probe(None, true, now)?;
        }
        Ok(probe)
    }

    /// The probe is over. Whoever did not get it goes on from a position of its own, so that the next probe
    /// is another's.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn end_probe(
        &mut self,
        probe: Option<&CatchUp>,
        succeeded: bool,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        self.settle()?;
        self.breaker.probed(succeeded, now);
        let mut writes = vec![RosterWrite::Breaker(self.breaker.open())];
        if let Some(CatchUp { source, from, target, attempts, .. }) = probe.filter(|_| !succeeded)
            && let Some(member) = self.members.get_mut(&(*source, target.session.clone()))
            && member.row.epoch == target.epoch
            && !matches!(member.row.place, Place::Leaving { .. })
        {
            member.row.place = failing(*from, attempts.saturating_add(1), now);
            writes.push(RosterWrite::Member(member.row.clone()));
        }
        self.commit(writes, now)
    }

    /// Whether so many failures are enough to stop trying the rest of a batch.
    pub fn gives_up(&self, successes: u64, failures: u64) -> bool {
        self.breaker.would_open(successes, failures)
    }
}

impl Member {
    /// What the member lacks, if it has a position of its own and nothing is under way.
    fn catch_up(&self, life: &Life) -> Option<CatchUp> {
        match self.row.place {
            Place::Own { next, attempts, .. } if !self.in_flight && next < life.row.up_to => {
                Some(self.range(life, next, attempts))
            }
            _ => None,
        }
    }

    fn range(&self, life: &Life, from: Position, attempts: u32) -> CatchUp {
        CatchUp {
            source: life.row.generation,
            from,
            up_to: life.row.up_to,
            is_gap: life.row.state == LifeState::Lapsed,
            target: self.target(),
            attempts,
        }
    }
}
