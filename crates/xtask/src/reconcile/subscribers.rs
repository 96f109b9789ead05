//! The subscribers of one stream, compared with the sessions that they are.
//!
//! A subscriber that its session does not know of is *orphaned*; a session that the stream's directory
//! names and no shard has is *missing*. Either is a bug.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{ORPHANED, list, next_of};

/// States of a subscriber, in the order of its life.
const STATES: [&str; 3] = ["live", "leaving", ORPHANED];

/// All pages together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Subscribers by state.
    states: BTreeMap<String, u64>,
    /// Those without a session: session, shard, epoch.
    orphaned: Vec<(String, u64, u64)>,
    missing: Vec<String>,
}

impl Report {
    /// Adds a page and returns where the next one begins.
    pub(super) fn add(&mut self, page: &Value) -> Result<Option<String>> {
        for subscriber in list(page, "subscribers")? {
            let text = |name: &str| subscriber.get(name).and_then(Value::as_str);
            let number = |name: &str| subscriber.get(name).and_then(Value::as_u64);
            let session = text("sessionId").context("no session")?;
            let state = text("state").context("no state")?;
            let shard = number("shard").context("no shard")?;
            let epoch = number("epoch").context("no epoch")?;
            ensure!(STATES.contains(&state), "a state `{state}`");
            *self.states.entry(state.to_owned()).or_default() += 1;
            if state == ORPHANED {
                self.orphaned.push((session.to_owned(), shard, epoch));
            }
        }
        for session in list(page, "missing")? {
            self.missing.push(session.as_str().context("an id that is no text")?.to_owned());
        }
        next_of(page)
    }

    pub(super) fn is_clean(&self) -> bool {
        self.orphaned.is_empty() && self.missing.is_empty()
    }

    fn count(&self, state: &str) -> u64 {
        self.states.get(state).copied().unwrap_or_default()
    }

    pub(super) fn in_words(&self) -> String {
        let mut text = String::new();
        for state in STATES {
            text.push_str(&format!("{state:<12}{:>10} subscribers\n", self.count(state)));
        }
        text.push_str(&format!("{:<12}{:>10} subscribers\n", "missing", self.missing.len()));
        for (session, shard, epoch) in &self.orphaned {
            text.push_str(&format!("{ORPHANED} {session} shard {shard} epoch {epoch}\n"));
        }
        for session in &self.missing {
            text.push_str(&format!("missing {session}\n"));
        }
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let states = STATES.map(|state| (state.to_owned(), self.count(state).into()));
        let orphaned = self.orphaned.iter().map(
            |(session, shard, epoch)| json!({"sessionId": session, "shard": shard, "epoch": epoch}),
        );
        json!({
            "states": states.into_iter().collect::<serde_json::Map<_, _>>(),
            "orphaned": orphaned.collect::<Vec<_>>(),
            "missing": self.missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(session: &str, state: &str) -> Value {
        json!({"sessionId": session, "shard": 1, "epoch": 7, "state": state})
    }

    #[test]
    fn pages_add_up() {
        let mut report = Report::default();
        let page = json!({
            "subscribers": [subscriber("a", "live"), subscriber("b", "leaving")],
            "missing": [], "next": "1.5.b",
        });
        assert_eq!(report.add(&page).unwrap().as_deref(), Some("1.5.b"));
        assert!(report.is_clean());
        let page =
            json!({"subscribers": [subscriber("c", "orphaned")], "missing": [], "next": "d"});
        assert_eq!(report.add(&page).unwrap().as_deref(), Some("d"));
        assert!(!report.is_clean());
        let page = json!({"subscribers": [], "missing": ["e"], "next": null});
        assert_eq!(report.add(&page).unwrap(), None);
        let words = report.in_words();
        assert!(words.starts_with("live                 1 subscribers\n"), "{words}");
        assert!(words.ends_with("orphaned c shard 1 epoch 7\nmissing e\n"), "{words}");
        assert_eq!(report.to_json()["states"], json!({"live": 1, "leaving": 1, "orphaned": 1}));
        assert_eq!(report.to_json()["missing"], json!(["e"]));
    }

    #[test]
    fn whoever_is_missing_is_enough() {
        let mut report = Report::default();
        report.add(&json!({"subscribers": [], "missing": ["e"], "next": null})).unwrap();
        assert!(!report.is_clean());
    }

    #[test]
    fn other_answers_are_errors() {
        let pages = [
            json!({"objects": [], "missing": [], "next": null}),
            json!({"subscribers": [], "missing": []}),
            json!({"subscribers": [], "missing": [1], "next": null}),
            json!({"subscribers": [subscriber("a", "x")], "missing": [], "next": null}),
            json!({"subscribers": [{"sessionId": "a", "state": "live"}], "missing": [], "next": null}),
        ];
        for page in pages {
            assert!(Report::default().add(&page).is_err(), "{page}");
        }
    }
}
