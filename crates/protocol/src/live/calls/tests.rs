//! Golden bytes, truncations and round trips of calls and answers.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorCode;

const GOLDEN: &[u8] = &[
    2, //
    7, 2, 0, 0, 0, // flags, length of the body
    3, 0, 0, 0, 0, 0, 0, 0, // epoch
    0x02, 0x01, 0, 0, 0, 0, 0, 0, // sequence number
    1, 0, b'p', //
    2, 0, b's', b'q', //
    b'a', b'b', //
    0, 1, 0, 0, 0, b'c', //
    1, 0, 0, 0, 0,
];

fn bare(body: &[u8]) -> Call<'_> {
    Call { body, producer: None, seq: None, close: false }
}

fn golden() -> Vec<Call<'static>> {
    let id = ProducerId::parse("p").unwrap();
    let producer = Producer { id, epoch: Epoch(3), seq: Seq(0x102) };
    let seq = StreamSeq::parse("sq").unwrap();
    let full = Call { body: b"ab", producer: Some(producer), seq: Some(seq), close: true };
    vec![full, bare(b"c"), Call { close: true, ..bare(b"") }]
}

fn encoded(calls: &[Call<'_>]) -> Vec<u8> {
    let mut batch = Vec::new();
    calls.iter().for_each(|call| encode(&mut batch, call));
    batch
}

#[test]
fn golden_calls() {
    assert_eq!(encoded(&golden()), GOLDEN);
    assert_eq!(decode(GOLDEN), Ok(golden()));
    assert_eq!(decode(&[2]), Ok(vec![]));
}

#[test]
fn bodies_are_borrowed() {
    let calls = decode(GOLDEN).unwrap();
    assert!(GOLDEN.as_ptr_range().contains(&calls[0].body.as_ptr()));
}

#[test]
fn truncations() {
    assert_eq!(decode(b""), Err(FrameError::Truncated));
    let ends = [1, 31, 37, 42];
    for length in 1..GOLDEN.len() {
        let error = match length {
            _ if ends.contains(&length) => {
                assert!(decode(&GOLDEN[..length]).is_ok(), "{length}");
                continue;
            }
            29 | 30 | 36 => FrameError::PayloadLength,
            _ => FrameError::Truncated,
        };
        assert_eq!(decode(&GOLDEN[..length]), Err(error), "{length}");
    }
}

#[test]
fn refuses() {
    let with = |at: usize, byte: u8| {
        let mut bytes = GOLDEN.to_vec();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(decode(&with(0, 1)), Err(FrameError::UnknownVersion(1)));
    assert_eq!(decode(&with(1, 8)), Err(FrameError::UnknownFlags(8)));
    assert_eq!(decode(&with(5, 255)), Err(FrameError::PayloadLength));
    assert_eq!(decode(&with(13, 255)), Err(FrameError::InvalidText));
    assert_eq!(decode(&with(21, 255)), Err(FrameError::InvalidText));
    for byte in [b' ', 0xFF] {
        assert_eq!(decode(&with(24, byte)), Err(FrameError::InvalidText));
        assert_eq!(decode(&with(27, byte)), Err(FrameError::InvalidText));
    }
}

fn stored(count: u64, next: &str, producer: Option<(u64, u64)>) -> Answer {
    Answer::Stored { count, next: next.into(), closed: false, producer }
}

fn closing(count: u64, next: &str) -> Answer {
    Answer::Stored { count, next: next.into(), closed: true, producer: None }
}

fn answers(list: impl IntoIterator<Item = Answer>) -> Answers {
    let mut answers = Answers::default();
    list.into_iter().for_each(|answer| answers.push(answer));
    answers
}

#[test]
fn golden_answers() {
    let gap = ApiError::new(ErrorCode::ProducerGap, "gap").with("expectedSeq", 3).with("id", "p");
    let duplicate = Answer::Duplicate { next: "n".into(), closed: false, producer: None };
    let plain = ApiError::new(ErrorCode::EmptyBody, "empty");
    let list = [
        stored(1, "n", Some((2, 5))),
        Answer::Refused(gap),
        duplicate,
        closing(4, "m"),
        Answer::Refused(plain),
    ];
    let message = [
        "\u{2}[",
        r#"{"stored":{"count":1,"next":"n","closed":false,"producer":[2,5]}},"#,
        r#"{"refused":{"code":"PRODUCER_GAP","message":"gap","details":[["expectedSeq",3],["id","p"]]}},"#,
        r#"{"duplicate":{"next":"n","closed":false,"producer":null}},"#,
        r#"{"stored":{"count":4,"next":"m","closed":true,"producer":null}},"#,
        r#"{"refused":{"code":"EMPTY_BODY","message":"empty"}}]"#,
    ]
    .concat();
    let answers = answers(list.clone());
    assert_eq!(String::from_utf8(answers.encode()).unwrap(), message);
    assert_eq!(Answers::decode(message.as_bytes()), Ok(list.to_vec()));
}

#[test]
fn stored_answers_become_one() {
    let list =
        answers([stored(1, "a", Some((0, 0))), stored(2, "b", Some((0, 1))), closing(1, "c")]);
    assert_eq!(list.as_slice(), [closing(4, "c")]);
    let lone = answers([stored(1, "a", Some((0, 7)))]);
    assert_eq!(lone.as_slice(), [stored(1, "a", Some((0, 7)))]);
    let refused = Answer::Refused(ApiError::new(ErrorCode::StreamClosed, "closed"));
    let list = [closing(1, "a"), stored(1, "a", None), refused, stored(1, "b", None)];
    assert_eq!(answers(list.clone()).as_slice(), list);
    assert!(Answers::default().is_empty() && !lone.is_empty());
}

#[test]
fn other_answers_are_refused() {
    for (message, error) in [
        (&b""[..], FrameError::Truncated),
        (b"\x01[]", FrameError::UnknownVersion(1)),
        (b"\x03[]", FrameError::UnknownVersion(3)),
        (b"\x02", FrameError::InvalidText),
        (b"\x02{}", FrameError::InvalidText),
        (b"\x02[]x", FrameError::InvalidText),
        (
            b"\x02[{\"stored\":{\"count\":0,\"next\":\"n\",\"closed\":false}}]",
            FrameError::InvalidText,
        ),
        (b"\x02[{\"refused\":{\"code\":\"NEW\",\"message\":\"\"}}]", FrameError::InvalidText),
    ] {
        assert_eq!(Answers::decode(message), Err(error), "{message:?}");
    }
    assert_eq!(Answers::decode(b"\x02[]"), Ok(vec![]));
}

/// What a [`Call`] borrows or owns, to be generated.
type Parts = (Vec<u8>, Option<(String, u64, u64)>, Option<String>, bool);

fn parts() -> impl Strategy<Value = Parts> {
    let number = 0..=SAFE_INTEGER_MAX;
    let producer = prop::option::of(("[!-~]{1,256}", number.clone(), number));
    let body = prop::collection::vec(any::<u8>(), 0..64);
    (body, producer, prop::option::of("[!-~]{1,256}"), any::<bool>())
}

fn call((body, producer, seq, close): &Parts) -> Call<'_> {
    let producer = producer.as_ref().map(|(id, epoch, seq)| Producer {
        id: ProducerId::parse(id).unwrap(),
        epoch: Epoch(*epoch),
        seq: Seq(*seq),
    });
    let seq = seq.as_ref().map(|seq| StreamSeq::parse(seq).unwrap());
    Call { body, producer, seq, close: *close }
}

fn answer() -> impl Strategy<Value = Answer> {
    let producer = || prop::option::of((0..9_u64, 0..9_u64));
    prop_oneof![
        (1..5_u64, "[a-z]{1,3}", any::<bool>(), producer()).prop_map(
            |(count, next, closed, producer)| Answer::Stored { count, next, closed, producer }
        ),
        ("[a-z]{1,3}", any::<bool>(), producer())
            .prop_map(|(next, closed, producer)| Answer::Duplicate { next, closed, producer }),
        (prop::sample::select(ErrorCode::ALL), any::<String>(), any::<u64>()).prop_map(
            |(code, message, number)| Answer::Refused(
                ApiError::new(code, message.clone())
                    .with("text", message)
                    .with("number", number)
                    .with("flag", true)
            )
        ),
    ]
}

proptest! {
    #[test]
    fn calls_round_trip(parts in prop::collection::vec(parts(), 1..6)) {
        let calls: Vec<Call<'_>> = parts.iter().map(call).collect();
        let batch = encoded(&calls);
        prop_assert_eq!(decode(&batch), Ok(calls));
    }

    #[test]
    fn answers_round_trip_and_keep_their_count(list in prop::collection::vec(answer(), 0..12)) {
        let answers = answers(list.clone());
        let decoded = Answers::decode(&answers.encode()).unwrap();
        prop_assert_eq!(&decoded[..], answers.as_slice());
        let counted = |list: &[Answer]| list.iter().map(Answer::count).sum::<u64>();
        prop_assert_eq!(counted(&decoded), counted(&list));
        // Refusals and duplicates stand where they stood.
        let lone = |list: &[Answer]| {
            let mut at = 0;
            list.iter().filter_map(|answer| {
                at += answer.count();
                (!matches!(answer, Answer::Stored { .. })).then(|| (at, answer.clone()))
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(lone(&decoded), lone(&list));
    }
}
