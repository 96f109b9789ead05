//! Bugs that random seeds meet only once in thousands, each told as a short story.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::rc::Rc;

use engine::Stream;
use engine::append::Append;
use engine::create::{Create, CreateError};
use engine::duties::Busy;
use engine::fork::{Begun, FORK_PATIENCE_MS, ForkError, ForkGrant, ForkRequest, ForkWish};
use engine::log::Log;
use engine::read::Dress;
use protocol::content_type::ContentType;
use protocol::lifetime::Lifetime;
use protocol::limits::{READ_CHUNK_BYTES, ROW_BYTES_MAX};
use protocol::offset::Position;
use protocol::time::UnixMillis;
use sim::decorators::Faulty;
use sim::disk::Disk;
use sim::faults::{Faults, Injection};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const LATER: UnixMillis = UnixMillis(NOW.0 + FORK_PATIENCE_MS);

/// A request is making a fork.
const MAKING: Busy = Busy { making_fork: true, rotating: false };

struct Rig {
    stream: Stream<Faulty<Disk>>,
    faults: Rc<Faults>,
    disk: Disk,
}

fn rig() -> Rig {
    let (disk, faults) = (Disk::memory(), Rc::new(Faults::default()));
    let stream = Stream::open(Faulty::new(disk.clone(), Rc::clone(&faults))).unwrap();
    Rig { stream, faults, disk }
}

impl Rig {
    /// The commits of the next verb whose bits are set will fail.
    fn fail(&self, failing_commits: u64) {
        self.faults.arm(Injection { failing_commits, ..Injection::default() });
    }

    /// The alarm comes no later than the first duty.
    fn assert_alarm(&self) {
        let first = self.disk.duties().unwrap().iter().map(|(_, due)| *due).min();
        assert!(first.is_none_or(|first| self.disk.alarm().is_some_and(|alarm| alarm <= first)));
    }
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

fn append(content_type: &str, body: &[u8]) -> Append<Vec<u8>> {
    Append {
        content_type: Some(ContentType::parse(content_type).unwrap()),
        body: body.to_vec(),
        producer: None,
        seq: None,
        close: false,
        delivery: None,
    }
}

fn wish() -> ForkWish {
    ForkWish { source: "_default/source".into(), offset: None, sub_offset: 0 }
}

/// A fork's intent and the source's grant.
fn begin(fork: &mut Rig, source: &mut Rig, request: &Create<Vec<u8>>) -> (ForkRequest, ForkGrant) {
    let begun = fork.stream.begin_fork(request, &wish(), "_default/fork", UnixMillis(NOW.0 + 1));
    let Ok(Begun::Intent(question)) = begun else { panic!("{begun:?}") };
    let grant = source.stream.reference(&question, None, NOW).unwrap();
    fork.stream.fork_granted(request, &grant).unwrap();
    (question, grant)
}

fn copy_all(fork: &mut Rig, source: &mut Rig) {
    while let Some(request) = fork.stream.fork_missing() {
        let copied = source.stream.copy(request).unwrap();
        fork.stream.fork_received(copied).unwrap();
    }
}

#[test]
fn pages_of_a_json_fork_are_bounded() {
    let (mut source, mut fork) = (rig(), rig());
    source.stream.create(&create("application/json", None), NOW).unwrap();
    let message = format!("\"{}\"", "x".repeat(600_000));
    for _ in 0..8 {
        let group = vec![append("application/json", message.as_bytes())];
        assert!(source.stream.append_group(group, NOW).replies[0].is_ok());
    }
    let request = create("application/json", Some(wish()));
    begin(&mut fork, &mut source, &request);
    copy_all(&mut fork, &mut source);
    fork.stream.finish_fork(&request, NOW).unwrap();
    let page = fork.stream.page(Position(0), READ_CHUNK_BYTES, Dress::Wire, NOW).unwrap();
    let length = page.to.0 - page.from.0;
    assert!(length <= ROW_BYTES_MAX, "{length} bytes");
}

#[test]
fn a_fork_is_public_by_its_own_word() {
    for (source_is, fork_is) in [(true, false), (false, true)] {
        let (mut source, mut fork) = (rig(), rig());
        let request = Create { public: source_is, ..create("text/plain", None) };
        source.stream.create(&request, NOW).unwrap();
        let request = Create { public: fork_is, ..create("text/plain", Some(wish())) };
        begin(&mut fork, &mut source, &request);
        copy_all(&mut fork, &mut source);
        assert!(!fork.stream.is_public(), "nobody sees it yet");
        fork.stream.finish_fork(&request, NOW).unwrap();
        assert_eq!((source.stream.is_public(), fork.stream.is_public()), (source_is, fork_is));
        let other = Create { public: source_is, ..request };
        let again = fork.stream.begin_fork(&other, &wish(), "_default/fork", NOW);
        assert!(matches!(again, Err(CreateError::Exists { differs: "Stream-Public" })));
        // What is told after memory was lost.
        let mut woken = Stream::open(fork.disk.clone()).unwrap();
        assert_eq!(woken.head(NOW).unwrap().public, fork_is);
        source.stream.delete(NOW).unwrap();
        assert!(!source.stream.is_public());
    }
}

#[test]
fn readers_are_told_what_was_stored_before_a_member_failed() {
    let mut rig = rig();
    rig.stream.create(&create("text/plain", None), NOW).unwrap();
    rig.fail(0b101);
    let group = vec![append("text/plain", b"stored"), append("text/plain", b"lost")];
    let reply = rig.stream.append_group(group, NOW);
    assert!(reply.replies[0].is_ok() && reply.replies[1].is_err());
    assert_eq!(reply.growth.unwrap().to, Position(6));
}

#[test]
fn a_reference_after_its_release_is_refused() {
    let (mut source, mut fork) = (rig(), rig());
    source.stream.create(&create("text/plain", None), NOW).unwrap();
    let (question, _) = begin(&mut fork, &mut source, &create("text/plain", Some(wish())));
    source.stream.release(&question.child, NOW).unwrap();
    assert_eq!(source.stream.reference(&question, None, NOW), Err(ForkError::Refused));
}

#[test]
fn a_fork_is_given_up_when_a_commit_failed_while_it_was_made() {
    let (mut source, mut fork) = (rig(), rig());
    let ttl = Create { lifetime: Lifetime::Ttl { seconds: 1 << 30 }, ..create("text/plain", None) };
    source.stream.create(&ttl, NOW).unwrap();
    let request = create("text/plain", Some(wish()));
    begin(&mut fork, &mut source, &request);
    fork.disk.take_alarm();
    fork.fail(1);
    assert!(fork.stream.on_alarm(MAKING, LATER).is_err());
    fork.faults.disarm();
    let finished = fork.stream.finish_fork(&request, LATER);
    assert!(matches!(finished, Err(CreateError::Log(_))), "{finished:?}");
    fork.stream.abandon_fork(true, LATER).unwrap();
    assert!(fork.stream.head(LATER).is_err());
}

#[test]
fn releases_are_not_handed_out_from_stale_memory() {
    let (mut source, mut fork) = (rig(), rig());
    source.stream.create(&create("text/plain", None), NOW).unwrap();
    let request = create("text/plain", Some(wish()));
    begin(&mut fork, &mut source, &request);
    fork.stream.abandon_fork(true, NOW).unwrap();
    assert_eq!(fork.stream.due_releases(NOW).unwrap().len(), 1);
    let begun = fork.stream.begin_fork(&request, &wish(), "_default/fork", NOW);
    assert!(matches!(begun, Ok(Begun::Intent(_))));
    fork.fail(1);
    assert!(fork.stream.abandon_fork(true, NOW).is_err());
    fork.faults.disarm();
    // The second release is not stored, and the first one's pause is not over.
    assert_eq!(fork.stream.due_releases(NOW), Ok(vec![]));
    fork.assert_alarm();
}

#[test]
fn a_crash_inside_the_alarm_leaves_an_alarm_for_every_duty() {
    let (mut source, mut fork) = (rig(), rig());
    source.stream.create(&create("text/plain", None), NOW).unwrap();
    let request = create("text/plain", Some(wish()));
    begin(&mut fork, &mut source, &request);
    fork.stream.abandon_fork(true, NOW).unwrap();
    let begun = fork.stream.begin_fork(&request, &wish(), "_default/fork", NOW);
    assert!(matches!(begun, Ok(Begun::Intent(_))));
    fork.disk.take_alarm();
    fork.faults.arm(Injection { dies_after: Some(1), ..Injection::default() });
    // The intent is looked at again in a minute; the release is due now.
    assert!(fork.stream.on_alarm(MAKING, LATER).is_err());
    fork.assert_alarm();
}
