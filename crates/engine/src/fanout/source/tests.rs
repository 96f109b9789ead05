//! Shards that are told, that do not answer, and whose source ends.

use protocol::content_type::ContentType;
use protocol::fanout::{
    AttachShard, Fanout, LifeState, Nudge, Nudged, ShardAttached, ShardId, SourceRefusal,
};
use protocol::lifetime::Lifetime;
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::Replicated;
use crate::append::Append;
use crate::cold::Content;
use crate::create::Create;
use crate::delete::Deleted;
use crate::duties::Busy;
use crate::fork::{Begun, ForkRequest, ForkWish};
use crate::life::Phase;
use crate::log::memory::MemoryLog;
use crate::log::{Duty, ForkId, Key, Log};
use crate::stream::{Bounds, Stream};

const NOW: UnixMillis = UnixMillis(1_000);
const NOTED: Option<Nudged> = Some(Nudged::Noted(Fanout {
    count: 0,
    successes: 0,
    failures: 0,
    mode: protocol::fanout::FanoutMode::Inline,
}));
const DROP: Option<Nudged> = Some(Nudged::Drop);

mod model;

type TestStream = Stream<MemoryLog>;

fn later(ms: u64) -> UnixMillis {
    NOW.saturating_add_ms(ms)
}

fn create(stream: &mut TestStream, now: UnixMillis) -> Generation {
    let create = Create {
        content_type: Some(ContentType::parse("text/plain").unwrap()),
        lifetime: Lifetime::Unlimited,
        closed: false,
        public: false,
        session: None,
        body: b"abc".to_vec(),
        fork: None,
    };
    stream.create(&create, now).unwrap();
    stream.generation().unwrap()
}

fn source() -> (TestStream, Generation) {
    let mut stream = Stream::open(MemoryLog::default()).unwrap();
    stream.set_bounds(Bounds { fanout_hold_ms: 100_000, ..Bounds::default() });
    let generation = create(&mut stream, NOW);
    (stream, generation)
}

fn attach(stream: &mut TestStream, shard: u32, from: &str) -> ShardAttached {
    let request = AttachShard { shard: ShardId(shard), from: from.into() };
    stream.attach_shard(&request, NOW).unwrap()
}

fn append(stream: &mut TestStream, body: &[u8], now: UnixMillis) {
    let append = Append {
        content_type: Some(ContentType::parse("text/plain").unwrap()),
        body: body.to_vec(),
        producer: None,
        seq: None,
        close: false,
        delivery: None,
    };
    assert!(stream.append_group(vec![append], now).replies[0].is_ok());
}

/// Loses memory.
fn woken(stream: TestStream) -> TestStream {
    let bounds = stream.bounds;
    let mut stream = Stream::open(stream.into_log()).unwrap();
    stream.set_bounds(bounds);
    stream
}

fn begin(stream: &mut TestStream, now: UnixMillis) -> Vec<(ShardId, Nudge)> {
    stream.begin_nudges(99, now)
}

/// Answers whoever is to be told, once.
fn answer(stream: &mut TestStream, answer: Option<Nudged>, now: UnixMillis) -> usize {
    let nudges = begin(stream, now);
    for (shard, nudge) in &nudges {
        stream.nudged(*shard, nudge, answer, now).unwrap();
    }
    nudges.len()
}

fn is_pending(stream: &TestStream, position: Position) -> bool {
    !stream.unaware_shards(position).0.is_empty()
}

fn has_duty(stream: &TestStream) -> bool {
    stream.log.duties().unwrap().iter().any(|(duty, _)| *duty == Duty::Fanout)
}

fn alarm(stream: &mut TestStream, now: UnixMillis) -> bool {
    stream.on_alarm(Busy::default(), now).unwrap().nudge
}

fn bytes(stream: &mut TestStream, generation: Generation, from: u64, now: UnixMillis) -> Vec<u8> {
    match stream.replicate(generation, Position(from), 1 << 20, now).unwrap() {
        Replicated::Page(page) => match page.content {
            Content::Hot(bytes) => bytes,
            Content::Cold(_) => panic!("nothing is cold"),
        },
        other => panic!("{other:?}"),
    }
}

fn is_lapsed(stream: &mut TestStream, generation: Generation, now: UnixMillis) -> bool {
    matches!(
        stream.replicate(generation, Position(0), 9, now).unwrap(),
        Replicated::Lapsed { tail: Position(5) }
    )
}

fn phases(stream: &TestStream) -> Vec<Phase> {
    stream.log.lives(99).unwrap().into_iter().map(|life| life.phase).collect()
}

#[test]
fn attaching_names_the_start_and_the_tail() {
    let (mut stream, generation) = source();
    let at = format!("{:016}_{:016}", generation.0, 2);
    for (from, start) in [("-1", 0), ("now", 3), (&at, 2)] {
        let attached = ShardAttached::Attached {
            generation,
            start: Position(start),
            tail: Position(3),
            content_type: "text/plain".into(),
        };
        assert_eq!(attach(&mut stream, 0, from), attached);
    }
    assert_eq!(stream.shard_count(), 1);
    let (old, far) = (format!("{:016}_{:016}", 1, 2), format!("{:016}_{:016}", generation.0, 9));
    for (from, refusal) in [
        ("x", SourceRefusal::InvalidOffset),
        (&old, SourceRefusal::StaleOffset),
        (&far, SourceRefusal::OffsetBeyondTail),
    ] {
        assert_eq!(attach(&mut stream, 1, from), ShardAttached::Refused(refusal));
    }
    assert_eq!(stream.log.shards(9).unwrap(), [(generation, ShardId(0))]);
    stream.delete(NOW).unwrap();
    let refused = ShardAttached::Refused(SourceRefusal::NotFound);
    assert_eq!(attach(&mut stream, 0, "-1"), refused);
}

#[test]
fn whoever_is_behind_is_told_once_at_a_time() {
    let (mut stream, generation) = source();
    append(&mut stream, b"d", NOW);
    assert!(!has_duty(&stream), "nobody is to be told");
    for shard in [0, 1] {
        attach(&mut stream, shard, "now");
    }
    assert!(begin(&mut stream, NOW).is_empty());
    append(&mut stream, b"e", NOW);
    assert!(has_duty(&stream) && is_pending(&stream, Position(5)));
    assert!(!is_pending(&stream, Position(4)));
    let nudges = stream.begin_nudges(1, NOW);
    let nudge = Nudge {
        generation,
        tail: Position(5),
        state: LifeState::Live,
        shards: 2,
        traceparent: None,
    };
    assert_eq!(nudges, [(ShardId(0), nudge.clone())]);
    append(&mut stream, b"f", NOW);
    // What piles up goes with the next.
    let second = begin(&mut stream, NOW);
    assert_eq!(second.len(), 1);
    assert_eq!((second[0].0, second[0].1.tail), (ShardId(1), Position(6)));
    stream.nudged(ShardId(1), &second[0].1, NOTED, NOW).unwrap();
    stream.nudged(ShardId(0), &nudge, NOTED, NOW).unwrap();
    assert!(!is_pending(&stream, Position(5)) && is_pending(&stream, Position(6)));
    assert!(alarm(&mut stream, later(1_000)), "shard 0 has not noted the tail");
    assert_eq!(answer(&mut stream, NOTED, later(1_000)), 1);
    assert!(!is_pending(&stream, Position(6)) && has_duty(&stream));
    assert!(!alarm(&mut stream, later(3_000)) && !has_duty(&stream));
}

#[test]
fn who_does_not_answer_is_asked_by_the_duty() {
    let (mut stream, _) = source();
    attach(&mut stream, 0, "now");
    append(&mut stream, b"d", NOW);
    assert_eq!(answer(&mut stream, None, NOW), 1);
    append(&mut stream, b"e", NOW);
    assert!(begin(&mut stream, NOW).is_empty(), "not before the duty says so");
    assert!(!is_pending(&stream, Position(5)), "and nobody waits for it");
    let (mut now, mut pauses) = (later(1_000), Vec::new());
    for _ in 0..9 {
        assert!(alarm(&mut stream, now));
        assert_eq!(answer(&mut stream, None, now), 1);
        let due = stream.duties.get(&Duty::Fanout).copied().unwrap();
        pauses.push(due.saturating_since_ms(now) / 1_000);
        now = due;
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60, 60]);
    // Memory is lost: nobody counts as noted.
    let mut stream = woken(stream);
    assert!(is_pending(&stream, Position(5)));
    assert!(alarm(&mut stream, now));
    assert_eq!(answer(&mut stream, NOTED, now), 1);
    assert!(!alarm(&mut stream, later(1_000_000)) && !has_duty(&stream));
    // Without the duty everybody has noted everything.
    assert!(begin(&mut woken(stream), now).is_empty());
}

#[test]
fn a_shard_goes_when_it_says_so_after_it_attached() {
    let (mut stream, generation) = source();
    attach(&mut stream, 0, "now");
    append(&mut stream, b"d", NOW);
    let (shard, nudge) = begin(&mut stream, NOW).pop().unwrap();
    attach(&mut stream, 0, "now");
    stream.nudged(shard, &nudge, DROP, NOW).unwrap();
    assert_eq!(stream.shard_count(), 1, "it has attached since");
    append(&mut stream, b"e", NOW);
    let (_, lost) = begin(&mut stream, NOW).pop().unwrap();
    let (_, again) = begin(&mut stream, later(30_000)).pop().unwrap();
    stream.nudged(shard, &lost, DROP, NOW).unwrap();
    assert_eq!(stream.shard_count(), 1, "which of the two was answered is not known");
    stream.nudged(shard, &again, DROP, NOW).unwrap();
    assert_eq!(stream.shard_count(), 0);
    assert_eq!(stream.log.shards(9).unwrap(), []);
    assert!(!alarm(&mut stream, later(40_000)) && !has_duty(&stream));
    stream.nudged(shard, &Nudge { generation, ..again }, NOTED, NOW).unwrap();
}

#[test]
fn an_ended_life_is_held_until_its_shards_have_gone() {
    for wakes in [false, true] {
        let (mut stream, generation) = source();
        attach(&mut stream, 0, "-1");
        append(&mut stream, b"de", NOW);
        answer(&mut stream, NOTED, NOW);
        assert_eq!(stream.delete(NOW), Ok(Deleted::Buried));
        assert_eq!(stream.check(NOW), Err(crate::Missing::NotFound));
        let newer = create(&mut stream, later(1));
        append(&mut stream, b"xyz", later(1));
        if wakes {
            stream = woken(stream);
        }
        assert_eq!(phases(&stream), [Phase::Live, Phase::Held]);
        assert_eq!(stream.quota().0, 6 + 5, "held bytes count");
        assert_eq!(bytes(&mut stream, generation, 1, NOW), b"bcde");
        assert_eq!(bytes(&mut stream, newer, 0, later(1)), b"abcxyz");
        let (_, nudge) = begin(&mut stream, later(1)).pop().unwrap();
        let told = (nudge.generation, nudge.state, nudge.tail);
        assert_eq!(told, (generation, LifeState::Held, Position(5)));
        stream.nudged(ShardId(0), &nudge, NOTED, later(1)).unwrap();
        assert!(begin(&mut stream, later(1)).is_empty());
        // It is asked again until it wants to be dropped.
        assert!(alarm(&mut stream, later(1_001)));
        assert_eq!(answer(&mut stream, DROP, later(1_001)), 1);
        assert_eq!(phases(&stream), [Phase::Live, Phase::Erasing]);
        assert!(!alarm(&mut stream, later(50_000)) && !has_duty(&stream));
        assert_eq!((phases(&stream).len(), stream.quota().0), (1, 6));
        let gone = stream.replicate(generation, Position(0), 9, NOW).unwrap();
        assert!(matches!(gone, Replicated::NoLife));
        assert_eq!(bytes(&mut stream, newer, 0, later(1)), b"abcxyz");
    }
}

#[test]
fn a_hold_ends_and_the_bytes_with_it() {
    let (mut stream, generation) = source();
    attach(&mut stream, 0, "-1");
    append(&mut stream, b"de", NOW);
    stream.delete(NOW).unwrap();
    let mut now = NOW;
    while phases(&stream) == [Phase::Held] {
        assert_eq!(bytes(&mut stream, generation, 0, now), b"abcde");
        answer(&mut stream, NOTED, now);
        now = stream.next_due().unwrap();
        stream = woken(stream);
        alarm(&mut stream, now);
    }
    assert_eq!((now, phases(&stream)), (later(100_000), vec![Phase::Lapsed]));
    assert!(is_lapsed(&mut stream, generation, now));
    alarm(&mut stream, now);
    assert_eq!(stream.quota().0, 0);
    assert!(!stream.duties.contains_key(&Duty::Erase), "its row waits for the shard");
    let mut stream = woken(stream);
    assert!(is_lapsed(&mut stream, generation, now));
    let (_, nudge) = begin(&mut stream, now).pop().unwrap();
    assert_eq!((nudge.state, nudge.tail), (LifeState::Lapsed, Position(5)));
    stream.nudged(ShardId(0), &nudge, DROP, now).unwrap();
    alarm(&mut stream, now);
    alarm(&mut stream, now.saturating_add_ms(100_000));
    assert_eq!(phases(&stream), []);
    assert!(stream.duties.is_empty());
}

#[test]
fn at_most_sixteen_lives_are_held() {
    let (mut stream, first) = source();
    for round in 0..17 {
        attach(&mut stream, 0, "-1");
        append(&mut stream, b"de", NOW);
        stream.delete(later(round)).unwrap();
        create(&mut stream, later(round + 1));
    }
    let phases = phases(&stream);
    assert_eq!(phases.iter().filter(|phase| **phase == Phase::Held).count(), 16);
    assert_eq!(phases.last(), Some(&Phase::Lapsed));
    assert!(is_lapsed(&mut stream, first, NOW));
    assert_eq!(begin(&mut stream, NOW).len(), 17);
}

fn rows(stream: &TestStream) -> usize {
    stream.log.extents(Key(0)..Key(1 << 53), 99).unwrap().len()
}

fn fork(stream: &mut TestStream, at: u64) -> ForkId {
    let generation = Generation(stream.generation().unwrap().0 + 100);
    let child = ForkId { child: "p/fork".into(), generation };
    let offset = stream.offset_of(Position(at)).map(protocol::offset::OffsetParam::At);
    let request = ForkRequest { child: child.clone(), offset, sub_offset: 0, content_type: None };
    stream.reference(&request, None, NOW).unwrap();
    child
}

#[test]
fn a_life_with_forks_keeps_its_bytes_for_its_shards_as_well() {
    // Who goes first: the shard, the fork, or the time.
    for first in ["shard", "fork", "time"] {
        let (mut stream, generation) = source();
        append(&mut stream, b"de", NOW);
        attach(&mut stream, 0, "-1");
        let child = fork(&mut stream, 2);
        assert_eq!(stream.delete(NOW), Ok(Deleted::Held));
        alarm(&mut stream, later(1));
        let mut stream = woken(stream);
        assert_eq!((phases(&stream), rows(&stream)), (vec![Phase::SoftDeleted], 2));
        assert_eq!(bytes(&mut stream, generation, 0, NOW), b"abcde");
        let mut now = later(5);
        match first {
            "shard" => {
                assert_eq!(answer(&mut stream, DROP, now), 1);
                alarm(&mut stream, now);
                assert_eq!((phases(&stream), rows(&stream)), (vec![Phase::SoftDeleted], 1));
                stream.release(&child, now).unwrap();
            }
            "fork" => {
                stream.release(&child, now).unwrap();
                assert_eq!(phases(&stream), [Phase::Held]);
                assert_eq!(bytes(&mut stream, generation, 0, now), b"abcde");
                assert_eq!(answer(&mut stream, DROP, now), 1);
            }
            _ => {
                now = later(100_000);
                alarm(&mut stream, now);
                assert!(is_lapsed(&mut stream, generation, now));
                stream.release(&child, now).unwrap();
                assert_eq!(phases(&stream), [Phase::Lapsed]);
                assert!(is_lapsed(&mut stream, generation, now));
                assert_eq!(answer(&mut stream, DROP, now), 1);
            }
        }
        alarm(&mut stream, now);
        alarm(&mut stream, now.saturating_add_ms(100_000));
        assert_eq!(phases(&stream), [], "{first}");
        assert_eq!(stream.log.shards(9).unwrap(), []);
    }
}

fn rotate(stream: &mut TestStream) {
    let mut collected = stream.collect().unwrap().unwrap();
    while !collected.is_complete() {
        assert!(stream.collect_step(&mut collected).unwrap());
    }
    let sealed = collected.seal();
    let rotation = stream.begin_rotation("p/s", &sealed, NOW).unwrap().unwrap();
    assert!(stream.publish(&rotation, sealed, NOW).unwrap());
}

#[test]
fn cold_bytes_are_held_and_marked_when_the_hold_ends() {
    let (mut stream, generation) = source();
    rotate(&mut stream);
    append(&mut stream, b"de", NOW);
    attach(&mut stream, 0, "-1");
    stream.delete(NOW).unwrap();
    // A newer life with a segment of its own.
    create(&mut stream, later(1));
    rotate(&mut stream);
    let mut stream = woken(stream);
    match stream.replicate(generation, Position(1), 99, later(1)).unwrap() {
        Replicated::Page(page) => {
            assert_eq!((page.from, page.to), (Position(1), Position(3)));
            assert!(matches!(page.content, Content::Cold(found) if found.range == (1..3)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bytes(&mut stream, generation, 3, later(1)), b"de");
    assert!(stream.log.markers(9).unwrap().is_empty());
    alarm(&mut stream, later(100_000));
    alarm(&mut stream, later(100_000));
    assert_eq!(phases(&stream), [Phase::Live, Phase::Lapsed]);
    assert_eq!((stream.log.markers(9).unwrap().len(), rows(&stream)), (1, 0));
    assert_eq!(stream.references(None, 9).unwrap().len(), 1, "the newer life's is still there");
}

#[test]
fn a_held_fork_keeps_what_it_shares() {
    for lapses in [false, true] {
        let (mut parent, _) = source();
        let mut child = Stream::open(MemoryLog::default()).unwrap();
        let wish = ForkWish { source: "p/parent".into(), offset: None, sub_offset: 0 };
        let create = Create {
            content_type: None,
            lifetime: Lifetime::Unlimited,
            closed: false,
            public: false,
            session: None,
            body: b"de".to_vec(),
            fork: Some(wish.clone()),
        };
        let now = later(1);
        let Begun::Intent(request) = child.begin_fork(&create, &wish, "p/s", now).unwrap() else {
            panic!("it exists");
        };
        let grant = parent.reference(&request, None, now).unwrap();
        child.fork_granted(&create, &grant).unwrap();
        while let Some(missing) = child.fork_missing() {
            child.fork_received(parent.copy(missing).unwrap()).unwrap();
        }
        child.finish_fork(&create, now).unwrap();
        let generation = child.generation().unwrap();
        attach(&mut child, 0, "-1");
        child.delete(now).unwrap();
        assert_eq!(child.log.releases(9).unwrap(), []);
        assert_eq!(bytes(&mut child, generation, 0, now), b"abc", "offsets of one generation");
        assert_eq!(bytes(&mut child, generation, 3, now), b"de");
        let hold_ms = child.bounds.fanout_hold_ms;
        match lapses {
            true => assert!(alarm(&mut child, now.saturating_add_ms(hold_ms))),
            false => assert_eq!(answer(&mut child, DROP, now), 1),
        }
        let releases = child.log.releases(9).unwrap();
        assert_eq!(
            releases.iter().map(|release| release.generation).collect::<Vec<_>>(),
            [generation]
        );
    }
}
