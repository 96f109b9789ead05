//! Events that an operator counts: each is a line of JSON on the console and, where the deployment
//! binds a dataset, a data point of Workers Analytics Engine.
//!
//! A data point has the event and the stream as blobs, one number, and the project as its index.

use std::cell::OnceCell;

use js_sys::{Array, Object, Reflect};
use serde_json::{Map, Value};
use wasm_bindgen::prelude::*;
use worker::{Env, console_error, console_log};

/// Name of the Analytics Engine binding; a deployment may do without.
const METRICS_BINDING: &str = "METRICS";

#[wasm_bindgen]
extern "C" {
    type Dataset;

    #[wasm_bindgen(method, catch, js_name = writeDataPoint)]
    fn write(this: &Dataset, point: &JsValue) -> Result<(), JsValue>;
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It happens.
    Info,
    /// Somebody should look.
    Error,
}

/// The dataset, if the deployment binds one.
pub(crate) fn dataset(env: &Env) -> Option<JsValue> {
    thread_local! {
        /// The bindings are the same for the whole life of the isolate.
        static DATASET: OnceCell<JsValue> = const { OnceCell::new() };
    }
    let find = || Reflect::get(env, &METRICS_BINDING.into()).unwrap_or(JsValue::UNDEFINED);
    let dataset = DATASET.with(|known| known.get_or_init(find).clone());
    (!dataset.is_undefined()).then_some(dataset)
}

/// Tells of an event. `stream` is an object name, `{project}/{path}`; `number` is what is counted:
/// bytes, objects, or 1.
pub fn event(
    env: &Env,
    (level, event): (Level, &'static str),
    stream: &str,
    number: u64,
    details: &[(&'static str, Value)],
) {
    let mut line = Map::new();
    line.insert("event".into(), event.into());
    line.insert("stream".into(), stream.into());
    line.insert("number".into(), number.into());
    line.extend(details.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let line = Value::from(line);
    match level {
        Level::Info => console_log!("{line}"),
        Level::Error => console_error!("{line}"),
    }
    let Some(dataset) = dataset(env) else { return };
    let project = stream.split('/').next().unwrap_or_default();
    let point = Object::new();
    let blobs: Array = [event, stream].iter().map(|text| JsValue::from_str(text)).collect();
    let doubles = Array::of1(&(number as f64).into());
    let properties =
        [("blobs", blobs), ("doubles", doubles), ("indexes", Array::of1(&project.into()))];
    for (name, value) in properties {
        // A fresh object takes any property.
        let _ = Reflect::set(&point, &name.into(), &value);
    }
    // A point that is not written is missed in a chart; the line on the console is there.
    let _ = dataset.unchecked_into::<Dataset>().write(&point);
}
