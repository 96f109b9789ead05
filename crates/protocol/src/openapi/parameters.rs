//! What stands in a request's URL and headers.
//!
//! Those that every request may carry are told in the description of the service. `Content-Type` and
//! `Authorization` are no parameters in OpenAPI: media types of the body and security schemes say
//! them.

use serde_json::{Map, Value, json};

use super::reference;
use crate::limits::{
    PRODUCER_ID_BYTES_MAX, PROJECT_BYTES_MAX, SAFE_INTEGER_MAX, SESSION_ID_BYTES_MAX,
    STREAM_PATH_BYTES_MAX, STREAM_SEQ_BYTES_MAX, TTL_SECONDS_MAX,
};
use crate::routes::{Operation, Resource};

/// Where a parameter stands.
#[derive(Clone, Copy)]
enum Place {
    Path,
    Query,
    Header,
}

/// References to the parameters in the URL path.
pub(super) fn of_path(resource: Resource) -> Value {
    let keys: &[&str] = match resource {
        Resource::Stream | Resource::Publish => &["project", "path"],
        Resource::Session | Resource::SessionTouch => &["project", "session"],
        Resource::Subscribe
        | Resource::SubscribeBatch
        | Resource::Unsubscribe
        | Resource::Config
        | Resource::Secrets
        | Resource::Reconcile => &["project"],
        Resource::Secret => &["project", "id"],
        Resource::Health | Resource::OpenApi => &[],
    };
    references(keys).into()
}

/// References to what an operation takes beside that.
pub(super) fn of_operation(operation: Operation) -> Vec<Value> {
    references(match operation {
        Operation::CreateStream => &[
            "Stream-TTL",
            "Stream-Expires-At",
            "Stream-Closed",
            "Stream-Public",
            "Stream-Forked-From",
            "Stream-Fork-Offset",
            "Stream-Fork-Sub-Offset",
        ],
        Operation::AppendStream | Operation::Publish => {
            &["Stream-Closed", "Stream-Seq", "Producer-Id", "Producer-Epoch", "Producer-Seq"]
        }
        Operation::ReadStream => &["offset", "live", "cursor", "credit", "stats", "If-None-Match"],
        Operation::Reconcile => &["source", "after", "limit"],
        _ => &[],
    })
}

fn references(keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| reference("parameters", key)).collect()
}

/// Every parameter; the key is its name.
pub(super) fn components() -> Map<String, Value> {
    [in_path(), of_read(), of_creation(), of_append()].into_iter().flatten().collect()
}

type Named = (String, Value);

fn in_path() -> Vec<Named> {
    let project = json!({
        "type": "string",
        "pattern": format!("^[A-Za-z0-9_-]{{1,{PROJECT_BYTES_MAX}}}$"),
        "not": {"const": "stream"},
    });
    // A slash would be percent-encoded by whoever fills the template in, and refused.
    let path = json!({
        "type": "string",
        "minLength": 1,
        "maxLength": STREAM_PATH_BYTES_MAX,
        "pattern": "^[^/\\\\\\u0000-\\u001f\\u007f-\\u009f]+$",
        "not": {"enum": [".", ".."]},
    });
    let mut path = parameter(
        Place::Path,
        "path",
        path,
        "The stream: one or more segments joined by `/`, at most 512 bytes of UTF-8. The pattern is \
         that of one segment.",
    );
    if let Some(parameter) = path.1.as_object_mut() {
        parameter.insert("style".into(), "simple".into());
        parameter.insert("x-multi-segment".into(), true.into());
    }
    vec![
        parameter(Place::Path, "project", project, "The project."),
        path,
        parameter(
            Place::Path,
            "session",
            json!({
                "type": "string",
                "pattern": format!("^[A-Za-z0-9_:.-]{{1,{SESSION_ID_BYTES_MAX}}}$"),
                "not": {"enum": [".", ".."]},
            }),
            "The session.",
        ),
        parameter(
            Place::Path,
            "id",
            json!({"type": "string", "pattern": "^[0-9a-f]{16}$"}),
            "Id of the secret.",
        ),
    ]
}

fn of_read() -> Vec<Named> {
    vec![
        parameter(
            Place::Query,
            "offset",
            offset(),
            "`-1` or absent: the start. `now`: the tail. Else an offset that the server returned. \
             Live reads name one.",
        ),
        parameter(
            Place::Query,
            "live",
            json!({"enum": ["long-poll", "sse", "ws"]}),
            "Absent: catch up. `ws` needs `Upgrade: websocket`.",
        ),
        parameter(
            Place::Query,
            "cursor",
            json!({"type": "string"}),
            "The last `Stream-Cursor`, on live reads.",
        ),
        parameter(
            Place::Query,
            "credit",
            json!({"type": "integer", "minimum": 0, "maximum": SAFE_INTEGER_MAX}),
            "With `ws`: data frames that the client takes.",
        ),
        parameter(
            Place::Query,
            "stats",
            json!({"const": ""}),
            "Ask for statistics instead of data; takes the scope `manage`.",
        ),
        parameter(
            Place::Query,
            "source",
            json!({"type": "string", "minLength": 1}),
            "Path of a stream: compare its subscribers with their sessions instead.",
        ),
        parameter(Place::Query, "after", json!({"type": "string"}), "`next` of the page before."),
        parameter(
            Place::Query,
            "limit",
            json!({"type": "integer", "minimum": 1, "maximum": 500}),
            "Objects of a page; not with `source`.",
        ),
        parameter(
            Place::Header,
            "If-None-Match",
            json!({"type": "string"}),
            "Entity tags that the client has, or `*`.",
        ),
    ]
}

fn of_creation() -> Vec<Named> {
    let ttl = json!({"type": "integer", "minimum": 0, "maximum": TTL_SECONDS_MAX});
    vec![
        parameter(Place::Header, "Stream-TTL", ttl, "Sliding lifetime in seconds."),
        parameter(
            Place::Header,
            "Stream-Expires-At",
            json!({"type": "string", "format": "date-time"}),
            "Fixed end. Not with `Stream-TTL`.",
        ),
        parameter(Place::Header, "Stream-Public", flag(), "`true`: readable without a token."),
        parameter(
            Place::Header,
            "Stream-Forked-From",
            json!({"type": "string", "pattern": "^/v1/"}),
            "URL path of the source, in the same project.",
        ),
        parameter(
            Place::Header,
            "Stream-Fork-Offset",
            offset(),
            "Fork up to this offset; default: the source's tail.",
        ),
        parameter(
            Place::Header,
            "Stream-Fork-Sub-Offset",
            integer(),
            "Messages (JSON) past that offset, or bytes of the append that follows it.",
        ),
    ]
}

fn of_append() -> Vec<Named> {
    let printable = |bytes_max: usize| json!({"type": "string", "minLength": 1, "maxLength": bytes_max, "pattern": "^[!-~]+$"});
    vec![
        parameter(Place::Header, "Stream-Closed", flag(), "`true` closes."),
        parameter(
            Place::Header,
            "Stream-Seq",
            printable(STREAM_SEQ_BYTES_MAX),
            "The application's own order, compared as bytes.",
        ),
        parameter(
            Place::Header,
            "Producer-Id",
            printable(PRODUCER_ID_BYTES_MAX),
            "Exactly-once appends: all three producer headers, or none.",
        ),
        parameter(Place::Header, "Producer-Epoch", integer(), "Which run of the producer."),
        parameter(Place::Header, "Producer-Seq", integer(), "Which request of the run."),
    ]
}

fn parameter(place: Place, name: &str, schema: Value, description: &str) -> Named {
    let mut parameter = Map::new();
    let word = match place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    parameter.insert("in".into(), word.into());
    parameter.insert("name".into(), name.into());
    if matches!(place, Place::Path) {
        parameter.insert("required".into(), true.into());
    }
    parameter.insert("schema".into(), schema);
    parameter.insert("description".into(), description.into());
    (name.to_owned(), Value::Object(parameter))
}

fn offset() -> Value {
    json!({"type": "string", "pattern": "^(-1|now|[0-9]{16}_[0-9]{16})$"})
}

fn integer() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": SAFE_INTEGER_MAX})
}

/// Anything but `true` counts as absent.
fn flag() -> Value {
    json!({"enum": ["true", "false"]})
}
