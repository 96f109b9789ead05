//! `cargo xtask reconcile`: the object store compared with the streams of a project, by the
//! operators' route of a running service; with `--source`, the subscribers of a stream compared with
//! their sessions ([`subscribers`]). Reads, prints, and deletes nothing.
//!
//! An object that no stream knows of costs storage; a segment that is not in the store is lost
//! data. Either makes the exit code 1.
//!
//! Where tokens are asked for, the variable `TOKEN` has one of the project with scope `manage`.

mod subscribers;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;

/// Objects of one page: the most that the route gives.
const PAGE: &str = "500";
/// A page asks every stream whose objects it lists.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);
/// How much of an answer that makes no sense is shown.
const SHOWN_CHARS_MAX: usize = 200;
/// States of an object, in the order of its life.
const STATES: [&str; 4] = ["intended", "referenced", "marked", ORPHANED];
const ORPHANED: &str = "orphaned";
const TOKEN: &str = "TOKEN";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The service, such as http://127.0.0.1:4437
    #[arg(long)]
    url: String,
    #[arg(long)]
    project: String,
    /// Path of a stream: compare its subscribers with their sessions instead
    #[arg(long, value_name = "PATH")]
    source: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let route = format!("{}/v1/{}/reconcile", args.url.trim_end_matches('/'), args.project);
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(PAGE_TIMEOUT))
        .build()
        .into();
    let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    let walk = Walk { agent, route, token };
    let (is_clean, json, words) = match &args.source {
        None => {
            let mut report = Report::default();
            walk.pages(("limit", PAGE), |page| report.add(page))?;
            (report.is_clean(), report.to_json(), report.in_words())
        }
        Some(source) => {
            let mut report = subscribers::Report::default();
            walk.pages(("source", source), |page| report.add(page))?;
            (report.is_clean(), report.to_json(), report.in_words())
        }
    };
    match args.json {
        true => println!("{json}"),
        false => print!("{words}"),
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All pages of one report.
struct Walk {
    agent: Agent,
    route: String,
    token: Option<String>,
}

impl Walk {
    /// Hands every page to `add`, which returns where the next one begins.
    fn pages(
        &self,
        query: (&str, &str),
        mut add: impl FnMut(&Value) -> Result<Option<String>>,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.page(query, after.as_deref())?;
            let bad = || bad(&self.route, &page.to_string());
            let Some(next) = add(&page).with_context(bad)? else { return Ok(()) };
            // A page that comes twice would come for ever.
            ensure!(seen.insert(next.clone()), bad());
            after = Some(next);
        }
    }

    fn page(&self, (name, value): (&str, &str), after: Option<&str>) -> Result<Value> {
        let route = &self.route;
        let mut request = self.agent.get(route).query(name, value);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(after) = after {
            request = request.query("after", after);
        }
        let mut response =
            request.call().with_context(|| format!("{route}: the service cannot be reached"))?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .read_to_string()
            .with_context(|| format!("{route}: the answer breaks off"))?;
        let body = serde_json::from_str::<Value>(&text);
        if status != 200 {
            let said = body
                .ok()
                .and_then(|body| Some(body.get("error")?.get("message")?.as_str()?.to_owned()));
            bail!("{route}: status {status}: {}", said.unwrap_or_else(|| shown(&text)));
        }
        body.with_context(|| bad(route, &text))
    }
}

fn bad(route: &str, text: &str) -> String {
    format!("{route}: not an answer of this route: {}", shown(text))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// All pages together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Objects and their bytes, by state.
    states: BTreeMap<String, (u64, u64)>,
    orphaned: Vec<String>,
    missing: Vec<String>,
}

impl Report {
    /// Adds a page and returns where the next one begins.
    fn add(&mut self, page: &Value) -> Result<Option<String>> {
        for object in list(page, "objects")? {
            let name = object.get("name").and_then(Value::as_str).context("no name")?;
            let size = object.get("size").and_then(Value::as_u64).context("no size")?;
            let state = object.get("state").and_then(Value::as_str).context("no state")?;
            ensure!(STATES.contains(&state), "a state `{state}`");
            let (objects, bytes) = self.states.entry(state.to_owned()).or_default();
            *objects += 1;
            *bytes += size;
            if state == ORPHANED {
                self.orphaned.push(name.to_owned());
            }
        }
        for name in list(page, "missing")? {
            self.missing.push(name.as_str().context("a name that is no text")?.to_owned());
        }
        next_of(page)
    }

    fn is_clean(&self) -> bool {
        self.orphaned.is_empty() && self.missing.is_empty()
    }

    fn count(&self, state: &str) -> (u64, u64) {
        self.states.get(state).copied().unwrap_or_default()
    }

    fn in_words(&self) -> String {
        let mut text = String::new();
        for state in STATES {
            let (objects, bytes) = self.count(state);
            text.push_str(&format!("{state:<12}{objects:>10} objects {bytes:>16} bytes\n"));
        }
        text.push_str(&format!("{:<12}{:>10} objects\n", "missing", self.missing.len()));
        for (state, names) in [(ORPHANED, &self.orphaned), ("missing", &self.missing)] {
            for name in names {
                text.push_str(&format!("{state} {name}\n"));
            }
        }
        text
    }

    fn to_json(&self) -> Value {
        let states = STATES.map(|state| {
            let (objects, bytes) = self.count(state);
            (state.to_owned(), json!({ "objects": objects, "bytes": bytes }))
        });
        json!({
            "states": states.into_iter().collect::<serde_json::Map<_, _>>(),
            "orphaned": self.orphaned,
            "missing": self.missing,
        })
    }
}

/// Where the next page begins, if there is one.
fn next_of(page: &Value) -> Result<Option<String>> {
    match page.get("next").context("no `next`")? {
        Value::Null => Ok(None),
        next => Ok(Some(next.as_str().context("a `next` that is no name")?.to_owned())),
    }
}

fn list<'a>(page: &'a Value, name: &str) -> Result<&'a [Value]> {
    let list = page.get(name).and_then(Value::as_array);
    Ok(list.with_context(|| format!("no list `{name}`"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_add_up() {
        let mut report = Report::default();
        let object = |name, state| json!({"name": name, "size": 10, "state": state});
        let first = json!({
            "objects": [object("p/a//1/0.1", "referenced"), object("p/a//1/9.2", "orphaned")],
            "missing": [], "next": "p/a//1/9.2",
        });
        let last = json!({
            "objects": [object("p/b//1/0.1", "referenced")],
            "missing": ["p/b//1/5.2"], "next": null,
        });
        assert_eq!(report.add(&first).unwrap().as_deref(), Some("p/a//1/9.2"));
        assert!(!report.is_clean());
        assert_eq!(report.add(&last).unwrap(), None);
        assert_eq!(report.count("referenced"), (2, 20));
        assert_eq!(report.count("intended"), (0, 0));
        assert_eq!(report.orphaned, ["p/a//1/9.2"]);
        assert_eq!(report.missing, ["p/b//1/5.2"]);
        assert!(report.in_words().ends_with("orphaned p/a//1/9.2\nmissing p/b//1/5.2\n"));
        assert_eq!(report.to_json()["states"]["orphaned"]["objects"], 1);
    }

    #[test]
    fn an_empty_project_is_clean() {
        let mut report = Report::default();
        let page = json!({"objects": [], "missing": [], "next": null});
        assert_eq!(report.add(&page).unwrap(), None);
        assert!(report.is_clean());
    }

    #[test]
    fn other_answers_are_errors() {
        let pages = [
            json!({}),
            json!([]),
            json!({"objects": [], "missing": []}),
            json!({"objects": [], "missing": [], "next": 1}),
            json!({"objects": [], "missing": [1], "next": null}),
            json!({"objects": [{"name": "x", "size": 1, "state": "x"}], "missing": [], "next": null}),
            json!({"objects": [{"name": "x"}], "missing": [], "next": null}),
        ];
        for page in pages {
            assert!(Report::default().add(&page).is_err(), "{page}");
        }
    }
}
