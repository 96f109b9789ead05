//! What stands in the headers of responses.
//!
//! Those that every response carries are told in the description of the service, not in each one.

use serde_json::{Map, Value, json};

use super::reference;

/// A name, and whether it is always there.
pub(super) type Use = (&'static str, bool);

/// The `headers` of a response.
pub(super) fn of_response(uses: &[Use]) -> Map<String, Value> {
    let of =
        |(name, required): &Use| ((*name).to_owned(), reference("headers", &key(name, *required)));
    uses.iter().map(of).collect()
}

/// A header that may be missing and one that may not are two components.
fn key(name: &str, required: bool) -> String {
    if required { name.to_owned() } else { format!("{name}.optional") }
}

/// Every header, in the forms that are used.
pub(super) fn components() -> Map<String, Value> {
    let mut components = Map::new();
    for (name, required, optional, schema, description) in every() {
        let mut header = Map::new();
        header.insert("schema".into(), schema);
        header.insert("description".into(), description.into());
        if optional {
            components.insert(key(name, false), Value::Object(header.clone()));
        }
        if required {
            header.insert("required".into(), true.into());
            components.insert(key(name, true), Value::Object(header));
        }
    }
    components
}

/// Name, whether it is used as required, as optional, schema, description.
type Header = (&'static str, bool, bool, Value, &'static str);

fn every() -> Vec<Header> {
    [of_streams(), of_publishing(), of_errors()].into_iter().flatten().collect()
}

fn of_streams() -> Vec<Header> {
    let offset = json!({"type": "string", "pattern": "^[0-9]{16}_[0-9]{16}$"});
    let integer = || json!({"type": "integer", "minimum": 0});
    let yes = || json!({"const": "true"});
    let text = || json!({"type": "string"});
    vec![
        ("Cache-Control", true, false, text(), "RFC 9111."),
        ("Stream-Next-Offset", true, true, offset, "Read on from here."),
        ("Stream-Up-To-Date", true, true, yes(), "This is all there is at the moment."),
        ("Stream-Closed", false, true, yes(), "This is all there will ever be."),
        ("Stream-Cursor", false, true, text(), "Echo it as `cursor`."),
        ("Stream-Public", false, true, yes(), "Readable without a token."),
        ("Stream-TTL", false, true, integer(), "Sliding lifetime in seconds."),
        (
            "Stream-Expires-At",
            false,
            true,
            json!({"type": "string", "format": "date-time"}),
            "Fixed end.",
        ),
        (
            "Stream-SSE-Data-Encoding",
            false,
            true,
            json!({"const": "base64"}),
            "How data events carry bytes.",
        ),
        (
            "Stream-Cache",
            false,
            true,
            text(),
            "Whether the edge had it: `hit`, `coalesced`, `miss` or `bypass`.",
        ),
        ("ETag", true, true, text(), "Names exactly these bytes."),
        ("Location", true, false, text(), "URL of what was created."),
        ("Producer-Epoch", false, true, integer(), "The producer's current epoch."),
        ("Producer-Seq", false, true, integer(), "The highest accepted."),
    ]
}

fn of_publishing() -> Vec<Header> {
    let integer = || json!({"type": "integer", "minimum": 0});
    let mode = json!({"enum": ["inline", "queued", "deferred"]});
    vec![
        ("Stream-Fanout-Count", false, true, integer(), "Subscribers."),
        ("Stream-Fanout-Successes", false, true, integer(), "Those that have it."),
        ("Stream-Fanout-Failures", false, true, integer(), "Those that will get it later."),
        ("Stream-Fanout-Mode", false, true, mode, "How the rest is delivered."),
    ]
}

fn of_errors() -> Vec<Header> {
    let integer = || json!({"type": "integer", "minimum": 0});
    vec![
        ("Producer-Expected-Seq", false, true, integer(), "Send again from here."),
        ("Producer-Received-Seq", false, true, integer(), "What came instead."),
        ("Retry-After", true, false, json!({"type": "integer", "minimum": 1}), "Seconds."),
        ("Upgrade", true, false, json!({"const": "websocket"}), "What the read needs."),
        ("WWW-Authenticate", true, false, json!({"const": "Bearer"}), "What is missing."),
    ]
}
