//! A source and its shards, with messages that are lost, late and out of order, and a source that
//! loses its memory at any time: nobody who has subscribers is forgotten.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::fanout::{LifeState, Nudge, Nudged, ShardAttached, ShardId};
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::{
    NOTED, NOW, Phase, TestStream, alarm, append, attach, begin, bytes, create, has_duty, phases,
    source, woken,
};
use crate::log::Log;

#[derive(Clone, Debug)]
enum Step {
    Append,
    /// A shard attaches for a subscriber; whether it hears the answer.
    Attach(u32, bool),
    /// The last subscriber of a shard, of any life, has gone.
    Leave(u32),
    Begin(usize),
    /// The nudge in flight of this number arrives.
    Arrive(usize),
    /// The answer of this number arrives, or is lost.
    Answer(usize, bool),
    Alarm,
    Wake,
    Delete,
    Create,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Append),
        3 => (0..3_u32, any::<bool>()).prop_map(|(shard, hears)| Step::Attach(shard, hears)),
        2 => (0..3_u32).prop_map(Step::Leave),
        5 => (1..4_usize).prop_map(Step::Begin),
        6 => (0..4_usize).prop_map(Step::Arrive),
        6 => (0..4_usize, prop::bool::weighted(0.8)).prop_map(|(at, comes)| Step::Answer(at, comes)),
        2 => Just(Step::Alarm),
        1 => Just(Step::Wake),
        1 => Just(Step::Delete),
        1 => Just(Step::Create),
        2 => (0..40_000_u64).prop_map(Step::Wait),
    ]
}

/// What a shard with subscribers knows of a life.
type Known = (u8, u64);

fn known(nudge: &Nudge) -> Known {
    let state = match nudge.state {
        LifeState::Live => 0,
        LifeState::Held => 1,
        LifeState::Lapsed => 2,
    };
    (state, nudge.tail.0)
}

struct World {
    stream: TestStream,
    now: UnixMillis,
    /// Shards with subscribers, and what they know.
    shards: BTreeMap<(Generation, u32), Known>,
    /// What every life that has not been forgotten has held in the end.
    tails: BTreeMap<Generation, u64>,
    asked: Vec<(ShardId, Nudge)>,
    answered: Vec<(ShardId, Nudge, Nudged)>,
}

impl World {
    fn new() -> Self {
        let (stream, generation) = source();
        Self {
            stream,
            now: NOW,
            shards: BTreeMap::new(),
            tails: BTreeMap::from([(generation, 3)]),
            asked: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Append => {
                let Some(generation) = self.stream.generation() else { return };
                append(&mut self.stream, b"d", self.now);
                self.tails.entry(generation).and_modify(|tail| *tail += 1);
            }
            Step::Attach(shard, hears) => {
                let attached = attach(&mut self.stream, shard, "now");
                let ShardAttached::Attached { generation, tail, .. } = attached else { return };
                if hears {
                    let known = self.shards.entry((generation, shard)).or_insert((0, 0));
                    *known = (*known).max((0, tail.0));
                }
            }
            Step::Leave(shard) => self.shards.retain(|(_, of), _| *of != shard),
            Step::Begin(limit) => {
                let begun = self.stream.begin_nudges(limit, self.now);
                assert!(begun.len() <= limit);
                self.asked.extend(begun);
            }
            Step::Arrive(at) => self.arrive(at),
            Step::Answer(at, comes) => {
                if at < self.answered.len() {
                    let (shard, nudge, answer) = self.answered.remove(at);
                    let answer = comes.then_some(answer);
                    self.stream.nudged(shard, &nudge, answer, self.now).unwrap();
                }
            }
            Step::Alarm => {
                self.alarm();
            }
            Step::Wake => {
                let stream = std::mem::replace(&mut self.stream, source().0);
                self.stream = woken(stream);
                self.asked.clear();
                self.answered.clear();
            }
            Step::Delete => {
                let _ = self.stream.delete(self.now);
            }
            Step::Create => {
                if self.stream.generation().is_none() {
                    let generation = create(&mut self.stream, self.now);
                    self.tails.insert(generation, 3);
                }
            }
            Step::Wait(ms) => self.now = self.now.saturating_add_ms(ms),
        }
    }

    fn arrive(&mut self, at: usize) {
        if at >= self.asked.len() {
            return;
        }
        let (shard, nudge) = self.asked.remove(at);
        let answer = match self.shards.get_mut(&(nudge.generation, shard.0)) {
            None => Nudged::Drop,
            Some(knows) => {
                *knows = (*knows).max(known(&nudge));
                NOTED.unwrap()
            }
        };
        self.answered.push((shard, nudge, answer));
    }

    /// The object's alarm, as often as it is due now.
    fn alarm(&mut self) {
        while self.stream.next_due().is_some_and(|due| due <= self.now) {
            alarm(&mut self.stream, self.now);
        }
    }

    /// Nobody with subscribers is forgotten, and what they may still read is there.
    fn check(&mut self) {
        let rows = self.stream.log.shards(99).unwrap();
        for ((generation, shard), knows) in self.shards.clone() {
            assert!(rows.contains(&(generation, ShardId(shard))), "{generation:?} {shard}");
            let life = self.stream.log.life(generation).unwrap().unwrap();
            let tail = self.tails[&generation];
            let stands = match life.phase {
                Phase::Live => (0, tail),
                Phase::Held => (1, tail),
                Phase::Lapsed => (2, tail),
                other => panic!("{other:?}"),
            };
            assert!(knows >= stands || has_duty(&self.stream), "{knows:?} of {stands:?}");
            if life.phase != Phase::Lapsed {
                let held = bytes(&mut self.stream, generation, 0, self.now);
                assert_eq!(held.len() as u64, tail);
            }
        }
    }

    /// Messages arrive from now on, and everybody leaves whose source has ended.
    fn settle(mut self) {
        self.asked.clear();
        self.answered.clear();
        for _ in 0..20 {
            self.now = self.now.saturating_add_ms(60_000);
            self.alarm();
            let over: Vec<Generation> = {
                let live = self.stream.generation();
                self.tails.keys().copied().filter(|life| Some(*life) != live).collect()
            };
            for (shard, nudge) in begin(&mut self.stream, self.now) {
                self.asked.push((shard, nudge));
                self.arrive(0);
                let (shard, nudge, answer) = self.answered.remove(0);
                self.stream.nudged(shard, &nudge, Some(answer), self.now).unwrap();
            }
            self.check();
            self.shards.retain(|(generation, _), _| !over.contains(generation));
        }
        let live = self.stream.generation();
        for ((_, _), (state, tail)) in &self.shards {
            assert_eq!((*state, Some(tail)), (0, live.and_then(|live| self.tails.get(&live))));
        }
        if !self.doubts() {
            assert!(phases(&self.stream).iter().all(|phase| *phase == Phase::Live));
            assert!(!has_duty(&self.stream) && self.stream.duties.is_empty());
        }
    }

    /// Whether an answer was lost without a trace: then a shard's wish to go is not believed before
    /// the next wake-up.
    fn doubts(&mut self) -> bool {
        let doubts = phases(&self.stream).iter().any(|phase| *phase != Phase::Live);
        if doubts {
            self.stream = woken(std::mem::replace(&mut self.stream, source().0));
            for _ in 0..4 {
                self.now = self.now.saturating_add_ms(60_000);
                self.alarm();
                super::answer(&mut self.stream, super::DROP, self.now);
                self.alarm();
            }
            assert!(phases(&self.stream).iter().all(|phase| *phase == Phase::Live));
        }
        doubts
    }
}

proptest! {
    #[test]
    fn nobody_is_forgotten(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.perform(step);
            world.check();
        }
        world.settle();
    }
}
