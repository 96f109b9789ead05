//! A session's stream against a naive model: memory, and what a wake-up makes of the log, agree with
//! it after every step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::fanout::{
    AttachLink, CheckSession, CreateSession, Deliver, DetachLink, LinkAttached, SessionCreated,
    SessionState, SourceLife, SubscriptionEpoch,
};
use protocol::offset::{Generation, OffsetParam, Position};
use protocol::time::UnixMillis;

use super::floor_of;
use crate::append::{Append, AppendError, Appended};
use crate::cold::Content;
use crate::log::Log;
use crate::log::memory::MemoryLog;
use crate::read::Dress;
use crate::stream::{Bounds, Stream};

const NOW: UnixMillis = UnixMillis(1_000);
const SOURCES: [&str; 2] = ["p/a", "p/b"];
const GENERATIONS: [u64; 2] = [3, 4];

fn request(content_type: &str, envelope: bool) -> CreateSession {
    let after = Generation::MAX;
    CreateSession { content_type: content_type.into(), ttl_seconds: 10, envelope, after }
}

fn session(content_type: &str, envelope: bool) -> (Stream<MemoryLog>, Generation) {
    let mut stream = Stream::open(MemoryLog::default()).unwrap();
    let created = stream.create_session(&request(content_type, envelope), NOW).unwrap();
    let SessionCreated::Alive { generation, is_new: true, .. } = created else {
        panic!("{created:?}");
    };
    (stream, generation)
}

fn life(source: &str, generation: u64) -> SourceLife {
    SourceLife { source: source.into(), generation: Generation(generation) }
}

fn attach(session: Generation, link: SourceLife, epoch: u64, start: u64) -> AttachLink {
    let (epoch, start) = (SubscriptionEpoch(epoch), Position(start));
    AttachLink { session, link, epoch, first: epoch, start, content_type: "text/plain".into() }
}

fn delivery(session: Generation, link: SourceLife, epoch: u64, range: [u64; 2]) -> Deliver {
    let [from, to] = range.map(Position);
    let (epoch, offsets) = (SubscriptionEpoch(epoch), link.generation);
    Deliver { session, link, epoch, from, to, offsets, is_gap: false }
}

fn append(delivery: Deliver, body: &[u8]) -> Append<Vec<u8>> {
    Append {
        content_type: None,
        body: body.to_vec(),
        producer: None,
        seq: None,
        close: false,
        delivery: Some(Box::new(delivery)),
    }
}

fn deliver(
    stream: &mut Stream<MemoryLog>,
    delivery: Deliver,
    body: &[u8],
) -> Result<Appended, AppendError> {
    stream.append_group(vec![append(delivery, body)], NOW).replies.pop().unwrap()
}

fn content(stream: &mut Stream<MemoryLog>) -> Vec<u8> {
    let from = stream.locate(OffsetParam::Start, NOW).unwrap();
    match stream.page(from, 1 << 20, Dress::Wire, NOW).unwrap().content {
        Content::Hot(bytes) => bytes,
        Content::Cold(_) => panic!("nothing is cold"),
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Attach { link: SourceLife, epochs: [u64; 2], start: u64 },
    Detach { source: &'static str, generation: Option<u64>, epoch: u64 },
    Deliver { group: Vec<(SourceLife, u64, u64, u64, bool)> },
    Checkpoint,
    Reload,
}

fn link() -> impl Strategy<Value = SourceLife> {
    (prop::sample::select(&SOURCES[..]), prop::sample::select(&GENERATIONS[..]))
        .prop_map(|(source, generation)| life(source, generation))
}

fn operation() -> impl Strategy<Value = Operation> {
    let part = (link(), 0..4_u64, 0..20_u64, 1..8_u64, prop::bool::weighted(0.2));
    let source = prop::sample::select(&SOURCES[..]);
    let generation = prop::option::of(prop::sample::select(&GENERATIONS[..]));
    prop_oneof![
        4 => (link(), 0..4_u64, 0..3_u64, 0..10_u64).prop_map(|(link, epoch, attempts, start)| {
            let epochs = [epoch.saturating_sub(attempts), epoch];
            Operation::Attach { link, epochs, start }
        }),
        2 => (source, generation, 0..4_u64).prop_map(|(source, generation, epoch)| {
            Operation::Detach { source, generation, epoch }
        }),
        8 => prop::collection::vec(part, 1..4).prop_map(|group| Operation::Deliver { group }),
        1 => Just(Operation::Checkpoint),
        1 => Just(Operation::Reload),
    ]
}

/// What a session should know, and hold.
#[derive(Default)]
struct Model {
    links: BTreeMap<SourceLife, (u64, u64)>,
    floors: BTreeMap<&'static str, u64>,
    bytes: Vec<u8>,
}

fn byte(link: &SourceLife, position: u64) -> u8 {
    (position * 7 + link.generation.0 * 31 + u64::from(link.source.ends_with('b'))) as u8
}

fn bytes(link: &SourceLife, range: [u64; 2]) -> Vec<u8> {
    (range[0]..range[1]).map(|at| byte(link, at)).collect()
}

impl Model {
    /// Where the link is then; `None`: it is superseded.
    fn attach(&mut self, link: &SourceLife, [first, epoch]: [u64; 2], start: u64) -> Option<u64> {
        let floor = self.floors.iter().find(|(source, _)| **source == link.source);
        let known = self.links.get(link).copied();
        if floor.is_some_and(|(_, floor)| epoch <= *floor)
            || known.is_some_and(|(newer, _)| newer > epoch)
        {
            return None;
        }
        let next = known.filter(|(known, _)| *known >= first).map_or(start, |(_, next)| next);
        self.links.insert(link.clone(), (epoch, next));
        Some(next)
    }

    fn detach(&mut self, source: &'static str, generation: Option<u64>, epoch: u64) {
        self.links.retain(|link, (known, _)| {
            let named = generation.is_none_or(|wanted| wanted == link.generation.0);
            link.source != source || !named || *known > epoch
        });
        let floor = self.floors.entry(source).or_insert(epoch);
        *floor = epoch.max(*floor);
    }

    /// `Ok`: whether it was known already.
    fn deliver(&mut self, delivery: &Deliver) -> Result<bool, AppendError> {
        let known = self.links.get_mut(&delivery.link);
        let next = known.filter(|(epoch, _)| *epoch == delivery.epoch.0).map(|(_, next)| next);
        let Some(next) = next else { return Err(AppendError::LinkGone) };
        if delivery.to.0 <= *next {
            return Ok(true);
        }
        if delivery.from.0 > *next {
            return Err(AppendError::LinkBehind { next: Position(*next) });
        }
        if !delivery.is_gap {
            self.bytes.extend(bytes(&delivery.link, [*next, delivery.to.0]));
        }
        *next = delivery.to.0;
        Ok(false)
    }

    fn check(&self, stream: &mut Stream<MemoryLog>) {
        let Stream { current, log, .. } = stream;
        let current = current.as_mut().unwrap();
        let generation = current.life.generation;
        for source in SOURCES {
            let key = floor_of(source);
            let floor = current.links.last(&key, || log.link(generation, &key)).unwrap();
            assert_eq!(floor.map(|floor| floor.epoch.0), self.floors.get(source).copied());
            for link in GENERATIONS.map(|generation| life(source, generation)) {
                let known = current.links.last(&link, || log.link(generation, &link)).unwrap();
                let known = known.map(|known| (known.epoch.0, known.next.unwrap().0));
                assert_eq!(known, self.links.get(&link).copied(), "{link:?}");
            }
        }
        assert_eq!(content(stream), self.bytes);
    }
}

fn perform(
    stream: &mut Stream<MemoryLog>,
    session: Generation,
    model: &mut Model,
    operation: Operation,
) {
    match operation {
        Operation::Attach { link, epochs, start } => {
            let expected = model.attach(&link, epochs, start);
            let [first, epoch] = epochs;
            let first = SubscriptionEpoch(first);
            let request = AttachLink { first, ..attach(session, link, epoch, start) };
            let next = match stream.attach_link(&request, NOW).unwrap() {
                LinkAttached::Attached { next, .. } => Some(next.0),
                _ => None,
            };
            assert_eq!(next, expected);
        }
        Operation::Detach { source, generation, epoch } => {
            model.detach(source, generation, epoch);
            let generation = generation.map(Generation);
            let epoch = SubscriptionEpoch(epoch);
            let (source, first) = (source.into(), SubscriptionEpoch(0));
            let request = DetachLink { session, source, generation, first, epoch };
            stream.detach_link(&request, NOW).unwrap();
        }
        Operation::Deliver { group } => {
            let (mut appends, mut expected) = (Vec::new(), Vec::new());
            for (link, epoch, from, length, is_gap) in group {
                let range = [from, from + length];
                let body = if is_gap { Vec::new() } else { bytes(&link, range) };
                let delivery = Deliver { is_gap, ..delivery(session, link, epoch, range) };
                expected.push(model.deliver(&delivery));
                appends.push(append(delivery, &body));
            }
            let replies = stream.append_group(appends, NOW).replies;
            let replies: Vec<_> = replies.into_iter().map(|reply| Ok(reply?.duplicate)).collect();
            assert_eq!(replies, expected);
        }
        Operation::Checkpoint => {
            let mut writes = Vec::new();
            crate::append::checkpoint(stream.current.as_mut().unwrap(), &mut writes);
            stream.commit(writes).unwrap();
        }
        Operation::Reload => stream.reload().unwrap(),
    }
}

proptest! {
    #[test]
    fn links_are_what_the_model_says(operations in prop::collection::vec(operation(), 1..40)) {
        let (mut stream, session) = session("text/plain", false);
        let mut model = Model::default();
        for operation in operations {
            perform(&mut stream, session, &mut model, operation);
            model.check(&mut stream);
            model.check(&mut Stream::open(stream.log.clone()).unwrap());
        }
    }
}

#[test]
fn a_session_is_confirmed_checked_and_ended() {
    let (mut stream, generation) = session("application/json", true);
    let later = UnixMillis(5_000);
    let expires_at = UnixMillis(15_000);
    let again = stream.create_session(&request("application/json", true), later).unwrap();
    assert_eq!(again, SessionCreated::Alive { generation, expires_at, is_new: false });
    for (other, differs) in
        [(request("application/json", false), "session"), (request("text/a", true), "content type")]
    {
        let exists = SessionCreated::Exists { differs: differs.into() };
        assert_eq!(stream.create_session(&other, later).unwrap(), exists);
    }
    let mut check = |touches, generation, now| {
        let check = CheckSession { generation, touches };
        stream.check_session(&check, UnixMillis(now)).unwrap()
    };
    assert_eq!(check(false, generation, 9_000), SessionState::Alive { expires_at });
    let expires_at = UnixMillis(19_000);
    assert_eq!(check(true, generation, 9_000), SessionState::Alive { expires_at });
    assert_eq!(check(true, Generation(generation.0 + 1), 9_000), SessionState::Gone);
    stream.end_session(Generation(generation.0 - 1), UnixMillis(9_000)).unwrap();
    assert_eq!(stream.generation(), Some(generation));
    stream.end_session(generation, UnixMillis(9_000)).unwrap();
    assert_eq!(stream.generation(), None);
}

#[test]
fn deliveries_are_no_access() {
    let (mut stream, session) = session("text/plain", false);
    stream.attach_link(&attach(session, life("p/a", 1), 1, 0), NOW).unwrap();
    let later = UnixMillis(9_000);
    let late = append(delivery(session, life("p/a", 1), 1, [0, 3]), b"abc");
    assert!(stream.append_group(vec![late], later).replies[0].is_ok());
    for memory in ["kept", "lost"] {
        let check = CheckSession { generation: session, touches: false };
        let state = stream.check_session(&check, later).unwrap();
        assert_eq!(state, SessionState::Alive { expires_at: UnixMillis(11_000) }, "{memory}");
        stream = Stream::open(stream.into_log()).unwrap();
    }
    assert_eq!(stream.check(UnixMillis(11_000)), Err(crate::Missing::NotFound));
}

#[test]
fn envelopes_and_gaps_name_where_they_are_from() {
    for envelope in [true, false] {
        let (mut stream, session) = session("application/json", envelope);
        let link = life("p/a/b", 5);
        let json = "application/json; charset=utf-8".into();
        let request = AttachLink { content_type: json, ..attach(session, link.clone(), 1, 3) };
        stream.attach_link(&request, NOW).unwrap();
        let wire = b"1,\n22,\n";
        deliver(&mut stream, delivery(session, link.clone(), 1, [0, 7]), wire).unwrap();
        let gap = Deliver { is_gap: true, ..delivery(session, link, 1, [5, 20]) };
        deliver(&mut stream, gap, b"").unwrap();
        let [seven, twenty] = [7, 20].map(|at| format!("0000000000000005_{at:016}"));
        let expected = match envelope {
            true => format!(
                "{{\"stream\":\"a/b\",\"offset\":\"{seven}\",\"data\":22}},\n{{\"stream\":\"a/b\",\
                 \"offset\":\"{twenty}\",\"gap\":{{\"from\":\"{seven}\",\"to\":\"{twenty}\"}}}},\n"
            ),
            false => format!(
                "22,\n{{\"gap\":{{\"stream\":\"a/b\",\"from\":\"{seven}\",\"to\":\"{twenty}\"}}}},\n"
            ),
        };
        assert_eq!(String::from_utf8(content(&mut stream)).unwrap(), expected);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (mut stream, session) = session("text/plain", false);
    let link = life("p/a", 1);
    let json = "application/json".to_owned();
    let request = AttachLink { content_type: json, ..attach(session, link.clone(), 1, 0) };
    let refused = LinkAttached::ContentType { session: "text/plain".into() };
    assert_eq!(stream.attach_link(&request, NOW).unwrap(), refused);
    let stranger = attach(Generation(session.0 + 1), link.clone(), 1, 0);
    assert_eq!(stream.attach_link(&stranger, NOW).unwrap(), LinkAttached::Gone);
    stream.attach_link(&attach(session, link.clone(), 1, 0), NOW).unwrap();
    let good = delivery(session, link, 1, [0, 3]);
    let of_other = Deliver { session: Generation(1), ..good.clone() };
    assert_eq!(deliver(&mut stream, of_other, b"abc"), Err(AppendError::LinkGone));
    // One whose bytes are damaged does not take the others along.
    let group = vec![append(good.clone(), b"ab"), append(good.clone(), b"abc")];
    let replies = stream.append_group(group, NOW).replies;
    assert!(replies[0].is_err() && replies[1].is_ok());
    stream.set_bounds(Bounds { bytes_max: 4, ..Bounds::default() });
    let next = Deliver { from: Position(3), to: Position(5), ..good };
    assert_eq!(deliver(&mut stream, next, b"de"), Err(AppendError::Full { bytes_max: 4 }));
}

#[test]
fn links_are_erased_with_their_life() {
    let (mut stream, session) = session("text/plain", false);
    for at in 0..300 {
        let request = attach(session, life(&format!("p/{at}"), 1), 1, 0);
        stream.attach_link(&request, NOW).unwrap();
    }
    stream.end_session(session, NOW).unwrap();
    assert!(stream.log.has_links(session).unwrap());
    while !stream.duties.is_empty() {
        stream.on_alarm(crate::duties::Busy::default(), NOW).unwrap();
    }
    assert!(!stream.log.has_links(session).unwrap());
    assert_eq!(stream.log.lives(9).unwrap(), []);
}
