//! Joins that overlap, repeat, and end before they have begun: what the simulator found.

use super::*;
use crate::fanout::ledger::memory::MemoryLedger;

const NOW: UnixMillis = UnixMillis(1_000);
const SOURCE: &str = "p/a";
const GENERATION: Generation = Generation(5);
const BOUNDS: SessionBounds =
    SessionBounds { ttl_seconds: 60, subscriptions_max: 4, concurrency: 4, deadline_ms: 1_000 };

fn session() -> Session<MemoryLedger> {
    let mut session = Session::open(MemoryLedger::default(), BOUNDS, NOW).unwrap();
    session.begin_creation(&PutSession::default(), "application/json".into(), NOW).unwrap();
    session.created(GENERATION, UnixMillis(60_000), NOW).unwrap();
    session
}

fn begin(session: &mut Session<MemoryLedger>) -> Joining {
    session.begin_joins(&[SOURCE.to_owned()], NOW).unwrap().remove(0).unwrap()
}

fn join(session: &mut Session<MemoryLedger>, joining: &Joining) -> bool {
    session.joined(&[(joining.clone(), joining.epoch)], NOW).unwrap()[0]
}

fn step(session: &Session<MemoryLedger>) -> Option<(Option<SubscriptionEpoch>, Step)> {
    session.subscription(GENERATION, SOURCE).map(|row| (row.live, row.step))
}

#[test]
fn the_newer_of_two_joins_decides() {
    let mut session = session();
    let (first, second) = (begin(&mut session), begin(&mut session));
    assert!(second.is_repeated && !first.is_repeated);
    assert!(!join(&mut session, &first));
    assert!(join(&mut session, &second));
    assert_eq!(step(&session), Some((Some(second.epoch), Step::Settled)));
}

#[test]
fn a_refusal_does_not_forget_an_earlier_join() {
    let mut session = session();
    let (_, second) = (begin(&mut session), begin(&mut session));
    session.refused(std::slice::from_ref(&second), NOW).unwrap();
    assert_eq!(step(&session), Some((None, Step::Leaving(second.epoch))));
    let leaving = session.begin_duties(9, NOW).unwrap().leaving.remove(0);
    assert_eq!((leaving.first, leaving.last), (SubscriptionEpoch(0), second.epoch));
}

#[test]
fn what_is_undone_is_not_what_is_live() {
    let mut session = session();
    let first = begin(&mut session);
    assert!(join(&mut session, &first));
    let second = begin(&mut session);
    let late = UnixMillis(NOW.0 + PATIENCE_MS);
    let leaving = session.begin_duties(9, late).unwrap().leaving.remove(0);
    assert_eq!((leaving.first.0, leaving.last), (first.epoch.0 + 1, second.epoch));
    // Its answer comes after all.
    assert!(!join(&mut session, &second));
    session.end_leaving(&leaving, true, late).unwrap();
    assert_eq!(step(&session), Some((Some(first.epoch), Step::Settled)));
}

#[test]
fn what_has_ended_does_not_come_back() {
    let mut session = session();
    let first = begin(&mut session);
    session.has_ended(GENERATION, SOURCE, first.epoch, NOW).unwrap();
    assert!(!join(&mut session, &first));
    assert_eq!(step(&session), None);
    let first = begin(&mut session);
    assert!(join(&mut session, &first));
    let second = begin(&mut session);
    session.has_ended(GENERATION, SOURCE, first.epoch, NOW).unwrap();
    assert!(!session.joined(&[(second, first.epoch)], NOW).unwrap()[0]);
    assert_eq!(step(&session), None);
}
