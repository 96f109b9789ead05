//! Any sequence of requests is answered as the naive model answers it. No faults, one path; what
//! fails shrinks to a short list of operations. Faults are the simulator's: `crates/sim`.

#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use engine::Stream;
use engine::append::{Append, AppendError};
use engine::cold::Content;
use engine::create::{Create, CreateError};
use engine::log::Log;
use engine::log::memory::MemoryLog;
use engine::read::{Dress, ReadError};
use proptest::prelude::*;
use protocol::content_type::ContentType;
use protocol::headers::StreamSeq;
use protocol::lifetime::Lifetime;
use protocol::offset::{Offset, OffsetParam, Position};
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;
use sim::model::{ModelLife, ModelPath};

#[derive(Clone, Debug)]
enum Operation {
    Create { json: bool, body: u8, closed: bool },
    Append(Vec<Member>),
    Delete,
    Read { offset: usize, past: u64, chunk: u64 },
    Reopen,
}

/// One append of a group: small numbers that become its body and headers.
#[derive(Clone, Debug)]
struct Member {
    body: u8,
    json: bool,
    producer: Option<(u8, u64, u64)>,
    seq: Option<u8>,
    close: bool,
}

fn member() -> impl Strategy<Value = Member> {
    let producer = prop::option::weighted(0.5, (0..2u8, 0..3u64, 0..4u64));
    let seq = prop::option::weighted(0.2, 0..6u8);
    let json = prop::bool::weighted(0.5);
    (0..6u8, json, producer, seq, prop::bool::weighted(0.05))
        .prop_map(|(body, json, producer, seq, close)| Member { body, json, producer, seq, close })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (any::<bool>(), 0..6u8, prop::bool::weighted(0.1))
            .prop_map(|(json, body, closed)| Operation::Create { json, body, closed }),
        10 => prop::collection::vec(member(), 1..4).prop_map(Operation::Append),
        1 => Just(Operation::Delete),
        6 => (0..40usize, 0..3u64, 1..40u64)
            .prop_map(|(offset, past, chunk)| Operation::Read { offset, past, chunk }),
        1 => Just(Operation::Reopen),
    ]
}

fn content_type(json: bool) -> ContentType {
    ContentType::parse(if json { "application/json" } else { "text/plain" }).unwrap()
}

/// Bodies that are JSON and text at once, with what they become in JSON mode.
fn body(number: u8) -> (Vec<u8>, Option<Vec<u8>>) {
    let (sent, wire): (&str, Option<&str>) = match number {
        0 => ("", None),
        1 => ("7", Some("7,\n")),
        2 => ("[1, {\"a\":\n2}]", Some("1,\n{\"a\": 2},\n")),
        3 => (" [] ", Some("")),
        4 => ("{", None),
        _ => ("[[\"long enough to fill a page\"],null]", {
            Some("[\"long enough to fill a page\"],\nnull,\n")
        }),
    };
    (sent.into(), wire.map(|wire| wire.as_bytes().to_vec()))
}

fn append_of(member: &Member) -> Append<Vec<u8>> {
    let producer = member.producer.map(|(id, epoch, seq)| Producer {
        id: ProducerId::parse(&format!("p{id}")).unwrap(),
        epoch: Epoch(epoch),
        seq: Seq(seq),
    });
    Append {
        content_type: Some(content_type(member.json)),
        body: body(member.body).0,
        producer,
        seq: member.seq.map(|seq| StreamSeq::parse(&format!("{seq}")).unwrap()),
        close: member.close,
        delivery: None,
    }
}

struct Pair {
    stream: Stream<MemoryLog>,
    model: ModelPath,
    handed: Vec<Offset>,
    now: UnixMillis,
}

impl Pair {
    fn create(&mut self, json: bool, number: u8, closed: bool) {
        let (sent, wire) = body(number);
        let request = Create {
            content_type: Some(content_type(json)),
            lifetime: Lifetime::Unlimited,
            closed,
            public: number.is_multiple_of(7),
            session: None,
            body: sent.clone(),
            fork: None,
        };
        let reply = self.stream.create(&request, self.now);
        match self.model.existing(&request).map(|life| life.map(ModelLife::tail)) {
            Ok(Some(tail)) => assert_eq!(reply.unwrap().next.position, Position(tail)),
            Err(_) => assert!(matches!(reply, Err(CreateError::Exists { .. }))),
            Ok(None) if json && !sent.is_empty() && wire.is_none() => {
                assert!(matches!(reply, Err(CreateError::Json(_))));
            }
            Ok(None) => {
                let created = reply.unwrap();
                let mut life =
                    ModelLife::new(created.next.generation, content_type(json), self.now);
                life.push(&if json { wire.unwrap_or_default() } else { sent });
                life.closed = closed;
                life.public = request.public;
                assert_eq!((created.new, created.next), (true, life.offset(life.tail())));
                assert!(self.model.dead.iter().all(|dead| *dead < life.generation));
                self.handed.push(created.next);
                self.model.current = Some(life);
            }
        }
    }

    fn append(&mut self, members: &[Member]) {
        let before = self.model.current.as_ref().map_or(0, ModelLife::tail);
        let group = members.iter().map(append_of).collect();
        let reply = self.stream.append_group(group, self.now);
        assert_eq!(reply.replies.len(), members.len());
        for (member, reply) in members.iter().zip(reply.replies) {
            let wire = body(member.body).1;
            let expected = match self.model.live() {
                Ok(life) => life.append(&append_of(member), wire.as_deref()),
                Err(missing) => Err(AppendError::Missing(missing)),
            };
            match (reply, expected) {
                (Err(AppendError::Json(_)), Err(AppendError::Json(_))) => {}
                (reply, expected) => assert_eq!(reply, expected, "{member:?}"),
            }
        }
        if let Some(life) = &self.model.current {
            let tail = life.tail();
            assert_eq!(reply.growth.map_or(before, |growth| growth.to.0), tail);
            self.handed.push(life.offset(tail));
        }
    }

    fn read(&mut self, index: usize, past: u64, chunk: u64) {
        let param = match self.handed.len().checked_sub(index + 1) {
            None => OffsetParam::Start,
            Some(index) => {
                let offset = self.handed[index];
                let position = Position(offset.position.0 + past);
                OffsetParam::At(Offset { position, ..offset })
            }
        };
        let located = self.stream.locate(param, self.now);
        let life = match self.model.live() {
            Ok(life) => life,
            Err(missing) => return assert_eq!(located, Err(ReadError::Missing(missing))),
        };
        let expected = life.resolve(param).map(Position).map_err(ReadError::Offset);
        assert_eq!(located, expected, "{param:?}");
        let Ok(from) = located else { return };
        let page = self.stream.page(from, chunk, Dress::Wire, self.now).unwrap();
        let (from, to) = (page.from.0 as usize, page.to.0 as usize);
        let Content::Hot(bytes) = page.content else { unreachable!("nothing is cold") };
        assert_eq!(bytes, life.bytes[from..to]);
        assert!(from < to || page.up_to_date);
        assert!(!life.content_type.is_json() || bytes.is_empty() || bytes.ends_with(b"\n"));
        assert_eq!(page.next, life.offset(page.to.0));
        assert_eq!(page.closed, page.up_to_date && life.closed);
        self.handed.push(page.next);
    }

    fn apply(mut self, operation: &Operation) -> Self {
        self.now.0 += 1;
        match operation {
            Operation::Create { json, body, closed } => self.create(*json, *body, *closed),
            Operation::Append(members) => self.append(members),
            Operation::Delete => {
                let deleted = self.stream.delete(self.now).map(|_| ());
                assert_eq!(deleted, self.model.live().map(|_| ()));
                self.model.end();
            }
            Operation::Read { offset, past, chunk } => self.read(*offset, *past, *chunk),
            Operation::Reopen => {
                self.stream = Stream::open(self.stream.into_log()).unwrap();
            }
        }
        self
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_the_models(operations in prop::collection::vec(operation(), 1..40)) {
        let mut pair = Pair {
            stream: Stream::open(MemoryLog::default()).unwrap(),
            model: ModelPath::default(),
            handed: Vec::new(),
            now: UnixMillis(1_700_000_000_000),
        };
        for operation in &operations {
            pair = pair.apply(operation);
        }
        // Whatever happened, a deleted stream leaves its tombstone alone.
        let _ = pair.stream.delete(pair.now);
        prop_assert_eq!(pair.stream.log().lives(9), Ok(vec![]));
        prop_assert!(pair.stream.log().rows() <= 1);
    }
}
