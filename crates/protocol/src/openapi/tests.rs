//! The document holds together, and says what the tables say.

use std::collections::BTreeSet;

use super::*;
use crate::error::{ApiError, ErrorCode};
use bodies::ErrorBody;

/// What a Worker carries for the document; it is compressed on its way to the client only.
const BYTES_MAX: usize = 64 * 1024;

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(target) if name == "$ref" => {
                        found.insert(target.to_owned());
                    }
                    _ => references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = document();
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for target in &used {
        assert!(document.pointer(&target[1..]).is_some(), "{target}");
    }
    for kind in ["parameters", "headers", "responses", "schemas"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(used.contains(&format!("#/components/{kind}/{name}")), "{kind}/{name}");
        }
    }
}

#[test]
fn every_operation_has_its_entry() {
    let document = document();
    for operation in Operation::ALL {
        let method = operation.method().to_lowercase();
        let entry = &document["paths"][operation.resource().template()][&method];
        let (ids, accesses) = match operation {
            Operation::StreamStats => {
                (&entry["x-variants"][0]["operationId"], &entry["x-variants"][0]["x-access"])
            }
            _ => (&entry["operationId"], &entry["x-access"]),
        };
        assert_eq!(ids, operation.id());
        assert_eq!(accesses, operation.access().as_str());
        for code in operation.errors() {
            let target = entry["responses"][code.status().to_string()]["$ref"].as_str().unwrap();
            let text = document.pointer(&target[1..]).unwrap().to_string();
            assert!(
                text.contains(code.as_str()) || text.contains(code.cause()),
                "{target}: {code}"
            );
        }
    }
}

#[test]
fn the_schema_of_errors_is_that_of_their_bodies() {
    for code in ErrorCode::ALL {
        let body: ErrorBody = serde_json::from_str(code.example()).unwrap();
        assert_eq!(body.error.code, *code);
    }
    let error = ApiError::new(ErrorCode::ProducerGap, "gap").with("expectedSeq", 1).with("a", true);
    assert!(serde_json::from_str::<ErrorBody>(&error.body()).is_ok());
}

#[test]
fn it_is_small_and_always_the_same() {
    let text = document().to_string();
    assert_eq!(text, document().to_string());
    assert!(text.len() < BYTES_MAX, "{} bytes", text.len());
    assert!(!text.contains("[`"), "a link of rustdoc");
}
