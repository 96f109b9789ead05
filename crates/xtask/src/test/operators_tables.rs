//! Part of step `deploy-dry-run`: every binding and variable of wrangler.jsonc, and the variable of
//! every limit, stands in a table for operators.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use protocol::limits::Limits;
use serde_json::Value;

use super::{Context, Report};

/// Where operators look.
const DOCUMENTS: [&str; 2] = ["docs/deploy.md", "docs/api.md"];
/// Keys that name a binding.
const BINDING_KEYS: [&str; 2] = ["binding", "name"];
/// The member of an environment that holds variables.
const VARIABLES: &str = "vars";
/// Members that say `name` of something else than a binding, or hold whole environments.
const OTHERS: [&str; 2] = ["name", "env"];

pub(super) fn run(context: &Context) -> Result<Report> {
    let root = context.paths.root();
    let mut documented = BTreeSet::new();
    for document in DOCUMENTS {
        documented.extend(names_in_tables(&fs::read_to_string(root.join(document))?));
    }
    let configuration = fs::read_to_string(context.paths.wrangler().join("wrangler.jsonc"))?;
    let mut wanted = configured(&parse_jsonc(&configuration)?);
    wanted.extend(limits());
    let missing: Vec<&String> = wanted.difference(&documented).collect();
    let output = format!("in no table of {}: {missing:?}\n", DOCUMENTS.join(" or "));
    Ok(Report::single(missing.is_empty(), output))
}

/// The variable of every limit.
fn limits() -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::new());
    let unset = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    // Nothing is set, so nothing is wrong and every variable is asked for.
    let _ = Limits::from_vars(unset);
    asked.into_inner()
}

/// Bindings and variables of all environments.
fn configured(configuration: &Value) -> BTreeSet<String> {
    let environments = configuration.get("env").and_then(Value::as_object);
    let mut found = BTreeSet::new();
    for environment in environments.into_iter().flat_map(|all| all.values()).chain([configuration])
    {
        let variables = environment.get(VARIABLES).and_then(Value::as_object);
        found.extend(variables.into_iter().flat_map(|all| all.keys().cloned()));
        let members = environment.as_object().into_iter().flatten();
        for (_, member) in members.filter(|(name, _)| !OTHERS.contains(&name.as_str())) {
            collect_bindings(member, &mut found);
        }
    }
    found
}

fn collect_bindings(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect_bindings(value, found)),
        Value::Object(members) => {
            let names = BINDING_KEYS.iter().filter_map(|key| members.get(*key)?.as_str());
            found.extend(names.map(str::to_owned));
            members.values().for_each(|value| collect_bindings(value, found));
        }
        _ => {}
    }
}

/// The words in backticks in rows of Markdown tables.
fn names_in_tables(markdown: &str) -> BTreeSet<String> {
    let rows = markdown.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// JSON whose comments have lines of their own.
fn parse_jsonc(text: &str) -> Result<Value> {
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let lines: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
    serde_json::from_str(&lines.join("\n"))
        .context("wrangler.jsonc: comments need lines of their own, and commas end no list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_and_variables_of_every_environment_are_found() {
        let text = r#"{
            // "binding": "COMMENT"
            "name": "worker",
            "durable_objects": { "bindings": [{ "name": "STREAM", "class_name": "Class" }] },
            "vars": { "ONE": "1" },
            "env": {
                "staging": {
                    "kv_namespaces": [{ "binding": "REGISTRY", "id": "x" }],
                    "ratelimits": [{ "name": "RATE_LIMITER", "simple": { "limit": 1 } }],
                    "vars": { "TWO": "binding" }
                }
            }
        }"#;
        let found: Vec<String> = configured(&parse_jsonc(text).unwrap()).into_iter().collect();
        assert_eq!(found, ["ONE", "RATE_LIMITER", "REGISTRY", "STREAM", "TWO"]);
    }

    #[test]
    fn only_tables_count() {
        let names = names_in_tables("Set `A`.\n\n| name | `B`, `C` |\n|---|---|\n| `D` | e |\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["B", "C", "D"]);
    }

    #[test]
    fn limits_are_found() {
        assert!(limits().contains("BODY_BYTES_MAX") && limits().contains("WS_UNACKED_MAX"));
    }
}
