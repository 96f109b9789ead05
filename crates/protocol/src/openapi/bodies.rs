//! Bodies: schemas of the types that are read and written, and the media types of requests.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Detail, ErrorCode};
use crate::registry::{AddSecret, ChangeProject, CreateProject};
use crate::routes::Operation;
use crate::sessions::{CreateSessionBody, SubscribeBatchBody, SubscribeBody, UnsubscribeBody};

/// What [`crate::error::ApiError::body`] writes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Error", description = "The body of an error response.")]
pub(super) struct ErrorBody {
    /// What went wrong.
    #[allow(dead_code)] // Read by tests and by the schema.
    pub(super) error: ErrorObject,
}

/// The error itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
#[allow(dead_code)] // Read by tests and by the schema.
pub(super) struct ErrorObject {
    /// What kind; programs decide by it.
    pub(super) code: ErrorCode,
    /// One sentence about this request.
    pub(super) message: String,
    /// Values for programs.
    #[serde(default)]
    pub(super) details: Option<BTreeMap<String, Detail>>,
}

impl JsonSchema for ErrorCode {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCode".into()
    }

    /// Every response lists its own codes, so all of them would stand here twice.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[A-Z_]+$"})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A reference to the schema of a type.
pub(super) fn schema_of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

/// The `requestBody` of an operation.
pub(super) fn request(operation: Operation, schemas: &mut SchemaGenerator) -> Option<Value> {
    let json = match operation {
        Operation::CreateStream => {
            return Some(content("The first content. What is no JSON value makes no JSON stream."));
        }
        Operation::AppendStream | Operation::Publish => {
            return Some(content(
                "What is appended, in the stream's media type. An array on a JSON stream is a batch \
                 of messages. Empty only to close.",
            ));
        }
        Operation::CreateSession => {
            let schema = schema_of::<CreateSessionBody>(schemas);
            return Some(json!({"content": {"application/json": {"schema": schema}}}));
        }
        Operation::Subscribe => schema_of::<SubscribeBody>(schemas),
        Operation::SubscribeBatch => schema_of::<SubscribeBatchBody>(schemas),
        Operation::Unsubscribe => schema_of::<UnsubscribeBody>(schemas),
        Operation::CreateProject => schema_of::<CreateProject>(schemas),
        Operation::ChangeConfig => schema_of::<ChangeProject>(schemas),
        Operation::AddSecret => schema_of::<AddSecret>(schemas),
        _ => return None,
    };
    Some(json!({"required": true, "content": {"application/json": {"schema": json}}}))
}

/// The body of a stream: any media type.
fn content(description: &str) -> Value {
    json!({
        "description": description,
        "content": {
            "application/json": {"schema": {}},
            "text/plain": {"schema": {"type": "string"}},
            "application/octet-stream": {"schema": {}},
            "*/*": {"schema": {}},
        },
    })
}
