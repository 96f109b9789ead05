//! Deliveries: what a nudge, a message of the queue, and the alarm do.

use std::cell::Cell;
use std::collections::BTreeMap;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};

use protocol::fanout::{
    Deliver, DeliverNow, Delivered, Ended, FanoutMode, Left, LifeState, Nudge, Nudged,
    QueueMessage, ShardId, SourceLife,
};
use protocol::limits::{FANOUT_CALLS_MAX, FANOUT_FLYING_BYTES_MAX, FANOUT_RANGES_MAX};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::{ShardServer, Undo, no_answer};
use crate::fanout::peers::{Event, Fetched, NoAnswer, Peers};
use crate::fanout::roster::Roster;
use crate::fanout::shard::{Batch, Begun, CatchUp, Departure, Heard, Shard, Target, Verdict};
use crate::log::{Blob, LogError};

/// How long a publisher waits for deliveries.
const INLINE_MS: u64 = 5_000;
/// How long one run of the alarm, or of a queue's message, goes on before the next one takes over.
const RUN_MS: u64 = 20_000;
/// When the alarm looks whether the queue has done its work.
const QUEUE_PATIENCE_MS: u64 = 10_000;

/// A range, read once for everybody who gets it.
struct Range<B> {
    to: Position,
    offsets: Generation,
    is_gap: bool,
    bytes: B,
}

/// What one run may use: time, and calls to others.
struct Allowance {
    until: UnixMillis,
    calls: Cell<u64>,
}

impl Allowance {
    fn until(until: UnixMillis) -> Self {
        Self { until, calls: Cell::new(0) }
    }

    fn spend(&self, calls: usize) {
        self.calls.set(self.calls.get().saturating_add(calls as u64).saturating_add(1));
    }

    fn is_spent(&self, now: UnixMillis) -> bool {
        now >= self.until || self.calls.get() >= FANOUT_CALLS_MAX
    }
}

/// What came of reading a range for a batch. The shard knows of what went wrong.
enum Read<B> {
    Range(Range<B>),
    Lapsed,
    Failed,
}

impl<R: Roster, P: Peers> ShardServer<R, P> {
    /// A source tells where its tail is.
    ///
    /// # Errors
    /// [`LogError`]: nothing is promised.
    pub async fn nudge(&self, nudge: &Nudge) -> Result<Nudged, LogError> {
        let heard = loop {
            let now = self.peers.now();
            match self.with(|shard| shard.hear(nudge, now))?? {
                Heard::Joining => self.changed().await,
                heard => break heard,
            }
        };
        if heard == Heard::Unknown {
            return Ok(Nudged::Drop);
        }
        let (mode, was_tried) = self.fan_out(nudge).await?;
        let now = self.peers.now();
        self.with(|shard| shard.promise(nudge.generation, nudge.tail, now, now))??;
        let mut fanout = self.with(|shard| shard.report(nudge.generation, nudge.tail))?;
        fanout.mode = mode;
        let tried = if was_tried { fanout.count } else { fanout.successes };
        fanout.failures = tried.saturating_sub(fanout.successes);
        Ok(Nudged::Noted(fanout))
    }

    /// Delivers now, or leaves it to the queue or to the alarm. Also whether it was tried.
    async fn fan_out(&self, nudge: &Nudge) -> Result<(FanoutMode, bool), LogError> {
        let Nudge { generation, tail, shards, .. } = nudge;
        let now = self.peers.now();
        if let Some(at) = self.with(|shard| shard.resumes_at())? {
            self.with(|shard| shard.promise(*generation, *tail, at, now))??;
            return Ok((FanoutMode::Deferred, false));
        }
        let is_inline = *shards <= 1 && self.with(|shard| shard.may_inline(*generation))?;
        if is_inline || nudge.state != LifeState::Live {
            let allowance = Allowance::until(now.saturating_add_ms(INLINE_MS));
            self.drive(*generation, *tail, &allowance).await?;
            let is_done = self.with(|shard| shard.has_reached(*generation, *tail))?;
            let mode = if is_done { FanoutMode::Inline } else { FanoutMode::Deferred };
            return Ok((mode, true));
        }
        let later = now.saturating_add_ms(QUEUE_PATIENCE_MS);
        self.with(|shard| shard.promise(*generation, *tail, later, now))??;
        let message = QueueMessage {
            source: self.names.source.clone(),
            generation: *generation,
            shard: self.names.shard,
            up_to: *tail,
            traceparent: nudge.traceparent.clone(),
        };
        if let Err(NoAnswer(cause)) = self.peers.enqueue(&message).await {
            // One batch is bounded; the rest is the alarm's.
            self.peers.tell(Event::QueueFailed { cause });
            self.drive(*generation, *tail, &Allowance::until(now)).await?;
            let now = self.peers.now();
            self.with(|shard| shard.promise(*generation, *tail, now, now))??;
            return Ok((FanoutMode::Deferred, true));
        }
        Ok((FanoutMode::Queued, false))
    }

    /// The queue's message has come.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn deliver_now(&self, message: &DeliverNow) -> Result<(), LogError> {
        let until = self.peers.now().saturating_add_ms(RUN_MS);
        self.drive(message.generation, message.up_to, &Allowance::until(until)).await
    }

    /// Moves the cursor of a life up to a position, batch by batch, until it is there, nothing can be
    /// done, or the run has had its allowance.
    async fn drive(
        &self,
        source: Generation,
        up_to: Position,
        allowance: &Allowance,
    ) -> Result<(), LogError> {
        loop {
            if self.with(|shard| shard.has_reached(source, up_to))? {
                return Ok(());
            }
            match self.with(|shard| shard.begin_batch(source))?? {
                Begun::Nothing => return Ok(()),
                Begun::Busy => self.changed().await,
                Begun::Batch(batch) => {
                    allowance.spend(batch.targets.len());
                    let moved = self.run(&batch).await;
                    self.wake();
                    if !moved? {
                        return Ok(());
                    }
                }
            }
            if allowance.is_spent(self.peers.now()) {
                return Ok(());
            }
        }
    }

    /// Reads and delivers one batch. `false`: that did not move the cursor, and need not be tried again
    /// at once.
    async fn run(&self, batch: &Batch) -> Result<bool, LogError> {
        let began = self.peers.now();
        if batch.targets.is_empty() {
            self.with(|shard| shard.end_batch(batch, batch.up_to, &[], began))??;
            return Ok(true);
        }
        let given_back = Undo(Some(|| {
            let _ = self.with(|shard| shard.give_back(batch.source));
            self.wake();
        }));
        let range = match self.fetch(batch).await? {
            Read::Range(range) => range,
            Read::Lapsed => return Ok(true),
            Read::Failed => return Ok(false),
        };
        let targets: Vec<_> = batch.targets.iter().map(|target| (target, 0)).collect();
        let verdicts = self.deliver_all((batch.source, batch.from), &targets, &range).await?;
        let now = self.peers.now();
        given_back.disarm();
        let has_opened = self.with(|shard| shard.end_batch(batch, range.to, &verdicts, now))??;
        if has_opened {
            self.peers.tell(Event::BreakerOpened);
            return Ok(false);
        }
        let took_ms = now.saturating_since_ms(began);
        self.with(|shard| shard.measured(batch.targets.len(), took_ms))?;
        Ok(true)
    }

    /// The range of a batch.
    async fn fetch(&self, batch: &Batch) -> Result<Read<P::Bytes>, LogError> {
        let source = batch.source;
        if batch.is_gap {
            return Ok(Read::Range(gap(source, batch.up_to)));
        }
        let read = self.read(source, batch.from).await;
        let now = self.peers.now();
        match read {
            Ok(Ok(range)) => Ok(Read::Range(range)),
            Ok(Err(tail)) => {
                self.with(|shard| shard.give_back(source))?;
                self.with(|shard| shard.source_lapsed(source, tail, now))??;
                Ok(Read::Lapsed)
            }
            Err(NoAnswer(cause)) => {
                self.peers.tell(Event::SourceFailed { cause });
                self.with(|shard| shard.source_failed(source, now))??;
                Ok(Read::Failed)
            }
        }
    }

    /// Reads the source; an inner error says that the life's bytes are gone, and its tail if that is
    /// known.
    async fn read(
        &self,
        source: Generation,
        from: Position,
    ) -> Result<Result<Range<P::Bytes>, Option<Position>>, NoAnswer> {
        let limit = self.with(|shard| shard.bounds().range_bytes).map_err(no_answer)?;
        let read = self.peers.replicate(&self.names.source, source, from, limit);
        match self.in_time(read).await? {
            Fetched::Range { to, offsets, bytes } if to > from => {
                Ok(Ok(Range { to, offsets, is_gap: false, bytes }))
            }
            Fetched::Range { .. } => Err(NoAnswer("the source has no such bytes yet".into())),
            Fetched::Lapsed { tail } => Ok(Err(Some(tail))),
            Fetched::NoLife => Ok(Err(None)),
        }
    }

    /// Delivers a range to everybody, some at a time, and stops when most fail.
    async fn deliver_all(
        &self,
        (source, from): (Generation, Position),
        targets: &[(&Target, u32)],
        range: &Range<P::Bytes>,
    ) -> Result<Vec<Verdict>, LogError> {
        let most = FANOUT_FLYING_BYTES_MAX.checked_div(range.bytes.len()).unwrap_or(u64::MAX);
        let bounds = self.with(|shard| shard.bounds())?;
        // Many that do not answer must not keep the others from the next range.
        let until = self.peers.now().saturating_add_ms(bounds.deadline_ms.saturating_mul(2));
        let at_a_time = bounds.concurrency.min(most);
        let at_a_time = usize::try_from(at_a_time).unwrap_or(1).max(1);
        let mut verdicts = vec![Verdict::Untried; targets.len()];
        let deliver = |(at, (target, attempts))| async move {
            (at, self.deliver(source, from, target, range, attempts).await)
        };
        let mut waiting = targets.iter().copied().enumerate();
        let mut flying: FuturesUnordered<_> =
            waiting.by_ref().take(at_a_time).map(deliver).collect();
        let (mut successes, mut failures) = (0, 0);
        while let Some((at, verdict)) = flying.next().await {
            if let Some(slot) = verdicts.get_mut(at) {
                *slot = verdict;
            }
            match verdict {
                Verdict::Failed => failures += 1,
                _ => successes += 1,
            }
            let gives_up = self.with(|shard| shard.gives_up(successes, failures))?
                || self.peers.now() >= until;
            if let Some(next) = waiting.next().filter(|_| !gives_up) {
                flying.push(deliver(next));
            }
        }
        Ok(verdicts)
    }

    async fn deliver(
        &self,
        source: Generation,
        from: Position,
        target: &Target,
        range: &Range<P::Bytes>,
        attempts: u32,
    ) -> Verdict {
        let message = Deliver {
            session: target.generation,
            link: SourceLife { source: self.names.source.clone(), generation: source },
            epoch: target.epoch,
            from,
            to: range.to,
            offsets: range.offsets,
            is_gap: range.is_gap,
        };
        let stream = self.names.stream_of(&target.session);
        let delivered = self.in_time(self.peers.deliver(&stream, &message, &range.bytes)).await;
        let session = || target.session.clone();
        match delivered {
            Ok(Delivered::Done) => {
                if range.is_gap {
                    self.peers.tell(Event::Gap { session: session(), from, to: range.to });
                }
                Verdict::Done
            }
            Ok(Delivered::Behind { next }) => Verdict::Behind(next),
            Ok(Delivered::Gone) => {
                self.peers.tell(Event::Dropped { session: session() });
                Verdict::Gone
            }
            Err(NoAnswer(cause)) => {
                let attempt = attempts.saturating_add(1);
                let (session, to) = (session(), range.to);
                self.peers.tell(Event::DeliveryFailed { session, from, to, attempt, cause });
                Verdict::Failed
            }
        }
    }

    // ── the alarm ────────────────────────────────────────────────────────────────────────────────

    /// The alarm: does what is due, and sets itself for what is not.
    ///
    /// # Errors
    /// [`LogError`]: the alarm may not be set.
    pub async fn alarm(&self) -> Result<(), LogError> {
        self.with(Shard::begin_alarm)??;
        let allowance = Allowance::until(self.peers.now().saturating_add_ms(RUN_MS));
        loop {
            let did = self.work(&allowance).await;
            if let Err(error) = &did {
                self.peers.tell(Event::StorageFailed { cause: error.to_string() });
            }
            if !did.unwrap_or(false) || allowance.is_spent(self.peers.now()) {
                break;
            }
        }
        let now = self.peers.now();
        self.with(|shard| shard.end_alarm(now))?
    }

    /// One round of what is due. `false`: there was nothing.
    async fn work(&self, allowance: &Allowance) -> Result<bool, LogError> {
        let now = self.peers.now();
        let probed = self.probe(now).await?;
        let at_a_time = self.with(|shard| shard.bounds().concurrency)?;
        let at_a_time = usize::try_from(at_a_time).unwrap_or(1).max(1);
        let lives = self.with(|shard| shard.due_lives(now))?;
        let catch_ups = self.with(|shard| shard.begin_catch_ups(at_a_time, now))??;
        let departures = self.with(|shard| shard.begin_departures(at_a_time, now))?;
        let is_idle = lives.is_empty() && departures.is_empty() && catch_ups.is_empty();
        allowance.spend(2 * (departures.len() + catch_ups.len()));
        let batches = lives.into_iter().map(|source| self.drive_one(source, allowance));
        let batches = join_all(batches);
        let caught = self.catch_all_up(&catch_ups);
        let told = join_all(departures.iter().map(|departure| self.depart(departure)));
        let (batches, caught, told) = futures::join!(batches, caught, told);
        let outcomes = batches.into_iter().chain([caught]).chain(told);
        outcomes.collect::<Result<Vec<()>, LogError>>()?;
        Ok(probed || !is_idle)
    }

    /// One batch of a life.
    async fn drive_one(&self, source: Generation, allowance: &Allowance) -> Result<(), LogError> {
        match self.with(|shard| shard.begin_batch(source))?? {
            Begun::Nothing => Ok(()),
            Begun::Busy => {
                self.changed().await;
                Ok(())
            }
            Begun::Batch(batch) => {
                allowance.spend(batch.targets.len());
                let moved = self.run(&batch).await;
                self.wake();
                moved.map(|_| ())
            }
        }
    }

    /// Catch-ups that begin at the same position share a range; few ranges are held at a time.
    async fn catch_all_up(&self, catch_ups: &[CatchUp]) -> Result<(), LogError> {
        let given_back = Undo(Some(|| {
            for CatchUp { source, target, .. } in catch_ups {
                let _ = self.with(|shard| shard.give_back_one(*source, target));
            }
        }));
        let mut groups: BTreeMap<_, Vec<&CatchUp>> = BTreeMap::new();
        for catch_up in catch_ups {
            groups.entry((catch_up.source, catch_up.from)).or_default().push(catch_up);
        }
        let caught = groups.into_values().map(|group| self.catch_group_up(group));
        let mut caught = futures::stream::iter(caught).buffer_unordered(FANOUT_RANGES_MAX);
        while let Some(outcome) = caught.next().await {
            outcome?;
        }
        given_back.disarm();
        Ok(())
    }

    async fn catch_group_up(&self, group: Vec<&CatchUp>) -> Result<(), LogError> {
        let Some(first) = group.first() else { return Ok(()) };
        let (to, verdicts) = match self.range_of(first).await? {
            Ok(range) => {
                let targets: Vec<_> =
                    group.iter().map(|catch_up| (&catch_up.target, catch_up.attempts)).collect();
                let at = (first.source, first.from);
                (range.to, self.deliver_all(at, &targets, &range).await?)
            }
            Err(verdict) => (first.from, vec![verdict; group.len()]),
        };
        let now = self.peers.now();
        for (catch_up, verdict) in group.into_iter().zip(verdicts) {
            self.with(|shard| shard.end_catch_up(catch_up, to, verdict, now))??;
        }
        Ok(())
    }

    /// The range that a member lacks; or what the lack of it means.
    async fn range_of(
        &self,
        catch_up: &CatchUp,
    ) -> Result<Result<Range<P::Bytes>, Verdict>, LogError> {
        let CatchUp { source, from, up_to, is_gap, .. } = catch_up;
        if *is_gap {
            return Ok(Ok(gap(*source, *up_to)));
        }
        match self.read(*source, *from).await {
            Ok(Ok(range)) => Ok(Ok(range)),
            Ok(Err(tail)) => {
                let now = self.peers.now();
                self.with(|shard| shard.source_lapsed(*source, tail, now))??;
                Ok(Err(Verdict::Untried))
            }
            Err(NoAnswer(cause)) => {
                self.peers.tell(Event::SourceFailed { cause });
                Ok(Err(Verdict::Failed))
            }
        }
    }

    /// The one delivery that an open breaker allows.
    async fn probe(&self, now: UnixMillis) -> Result<bool, LogError> {
        let Some(probe) = self.with(|shard| shard.begin_probe(now))?? else { return Ok(false) };
        let CatchUp { source, from, target, attempts, .. } = &probe;
        let verdict = match self.range_of(&probe).await? {
            Ok(range) => self.deliver(*source, *from, target, &range, *attempts).await,
            Err(verdict) => verdict,
        };
        let succeeded = verdict != Verdict::Failed;
        let now = self.peers.now();
        self.with(|shard| shard.end_probe(Some(&probe), succeeded, now))??;
        if succeeded {
            self.peers.tell(Event::BreakerClosed);
        }
        Ok(true)
    }

    async fn depart(&self, departure: &Departure) -> Result<(), LogError> {
        let given_back = Undo(Some(|| {
            let _ = self.with(|shard| shard.give_back_one(departure.source, &departure.target));
        }));
        let told = self.tell_departure(departure).await;
        given_back.disarm();
        let now = self.peers.now();
        self.with(|shard| shard.end_departure(departure, told.is_ok(), now))?
    }

    async fn tell_departure(&self, departure: &Departure) -> Result<(), NoAnswer> {
        let Departure { source, target, has_ended, tells_root, remaining } = departure;
        if *has_ended {
            let link = SourceLife { source: self.names.source.clone(), generation: *source };
            let message = Ended { link, session: target.generation, epoch: target.epoch };
            self.ask(&self.names.session(&target.session), &message).await?;
        }
        if *tells_root {
            let (session, shard) = (target.session.clone(), self.names.shard);
            let (epoch, remaining) = (target.epoch, *remaining);
            let message = Left { shard, session, epoch, remaining };
            self.ask(&self.names.shard(ShardId::ROOT), &message).await?;
        }
        Ok(())
    }
}

/// A range whose bytes are gone.
fn gap<B: Blob>(source: Generation, to: Position) -> Range<B> {
    Range { to, offsets: source, is_gap: true, bytes: B::from_vec(Vec::new()) }
}
