//! Joins that overlap, repeat, and end before they have begun: what the simulator found.

use protocol::fanout::Wish;

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
    session.created(GENERATION, UnixMillis(600_000), NOW).unwrap();
    session
}

fn begin(session: &mut Session<MemoryLedger>) -> Joining {
    begin_from(session, "-1")
}

fn begin_from(session: &mut Session<MemoryLedger>, from: &str) -> Joining {
    let wish = Wish { source: SOURCE.to_owned(), from: from.to_owned() };
    session.begin_joins(&[wish], NOW).unwrap().remove(0).unwrap()
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
fn a_join_that_is_repeated_goes_on_where_the_first_attempt_is() {
    let mut session = session();
    let (first, second) = (begin(&mut session), begin(&mut session));
    let mut session = Session::open(session.into_ledger(), BOUNDS, NOW).unwrap();
    let third = begin(&mut session);
    assert_eq!([first.first, second.first, third.first], [first.epoch; 3]);
    // Who wants to begin elsewhere repeats nothing.
    let elsewhere = begin_from(&mut session, "now");
    assert_eq!(elsewhere.first, elsewhere.epoch);
    // Nor does who subscribes again when the attempts are settled, undone or over.
    assert!(join(&mut session, &elsewhere));
    let settled = begin_from(&mut session, "now");
    assert_eq!((settled.first, settled.known), (settled.epoch, Some(elsewhere.epoch)));
    session.begin_duties(9, UnixMillis(NOW.0 + PATIENCE_MS)).unwrap();
    let undone = begin_from(&mut session, "now");
    assert_eq!((undone.first, undone.known), (undone.epoch, Some(elsewhere.epoch)));
    session.begin_leaving(SOURCE, NOW).unwrap();
    let left = begin_from(&mut session, "now");
    assert_eq!((left.first, left.known), (left.epoch, None));
    // What was being left is, even if this one comes to nothing.
    session.refused(&[left], NOW).unwrap();
    let leaving = session.begin_duties(9, NOW).unwrap().leaving.remove(0);
    assert_eq!(leaving.first, SubscriptionEpoch(0));
}

#[test]
fn a_refusal_does_not_forget_an_earlier_join() {
    let mut session = session();
    let (first, second) = (begin(&mut session), begin_from(&mut session, "now"));
    session.refused(std::slice::from_ref(&second), NOW).unwrap();
    assert_eq!(step(&session), Some((None, Step::Undoing(second.epoch))));
    let leaving = session.begin_duties(9, NOW).unwrap().leaving.remove(0);
    assert_eq!((leaving.first, leaving.last), (first.epoch, second.epoch));
    session.end_leaving(&leaving, true, NOW).unwrap();
    assert_eq!(step(&session), None);
}

#[test]
fn what_is_undone_is_not_what_is_live() {
    let mut session = session();
    let first = begin(&mut session);
    assert!(join(&mut session, &first));
    let second = begin(&mut session);
    let late = UnixMillis(NOW.0 + PATIENCE_MS);
    let leaving = session.begin_duties(9, late).unwrap().leaving.remove(0);
    assert_eq!((leaving.first, leaving.last), (second.epoch, second.epoch));
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

#[test]
fn nobody_is_woken_for_a_join_that_is_settled() {
    let mut session = session();
    let ends = session.ledger().alarm;
    let joining = begin(&mut session);
    assert_eq!(session.ledger().alarm, Some(UnixMillis(NOW.0 + PATIENCE_MS)));
    assert!(join(&mut session, &joining));
    assert_eq!(session.ledger().alarm, ends);
}
