//! The object store compared with the logs of a project, for operators. Reports, never guesses, and
//! changes nothing.
//!
//! The edge lists one page of the bucket and asks the stream that each name belongs to. What looks
//! wrong is looked at once more, since streams go on meanwhile: an object without a reference must
//! still be there, and a reference without an object must still have none.
//!
//! A stream none of whose objects is in the store is not asked, and so not missed.

use std::collections::BTreeMap;

use engine::log::{Key, SegmentRow};
use engine::rotate::stream_of;
use engine::segments::{Segments, Unavailable};
use protocol::error::ErrorCode;
use protocol::headers::name;
use protocol::name::Project;
use protocol::reconcile::{ObjectState, ReconcileReport, StoredObject};
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use worker::Env;

use crate::call::ask;
use crate::object::Inner;
use crate::request::query_values;
use crate::respond::{Body, Failure, Reply};
use crate::store::{Store, store};

/// Most objects of one page.
const PAGE_MAX: u32 = 500;

/// Rows of segments read at a time: each holds the ends of thousands of appends.
const ROWS: u32 = 64;

/// Deletion markers that are looked through.
const MARKERS_MAX: u32 = 100_000;

/// What a stream's object is asked: the store has exactly these of its names in a range.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    names: Vec<String>,
    /// The range begins after this name.
    after: Option<String>,
    /// The range ends with this name; without it, it does not end.
    until: Option<String>,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// One a name.
    states: Vec<ObjectState>,
    /// Names in the range that the stream references and that were not among the given ones.
    missing: Vec<String>,
}

impl Inner {
    /// Judges the names of this stream's objects.
    pub(crate) fn reconcile(&self, question: &Question) -> Result<Verdict, Failure> {
        let mut states: BTreeMap<&str, ObjectState> =
            question.names.iter().map(|name| (name.as_str(), ObjectState::Orphaned)).collect();
        let mut missing = Vec::new();
        let mut key: Option<Key> = None;
        loop {
            let rows = self.with_stream(|stream| stream.references(key, ROWS))??;
            let Some(last) = rows.last() else { break };
            key = Some(last.key);
            for SegmentRow { name, own, .. } in rows {
                if let Some(state) = states.get_mut(name.as_str()) {
                    *state = ObjectState::Referenced;
                } else if own && question.covers(&name) {
                    missing.push(name);
                }
            }
        }
        let marked = self.with_stream(|stream| stream.marked(MARKERS_MAX))??;
        for (name, state) in &mut states {
            if *state == ObjectState::Orphaned && marked.contains(*name) {
                *state = ObjectState::Marked;
            }
            if *state == ObjectState::Orphaned
                && self.with_stream(|stream| stream.is_intended(name))?
            {
                *state = ObjectState::Intended;
            }
        }
        let state = |name: &String| states.get(name.as_str()).copied();
        Ok(Verdict { states: question.names.iter().filter_map(state).collect(), missing })
    }
}

impl Question {
    fn covers(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after)
            && self.until.as_deref().is_none_or(|until| name <= until)
    }
}

/// `GET /v1/{project}/reconcile?after=&limit=`.
pub(crate) async fn report(
    project: &Project,
    query: &str,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let (after, limit) = parse(query)?;
    let store = store(env).map_err(unanswered)?;
    let report = page(project, after, limit, &store, env).await?;
    let text = serde_json::to_string(&report).unwrap_or_default();
    Reply::new(200)
        .header(name::CONTENT_TYPE, "application/json")
        .header(name::CACHE_CONTROL, "no-store")
        .body(Body::Text(text))
        .into_response()
        .map_err(|error| crate::respond::internal("reconciling", &error))
}

fn parse(query: &str) -> Result<(Option<String>, u32), Failure> {
    let invalid = |message: &str| Failure::new(ErrorCode::InvalidQuery, message);
    let [after, limit] = query_values(query, ["after", "limit"])?;
    let limit = match limit {
        None => PAGE_MAX,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| invalid("The limit is not a number from 1 to 500."))?,
    };
    Ok((after, limit))
}

fn unanswered(error: Unavailable) -> Failure {
    crate::respond::internal("listing the object store", &JsValue::from_str(&error.0));
    Failure::new(ErrorCode::Unavailable, "The object store did not answer; ask again.")
        .header(name::RETRY_AFTER, "1")
}

async fn page(
    project: &Project,
    after: Option<String>,
    limit: u32,
    store: &Store,
    env: &Env,
) -> Result<ReconcileReport, Failure> {
    let prefix = format!("{}/", project.as_str());
    let listed = store.list(&prefix, after.as_deref(), limit).await.map_err(unanswered)?;
    let next = listed.last().map(|last| last.name.clone());
    let mut report = ReconcileReport { next: next.clone(), ..ReconcileReport::default() };
    let mut by_stream: BTreeMap<&str, Vec<&engine::segments::Listed>> = BTreeMap::new();
    for object in &listed {
        by_stream.entry(stream_of(&object.name).unwrap_or_default()).or_default().push(object);
    }
    for (stream, objects) in by_stream {
        let names: Vec<String> = objects.iter().map(|object| object.name.clone()).collect();
        let states = if stream.is_empty() {
            names.iter().map(|_| ObjectState::Orphaned).collect()
        } else {
            let question = Question { names, after: after.clone(), until: next.clone() };
            let verdict: Verdict = ask(stream, "reconcile", &question, env).await?;
            for name in verdict.missing {
                if store.head(&name).await.map_err(unanswered)?.is_none() {
                    report.missing.push(name);
                }
            }
            verdict.states
        };
        for (object, state) in objects.into_iter().zip(states) {
            let gone = state == ObjectState::Orphaned
                && store.head(&object.name).await.map_err(unanswered)?.is_none();
            if !gone {
                report.objects.push(StoredObject {
                    name: object.name.clone(),
                    size: object.size,
                    state,
                });
            }
        }
    }
    Ok(report)
}
