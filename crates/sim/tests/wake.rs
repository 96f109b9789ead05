//! Waking an object reads a bounded number of rows, however long its stream is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::rc::Rc;

use engine::Stream;
use engine::append::Append;
use engine::create::Create;
use engine::log::Log;
use protocol::content_type::ContentType;
use protocol::lifetime::Lifetime;
use protocol::limits::CHECKPOINT_ROWS;
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;
use sim::decorators::Counting;
use sim::disk::Disk;
use sim::faults::Counters;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn stream_on(disk: &Disk) -> Stream<Disk> {
    let mut stream = Stream::open(disk.clone()).unwrap();
    let create = Create {
        content_type: Some(ContentType::parse("text/plain").unwrap()),
        lifetime: Lifetime::Unlimited,
        closed: false,
        public: false,
        session: None,
        body: Vec::new(),
        fork: None,
    };
    stream.create(&create, NOW).unwrap();
    stream
}

fn append(producer: Option<Producer>) -> Append<Vec<u8>> {
    Append {
        content_type: Some(ContentType::parse("text/plain").unwrap()),
        body: b"x".to_vec(),
        producer,
        seq: None,
        close: false,
        delivery: None,
    }
}

/// Opens the stream anew; the extent rows that it read.
fn rows_to_wake<L: Log<Bytes = Vec<u8>>>(log: L) -> (u64, Stream<Counting<L>>) {
    let counters = Rc::new(Counters::default());
    let stream = Stream::open(Counting::new(log, Rc::clone(&counters))).unwrap();
    (counters.take_rows(), stream)
}

fn wakes_up_bounded(disk: &Disk, appends: u64) {
    let mut stream = stream_on(disk);
    for _ in 0..appends {
        let reply = stream.append_group(vec![append(None)], NOW);
        assert!(reply.replies[0].is_ok());
    }
    drop(stream);
    let (rows, mut stream) = rows_to_wake(disk.clone());
    assert!(rows <= CHECKPOINT_ROWS + 1, "{rows} rows");
    assert_eq!(stream.head(NOW).unwrap().next.position.0, appends);
}

#[test]
fn after_a_hundred_thousand_appends() {
    wakes_up_bounded(&Disk::memory(), 100_000);
}

#[test]
fn after_appends_on_sqlite() {
    wakes_up_bounded(&Disk::sqlite().unwrap(), 3 * CHECKPOINT_ROWS + 100);
}

#[test]
fn many_producers_are_checkpointed_before_their_rows_are_many() {
    let disk = Disk::memory();
    let mut stream = stream_on(&disk);
    let producer = |number: u64| Producer {
        id: ProducerId::parse(&format!("{number:0>200}")).unwrap(),
        epoch: Epoch(0),
        seq: Seq(0),
    };
    for group in 0..40u64 {
        let members = (0..500).map(|at| append(Some(producer(group * 500 + at)))).collect();
        let reply = stream.append_group(members, NOW);
        assert!(reply.replies.iter().all(Result::is_ok));
    }
    drop(stream);
    let (rows, mut stream) = rows_to_wake(disk.clone());
    assert!(rows <= 16, "{rows} rows with headers of 100 KB each");
    for number in [0, 499, 10_000, 19_999] {
        let reply = stream.append_group(vec![append(Some(producer(number)))], NOW);
        assert!(reply.replies[0].as_ref().unwrap().duplicate, "producer {number} is forgotten");
    }
}
