//! Bugs of rotation and of shared segments, each told as a short story.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::ops::Range;
use std::rc::Rc;

use engine::append::Append;
use engine::create::Create;
use engine::duties::Busy;
use engine::fork::{Begun, Copied, ForkError, ForkRequest, ForkWish, Lent, Loan};
use engine::life::Phase;
use engine::log::{Duty, Key, Log};
use engine::rotate::{Rotation, Upload};
use engine::{Bounds, Stream};
use protocol::content_type::ContentType;
use protocol::lifetime::Lifetime;
use protocol::limits::ROW_BYTES_MAX;
use protocol::offset::{OffsetParam, Position};
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;
use sim::decorators::Faulty;
use sim::disk::Disk;
use sim::faults::{Faults, Injection};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const KEYS: Range<Key> = Key(0)..Key(1 << 53);

struct Rig {
    stream: Stream<Faulty<Disk>>,
    faults: Rc<Faults>,
    disk: Disk,
}

fn rig(content_type: &str) -> Rig {
    let (disk, faults) = (Disk::memory(), Rc::new(Faults::default()));
    let mut stream = Stream::open(Faulty::new(disk.clone(), Rc::clone(&faults))).unwrap();
    stream.set_bounds(Bounds { segment_bytes: 1, grace_ms: 1_000, ..Bounds::default() });
    stream.create(&create(content_type, None), NOW).unwrap();
    Rig { stream, faults, disk }
}

fn create(content_type: &str, fork: Option<ForkWish>) -> Create<Vec<u8>> {
    Create {
        content_type: Some(ContentType::parse(content_type).unwrap()),
        lifetime: Lifetime::Unlimited,
        closed: false,
        public: false,
        session: None,
        body: Vec::new(),
        fork,
    }
}

fn producer(seq: u64) -> Producer {
    Producer { id: ProducerId::parse("p").unwrap(), epoch: Epoch(0), seq: Seq(seq) }
}

impl Rig {
    fn append(&mut self, body: &[u8], producer: Option<Producer>) {
        let content_type = self.stream.content_type().cloned();
        let append = Append {
            content_type,
            body: body.to_vec(),
            producer,
            seq: None,
            close: false,
            delivery: None,
        };
        let reply = self.stream.append_group(vec![append], NOW);
        assert!(reply.replies[0].is_ok(), "{reply:?}");
    }

    fn seal(&mut self) -> (Rotation, engine::rotate::Sealed<Vec<u8>>) {
        let mut collected = self.stream.collect().unwrap().unwrap();
        while !collected.is_complete() {
            assert_eq!(self.stream.collect_step(&mut collected), Ok(true));
        }
        let sealed = collected.seal();
        let rotation = self.stream.begin_rotation("_default/source", &sealed, NOW).unwrap();
        (rotation.unwrap(), sealed)
    }

    /// Makes a segment of what is hot.
    fn rotate(&mut self) {
        let (rotation, sealed) = self.seal();
        assert_eq!(self.stream.publish(&rotation, sealed, NOW), Ok(true));
    }

    /// What the disk says of a duty, and of markers that nobody would work off.
    fn assert_duties(&self) {
        let duties = self.disk.duties().unwrap();
        let sweeps = duties.iter().any(|(duty, _)| *duty == Duty::Sweep);
        assert!(sweeps || self.disk.markers(1).unwrap().is_empty(), "{duties:?}");
        let first = duties.iter().map(|(_, due)| *due).min();
        assert!(first.is_none_or(|first| self.disk.alarm().is_some_and(|alarm| alarm <= first)));
    }
}

/// A fork's question: three messages past an offset.
fn question(offset: OffsetParam) -> ForkRequest {
    let mut fork = rig("text/plain");
    fork.stream.delete(NOW).unwrap();
    let source = "_default/source".to_owned();
    let wish = ForkWish { source, offset: Some(offset), sub_offset: 3 };
    let request = create("application/json", Some(wish.clone()));
    let later = UnixMillis(NOW.0 + 100);
    match fork.stream.begin_fork(&request, &wish, "_default/fork", later) {
        Ok(Begun::Intent(question)) => question,
        begun => panic!("{begun:?}"),
    }
}

fn lent(source: &Rig, loan: &Loan, bytes: &[u8]) -> Lent {
    let generation = source.stream.generation().unwrap();
    let Loan { range, missing } = loan.clone();
    let bytes = bytes[range.start.0 as usize..range.end.0 as usize].to_vec();
    Lent { generation, from: range.start, missing, bytes }
}

fn lend_range(reply: Result<engine::fork::ForkGrant, ForkError>) -> Loan {
    match reply {
        Err(ForkError::Lend(loan)) => loan,
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn what_becomes_cold_while_bytes_are_lent_is_asked_for() {
    let mut source = rig("application/json");
    source.append(b"[1,2]", None);
    source.rotate();
    source.append(b"[3,4]", None);
    let question = question(OffsetParam::Start);
    let all = b"1,\n2,\n3,\n4,\n";
    let range = lend_range(source.stream.reference(&question, None, NOW));
    assert_eq!(range.range, Position(0)..Position(6));
    let short = lent(&source, &range, all);
    source.rotate();
    let range = lend_range(source.stream.reference(&question, Some(&short), NOW));
    let whole = lent(&source, &range, all);
    let grant = source.stream.reference(&question, Some(&whole), NOW).unwrap();
    assert_eq!(grant.at, Position(9));
}

#[test]
fn bytes_of_an_earlier_life_are_not_lent() {
    let mut source = rig("application/json");
    source.append(b"[1,2,3]", None);
    source.rotate();
    let question = question(OffsetParam::Start);
    let range = lend_range(source.stream.reference(&question, None, NOW));
    let old = lent(&source, &range, b"1,\n2,\n3,\n");
    source.stream.delete(NOW).unwrap();
    source.stream.create(&create("application/json", None), NOW).unwrap();
    source.append(b"[100,200,300]", None);
    source.rotate();
    let range = lend_range(source.stream.reference(&question, Some(&old), NOW));
    let new = lent(&source, &range, b"100,\n200,\n300,\n");
    let grant = source.stream.reference(&question, Some(&new), NOW).unwrap();
    assert_eq!(grant.at, Position(15));
}

#[test]
fn a_delete_that_fails_to_read_forgets_no_upload() {
    for read in 0..8 {
        let mut source = rig("text/plain");
        source.append(b"x", None);
        let (rotation, _) = source.seal();
        let injection = Injection { failing_read: Some(read), ..Injection::default() };
        source.faults.arm(injection);
        let deleted = source.stream.delete(NOW);
        source.faults.disarm();
        if deleted.is_err() {
            assert!(source.stream.is_intended(&rotation.name), "read {read}");
            source.stream.delete(NOW).unwrap();
        }
        assert_eq!(source.disk.rotation(rotation.generation), Ok(None));
        let markers = source.disk.markers(9).unwrap();
        assert_eq!(markers.len(), 1, "read {read}: {markers:?}");
        source.assert_duties();
    }
}

#[test]
fn erasing_that_fails_to_read_leaves_a_duty_for_every_marker() {
    for read in 0..12 {
        let mut source = rig("text/plain");
        source.append(b"x", Some(producer(0)));
        source.rotate();
        source.append(b"y", Some(producer(1)));
        source.stream.delete(NOW).unwrap();
        // The table of producers makes it a life to be erased in steps.
        assert_eq!(source.disk.lives(1).unwrap()[0].phase, Phase::Erasing);
        assert_eq!(source.stream.quota().0, 1);
        source.faults.arm(Injection { failing_read: Some(read), ..Injection::default() });
        let first = source.stream.on_alarm(Busy::default(), NOW);
        source.faults.disarm();
        source.assert_duties();
        source.stream.check(NOW).unwrap_err();
        let rows = source.disk.extents(KEYS, 9).unwrap();
        assert_eq!(source.stream.quota().0, rows.len() as u64, "read {read}");
        if first.is_err() {
            source.stream.on_alarm(Busy::default(), NOW).unwrap();
        }
        source.assert_duties();
        assert_eq!(source.disk.markers(9).unwrap().len(), 1);
        assert_eq!(source.disk.extents(KEYS, 9).unwrap(), []);
        assert_eq!(source.stream.quota().0, 0, "read {read}");
    }
}

#[test]
fn a_marker_that_comes_back_has_a_duty() {
    let mut source = rig("text/plain");
    source.append(b"x", None);
    source.rotate();
    source.stream.delete(NOW).unwrap();
    let due = NOW.saturating_add_ms(1_000);
    let handed = source.stream.on_alarm(Busy::default(), due).unwrap().markers;
    assert_eq!(handed.len(), 1);
    // Two answers to the same markers: the first leaves none, the second dies half-way.
    source.stream.swept(&handed, true, due).unwrap();
    assert_eq!(source.disk.duties(), Ok(vec![]));
    source.faults.arm(Injection { dies_after: Some(1), ..Injection::default() });
    let _ = source.stream.swept(&handed, false, due);
    source.faults.disarm();
    source.assert_duties();
}

#[test]
fn an_upload_that_may_land_is_marked_for_ten_graces() {
    let mut source = rig("text/plain");
    source.append(b"x", None);
    let (rotation, _) = source.seal();
    source.stream.rotation_failed(&rotation, Upload::Unknown, NOW).unwrap();
    let markers = source.disk.markers(9).unwrap();
    assert_eq!((markers[0].due, &markers[0].name), (UnixMillis(NOW.0 + 10_000), &rotation.name));
    assert_eq!(source.stream.interrupted(), None);
    assert!(!source.stream.rotation_due(NOW));
    assert!(source.stream.rotation_due(UnixMillis(NOW.0 + 1_000)));
    let (again, _) = source.seal();
    assert_ne!(again.name, rotation.name);
}

#[test]
fn a_fork_shares_what_became_a_segment_while_it_copied() {
    let mut source = rig("application/octet-stream");
    let row = ROW_BYTES_MAX as usize;
    for byte in 0..3 {
        source.append(&vec![byte; row], None);
    }
    let (disk, faults) = (Disk::memory(), Rc::new(Faults::default()));
    let stream = Stream::open(Faulty::new(disk.clone(), Rc::clone(&faults))).unwrap();
    let mut fork = Rig { stream, faults, disk };
    let wish = ForkWish { source: "_default/source".into(), offset: None, sub_offset: 0 };
    let request = create("application/octet-stream", Some(wish.clone()));
    let later = UnixMillis(NOW.0 + 1);
    let begun = fork.stream.begin_fork(&request, &wish, "_default/fork", later);
    let Ok(Begun::Intent(question)) = begun else { panic!("{begun:?}") };
    let grant = source.stream.reference(&question, None, NOW).unwrap();
    fork.stream.fork_granted(&request, &grant).unwrap();
    let mut answers = Vec::new();
    while let Some(request) = fork.stream.fork_missing() {
        let copied = source.stream.copy(request).unwrap();
        answers.push(match &copied {
            Copied::Page(_) => "page",
            Copied::Segments(_) => "segments",
            Copied::Restart => "restart",
        });
        fork.stream.fork_received(copied).unwrap();
        if answers.len() == 1 {
            source.rotate();
            source.rotate();
        }
    }
    assert_eq!(answers, ["page", "restart", "segments", "page"]);
    fork.stream.finish_fork(&request, NOW).unwrap();
    let rows = fork.disk.segments(KEYS, 9).unwrap();
    assert!(rows.iter().all(|row| !row.own) && rows.len() == 2);
    assert_eq!(fork.disk.extents(KEYS, 9).unwrap()[0].key, rows[1].end());
    assert_eq!(fork.stream.quota().0, ROW_BYTES_MAX);
}

#[test]
fn an_object_that_lands_after_it_was_given_up_is_marked_again() {
    let mut source = rig("text/plain");
    source.append(b"x", None);
    let (rotation, sealed) = source.seal();
    source.stream.delete(NOW).unwrap();
    let first = source.disk.markers(9).unwrap();
    source.stream.swept(&first, true, NOW).unwrap();
    assert_eq!(source.disk.markers(9).unwrap(), []);
    assert_eq!(source.stream.publish(&rotation, sealed, NOW), Ok(false));
    assert_eq!(source.disk.markers(9).unwrap()[0].name, rotation.name);
    source.assert_duties();
}

#[test]
fn a_fork_whose_grant_was_lost_is_not_finished() {
    let mut source = rig("text/plain");
    source.append(b"abc", None);
    let (disk, faults) = (Disk::memory(), Rc::new(Faults::default()));
    let open = || Stream::open(Faulty::new(disk.clone(), Rc::clone(&faults))).unwrap();
    let mut fork = open();
    let wish = ForkWish { source: "_default/source".into(), offset: None, sub_offset: 0 };
    let request = create("text/plain", Some(wish.clone()));
    let later = UnixMillis(NOW.0 + 1);
    let begun = fork.begin_fork(&request, &wish, "_default/fork", later);
    let Ok(Begun::Intent(question)) = begun else { panic!("{begun:?}") };
    let grant = source.stream.reference(&question, None, NOW).unwrap();
    fork.fork_granted(&request, &grant).unwrap();
    // Memory is loaded again while the source is asked; the answer brings nothing.
    let mut fork = open();
    fork.fork_received(Copied::Restart).unwrap();
    assert_eq!(fork.fork_missing(), None);
    assert!(fork.finish_fork(&request, later).is_err());
    assert!(fork.is_forking());
}
