use super::*;
use proptest::prelude::*;
use protocol::limits::FLIGHT_APART_MS;
use protocol::offset::{Generation, Position};

type Trips = Flights<u32, &'static str>;

const SOON: UnixMillis = UnixMillis(20_000);

fn at(ms: u64) -> UnixMillis {
    UnixMillis(ms)
}

fn key(read: &str) -> Key {
    Key { stream: "p/a".into(), read: read.into() }
}

fn reach(position: u64) -> Reach {
    Reach {
        next: Offset { generation: Generation(7), position: Position(position) },
        closed: false,
    }
}

fn seat(asked: Asked<&'static str>) -> Seat {
    match asked {
        Asked::Leads(seat) | Asked::Waits(seat) => seat,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_leads_and_the_others_wait() {
    let mut trips = Trips::default();
    let Asked::Leads(leader) = trips.ask(&key("5"), at(0), Some(SOON), || 1) else { panic!() };
    let asked = trips.ask(&key("5"), at(9), Some(SOON), || 2);
    assert!(matches!(asked, Asked::Waits(seat) if seat.flight == leader.flight));
    assert!(matches!(trips.ask(&key("6"), at(9), Some(SOON), || 3), Asked::Leads(_)));
    let outcome = Outcome::Shared("bytes", None);
    assert_eq!(trips.land(leader.flight, &outcome, Some(5), at(10)), [1, 2]);
    assert_eq!(trips.ask(&key("5"), at(209), Some(SOON), || 4), Asked::Landed("bytes"));
    assert!(matches!(trips.ask(&key("5"), at(210), Some(SOON), || 4), Asked::Leads(_)));
    assert_eq!(trips.lingering_bytes(), 0);
}

#[test]
fn who_leaves_is_not_woken_and_knows_what_to_tell() {
    let mut trips = Trips::default();
    let leader = seat(trips.ask(&key("5"), at(0), Some(SOON), || 1));
    let follower = seat(trips.ask(&key("5"), at(0), Some(SOON), || 2));
    assert_eq!(trips.leave(&follower), None);
    trips.waiting(leader.flight, "nothing yet");
    let late = seat(trips.ask(&key("5"), at(0), Some(SOON), || 3));
    assert_eq!(trips.leave(&late), Some("nothing yet"));
    let outcome = Outcome::TimedOut("nothing", None);
    assert_eq!(trips.land(leader.flight, &outcome, None, at(1)), [1]);
    assert_eq!(trips.land(leader.flight, &outcome, None, at(1)), [0; 0]);
}

#[test]
fn a_lost_trip_is_begun_again() {
    let mut trips = Trips::default();
    let leader = seat(trips.ask(&key("5"), at(0), Some(at(90_000)), || 1));
    assert_eq!(leader.lost_at, at(FLIGHT_MS_MAX + FLIGHT_GRACE_MS));
    let patient = Reader::new(at(0), at(90_000), None);
    assert_eq!(patient.patience(&leader), leader.lost_at);
    let again = trips.ask(&key("5"), leader.lost_at, Some(at(90_000)), || 2);
    assert!(matches!(again, Asked::Leads(seat) if seat.flight != leader.flight));
    // It lands after all: those who waited hear of it, and it does not linger.
    let outcome = Outcome::Shared("late", None);
    assert_eq!(trips.land(leader.flight, &outcome, Some(1), leader.lost_at), [1]);
    assert!(matches!(trips.ask(&key("5"), leader.lost_at, Some(SOON), || 3), Asked::Waits(_)));
}

#[test]
fn nobody_begins_what_the_platform_would_end() {
    let reader = Reader::new(at(1000), at(91_000), None);
    let last = at(1000 + FLIGHT_MS_MAX);
    assert_eq!(reader.leads_until(at(1000), 20_000), Some(at(21_000)));
    assert_eq!(reader.leads_until(at(1000), 90_000), Some(last));
    assert_eq!(reader.leads_until(at(11_000), 20_000), Some(last));
    assert_eq!(reader.leads_until(at(25_000), 20_000), Some(last));
    assert_eq!(reader.leads_until(at(25_001), 20_000), None);
    assert_eq!(reader.leads_until(at(60_000), 20_000), None);
    assert!(!reader.is_late(at(25_001)) && !reader.is_late(at(89_999)));
    assert!(reader.is_late(at(90_000)) && reader.is_late(at(91_000)));
    // It joins others as before.
    let mut trips = Trips::default();
    assert_eq!(trips.ask(&key("5"), at(30_000), None, || 1), Asked::Alone);
    let leader = seat(trips.ask(&key("5"), at(30_000), Some(at(50_000)), || 2));
    let asked = trips.ask(&key("5"), at(30_000), None, || 3);
    assert!(matches!(asked, Asked::Waits(seat) if seat.flight == leader.flight));
}

#[test]
fn outcomes_mean_something_else_to_each_reader() {
    let mut reader = Reader::new(at(0), at(1000), None);
    assert_eq!(reader.hears(Outcome::Shared("a", None), at(0)), Step::Answer("a"));
    assert_eq!(reader.hears(Outcome::TimedOut("none", None), at(900)), Step::WaitOn("none"));
    assert_eq!(reader.hears(Outcome::TimedOut("none", None), at(1000)), Step::Answer("none"));
    assert_eq!(reader.hears(Outcome::<&str>::Unshared, at(0)), Step::GoAlone);
    for _ in 0..FLIGHT_FAILURES_MAX {
        assert_eq!(reader.hears(Outcome::Failed("no"), at(0)), Step::AskAgain);
    }
    assert_eq!(reader.hears(Outcome::Failed("no"), at(0)), Step::Answer("no"));
}

#[test]
fn a_writer_reads_its_own_write() {
    let mut trips = Trips::default();
    let flight = seat(trips.ask(&key("5"), at(0), Some(SOON), || 1)).flight;
    trips.wrote("p/a", News::Reach(reach(9)), at(0));
    let mut reader = Reader::new(at(0), SOON, trips.written("p/a"));
    let other = Reader::new(at(0), SOON, None);
    // What was on its way ends before the write.
    let outcome = Outcome::Shared("up to 7", Some(reach(7)));
    trips.land(flight, &outcome, Some(7), at(1));
    assert!(matches!(trips.ask(&key("5"), at(1), Some(SOON), || 2), Asked::Leads(_)));
    assert_eq!({ other }.hears(outcome.clone(), at(1)), Step::Answer("up to 7"));
    assert_eq!(reader.hears(outcome.clone(), at(1)), Step::AskAgain);
    assert_eq!(reader.hears(outcome, at(1)), Step::GoAlone);
    let whole = Outcome::Shared("up to 9", Some(reach(9)));
    assert_eq!(reader.hears(whole, at(1)), Step::Answer("up to 9"));
    // A page that does not claim to be all is good for everybody.
    assert_eq!(reader.hears(Outcome::Shared("page", None), at(1)), Step::Answer("page"));
}

#[test]
fn a_reader_whose_time_is_over_is_not_told_that_its_own_write_is_not_there() {
    let reader = Reader::new(at(0), SOON, Some(reach(9)));
    assert_eq!(reader.gives_up(Some(("up to 9", Some(reach(9))))), Some(Step::Answer("up to 9")));
    assert_eq!(reader.gives_up(Some(("up to 7", Some(reach(7))))), Some(Step::GoAlone));
    assert_eq!(reader.gives_up::<&str>(None), None);
}

#[test]
fn a_close_is_a_write() {
    let closed = Reach { closed: true, ..reach(9) };
    assert!(!satisfies(Some(reach(9)), closed) && satisfies(Some(closed), reach(9)));
    assert!(satisfies(Some(reach(10)), closed));
}

#[test]
fn lingering_answers_go_with_a_write_of_their_stream() {
    let mut trips = Trips::default();
    let mut landed = |stream: &str, read: &str, claim| {
        let key = Key { stream: stream.into(), read: read.into() };
        let flight = seat(trips.ask(&key, at(0), Some(SOON), || 0)).flight;
        trips.land(flight, &Outcome::Shared("x", claim), Some(1), at(0));
        key
    };
    let page = landed("p/a", "page", None);
    let tail = landed("p/a", "tail", Some(reach(7)));
    let other = landed("p/b", "tail", Some(reach(7)));
    trips.wrote("p/a", News::Reach(reach(9)), at(0));
    assert_eq!(trips.ask(&page, at(1), Some(SOON), || 0), Asked::Landed("x"));
    assert!(matches!(trips.ask(&tail, at(1), Some(SOON), || 0), Asked::Leads(_)));
    assert_eq!(trips.ask(&other, at(1), Some(SOON), || 0), Asked::Landed("x"));
    trips.wrote("p/a", News::Nothing, at(6));
    assert_eq!(trips.ask(&page, at(1), Some(SOON), || 0), Asked::Landed("x"));
    // A delete or a create: nothing stays, and nothing under way can be joined.
    trips.wrote("p/a", News::NewLife, at(7));
    assert!(!trips.is_of_this_life("p/a", at(7)) && trips.is_of_this_life("p/a", at(8)));
    assert!(trips.is_of_this_life("p/b", at(0)));
    assert!(matches!(trips.ask(&page, at(1), Some(SOON), || 0), Asked::Leads(_)));
    assert!(matches!(trips.ask(&tail, at(1), Some(SOON), || 0), Asked::Leads(_)));
    assert_eq!(trips.written("p/a"), None);
}

#[test]
fn writes_are_remembered_up_to_a_bound() {
    let mut writes = Writes::default();
    writes.note("a", reach(5));
    writes.note("a", reach(3));
    assert_eq!(writes.last("a"), Some(reach(5)));
    for n in 0..2 * FLIGHT_WRITES_MAX {
        writes.note(&n.to_string(), reach(1));
    }
    assert_eq!(writes.last("a"), None);
    assert!(writes.young.len() + writes.old.len() <= FLIGHT_WRITES_MAX);
}

#[test]
fn the_least_recently_used_answer_makes_room() {
    let mut trips = Trips::default();
    let third = FLIGHT_BYTES_MAX / 3;
    for read in ["a", "b", "c"] {
        let flight = seat(trips.ask(&key(read), at(0), Some(SOON), || 0)).flight;
        trips.land(flight, &Outcome::Shared("x", None), Some(third), at(0));
    }
    assert_eq!(trips.ask(&key("a"), at(1), Some(SOON), || 0), Asked::Landed("x"));
    let flight = seat(trips.ask(&key("d"), at(1), Some(SOON), || 0)).flight;
    trips.land(flight, &Outcome::Shared("x", None), Some(third), at(1));
    assert!(matches!(trips.ask(&key("b"), at(1), Some(SOON), || 0), Asked::Leads(_)));
    for read in ["a", "c", "d"] {
        assert_eq!(trips.ask(&key(read), at(1), Some(SOON), || 0), Asked::Landed("x"), "{read}");
    }
    let flight = seat(trips.ask(&key("e"), at(1), Some(SOON), || 0)).flight;
    trips.land(flight, &Outcome::Shared("x", None), Some(FLIGHT_BYTES_MAX + 1), at(1));
    assert!(matches!(trips.ask(&key("e"), at(1), Some(SOON), || 0), Asked::Leads(_)));
}

#[test]
fn the_trip_that_the_fewest_share_makes_room() {
    let mut trips = Trips::default();
    let names: Vec<String> = (0..FLIGHTS_MAX).map(|n| n.to_string()).collect();
    let first = seat(trips.ask(&key("0"), at(0), Some(SOON), || 0));
    for name in &names {
        seat(trips.ask(&key(name), at(0), Some(SOON), || 1));
    }
    // The oldest that nobody joined.
    assert!(matches!(trips.ask(&key("x"), at(0), Some(SOON), || 2), Asked::Leads(_)));
    let hot = trips.ask(&key("0"), at(0), Some(SOON), || 3);
    assert!(matches!(hot, Asked::Waits(seat) if seat.flight == first.flight));
    assert!(matches!(trips.ask(&key("x"), at(0), Some(SOON), || 4), Asked::Waits(_)));
    let again = seat(trips.ask(&key("1"), at(0), Some(SOON), || 5));
    assert!(trips.joinable.len() <= FLIGHTS_MAX);
    // The trip that was left lands for those who began it, and not for the later ones.
    let mut of_one = trips.flights.iter().filter(|(_, trip)| trip.key == key("1"));
    let left = of_one.find(|(id, _)| **id != again.flight);
    let left = left.map(|(id, _)| *id);
    let outcome = Outcome::Shared("bytes", None);
    let woken = left.map(|left| trips.land(left, &outcome, Some(5), at(1)));
    assert_eq!(woken, Some(vec![1]));
    assert!(matches!(trips.ask(&key("1"), at(1), Some(SOON), || 6), Asked::Waits(_)));
}

#[test]
fn more_trips_than_there_is_room_for_are_nobodys_to_share() {
    let mut trips = Trips::default();
    for n in 0..FLIGHTS_UNDER_WAY_MAX {
        seat(trips.ask(&key(&n.to_string()), at(0), Some(SOON), || 0));
    }
    assert_eq!(trips.joinable.len(), FLIGHTS_MAX);
    assert_eq!(trips.ask(&key("x"), at(0), Some(SOON), || 0), Asked::Alone);
    let last = (FLIGHTS_UNDER_WAY_MAX - 1).to_string();
    assert!(matches!(trips.ask(&key(&last), at(0), Some(SOON), || 0), Asked::Waits(_)));
    // Those that ended without a word make room.
    let later = at(SOON.0 + FLIGHT_GRACE_MS);
    assert!(matches!(trips.ask(&key("x"), later, Some(SOON), || 0), Asked::Leads(_)));
}

#[test]
fn a_read_that_nobody_could_share_is_not_waited_for() {
    let mut trips = Trips::default();
    let flight = seat(trips.ask(&key("tail"), at(0), Some(SOON), || 1)).flight;
    trips.part(&key("tail"), at(10));
    assert!(matches!(trips.ask(&key("tail"), at(10), Some(SOON), || 2), Asked::Waits(_)));
    trips.land(flight, &Outcome::Unshared, None, at(10));
    assert_eq!(trips.ask(&key("tail"), at(11), Some(SOON), || 3), Asked::Alone);
    assert!(matches!(trips.ask(&key("other"), at(11), Some(SOON), || 4), Asked::Leads(_)));
    let later = at(10 + FLIGHT_APART_MS);
    assert!(matches!(trips.ask(&key("tail"), later, Some(SOON), || 5), Asked::Leads(_)));
}

#[test]
fn what_is_read_into_memory_is_bounded() {
    let mut trips = Trips::default();
    let large = FLIGHT_READING_BYTES_MAX / 2;
    let shared = |trips: &mut Trips, read: &str| {
        let flight = seat(trips.ask(&key(read), at(0), Some(SOON), || 0)).flight;
        trips.ask(&key(read), at(0), Some(SOON), || 0);
        flight
    };
    let [first, second, third] = ["a", "b", "c"].map(|read| shared(&mut trips, read));
    assert!(trips.may_read(first, large, at(0)) && trips.may_read(second, large, at(0)));
    // Asked again, it counts once.
    assert!(trips.may_read(second, large, at(0)));
    assert!(!trips.may_read(third, 1, at(0)));
    trips.land(first, &Outcome::Shared("x", None), None, at(1));
    assert!(trips.may_read(third, 1, at(1)));
    assert!(!trips.may_read(first, 1, at(1)), "it has landed");
    // What ended without a word is read no more.
    let later = at(SOON.0 + FLIGHT_GRACE_MS);
    let next = seat(trips.ask(&key("d"), later, Some(at(40_000)), || 0)).flight;
    trips.ask(&key("d"), later, Some(at(40_000)), || 0);
    assert!(trips.may_read(next, FLIGHT_READING_BYTES_MAX, later));
}

#[test]
fn a_large_answer_that_nobody_else_waits_for_passes_through() {
    let mut trips = Trips::default();
    let flight = seat(trips.ask(&key("a"), at(0), Some(SOON), || 1)).flight;
    assert!(trips.may_read(flight, FLIGHT_ALONE_BYTES_MAX, at(0)));
    assert!(!trips.may_read(flight, FLIGHT_ALONE_BYTES_MAX + 1, at(0)));
    seat(trips.ask(&key("a"), at(0), Some(SOON), || 2));
    assert!(trips.may_read(flight, FLIGHT_ALONE_BYTES_MAX + 1, at(0)));
}

#[derive(Clone, Debug)]
enum Move {
    Ask { read: u8 },
    Leave { which: usize },
    Land { which: usize, position: u64, bytes: u64, kind: u8 },
    Wrote { position: Option<u64> },
    Pass { ms: u64 },
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0..3_u8).prop_map(|read| Move::Ask { read }),
        1 => any::<usize>().prop_map(|which| Move::Leave { which }),
        2 => (any::<usize>(), 0..100_u64, 0..FLIGHT_BYTES_MAX, 0..4_u8)
            .prop_map(|(which, position, bytes, kind)| Move::Land { which, position, bytes, kind }),
        1 => prop::option::of(0..100_u64).prop_map(|position| Move::Wrote { position }),
        2 => (0..400_u64).prop_map(|ms| Move::Pass { ms }),
    ]
}

proptest! {
    /// Every waiter is woken exactly once or has left; nothing stale is given; bounds hold.
    #[test]
    fn each_waiter_is_woken_once(moves in prop::collection::vec(moves(), 0..200)) {
        let mut trips: Flights<u32, u64> = Flights::default();
        let (mut now, mut next) = (at(0), 0_u32);
        let mut waiting: BTreeMap<u32, Seat> = BTreeMap::new();
        let mut written: Option<u64> = None;
        for step in moves {
            match step {
                Move::Ask { read } => {
                    next += 1;
                    let until = now.saturating_add_ms(20_000);
                    match trips.ask(&key(&read.to_string()), now, Some(until), || next) {
                        Asked::Landed(position) => {
                            prop_assert!(written.is_none_or(|written| position >= written));
                        }
                        Asked::Leads(seat) | Asked::Waits(seat) => {
                            waiting.insert(next, seat);
                        }
                        Asked::Alone => prop_assert!(false, "there is room"),
                    }
                }
                Move::Leave { which } => {
                    let Some(waiter) = pick(&waiting, which) else { continue };
                    trips.leave(&waiting[&waiter]);
                    waiting.remove(&waiter);
                }
                Move::Land { which, position, bytes, kind } => {
                    let Some(waiter) = pick(&waiting, which) else { continue };
                    let flight = waiting[&waiter].flight;
                    let claim = Some(reach(position));
                    let outcome = match kind {
                        0 => Outcome::TimedOut(position, claim),
                        1 => Outcome::Failed(position),
                        2 => Outcome::Unshared,
                        _ => Outcome::Shared(position, claim),
                    };
                    let woken = trips.land(flight, &outcome, Some(bytes), now);
                    let expected: Vec<u32> = waiting
                        .iter()
                        .filter(|(_, seat)| seat.flight == flight)
                        .map(|(waiter, _)| *waiter)
                        .collect();
                    prop_assert_eq!(woken, expected);
                    waiting.retain(|_, seat| seat.flight != flight);
                }
                Move::Wrote { position } => {
                    let news = position.map_or(News::NewLife, |position| News::Reach(reach(position)));
                    trips.wrote("p/a", news, now);
                    written = position.map(|position| position.max(written.unwrap_or(0)));
                }
                Move::Pass { ms } => now = now.saturating_add_ms(ms),
            }
            prop_assert!(trips.lingering_bytes() <= FLIGHT_BYTES_MAX);
        }
    }
}

fn pick(waiting: &BTreeMap<u32, Seat>, which: usize) -> Option<u32> {
    waiting.keys().nth(which % waiting.len().max(1)).copied()
}
