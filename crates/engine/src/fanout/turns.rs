//! [`Turns`]: who does the same thing at the same time waits for those who came before.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A queue over names: whoever takes a turn for some of them waits until each earlier turn that shares a
/// name with it is over. Turns without a common name do not wait for each other.
#[derive(Debug, Default)]
pub struct Turns {
    queue: RefCell<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    last: u64,
    /// In the order in which they came; those that do not wait have their turn.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    names: Vec<String>,
    waker: Option<Waker>,
}

/// Somebody's turn, over when it is dropped; before it has come, too.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Turns {
    /// Waits for a turn.
    pub async fn take(&self, names: Vec<String>) -> Turn<'_> {
        let number = self.with(|queue| queue.push(names)).unwrap_or_default();
        let turn = Turn { turns: self, number };
        let poll = |context: &mut Context<'_>| {
            self.with(|queue| queue.poll(number, context.waker())).unwrap_or(Poll::Ready(()))
        };
        poll_fn(poll).await;
        turn
    }

    /// `None` never comes: no step of the queue calls anybody who comes back to it.
    fn with<T>(&self, step: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        self.queue.try_borrow_mut().ok().map(|mut queue| step(&mut queue))
    }
}

impl Queue {
    fn push(&mut self, names: Vec<String>) -> u64 {
        self.last = self.last.saturating_add(1);
        self.entries.push(Entry { number: self.last, names, waker: None });
        self.last
    }

    /// Removes an entry; who waits is to look again.
    fn remove(&mut self, number: u64) -> Vec<Waker> {
        self.entries.retain(|entry| entry.number != number);
        self.entries.iter_mut().filter_map(|entry| entry.waker.take()).collect()
    }

    fn poll(&mut self, number: u64, waker: &Waker) -> Poll<()> {
        let Some(at) = self.entries.iter().position(|entry| entry.number == number) else {
            return Poll::Ready(());
        };
        let (earlier, rest) = self.entries.split_at_mut(at);
        let Some(entry) = rest.first_mut() else { return Poll::Ready(()) };
        let shares = |other: &Entry| entry.names.iter().any(|name| other.names.contains(name));
        let waits = earlier.iter().any(shares);
        entry.waker = waits.then(|| waker.clone());
        if waits { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let wakers = self.turns.with(|queue| queue.remove(self.number));
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn names(of: &str) -> Vec<String> {
        of.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_name_is_one_turn_at_a_time_in_order() {
        let turns = Turns::default();
        let first = turns.take(names("a b")).now_or_never().unwrap();
        let other = turns.take(names("c")).now_or_never().unwrap();
        let mut second = Box::pin(turns.take(names("b c")));
        let mut third = Box::pin(turns.take(names("c")));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(other);
        assert!(second.as_mut().now_or_never().is_none(), "`b` is still taken");
        assert!(third.as_mut().now_or_never().is_none(), "`c` is the second's");
        drop(first);
        let second = second.now_or_never().unwrap();
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        assert!(third.now_or_never().is_some());
        assert!(turns.queue.borrow().entries.is_empty());
    }

    #[test]
    fn who_stops_waiting_holds_up_nobody() {
        let turns = Turns::default();
        let first = turns.take(names("a")).now_or_never().unwrap();
        let mut second = Box::pin(turns.take(names("a b")));
        assert!(second.as_mut().now_or_never().is_none());
        drop(second);
        assert!(turns.take(names("b")).now_or_never().is_some());
        drop(first);
        assert!(turns.take(names("a")).now_or_never().is_some());
    }

    #[test]
    fn who_waits_is_woken() {
        let turns = Turns::default();
        let mut pool = futures::executor::LocalPool::new();
        let first = turns.take(names("a")).now_or_never().unwrap();
        let (ended, took) = (async { drop(first) }, turns.take(names("a")));
        pool.run_until(futures::future::join(took, ended));
    }
}
