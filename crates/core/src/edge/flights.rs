//! The isolate's [`Flights`], on JavaScript promises.
//!
//! A waiter is a promise that was made in the waiting request: whichever request resolves it, the
//! platform goes on in the one that made it. Nothing else passes between requests but plain data.
//!
//! # Errors
//! A map that is in use has no room: the reader goes alone. It cannot happen, as nothing here
//! calls out while the map is borrowed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use engine::flights::{
    Asked, FlightId, Flights, Key, News, Outcome, Reach, Seat, Write, satisfies,
};
use futures::future::select;
use js_sys::{Function, Promise};
use protocol::time::UnixMillis;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::Delay;

use super::pages::{Facts, Landed};
use crate::js;

#[wasm_bindgen(module = "/src/edge/pages.js")]
extern "C" {
    fn noted(promise: &Promise, stream: &str, is_append: bool, wrote: &Function) -> Promise;
}

type Slot = Rc<Cell<Option<Outcome<Landed>>>>;

/// How a reader is woken.
struct Waiter {
    slot: Slot,
    wake: Function,
}

/// A reader that waits.
pub(super) struct Waiting {
    pub(super) seat: Seat,
    slot: Slot,
    promise: Promise,
}

/// What a reader that asks is to do: see [`Asked`].
pub(super) enum Turn {
    Landed(Landed),
    Waits(Waiting),
    Leads(Waiting),
    Alone,
}

thread_local! {
    static FLIGHTS: RefCell<Flights<Waiter, Landed>> = RefCell::default();
}

fn with<T>(body: impl FnOnce(&mut Flights<Waiter, Landed>) -> T) -> Option<T> {
    FLIGHTS.with(|flights| flights.try_borrow_mut().ok().map(|mut flights| body(&mut flights)))
}

/// A reader asks; a trip that it begins ends at `until`, and without it begins none.
pub(super) fn ask(key: &Key, until: Option<UnixMillis>) -> Turn {
    let slot = Slot::default();
    let mut wake = None;
    let promise = Promise::new(&mut |resolve, _| wake = Some(resolve));
    let Some(wake) = wake else { return Turn::Alone };
    let waiter = || Waiter { slot: Rc::clone(&slot), wake };
    let asked = with(|flights| flights.ask(key, js::now(), until, waiter));
    match asked.unwrap_or(Asked::Alone) {
        Asked::Landed(landed) => Turn::Landed(landed),
        Asked::Waits(seat) => Turn::Waits(Waiting { seat, slot, promise }),
        Asked::Leads(seat) => Turn::Leads(Waiting { seat, slot, promise }),
        Asked::Alone => Turn::Alone,
    }
}

impl Waiting {
    /// Waits for the outcome; `None` when the time is over.
    pub(super) async fn outcome(self, until: UnixMillis) -> Option<Outcome<Landed>> {
        let left = Duration::from_millis(until.saturating_since_ms(js::now()));
        // The timer may be first although the trip has landed: the promise is resolved from another
        // request, and its news takes a turn of the event loop.
        select(JsFuture::from(self.promise), Delay::from(left)).await;
        self.slot.take()
    }
}

/// A reader waits no longer. Returns what to tell if nothing has happened so far.
pub(super) fn leave(seat: &Seat) -> Option<Landed> {
    with(|flights| flights.leave(seat)).flatten()
}

/// A trip waits for something to happen.
pub(super) fn waiting(id: FlightId, landed: Landed) {
    with(|flights| flights.waiting(id, landed));
}

/// Whether an answer of so many bytes is to be read into memory for those who wait.
pub(super) fn may_read(id: FlightId, bytes: u64) -> bool {
    with(|flights| flights.may_read(id, bytes, js::now())).unwrap_or(false)
}

/// A read has turned out to be for its reader only.
pub(super) fn part(key: &Key) {
    with(|flights| flights.part(key, js::now()));
}

/// A trip has ended: everybody who waits for it hears of it.
pub(super) fn land(id: FlightId, outcome: &Outcome<Landed>, bytes: Option<u64>) {
    let waiters = with(|flights| flights.land(id, outcome, bytes, js::now()));
    for Waiter { slot, wake } in waiters.unwrap_or_default() {
        slot.set(Some(outcome.clone()));
        // A reader that has left cannot be woken, and need not be.
        let _ = wake.call0(&JsValue::UNDEFINED);
    }
}

/// How far writes through this isolate have brought a stream.
pub(super) fn written(stream: &str) -> Option<Reach> {
    with(|flights| flights.written(stream)).flatten()
}

/// Whether an answer of the cache is good for a reader that asks now: no write that is known here
/// has made it an earlier life's, or not the end any more.
pub(super) fn is_current(stream: &str, facts: &Facts) -> bool {
    let is_current = with(|flights| {
        let claim = facts.claim();
        flights.is_of_this_life(stream, facts.asked_at)
            && flights.written(stream).is_none_or(|written| satisfies(claim, written))
    });
    is_current.unwrap_or(false)
}

/// The same promise of a write's answer; before the client sees it, nothing older is handed out to
/// those who ask from then on.
pub(super) fn note_write(promise: &Promise, stream: &str, is_append: bool) -> Promise {
    thread_local! {
        static WROTE: Function =
            Closure::<dyn Fn(String, bool, u16, String, bool)>::new(
                |stream: String, is_append, status, next: String, closed| {
                    let tail = next.parse().ok().map(|next| Reach { next, closed });
                    let write = if is_append { Write::Append } else { Write::Life };
                    let news = News::of(write, status, tail);
                    with(|flights| flights.wrote(&stream, news, js::now()));
                },
            )
            .into_js_value()
            .unchecked_into();
    }
    WROTE.with(|wrote| noted(promise, stream, is_append, wrote))
}

/// The same promise of the answer to an append; before the client sees it, nothing older is handed
/// out to those who ask through this isolate from then on. `stream` is an object name.
pub fn note_append(promise: &Promise, stream: &str) -> Promise {
    note_write(promise, stream, true)
}

/// Keeps a request's work going when its client has left.
pub(super) fn keep_alive(context: &js::Context, promise: &Promise) {
    // Without it the work ends with the client, and those who wait begin again.
    let _ = context.wait_until(promise);
    js::ignore(promise);
}
