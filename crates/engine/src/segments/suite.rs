//! The contract of [`Segments`] as tests. Every implementation runs [`run`] on a store without
//! objects under the given prefix.
//!
//! A case fails by assertion.

#![allow(clippy::unwrap_used, reason = "a contract suite fails by panicking")]

use super::{Outcome, Segments, Stored};
use crate::log::Blob;
use crate::sums::crc32c;

/// Runs every case; names of objects begin with `prefix`.
pub async fn run<S: Segments>(store: &S, prefix: &str) {
    nothing_is_there(store, &format!("{prefix}/a")).await;
    objects_read_back(store, &format!("{prefix}/b")).await;
    names_are_written_once(store, &format!("{prefix}/c")).await;
    deletes_are_idempotent(store, &format!("{prefix}/d")).await;
    listings_are_ordered_pages(store, &format!("{prefix}/e")).await;
    large_objects(store, &format!("{prefix}/f")).await;
}

async fn put<S: Segments>(store: &S, name: &str, bytes: &[u8]) -> Outcome {
    let stored = Stored { size: bytes.len() as u64, sum: crc32c(bytes) };
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let parts = [first, second].map(|part| S::Bytes::from_vec(part.to_vec())).to_vec();
    store.put(name, parts, stored).await
}

async fn get<S: Segments>(store: &S, name: &str, range: std::ops::Range<u64>) -> Vec<u8> {
    store.get(name, range).await.unwrap().unwrap().to_vec()
}

async fn nothing_is_there<S: Segments>(store: &S, name: &str) {
    assert_eq!(store.head(name).await.unwrap(), None);
    assert!(store.get(name, 0..10).await.unwrap().is_none());
    assert_eq!(store.list(name, None, 10).await.unwrap(), []);
}

async fn objects_read_back<S: Segments>(store: &S, name: &str) {
    let name = format!("{name}/söme path//0000000000000001/0000000000000000.1");
    assert_eq!(put(store, &name, b"hello world").await, Outcome::Done);
    let stored = store.head(&name).await.unwrap().unwrap();
    assert_eq!(stored, Stored { size: 11, sum: crc32c(b"hello world") });
    assert_eq!(get(store, &name, 0..11).await, b"hello world");
    assert_eq!(get(store, &name, 4..7).await, b"o w");
    assert_eq!(get(store, &name, 6..99).await, b"world");
    assert_eq!(store.list(&name, None, 10).await.unwrap().len(), 1);
}

async fn names_are_written_once<S: Segments>(store: &S, name: &str) {
    assert_eq!(put(store, name, b"first").await, Outcome::Done);
    assert_eq!(put(store, name, b"first").await, Outcome::Done);
    assert!(matches!(put(store, name, b"other").await, Outcome::Failed(_)));
    assert_eq!(get(store, name, 0..5).await, b"first");
}

async fn deletes_are_idempotent<S: Segments>(store: &S, name: &str) {
    let names: Vec<String> = (0..3).map(|n| format!("{name}/{n}")).collect();
    for name in names.iter().take(2) {
        assert_eq!(put(store, name, b"x").await, Outcome::Done);
    }
    for _ in 0..2 {
        assert_eq!(store.delete(&names).await, Outcome::Done);
        for name in &names {
            assert_eq!(store.head(name).await.unwrap(), None);
        }
    }
    assert_eq!(store.delete(&[]).await, Outcome::Done);
}

async fn listings_are_ordered_pages<S: Segments>(store: &S, name: &str) {
    let names: Vec<String> = (0..5).map(|n| format!("{name}/{n}")).collect();
    for name in names.iter().rev() {
        assert_eq!(put(store, name, b"xy").await, Outcome::Done);
    }
    let mut found = Vec::new();
    loop {
        let after = found.last().cloned();
        let page = store.list(&format!("{name}/"), after.as_deref(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        assert!(page.iter().all(|listed| listed.size == 2));
        found.extend(page.into_iter().map(|listed| listed.name));
    }
    assert_eq!(found, names);
}

async fn large_objects<S: Segments>(store: &S, name: &str) {
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(put(store, name, &bytes).await, Outcome::Done);
    let range = 1_000_001..2_500_000_usize;
    let got = get(store, name, range.start as u64..range.end as u64).await;
    assert_eq!(Some(got.as_slice()), bytes.get(range));
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures::executor::block_on;

    use super::super::{Fault, Faulty, MemorySegments, Pause, Retrying, Unavailable};
    use super::*;

    /// Counts pauses instead of taking them.
    #[derive(Default)]
    struct Counted(Cell<u32>);

    impl Pause for &Counted {
        async fn pause(&self, _ms: u64) {
            self.0.set(self.0.get() + 1);
        }
    }

    fn faulty(faults: &[Fault]) -> Faulty<MemorySegments, RefCell<Vec<Fault>>> {
        Faulty::new(MemorySegments::default(), RefCell::new(faults.to_vec()))
    }

    #[test]
    fn memory_and_decorators_keep_the_contract() {
        block_on(run(&MemorySegments::default(), "p"));
        block_on(run(&faulty(&[]), "p"));
        // The first call is a question.
        let pause = Counted::default();
        let faults = [Fault::Refused, Fault::Lost, Fault::None];
        block_on(run(&Retrying::new(faulty(&faults), &pause), "p"));
        assert_eq!(pause.0.get(), 2);
    }

    #[test]
    fn faults_are_told_honestly() {
        let put = |fault| {
            let store = faulty(&[fault]);
            let outcome = block_on(put(&store, "a", b"x"));
            (outcome, block_on(store.head("a")).unwrap().is_some())
        };
        assert!(matches!(put(Fault::Refused), (Outcome::Failed(_), false)));
        assert!(matches!(put(Fault::Lost), (Outcome::Unknown(_), false)));
        assert!(matches!(put(Fault::AnswerLost), (Outcome::Unknown(_), true)));
        let get = |fault| {
            let store = faulty(&[Fault::None, fault]);
            block_on(super::put(&store, "a", b"abc"));
            block_on(store.get("a", 0..3))
        };
        assert_eq!(get(Fault::Short), Ok(Some(b"ab".to_vec())));
        assert_eq!(get(Fault::Corrupted), Ok(Some(b"acc".to_vec())));
        assert!(matches!(get(Fault::Refused), Err(Unavailable(_))));
    }

    #[test]
    fn retries_end_and_doubt_stays() {
        let pause = Counted::default();
        let names = ["a".to_owned()];
        let outcome =
            |faults: &[Fault]| block_on(Retrying::new(faulty(faults), &pause).delete(&names));
        assert!(matches!(outcome(&[Fault::Refused; 3]), Outcome::Failed(_)));
        let unsure = outcome(&[Fault::Lost, Fault::Refused, Fault::Refused]);
        assert!(matches!(unsure, Outcome::Unknown(_)));
        assert_eq!(outcome(&[Fault::AnswerLost, Fault::Refused]), Outcome::Done);
        assert_eq!(pause.0.get(), 6);
        let outcome = block_on(put(&Retrying::new(faulty(&[Fault::Lost]), &pause), "a", b"x"));
        assert!(matches!(outcome, Outcome::Unknown(_)));
        assert_eq!(pause.0.get(), 6);
    }
}
