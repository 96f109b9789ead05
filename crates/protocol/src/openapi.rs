//! The OpenAPI 3.1 document, made from the route table, the error codes and the types of the JSON
//! bodies.
//!
//! One entry a method and path; an operation that differs by its query only ([`StreamStats`]) shares
//! the entry of the one that has the path without it. What many operations share stands once, below
//! `components`. Members are in alphabetical order, so the same code makes the same text.
//!
//! **What stays out.** Frames of WebSockets, which OpenAPI cannot say: `docs/live.md` does.
//!
//! [`StreamStats`]: Operation::StreamStats

mod bodies;
mod headers;
mod parameters;
mod responses;
#[cfg(test)]
mod tests;

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};

use crate::routes::{Access, Operation, Resource};
use responses::Refusals;

const DESCRIPTION: &str = "Append-only streams at URLs. \
    `/v1/stream/{path}` is the same as `/v1/{project}/stream/{path}` in the project `_default`. \
    HEAD stands wherever GET does, OPTIONS everywhere; a method that a resource has not is 405 \
    `METHOD_NOT_ALLOWED` with `Allow`. Every response has `Cache-Control`, `no-store` unless said \
    otherwise, `X-Content-Type-Options: nosniff` and `Cross-Origin-Resource-Policy: cross-origin`, every \
    error `X-Request-Id`. With `Stream-Timing: true` a request gets `Server-Timing`; `traceparent` (W3C) \
    is logged. Where the deployment has no authorisation (`AUTH=none`), \
    nobody needs a token. WebSockets take theirs from the query or the subprotocol `bearer.TOKEN`.";

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    // Sizes and counts are JSON numbers to clients, whatever type holds them here.
    settings.transforms.push(Box::new(RecursiveTransform(|schema: &mut Schema| {
        if schema.get("type").is_some_and(|kind| kind == "integer") {
            schema.remove("format");
        }
    })));
    let mut schemas = settings.into_generator();
    let mut refusals = Refusals::default();
    let paths: Map<String, Value> = Resource::ALL
        .iter()
        .map(|resource| {
            (resource.template().to_owned(), path_item(*resource, &mut schemas, &mut refusals))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Durable streams",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "streams", "description": "Create, append, read, delete."},
            {"name": "sessions", "description": "One stream that carries the messages of many."},
            {"name": "projects", "description": "Tokens, origins and who may read, a project."},
            {"name": "service", "description": "The service itself."},
        ],
        "paths": paths,
        "components": {
            "parameters": parameters::components(),
            "headers": headers::components(),
            "responses": refusals.into_components(&mut schemas),
            "securitySchemes": {
                "bearer": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "HS256, signed with a secret of the project.",
                },
                "queryToken": {
                    "type": "apiKey", "in": "query", "name": "token",
                    "description": "The same token, for browsers' event streams and sockets.",
                },
                "adminToken": {
                    "type": "http", "scheme": "bearer",
                    "description": "The deployment's admin token.",
                },
            },
            "schemas": schemas.take_definitions(true),
        },
    })
}

fn path_item(resource: Resource, schemas: &mut SchemaGenerator, refusals: &mut Refusals) -> Value {
    let mut item = Map::new();
    item.insert("parameters".into(), parameters::of_path(resource));
    for operation in Operation::ALL.iter().filter(|operation| operation.resource() == resource) {
        let method = operation.method().to_lowercase();
        if item.contains_key(&method) {
            continue;
        }
        item.insert(method, entry(&sharing(*operation), schemas, refusals));
    }
    Value::Object(item)
}

/// The operations with the same method and path, this one first.
fn sharing(first: Operation) -> Vec<Operation> {
    let shares = |operation: &&Operation| {
        operation.resource() == first.resource() && operation.method() == first.method()
    };
    Operation::ALL.iter().filter(shares).copied().collect()
}

/// The entry of operations that share method and path.
fn entry(
    operations: &[Operation],
    schemas: &mut SchemaGenerator,
    refusals: &mut Refusals,
) -> Value {
    let Some((first, others)) = operations.split_first() else { return Value::Null };
    let mut entry = Map::new();
    entry.insert("operationId".into(), first.id().into());
    entry.insert("summary".into(), first.summary().into());
    entry.insert("tags".into(), json!([tag(first.resource())]));
    entry.insert("x-access".into(), first.access().as_str().into());
    entry.insert("security".into(), security(*first));
    if !others.is_empty() {
        entry.insert("x-variants".into(), others.iter().map(variant).collect());
    }
    let parameters = parameters::of_operation(*first);
    if !parameters.is_empty() {
        entry.insert("parameters".into(), parameters.into());
    }
    if let Some(body) = bodies::request(*first, schemas) {
        entry.insert("requestBody".into(), body);
    }
    let mut answers = responses::successes(*first, schemas);
    answers.extend(refusals.of(operations));
    entry.insert("responses".into(), answers.into());
    Value::Object(entry)
}

fn variant(operation: &Operation) -> Value {
    json!({
        "operationId": operation.id(),
        "summary": operation.summary(),
        "x-access": operation.access().as_str(),
    })
}

fn tag(resource: Resource) -> &'static str {
    match resource {
        Resource::Stream => "streams",
        Resource::Session
        | Resource::SessionTouch
        | Resource::Subscribe
        | Resource::SubscribeBatch
        | Resource::Unsubscribe
        | Resource::Publish => "sessions",
        Resource::Config | Resource::Secrets | Resource::Secret => "projects",
        Resource::Reconcile | Resource::Health | Resource::OpenApi => "service",
    }
}

fn security(operation: Operation) -> Value {
    match (operation.access(), operation) {
        (Access::Open, _) => json!([]),
        // Nothing at all is enough for what is public.
        (Access::Read, Operation::ReadStream) => json!([{"bearer": []}, {"queryToken": []}, {}]),
        (Access::Read, _) => json!([{"bearer": []}, {}]),
        (Access::Token | Access::Write | Access::Manage, _) => json!([{"bearer": []}]),
        (Access::Config, _) => json!([{"bearer": []}, {"adminToken": []}]),
        (Access::Admin, _) => json!([{"adminToken": []}]),
    }
}

/// A reference to something below `components`.
fn reference(kind: &str, key: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{key}")})
}
