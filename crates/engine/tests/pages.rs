//! A reader that follows the offsets it is given sees every byte once, whatever the lengths of
//! appends and pages; and a lifetime that readers defer does not end behind their backs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use engine::append::Append;
use engine::cold::Content;
use engine::create::Create;
use engine::log::memory::MemoryLog;
use engine::read::Dress;
use engine::{Bounds, Missing, Stream};
use proptest::prelude::*;
use protocol::content_type::ContentType;
use protocol::lifetime::Lifetime;
use protocol::offset::OffsetParam;
use protocol::time::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn stream(content_type: &str, lifetime: Lifetime) -> Stream<MemoryLog> {
    let mut stream = Stream::open(MemoryLog::default()).unwrap();
    let create = Create {
        content_type: Some(ContentType::parse(content_type).unwrap()),
        lifetime,
        closed: false,
        public: false,
        session: None,
        body: Vec::new(),
        fork: None,
    };
    assert!(stream.create(&create, NOW).unwrap().new);
    stream
}

fn append(stream: &mut Stream<MemoryLog>, bodies: Vec<Vec<u8>>) {
    let content_type = stream.content_type().cloned();
    let group = bodies.into_iter().map(|body| Append {
        content_type: content_type.clone(),
        body,
        producer: None,
        seq: None,
        close: false,
        delivery: None,
    });
    let reply = stream.append_group(group.collect(), NOW);
    assert!(reply.replies.iter().all(Result::is_ok));
}

/// Reads to the tail by following the offsets of the pages.
fn follow(stream: &mut Stream<MemoryLog>, chunk: u64) -> Vec<Vec<u8>> {
    let mut pages = Vec::new();
    let mut offset = OffsetParam::Start;
    loop {
        let from = stream.locate(offset, NOW).unwrap();
        let page = stream.page(from, chunk, Dress::Wire, NOW).unwrap();
        assert_eq!(stream.locate(OffsetParam::At(page.next), NOW), Ok(page.to));
        let Content::Hot(bytes) = page.content else { unreachable!("nothing is cold") };
        pages.push(bytes);
        if page.up_to_date {
            return pages;
        }
        offset = OffsetParam::At(page.next);
    }
}

proptest! {
    #[test]
    fn following_offsets_reads_every_byte_once(
        groups in prop::collection::vec(prop::collection::vec("[a-c]{1,5}", 1..4), 1..20),
        chunk in 1u64..12,
    ) {
        let mut stream = stream("application/octet-stream", Lifetime::Unlimited);
        let whole: String = groups.iter().flatten().map(String::as_str).collect();
        for group in groups {
            append(&mut stream, group.into_iter().map(String::into_bytes).collect());
        }
        prop_assert_eq!(follow(&mut stream, chunk).concat(), whole.into_bytes());
    }

    #[test]
    fn text_is_not_cut_inside_a_character(
        bodies in prop::collection::vec("[aé€😀]{1,6}", 1..20),
        chunk in 5u64..16,
    ) {
        let mut stream = stream("text/plain", Lifetime::Unlimited);
        append(&mut stream, bodies.iter().map(|body| body.clone().into_bytes()).collect());
        for page in follow(&mut stream, chunk) {
            prop_assert!(String::from_utf8(page).is_ok());
        }
    }
}

#[test]
fn the_byte_after_an_append_is_not_read_twice() {
    let mut stream = stream("application/octet-stream", Lifetime::Unlimited);
    append(&mut stream, vec![vec![1; 9], vec![2; 20]]);
    assert_eq!(follow(&mut stream, 10).concat(), [vec![1; 9], vec![2; 20]].concat());
}

#[test]
fn a_reader_that_leaves_moves_the_end_of_a_sliding_lifetime() {
    let after = |ms| NOW.saturating_add_ms(ms);
    let mut stream = stream("text/plain", Lifetime::Ttl { seconds: 1 });
    stream.set_attached_until(after(20_000));
    assert_eq!(stream.check(after(19_000)), Ok(()));
    stream.reader_left(after(20_000), after(19_500)).unwrap();
    stream.set_attached_until(UnixMillis::default());
    assert_eq!(stream.check(after(20_400)), Ok(()));
    // What counts is written down: an instance that has lost its memory knows it too.
    let mut stream = Stream::open(stream.into_log()).unwrap();
    assert_eq!(stream.check(after(20_400)), Ok(()));
    assert_eq!(stream.check(after(20_500)), Err(Missing::NotFound));
}

#[test]
fn a_full_stream_takes_no_bytes_and_can_be_closed() {
    let mut stream = stream("text/plain", Lifetime::Unlimited);
    append(&mut stream, vec![vec![b'x'; 10]]);
    stream.set_bounds(Bounds { bytes_max: 10, ..Bounds::default() });
    let close = |body: &[u8]| Append {
        content_type: stream_type(),
        body: body.to_vec(),
        producer: None,
        seq: None,
        close: true,
        delivery: None,
    };
    assert!(stream.append_group(vec![close(b"y")], NOW).replies[0].is_err());
    assert!(stream.append_group(vec![close(b"")], NOW).replies[0].is_ok());
}

fn stream_type() -> Option<ContentType> {
    ContentType::parse("text/plain").ok()
}
