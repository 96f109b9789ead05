//! The registry: what the deployment knows of its projects, in a KV namespace.
//!
//! A key is a project's name, a value its [`ProjectRecord`] as JSON. Records are kept per isolate for
//! at most [`FRESH_MS`], in a bounded map; so is the knowledge that there is none. A change made
//! through this isolate is seen by it at once, by others within that time and KV's own.
//!
//! # Error semantics
//! 500 `MISCONFIGURED` when the binding is missing, or a record cannot be read. While KV does not
//! answer, a record that was kept goes on for [`STALE_MS`]; then, and without one, it is 503. Neither is ever taken for "no such project".

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use protocol::body::parse_body;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use protocol::name::Project;
use protocol::registry::ProjectRecord;
use protocol::time::UnixMillis;
use worker::{Env, KvStore, console_error};

use crate::call::to_json;
use crate::js;
use crate::respond::{Failure, internal};

/// Name of the KV binding.
const BINDING: &str = "REGISTRY";

/// How long a record is used before it is read again.
const FRESH_MS: u64 = 60_000;

/// How long an unknown project stays unknown: it may have just been created.
const UNKNOWN_MS: u64 = 10_000;

/// How long a record that could be read before is used while KV does not answer.
const STALE_MS: u64 = 600_000;

/// Records that are kept, and names without one that are. Beyond it all of their kind are forgotten:
/// those in use come back with one read each, and made-up names cost no project its record.
const KEPT_MAX: usize = 1_024;

/// What is known of a project: its record, if it has one.
pub(crate) type Known = Option<Rc<ProjectRecord>>;

struct Kept {
    known: Known,
    until: UnixMillis,
}

thread_local! {
    static PROJECTS: RefCell<HashMap<Project, Kept>> = RefCell::default();
    static UNKNOWN: RefCell<HashMap<Project, Kept>> = RefCell::default();
}

/// What this isolate knows of a project without asking; `None` when it has to ask.
pub(crate) fn kept(project: &Project) -> Option<Known> {
    let fresh = |kept: &RefCell<HashMap<Project, Kept>>| {
        let kept = kept.try_borrow().ok()?;
        let entry = kept.get(project)?;
        (js::now() < entry.until).then(|| entry.known.clone())
    };
    PROJECTS.with(fresh).or_else(|| UNKNOWN.with(fresh))
}

/// What was known of a project before, when KV does not answer now.
fn stale(project: &Project) -> Option<Known> {
    PROJECTS.with(|kept| {
        let kept = kept.try_borrow().ok()?;
        let entry = kept.get(project)?;
        (js::now() < entry.until.saturating_add_ms(STALE_MS)).then(|| entry.known.clone())
    })
}

/// Remembers what was read or written.
fn keep(project: &Project, known: Known) {
    let fresh_ms = if known.is_some() { FRESH_MS } else { UNKNOWN_MS };
    let (into, out_of) =
        if known.is_some() { (&PROJECTS, &UNKNOWN) } else { (&UNKNOWN, &PROJECTS) };
    let entry = Kept { known, until: js::now().saturating_add_ms(fresh_ms) };
    into.with(|kept| {
        let Ok(mut kept) = kept.try_borrow_mut() else { return };
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(project.clone(), entry);
    });
    out_of.with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut() {
            kept.remove(project);
        }
    });
}

/// Reads a project's record.
pub(crate) async fn load(project: &Project, env: &Env) -> Result<Known, Failure> {
    let text = match namespace(env)?.get(project.as_str()).text().await {
        Ok(text) => text,
        Err(error) => {
            let failure = unavailable(error);
            return stale(project).ok_or(failure);
        }
    };
    let known = text.map(|text| parse(project, &text)).transpose()?.map(Rc::new);
    keep(project, known.clone());
    Ok(known)
}

/// Writes a project's record.
pub(crate) async fn save(
    project: &Project,
    record: ProjectRecord,
    env: &Env,
) -> Result<(), Failure> {
    let text = to_json(&record);
    let put = namespace(env)?.put(project.as_str(), text).map_err(unavailable)?;
    put.execute().await.map_err(unavailable)?;
    keep(project, Some(Rc::new(record)));
    Ok(())
}

/// The namespace.
pub(crate) fn namespace(env: &Env) -> Result<KvStore, ApiError> {
    env.kv(BINDING).map_err(|_| {
        let message = format!("The KV binding {BINDING} is missing.");
        ApiError::new(ErrorCode::Misconfigured, message)
    })
}

fn parse(project: &Project, text: &str) -> Result<ProjectRecord, Failure> {
    parse_body(text.as_bytes()).map_err(|_| {
        let message = format!("The registry's record of the project {project} cannot be read.");
        console_error!("{}", serde_json::json!({"event": "misconfigured", "cause": message}));
        ApiError::new(ErrorCode::Misconfigured, message).into()
    })
}

fn unavailable(error: worker::KvError) -> Failure {
    internal("calling the registry", &error.to_string().into());
    let message = "The registry did not answer; ask again.";
    Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1")
}
