//! Responses: what an operation answers when it succeeds, and its refusals.

use std::collections::{BTreeMap, BTreeSet};

use schemars::generate::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::bodies::{ErrorBody, schema_of};
use super::headers::{self, Use};
use super::reference;
use crate::error::ErrorCode;
use crate::health::Health;
use crate::reconcile::{ReconcileReport, SubscribersReport};
use crate::registry::{ProjectView, SecretView};
use crate::routes::Operation;
use crate::sessions::{BatchBody, SessionBody, SubscribedBody, TouchedBody, UnsubscribedBody};
use crate::stats::StreamStats;

/// Media types, each with its schema.
type Content = Option<Value>;

/// What succeeds, by status.
pub(super) fn successes(operation: Operation, schemas: &mut SchemaGenerator) -> Map<String, Value> {
    let of_json = |schema: Value| Some(json!({"application/json": {"schema": schema}}));
    let answers = match operation {
        Operation::CreateStream => creations(),
        Operation::AppendStream => appends(&[]),
        Operation::Publish => appends(&[
            ("Stream-Fanout-Count", false),
            ("Stream-Fanout-Successes", false),
            ("Stream-Fanout-Failures", false),
            ("Stream-Fanout-Mode", false),
        ]),
        Operation::CreateSession => {
            let view = of_json(schema_of::<SessionBody>(schemas));
            let created = [("Location", true)];
            vec![
                response(200, "It existed, with the same configuration.", &[], view.clone()),
                response(201, "Created.", &created, view),
            ]
        }
        Operation::ShowSession => {
            vec![response(200, "The session.", &[], of_json(schema_of::<SessionBody>(schemas)))]
        }
        Operation::TouchSession => {
            vec![response(200, "Its new end.", &[], of_json(schema_of::<TouchedBody>(schemas)))]
        }
        Operation::DeleteSession => vec![response(204, "Deleted.", &[], None)],
        Operation::Subscribe => {
            vec![response(200, "Subscribed.", &[], of_json(schema_of::<SubscribedBody>(schemas)))]
        }
        Operation::SubscribeBatch => {
            let results = of_json(schema_of::<BatchBody>(schemas));
            vec![response(200, "What became of each.", &[], results)]
        }
        Operation::Unsubscribe => {
            let ended = of_json(schema_of::<UnsubscribedBody>(schemas));
            vec![response(200, "There is no such subscription any more.", &[], ended)]
        }
        Operation::ReadStream | Operation::StreamStats => reads(schemas),
        Operation::HeadStream => vec![metadata()],
        Operation::DeleteStream => vec![response(204, "Deleted; the path is free.", &[], None)],
        Operation::ReadConfig | Operation::ChangeConfig => {
            let view = of_json(schema_of::<ProjectView>(schemas));
            vec![response(200, "The project.", &[], view)]
        }
        Operation::CreateProject => {
            let view = of_json(schema_of::<ProjectView>(schemas));
            vec![response(201, "Created.", &[], view)]
        }
        Operation::AddSecret => {
            let view = of_json(schema_of::<SecretView>(schemas));
            vec![
                response(200, "The project had it already.", &[], view.clone()),
                response(201, "Added.", &[], view),
            ]
        }
        Operation::RemoveSecret => vec![response(204, "Removed.", &[], None)],
        Operation::Reconcile => {
            let objects = schema_of::<ReconcileReport>(schemas);
            let subscribers = schema_of::<SubscribersReport>(schemas);
            let report = of_json(json!({"anyOf": [objects, subscribers]}));
            vec![response(200, "One page.", &[], report)]
        }
        Operation::Health => {
            let health = of_json(schema_of::<Health>(schemas));
            vec![response(200, "It runs.", &[], health)]
        }
        Operation::OpenApi => {
            vec![response(200, "This document.", &[], of_json(json!({"type": "object"})))]
        }
    };
    answers.into_iter().collect()
}

fn response(status: u16, description: &str, uses: &[Use], content: Content) -> (String, Value) {
    let mut response = Map::new();
    response.insert("description".into(), description.into());
    if !uses.is_empty() {
        response.insert("headers".into(), headers::of_response(uses).into());
    }
    if let Some(content) = content {
        response.insert("content".into(), content);
    }
    (status.to_string(), Value::Object(response))
}

fn creations() -> Vec<(String, Value)> {
    let uses = [("Stream-Next-Offset", true), ("Stream-Closed", false), ("Stream-Public", false)];
    let created = [&uses[..], &[("Location", true)]].concat();
    let any = || Some(json!({"*/*": {}}));
    vec![
        response(200, "It existed, with the same configuration.", &uses, any()),
        response(201, "Created.", &created, any()),
    ]
}

/// `more`: what a publish tells beside what every append does.
fn appends(more: &[Use]) -> Vec<(String, Value)> {
    let append: [Use; 4] = [
        ("Stream-Next-Offset", true),
        ("Stream-Closed", false),
        ("Producer-Epoch", false),
        ("Producer-Seq", false),
    ];
    let uses = [&append, more].concat();
    vec![
        response(200, "Appended, for a producer. No body.", &uses, None),
        response(204, "Appended, closed, or known from an earlier try.", &uses, None),
    ]
}

fn reads(schemas: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let page = [
        ("Cache-Control", true),
        ("Stream-Next-Offset", false),
        ("Stream-Up-To-Date", false),
        ("Stream-Closed", false),
        ("Stream-Public", false),
        ("Stream-Cursor", false),
        ("Stream-Cache", false),
        ("Stream-SSE-Data-Encoding", false),
        ("ETag", false),
    ];
    let waited = [
        ("Stream-Next-Offset", true),
        ("Stream-Up-To-Date", true),
        ("Stream-Closed", false),
        ("Stream-Public", false),
        ("Stream-Cursor", false),
        ("Stream-Cache", false),
    ];
    let unchanged = [
        ("Cache-Control", true),
        ("Stream-Next-Offset", true),
        ("Stream-Up-To-Date", false),
        ("Stream-Closed", false),
        ("Stream-Public", false),
        ("Stream-Cache", false),
        ("ETag", true),
    ];
    let content = json!({
        "application/json": {"schema": {"anyOf": [
            {"type": "array", "description": "Messages of a JSON stream."},
            schema_of::<StreamStats>(schemas),
        ]}},
        "text/event-stream": {"schema": {"type": "string"}},
        "*/*": {},
    });
    vec![
        // RFC 9110 wants headers in a 101 that no schema can say, and nothing reads them from here.
        ("101".to_owned(), json!({"description": "With `live=ws`: frames follow."})),
        response(
            200,
            "A page, an event stream (`live=sse`), or statistics (`stats`).",
            &page,
            Some(content),
        ),
        response(204, "A long-poll's time is over, or the stream has ended.", &waited, None),
        response(304, "The client has it (`If-None-Match`).", &unchanged, None),
    ]
}

fn metadata() -> (String, Value) {
    let uses = [
        ("Stream-Next-Offset", true),
        ("Stream-Closed", false),
        ("Stream-Public", false),
        ("Stream-TTL", false),
        ("Stream-Expires-At", false),
    ];
    response(200, "Metadata. No body.", &uses, None)
}

/// Codes with one status; HEAD answers them without a body.
type Kind = (u16, BTreeSet<ErrorCode>, bool);

/// The refusals of all operations: equal ones stand once.
#[derive(Default)]
pub(super) struct Refusals {
    names: BTreeMap<Kind, String>,
}

impl Refusals {
    /// References to what these operations may refuse with, by status.
    pub(super) fn of(&mut self, operations: &[Operation]) -> Map<String, Value> {
        let mut by_status: BTreeMap<u16, BTreeSet<ErrorCode>> = BTreeMap::new();
        for code in operations.iter().flat_map(|operation| operation.errors()) {
            by_status.entry(code.status()).or_default().insert(code);
        }
        let first = operations.first();
        let has_body = first.is_some_and(|operation| operation.method() != "HEAD");
        let id = first.map(|operation| operation.id()).unwrap_or_default();
        by_status
            .into_iter()
            .map(|(status, codes)| {
                let name = self.name((status, codes, has_body), id);
                (status.to_string(), reference("responses", &name))
            })
            .collect()
    }

    /// The name of a refusal: of its code if it is the only one, else of its first operation.
    fn name(&mut self, kind: Kind, id: &str) -> String {
        let (status, codes, has_body) = &kind;
        let name = match (codes.first(), codes.len(), has_body) {
            (Some(code), 1, true) => code.as_str().to_owned(),
            _ => format!("{id}{status}"),
        };
        self.names.entry(kind).or_insert(name).clone()
    }

    /// All of them, by name.
    pub(super) fn into_components(self, schemas: &mut SchemaGenerator) -> Map<String, Value> {
        let error = schema_of::<ErrorBody>(schemas);
        self.names.into_iter().map(|(kind, name)| (name, refusal(&kind, &error))).collect()
    }
}

fn refusal((status, codes, has_body): &Kind, error: &Value) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let description = match codes.first() {
        Some(code) if codes.len() == 1 => code.cause().to_owned(),
        _ if *has_body => "Refused; `code` says why.".to_owned(),
        _ => format!("`{}`.", names.join("`, `")),
    };
    let mut schema = error.as_object().cloned().unwrap_or_default();
    let own = json!({"error": {"properties": {"code": {"enum": names}}}});
    schema.insert("properties".into(), own);
    let content = has_body.then(|| json!({"application/json": {"schema": schema}}));
    response(*status, &description, &uses_of(*status, codes), content).1
}

/// The headers that belong to the codes.
fn uses_of(status: u16, codes: &BTreeSet<ErrorCode>) -> Vec<Use> {
    let mut uses = Vec::new();
    match status {
        401 => uses.push(("WWW-Authenticate", true)),
        426 => uses.push(("Upgrade", true)),
        429 | 503 => uses.push(("Retry-After", true)),
        _ => {}
    }
    if codes.contains(&ErrorCode::StaleEpoch) {
        uses.push(("Producer-Epoch", false));
    }
    if codes.contains(&ErrorCode::ProducerGap) {
        uses.extend([("Producer-Expected-Seq", false), ("Producer-Received-Seq", false)]);
    }
    if codes.contains(&ErrorCode::StreamClosed) {
        uses.extend([("Stream-Closed", false), ("Stream-Next-Offset", false)]);
    }
    uses
}
