//! What clients know: an account of every token they sent, kept apart from the model.
//!
//! The model is told what the engine answered; the ledger only what reached the client. An
//! answer that got lost, and a failure of the log, leave a request at `maybe`: its bytes may be
//! there or not, until they are read.

use std::collections::BTreeMap;

use protocol::offset::Generation;
use protocol::producer::{Epoch, Producer, ProducerId, Seq};

use crate::violation::{Check, ensure};
use crate::workload::count_tokens;

/// How the attempts of one append ended, as its client sees it.
#[derive(Clone, Debug, Default)]
struct Account {
    acked: u64,
    maybe: u64,
    tokens: Vec<u64>,
    /// An attempt carried nothing that could be found again.
    blank: bool,
}

/// Appends of one life, by who can tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A producer's tuple: at most once, however often it is sent and whatever it carries.
    Tuple(Generation, ProducerId, Epoch, Seq),
    /// A plain append: once for every time it is acknowledged.
    Plain(Generation, u64),
}

/// How an attempt ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Acked,
    /// No answer, or a failure of the log.
    Maybe,
    /// Refused.
    Refused,
}

/// The accounts of one path.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<Key, Account>,
}

impl Ledger {
    /// Notes an attempt against a life.
    pub fn note(
        &mut self,
        generation: Generation,
        producer: Option<&Producer>,
        token: Option<u64>,
        outcome: Outcome,
    ) {
        let key = match (producer, token) {
            (Some(Producer { id, epoch, seq }), _) => {
                Key::Tuple(generation, id.clone(), *epoch, *seq)
            }
            (None, Some(token)) => Key::Plain(generation, token),
            (None, None) => return,
        };
        let account = self.accounts.entry(key).or_default();
        account.acked += u64::from(outcome == Outcome::Acked);
        account.maybe += u64::from(outcome == Outcome::Maybe);
        match token {
            Some(token) if !account.tokens.contains(&token) => account.tokens.push(token),
            Some(_) => {}
            None => account.blank = true,
        }
    }

    /// Checks the accounts of a life against its own bytes.
    ///
    /// # Errors
    /// The broken promise.
    pub fn check(&self, generation: Generation, bytes: &[u8]) -> Check {
        let found = count_tokens(bytes);
        for (key, account) in &self.accounts {
            let sum = account.tokens.iter().filter_map(|token| found.get(token)).sum::<u64>();
            let Account { acked, maybe, blank, .. } = account;
            match key {
                Key::Tuple(life, ..) if *life == generation => {
                    ensure!(sum <= 1, ProducerOnce, "{key:?} stands {sum} times");
                    let kept = sum == 1 || *acked == 0 || *blank;
                    ensure!(kept, AckedReadable, "{key:?} was acked and lost");
                    ensure!(sum == 0 || acked + maybe > 0, Residue, "{key:?} was refused");
                }
                Key::Plain(life, _) if *life == generation => {
                    ensure!(sum >= *acked, AckedReadable, "{key:?}: {sum} of {acked} acked");
                    ensure!(sum <= acked + maybe, Residue, "{key:?}: {sum}, {acked} + {maybe}");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets the accounts of lives that are gone.
    pub fn forget_before(&mut self, generation: Generation) {
        self.accounts.retain(|key, _| match key {
            Key::Tuple(life, ..) | Key::Plain(life, _) => *life >= generation,
        });
    }
}
